"""What is told: answers, request log, filter state in the access log, metrics. Rows I6; R28 to R30."""

import re
import socket
import time
import unicodedata

import pytest

from .harness import APP_BATCH, APP_CHAT, TENANT, Gateway, new_app, shipped_policy
from .harness.gateway import CHAT_PATH
from .harness.processes import wait_until

OBJECT = "cccccccc-0000-0000-0000-000000000001"
LOG_FIELDS = {
    "time",
    "outcome",
    "code",
    "app_id",
    "app_name",
    "tenant_id",
    "object_id",
    "token_id",
    "idtyp",
    "action",
    "deployment",
    "api_version",
    "method",
    "path",
    "status",
    "duration_ms",
    "stream",
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "estimated_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "client_ip",
    "request_id",
    "client_request_id",
}


@pytest.fixture(scope="module")
def gateway(stand_ins, module_directory):
    with Gateway(module_directory, stand_ins) as running:
        yield running


# Of these tests alone: Envoy's own access log holds paths as they were sent, and is searched for others' keys.
@pytest.mark.parametrize(
    "key",
    [
        "71c0de71a9b8c7d6e5f4039271c0de71",
        "Ab3" * 28,
        "sk-proj-9876543210zyxwvutsrq",
        "aBc8Q~9876543210zyxwvutsrqponmlkjihgfedc",
    ],
)
def test_i6_r28_a_key_in_a_path_or_for_a_deployment_is_not_told(gateway, stand_ins, key):
    token = stand_ins.entra.mint(APP_CHAT)
    for path in (f"/openai/{key}", f"/openai/deployments/{key}/chat/completions?api-version=2024-10-21"):
        gateway.request("POST", path, token=token, body=b"{}")
    gateway.request("POST", "/openai/v1/chat/completions", token=token, body=b'{"model":"%s"}' % key.encode())
    lines = wait_until(lambda: [line for line in gateway.request_log() if "..." in line["path"]], 5, "lines")
    assert {line["path"] for line in lines} <= {"/openai/...", "/openai/deployments/..."}
    module = [line for line in gateway.log_text().splitlines() if "tollgate" in line]
    assert module and not [line for line in module if key in line]
    states = [line for line in gateway.access_log() if line.get("deployment") == key]
    assert not states


def ask(gateway, *args, **options):
    """A chat call and what both logs say of it."""
    known = {line.get("request_id") for line in gateway.access_log()}
    answer = gateway.chat(*args, **options)

    def new_lines():
        return [line for line in gateway.access_log() if line.get("request_id") not in known]

    access = wait_until(new_lines, 5, "an access log line")
    assert len(access) == 1
    return answer, gateway.line_of(access[0]["request_id"]), access[0]


# Answers


def test_r29_a_401_says_how_to_ask(gateway, stand_ins):
    missing = gateway.chat()
    assert missing.verdict == (401, "TokenNotPresent")
    challenge = missing.header("www-authenticate")
    assert challenge.startswith('Bearer realm="')
    assert "error" not in challenge
    expired = gateway.chat(stand_ins.entra.mint(claims={"exp": int(time.time()) - 3600}))
    challenge = expired.header("www-authenticate")
    assert re.fullmatch(r'Bearer realm="[^"]*", error="invalid_token", error_description="[^"]+"', challenge)
    for answer in (missing, expired):
        assert answer.header("content-type").startswith("application/json")
        assert set(answer.json) == {"error"}
        assert set(answer.json["error"]) == {"code", "message", "type", "param"}
        assert answer.json["error"]["param"] is None


def test_r29_an_answer_tells_nothing_of_the_policy(gateway, stand_ins):
    """Neither who is listed nor what would have been right, and nothing of the token."""
    app = new_app()
    for token in [
        stand_ins.entra.mint(app, audience="https://other.example"),
        stand_ins.entra.mint(app, key="foreign"),
        stand_ins.entra.mint(app, claims={"iss": "https://evil.example"}),
        stand_ins.entra.mint(app, key="unpublished"),
    ]:
        answer = gateway.chat(token)
        assert answer.status == 401
        text = answer.body.decode() + repr(answer.headers)
        for word in (app, TENANT, "cognitiveservices", "evil.example", "other.example", stand_ins.entra.authority):
            assert word not in text
    # The same whether the application is listed or not.
    listed = gateway.chat(stand_ins.entra.mint(APP_BATCH, audience="x"))
    unlisted = gateway.chat(stand_ins.entra.mint(app, audience="x"))
    assert listed.body == unlisted.body


def test_answers_by_policy(start_gateway, stand_ins):
    responses = {
        "format": "apim",
        "unauthenticated": {"status": 403, "message": "Forbidden"},
        "api_key": {"status": 401, "message": 'No "keys" here'},
        "limited": {"message": "Later"},
    }
    gateway = start_gateway(stand_ins, shipped_policy(stand_ins, responses=responses))
    answer = gateway.chat()
    assert answer.status == 403
    assert answer.json == {"statusCode": 403, "message": "Forbidden"}
    answer = gateway.chat(headers=[("api-key", "x")])
    assert answer.status == 401
    assert answer.json == {"statusCode": 401, "message": 'No "keys" here'}
    token = stand_ins.entra.mint(APP_BATCH)
    answers = [gateway.chat(token) for _ in range(4)]
    assert answers[-1].json == {"statusCode": 429, "message": "Later"}
    assert answers[-1].header("retry-after")


