"""What Envoy does with a policy. Row I5; R23, R24."""

import base64
import json
import subprocess

import pytest
import yaml

from .harness import APP_CHAT, GatewayRefused, new_app, shipped_config, shipped_policy
from .harness.figures import figure
from .harness.gateway import fit, plugin, set_policy
from .harness.processes import envoy_binary, envoy_version, module

PASSES = (200, None)


def bad_policies(good: dict) -> dict[str, tuple[object, str]]:
    """Policies to refuse, by name, with words that the log must hold."""
    issuer, app = good["issuers"][0], good["apps"][0]

    def issuer_with(**members):
        return {**good, "issuers": [{**issuer, **members}]}

    def app_with(**members):
        return {**good, "apps": [{**app, **members}]}

    def limit_with(**members):
        return app_with(limits=[{"calls": 1, "per": "60s", **members}])

    without_audiences = {name: value for name, value in issuer.items() if name != "audiences"}
    return {
        "nothing": ("", ""),
        "no JSON": ("{", ""),
        "an array": ("[]", ""),
        "not UTF-8 friendly": ('{"issuers": "\x00"}', ""),
        "no issuers": ({}, "issuers"),
        "empty issuers": ({"issuers": []}, "issuers"),
        "a repeated member": (json.dumps(good)[:-1] + ', "mode": "report", "mode": "enforce"}', "mode"),
        "an unknown key": ({**good, "isuers": []}, "isuers"),
        "an unknown key inside": (issuer_with(audience="x"), "issuers[0].audience"),
        "an unknown key deep inside": (limit_with(cals=1), "apps[0].limits[0].cals"),
        "no audiences": ({**good, "issuers": [without_audiences]}, "issuers[0].audiences"),
        "empty audiences": (issuer_with(audiences=[]), "issuers[0].audiences"),
        "no cluster": (issuer_with(cluster=None), "issuers[0].cluster"),
        "a tenant that is no GUID": (issuer_with(tenant_id="contoso.com"), "issuers[0].tenant_id"),
        "alg none": (issuer_with(algorithms=["none"]), "issuers[0].algorithms"),
        "an HMAC": (issuer_with(algorithms=["HS256"]), "issuers[0].algorithms"),
        "a large skew": (issuer_with(clock_skew="601s"), "issuers[0].clock_skew"),
        "no time limit": (issuer_with(refresh={"timeout": "0s"}), "issuers[0].refresh.timeout"),
        "a number for a duration": (limit_with(per=60), "apps[0].limits[0].per"),
        "a unit that is none": (limit_with(per="60"), "apps[0].limits[0].per"),
        "no calls": (limit_with(calls=0), "apps[0].limits[0].calls"),
        "half a call": (limit_with(calls=1.5), "apps[0].limits[0].calls"),
        "a status that is none": (limit_with(count=[99]), "apps[0].limits[0].count"),
        "an app twice": ({**good, "apps": [app, {**app, "app_id": app["app_id"].upper()}]}, "apps[1].app_id"),
        "an app without id": ({**good, "apps": [{"name": "x"}]}, "apps[0].app_id"),
        "an app id that is no GUID": (app_with(app_id="batch"), "apps[0].app_id"),
        "an access that is none": (app_with(access="maybe"), "apps[0].access"),
        "a role that is none": (app_with(roles=["Cognitive Service OpenAI User"]), "did you mean"),
        "a role twice": ({**good, "roles": {"Cognitive Services User": {"data_actions": []}}}, "is that of a built-in role"),
        "a deployment that is none": (app_with(deployments=["gpt 4o"]), "apps[0].deployments[0]"),
        "a public path that is none": ({**good, "public_paths": ["status"]}, "public_paths[0]"),
        "a header that is none": ({**good, "forward": {"headers": {"x y": "app_id"}}}, "forward.headers"),
        "a mode that is none": ({**good, "mode": "off"}, "mode"),
        "a status that is good": ({**good, "responses": {"forbidden": {"status": 200}}}, "responses.forbidden.status"),
        "a limit on nothing": (app_with(limits=[{"per": "60s"}]), "limits[0]"),
        "limits on tokens that nobody reads": (
            {**good, "usage": {"read": False}, "default_app": {"limits": [{"tokens": 1, "per": "60s"}]}},
            "usage.read",
        ),
    }


CASES = bad_policies({"issuers": [{}], "apps": [{"app_id": ""}]})


