"""Mixed traffic for a while, with every kind of attack in it: nothing fails that was not to, nothing grows, and all
that is told adds up. R8, R15, R21, R25, R30. `make soak` takes ten minutes."""

import datetime
import os
import time
from collections import Counter

import pytest

from .harness import Gateway
from .harness.figures import figure
from .harness.gateway import CHAT_BODY
from .harness.load import Load, Memory, Report
from .harness.processes import cpu, wait_until
from .harness.traffic import APPS, BOUNDED, MODEL_IN_BODY, SHARED, WINDOW_CALLS, WINDOW_SECONDS, Traffic, total

SECONDS = float(os.environ.get("SOAK_SECONDS", 30))
# Shorter ones say little of what comes with time.
LONG = 600
RATE = 300
CONNECTIONS = 16
LEGS = 6
# In KiB, from the second leg to the end: VMs and caches fill up in the first one.
MOST_GROWTH = 1024
MOST_SLOWER = 1.1

NAMES = {app: name for name, app in APPS.items()}
pytestmark = [pytest.mark.alone, pytest.mark.timeout(int(SECONDS * 2 + 180))]


class Soak:
    """What was sent, and what came of it."""

    def __init__(self, stand_ins, directory):
        self.stand_ins = stand_ins
        self.traffic = Traffic(stand_ins, int(SECONDS * RATE))
        self.gateway = Gateway(directory, stand_ins, self.traffic.policy())
        self.memory = Memory(self.gateway.pid)
        self.reports = []
        self.passed_on = 0
        # How much of one core Envoy took.
        self.busy = 0.0

    def run(self) -> None:
        requests = self.traffic.requests()
        before = self.stand_ins.openai.count()
        began, used = time.monotonic(), cpu(self.gateway.pid)
        for leg in range(LEGS):
            load = Load(self.gateway, requests, seconds=SECONDS / LEGS, rate=RATE, connections=CONNECTIONS)
            while load.is_running():
                time.sleep(0.25)
                if leg > 0:
                    self.memory.sample(time.monotonic() - began)
            self.reports.append(load.report())
        self.busy = (cpu(self.gateway.pid) - used) / 1e9 / (time.monotonic() - began)
        wait_until(lambda: not self.in_flight(), 10, "no request is in flight")
        self.passed_on = self.stand_ins.openai.count() - before
        self.expected = self.traffic.expected(self.reports)
        # What the VMs have counted is told with their next ticks.
        wait_until(lambda: self.counted() == self.expected_counts(), 5, "metrics add up")

    def in_flight(self) -> int:
        stat = self.gateway.stat
        return stat("http.ingress.downstream_rq_active") + stat("cluster.azure_openai.upstream_rq_active")

    def answers(self, kind: str) -> Counter:
        return total(self.reports, kind)

    def callers_p99(self, report: Report) -> float:
        """In milliseconds, the mean over the kinds of callers by how many there are: over all requests it would be
        the wait of those who are made to wait, which are about one in a hundred."""
        share = {name: kind.share for name, kind in self.traffic.callers.items()}
        return sum(report.p99(name) * share[name] for name in share) / sum(share.values())

    def counted(self) -> Counter:
        """`tollgate_requests` by application, outcome and code."""
        return by_labels(self.gateway, "tollgate_requests", "app", "outcome", "code")

    def expected_counts(self) -> Counter:
        counts = Counter()
        for (*labels, _status), count in self.expected.items():
            counts[tuple(labels)] += count
        return counts

    def told_in(self, log: list[dict]) -> Counter:
        """What a log tells: application, outcome, code, status."""
        return Counter(
            (app_label(line["app_id"]), line["outcome"], line["code"] or "none", line["status"] or None)
            for line in log
            # What Envoy refused itself.
            if line["outcome"]
        )


def app_label(app: str | None) -> str:
    return NAMES.get(app, SHARED) if app else "none"


def by_labels(gateway: Gateway, metric: str, *names: str) -> Counter:
    """A metric's series that are not 0, by the values of their labels."""
    found = Counter()
    for labels, count in gateway.prometheus(metric).items():
        values = dict(label.split("=") for label in labels)
        found[tuple(values[name].strip('"') for name in names)] += count
    return +found


@pytest.fixture(scope="module")
def soak(stand_ins, module_directory):
    soak = Soak(stand_ins, module_directory)
    with soak.gateway:
        soak.run()
        yield soak


def test_r25_what_was_sent_was_answered_as_it_should_be(soak):
    """`Traffic.expected` refuses every answer that its kind should not get: each 5xx among them."""
    for kind, share in soak.traffic.kinds.items():
        assert soak.answers(kind).total() > 0, kind
    sent = sum(report.of(kind).total() for report in soak.reports for kind in soak.traffic.kinds)
    assert sent == pytest.approx(SECONDS * RATE, rel=0.1)
    # The first sixth is the slowest: VMs and caches fill up in it.
    second, last = soak.callers_p99(soak.reports[1]), soak.callers_p99(soak.reports[-1])
    ratio = last / second
    told = (
        f"{len(soak.traffic.kinds)} kinds, {SECONDS:.0f} s at {RATE}/s, Envoy at {soak.busy:.0%} of a core, "
        f"{sent} answered, 0 5xx not asked for; "
        f"p99 of callers in the last sixth {last:.2f} ms, {ratio:.2f} times the second's"
    )
    figure("R25", "mixed traffic with each attack at 1 %", told, SECONDS >= LONG and ratio <= MOST_SLOWER)


