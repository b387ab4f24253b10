"""Backends that fail, at every point of an answer. Rows H4, H5; R15."""

import http.client
import json
import socket
import time

import pytest

from .harness import new_app
from .harness.backend import Backend, answer, chunked
from .harness.figures import figure
from .harness.gateway import connection_manager, set_endpoint
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


ASKED = estimate()
# What the backend does; the status callers see; whether the answer is whole; whether a call counted by 200 keeps its
# place; what is charged to a limit on tokens.
ENDINGS = {
    "resets at once": (lambda: [None], 503, True, False, 0),
    "hangs up at once": (lambda: hang_up(), 503, True, False, 0),
    "resets in the headers": (lambda: [b"HTTP/1.1 200 OK\r\ncontent-ty", 0.1, None], 503, True, False, 0),
    "says no HTTP": (lambda: hang_up(b"SSH-2.0-OpenSSH_9.2\r\n"), 502, True, False, 0),
    "is silent": (lambda: [30.0], 504, True, False, ASKED),
    "resets in a JSON answer": (lambda: [answer(usage(30))[:-5], 0.2, None], 200, False, True, ASKED),
    "resets in the events": (lambda: [*stream(EVENT, EVENT), 0.2, None], 200, False, True, ASKED + 2),
    "resets after the usage": (lambda: [*stream(EVENT, SAID), 0.2, None], 200, False, True, 30),
    "hangs up in the events": (lambda: hang_up(*stream(EVENT, SAID)), 200, False, True, 30),
    "is silent in the events": (lambda: [*stream(EVENT, SAID), 30.0], 200, False, True, 30),
    "is silent in a JSON answer": (lambda: [answer(usage(30))[:-5], 30.0], 200, False, True, ASKED),
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


def test_h5_r15_backends_that_break_off(behind, stand_ins):
    """However an answer ends, it ends in time, and is counted and charged once."""
    current = {}
    longest = 0.0
    with Backend(lambda _: current["pieces"]()) as backend:
        limits = {"calls": 2, "per": "1h", "count": [200]}, {"tokens": 1_000, "per": "1h", "reserve": False}
        gateway = behind(backend.address, *limits)
        for ending, (pieces, status, is_whole, keeps_its_place, charged) in ENDINGS.items():
            token = stand_ins.entra.mint(new_app())
            current["pieces"] = pieces
            before = len(gateway.request_log())
            start = time.monotonic()
            try:
                seen, whole = chat(gateway, token).status, True
            except (http.client.IncompleteRead, ConnectionError):
                seen, whole = 200 if status == 200 else status, False
            longest = max(longest, time.monotonic() - start)
            assert (seen, whole) == (status, is_whole), ending
            assert longest < IDLE + SLACK, ending
            line = wait_until(lambda: gateway.request_log()[before:], 5, f"the line: {ending}")
            assert len(line) == 1, ending
            assert line[0]["outcome"] == "allowed", ending
            assert line[0]["total_tokens"] == (30 if charged == 30 else None), ending

            # What is left of both limits tells what this call took.
            current["pieces"] = lambda: [answer(usage(1_000 - charged))]
            statuses = [chat(gateway, token).status for _ in range(2)]
            assert statuses == [200, 429], ending
        assert gateway.stat("cluster.azure_openai.upstream_rq_active") == 0
    figure("R15", f"{len(ENDINGS)} ways in which a backend breaks off", f"each ended within {longest:.1f} s "
           f"({IDLE:.0f} s of silence are allowed), 0 in flight", longest < IDLE + SLACK)
