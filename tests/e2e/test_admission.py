"""Requests whose bodies decide: they take their places with their heads, few of them may be undecided, and none goes on
before its decision. Rows L9, L11."""

import contextlib
import json
import time
from collections import Counter

import pytest

from .harness import Gateway, new_app, shipped_policy
from .harness.gateway import CHAT_BODY, plugin
from .harness.http2 import Http2
from .harness.processes import wait_until

V1_CHAT = "/openai/v1/chat/completions"
JSON_TYPE = ("content-type", "application/json")
GPT, O1 = (json.dumps({"model": model, **json.loads(CHAT_BODY)}).encode() for model in ("gpt-4o", "o1"))
PASSES, LIMITED = (200, None), (429, "RateLimitExceeded")
HOURLY, NARROW, FREE, OTHER = (new_app() for _ in range(4))
CONNECTIONS, HEADS, MOST = 24, 100, 40
WORKERS = 2


@pytest.fixture(scope="module")
def gateway(stand_ins, module_directory):
    apps = [
        {"app_id": HOURLY, "limits": [{"calls": 1, "per": "1h"}]},
        {"app_id": NARROW, "deployments": ["gpt-4o"], "limits": [{"calls": 1, "per": "1h"}]},
        {"app_id": FREE},
        {"app_id": OTHER},
    ]
    policy = shipped_policy(stand_ins, apps=apps, max_undecided=MOST)
    with Gateway(module_directory, stand_ins, policy) as running:
        yield running


def ask(gateway, stand_ins, app: str, body: bytes = GPT):
    with Http2(gateway.address) as client:
        bearer = ("authorization", f"Bearer {stand_ins.entra.mint(app)}")
        return client.ask(V1_CHAT, JSON_TYPE, bearer, method="POST", body=body).answer.verdict


@contextlib.contextmanager
def heads_without_bodies(gateway, stand_ins, app: str):
    """24 connections with 100 heads each; what those were answered that were."""
    head = [(":method", "POST"), (":scheme", "http"), (":authority", "gate"), (":path", V1_CHAT), JSON_TYPE]
    head.append(("authorization", f"Bearer {stand_ins.entra.mint(app)}"))
    before = gateway.stat("http.ingress.downstream_rq_total")
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Http2(gateway.address)) for _ in range(CONNECTIONS)]
        for client in clients:
            for _ in range(HEADS):
                client.open(head, end=False)
        sent = CONNECTIONS * HEADS
        wait_until(lambda: gateway.stat("http.ingress.downstream_rq_total") >= before + sent, 20, "all have come")
        yield
    wait_until(lambda: gateway.stat("http.ingress.downstream_rq_active") == 0, 20, "nothing is in flight")


def outcomes(gateway, app: str) -> Counter:
    return Counter((line["outcome"], line["code"]) for line in gateway.request_log() if line["app_id"] == app)


def test_l9_heads_without_bodies_take_places_and_harm_nobody_else(gateway, stand_ins):
    with heads_without_bodies(gateway, stand_ins, HOURLY):
        assert ask(gateway, stand_ins, OTHER) == PASSES
        assert ask(gateway, stand_ins, HOURLY) == LIMITED
    sent = CONNECTIONS * HEADS
    assert outcomes(gateway, HOURLY) == {("undecided", None): 1, ("limited", "RateLimitExceeded"): sent}
    assert ask(gateway, stand_ins, HOURLY) == LIMITED


def test_l9_undecided_requests_are_bounded_for_each_application(gateway, stand_ins):
    with heads_without_bodies(gateway, stand_ins, FREE):
        assert ask(gateway, stand_ins, OTHER) == PASSES
    seen = outcomes(gateway, FREE)
    assert 0 < seen.pop(("undecided", None)) <= MOST * WORKERS
    assert set(seen) == {("limited", "RateLimitExceeded")}
    # Those that left count no more.
    assert [ask(gateway, stand_ins, FREE) for _ in range(5)] == [PASSES] * 5


def test_l9_a_refused_body_gives_its_place_back(gateway, stand_ins):
    refused = [ask(gateway, stand_ins, NARROW, body) for body in (O1, b"x", b"") * 2]
    assert set(refused) == {(403, "DeploymentNotAllowed"), (400, "BodyNotReadable")}
    assert [ask(gateway, stand_ins, NARROW) for _ in range(2)] == [PASSES, LIMITED]


@pytest.mark.parametrize("split", [False, True], ids=["whole", "in pieces"])
def test_l11_a_body_that_comes_while_its_request_waits(start_gateway, own_stand_ins, split):
    """On a listener that hands bodies over though their heads wait, in front of a slow provider."""

    def edit(config):
        plugin(config)["allow_on_headers_stop_iteration"] = True

    own_stand_ins.entra.behave("all", "delay", delay_ms=800)
    apps = [{"app_id": NARROW, "deployments": ["gpt-4o"]}]
    gateway = start_gateway(own_stand_ins, shipped_policy(own_stand_ins, apps=apps), edit=edit)
    bearer = ("authorization", f"Bearer {own_stand_ins.entra.mint(NARROW)}")
    head = [(":method", "POST"), (":scheme", "http"), (":authority", "gate"), (":path", V1_CHAT), JSON_TYPE, bearer]
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Http2(gateway.address)) for _ in range(4)]
        streams = []
        for client, body in zip(clients, (GPT, O1, GPT, O1), strict=True):
            stream = client.open(head, end=False)
            pieces = (body[:20], body[20:-1], body[-1:]) if split else (body,)
            for index, piece in enumerate(pieces, 1):
                client.connection.send_data(stream, piece, end_stream=index == len(pieces))
                client.flush()
                time.sleep(0.02)
            streams.append(stream)
        # One whose body does not end while it waits: what follows would not be seen.
        open_ended = stack.enter_context(Http2(gateway.address))
        undecided = open_ended.open(head, end=False)
        open_ended.connection.send_data(undecided, b'{"model":"gpt-4o"', end_stream=False)
        open_ended.flush()
        verdicts = [client.read(stream).answer.verdict for client, stream in zip(clients, streams, strict=True)]
        assert verdicts == [PASSES, (403, "DeploymentNotAllowed")] * 2
        assert open_ended.read(undecided).answer.verdict == (503, "KeysUnavailable")
    assert own_stand_ins.openai.count() == 2
    # Once there are keys, nothing waits.
    assert ask(gateway, own_stand_ins, NARROW, O1) == (403, "DeploymentNotAllowed")
    assert ask(gateway, own_stand_ins, NARROW) == PASSES