def test_r25_memory_does_not_grow(soak):
    growth = soak.memory.growth()
    assert growth < MOST_GROWTH, soak.memory.samples[::20]
    for goal in ("R8", "R25"):
        figure(goal, "resident memory over the soak, linear fit", f"{growth:+.0f} KiB in {SECONDS:.0f} s", True)


def test_r15_nothing_is_in_flight_at_the_end(soak):
    assert soak.in_flight() == 0
    lines = soak.gateway.request_log()
    assert len(lines) == soak.expected.total()
    figure("R15", "requests in flight after the soak", f"0 of {len(lines)}", True)


def test_r30_metrics_add_up_to_what_was_answered(soak):
    counted = soak.counted()
    assert counted == soak.expected_counts()
    by_gate = sum(count for (_, _, code), count in counted.items() if code != "none")
    answered = sum(
        count
        for name, kind in soak.traffic.kinds.items()
        for answer, count in soak.answers(name).items()
        if (told := kind.told[answer]) and told[2] != "none"
    )
    assert by_gate == answered
    codes = len({code for _, _, code in counted} - {"none"})
    figure("R30", "sum over codes = answers made by the filter", f"{by_gate} = {answered}, over {codes} codes", True)


def test_r30_both_logs_add_up_to_what_was_answered(soak):
    assert soak.told_in(soak.gateway.request_log()) == soak.expected
    wait_until(lambda: len(soak.gateway.access_log()) >= soak.expected.total(), 5, "all access log lines")
    assert soak.told_in(soak.gateway.access_log()) == soak.expected
    lines = soak.expected.total()
    figure("R30", "lines of both logs by application, outcome, code, status", f"{lines}, all exact", True)


def test_r30_tokens_add_up_to_what_was_used(soak):
    used = soak.traffic.tokens(soak.reports)
    logged, estimates = Counter(), []
    for line in soak.gateway.request_log():
        for kind in ("prompt", "completion", "total", "estimated"):
            logged[app_label(line["app_id"]), kind] += line[f"{kind}_tokens"] or 0
        if line["estimated_tokens"] is not None:
            estimates.append(line["estimated_tokens"])
    logged = +logged
    assert by_labels(soak.gateway, "tollgate_tokens", "app", "kind") == logged
    assert {labels: count for labels, count in logged.items() if labels[1] != "estimated"} == used
    # A token for four bytes of the request, and for four of what came of the response.
    prompt = -(-len(CHAT_BODY) // 4)
    assert len(estimates) == soak.traffic.without_usage(soak.reports)
    assert all(prompt <= estimate < prompt + 1_000 for estimate in estimates)
    figure("R30", "tokens by application and kind", f"{sum(logged.values())} in metrics and log, all exact", True)


def test_r17_limits_admitted_exactly_what_they_allow(soak):
    traffic = soak.traffic
    assert soak.answers("quota")["200"] == traffic.quota
    assert soak.answers("counted")["200"] == traffic.counted
    used = traffic.tokens(soak.reports)
    # A call more may not have fitted.
    needed = 20 + -(-len(BOUNDED) // 4)
    assert traffic.tokens_limit - needed < used["reserve", "total"] <= traffic.tokens_limit
    # Beyond the limit is what was in flight.
    assert traffic.tokens_limit <= used["charged", "total"] < traffic.tokens_limit + CONNECTIONS * needed
    admitted = sorted(
        datetime.datetime.fromisoformat(line["time"]).timestamp()
        for line in soak.gateway.request_log()
        if line["app_name"] == "window" and line["outcome"] == "allowed"
    )
    # A line says when the request came; it was admitted a little later, or more on a busy machine.
    closest = min(after - before for before, after in zip(admitted, admitted[WINDOW_CALLS:]))
    assert closest > WINDOW_SECONDS - 0.25
    figure(
        "R17",
        "calls and tokens admitted in the soak",
        f"{traffic.quota} of {traffic.quota} calls, {traffic.counted} of {traffic.counted} that count, "
        f"{used['reserve', 'total']} of {traffic.tokens_limit} tokens",
        True,
    )


def test_r21_the_backend_sees_what_was_let_through_and_nothing_else(soak):
    allowed = sum(count for (_, outcome, _, _), count in soak.expected.items() if outcome == "allowed")
    # A request whose body decides has sent its head on by then.
    half_seen = soak.answers(MODEL_IN_BODY).total()
    assert allowed <= soak.passed_on <= allowed + half_seen
    for received in soak.stand_ins.openai.requests():
        values = [value for name, value in received["headers"] if name == "x-app-id"]
        assert "admin" not in values and len(values) <= 1
    told = f"{soak.passed_on}, of which {allowed} allowed"
    figure("R21", "requests that reached the backend in the soak", told, True)
