"""Limits on tokens: charged at the end of answers, or held from admission on."""

import http.client
import json
import socket
import threading
import time

import pytest

from .harness import new_app, shipped_policy
from .harness.backend import Backend, answer, chunked
from .harness.gateway import CHAT_PATH, set_endpoint
from .harness.processes import wait_until
from .test_limits import together

LIMITED = (429, "TokenLimitExceeded")
QUOTA = (429, "QuotaExceeded")
PASSES = (200, None)
EVENTS = "text/event-stream"


def usage(total: int, prompt: int = 1) -> bytes:
    counts = {"prompt_tokens": prompt, "completion_tokens": total - prompt, "total_tokens": total}
    return json.dumps({"choices": [], "usage": counts}).encode()


def with_limits(stand_ins, *limits: dict, **members) -> dict:
    return shipped_policy(stand_ins, default_app={"limits": list(limits)}, **members)


@pytest.fixture
def start(start_gateway, stand_ins):
    """Starts a gateway with these limits, before a backend that answers as `script` says."""
    backends = []

    def start(script, *limits, **members):
        backend = Backend(script)
        backends.append(backend)
        gateway = start_gateway(
            stand_ins,
            with_limits(stand_ins, *limits, **members),
            edit=lambda config: set_endpoint(config, "azure_openai", backend.address),
        )
        return gateway, stand_ins.entra.mint(new_app())

    yield start
    for backend in backends:
        backend.close()


def chat(gateway, token, path=CHAT_PATH, **members):
    body = {"messages": [{"role": "user", "content": "Hello"}], **members}
    headers = [("content-type", "application/json")]
    return gateway.request("POST", path, token=token, headers=headers, body=json.dumps(body).encode())


