"""Backends that fail, at every point of an answer. Rows H4, H5; R15."""

import http.client
import json
import socket
import time

import pytest

from .harness import new_app
from .harness.backend import Backend, answer, chunked
from .harness.figures import figure
from .harness.gateway import CHAT_PATH, connection_manager, set_endpoint
from .harness.processes import free_port, wait_until
from .test_limits import with_limits
from .test_token_limits import chat, estimate, usage

# Instead of the minute of envoy/envoy.yaml: the longest silence.
IDLE = 3.0
SLACK = 4.0
EVENTS = "text/event-stream"
EVENT = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'
SAID = b"data: " + usage(30) + b"\n\n"
HEAD = chunked([EVENT], EVENTS)[0]


def stream(*events: bytes) -> list[bytes]:
    """The beginning of an answer in events."""
    return chunked(events, EVENTS)[:-1]


def trickle():
    yield HEAD
    while True:
        yield b"%x\r\n%s\r\n" % (len(EVENT), EVENT)
        yield 0.1


def hang_up(*pieces):
    yield from pieces
    yield 0.1
    raise ConnectionError("the backend hangs up")


# What `chat` sends, and what it is taken for.
CHAT = json.dumps({"messages": [{"role": "user", "content": "Hello"}]}).encode()
ASKED = estimate()
# Half an answer in JSON, and what that is taken for.
HALF = answer(usage(30))[:-5]
DELIVERED = -(-(len(usage(30)) - 5) // 4)
# What the backend does; the status callers see; whether the answer is whole; whether a call counted by 200 keeps its
# place; what is charged to a limit on tokens.
ENDINGS = {
    "resets at once": (lambda: [None], 503, True, False, 0),
    "hangs up at once": (lambda: hang_up(), 503, True, False, 0),
    "resets in the headers": (lambda: [b"HTTP/1.1 200 OK\r\ncontent-ty", 0.1, None], 502, True, False, 0),
    "says no HTTP": (lambda: hang_up(b"SSH-2.0-OpenSSH_9.2\r\n"), 502, True, False, 0),
    "is silent": (lambda: [30.0], 504, True, False, ASKED),
    "resets in a JSON answer": (lambda: [HALF, 0.2, None], 200, False, True, ASKED + DELIVERED),
    "resets in the events": (lambda: [*stream(EVENT, EVENT), 0.2, None], 200, False, True, ASKED + 2),
    "resets after the usage": (lambda: [*stream(EVENT, SAID), 0.2, None], 200, False, True, 30),
    "hangs up in the events": (lambda: hang_up(*stream(EVENT, SAID)), 200, False, True, 30),
    "is silent in the events": (lambda: [*stream(EVENT, SAID), 30.0], 200, False, True, 30),
    "is silent in a JSON answer": (lambda: [HALF, 30.0], 200, False, True, ASKED + DELIVERED),
    "sends 204": (lambda: [b"HTTP/1.1 204 No Content\r\n\r\n"], 204, True, False, ASKED),
    "sends 400 without a body": (lambda: [answer(b"", status="400 Bad Request")], 400, True, False, 0),
    "sends 429 without a body": (lambda: [answer(b"", status="429 Too Many Requests")], 429, True, False, 0),
    "sends 500 without a body": (lambda: [answer(b"", status="500 Internal Server Error")], 500, True, False, 0),
    "sends 500 and resets": (
        lambda: [answer(b"x" * 100, status="500 Internal Server Error")[:-50], 0.2, None], 500, False, False, 0,
    ),
    "sends trailers after the events": (
        lambda: [*stream(EVENT, SAID), b"0\r\nx-end: 1\r\n\r\n"], 200, True, True, 30,
    ),
}


@pytest.fixture
def behind(start_gateway, stand_ins):
    """Starts a gateway before an address, with little patience for silence."""

    def start(address, *limits, **members):
        def edit(config):
            set_endpoint(config, "azure_openai", address)
            connection_manager(config)["stream_idle_timeout"] = f"{IDLE}s"

        return start_gateway(stand_ins, with_limits(stand_ins, *limits, **members), edit=edit)

    return start


CALLS, TOKENS = (CHAT_PATH.replace("gpt-4o", name) for name in ("calls", "tokens"))


def ending_of(gateway, token: str, path: str) -> tuple[int, bool, float]:
    """A call's status, whether its answer was whole, and seconds until it ended."""
    start = time.monotonic()
    connection = http.client.HTTPConnection(*gateway.address, timeout=30)
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    connection.request("POST", path, CHAT, headers)
    response = connection.getresponse()
    try:
        response.read()
        whole = True
    except (http.client.IncompleteRead, ConnectionError):
        whole = False
    connection.close()
    return response.status, whole, time.monotonic() - start


def test_h5_r15_backends_that_break_off(behind, stand_ins):
    """However an answer ends, it ends in time, and is counted and charged once."""
    current = {}
    longest = 0.0
    limits = (
        {"calls": 2, "per": "1h", "count": [200], "deployments": ["calls"]},
        {"tokens": 1_000, "per": "1h", "deployments": ["tokens"]},
    )
    with Backend(lambda _: current["pieces"]()) as backend:
        gateway = behind(backend.address, *limits)

        def after(token: str, path: str, *totals: int) -> list[int]:
            """The statuses of calls that then use so much."""
            statuses = []
            for total in totals:
                current["pieces"] = lambda: [answer(usage(total))]
                statuses.append(chat(gateway, token, path).status)
            return statuses

        for ending, (pieces, status, is_whole, keeps_its_place, charged) in ENDINGS.items():
            token = stand_ins.entra.mint(new_app())
            for path in (CALLS, TOKENS):
                current["pieces"] = pieces
                before = len(gateway.request_log())
                seen, whole, seconds = ending_of(gateway, token, path)
                assert (seen, whole) == (status, is_whole), ending
                assert seconds < IDLE + SLACK, ending
                longest = max(longest, seconds)
                lines = wait_until(lambda: gateway.request_log()[before:], 5, f"the line: {ending}")
                assert [line["outcome"] for line in lines] == ["allowed"], ending
                assert lines[0]["total_tokens"] == (30 if charged == 30 else None), ending
            expected = [200, 429, 429] if keeps_its_place else [200, 200, 429]
            assert after(token, CALLS, 1, 1, 1) == expected, ending
            # One token too much, and the second is refused; one too few, and the third is not.
            assert after(token, TOKENS, 999 - charged, 1, 1) == [200, 200, 429], ending
        assert gateway.stat("cluster.azure_openai.upstream_rq_active") == 0
    figure(
        "R15",
        f"{len(ENDINGS)} ways in which a backend breaks off",
        f"each ended within {longest:.1f} s ({IDLE:.0f} s of silence are allowed), 0 in flight, places and tokens exact",
        longest < IDLE + SLACK,
    )


def test_h5_r15_a_backend_that_refuses_connections(behind, stand_ins):
    gateway = behind(("127.0.0.1", free_port()), {"calls": 1, "per": "1h", "count": [200]})
    token = stand_ins.entra.mint(new_app())
    assert {ending_of(gateway, token, CALLS)[:2] for _ in range(8)} == {(503, True)}


def test_h4_h7_a_stream_without_end_lasts_until_its_client_leaves(behind, stand_ins):
    """It flows for longer than any silence may last; then the caller hangs up and pays for what came."""
    current = {"pieces": trickle}
    with Backend(lambda _: current["pieces"]()) as backend:
        gateway = behind(backend.address, {"tokens": 1_000, "per": "1h"})
        token = stand_ins.entra.mint(new_app())
        connection = http.client.HTTPConnection(*gateway.address, timeout=30)
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        connection.request("POST", TOKENS, CHAT, headers)
        response = connection.getresponse()
        start, events = time.monotonic(), 0
        while time.monotonic() < start + IDLE + 1.5:
            events += response.readline() == EVENT[:-1]
        assert events > 10
        response.close()
        connection.close()
        wait_until(lambda: gateway.stat("http.ingress.downstream_rq_active") == 0, 5, "the stream ends")
        # The backend may have sent a few that nobody read.
        current["pieces"] = lambda: [answer(usage(1_000 - ASKED - events - 20))]
        assert [chat(gateway, token).status for _ in range(2)] == [200, 200]
        current["pieces"] = lambda: [answer(usage(40))]
        assert [chat(gateway, token).status for _ in range(2)] == [429, 429]


@pytest.mark.parametrize("status", ["200 OK", "413 Payload Too Large"])
def test_r15_an_answer_while_the_body_is_still_coming(behind, stand_ins, status):
    """It reaches the caller at once, and the call is over."""
    with Backend(lambda _: [answer(usage(30), status=status), 0.5], early=True) as backend:
        gateway = behind(backend.address, {"calls": 2, "per": "1h", "count": [200]})
        token = stand_ins.entra.mint(new_app())
        statuses = []
        for _ in range(3):
            with socket.create_connection(gateway.address, timeout=20) as client:
                head = f"POST {CALLS} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n"
                head += "content-type: application/json\r\ncontent-length: 100000\r\n\r\n"
                client.sendall(head.encode() + b'{"messages":[')
                statuses.append(int(client.recv(4096).split()[1]))
        assert statuses == ([200, 200, 429] if status.startswith("200") else [413] * 3)
