"""Floods: of garbage, of keys that nobody has, of applications and tokens without number. R7 to R10.

A fifth of the full size or less; THOROUGH=1 runs all of it.
"""

import itertools
import json
import os
import statistics
import time
from collections import Counter

import pytest

from .harness import new_app, shipped_policy
from .harness.direct import add_refusing_listener, answer_directly
from .harness.figures import figure
from .harness.load import Load, Memory, request, send
from .harness.processes import cpu, free_port
from .harness.tokens import b64, unb64

THOROUGH = bool(os.environ.get("THOROUGH"))
# A second: of good callers, of the flood. The first few enough that neither core is busy for long.
RATES = [(200, 400), (500, 2000)]
# Good callers beside unknown kids.
GOOD_RATE = 200
# So many rounds of each kind: a flood that does slow good callers slows them in most.
ROUNDS, SECONDS = 9, 8
MOST_SLOWER = 1.2

# Requests with a path of so many bytes: more than is told of it.
PATHS, LONG_PATH, MOST_COSTLIER = 1_000, 2_040, 3

KIDS = 10_000
# The goal gives them a minute.
KIDS_SECONDS = 60 if THOROUGH else 6
KIDS_FLOOR = 30 if THOROUGH else 5
# Two for each worker.
KIDS_FETCHES = 4
KIDS_SLOWER = 1.1

TOKENS = 100_000 if THOROUGH else 26_000
BATCH = 1_000
OWN_COUNTERS = 10_000
# Two caches of 10,000 tokens, which do not get the same share.
FULL = 50_000 if THOROUGH else 22_000
# The same tokens again, and as many unknown kids as above: so many requests in all.
REQUESTS = 1_000_000
SETTLED = 200_000
MOST_GROWTH = 1024  # KiB

pytestmark = [pytest.mark.alone, pytest.mark.timeout(1800)]


@pytest.fixture
def start(start_gateway):
    """Starts gateways that answer themselves, with these members of the policy and no request log. `refusing`: a port,
    for a listener beside the gateway's that refuses without the gate."""

    def start(stand_ins, refusing: int | None = None, **members):
        def edit(config):
            answer_directly(config)
            if refusing:
                add_refusing_listener(config, refusing)

        policy = shipped_policy(stand_ins, apps=[], log={"requests": False}, **members)
        return start_gateway(stand_ins, policy, edit=edit)

    return start


@pytest.mark.skipif(not THOROUGH, reason="NOT CHECKED here: `make verify` does; it takes cores that nobody else uses")
@pytest.mark.parametrize("good_rate, flood_rate", RATES)
def test_r7_a_flood_of_garbage_does_not_slow_good_callers(start, stand_ins, good_rate, flood_rate):
    """Rounds of good callers: quiet, beside a flood that the gate refuses, and beside the same flood to a listener
    that refuses without the gate. What the machine does meanwhile falls on all three; where the load programs
    share Envoy's cores, the third says what of the flood is theirs."""
    port = free_port()
    gateway = start(stand_ins, refusing=port)
    good = [request(token) for token in stand_ins.entra.mint_many(100, new_app())]
    forged = [request(token) for token in stand_ins.entra.mint_many(50, new_app(), key="foreign")]
    # In equal parts: no token, a long one that is none, and one whose signature has to be verified.
    garbage = [*forged, *[request("garbage.garbage.garbage"), request("x" * 3_000)] * len(forged)]
    refused = Counter()

    def round_of_good_callers() -> float:
        report = send(gateway, good, seconds=SECONDS, rate=good_rate, connections=4)
        assert set(report.of()) == {"200"}
        return report.p99()

    def flooded_round(**where) -> float:
        flood = Load(gateway, garbage, seconds=SECONDS + 0.5, rate=flood_rate, connections=4, **where)
        time.sleep(0.25)
        slowest = round_of_good_callers()
        refused.update(flood.report().of())
        return slowest

    rounds = {"quiet": round_of_good_callers, "gate": flooded_round, "bare": lambda: flooded_round(port=port)}
    p99 = {name: [] for name in rounds}
    send(gateway, good, count=500)
    for turn in range(ROUNDS):
        # Which comes first changes, so that no trend favours one.
        for name in (*list(rounds)[turn % 3 :], *list(rounds)[: turn % 3]):
            p99[name].append(rounds[name]())
    median = {name: statistics.median(values) for name, values in p99.items()}
    assert set(refused) == {"401 JwtInvalid", "401 TokenSignatureInvalid", "401 None"}
    rates = f"good callers at {good_rate}/s beside garbage at {flood_rate}/s"
    told = f"p99 {median['quiet']:.2f} ms quiet, {median['gate']:.2f} ms flooded, {median['bare']:.2f} ms"
    told += f" where Envoy alone refuses the flood; medians of {ROUNDS} rounds of {SECONDS} s"
    figure("R7", f"{rates}, against quiet", told, median["gate"] < MOST_SLOWER * median["quiet"])
    beside_bare = median["gate"] < MOST_SLOWER * median["bare"]
    figure("R7", f"{rates}, against the same flood without the gate", told, beside_bare)
    # Where the load takes a core by itself, its programs and Envoy wait for each other: that is told, and no fault.
    if (good_rate, flood_rate) == RATES[0]:
        assert beside_bare, p99


