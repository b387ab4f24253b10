"""envoy/global-limits.yaml: gateways that share their limits through a rate limit service and Redis."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from .harness import APP_CHAT, Gateway, new_app, shipped_policy
from .harness.gateway import JSON_TYPE
from .harness.global_limits import RateLimitService, Redis, add_to
from .harness.identities import OTHER_TENANT
from .harness.processes import wait_until

pytestmark = pytest.mark.skipif(
    not os.environ.get("RATE_LIMIT_SERVICE"), reason="NOT CHECKED here: `make test-global-limits` does it"
)

LIMITED = (429, "RateLimitExceeded")
PASSED = (200, None)
# envoy/global-limits.json
CALLS_OF_CHAT, TOKENS = 10, 10_000


@pytest.fixture(scope="module")
def redis(module_directory):
    running = Redis(module_directory)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def services(module_directory, redis):
    """Two instances of the service: what they share is in Redis."""
    started = [RateLimitService(module_directory / f"service-{number}", redis) for number in range(2)]
    yield started
    for service in started:
        service.stop()


@pytest.fixture(scope="module")
def gateways(stand_ins, module_directory, services):
    """A fleet of two gateways, each with a service of its own."""
    policy = shipped_policy(stand_ins, apps=[])
    fleet = []
    for number, service in enumerate(services):
        directory = module_directory / f"envoy-{number}"
        edit = partial(add_to, service=service.address)
        fleet.append(Gateway(directory, stand_ins, policy, edit=edit))
    yield fleet
    problems = [problem for gateway in fleet for problem in gateway.stop()]
    assert not problems, "\n".join(problems)


def asked_of_service(gateway) -> int:
    """How often a gateway has asked its rate limit service, and was answered."""
    return gateway.stat("cluster.rate_limit_service.upstream_rq_completed")


def ask(gateway, token: str, stream: bool) -> tuple[tuple[int, str | None], int]:
    """A long call: its verdict, and the tokens that it used. Waits until they are charged."""
    before = asked_of_service(gateway)
    body = {"messages": [{"role": "user", "content": "Hello " * 1_000}]}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    answer = gateway.chat(token, body=json.dumps(body).encode())
    if answer.status != 200:
        return answer.verdict, 0
    # Once for admission, once for the charge.
    wait_until(lambda: asked_of_service(gateway) == before + 2, 5, "the charge")
    events = answer.body.decode().removesuffix("data: [DONE]\n\n").strip()
    return PASSED, json.loads(events.rpartition("data: ")[2])["usage"]["total_tokens"]


def test_two_gateways_share_one_limit_exactly(gateways, stand_ins):
    token = stand_ins.entra.mint(APP_CHAT)
    with ThreadPoolExecutor(16) as callers:
        asked = [callers.submit(gateways[number % 2].chat, token) for number in range(40)]
        verdicts = [answer.result().verdict for answer in asked]
    assert verdicts.count(PASSED) == CALLS_OF_CHAT
    assert verdicts.count(LIMITED) == 40 - CALLS_OF_CHAT
    for gateway in gateways:
        assert gateway.chat(token).verdict == LIMITED
    other = stand_ins.entra.mint(new_app())
    assert gateways[0].chat(other).verdict == PASSED, "each application has counters of its own"


def test_calls_whose_body_decides_are_limited_as_well(gateways, stand_ins):
    """Their heads go on before the decision, and the service is asked then."""
    token = stand_ins.entra.mint(APP_CHAT)
    wait_until(lambda: gateways[0].chat(token).verdict == LIMITED, 20, "the limit")
    path, body = "/openai/v1/chat/completions", json.dumps({"model": "gpt-4o", "messages": []}).encode()
    answer = gateways[1].request("POST", path, token=token, headers=[JSON_TYPE], body=body)
    assert answer.verdict == LIMITED
    other = stand_ins.entra.mint(new_app())
    assert gateways[1].request("POST", path, token=other, headers=[JSON_TYPE], body=body).status == 200


def test_a_refusal_says_when_to_come_back(gateways, stand_ins):
    token = stand_ins.entra.mint(APP_CHAT)
    wait_until(lambda: (answer := gateways[0].chat(token)).verdict == LIMITED and answer, 20, "the limit")
    answer = gateways[1].chat(token)
    assert answer.verdict == LIMITED
    assert 1 <= int(answer.header("retry-after")) <= 60
    assert answer.header("x-ratelimit-remaining") == "0"
    assert answer.header("content-type").startswith("application/json")
    assert set(answer.json["error"]) == {"code", "message", "type", "param"}


def test_the_module_had_allowed_what_a_global_limit_stops(gateways, stand_ins):
    token = stand_ins.entra.mint(APP_CHAT)
    wait_until(lambda: gateways[0].chat(token).verdict == LIMITED, 20, "the limit")
    line = wait_until(lambda: gateways[0].request_log(), 5, "a line in the request log")[-1]
    assert (line["outcome"], line["status"]) == ("allowed", 429)
    assert gateways[0].stat("cluster.azure_openai.ratelimit.over_limit") > 0


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_an_answer_is_charged_to_the_fleet_when_it_ends(gateways, stand_ins, stream):
    token = stand_ins.entra.mint(new_app())
    spent, calls = 0, 0
    while spent <= TOKENS:
        verdict, used = ask(gateways[calls % 2], token, stream)
        assert verdict == PASSED, f"after {spent} tokens"
        spent, calls = spent + used, calls + 1
    assert 5 < calls < 50, "the charges are what ended it"
    for gateway in gateways:
        assert gateway.chat(token).verdict == LIMITED, f"after {spent} tokens"


def test_refused_and_public_requests_cost_nothing(gateways, stand_ins):
    gateway = gateways[0]
    active = "cluster.rate_limit_service.upstream_rq_active"
    wait_until(lambda: gateway.stat(active) == 0, 5, "what earlier calls asked is answered")
    before = gateway.stat("cluster.rate_limit_service.upstream_rq_total")
    assert gateway.chat().verdict == (401, "TokenNotPresent")
    assert gateway.chat(stand_ins.entra.mint(tenant=OTHER_TENANT)).status == 401
    assert gateway.request("GET", "/status").status in (200, 404)
    assert gateway.stat("cluster.rate_limit_service.upstream_rq_total") == before


def test_without_redis_nothing_passes_and_then_everything_goes_on(gateways, stand_ins, redis):
    token = stand_ins.entra.mint(new_app())
    assert gateways[0].chat(token).verdict == PASSED
    redis.stop()
    try:
        answer = gateways[0].chat(token)
        assert answer.verdict == (503, "LimitsUnavailable")
        assert answer.header("retry-after") == "1"
    finally:
        redis.start()
    wait_until(lambda: gateways[0].chat(token).verdict == PASSED, 30, "the service finds Redis again")
