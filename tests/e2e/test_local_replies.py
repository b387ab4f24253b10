"""What Envoy responds itself, in the shipped files: Azure's body and a code for each cause (J8); and public paths, which share
no circuit breaker with the backend (L10)."""

import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from .harness import Gateway, new_app, processes, shipped_policy
from .harness.backend import Backend, answer
from .harness.gateway import CHAT_BODY, CHAT_PATH, JSON_TYPE, connection_manager, set_endpoint
from .harness.http import raw
from .harness.http2 import Http2
from .harness.processes import wait_until

SLOW = 1.0
LIMITED = new_app()
TYPES = {"invalid_request_error", "server_error"}


@pytest.fixture(scope="module")
def backend():
    """Does what the path says."""

    def script(request):
        if "silent" in request.line:
            return [4 * SLOW]
        if "reset" in request.line:
            return [None]
        if "garbage" in request.line:
            return [b"\x00\x01\x02 garbage\r\n\r\n"]
        if "error" in request.line:
            return [answer(b'{"mine":400}', "application/json", "400 Bad Request", "x-mine: yes")]
        return [answer(b"{}")]

    with Backend(script) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(stand_ins, module_directory, backend):
    """The shipped configuration with short times, and a route to nobody."""

    def edit(config):
        manager = connection_manager(config)
        manager["request_timeout"] = manager["request_headers_timeout"] = f"{SLOW}s"
        manager["stream_idle_timeout"] = f"{2 * SLOW}s"
        routes = manager["route_config"]["virtual_hosts"][0]["routes"]
        routes.pop()
        timed = {"cluster": "azure_openai", "timeout": f"{SLOW / 2}s"}
        routes.insert(0, {"match": {"prefix": "/openai/timed/"}, "route": timed})
        routes.insert(0, {"match": {"prefix": "/openai/away/"}, "route": {"cluster": "public"}})
        set_endpoint(config, "azure_openai", backend.address)
        set_endpoint(config, "public", ("127.0.0.1", processes.free_port()))

    policy = shipped_policy(
        stand_ins,
        apps=[{"app_id": LIMITED, "limits": [{"calls": 1, "per": "1h"}]}],
        responses={"api_key": {"status": 504}, "forbidden": {"status": 408}, "limited": {"status": 431}},
    )
    with Gateway(module_directory / "envoy", stand_ins, policy, edit=edit) as running:
        running.chat(token=stand_ins.entra.mint(LIMITED))
        yield running


def check(gateway: Gateway, seen, status: int, code: str, head_was_read: bool = True) -> None:
    assert seen.verdict == (status, code)
    assert seen.header("content-type") == "application/json"
    assert seen.header("x-tollgate-code") == code
    error = seen.json["error"]
    assert set(error) == {"code", "message", "type", "param"} and error["param"] is None
    assert error["type"] in TYPES and error["message"].endswith(".")
    request_id = seen.header("x-request-id")
    if head_was_read:
        line = gateway.line_of(request_id, gateway.access_log)
        assert (line["status"], line["error_code"]) == (status, code)
        assert line["details"]
    else:
        assert request_id is None
        lines = [(line["status"], line["error_code"]) for line in gateway.access_log()]
        wait_until(lambda: (status, code) in [(x["status"], x["error_code"]) for x in gateway.access_log()], 5, f"{lines}")


def head(line: str, *headers: str) -> bytes:
    return "\r\n".join([line, "host: gateway.example.com", *headers, "", ""]).encode()


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/nowhere", 404, "RouteNotFound"),
        ("/openai/away/x", 503, "BackendUnavailable"),
        ("/openai/reset", 503, "BackendUnavailable"),
        ("/openai/garbage", 502, "BackendUnavailable"),
        ("/openai/timed/silent", 504, "BackendTimeout"),
        ("/openai/silent", 504, "BackendTimeout"),
    ],
)
def test_j8_what_happens_behind_the_gateway(gateway, stand_ins, path, status, code):
    check(gateway, gateway.request("GET", path, token=stand_ins.entra.mint(new_app())), status, code)


@pytest.mark.parametrize(
    "path",
    ["/openai/deployments/a%2Fb/chat/completions", "/openai/deployments/a%5Cb/x", "/openai%2f..%2fmodels"],
)
def test_j8_a_path_without_one_reading(gateway, path):
    """Rejected before Envoy gives a request its id: the response has that of the client."""
    mine = "11111111-aaaa-bbbb-cccc-222222222222"
    seen = gateway.request("POST", path, headers=[("x-request-id", mine), JSON_TYPE], body=b"{}")
    check(gateway, seen, 400, "RequestNotAccepted")
    assert seen.header("x-request-id") == mine


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (head("GET /openai/models HTTP/1.1", "x_team: 1"), 400, "RequestNotAccepted"),
        (head("GET /openai/models HTTP/1.1", "x-big: " + "a" * 70_000), 431, "HeadersTooLarge"),
        (head("GET /openai/models HTTP/1.1", *(f"x-{i}: {'a' * 700}" for i in range(99))), 431, "HeadersTooLarge"),
        (head("GET /openai/models HTTP/1.1", "content-length: 1", "transfer-encoding: chunked"), 400, "RequestNotAccepted"),
        (b"GET /openai/models HTTP/1.1\r\n\r\n", 400, "RequestNotAccepted"),
        (b"no HTTP at all\r\n\r\n", 400, "RequestNotAccepted"),
        (head("GET /openai/models HTTP/1.0"), 426, "RequestNotAccepted"),
        (head("POST /openai/models HTTP/1.1", "transfer-encoding: gzip, chunked"), 501, "RequestNotAccepted"),
        (head("OPTIONS * HTTP/1.1"), 404, "RequestNotAccepted"),
        (b"GET /openai/models HTTP/1.1\r\nhost: x\r\n", 408, "RequestTimeout"),
    ],
    ids=["underscore", "70 KB", "many headers", "smuggling", "no host", "no HTTP", "HTTP/1.0", "encoded", "no path", "slow head"],
)
def test_j8_a_head_that_was_not_read(gateway, data, status, code):
    check(gateway, raw(gateway.address, data), status, code, head_was_read=False)


