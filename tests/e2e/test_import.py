"""Policies of API Management, taken over by the command line: in Envoy they do what the XML says."""

import json
import subprocess
import time

import pytest
import yaml

from .harness import APP_BATCH, APP_CHAT, APP_OTHER, AUDIENCE, shipped_config, shipped_policy
from .harness.gateway import CHAT_BODY, CHAT_PATH, JSON_TYPE, cluster, fit, plugin
from .harness.identities import OTHER_TENANT
from .harness.processes import ROOT, cli_binary, envoy_binary, envoy_version, module

SAMPLES = ROOT / "tests" / "cli" / "samples"
VALUES = SAMPLES / "named-values.json"

# What the samples answer to bad tokens, in the shape of API Management's errors.
FORBIDDEN = (403, {"statusCode": 403, "message": "Forbidden"})


def run_import(sample: str, *arguments: object) -> dict:
    """The policy that `tollgate import apim` makes of a sample, with nothing lost."""
    command = [cli_binary(), "import", "apim", SAMPLES / f"{sample}.xml", "--named-values", VALUES, "--strict"]
    done = subprocess.run([str(part) for part in [*command, *arguments]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def imported(sample: str, stand_ins) -> dict:
    """The same for the stand-ins: nothing but the sign-in host is another."""
    policy = run_import(sample)
    policy["issuers"][0]["authority"] = stand_ins.entra.authority
    return policy


@pytest.fixture(scope="module", params=["tenant-and-audience", "limits-per-application"])
def sample(request) -> str:
    return request.param


def requests(entra) -> dict[str, tuple[str | None, bool]]:
    """Tokens by name, and whether validate-jwt of the samples lets them through."""
    now = int(time.time())
    plain = entra.mint(APP_OTHER)
    return {
        "v1": (plain, True),
        "v2": (entra.mint(APP_OTHER, version=2), True),
        "a slash at the end of the audience": (entra.mint(APP_OTHER, audience=AUDIENCE + "/"), True),
        "no token": (None, False),
        "no token at all": ("", False),
        "another tenant": (entra.mint(APP_OTHER, tenant=OTHER_TENANT), False),
        "another audience": (entra.mint(APP_OTHER, audience="https://graph.microsoft.com"), False),
        "a resource of the audience's host": (entra.mint(APP_OTHER, audience=AUDIENCE + "/x"), False),
        "expired": (entra.mint(APP_OTHER, claims={"exp": now - 3600}), False),
        # API Management allows for no skew unless told so.
        "expired a moment ago": (entra.mint(APP_OTHER, claims={"exp": now - 5}), False),
        "not yet valid": (entra.mint(APP_OTHER, claims={"nbf": now + 3600}), False),
        "no expiry": (entra.mint(APP_OTHER, claims={"exp": None}), False),
        "an issuer that is not listed": (entra.mint(APP_OTHER, claims={"iss": "https://evil.example/"}), False),
        "a foreign key": (entra.mint(APP_OTHER, key="foreign"), False),
        "unsigned": (entra.mint(APP_OTHER, alg="none"), False),
        "cut": (plain[:-20], False),
        "garbage": ("garbage", False),
    }


def test_tokens_pass_as_the_xml_says(start_gateway, stand_ins, sample):
    gateway = start_gateway(stand_ins, imported(sample, stand_ins))
    for name, (token, passes) in requests(stand_ins.entra).items():
        answer = gateway.chat(token)
        if passes:
            assert answer.status == 200, name
        else:
            assert (answer.status, answer.json) == FORBIDDEN, name


def test_calls_with_status_200_count_for_their_application(start_gateway, stand_ins):
    """`batch` has one call in 60 s, `chat` ten, others as many as they like."""
    gateway = start_gateway(stand_ins, imported("limits-per-application", stand_ins))
    batch, chat = stand_ins.entra.mint(APP_BATCH), stand_ins.entra.mint(APP_CHAT, version=2)

    # What the backend fails does not count.
    for status in (404, 429, 500, 201):
        assert gateway.chat(batch, [("x-stand-in-status", str(status))]).status == status
    assert gateway.chat(batch).status == 200
    refused = gateway.chat(batch)
    assert refused.status == 429
    assert 0 < int(refused.header("retry-after")) <= 61
    assert set(refused.json) == {"statusCode", "message"}
    assert refused.json["message"].startswith("Rate limit is exceeded. Try again in ")

    statuses = [gateway.chat(chat).status for _ in range(12)]
    assert statuses == [200] * 10 + [429] * 2
    other = stand_ins.entra.mint(APP_OTHER)
    assert {gateway.chat(other).status for _ in range(20)} == {200}
    # One application's calls are nothing to another's.
    assert gateway.chat(batch).status == 429


def test_a_denied_call_takes_no_place(start_gateway, stand_ins):
    gateway = start_gateway(stand_ins, imported("limits-per-application", stand_ins))
    late = stand_ins.entra.mint(APP_BATCH, claims={"exp": int(time.time()) - 3600})
    assert {gateway.chat(late).status for _ in range(3)} == {403}
    assert gateway.chat(stand_ins.entra.mint(APP_BATCH)).status == 200


def test_tokens_quotas_and_listed_applications(start_gateway, stand_ins):
    """Two applications may call: 40 tokens a minute for each, and two calls a day for `chat`."""
    gateway = start_gateway(stand_ins, imported("token-limits", stand_ins))
    assert gateway.chat(stand_ins.entra.mint(APP_OTHER)).status == 401

    # The call that goes over the limit passes, and the next one does not.
    batch = stand_ins.entra.mint(APP_BATCH)
    used = []
    while (answer := gateway.chat(batch)).status == 200:
        used.append(answer.json["usage"]["total_tokens"])
        assert len(used) < 20
    assert sum(used[:-1]) < 40 <= sum(used)
    assert answer.status == 429 and 0 < int(answer.header("retry-after")) <= 61
    assert answer.json["message"].startswith("Token limit is exceeded. Try again in ")

    chat = stand_ins.entra.mint(APP_CHAT, version=2)
    assert [gateway.chat(chat).status for _ in range(2)] == [200, 200]
    refused = gateway.chat(chat)
    assert (refused.status, refused.json["statusCode"]) == (403, 403)
    assert refused.json["message"].startswith("Out of call volume quota.")


def test_envoy_takes_the_pieces(directory, sample):
    """What the policy needs of Envoy is a configuration that Envoy accepts, in place of the shipped clusters."""
    directory.mkdir(parents=True, exist_ok=True)
    pieces = directory / "pieces.yaml"
    policy = run_import(sample, "--envoy", pieces)
    config = shipped_config()
    clusters = yaml.safe_load(pieces.read_text())["static_resources"]["clusters"]
    assert [one["name"] for one in clusters] == ["entra"]
    config["static_resources"]["clusters"] = [*clusters, *(cluster(config, name) for name in ("azure_openai", "public"))]
    plugin(config)["vm_config"]["code"]["local"]["filename"] = str(module())
    plugin(config)["configuration"]["value"] = json.dumps(policy)
    path = directory / "envoy.yaml"
    path.write_text(yaml.safe_dump(fit(config, envoy_version()), sort_keys=False))
    command = [envoy_binary(), "--mode", "validate", "-c", path, "--use-dynamic-base-id"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]


def test_check_and_explain_agree_with_envoy(start_gateway, stand_ins, directory):
    """The command line tells of each request what Envoy does with it, status and body."""
    policy = imported("tenant-and-audience", stand_ins)
    policy["default_app"] = {"roles": ["Cognitive Services OpenAI User"]}
    gateway = start_gateway(stand_ins, policy)
    file = directory / "policy.json"
    file.write_text(json.dumps(policy))
    cases = [("POST", CHAT_PATH), ("GET", "/openai/models"), ("DELETE", "/openai/deployments/gpt-4o")]
    for name, (token, _) in requests(stand_ins.entra).items():
        for method, path in cases:
            headers = [] if method != "POST" else [JSON_TYPE]
            body = CHAT_BODY if method == "POST" else None
            answer = gateway.request(method, path, token=token, headers=headers, body=body)
            command = [cli_binary(), "explain", file, "--fetch", "--format", "json"]
            command += ["--method", method, "--path", path]
            if token:
                command += ["--token-file", "-"]
            command = [str(part) for part in command]
            done = subprocess.run(command, input=token or "", capture_output=True, text=True)
            assert done.returncode in (0, 1), (name, done.stderr)
            explained = json.loads(done.stdout)
            from_gate = answer.header("x-stand-in") is None
            assert explained["allowed"] == (not from_gate), (name, method, answer, explained)
            if from_gate:
                told = explained["answer"]
                assert (told["status"], told["body"]) == (answer.status, answer.body.decode()), (name, method)


def test_the_shipped_policy_passes_check(stand_ins, directory):
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "policy.json"
    file.write_text(json.dumps(shipped_policy(stand_ins)))
    done = subprocess.run([str(cli_binary()), "check", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
