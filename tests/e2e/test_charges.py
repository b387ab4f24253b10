"""What a call is charged, however it ends: the limit, the metric, the request log and the access log say the same."""

import http.client
import json
import socket
import time

import pytest

from .harness import Gateway, new_app, shipped_policy
from .harness.backend import Backend, answer, chunked
from .harness.gateway import CHAT_PATH, connection_manager, set_endpoint
from .harness.http2 import Http2
from .harness.processes import wait_until

JSON_TYPE = ("content-type", "application/json")
EVENTS = "text/event-stream"
EVENT = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
RESPONSES = "/openai/v1/responses"
# Longer than any of these tests needs, and not long to wait for.
SILENCE = 1.0
LIMIT = 20_000
LARGE = 640_931
RESERVING = [new_app() for _ in range(8)]
HELD = 9_000


def gateway_timeouts(config) -> None:
    """A short wait for any byte, and routes with a time for the whole response, or for each try."""
    manager = connection_manager(config)
    manager["stream_idle_timeout"] = f"{SILENCE}s"
    routes = manager["route_config"]["virtual_hosts"][0]["routes"]
    for kind, route in (
        ("response", {"timeout": "0.3s"}),
        ("try", {"timeout": "0s", "retry_policy": {"per_try_timeout": "0.3s", "num_retries": 0}}),
    ):
        match = {"prefix": "/", "headers": [{"name": "x-timeout", "string_match": {"exact": kind}}]}
        routes.insert(0, {"match": match, "route": {"cluster": "azure_openai", **route}})


@pytest.fixture(scope="module")
def scripts():
    """What the backend does, by the application's own header."""
    return {}


@pytest.fixture(scope="module")
def gateway(stand_ins, module_directory, scripts):
    policy = shipped_policy(
        stand_ins,
        apps=[
            {"app_id": app, "name": f"reserving-{index}", "limits": [{"tokens": LIMIT, "per": "600s", "reserve": True}]}
            for index, app in enumerate(RESERVING)
        ],
        default_app={"name": "plain", "limits": [{"tokens": LIMIT, "per": "600s"}]},
    )
    with Backend(lambda received: scripts[received.header("x-case")](received)) as backend:

        def edit(config):
            set_endpoint(config, "azure_openai", backend.address)
            gateway_timeouts(config)

        with Gateway(module_directory, stand_ins, policy, edit=edit) as running:
            yield running


class Caller:
    """One application, whose calls the backend meets with one script."""

    def __init__(self, gateway, stand_ins, app: str, case: str):
        self.gateway, self.app, self.case = gateway, app, case
        self.token = stand_ins.entra.mint(app)
        self.seen = 0
        self.before = self._metrics()

    def body(self, **members) -> bytes:
        return json.dumps({"messages": [{"role": "user", "content": "Hello"}], **members}).encode()

    def headers(self, body: bytes) -> dict:
        return {
            "authorization": f"Bearer {self.token}",
            "content-type": "application/json",
            "content-length": str(len(body)),
            "x-case": self.case,
        }

    def send(self, path=CHAT_PATH, headers=(), **members):
        body = self.body(**members)
        return self.gateway.request(
            "POST", path, token=self.token, headers=[JSON_TYPE, ("x-case", self.case), *headers], body=body
        )

    def leave(self, after: int | None, path=CHAT_PATH, **members) -> None:
        """Sends a request, and closes the connection after so many bytes of the response, or before it."""
        body = self.body(**members)
        head = "".join(f"{name}: {value}\r\n" for name, value in self.headers(body).items())
        with socket.create_connection(self.gateway.address, timeout=20) as client:
            client.sendall(f"POST {path} HTTP/1.1\r\nhost: gateway\r\n{head}\r\n".encode() + body)
            if after is None:
                time.sleep(0.3)
                return
            while after > 0:
                piece = client.recv(min(after, 65_536))
                assert piece, "the response ended early"
                after -= len(piece)

    def _metrics(self) -> dict[str, int]:
        sums = {"total": 0, "estimated": 0}
        for labels, value in self.gateway.prometheus("tollgate_tokens").items():
            for kind in sums:
                if f'kind="{kind}"' in labels:
                    sums[kind] += value
        return sums

    def charged(self) -> tuple[int, int]:
        """What the next call of this test was charged: reported, and estimated. Log, metric and access log agree."""

        def lines():
            return [line for line in self.gateway.request_log() if line["app_id"] == self.app][self.seen :]

        line = wait_until(lines, 10, "the request's line")[0]
        self.seen += 1
        found = line["total_tokens"] or 0, line["estimated_tokens"] or 0

        def metrics_agree():
            now = self._metrics()
            return tuple(now[kind] - self.before[kind] for kind in ("total", "estimated")) == found

        wait_until(metrics_agree, 10, f"the metrics say {found}")
        self.before = self._metrics()
        access = self.gateway.line_of(line["request_id"], self.gateway.access_log)
        in_access = tuple(
            int(access[name]) if access[name] not in (None, "-", "") else 0
            for name in ("total_tokens", "estimated_tokens")
        )
        # Of a response that is cut off Envoy's loggers may know a little less, of none at all nothing.
        assert in_access[0] == found[0]
        if line["status"] == 200:
            assert found[1] * 30 // 32 - 1 <= in_access[1] <= found[1], (access, line)
        return found