# The request log


def test_a_line_for_an_allowed_request(gateway, stand_ins):
    token = stand_ins.entra.mint(APP_CHAT, claims={"oid": OBJECT, "uti": "token-id", "idtyp": "app"})
    answer, line, _ = ask(gateway, token)
    assert answer.status == 200
    assert set(line) <= LOG_FIELDS
    expected = {
        "outcome": "allowed",
        "code": None,
        "app_id": APP_CHAT,
        "app_name": "chat",
        "tenant_id": TENANT,
        "object_id": OBJECT,
        "token_id": "token-id",
        "idtyp": "app",
        "api_version": "2024-10-21",
        "method": "POST",
        "path": CHAT_PATH.partition("?")[0],
        "status": 200,
        "client_ip": "127.0.0.1",
    }
    assert {name: line.get(name) for name in expected} == expected
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", line["time"])
    assert 0 <= line["duration_ms"] < 10_000


def test_lines_for_refused_requests(gateway, stand_ins):
    app = new_app()
    cases = [
        (None, (), "unauthenticated", "TokenNotPresent", 401, None),
        (stand_ins.entra.mint(app), [("api-key", "x")], "api_key", "AuthenticationTypeDisabled", 403, None),
        (stand_ins.entra.mint(app, key="foreign"), (), "unauthenticated", "TokenSignatureInvalid", 401, None),
    ]
    for token, headers, outcome, code, status, app_id in cases:
        _, line, access = ask(gateway, token, headers)
        for told in (line, access):
            assert (told["outcome"], told["code"], told["status"]) == (outcome, code, status)
            # What a token says is not believed before its signature is.
            assert told.get("app_id") == app_id
        assert set(line) <= LOG_FIELDS


def test_a_line_for_a_limited_request(gateway, stand_ins):
    token = stand_ins.entra.mint(APP_BATCH)
    for _ in range(4):
        _, line, access = ask(gateway, token)
    for told in (line, access):
        assert (told["outcome"], told["code"], told["status"]) == ("limited", "RateLimitExceeded", 429)
        assert (told["app_id"], told["app_name"]) == (APP_BATCH, "batch")


def test_filter_state_in_the_access_log(gateway, stand_ins):
    _, _, access = ask(gateway, stand_ins.entra.mint(APP_CHAT, claims={"oid": OBJECT}))
    expected = {
        "outcome": "allowed",
        "app_id": APP_CHAT,
        "app_name": "chat",
        "tenant_id": TENANT,
        "object_id": OBJECT,
        "action": "Microsoft.CognitiveServices/accounts/OpenAI/deployments/chat/completions/action",
        "deployment": "gpt-4o",
        "status": 200,
        "method": "POST",
        "path": CHAT_PATH.partition("?")[0],
    }
    assert {name: access[name] for name in expected} == expected
    assert access["code"] in (None, "")


def test_only_the_filter_state_that_is_asked_for(start_gateway, stand_ins):
    policy = shipped_policy(stand_ins, log={"requests": False, "filter_state": ["app_id"]})
    gateway = start_gateway(stand_ins, policy)
    assert gateway.chat(stand_ins.entra.mint(APP_CHAT)).status == 200
    line = wait_until(gateway.access_log, 5, "an access log line")[0]
    assert line["app_id"] == APP_CHAT
    assert not line["outcome"] and not line["tenant_id"]
    time.sleep(0.3)
    assert gateway.request_log() == []


def test_i6_r28_logs_hold_one_line_per_request_whatever_is_sent(gateway, stand_ins):
    """No token, no key, no control characters: each line is JSON of printable characters."""
    nasty = 'x\n{"outcome":"allowed"}\x1b[31m\u202e'
    token = stand_ins.entra.mint(claims={"uti": nasty, "idtyp": nasty, "oid": OBJECT})
    answer, line, _ = ask(gateway, token)
    assert answer.status == 200
    assert line["outcome"] == "allowed"
    long = stand_ins.entra.mint(claims={"uti": "u" * 5_000, "idtyp": "i" * 5_000})
    _, line, _ = ask(gateway, long)
    assert len(repr(line)) < 2_000
    # A path of 8 KB.
    answer = gateway.request("GET", "/openai/" + "a" * 8_000, token=token)
    assert answer.status == 404
    for text in gateway.log_text().splitlines():
        if '"outcome"' in text:
            # Neither control characters nor those that turn the direction of what follows.
            assert not {character for character in text if unicodedata.category(character) in ("Cc", "Cf")}


