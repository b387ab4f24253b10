"""Refusals side by side: one shape for all reasons, nothing of the policy, each counted under its code. R29, R30."""

import http.client
import re
import statistics
import time

import pytest

from .harness import APP_CHAT, AUDIENCE, TENANT, Gateway, new_app, shipped_policy
from .harness.figures import figure
from .harness.gateway import CHAT_PATH
from .harness.identities import OTHER_TENANT
from .harness.processes import wait_until

ROLE = "Cognitive Services OpenAI User"
KEY = "0123456789-a-key-of-the-refusals"
CLOSED, NARROW, CALLS, TOKENS, QUOTA, MINUTE, LARGE = (new_app() for _ in range(7))
OBJECT = "cccccccc-0000-0000-0000-00000000000c"


@pytest.fixture(scope="module")
def policy(stand_ins):
    """With an application for every reason, and a thousand others."""

    def limited(app: str, **limit) -> dict:
        return {"app_id": app, "limits": [limit]}

    apps = [
        {"app_id": CLOSED, "access": "deny"},
        {"app_id": NARROW, "roles": [ROLE], "deployments": ["only-this-one"]},
        limited(CALLS, calls=1, per="1h"),
        limited(TOKENS, tokens=1, per="1h"),
        limited(QUOTA, calls=1, per="month"),
        limited(MINUTE, calls=1, per="60s"),
        limited(LARGE, tokens=100, per="5s", reserve=True),
    ]
    apps += [{"app_id": new_app(), "name": f"listed-{number}"} for number in range(1000)]
    policy = shipped_policy(stand_ins, apps=apps)
    policy["issuers"][0]["required_claims"] = [{"name": "roles", "values": ["Needed.Role"]}]
    return policy


@pytest.fixture(scope="module")
def gateway(stand_ins, policy, module_directory):
    with Gateway(module_directory, stand_ins, policy) as running:
        yield running


def refused(gateway, stand_ins) -> dict[str, list]:
    """One or more refusals for every code that a request can cause."""
    entra, now = stand_ins.entra, int(time.time())

    def mint(app=APP_CHAT, claims=None, **options):
        return entra.mint(app, claims={"roles": ["Needed.Role"], "oid": OBJECT, **(claims or {})}, **options)

    def second(app):
        token = mint(app)
        gateway.chat(token)
        return gateway.chat(token)

    return {
        "TokenNotPresent": [gateway.chat(), gateway.chat(headers=[("authorization", "Basic YTpi")])],
        "JwtInvalid": [gateway.chat("a.b.c"), gateway.chat(mint(alg="none")), gateway.chat(mint(claims={"exp": "x"}))],
        "TokenSignatureKeyNotFound": [gateway.chat(mint(key="unpublished"))],
        "TokenSignatureInvalid": [gateway.chat(mint(key="foreign")), gateway.chat(mint(CLOSED, key="foreign"))],
        "TokenIssuerNotAllowed": [gateway.chat(mint(tenant=OTHER_TENANT))],
        "TokenExpired": [gateway.chat(mint(claims={"exp": now - 3600}))],
        "TokenNotYetValid": [gateway.chat(mint(claims={"nbf": now + 3600}))],
        "TokenAudienceNotAllowed": [gateway.chat(mint(app, audience="x")) for app in (APP_CHAT, CLOSED, new_app())],
        "TokenClaimNotFound": [gateway.chat(mint(claims={"roles": None})), gateway.chat(mint(claims={"appid": None}))],
        "TokenClaimValueNotAllowed": [gateway.chat(mint(claims={"roles": ["Other"]}))],
        "AuthenticationTypeDisabled": [gateway.chat(mint(), [("api-key", KEY)])],
        "AppNotAllowed": [gateway.chat(mint(CLOSED))],
        "PermissionDenied": [gateway.request("POST", "/openai/v1/files", token=mint(NARROW), body=b"")],
        "DeploymentNotAllowed": [gateway.chat(mint(NARROW))],
        "RateLimitExceeded": [second(CALLS)],
        "TokenLimitExceeded": [second(TOKENS)],
        "QuotaExceeded": [second(QUOTA)],
        "CallExceedsLimit": [gateway.chat(mint(LARGE))],
    }


def counted(gateway) -> dict[str, int]:
    """Requests by code, as Prometheus sees them."""
    counts: dict[str, int] = {}
    for labels, value in gateway.prometheus("tollgate_requests").items():
        code = re.search(r'code="(\w+)"', " ".join(labels)).group(1)
        counts[code] = counts.get(code, 0) + value
    return counts