@pytest.fixture(scope="module")
def stopped():
    """The cases that stopped Envoy, for the figure."""
    cases = {}
    yield cases
    said = f"{len(cases)} of {len(CASES)} refused, {sum(map(bool, cases.values()))} with the name of the field"
    figure("R23", "broken policies, at Envoy's start", said, len(cases) == len(CASES) >= 30)


@pytest.mark.parametrize("case", CASES)
def test_i5_r23_a_bad_policy_stops_envoy_at_start(start_gateway, stand_ins, case, stopped):
    policy, words = bad_policies(shipped_policy(stand_ins))[case]
    with pytest.raises(GatewayRefused) as refused:
        start_gateway(stand_ins, policy)
    log = str(refused.value)
    assert words in log, log[-2000:]
    assert "panicked" not in log
    stopped[case] = words


@pytest.mark.timeout(300)
def test_i5_r23_envoy_says_so_before_it_starts(stand_ins, directory):
    """`envoy --mode validate`, as a pipeline asks it."""
    directory.mkdir(parents=True, exist_ok=True)
    config = fit(shipped_config(), envoy_version())
    plugin(config)["vm_config"]["code"]["local"]["filename"] = str(module())
    path = directory / "envoy.yaml"

    def validate(policy) -> subprocess.CompletedProcess:
        set_policy(config, policy)
        path.write_text(yaml.safe_dump(config, sort_keys=False))
        arguments = [envoy_binary(), "--mode", "validate", "-c", path, "--log-level", "warning"]
        return subprocess.run(arguments, capture_output=True, text=True, timeout=60)

    good = shipped_policy(stand_ins)
    assert validate(good).returncode == 0
    # Envoy compiles the module each time, which takes long on a busy machine: a few stand for all.
    cases = list(bad_policies(good).items())[4::8]
    for case, (policy, words) in cases:
        result = validate(policy)
        assert result.returncode != 0, case
        assert words in result.stderr, (case, result.stderr[-2000:])
    figure("R23", "broken policies, by envoy --mode validate", f"{len(cases)} of {len(cases)} refused and named", True)


def test_all_errors_are_told_at_once(start_gateway, stand_ins):
    policy = shipped_policy(stand_ins, mode="off", nonsense=1)
    policy["issuers"][0]["algorithms"] = ["HS256"]
    policy["apps"][1]["limits"][0]["per"] = "a while"
    with pytest.raises(GatewayRefused) as refused:
        start_gateway(stand_ins, policy)
    for path in ("mode", "nonsense", "issuers[0].algorithms", "apps[1].limits[0].per"):
        assert path in str(refused.value)


def test_r23_a_bad_update_keeps_the_old_policy(start_gateway, stand_ins):
    gateway = start_gateway(stand_ins, dynamic=True)
    token = stand_ins.entra.mint(new_app())
    assert gateway.chat(token).verdict == PASSES
    for case, (policy, _) in bad_policies(shipped_policy(stand_ins)).items():
        rejected = gateway.stat("listener_manager.lds.update_rejected")
        gateway.update(policy)
        assert gateway.stat("listener_manager.lds.update_rejected") == rejected + 1, case
    # Still the policy that was good.
    assert {gateway.chat(token).verdict for _ in range(8)} == {PASSES}
    assert gateway.chat().verdict == (401, "TokenNotPresent")
    gateway.update(shipped_policy(stand_ins, default_app={"access": "deny"}))
    assert {gateway.chat(token).verdict for _ in range(8)} == {(403, "AppNotAllowed")}
    figure("R23", "broken policies, as updates", f"{len(CASES)} of {len(CASES)} refused, the good one stayed", True)


def test_i7_many_updates(start_gateway, stand_ins):
    gateway = start_gateway(stand_ins, dynamic=True)
    token = stand_ins.entra.mint(new_app())
    for number in range(20):
        access = "deny" if number % 2 else "allow"
        gateway.update(shipped_policy(stand_ins, default_app={"access": access}))
        expected = (403, "AppNotAllowed") if number % 2 else PASSES
        assert {gateway.chat(token).verdict for _ in range(4)} == {expected}