def test_r28_keys_in_the_query_are_not_logged(gateway):
    key = "sentinel-key-in-the-query"
    assert gateway.request("GET", f"/openai/models?api-key={key}&x=1").status == 403
    wait_until(lambda: gateway.access_log()[-1]["status"] == 403, 5, "the access log line")
    hidden = f"/openai/models?api-version=1;api-key={key}", f"/openai/models?api-version={key.replace('-', '_')}"
    for path in hidden:
        assert gateway.request("GET", path).status in (401, 403)
    time.sleep(0.3)
    for log in gateway.log_text(), gateway.access.read_text():
        assert key not in log
        assert key.replace("-", "_") not in log


def test_d12_a_client_that_leaves_is_told_once(start_gateway, stand_ins):
    gateway = start_gateway(stand_ins)
    token = stand_ins.entra.mint(APP_CHAT)
    lines = [f"POST {CHAT_PATH} HTTP/1.1", "host: x", f"authorization: Bearer {token}"]
    lines += ["content-length: 2", "x-stand-in-delay-ms: 3000", "", "{}"]
    with socket.create_connection(gateway.address) as connection:
        connection.sendall("\r\n".join(lines).encode())
        time.sleep(0.5)
    told = wait_until(gateway.request_log, 5, "a log line")
    assert len(told) == 1
    assert told[0]["app_id"] == APP_CHAT


# Metrics


def labels(**values) -> frozenset:
    return frozenset(f'{name}="{value}"' for name, value in values.items())


def test_r30_metrics_as_prometheus_sees_them(start_gateway, stand_ins):
    policy = shipped_policy(stand_ins)
    policy["apps"][1]["name"] = "chat bot v1.2"
    gateway = start_gateway(stand_ins, policy)
    batch, chat = stand_ins.entra.mint(APP_BATCH), stand_ins.entra.mint(APP_CHAT)
    for _ in range(5):
        gateway.chat(batch)
    gateway.chat(chat)
    gateway.chat(stand_ins.entra.mint(new_app()))
    gateway.chat(stand_ins.entra.mint(new_app()))
    gateway.chat()
    gateway.chat(chat, [("api-key", "x")])
    gateway.chat("a.b.c")

    def requests():
        return gateway.prometheus("tollgate_requests")

    wait_until(lambda: sum(requests().values()) == 11, 5, "all requests are counted")
    by_labels = requests()
    assert by_labels[labels(app="batch", outcome="allowed", code="none")] == 3
    assert by_labels[labels(app="batch", outcome="limited", code="RateLimitExceeded")] == 2
    assert by_labels[labels(app="chat_bot_v1_2", outcome="allowed", code="none")] == 1
    # Unlisted applications share a label, and so do requests of nobody.
    assert sorted(value for name, value in by_labels.items() if 'outcome="allowed"' in name) == [1, 2, 3]
    codes = {
        re.search(r'code="(\w+)"', " ".join(name)).group(1): value for name, value in by_labels.items()
    }
    assert codes["TokenNotPresent"] == codes["AuthenticationTypeDisabled"] == codes["JwtInvalid"] == 1
    for name in by_labels:
        assert {label.partition("=")[0] for label in name} == {"app", "outcome", "code"}


def test_r30_metrics_of_keys(start_gateway, own_stand_ins):
    gateway = start_gateway(own_stand_ins)
    assert gateway.chat(own_stand_ins.entra.mint()).status == 200
    issuer = labels(issuer="stand-in")

    def value(name, **more):
        return gateway.prometheus(name).get(labels(issuer="stand-in", **more), 0)

    wait_until(lambda: gateway.prometheus("tollgate_keys").get(issuer), 5, "the gauge is set")
    assert gateway.prometheus("tollgate_keys")[issuer] >= 2
    assert value("tollgate_key_fetches", result="ok") == 1
    own_stand_ins.entra.behave("keys", "html")
    time.sleep(1.1)
    gateway.chat(own_stand_ins.entra.mint(key="unpublished"))
    wait_until(lambda: value("tollgate_key_fetches", result="refused") >= 1, 8, "a refused fetch is counted")
    own_stand_ins.entra.behave("all", "status", status=500)
    wait_until(
        lambda: gateway.chat(own_stand_ins.entra.mint(key="unpublished")).status
        and value("tollgate_key_fetches", result="failed") >= 1,
        8,
        "a failed fetch is counted",
    )
    wait_until(lambda: gateway.prometheus("tollgate_key_age_seconds").get(issuer, 0) >= 2, 8, "the age grows")


def test_r30_g14_the_token_cache(start_gateway, stand_ins):
    """By a name that Istio's tags leave whole, and by the old one."""
    gateway = start_gateway(stand_ins)

    def looked_up():
        series = gateway.prometheus("tollgate_token_lookups")
        assert gateway.prometheus("tollgate_token_cache").keys() == series.keys()
        return series.get(labels(result="hit"), 0), series.get(labels(result="miss"), 0)

    # Until the keys are there, and counted.
    assert {gateway.chat(stand_ins.entra.mint()).status for _ in range(4)} == {200}
    time.sleep(1.5)
    hits, misses = looked_up()
    token = stand_ins.entra.mint()
    for _ in range(20):
        assert gateway.chat(token).status == 200
    wait_until(lambda: sum(looked_up()) == hits + misses + 20, 5, "all look-ups are counted")
    assert 1 <= looked_up()[1] - misses <= 2  # Once per worker.