@pytest.mark.parametrize("piece", ["~", "a.", "%41"])
def test_r7_no_path_costs_more_than_another(start_gateway, stand_ins, piece):
    """Each is searched for what the request log must not tell, which anybody can have done: no token is needed."""
    gateway = start_gateway(stand_ins, edit=answer_directly)

    def cost(path: str) -> int:
        before = cpu(gateway.pid)
        report = send(gateway, [request(path=path)], count=PATHS)
        assert report.of() == {"401 TokenNotPresent": PATHS}
        return cpu(gateway.pid) - before

    plain = "/" + "a" * LONG_PATH
    cost(plain)
    usual = cost(plain)
    odd = cost("/" + (piece * LONG_PATH)[:LONG_PATH])
    no_more = odd < MOST_COSTLIER * usual
    figure("R7", f"2 KB of {piece!r} in a path, with the request log", f"{odd / usual:.1f} times a plain one", no_more)
    assert no_more, (odd, usual)


def test_r10_a_flood_of_unknown_kids_makes_no_flood_of_fetches(start, own_stand_ins):
    """Good callers alone, beside the flood, and beside the same flood to a listener that refuses without the gate."""
    port = free_port()
    issuer = shipped_policy(own_stand_ins)["issuers"][0]
    issuer["refresh"]["at_most_every"] = f"{KIDS_FLOOR}s"
    gateway = start(own_stand_ins, refusing=port, issuers=[issuer])
    entra = own_stand_ins.entra
    good, unknown = [request(entra.mint(new_app()))], unknown_kids(entra.mint(), KIDS)
    send(gateway, good, count=100)

    def callers(seconds: float) -> Load:
        return Load(gateway, good, seconds=seconds, rate=GOOD_RATE, connections=4)

    def flood_of_kids(**where) -> Load:
        return Load(gateway, unknown, count=KIDS, rate=KIDS / KIDS_SECONDS, **where)

    def quiet() -> float:
        return callers(KIDS_SECONDS / 2).report().p99()

    before = quiet()
    bare_flood = flood_of_kids(port=port)
    bare = callers(KIDS_SECONDS).report().p99()
    assert bare_flood.report().of() == {"401 None": KIDS}
    began, fetches = time.monotonic(), entra.stats()["keys"]
    beside, flood = callers(KIDS_SECONDS + 1), flood_of_kids()
    memory = Memory(gateway.pid)
    while flood.is_running():
        time.sleep(0.25)
        # The first second fills buffers that stay.
        if (passed := time.monotonic() - began) > 1:
            memory.sample(passed)
    report, beside = flood.report(), beside.report()
    answers = beside.of()
    allowed = (time.monotonic() - began) / KIDS_FLOOR + 1
    fetched = entra.stats()["keys"] - fetches
    assert report.of() == {"401 TokenSignatureKeyNotFound": KIDS}
    assert set(answers) == {"200"}
    assert 1 <= fetched <= allowed
    good_calls = answers.total()
    growth = memory.growth()
    assert growth < MOST_GROWTH, memory.samples
    what = f"{KIDS} unknown kids in {report.seconds:.0f} s, at most one fetch every {KIDS_FLOOR} s"
    told = f"{fetched} fetches for two workers; {good_calls} of {good_calls} good calls answered 200; "
    told += f"memory {growth:+.0f} KiB"
    figure("R10", what, told, THOROUGH and fetched <= KIDS_FETCHES)
    slow, without = beside.p99(), statistics.mean([before, quiet()])
    told = f"p99 {slow:.2f} ms, {without:.2f} ms without a flood, {bare:.2f} ms where Envoy alone refuses it"
    figure("R10", f"{what}: good callers against quiet", told, THOROUGH and slow < KIDS_SLOWER * without)
    figure("R10", f"{what}: good callers against the same flood without the gate", told, slow < KIDS_SLOWER * bare)


