"""What HTTP/1.1 has no words for, and what may read differently there: the same attacks over HTTP/2. Rows D1, D4, D8, D12,
E1, E4; R21, R22."""

import h2.errors
import pytest

from .harness import Gateway, new_app, shipped_policy
from .harness.gateway import CHAT_BODY, CHAT_PATH
from .harness.http2 import Http2
from .harness.processes import wait_until

JSON_TYPE = ("content-type", "application/json")
PASSES = (200, None)
INVALID = (401, "JwtInvalid")
NOT_PRESENT = (401, "TokenNotPresent")
KEY = (403, "AuthenticationTypeDisabled")
DENIED = (403, "PermissionDenied")
ACTIONS = "Microsoft.CognitiveServices/accounts/OpenAI/"
READER, LIMITED, NARROW = (new_app() for _ in range(3))


@pytest.fixture(scope="module")
def gateway(stand_ins, module_directory):
    apps = [
        {"app_id": READER, "roles": ["Reader"]},
        {"app_id": LIMITED, "limits": [{"calls": 5, "per": "24h", "count": [200]}]},
        {"app_id": NARROW, "deployments": ["gpt-4o"]},
    ]
    roles = {"Reader": {"data_actions": [f"{ACTIONS}models/read"]}}
    with Gateway(module_directory, stand_ins, shipped_policy(stand_ins, apps=apps, roles=roles)) as running:
        yield running


@pytest.fixture
def client(gateway):
    with Http2(gateway.address) as client:
        yield client


def bearer(stand_ins, app: str | None = None) -> tuple[str, str]:
    return "authorization", f"Bearer {stand_ins.entra.mint(app or new_app())}"


def chat(client, *headers, body=CHAT_BODY, path=CHAT_PATH, **options):
    return client.ask(path, JSON_TYPE, *headers, method="POST", body=body, **options).answer.verdict


def test_d1_credentials_that_are_there_twice(client, stand_ins):
    good, other = bearer(stand_ins), bearer(stand_ins)
    assert chat(client, good) == PASSES
    assert chat(client, good, good) == PASSES
    for headers in ((good, other), (other, good), (good, ("authorization", "Basic dXNlcjpwYXNz"))):
        assert chat(client, *headers) == INVALID, headers
    assert chat(client) == NOT_PRESENT


def test_d1_a_credential_in_trailers_is_none(client, stand_ins):
    assert chat(client, trailers=[bearer(stand_ins)]) == NOT_PRESENT


def test_r21_keys_and_identities_are_found_in_any_frame(client, stand_ins):
    good = bearer(stand_ins)
    for key in (("api-key", "k"), ("ocp-apim-subscription-key", "k"), ("x-api-key", "k")):
        assert chat(client, good, key) == KEY
    assert client.ask("/openai/models?api-key=k", good).answer.verdict == KEY
    before = stand_ins.openai.count()
    assert chat(client, ("x-app-id", "evil"), good, ("x-app-id", "admin")) == PASSES
    assert chat(client, good, trailers=[("x-app-id", "evil"), ("api-key", "k"), good]) == PASSES
    received = stand_ins.openai.requests()[before - stand_ins.openai.count() :]
    assert len(received) == 2
    for request in received:
        values = [value for name, value in request["headers"] if name.lower() == "x-app-id"]
        assert len(values) == 1 and values[0] not in {"evil", "admin"}
        assert "k" not in [value for name, value in request["headers"] if name.lower() == "api-key"]


@pytest.mark.parametrize(
    "headers",
    [
        [("Authorization", "Bearer x")],
        [("api-key\0", "k")],
        [("x", "a\r\nauthorization: Bearer x")],
        [("connection", "authorization")],
        [("transfer-encoding", "chunked")],
        [(":path", "/status")],
        [(":unknown", "x")],
    ],
    ids=repr,
)
def test_d8_heads_that_are_none(gateway, stand_ins, headers):
    """Upper case, bytes that a field has not, HTTP/1's own headers, pseudo-headers late or twice."""
    before = stand_ins.openai.count()
    with Http2(gateway.address) as client:
        seen = client.ask(CHAT_PATH, bearer(stand_ins), *headers)
    assert seen.reset or seen.answer.status == 400
    assert stand_ins.openai.count() == before