@pytest.fixture
def caller(gateway, stand_ins, scripts, request):
    def caller(script, app: str | None = None) -> Caller:
        case = f"{request.node.name}-{len(scripts)}"
        scripts[case] = script
        return Caller(gateway, stand_ins, app or new_app(), case)

    return caller


def prompt(**members) -> int:
    """What the request of these tests is estimated at."""
    return -(-len(json.dumps({"messages": [{"role": "user", "content": "Hello"}], **members})) // 4)


# Responses that are left, or end without usage


def large_json(_):
    text = b'{"choices":[{"message":{"content":"' + b"x" * LARGE
    tail = b'"}}],"usage":{"prompt_tokens":9,"completion_tokens":160000,"total_tokens":160009}}'
    # The end, where the usage is, stays at the backend.
    return [answer(text + tail)[: -len(tail)], 10.0]


@pytest.mark.parametrize("path", [CHAT_PATH, RESPONSES, "/openai/v1/unknown"])
def test_l1_what_was_delivered_is_charged_though_its_caller_left(caller, path):
    caller = caller(large_json)
    caller.leave(500_000, path, n=8, model="gpt-4o")
    total, estimated = caller.charged()
    # The response's head was among what was taken.
    assert total == 0 and 499_000 // 4 <= estimated <= LARGE // 4 + 100
    assert caller.send(path, n=8, model="gpt-4o").verdict == (429, "TokenLimitExceeded")


def test_l1_a_reset_of_http2_is_charged_too(caller, gateway):
    caller = caller(large_json)
    body = caller.body(n=8)
    headers = caller.headers(body).items()
    with Http2(gateway.address) as client:

        def leave() -> int:
            return client.ask(CHAT_PATH, *headers, method="POST", body=body, up_to=300_000).answer.status

        assert leave() == 200
        total, estimated = caller.charged()
        assert total == 0 and 300_000 // 4 <= estimated <= LARGE // 4 + 100
        assert leave() == 429


def test_l1_json_without_usage_is_charged_by_its_length(caller):
    text = b'{"choices":[{"message":{"content":"%s"}}]}' % (b"y" * 4_000)
    plain = caller(lambda _: [answer(text)])
    assert plain.send().status == 200
    assert plain.charged() == (0, prompt() + -(-len(text) // 4))
    broken = caller(lambda _: [answer(text + b" " * 1_000)[:-1_000], None])
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        broken.send()
    _, estimated = broken.charged()
    assert prompt() < estimated <= prompt() + len(text) // 4 + 1


@pytest.mark.parametrize(
    ("path", "kind"), [("/openai/v1/embeddings", "application/json"), ("/openai/v1/audio/speech", "audio/mpeg")]
)
def test_l1_vectors_and_sound_are_charged_their_prompt(caller, path, kind):
    caller = caller(lambda _: [answer(b"z" * 40_000, kind)])
    assert caller.send(path, model="x").status == 200
    assert caller.charged() == (0, prompt(model="x"))


# What is held


def test_l2_a_stream_longer_than_what_is_held_is_charged_whole(caller):
    caller = caller(lambda _: chunked([EVENT * 500] * 32 + [DONE], EVENTS), RESERVING[0])
    path = CHAT_PATH.replace("2024-10-21", "2024-06-01")
    assert caller.send(path, stream=True).status == 200
    assert caller.charged() == (0, prompt(stream=True) + 16_000)
    assert caller.send(path, stream=True).status == 429


def test_l2_a_short_one_is_charged_what_is_held(caller):
    caller = caller(lambda _: chunked([EVENT] * 7 + [DONE], EVENTS), RESERVING[1])
    assert caller.send(stream=True, max_tokens=HELD).status == 200
    assert caller.charged() == (0, prompt(stream=True, max_tokens=HELD) + HELD)


def test_l13_a_picture_is_held_as_one(caller):
    data = "QUJD" * 20_000
    caller = caller(lambda _: [answer(b'{"choices":[],"usage":{"total_tokens":9}}')], RESERVING[7])
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
    file = {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{data}"}}
    for part in (picture, file):
        assert caller.send(extra=[part], max_tokens=10_000).verdict == (200, None)
        assert caller.charged() == (9, 0)
    text = {"type": "text", "text": f"data:image/png;base64,{data}"}
    assert caller.send(extra=[text], max_tokens=10_000).verdict == (413, "CallExceedsLimit")


# Timeouts and callers that do not wait


def silent(_):
    return [5 * SILENCE]


@pytest.mark.parametrize("kind", ["silence", "response", "try"])
def test_l3_a_timeout_of_the_gateway_is_charged(caller, kind):
    reserving = caller(silent, RESERVING[["silence", "response", "try"].index(kind) + 2])
    headers = [("x-timeout", kind)]
    for _ in range(2):
        assert reserving.send(headers=headers, max_tokens=HELD).status == 504
        assert reserving.charged() == (0, prompt(max_tokens=HELD) + HELD)
    assert reserving.send(headers=headers, max_tokens=HELD).status == 429
    plain = caller(silent)
    assert plain.send(headers=headers, max_tokens=HELD).status == 504
    assert plain.charged() == (0, prompt(max_tokens=HELD))


def test_l3_a_timeout_of_the_backend_is_not(caller):
    caller = caller(lambda _: [answer(b'{"error":{}}', "application/json", "504 Gateway Timeout")], RESERVING[5])
    for _ in range(4):
        assert caller.send(max_tokens=HELD).status == 504
        assert caller.charged() == (0, 0)


def test_l3_a_stream_that_falls_silent_is_charged_what_came(caller):
    caller = caller(lambda _: [*chunked([EVENT] * 20, EVENTS)[:-1], 5 * SILENCE])
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        caller.send(stream=True)
    assert caller.charged() == (0, prompt(stream=True) + 20)


@pytest.mark.parametrize("reserve", [False, True])
def test_j11_who_leaves_before_the_response_is_charged_the_same_everywhere(caller, reserve):
    caller = caller(silent, RESERVING[6] if reserve else None)
    caller.leave(None, max_tokens=1_000)
    assert caller.charged() == (0, prompt(max_tokens=1_000) + (1_000 if reserve else 0))


# What responses report


def usage_of(text: bytes):
    return lambda _: [answer(b'{"choices":[],"usage":%s}' % text)]


@pytest.mark.parametrize("count", [b"18446744073709551615", b"1099511627777", b"-3", b"2.5", b'"9"'])
def test_l4_a_count_that_cannot_be_locks_nobody_out(caller, count):
    script = usage_of(b'{"total_tokens":%s}' % count)
    caller = caller(script)
    for _ in range(2):
        assert caller.send().status == 200
        length = len(script(None)[0].split(b"\r\n\r\n", 1)[1])
        assert caller.charged() == (0, prompt() + -(-length // 4))


def test_l5_what_comes_after_the_last_usage_counts_on_top(caller):
    step = b'event: thread.run.step.completed\ndata: {"object":"thread.run.step","usage":{"total_tokens":25}}\n\n'
    delta = b'event: thread.message.delta\ndata: {"object":"thread.message.delta"}\n\n'
    done = b"event: done\ndata: [DONE]\n\n"
    caller = caller(lambda _: chunked([step, *[delta * 500] * 40, done], EVENTS))
    path = "/openai/threads/t/runs?api-version=2024-10-21"
    assert caller.send(path, assistant_id="a", stream=True).status == 200
    assert caller.charged() == (25, 20_000)
    assert caller.send(path, assistant_id="a", stream=True).status == 429


def test_o3_the_tokens_of_tools_count_on_top(caller):
    counts = b'"usage":{"input_tokens":2000,"output_tokens":30,"total_tokens":2030}'
    tools = b'"tool_usage":{"image_gen":{"input_tokens":65,"output_tokens":7259,"total_tokens":7324}}'
    whole = caller(lambda _: [answer(b"{%s,%s}" % (counts, tools))])
    assert whole.send(RESPONSES, model="gpt-4o").status == 200
    assert whole.charged() == (9_354, 0)
    event = b'event: response.completed\ndata: {"type":"response.completed","response":{%s,%s}}\n\n'
    stream = caller(lambda _: chunked([event % (tools, counts)], EVENTS))
    assert stream.send(RESPONSES, model="gpt-4o", stream=True).status == 200
    assert stream.charged() == (9_354, 0)


@pytest.mark.parametrize("events", [7, 2_000])
def test_o6_a_stream_that_is_cut_off_is_in_every_log(caller, events):
    """The access log has its estimate too: within 1/32 where the stream was long."""
    caller = caller(lambda _: [*chunked([EVENT] * events, EVENTS)[:-1], 10.0])
    caller.leave(events * len(EVENT), stream=True)
    total, estimated = caller.charged()
    assert total == 0 and 0 < estimated <= prompt(stream=True) + events
