"""Fixtures: the stand-ins, and gateways with any policy."""

import os
import re
import shutil
from pathlib import Path

import pytest

from .harness import Gateway, StandIns, secrets
from .harness.figures import figure
from .harness.processes import ROOT

LOGS = Path(os.environ.get("E2E_LOGS", ROOT / "target" / "e2e"))
TAIL = 40


def pytest_sessionstart():
    shutil.rmtree(LOGS, ignore_errors=True)


def pytest_sessionfinish():
    """What the searches at the end of every gateway found, over all of them."""
    ended = Gateway.ended
    if not ended:
        return
    for goal, what in [
        ("R3", "gateways searched for dead workers and reloads"),
        ("R15", "gateways asked for open requests at their end"),
        ("R28", "gateways whose logs were searched for secrets"),
    ]:
        found = [problem for problems in ended for problem in problems if f"({goal})" in problem]
        figure(goal, what, f"{len(ended)} gateways, {len(found)} with any", not found)


@pytest.fixture
def apart():
    """Leaves gateways that are made to fail out of the count of those that did."""
    before = len(Gateway.ended)
    yield
    del Gateway.ended[before:]


@pytest.fixture(scope="session", autouse=True)
def no_secret_in_any_log():
    """After the last test the logs of all of them are searched: gateways', stand-ins', whatever else ran."""
    yield
    problems = secrets.found_below(LOGS)
    assert not problems, "\n".join(problems)
    logs = list(LOGS.rglob("*.log"))
    size = sum(log.stat().st_size for log in logs) // 1_000_000
    told = f"0 of {secrets.count()} in {len(logs)} logs, {size} MB"
    figure("R28", "keys and pieces of tokens in the logs of the suite", told, True)


@pytest.fixture(scope="session")
def chaos_module() -> Path:
    """The module as `make chaos` builds it, with a switch for what goes wrong."""
    path = Path(os.environ.get("CHAOS_WASM", "target/chaos/tollgate.wasm")).resolve()
    assert path.exists(), f"{path} is missing: run `make chaos`"
    return path


@pytest.fixture(scope="session")
def stand_ins():
    """Stand-ins for tests that leave Entra's behaviour as it is."""
    with StandIns(LOGS / "stand-ins") as running:
        yield running


@pytest.fixture
def own_stand_ins(directory):
    """Stand-ins of one test, to rotate keys and to fail."""
    with StandIns(directory / "stand-ins") as running:
        yield running


@pytest.fixture
def directory(request) -> Path:
    """Where a test's logs are kept."""
    name = re.sub(r"[^\w.-]+", "_", f"{request.module.__name__.rpartition('.')[2]}.{request.node.name}")
    return LOGS / name[:120]


@pytest.fixture
def start_gateway(directory):
    """Starts gateways that end with the test; each is searched for what must never be."""
    started = []

    def start(stand_ins, policy=None, **options) -> Gateway:
        gateway = Gateway(directory / f"envoy-{len(started)}", stand_ins, policy, **options)
        started.append(gateway)
        return gateway

    yield start
    problems = [problem for gateway in started for problem in gateway.stop()]
    assert not problems, "\n".join(problems)


@pytest.fixture(scope="module")
def module_directory(request) -> Path:
    """Where the gateway that a whole file shares keeps its logs."""
    return LOGS / request.module.__name__.rpartition(".")[2]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed:
        for gateway in Gateway.running:
            lines = gateway.log_text().splitlines()[-TAIL:]
            report.sections.append((f"last lines of {gateway.log}", "\n".join(lines)))
    return report
