"""Counters under as many calls as two workers take, from their first use on. R17.

60,000 calls, and with THOROUGH=1 two million, half of which are counted.
"""

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from .harness import new_app, shipped_policy
from .harness.direct import answer_directly
from .harness.figures import figure
from .harness.gateway import plugin
from .harness.load import Request, request, send
from .harness.processes import wait_until

CALLS = 2_000_000 if os.environ.get("THOROUGH") else 60_000
MANY = 1_000_000
NEW_APPS = 1_000 if os.environ.get("THOROUGH") else 300
CONNECTIONS = 32
APPS_AT_ONCE = 50
CALLERS = 6
# Has the test build wait between the read of a counter and its write.
LINGER = ("x-tollgate-chaos", "linger")

pytestmark = [pytest.mark.alone, pytest.mark.timeout(1800)]


@pytest.fixture
def limited(start_gateway, stand_ins):
    """Starts gateways that answer themselves, with this limit for everybody and no request log."""

    def start(**limit):
        policy = shipped_policy(stand_ins, default_app={"limits": [limit]}, apps=[], log={"requests": False})
        return start_gateway(stand_ins, policy, edit=answer_directly)

    return start


def both_workers_took_part(gateway) -> bool:
    connections = gateway.stats(r"^listener\..*\.worker_\d+\.downstream_cx_total$")
    return len(connections) == 2 and all(connections.values())


def test_r17_no_increment_is_lost(limited, stand_ins):
    """Half of the calls are more than pass: exactly the other half does."""
    amount = CALLS // 2
    gateway = limited(calls=amount, per="24h")
    report = send(
        gateway, [request(stand_ins.entra.mint(new_app()))], count=CALLS, connections=CONNECTIONS
    )
    assert report.of() == {"200": amount, "429 RateLimitExceeded": CALLS - amount}
    assert both_workers_took_part(gateway)
    retries = sum(gateway.prometheus("tollgate_counter_retries").values())
    # Else no two workers ever met.
    assert retries > 0
    told = f"{amount} admitted of {amount}, 0 over, 0 under; {retries} compare-and-swaps tried again"
    figure("R17", f"calls of one application on two workers, {CONNECTIONS} connections", f"{CALLS} calls: {told}", amount >= MANY)


def test_r17_no_increment_is_lost_on_first_use(limited, stand_ins):
    """Applications that nobody has seen, each asked for by both workers at once."""
    calls, limit = 16, 8
    gateway = limited(calls=limit, per="24h")
    tokens = stand_ins.entra.mint_many(NEW_APPS, new_clients=True)
    # Their turns come one after another, so connections of both workers ask at the same time.
    requests = [Request(f"{app}", request(token)) for app, token in enumerate(tokens) for _ in range(calls)]
    report = send(gateway, requests, count=len(requests), connections=calls)
    assert both_workers_took_part(gateway)
    expected = {"200": limit, "429 RateLimitExceeded": calls - limit}
    outcomes = Counter(tuple(sorted(report.of(f"{app}").items())) for app in range(NEW_APPS))
    assert outcomes == {tuple(sorted(expected.items())): NEW_APPS}
    told = f"{NEW_APPS} applications, {calls} calls each at once: {limit} of {limit} admitted for every one"
    figure("R17", "first use of a counter by two workers at once", told, NEW_APPS >= 1_000)


def test_r17_two_workers_come_first_at_once(start_gateway, stand_ins, chaos_module):
    """Each reads that there is no counter before the other has made one: writes linger, in a build for this."""
    # Listed: those that are not take one of 10,000 places first, one after the other.
    ids = [new_app() for _ in range(APPS_AT_ONCE)]
    policy = shipped_policy(stand_ins, apps=[{"app_id": app, "limits": [{"calls": 1, "per": "24h"}]} for app in ids])

    def edit(config):
        answer_directly(config)
        plugin(config)["vm_config"]["code"]["local"]["filename"] = str(chaos_module)

    gateway = start_gateway(stand_ins, policy, edit=edit)
    outcomes = Counter()
    with ThreadPoolExecutor(CALLERS) as callers:
        for token in map(stand_ins.entra.mint, ids):
            ask = partial(gateway.request, "GET", "/openai/models", token=token, headers=[LINGER])
            answers = [answer.result() for answer in [callers.submit(ask) for _ in range(CALLERS)]]
            outcomes[tuple(sorted(answer.status for answer in answers))] += 1
    assert outcomes == {(200, *[429] * (CALLERS - 1)): APPS_AT_ONCE}
    met = wait_until(lambda: sum(gateway.prometheus("tollgate_counter_retries").values()), 5, "workers that met")
    # Connections fall to the workers by chance: without callers on both at once nothing would be shown.
    assert met > APPS_AT_ONCE / 20
    told = f"{APPS_AT_ONCE} applications, one of {CALLERS} calls admitted for every one; {met} times both came first"
    figure("R17", "a counter made by two workers in the same instant", told, True)


def test_r17_places_that_are_given_back_are_there_again(limited, stand_ins):
    """Answers that do not count, between those that do: when all is done, exactly the limit has passed."""
    amount = CALLS // 20
    gateway = limited(calls=amount, per="24h", count=[200])
    token = stand_ins.entra.mint(new_app())
    # The gateway answers this path with 404.
    lost = Request("lost", request(token, path="/not-found"))
    found = Request("found", request(token))
    count = CALLS // 5
    report = send(gateway, [lost, found, lost], count=count, connections=CONNECTIONS)
    # The second of every three.
    sent = len(range(1, count, 3))
    assert report.of("found") == {"200": amount, "429 RateLimitExceeded": sent - amount}
    assert set(report.of("lost")) <= {"404", "429 RateLimitExceeded"}
    assert report.of("lost")["404"] > amount
    given_back = report.of("lost")["404"]
    told = f"{amount} of {amount} admitted that count, beside {given_back} whose place was given back"
    figure("R17", "places given back under load", told, True)
