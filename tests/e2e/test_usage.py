"""What calls use: read from answers in passing, asked for in streams, told and counted."""

import gzip
import http.client
import json
import os
import random
import socket
import statistics
import time
from pathlib import Path

import pytest

from .harness import APP_CHAT, new_app, shipped_policy
from .harness.backend import Backend, answer, chunked
from .harness.figures import figure
from .harness.gateway import CHAT_PATH, JSON_TYPE, set_endpoint
from .harness.processes import ROOT, wait_until

VECTORS = Path(os.environ.get("VECTORS", ROOT.parent / "shared" / "vectors")) / "openai_responses"
assert VECTORS.is_dir() or "REQUIRE_VECTORS" not in os.environ, VECTORS
SEED = 20_261_124
EVENTS = "text/event-stream"
V1_CHAT = "/openai/v1/chat/completions"
RESPONSES = "/openai/v1/responses"

FIELDS = ("prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "reasoning_tokens")


def behind(start_gateway, stand_ins, backend: Backend, policy: dict | None = None, **options):
    """A gateway before this backend."""
    return start_gateway(
        stand_ins,
        policy,
        edit=lambda config: set_endpoint(config, "azure_openai", backend.address),
        **options,
    )


def told(gateway, send):
    """The answer to one request, and its line in the request log."""
    before = len(gateway.request_log())
    result = send()
    lines = wait_until(lambda: gateway.request_log()[before:], 5, "the request's line")
    assert len(lines) == 1
    return result, lines[0]


def post(gateway, token, path=CHAT_PATH, body: dict | bytes = b"{}", headers=()):
    """A request with a JSON body: the answer, and its line in the request log."""
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = [JSON_TYPE, *headers]
    return told(gateway, lambda: gateway.request("POST", path, token=token, headers=headers, body=body))


def tokens(line: dict) -> tuple:
    return tuple(line[name] for name in FIELDS)


# Recorded answers


def recorded() -> list[dict]:
    entries = []
    for path in sorted(VECTORS.glob("*.json")):
        entries += json.loads(path.read_text())["entries"]
    return entries


def expected_tokens(usage: dict | None) -> tuple:
    """By Python's own JSON: whatever of the two vocabularies is there."""
    if not usage:
        return (None,) * 5

    def either(*names):
        return next((usage[name] for name in names if usage.get(name) is not None), None)

    prompt = either("prompt_tokens", "input_tokens")
    completion = either("completion_tokens", "output_tokens")
    total = usage.get("total_tokens")
    if total is None and (prompt is not None or completion is not None):
        total = (prompt or 0) + (completion or 0)
    details = [
        (usage.get(f"{side}_tokens_details") or {}).get(detail)
        for sides, detail in ((("prompt", "input"), "cached_tokens"), (("completion", "output"), "reasoning_tokens"))
        for side in sides
    ]
    cached = next((value for value in details[:2] if value is not None), None)
    reasoning = next((value for value in details[2:] if value is not None), None)
    return prompt, completion, total, cached, reasoning


def pieces(text: bytes, cuts: int, chance: random.Random) -> list[bytes]:
    places = sorted(chance.randrange(len(text) + 1) for _ in range(cuts))
    return [text[start:end] for start, end in zip([0, *places], [*places, len(text)])]


@pytest.mark.skipif(not VECTORS.is_dir(), reason=f"NOT CHECKED: no recorded answers in {VECTORS}")
def test_recorded_answers_arrive_unchanged_and_say_their_usage(start_gateway, stand_ins):
    chance = random.Random(SEED)
    current: dict = {}

    sent = {"pieces": 0}

    def script(_):
        body = current["entry"]["body"].encode()
        kind = EVENTS if current["entry"]["kind"] == "sse" else "application/json"
        head, *chunks, end = chunked(pieces(body, current["cuts"], chance), kind)
        sent["pieces"] += len(chunks)
        yield head
        # What Envoy reads together reaches the module as one.
        yield from (part for chunk in chunks for part in (chunk, 0.002))
        yield end

    entries = recorded()
    assert len(entries) > 80
    with Backend(script) as backend:
        gateway = behind(start_gateway, stand_ins, backend)
        token = stand_ins.entra.mint(new_app())
        for entry in entries:
            for cuts in (0, 3, 80):
                current.update(entry=entry, cuts=cuts)
                path = CHAT_PATH if cuts != 3 else RESPONSES
                result, line = post(gateway, token, path)
                assert result.body == entry["body"].encode(), entry["id"]
                assert line["stream"] is (entry["kind"] == "sse"), entry["id"]
                assert tokens(line) == expected_tokens(entry["usage"]), entry["id"]
    said = f"{len(entries)} of {len(entries)}, in {sent['pieces']} pieces: usage right, no byte changed"
    figure("R19", "recorded answers through Envoy, in pieces 2 ms apart", said, sent["pieces"] >= 5_000)


# The stand-in, told everywhere


def test_usage_is_told_in_log_filter_state_and_metrics(start_gateway, stand_ins):
    gateway = start_gateway(stand_ins)
    token = stand_ins.entra.mint(APP_CHAT)
    body = {"messages": [{"role": "user", "content": "Hello"}], "model": "gpt-4o"}
    sums = dict.fromkeys(("prompt", "completion", "total", "cached", "reasoning"), 0)
    for path, more, stream in [
        (CHAT_PATH, {}, False),
        (CHAT_PATH, {"stream": True, "stream_options": {"include_usage": True}}, True),
        (V1_CHAT, {}, False),
        (V1_CHAT, {"stream": True, "stream_options": {"include_usage": True}}, True),
        (RESPONSES, {"input": "Hello"}, False),
        (RESPONSES, {"input": "Hello", "stream": True}, True),
        ("/openai/v1/embeddings", {"input": "Hello"}, False),
        ("/openai/v1/completions", {"prompt": "Hello"}, False),
    ]:
        result, line = post(gateway, token, path, {**body, **more})
        assert result.status == 200
        assert line["stream"] is stream, path
        assert line["deployment"] == ("gpt-4o"), path
        assert line["prompt_tokens"] > 0, path
        assert line["total_tokens"] == line["prompt_tokens"] + (line["completion_tokens"] or 0)
        if not stream:
            usage = result.json["usage"]
            assert line["total_tokens"] == usage["total_tokens"]
        access = gateway.line_of(line["request_id"], gateway.access_log)
        for name in FIELDS[:3]:
            if line[name] is not None:
                assert access[name] == str(line[name]), (path, name)
        for kind in sums:
            sums[kind] += line[f"{kind}_tokens"] or 0

    def metrics():
        series = gateway.prometheus("tollgate_tokens")
        found = {
            next(label.split('"')[1] for label in labels if label.startswith("kind=")): value
            for labels, value in series.items()
            if 'app="chat"' in labels
        }
        return {kind: found.get(kind, 0) for kind in sums} == sums

    wait_until(metrics, 5, f"metrics say {sums}")


def test_stored_answers_are_not_counted_again(start_gateway, stand_ins):
    with Backend(lambda _: [answer(b'{"usage":{"total_tokens":7}}')]) as backend:
        gateway = behind(start_gateway, stand_ins, backend)
        token = stand_ins.entra.mint(APP_CHAT)
        for path in ("/openai/v1/responses/resp_1", "/openai/v1/chat/completions/c1"):
            _, line = told(gateway, lambda: gateway.request("GET", path, token=token))
            assert line["total_tokens"] is None
        assert post(gateway, token)[1]["total_tokens"] == 7


# Encodings


def test_answers_are_asked_for_without_compression(start_gateway, stand_ins):
    body = b'{"usage":{"prompt_tokens":3,"total_tokens":7}}'

    def script(received):
        if received.header("accept-encoding"):
            return [answer(gzip.compress(body), "application/json", "200 OK", "content-encoding: gzip")]
        return [answer(body)]

    with Backend(script) as backend:
        gateway = behind(start_gateway, stand_ins, backend)
        token = stand_ins.entra.mint(APP_CHAT)
        result, line = post(gateway, token, headers=[("accept-encoding", "gzip, br")])
        assert (result.body, line["total_tokens"]) == (body, 7)
        # Elsewhere it stays, and where usage is not read.
        gateway.request("GET", "/openai/v1/models", token=token, headers=[("accept-encoding", "gzip")])
        assert backend.received[-1].header("accept-encoding") == "gzip"
        unread = behind(
            start_gateway, stand_ins, backend, shipped_policy(stand_ins, apps=[], usage={"read": False})
        )
        result, line = post(unread, token, headers=[("accept-encoding", "gzip")])
        assert gzip.decompress(result.body) == body
        assert line["total_tokens"] is None


def test_l1_a_backend_that_compresses_all_the_same_is_estimated(start_gateway, stand_ins):
    body = gzip.compress(b'{"usage":{"total_tokens":7}}')
    script = [answer(body, "application/json", "200 OK", "content-encoding: gzip")]
    with Backend(lambda _: script) as backend:
        gateway = behind(start_gateway, stand_ins, backend)
        result, line = post(gateway, stand_ins.entra.mint(APP_CHAT), body=b'{"messages":[]}' + b" " * 25)
        assert result.body == body
        assert line["total_tokens"] is None

        def estimated():
            series = gateway.prometheus("tollgate_tokens")
            return {'app="chat"', 'kind="estimated"'} in [set(labels) for labels in series] and list(
                series.values()
            ) == [line["estimated_tokens"]]

        assert line["estimated_tokens"] == 10 + -(-len(body) // 4), "40 bytes are taken for 10 tokens"
        wait_until(estimated, 5, "the metric says the same")


# Streams are asked for their usage


def inject(stand_ins, **members) -> dict:
    return shipped_policy(stand_ins, usage={"stream_options": "inject"}, **members)


STREAM = {"model": "gpt-4o", "stream": True, "messages": [{"role": "user", "content": "Hello"}]}


def test_streams_are_asked_for_usage_and_callers_do_not_see_it(start_gateway, stand_ins):
    plain = start_gateway(stand_ins, shipped_policy(stand_ins, usage={}))
    asking = start_gateway(stand_ins, inject(stand_ins))
    token = stand_ins.entra.mint(APP_CHAT)
    for path in (CHAT_PATH, V1_CHAT):
        expected, line = post(plain, token, path, STREAM)
        assert line["total_tokens"] is None
        result, line = post(asking, token, path, STREAM)
        assert line["total_tokens"] > line["prompt_tokens"] > 0
        events, expected_events = (body.count(b"\n\n") for body in (result.body, expected.body))
        assert events == expected_events
        assert b'"choices":[],"usage"' not in result.body.replace(b" ", b"")
        assert result.body.endswith(b"data: [DONE]\n\n")


def test_a_caller_who_asks_for_usage_gets_it(start_gateway, stand_ins):
    gateway = start_gateway(stand_ins, inject(stand_ins))
    token = stand_ins.entra.mint(APP_CHAT)
    body = {**STREAM, "stream_options": {"include_usage": True}}
    result, line = post(gateway, token, CHAT_PATH, body)
    assert json.loads(result.body.split(b"\n\n")[-3].removeprefix(b"data: "))["usage"]["total_tokens"]
    assert line["total_tokens"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT_PATH.replace("2024-10-21", "2024-06-01"), STREAM),
        (CHAT_PATH.replace("?api-version=2024-10-21", ""), STREAM),
        (RESPONSES, {**STREAM, "input": "Hello"}),
        (CHAT_PATH, {**STREAM, "stream": False}),
        (CHAT_PATH, {**STREAM, "data_sources": [{"type": "azure_search"}]}),
        ("/openai/v1/embeddings", STREAM),
    ],
)
def test_bodies_that_must_not_ask_stay_as_they_are(start_gateway, stand_ins, path, body):
    with Backend(lambda _: [answer(b"{}")]) as backend:
        gateway = behind(start_gateway, stand_ins, backend, inject(stand_ins))
        post(gateway, stand_ins.entra.mint(APP_CHAT), path, body)
        assert backend.received[-1].body == json.dumps(body).encode()