def test_r29_r30_all_refusals_have_one_shape_and_tell_nothing(gateway, stand_ins, policy):
    before = counted(gateway)
    by_code = refused(gateway, stand_ins)
    entra = policy["issuers"][0]
    secrets = [TENANT, OTHER_TENANT, AUDIENCE, entra["authority"], entra["cluster"], "Needed.Role", "only-this-one"]
    secrets += [ROLE, OBJECT, KEY, CLOSED, NARROW, CALLS, TOKENS, QUOTA, APP_CHAT, "listed-"]
    answers = [(code, answer) for code, several in by_code.items() for answer in several]
    for code, answer in answers:
        assert answer.code == answer.header("x-tollgate-code") == code, answer
        assert set(answer.json) == {"error"} and set(answer.json["error"]) == {"code", "message", "type", "param"}
        text = answer.body.decode() + repr(answer.headers)
        assert not [secret for secret in secrets if secret in text], (code, text)
    # What is refused for one reason is refused in the same words, whoever asks.
    for code, several in by_code.items():
        assert len({answer.body for answer in several}) == 1, code
    for code, answer in answers:
        challenge = answer.header("www-authenticate")
        if answer.status != 401:
            assert challenge is None, code
        elif code == "TokenNotPresent":
            assert re.fullmatch(r'Bearer realm="[^"]*"', challenge)
        else:
            message = re.escape(answer.json["error"]["message"])
            pattern = rf'Bearer realm="[^"]*", error="invalid_token", error_description="{message}"'
            assert re.fullmatch(pattern, challenge), challenge
    # But for what Envoy says of the connection.
    unauthenticated = [answer for _, answer in answers if answer.status == 401]
    names = {frozenset(name.lower() for name, _ in answer.headers) - {"connection"} for answer in unauthenticated}
    assert len(names) == 1, names
    said = f"{len(answers)} under {len(by_code)} codes: one shape, one wording per code, 0 of {len(secrets)} secrets"
    figure("R29", "what refusals say", said, True)

    def grown():
        now = counted(gateway)
        return {code: now.get(code, 0) - before.get(code, 0) for code in by_code}

    expected = {code: len(several) for code, several in by_code.items()}
    wait_until(lambda: grown() == expected, 5, f"{expected} are counted")
    figure("R30", "refusals counted by their code", f"{sum(expected.values())} sent, each under its code", True)


def retries(answer) -> list[str | None]:
    return [answer.header(name) for name in ("retry-after", "retry-after-ms", "x-should-retry")]


def test_c2_c3_j2_j3_waits_are_those_that_sdks_obey(gateway, stand_ins):
    def minted(app):
        return stand_ins.entra.mint(app, claims={"roles": ["Needed.Role"]})

    def second(app):
        gateway.chat(minted(app))
        return gateway.chat(minted(app))

    minute = second(MINUTE)
    assert minute.verdict == (429, "RateLimitExceeded")
    assert int(minute.header("retry-after")) <= 60 and int(minute.header("retry-after-ms")) <= 59_999
    assert minute.header("x-should-retry") is None
    for app in (CALLS, QUOTA):
        assert retries(second(app)) == [None, None, "false"]
    large = gateway.chat(minted(LARGE))
    assert large.verdict == (413, "CallExceedsLimit")
    assert retries(large) == [None, None, None]


def test_j1_a_refusal_has_the_ids_of_its_request(gateway, stand_ins):
    answer = gateway.chat(headers=[("x-ms-client-request-id", "my-id-1")])
    assert answer.header("x-tollgate-code") == "TokenNotPresent"
    assert answer.header("x-ms-client-request-id") == "my-id-1"
    line = gateway.line_of(answer.header("x-request-id"))
    assert line["code"] == "TokenNotPresent" and line["client_request_id"] == "my-id-1"
    for odd in ("two words", "x" * 65, "sk-proj-9876543210zyxwvutsrq", stand_ins.entra.mint()):
        answer = gateway.chat(headers=[("x-ms-client-request-id", odd)])
        assert answer.header("x-ms-client-request-id") is None
        assert gateway.line_of(answer.header("x-request-id"))["client_request_id"] is None
    answer = gateway.request("POST", "/anthropic/v1/messages", body=b"{}")
    assert answer.status == 401
    assert answer.header("request-id") == answer.header("x-request-id")
    error = answer.json["error"]
    assert answer.json == {"type": "error", "error": {**error, "type": "authentication_error"}}
    assert set(error) == {"type", "message", "code"} and error["code"] == "TokenNotPresent"


def test_r29_the_time_of_a_401_tells_nobody_who_is_listed(gateway, stand_ins, policy):
    """The median over two thousand, asked in turn: the application is looked up after the token has passed, if at all."""
    listed = stand_ins.entra.mint(policy["apps"][-1]["app_id"], audience="x")
    unlisted = stand_ins.entra.mint(new_app(), audience="x")
    connection = http.client.HTTPConnection(*gateway.address)

    def microseconds(token: str) -> float:
        begin = time.perf_counter()
        answer = gateway.request("GET", CHAT_PATH, token=token, connection=connection)
        taken = time.perf_counter() - begin
        assert answer.code == "TokenAudienceNotAllowed"
        return taken * 1_000_000

    pairs = [(microseconds(listed), microseconds(unlisted)) for _ in range(2_000)]
    one, other = (statistics.median(times) for times in zip(*pairs))
    apart = abs(one - other) / min(one, other)
    assert apart < 0.1, (one, other)
    said = f"listed {one:.0f} µs, unlisted {other:.0f} µs: {apart:.1%} apart"
    figure("R29", "time of a 401, by whether the application is listed", said, apart < 0.1)
