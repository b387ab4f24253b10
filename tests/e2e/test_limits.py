"""Limits on calls, exact over two workers. Rows G5 to G9; R17."""

import calendar
import copy
import http.client
import socket
import threading
import time
from collections import Counter

import pytest

from .harness import APP_BATCH, APP_CHAT, new_app, raw, shipped_policy
from .harness.gateway import CHAT_BODY, CHAT_PATH, connection_manager
from .harness.processes import wait_until

LIMITED = (429, "RateLimitExceeded")
QUOTA = (429, "QuotaExceeded")
PASSES = (200, None)


def with_limits(stand_ins, *limits: dict, **members) -> dict:
    """The shipped policy with these limits for every unlisted application."""
    return shipped_policy(stand_ins, default_app={"limits": list(limits), **members})


def test_a_full_limit_refuses_the_head_of_a_request_whose_body_decides(start_gateway, stand_ins):
    """The backend sees nothing of it, however long its body takes."""
    gateway = start_gateway(stand_ins, with_limits(stand_ins, {"calls": 1, "per": "24h"}))
    token, path = stand_ins.entra.mint(new_app()), "/openai/v1/chat/completions"
    assert gateway.request("POST", path, token=token, body=b'{"model":"gpt-4o"}').status == 200
    before = stand_ins.openai.count()
    lines = [f"POST {path} HTTP/1.1", "host: x", f"authorization: Bearer {token}", "content-type: application/json"]
    unfinished = "\r\n".join([*lines, "content-length: 100", "", '{"model":']).encode()
    for _ in range(5):
        assert raw(gateway.address, unfinished, "POST").verdict == (429, "RateLimitExceeded")
    assert stand_ins.openai.count() == before


def together(count: int, work) -> None:
    """Runs work(index) in so many threads; an error in one is an error here."""
    errors = []

    def run(index):
        try:
            work(index)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@pytest.mark.parametrize("limit", [1, 100])
def test_g9_r17_exactly_n_pass(start_gateway, stand_ins, limit):
    """Two workers, 32 connections, all at once: N pass, not one more or less."""
    gateway = start_gateway(stand_ins, with_limits(stand_ins, {"calls": limit, "per": "60s"}))
    stand_ins.openai.reset()
    for _ in range(3):  # A counter's first use is where updates get lost.
        token = stand_ins.entra.mint(new_app())
        verdicts = Counter()
        barrier = threading.Barrier(32)
        lock = threading.Lock()

        def work(_):
            connection = http.client.HTTPConnection(*gateway.address)
            barrier.wait()
            mine = [gateway.chat(token, connection=connection).verdict for _ in range(12)]
            with lock:
                verdicts.update(mine)

        together(32, work)
        assert verdicts == {PASSES: limit, LIMITED: 32 * 12 - limit}
    assert stand_ins.openai.count() == 3 * limit


def test_g6_a_hundred_applications_at_once(start_gateway, stand_ins):
    gateway = start_gateway(stand_ins, with_limits(stand_ins, {"calls": 3, "per": "60s"}))
    tokens = [stand_ins.entra.mint(new_app()) for _ in range(100)]
    passed = Counter()
    lock = threading.Lock()

    def work(_):
        connection = http.client.HTTPConnection(*gateway.address)
        for index, token in enumerate(tokens):
            if gateway.chat(token, connection=connection).verdict == PASSES:
                with lock:
                    passed[index] += 1

    together(8, work)
    assert passed == {index: 3 for index in range(100)}