def estimate(**members) -> int:
    """What the prompt of `chat` is taken for."""
    return -(-len(json.dumps({"messages": [{"role": "user", "content": "Hello"}], **members})) // 4)


# Charged at the end


def test_a_limit_is_reached_told_and_free_again(start):
    gateway, token = start(lambda _: [answer(usage(40))], {"tokens": 100, "per": "3s"})
    assert [chat(gateway, token).verdict for _ in range(4)] == [PASSES] * 3 + [LIMITED]
    refused = chat(gateway, token)
    assert refused.verdict == LIMITED
    assert refused.json["error"]["message"].startswith("Token limit is exceeded. Try again in ")
    assert refused.header("x-ratelimit-limit-tokens") == "100"
    assert refused.header("x-ratelimit-remaining-tokens") == "0"
    assert 1 <= int(refused.header("x-ratelimit-reset-tokens")) <= 4
    assert refused.header("x-ratelimit-limit-requests") is None
    millis = int(refused.header("retry-after-ms"))
    assert int(refused.header("retry-after")) == -(-millis // 1000)
    time.sleep(millis / 1000 + 0.02)
    assert chat(gateway, token).verdict == PASSES


def test_a_quota_of_tokens(start):
    gateway, token = start(lambda _: [answer(usage(100))], {"tokens": 100, "per": "month"})
    assert [chat(gateway, token).verdict for _ in range(2)] == [PASSES, QUOTA]
    refused = chat(gateway, token)
    assert refused.header("x-should-retry") == "false"
    assert refused.header("x-ratelimit-limit-tokens") == "100"


@pytest.mark.parametrize("kind", ["plain", "stream", "injected"])
def test_every_kind_of_answer_is_charged(start, kind):
    event = b"data: " + usage(50) + b"\n\n"
    choice = b'data: {"choices":[{"delta":{}}],"usage":null}\n\n'

    def script(received):
        if kind == "plain":
            return [answer(usage(50))]
        asked = json.loads(received.body).get("stream_options") == {"include_usage": True}
        assert asked
        return chunked([choice, choice, event, b"data: [DONE]\n\n"], EVENTS)

    members = {"usage": {"stream_options": "inject"}} if kind == "injected" else {}
    gateway, token = start(script, {"tokens": 100, "per": "60s"}, **members)
    more = {"plain": {}, "stream": {"stream": True, "stream_options": {"include_usage": True}}}
    more["injected"] = {"stream": True}
    verdicts = [chat(gateway, token, **more[kind]).status for _ in range(3)]
    assert verdicts == [200, 200, 429]


@pytest.mark.parametrize("status", ["400 Bad Request", "429 Too Many Requests", "500 Internal Server Error"])
def test_answers_that_failed_cost_nothing(start, status):
    gateway, token = start(
        lambda _: [answer(usage(1000), "application/json", status)],
        {"tokens": 1, "per": "60s"},
    )
    assert {chat(gateway, token).status for _ in range(5)} == {int(status[:3])}


def test_answers_without_usage_cost_an_estimate(start):
    events = [b'data: {"choices":[{"delta":{}}]}\n\n'] * 7 + [b"data: [DONE]\n\n"]
    cost = estimate(stream=True) + 7
    gateway, token = start(lambda _: chunked(events, EVENTS), {"tokens": 2 * cost, "per": "60s"})
    assert [chat(gateway, token, stream=True).status for _ in range(3)] == [200, 200, 429]
    gateway, token = start(lambda _: chunked(events, EVENTS), {"tokens": 2 * cost + 1, "per": "60s"})
    assert [chat(gateway, token, stream=True).status for _ in range(4)] == [200, 200, 200, 429]


def test_limits_for_some_operations_and_deployments(start, stand_ins):
    gateway, token = start(
        lambda _: [answer(usage(50))],
        {"tokens": 50, "per": "60s", "deployments": ["gpt-4o"]},
        {"calls": 1, "per": "60s", "operations": ["deployments/embeddings/action"]},
    )
    v1 = "/openai/v1/chat/completions"
    assert chat(gateway, token).verdict == PASSES
    assert chat(gateway, token).verdict == LIMITED
    assert chat(gateway, token, v1, model="GPT-4o").verdict == LIMITED
    assert chat(gateway, token, v1, model="other").verdict == PASSES
    assert chat(gateway, token, CHAT_PATH.replace("gpt-4o", "other")).verdict == PASSES
    # What cannot be told apart counts.
    assert chat(gateway, token, v1).verdict == LIMITED
    assert gateway.request("GET", "/openai/v1/models", token=token).verdict == PASSES
    embeddings = "/openai/v1/embeddings"
    assert chat(gateway, token, embeddings, model="e").verdict == PASSES
    assert chat(gateway, token, embeddings, model="e").verdict == (429, "RateLimitExceeded")


# Held from admission on


def held(tokens: int, per: str = "60s") -> dict:
    return {"tokens": tokens, "per": per, "reserve": True}


def test_u13_what_a_call_may_use_is_held_until_it_ends(start):
    begun, go_on = threading.Semaphore(0), threading.Event()

    def script(_):
        begun.release()
        go_on.wait(10)
        return [answer(usage(30))]

    most = estimate(max_tokens=100) + 100
    gateway, token = start(script, held(2 * most))
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(chat(gateway, token, max_tokens=100).status))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for _ in threads:
        begun.acquire(timeout=10)
    refused = chat(gateway, token, max_tokens=100)
    assert refused.verdict == LIMITED
    assert refused.header("x-ratelimit-remaining-tokens") == "0"
    # What is held comes back when the calls end, not when the window has passed (row U13).
    assert refused.header("retry-after") == "2" and refused.header("x-should-retry") is None
    go_on.set()
    for thread in threads:
        thread.join()
    assert results == [200, 200]
    # 60 of them were used; the rest came back.
    free = 2 * most - 60
    passed = 0
    while chat(gateway, token, max_tokens=100).status == 200:
        passed += 1
    assert passed == (free - most) // 30 + 1


@pytest.mark.parametrize(
    "members",
    [{"max_tokens": 1000}, {"max_completion_tokens": 1000}, {"max_output_tokens": 1000}, {"max_tokens": 100, "n": 10}, {}],
)
def test_a_call_that_can_never_fit_is_told_so(start, members):
    gateway, token = start(lambda _: [answer(usage(3))], held(900))
    refused = chat(gateway, token, **members)
    assert refused.verdict == (413, "CallExceedsLimit")
    assert not [name for name, _ in refused.headers if name.lower() in ("retry-after", "retry-after-ms", "x-should-retry")]
    assert "900 tokens" in refused.json["error"]["message"]
    assert chat(gateway, token, max_tokens=100).verdict == PASSES


def test_no_limit_is_exceeded_by_a_hundred_at_once(start):
    """The ledger is the backend's own."""
    limit, spent, lock = 3_000, [], threading.Lock()

    def script(received):
        bound = json.loads(received.body)["max_tokens"]
        time.sleep(0.05)
        with lock:
            spent.append(bound + 5)
        return [answer(usage(bound + 5, 5))]

    gateway, token = start(script, held(limit))
    verdicts = []

    def work(index):
        connection = http.client.HTTPConnection(*gateway.address, timeout=60)
        body = json.dumps({"messages": [], "max_tokens": 50 + index}).encode()
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        for _ in range(3):
            connection.request("POST", CHAT_PATH, body, headers)
            response = connection.getresponse()
            response.read()
            verdicts.append(response.status)

    together(100, work)
    assert len(verdicts) == 300
    assert set(verdicts) == {200, 429}
    assert sum(spent) <= limit
    # And the room is used, but for what the smallest of them would have held.
    assert sum(spent) > limit - 200


def test_without_reserve_the_overshoot_is_what_was_in_flight(start):
    limit, flight = 1_000, 100
    gateway, token = start(
        lambda _: iter([0.3, answer(usage(100))]),
        {"tokens": limit, "per": "60s"},
    )
    verdicts = []
    together(flight, lambda _: verdicts.append(chat(gateway, token).status))
    assert set(verdicts) <= {200, 429}
    passed = verdicts.count(200)
    together(20, lambda _: verdicts.append(chat(gateway, token).status))
    assert verdicts[flight:] == [429] * 20
    assert limit <= passed * 100 <= limit + flight * 100


@pytest.mark.parametrize("ending", ["reset", "mid-body", "failed", "left", "left mid-stream"])
def test_it_is_settled_once_however_it_ends(start, ending):
    """A failed call gives back what it held; one whose usage is not known keeps it."""
    event = b'data: {"choices":[{"delta":{}}]}\n\n'
    behaviours = {
        "reset": [None],
        "mid-body": [chunked([event], EVENTS)[0], chunked([event], EVENTS)[1], None],
        "failed": [answer(b"{}", "application/json", "500 Internal Server Error")],
        "left": [5.0],
        "left mid-stream": [*chunked([event], EVENTS)[:2], 5.0],
    }
    kept = ending in ("mid-body", "left", "left mid-stream")
    behaviour = {"pieces": behaviours[ending]}
    most = estimate(max_tokens=100) + 100
    gateway, token = start(lambda _: iter(behaviour["pieces"]), held(3 * most))
    for _ in range(2):
        if ending.startswith("left"):
            body = json.dumps({"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 100}).encode()
            head = f"POST {CHAT_PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n"
            head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            with socket.create_connection(gateway.address, timeout=20) as client:
                client.sendall(head.encode() + body)
                if ending == "left":
                    time.sleep(0.2)
                else:
                    assert client.recv(1000)
        else:
            try:
                assert chat(gateway, token, max_tokens=100).status in (200, 500, 503)
            except (http.client.IncompleteRead, ConnectionError):
                pass
        wait_until(lambda: gateway.stat("http.ingress.downstream_rq_active") == 0, 5, "the stream ends")
    # Now calls that use just what they hold.
    behaviour["pieces"] = [answer(usage(most))]
    verdicts = [chat(gateway, token, max_tokens=100).status for _ in range(4)]
    assert verdicts == ([200, 429, 429, 429] if kept else [200, 200, 200, 429])
