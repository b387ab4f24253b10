"""Clients that leave, at every phase and by the hundred. Rows D12, H7; R15."""

import socket
import struct
import time
from collections import Counter

import pytest

from .harness import new_app
from .harness.backend import Backend, answer, chunked
from .harness.figures import figure
from .harness.gateway import set_endpoint
from .harness.processes import wait_until
from .test_limits import together, with_limits
from .test_token_limits import usage

PASSES = (200, None)
LIMITED = (429, "RateLimitExceeded")
CLIENTS, THREADS = 200, 20
V1_CHAT = "/openai/v1/chat/completions"
EVENT = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'
USAGE = b"data: " + usage(7) + b"\n\n"
BODY = b'{"model":"gpt-4o","messages":[]}'
# The phase in which clients leave: what they send, whether they wait for a piece of the answer, what the backend
# does, and whether the call keeps its place in a limit that counts 200s.
PHASES = {
    "in the headers": ("head", False, [], False),
    "in a body that decides": ("half", False, [], False),
    "before the answer": ("whole", False, [5.0], False),
    "in the answer": ("whole", True, [answer(b"x" * 100_000)[:50_000], 5.0], True),
    "in the events": ("whole", True, [*chunked([EVENT, USAGE, EVENT], "text/event-stream")[:-1], 5.0], True),
}


def send(gateway, token: str, part: str) -> socket.socket:
    """Sends a part of a request."""
    head = f"POST {V1_CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(BODY)}\r\n\r\n"
    data = {"head": head[:-20].encode(), "half": head.encode() + BODY[:20], "whole": head.encode() + BODY}
    client = socket.create_connection(gateway.address, timeout=20)
    client.sendall(data[part])
    return client


def leave(client: socket.socket, how: str) -> None:
    if how == "RST":
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def tokens_in_access_log(gateway) -> dict[str, int | None]:
    told = {line["request_id"]: line["total_tokens"] for line in gateway.access_log()}
    return {request: tokens and int(tokens) for request, tokens in told.items()}


@pytest.mark.parametrize("how", ["FIN", "RST"])
@pytest.mark.parametrize("phase", PHASES)
def test_d12_h7_r15_hundreds_of_clients_leave(start_gateway, stand_ins, phase, how):
    part, waits, pieces, keeps_its_place = PHASES[phase]
    behaviour = {"pieces": pieces}
    with Backend(lambda _: iter(behaviour["pieces"])) as backend:
        limits = {"calls": CLIENTS + 5, "per": "1h", "count": [200]}, {"tokens": 100_000_000, "per": "1h"}
        # Deployments, so that the body decides.
        policy = with_limits(stand_ins, *limits, deployments=["gpt-4o"])
        gateway = start_gateway(
            stand_ins, policy, edit=lambda config: set_endpoint(config, "azure_openai", backend.address)
        )
        token = stand_ins.entra.mint(new_app())

        def work(_):
            for _ in range(CLIENTS // THREADS):
                client = send(gateway, token, part)
                if waits:
                    assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
                else:
                    time.sleep(0.05)
                leave(client, how)

        together(THREADS, work)
        wait_until(lambda: gateway.stat("http.ingress.downstream_cx_active") == 0, 20, "all are gone")
        assert gateway.stat("http.ingress.downstream_rq_active") == 0
        assert gateway.stat("cluster.azure_openai.upstream_rq_active") == 0

        # A request whose head never ended is none, for Envoy and for the module.
        expected = 0 if part == "head" else CLIENTS
        wait_until(lambda: len(gateway.request_log()) >= expected, 10, "a line for each")
        lines = gateway.request_log()
        assert len(lines) == expected
        assert len({line["request_id"] for line in lines}) == expected
        told = Counter((line["outcome"], line["status"]) for line in lines)
        if part == "whole":
            assert told == {("allowed", 200 if waits else None): CLIENTS}
            # Envoy's own line is written before the module's, and says the same of tokens.
            read = {line["request_id"]: line["total_tokens"] for line in lines}
            wait_until(lambda: tokens_in_access_log(gateway) == read, 10, "both logs say the same")
            assert (7 in read.values()) is (phase == "in the events")

        # What the limit gave back is there for others, and nothing more.
        behaviour["pieces"] = [answer(usage(1))]
        free = 5 if keeps_its_place else CLIENTS + 5
        verdicts = Counter()

        def use(_):
            for _ in range((CLIENTS + 20) // THREADS):
                headers = [("content-type", "application/json")]
                verdicts[gateway.request("POST", V1_CHAT, token=token, headers=headers, body=BODY).verdict] += 1

        together(THREADS, use)
        assert verdicts == {PASSES: free, LIMITED: CLIENTS + 20 - free}
    figure(
        "R15",
        f"{CLIENTS} clients that leave {phase} ({how})",
        f"0 in flight, {len(lines)} lines, places in the limit exact",
        len(lines) == expected and verdicts[PASSES] == free,
    )