def test_what_the_backend_receives_when_usage_is_asked_for(start_gateway, stand_ins):
    with Backend(lambda _: [answer(b"{}")]) as backend:
        gateway = behind(start_gateway, stand_ins, backend, inject(stand_ins))
        token = stand_ins.entra.mint(APP_CHAT)
        large = {**STREAM, "messages": [{"role": "user", "content": "x" * 300_000}]}
        for body in (STREAM, large, {**STREAM, "stream_options": {"include_usage": False}}):
            result, _ = post(gateway, token, V1_CHAT, body)
            assert result.status == 200
            received = json.loads(backend.received[-1].body)
            assert received.pop("stream_options") == {"include_usage": True}
            expected = dict(body)
            expected.pop("stream_options", None)
            assert received == expected


def test_the_extra_event_is_taken_out_wherever_it_is_cut(start_gateway, stand_ins):
    chance = random.Random(SEED)
    first = b'data: {"choices":[],"prompt_filter_results":[]}\n\n'
    choice = b'data: {"choices":[{"delta":{"content":"x"}}],"usage":null}\n\n'
    extra = b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}\n\n'
    done = b"data: [DONE]\n\n"
    whole = first + 3 * choice + extra + done
    cuts = {"count": 0}

    def script(_):
        parts = pieces(whole, cuts["count"], chance)
        yield from (piece for part in chunked(parts, EVENTS) for piece in (part, 0.002))

    with Backend(script) as backend:
        gateway = behind(start_gateway, stand_ins, backend, inject(stand_ins))
        token = stand_ins.entra.mint(APP_CHAT)
        for count in [0, 1, 2, 5, 10, 20, 40, 80] * 2:
            cuts["count"] = count
            result, line = post(gateway, token, CHAT_PATH, STREAM)
            assert result.body == first + 3 * choice + done
            assert line["total_tokens"] == 3