def test_j10_a_websocket_where_none_is_enabled(gateway, stand_ins):
    token = f"authorization: Bearer {stand_ins.entra.mint(new_app())}"
    upgrade = ("connection: upgrade", "upgrade: websocket", "sec-websocket-key: x", "sec-websocket-version: 13")
    data = head("GET /openai/v1/realtime?model=gpt-4o HTTP/1.1", token, *upgrade)
    check(gateway, raw(gateway.address, data), 403, "RequestNotAccepted")


def test_j8_a_slow_body(gateway, stand_ins):
    token = f"authorization: Bearer {stand_ins.entra.mint(new_app())}"
    data = head(f"POST {CHAT_PATH} HTTP/1.1", token, "content-length: 100", "content-type: application/json")
    check(gateway, raw(gateway.address, data), 408, "RequestTimeout")


def test_j8_what_the_module_and_the_backend_say_stays_as_it_is(gateway, stand_ins):
    refused = gateway.chat()
    assert refused.body.startswith(b'{"error":{"code":"TokenNotPresent","message":"') and refused.body.endswith(b"}}")
    theirs = gateway.request("GET", "/openai/error", token=stand_ins.entra.mint(new_app()))
    assert (theirs.status, theirs.body, theirs.header("x-mine")) == (400, b'{"mine":400}', "yes")
    assert theirs.header("x-tollgate-code") is None


@pytest.mark.parametrize(
    ("status", "code", "headers"),
    [
        (504, "AuthenticationTypeDisabled", [("api-key", "k-of-nobody")]),
        (408, "ParameterNotAllowed", [("x-policy-id", "none")]),
        (431, "RateLimitExceeded", []),
    ],
)
def test_j8_a_status_that_the_policy_chooses_is_none_of_envoys(gateway, stand_ins, status, code, headers):
    refused = gateway.chat(token=stand_ins.entra.mint(LIMITED), headers=headers)
    assert refused.verdict == (status, code)
    # Once each.
    assert refused.header("x-tollgate-code") == code
    assert gateway.line_of(refused.header("x-request-id"))["code"] == code


def test_j8_over_http_2_a_head_that_was_not_read_is_reset(gateway):
    """As docs/gateways.md says: there is no response to give a body to."""
    with Http2(gateway.address) as connection:
        assert connection.ask("/openai/models", ("x_team", "1")).reset
    with Http2(gateway.address) as connection:
        seen = connection.ask("/openai/models", *((f"x-{i}", "a" * 7_000) for i in range(10)))
        assert seen.reset or seen.answer.verdict == (431, "HeadersTooLarge")
    with Http2(gateway.address) as connection:
        assert connection.ask("/openai%2fmodels").answer.verdict == (400, "RequestNotAccepted")


@pytest.mark.parametrize("passes", [False, True])
def test_j14_a_client_that_waits_is_told_to_go_on_after_the_decision(start_gateway, stand_ins, passes):
    gateway = start_gateway(stand_ins)
    token = [f"authorization: Bearer {stand_ins.entra.mint(new_app())}"] if passes else []
    body = [JSON_TYPE[0] + ": " + JSON_TYPE[1], f"content-length: {len(CHAT_BODY)}", "expect: 100-continue"]
    with socket.create_connection(gateway.address, timeout=20) as connection:
        connection.sendall(head(f"POST {CHAT_PATH} HTTP/1.1", *token, *body))
        first = connection.recv(4096)
        if not passes:
            assert first.startswith(b"HTTP/1.1 401 ")
            return
        assert first == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(CHAT_BODY)
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")


# L10


CONNECTIONS, STREAMS = 24, 100


def test_l10_bodies_withheld_on_a_public_path_harm_no_caller(start_gateway, stand_ins):
    gateway = start_gateway(stand_ins)
    token = stand_ins.entra.mint(new_app())
    assert gateway.chat(token).status == 200
    attackers = [Http2(gateway.address) for _ in range(CONNECTIONS)]
    try:
        heads = [(":method", "POST"), (":scheme", "http"), (":authority", "gate"), (":path", "/status")]
        for attacker in attackers:
            for _ in range(STREAMS):
                attacker.connection.send_headers(attacker.connection.get_next_available_stream_id(), heads)
            attacker.flush()
        public = "cluster.public.circuit_breakers.default.rq_open"
        wait_until(lambda: gateway.stat(public) or gateway.stat("cluster.public.upstream_rq_pending_overflow"), 10, "it is full")
        with ThreadPoolExecutor(8) as callers:
            verdicts = Counter(callers.map(lambda _: gateway.chat(token).status, range(100)))
        assert verdicts == {200: 100}
        # Callers of the public path itself are told so.
        assert gateway.request("GET", "/status").verdict == (503, "BackendUnavailable")
        assert gateway.stat("cluster.azure_openai.upstream_rq_pending_overflow") == 0
    finally:
        for attacker in attackers:
            attacker.socket.close()
    wait_until(lambda: gateway.request("GET", "/status").status == 200, 10, "the public path is back")