def test_o7_the_policy_as_a_structure(start_gateway, stand_ins):
    """Envoy hands a Struct over in protobuf's own format, its numbers as floating point, and integers of YAML from 2^31 on
    as text (row O7)."""

    def as_struct(config):
        limits = [{"calls": 2, "per": "60s"}, {"tokens": 2147483648, "per": "day"}]
        plugin(config)["configuration"] = {
            "@type": "type.googleapis.com/google.protobuf.Struct",
            "value": shipped_policy(stand_ins, default_app={"limits": limits}),
        }

    gateway = start_gateway(stand_ins, edit=as_struct)
    token = stand_ins.entra.mint(new_app())
    assert [gateway.chat(token).status for _ in range(3)] == [200, 200, 429]
    assert gateway.chat(headers=[("api-key", "x")]).status == 403


def test_errors_in_a_structure_are_told_alike(start_gateway, stand_ins):
    def as_struct(config):
        plugin(config)["configuration"] = {
            "@type": "type.googleapis.com/google.protobuf.Struct",
            "value": shipped_policy(stand_ins, apps=[{"app_id": APP_CHAT, "limits": [{"calls": 0.5}]}]),
        }

    with pytest.raises(GatewayRefused, match=r"apps\[0\].limits\[0\].calls"):
        start_gateway(stand_ins, edit=as_struct)


def test_the_policy_as_bytes(start_gateway, stand_ins):
    def as_bytes(config):
        text = json.dumps(shipped_policy(stand_ins)).encode()
        plugin(config)["configuration"] = {
            "@type": "type.googleapis.com/google.protobuf.BytesValue",
            "value": base64.b64encode(text).decode(),
        }

    gateway = start_gateway(stand_ins, edit=as_bytes)
    assert gateway.chat(stand_ins.entra.mint()).verdict == PASSES


def test_no_configuration_is_no_policy(start_gateway, stand_ins):
    with pytest.raises(GatewayRefused):
        start_gateway(stand_ins, edit=lambda config: plugin(config).pop("configuration"))


def test_r23_a_module_that_is_broken(start_gateway, stand_ins, directory):
    """Envoy does not start with a file that is no module, or not this one."""
    good, empty = module().read_bytes(), b"\0asm\1\0\0\0"
    cases = {
        "nothing": None,
        "an empty file": b"",
        "a text": b"tollgate",
        "a module of nothing": empty,
        "the first half": good[: len(good) // 2],
        "another version": empty[:4] + b"\2" + good[5:],
    }
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "broken.wasm"

    def broken(config):
        plugin(config)["vm_config"]["code"]["local"]["filename"] = str(path)

    for case, content in cases.items():
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(GatewayRefused):
            start_gateway(stand_ins, edit=broken)
            pytest.fail(f"Envoy runs with {case}")
    figure("R23", "module files that are missing or broken", f"{len(cases)} of {len(cases)}: no start", True)


def test_i5_ten_thousand_applications(start_gateway, stand_ins):
    apps = [
        {"app_id": f"bbbbbbbb-0000-0000-0000-{number:012}", "limits": [{"calls": 1, "per": "60s"}]}
        for number in range(10_000)
    ]
    gateway = start_gateway(stand_ins, shipped_policy(stand_ins, apps=apps))
    token = stand_ins.entra.mint(apps[-1]["app_id"])
    assert [gateway.chat(token).status for _ in range(2)] == [200, 429]


def test_a_closed_list(start_gateway, stand_ins):
    policy = shipped_policy(stand_ins, default_app={"access": "deny"})
    policy["apps"][0]["access"] = "deny"
    gateway = start_gateway(stand_ins, policy)
    refused = (403, "AppNotAllowed")
    assert gateway.chat(stand_ins.entra.mint(policy["apps"][0]["app_id"])).verdict == refused
    assert gateway.chat(stand_ins.entra.mint(new_app())).verdict == refused
    assert gateway.chat(stand_ins.entra.mint(APP_CHAT)).verdict == PASSES


def test_the_smallest_policy(start_gateway, stand_ins):
    """The one that the documentation opens with; only the authority is the stand-in's."""
    policy = {
        "issuers": [
            {
                "tenant_id": "11111111-2222-3333-4444-555555555555",
                "authority": stand_ins.entra.authority,
                "audiences": ["https://cognitiveservices.azure.com"],
                "cluster": "entra",
            }
        ],
        "responses": {"unauthenticated": {"status": 403, "message": "Forbidden"}},
    }
    gateway = start_gateway(stand_ins, policy)
    assert gateway.chat(stand_ins.entra.mint()).verdict == PASSES
    answer = gateway.chat()
    assert answer.verdict == (403, "TokenNotPresent")
    assert answer.json["error"]["message"] == "Forbidden"
