"""envoy/global-limits.yaml: gateways that share their limits through a rate limit service and Redis."""

import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from .harness import APP_CHAT, TENANT, Gateway, new_app, shipped_policy
from .harness.gateway import CHAT_BODY
from .harness.global_limits import RateLimitService, Redis, add_to
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
        edit = lambda config, service=service: add_to(config, service.address)
        fleet.append(Gateway(directory, stand_ins, policy, edit=edit))
    yield fleet
    problems = [problem for gateway in fleet for problem in gateway.stop()]
    assert not problems, "\n".join(problems)


def chat_using(tokens: int) -> bytes:
    """A request whose answer uses about so many tokens."""
    return json.dumps({"messages": [{"role": "user", "content": "Hello"}], "max_tokens": tokens}).encode()


def used(answer) -> int:
    return answer.json["usage"]["total_tokens"]


def test_two_gateways_share_one_limit_exactly(gateways, stand_ins):
    token = stand_ins.entra.mint(APP_CHAT)
    with ThreadPoolExecutor(16) as callers:
        asked = [callers.submit(gateways[number % 2].chat, token) for number in range(40)]
        verdicts = [answer.result().verdict for answer in asked]
    assert verdicts.count(PASSED) == CALLS_OF_CHAT
    assert verdicts.count(LIMITED) == 40 - CALLS_OF_CHAT
    for gateway in gateways:
        assert gateway.chat(token).verdict == LIMITED
    assert gateways[0].chat(stand_ins.entra.mint(new_app())).verdict == PASSED, "others have counters of their own"


def test_a_refusal_says_when_to_come_back(gateways, stand_ins):
    token = stand_ins.entra.mint(APP_CHAT)
    wait_until(lambda: (answer := gateways[0].chat(token)).verdict == LIMITED and answer, 20, "the limit")
    answer = gateways[1].chat(token)
    assert answer.verdict == LIMITED
    assert 1 <= int(answer.header("retry-after")) <= 60
    assert answer.header("x-ratelimit-remaining") == "0"
    assert answer.header("content-type").startswith("application/json")
    assert set(answer.json["error"]) == {"code", "message", "type", "param"}


def test_an_answer_is_charged_to_the_fleet(gateways, stand_ins):
    token = stand_ins.entra.mint(new_app())
    spent, passed = 0, 0
    while spent <= TOKENS:
        answer = gateways[passed % 2].chat(token, body=chat_using(1_500))
        assert answer.verdict == PASSED, f"after {spent} tokens"
        spent, passed = spent + used(answer), passed + 1
        charged(gateways)
    assert passed >= 6
    for gateway in gateways:
        assert gateway.chat(token).verdict == LIMITED, f"after {spent} tokens"


def test_a_stream_is_charged_at_its_end(gateways, stand_ins):
    token = stand_ins.entra.mint(new_app())
    body = json.loads(chat_using(TOKENS + 1)) | {"stream": True, "stream_options": {"include_usage": True}}
    answer = gateways[0].chat(token, body=json.dumps(body).encode())
    assert answer.status == 200
    charged(gateways)
    assert gateways[1].chat(token).verdict == LIMITED


def charged(gateways) -> None:
    """Waits until the service has answered everything: the charge goes out after the answer."""
    for gateway in gateways:
        name = "cluster.rate_limit_service.upstream_rq_active"
        wait_until(lambda gateway=gateway: gateway.stat(name) == 0, 5, "the service has answered")


def test_refused_and_public_requests_cost_nothing(gateways, stand_ins):
    gateway = gateways[0]
    charged(gateways)
    before = gateway.stat("cluster.rate_limit_service.upstream_rq_total")
    assert gateway.chat().verdict == (401, "TokenNotPresent")
    assert gateway.chat(stand_ins.entra.mint(tenant="99999999-8888-7777-6666-555555555555")).status == 401
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