def test_r22_no_path_reaches_what_a_role_lacks(gateway, stand_ins):
    reader = bearer(stand_ins, READER)

    def ask(path: str, *headers, method: str = "GET"):
        # Some end the connection.
        with Http2(gateway.address) as client:
            return client.ask(path, reader, *headers, method=method)

    assert ask("/openai/models").answer.verdict == PASSES
    before = stand_ins.openai.count()
    for path in (
        "/openai/files",
        "/openai/models/../files",
        "/openai/models/./../files",
        "/openai/models%2f..%2ffiles",
        "/openai/models\\..\\files",
        "//openai/files",
        "/openai/models;/../files",
        "http://gate/openai/files",
        "*",
    ):
        seen = ask(path)
        assert seen.reset or seen.answer.status in (400, 403, 404), (path, seen)
    seen = ask("/openai/models", method="get")
    assert seen.reset or seen.answer.status in (400, 403)
    for override in ("x-http-method-override", "x-method-override"):
        assert ask("/openai/models", (override, "DELETE")).answer.verdict == PASSES
    assert stand_ins.openai.count() == before + 2


def test_e4_the_body_decides(client, stand_ins):
    narrow = bearer(stand_ins, NARROW)

    def ask(body: bytes, trailers=()):
        return chat(client, narrow, path="/openai/v1/chat/completions", body=body, trailers=trailers)

    for trailers in ((), [("x-checksum", "7")]):
        assert ask(b'{"model":"gpt-4o"}', trailers) == PASSES
        assert ask(b'{"model":"o1"}', trailers) == (403, "DeploymentNotAllowed")
        for body in (b'{"model":"gpt-4o"}{"model":"o1"}', b'{"model":"gpt-4o"', b""):
            assert ask(body, trailers) == (400, "BodyNotReadable"), body


def test_d12_streams_that_are_reset_hold_no_place(gateway, stand_ins):
    """Half a request, and an answer that nobody waits for: the connection goes on, and so does the count."""
    limited, before = bearer(stand_ins, LIMITED), gateway.stat("http.ingress.downstream_rq_total")
    head = [(":method", "POST"), (":scheme", "http"), (":authority", "gate"), (":path", CHAT_PATH), JSON_TYPE, limited]
    with Http2(gateway.address) as client:
        for _ in range(100):
            client.reset(client.open(head, end=False))
        slow = [*head, ("x-stand-in-delay-ms", "500")]
        for _ in range(4):
            client.reset(client.open(slow))
        wait_until(lambda: gateway.stat("http.ingress.downstream_rq_total") >= before + 104, 10, "all have come")
        wait_until(lambda: gateway.stat("http.ingress.downstream_rq_active") == 0, 10, "nothing is in flight")
        verdicts = [chat(client, limited) for _ in range(6)]
    assert verdicts == [PASSES] * 5 + [(429, "RateLimitExceeded")]


def test_j9_a_denied_post_gets_its_whole_response_before_its_stream_is_reset(client):
    """RFC 9113 section 8.1: NO_ERROR after a response that is complete. curl 7.88 takes it for a failure
    (docs/clients.md)."""
    head = [(":method", "POST"), (":scheme", "http"), (":authority", "gate"), (":path", CHAT_PATH), JSON_TYPE]
    stream = client.open(head, end=False)
    seen = client.read(stream)
    assert seen.ended and seen.answer.verdict == NOT_PRESENT
    assert client.reset_code(stream) == h2.errors.ErrorCodes.NO_ERROR