def test_events_are_not_held_back(start_gateway, stand_ins):
    """Each event arrives before the next one is sent."""
    arrived = []
    choice = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'

    def script(_):
        head, *events, end = chunked([choice] * 5, EVENTS)
        yield head
        for index, event in enumerate(events):
            yield event
            wait_until(lambda: len(arrived) == index + 1, 5, f"event {index} arrives")
        yield end

    with Backend(script) as backend:
        gateway = behind(start_gateway, stand_ins, backend, inject(stand_ins))
        connection = http.client.HTTPConnection(*gateway.address)
        token = stand_ins.entra.mint(APP_CHAT)
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        connection.request("POST", CHAT_PATH, json.dumps(STREAM).encode(), headers)
        response = connection.getresponse()
        while event := response.readline():
            if event.startswith(b"data"):
                assert event + b"\n" == choice
                arrived.append(event)
        assert len(arrived) == 5


@pytest.mark.alone
def test_r20_an_event_is_not_late(start_gateway, stand_ins):
    """Events carry the time at which they were sent; they arrive within 5 ms, but for one in a hundred."""
    count, rounds, wanted = 400, 5, 0.005

    def script(_):
        yield chunked([], EVENTS)[0]
        for _ in range(count):
            yield chunked([b"data: %.6f\n\n" % time.monotonic()], EVENTS)[1]
            yield 0.002
        yield b"0\r\n\r\n"

    def delays(address) -> list[float]:
        connection = http.client.HTTPConnection(*address, timeout=30)
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        connection.request("POST", CHAT_PATH, json.dumps(STREAM).encode(), headers)
        response = connection.getresponse()
        found = []
        while line := response.readline():
            if line.startswith(b"data: "):
                found.append(time.monotonic() - float(line[6:]))
        connection.close()
        return sorted(found)

    with Backend(script) as backend:
        gateway = behind(start_gateway, stand_ins, backend, inject(stand_ins))
        token = stand_ins.entra.mint(APP_CHAT)
        # What held events back would do so in every round; a busy machine does in some.
        through = [delays(gateway.address) for _ in range(rounds)]
        direct = delays(backend.address)
    assert {len(times) for times in (*through, direct)} == {count}
    late = statistics.median(times[count * 99 // 100] for times in through)
    assert late < wanted, through
    middle = statistics.median(times[count // 2] for times in through)
    told = f"p99 {late * 1000:.2f} ms, median of {rounds} rounds; half within {middle * 1000:.2f} ms, without the gate "
    told += f"{direct[count // 2] * 1000:.2f} ms"
    figure("R20", "delay of an event", told, late < wanted)


# Models in bodies


def narrowed(stand_ins, **members) -> dict:
    return shipped_policy(stand_ins, default_app={"deployments": ["gpt-4o", "text-*"], **members})


def test_deployments_hold_for_models_in_bodies(start_gateway, stand_ins):
    with Backend(lambda _: [answer(b"{}")]) as backend:
        gateway = behind(start_gateway, stand_ins, backend, narrowed(stand_ins))
        token = stand_ins.entra.mint(new_app())
        padding = "x" * 200_000
        good = [
            {"model": "gpt-4o"},
            {"model": "GPT-4O", "messages": [{"model": "other"}]},
            {"messages": [padding], "model": "text-embedding-3"},
            {"model": "gpt-4o", "messages": [padding]},
        ]
        for body in good:
            result, line = post(gateway, token, V1_CHAT, body)
            assert result.status == 200, body["model"]
            assert line["deployment"] == body["model"]
            assert json.loads(backend.received[-1].body) == body
        backend.received.clear()
        bad = [
            b'{"model":"gpt-4"}',
            b'{"model":"other","messages":["%s"]}' % padding.encode(),
            b'{"messages":["%s"],"model":"other"}' % padding.encode(),
            b'{"model":"gpt-4o","model":"other"}',
            b'{"model":"gpt-4o","messages":["%s"],"model":"other"}' % padding.encode(),
            b'{"model":"gpt-4o","Model":"other"}',
            b'{"model":"gpt-4o","mod\\u0065l":"other"}',
            b'{"model":null}',
            b'{"model":["gpt-4o"]}',
            b'{"messages":[]}',
            b'{"model":"gpt-4o/../other"}',
        ]
        unreadable = [
            b'{"model":"gpt-4o"',
            b'{"model":"gpt-4o"}{"model":"other"}',
            b'["model","gpt-4o"]',
            b"model=gpt-4o",
            b"",
        ]
        for body in bad + unreadable:
            result, line = post(gateway, token, V1_CHAT, body)
            expected = (403, "DeploymentNotAllowed") if body in bad else (400, "BodyNotReadable")
            assert result.verdict == expected, body[:60]
            assert (line["status"], line["code"]) == expected
        result, line = post(gateway, token, V1_CHAT, '{"model":"gpt-4o"}'.encode("utf-16"))
        assert result.verdict == (415, "ContentEncodingNotSupported")
        for content_type, expected in (
            ("multipart/form-data; boundary=x", (400, "BodyNotReadable")),
            ("application/json; charset=utf-7", (415, "ContentEncodingNotSupported")),
        ):
            result = gateway.request(
                "POST", V1_CHAT, token=token, headers=[("content-type", content_type)], body=b'{"model":"gpt-4o"}'
            )
            assert result.verdict == expected, content_type
        # What was refused on its way never came to its end.
        assert not [received for received in backend.received if received.complete]


def in_pieces(gateway, token: str, pieces: list[bytes]) -> bytes:
    """Sends a body in chunks, each a while after the other; answers the first line."""
    with socket.create_connection(gateway.address, timeout=20) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        head = f"POST {V1_CHAT} HTTP/1.1\r\nhost: gate\r\nauthorization: Bearer {token}\r\n"
        client.sendall(f"{head}content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n".encode())
        for piece in pieces:
            client.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
            time.sleep(0.1)
        client.sendall(b"0\r\n\r\n")
        return client.makefile("rb").readline()


def test_e4_nothing_follows_what_was_decided_on(start_gateway, stand_ins):
    """A backend may read only the last object, or find a form behind the first: neither comes, however late."""
    policy = narrowed(stand_ins) | {"usage": {"stream_options": "inject"}}
    with Backend(lambda _: [answer(b"{}")]) as backend:
        gateway = behind(start_gateway, stand_ins, backend, policy)
        token = stand_ins.entra.mint(new_app())
        first = b'{"model":"gpt-4o","stream":true'
        whole = first + b',"stream_options":{"include_usage":true}}'
        spaces = b" " * 40_000
        for pieces in ([first, b"}"], [first + b"}", b"\n"], [first, b"} ", spaces, b"\n"]):
            assert in_pieces(gateway, token, pieces).startswith(b"HTTP/1.1 200 "), pieces
            assert backend.received[-1].body == b"".join(pieces).replace(first + b"}", whole)
        seen = []
        for more in (b'{"model":"o1"}', b"\r\n--x\r\n", b"0", b"\0"):
            for pieces in ([first + b"}", more], [first, b"}", spaces, more], [first + b"}" + spaces, spaces + more]):
                status = in_pieces(gateway, token, pieces)
                # What comes at once, as on a busy machine it may, is refused.
                assert status.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 403 ")), more
                seen.append(status[9:12])
        assert seen.count(b"200") > len(seen) // 2
        for received in backend.received:
            if received.complete:
                assert received.body.rstrip(b" \n") == whole
            else:
                assert b"}" not in received.body


def test_a_backend_that_answers_early_says_nothing_undecided(start_gateway, stand_ins):
    """Before the body decided, only errors pass."""
    statuses = iter(["200 OK", "413 Payload Too Large"])
    with Backend(lambda _: [answer(b'{"secret":1}', "application/json", next(statuses))], early=True) as backend:
        gateway = behind(start_gateway, stand_ins, backend, narrowed(stand_ins))
        token = stand_ins.entra.mint(new_app())

        def unfinished():
            with socket.create_connection(gateway.address, timeout=20) as client:
                head = f"POST {V1_CHAT} HTTP/1.1\r\nhost: gate\r\nauthorization: Bearer {token}\r\n"
                head += "content-type: application/json\r\ncontent-length: 1000\r\n\r\n"
                client.sendall(head.encode() + b'{"model":"gpt-4o",')
                return client.recv(65536)

        first = unfinished()
        assert first.startswith(b"HTTP/1.1 400 ") and b"secret" not in first
        assert unfinished().startswith(b"HTTP/1.1 413 ")