def unknown_kids(token: str, count: int) -> list[str]:
    """Requests with tokens that name keys nobody has."""
    header, rest = token.split(".", 1)
    header = json.loads(unb64(header))
    made = [b64(json.dumps({**header, "kid": f"unknown-{number}"}).encode()) for number in range(count)]
    return [request(f"{header}.{rest}") for header in made]


def test_r8_r9_applications_and_tokens_without_number(start, stand_ins):
    """Every request is of another application with a token of its own. So many have a counter of their own, which
    admits one call; the rest share one, which admits one call too. That tells how many counters there are."""
    gateway = start(stand_ins, default_app={"limits": [{"calls": 1, "per": "24h"}]})
    memory = Memory(gateway.pid)
    answers, sent, batches = Counter(), 0, []
    while sent < TOKENS:
        batches.append([request(token) for token in stand_ins.entra.mint_many(BATCH, new_clients=True)])
        answers += send(gateway, batches[-1], count=BATCH).of()
        sent += BATCH
        # Counters for the first, and room for tokens in both workers' caches, are there by then.
        if sent > FULL:
            memory.sample(sent)
    own = OWN_COUNTERS + 1
    assert answers == {"200": own, "429 RateLimitExceeded": TOKENS - own}
    growth = memory.growth()
    assert growth < MOST_GROWTH, memory.samples
    told = f"{growth:+.0f} KiB from token {FULL} to {TOKENS}, each of another application"
    figure("R8", "memory over applications and tokens without number", told, THOROUGH)
    told = f"{OWN_COUNTERS} counters and one for the rest after {TOKENS} applications, told by what they admit"
    figure("R9", "counters of applications without number", told, THOROUGH)
    if THOROUGH:
        memory_stays_flat_over_a_million(gateway, [*batches, unknown_kids(stand_ins.entra.mint(), KIDS)], sent)


def memory_stays_flat_over_a_million(gateway, batches: list[list[str]], sent: int) -> None:
    memory, answers, before = Memory(gateway.pid), Counter(), sent
    for batch in itertools.cycle(batches):
        if sent >= REQUESTS:
            break
        answers += send(gateway, batch, count=len(batch)).of()
        sent += len(batch)
        if sent >= SETTLED:
            memory.sample(sent)
    assert answers.total() == sent - before
    assert set(answers) == {"429 RateLimitExceeded", "401 TokenSignatureKeyNotFound"}, answers
    growth = memory.growth()
    assert growth < MOST_GROWTH, memory.samples
    told = f"{growth:+.0f} KiB from request {SETTLED} to {sent}, of {TOKENS} tokens and {KIDS} unknown kids"
    figure("R8", "memory over a million requests", told, True)