def test_a_window_slides(start_gateway, stand_ins):
    """In no two seconds do more than five pass, and room comes back in time."""
    calls, window, seconds = 5, 2.0, 9.0
    gateway = start_gateway(stand_ins, with_limits(stand_ins, {"calls": calls, "per": "2s"}))
    token = stand_ins.entra.mint(new_app())
    passes = []
    start = time.monotonic()

    def work(index):
        connection = http.client.HTTPConnection(*gateway.address)
        time.sleep(index * 0.137)
        while time.monotonic() < start + seconds:
            sent = time.monotonic()
            if gateway.chat(token, connection=connection).status == 200:
                passes.append((sent, time.monotonic()))
            time.sleep(0.011)

    together(4, work)
    passes.sort()
    # A call was admitted between `sent` and `answered`.
    for (sent, _), (_, answered) in zip(passes, passes[calls:]):
        assert answered - sent >= window
    # Probes come every few milliseconds, so each window is used in full: 1/60 late at most, and a
    # little for the machine.
    cycles = int((seconds - 0.5) // (window * (1 + 1 / 60) + 0.1))
    assert len(passes) >= calls * cycles


def test_retry_after_is_when_there_is_room(start_gateway, stand_ins):
    gateway = start_gateway(stand_ins, with_limits(stand_ins, {"calls": 2, "per": "3s"}))
    token = stand_ins.entra.mint(new_app())
    assert [gateway.chat(token).status for _ in range(3)] == [200, 200, 429]
    answer = gateway.chat(token)
    millis = int(answer.header("retry-after-ms"))
    assert 1000 < millis <= 3050
    assert int(answer.header("retry-after")) == -(-millis // 1000)
    assert answer.header("x-ratelimit-limit-requests") == "2"
    assert answer.header("x-ratelimit-remaining-requests") == "0"
    assert 1 <= int(answer.header("x-ratelimit-reset-requests")) <= 4
    assert answer.header("x-should-retry") is None
    time.sleep(millis / 1000 - 0.2)
    assert gateway.chat(token).verdict == LIMITED
    time.sleep(0.22)
    assert gateway.chat(token).verdict == PASSES


def test_a_calendar_quota(start_gateway, stand_ins):
    gateway = start_gateway(stand_ins, with_limits(stand_ins, {"calls": 2, "per": "month"}))
    token = stand_ins.entra.mint(new_app())
    assert [gateway.chat(token).verdict for _ in range(3)] == [PASSES, PASSES, QUOTA]
    answer = gateway.chat(token)
    assert answer.header("x-should-retry") == "false"
    assert answer.header("retry-after") is None and answer.header("retry-after-ms") is None
    now = time.gmtime()
    next_month = (now.tm_year + now.tm_mon // 12, now.tm_mon % 12 + 1, 1, 0, 0, 0, 0, 0, 0)
    expected = calendar.timegm(next_month) - time.time()
    assert abs(int(answer.header("x-ratelimit-reset-requests")) - expected) <= 5


def test_several_limits_hold_together(start_gateway, stand_ins):
    limits = [{"calls": 2, "per": "1s"}, {"calls": 3, "per": "60s"}]
    gateway = start_gateway(stand_ins, with_limits(stand_ins, *limits), dynamic=True)
    token = stand_ins.entra.mint(new_app())
    assert [gateway.chat(token).status for _ in range(3)] == [200, 200, 429]
    time.sleep(1.1)
    # A refused call took no place in the other limit.
    assert [gateway.chat(token).status for _ in range(2)] == [200, 429]
    time.sleep(1.1)
    assert gateway.chat(token).verdict == LIMITED


def test_listed_applications_have_their_own_limits(start_gateway, stand_ins):
    gateway = start_gateway(stand_ins)
    batch, chat = stand_ins.entra.mint(APP_BATCH), stand_ins.entra.mint(APP_CHAT)
    other = stand_ins.entra.mint(new_app())
    assert [gateway.chat(batch).status for _ in range(5)] == [200] * 3 + [429] * 2
    assert [gateway.chat(chat).status for _ in range(20)] == [200] * 20
    assert [gateway.chat(other).status for _ in range(20)] == [200] * 20
    # One application, whatever its tokens look like.
    assert gateway.chat(stand_ins.entra.mint(APP_BATCH.upper(), version=2)).verdict == LIMITED


def test_unlisted_applications_have_counters_of_their_own(start_gateway, stand_ins):
    gateway = start_gateway(stand_ins, with_limits(stand_ins, {"calls": 2, "per": "60s"}))
    for _ in range(3):
        token = stand_ins.entra.mint(new_app())
        assert [gateway.chat(token).status for _ in range(3)] == [200, 200, 429]


# Which answers count


def test_only_counted_statuses_keep_their_place(start_gateway, stand_ins):
    gateway = start_gateway(
        stand_ins, with_limits(stand_ins, {"calls": 2, "per": "60s", "count": [200, 404]})
    )
    token = stand_ins.entra.mint(new_app())

    def status(answer: int) -> int:
        return gateway.chat(token, [("x-stand-in-status", str(answer))]).status

    assert [status(500) for _ in range(6)] == [500] * 6
    assert [status(429) for _ in range(3)] == [429] * 3
    assert [status(200), status(500), status(404), status(500)] == [200, 500, 404, 429]
    assert gateway.chat(token).verdict == LIMITED


def test_success_is_2xx(start_gateway, stand_ins):
    gateway = start_gateway(
        stand_ins, with_limits(stand_ins, {"calls": 1, "per": "60s", "count": "success"})
    )
    token = stand_ins.entra.mint(new_app())
    assert gateway.chat(token, [("x-stand-in-status", "400")]).status == 400
    assert gateway.chat(token, [("x-stand-in-status", "201")]).status == 201
    assert gateway.chat(token).verdict == LIMITED


def test_all_counts_errors_too(start_gateway, stand_ins):
    gateway = start_gateway(stand_ins, with_limits(stand_ins, {"calls": 2, "per": "60s"}))
    token = stand_ins.entra.mint(new_app())
    assert [gateway.chat(token, [("x-stand-in-status", "500")]).status for _ in range(3)] == [500, 500, 429]


@pytest.fixture
def one_call(start_gateway, stand_ins):
    """A gateway where one counted 200 is all there is, and a token."""
    limit = {"calls": 1, "per": "60s", "count": [200]}
    return start_gateway(stand_ins, with_limits(stand_ins, limit)), stand_ins.entra.mint(new_app())


def begin(gateway, token, *headers) -> socket.socket:
    """Sends a request and does not wait for its answer."""
    lines = [f"POST {CHAT_PATH} HTTP/1.1", "host: x", f"authorization: Bearer {token}", *headers]
    lines += [f"content-length: {len(CHAT_BODY)}", "", ""]
    connection = socket.create_connection(gateway.address)
    connection.sendall("\r\n".join(lines).encode() + CHAT_BODY)
    return connection


def test_a_call_in_flight_holds_its_place(one_call):
    gateway, token = one_call
    slow = begin(gateway, token, "x-stand-in-delay-ms: 1500", "x-stand-in-status: 500")
    time.sleep(0.3)
    assert gateway.chat(token).verdict == LIMITED
    assert b" 500 " in slow.recv(4096).splitlines()[0]
    slow.close()
    assert gateway.chat(token).verdict == PASSES
    assert gateway.chat(token).verdict == LIMITED


def test_d12_a_client_that_leaves_gives_its_place_back(one_call):
    gateway, token = one_call
    for _ in range(5):
        begin(gateway, token, "x-stand-in-delay-ms: 5000").close()
        wait_until(lambda: gateway.stat("http.ingress.downstream_rq_active") == 0, 5, "the stream ends")
    assert gateway.chat(token).verdict == PASSES
    assert gateway.chat(token).verdict == LIMITED


def test_a_backend_that_resets_gives_the_place_back(one_call):
    gateway, token = one_call
    for _ in range(3):
        assert gateway.chat(token, [("x-stand-in-reset", "before-headers")]).status == 503
    assert gateway.chat(token).verdict == PASSES
    assert gateway.chat(token).verdict == LIMITED


def test_an_answer_that_breaks_off_counts_as_its_status(one_call):
    gateway, token = one_call
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        gateway.chat(token, [("x-stand-in-reset", "mid-body")])
    assert gateway.chat(token).verdict == LIMITED


def test_a_client_that_leaves_after_the_status_has_used_its_call(one_call):
    gateway, token = one_call
    body = b'{"stream": true, "messages": [{"role": "user", "content": "Hello"}]}'
    assert gateway.chat(token, body=body).status == 200
    assert gateway.chat(token, body=body).verdict == LIMITED


def test_calls_refused_for_another_reason_take_no_place(one_call, stand_ins):
    gateway, token = one_call
    assert gateway.chat(token, [("api-key", "x")]).status == 403
    assert gateway.chat(token[:-4] + "AAAA").status == 401
    assert gateway.chat(token).verdict == PASSES


# Across configurations


def test_g7_an_update_of_the_policy_keeps_the_counters(start_gateway, stand_ins):
    limit = {"calls": 4, "per": "60s"}
    gateway = start_gateway(stand_ins, with_limits(stand_ins, limit), dynamic=True)
    token = stand_ins.entra.mint(new_app())
    assert [gateway.chat(token).status for _ in range(3)] == [200] * 3
    changed = with_limits(stand_ins, limit)
    changed["public_paths"] = ["/status", "/other"]
    gateway.update(changed)
    assert [gateway.chat(token).status for _ in range(3)] == [200, 429, 429]
    # A higher limit starts from what is counted.
    gateway.update(with_limits(stand_ins, {**limit, "calls": 6}))
    assert [gateway.chat(token).status for _ in range(3)] == [200, 200, 429]


def test_g7_listing_an_application_keeps_its_count(start_gateway, stand_ins):
    app = new_app()
    limits = [{"calls": 2, "per": "1h"}]
    gateway = start_gateway(stand_ins, with_limits(stand_ins, *limits), dynamic=True)
    token = stand_ins.entra.mint(client_id=app)
    assert [gateway.chat(token).status for _ in range(3)] == [200, 200, 429]
    gateway.update(shipped_policy(stand_ins, apps=[{"app_id": app, "limits": limits}]))
    assert gateway.chat(token).status == 429


def test_r24_updates_under_traffic(start_gateway, stand_ins):
    """No request fails while policies come and go, and not one call too many passes."""
    gateway = start_gateway(stand_ins, with_limits(stand_ins, {"calls": 50, "per": "10m"}), dynamic=True)
    token, free = stand_ins.entra.mint(new_app()), stand_ins.entra.mint(APP_CHAT)
    limited, others = Counter(), Counter()
    running = True

    def work(index):
        while running:
            limited[gateway.chat(token).verdict] += 1
            # On a path without limits: the shipped policy gives APP_CHAT 100 calls.
            others[gateway.request("GET", "/status").status] += 1

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    try:
        for number in range(5):
            policy = with_limits(stand_ins, {"calls": 50, "per": "10m"})
            policy["public_paths"].append(f"/generation-{number}")
            gateway.update(policy)
            assert gateway.chat(free).status == 200
            time.sleep(0.5)
    finally:
        running = False
        for thread in threads:
            thread.join()
    assert set(others) == {200}
    assert limited[PASSES] == 50
    assert set(limited) == {PASSES, LIMITED}


def test_two_filters_of_other_names_count_apart(start_gateway, stand_ins):
    """Instances are kept apart by the plugin's name, not by its policy."""
    def twice(config):
        filters = connection_manager(config)["http_filters"]
        second = copy.deepcopy(filters[0])
        second["name"] = "second"
        second["typed_config"]["config"]["name"] = "second"
        filters.insert(1, second)

    gateway = start_gateway(
        stand_ins, with_limits(stand_ins, {"calls": 2, "per": "60s"}), edit=twice
    )
    token = stand_ins.entra.mint(new_app())
    # Counted together, each call would take two places.
    assert [gateway.chat(token).status for _ in range(3)] == [200, 200, 429]
