"""Fixtures: the stand-ins, and gateways with any policy."""

import os
import re
import shutil
from pathlib import Path

import pytest

from .harness import Gateway, StandIns, secrets
from .harness.figures import figure
from .harness.processes import ROOT

# Each of several processes (`pytest -n`) has a directory of its own in it.
LOGS = Path(os.environ.get("E2E_LOGS", ROOT / "target" / "e2e")) / os.environ.get("PYTEST_XDIST_WORKER", "")
TAIL = 40


# What the processes of a session found, in the one that ends it.
problems_in_logs = pytest.StashKey[list[str]]()


def is_worker(config) -> bool:
    """Whether this is one of several processes that share the tests (`pytest -n`)."""
    return hasattr(config, "workerinput")


def pytest_sessionstart(session):
    if not is_worker(session.config):
        shutil.rmtree(LOGS, ignore_errors=True)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    """Takes over what a worker knows at its end: the secrets of its tests, and what its gateways were searched for."""
    output = getattr(node, "workeroutput", {})
    secrets.know(*output.get("secrets", ((), ())))
    Gateway.ended += output.get("ended", [])


def pytest_sessionfinish(session):
    """After the last test, whoever ran it."""
    if is_worker(session.config):
        session.config.workeroutput["secrets"] = secrets.known()
        session.config.workeroutput["ended"] = Gateway.ended
        return
    search_all_logs(session)
    count_ended_gateways()


def search_all_logs(session) -> None:
    """Searches the logs of all tests for the secrets of all tests: gateways', stand-ins', whatever else ran."""
    problems = secrets.found_below(LOGS)
    session.config.stash[problems_in_logs] = problems
    if problems:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        return
    logs = list(LOGS.rglob("*.log"))
    size = sum(log.stat().st_size for log in logs) // 1_000_000
    told = f"0 of {secrets.count()} in {len(logs)} logs, {size} MB"
    figure("R28", f"keys and pieces of tokens in the logs of {LOGS.name}", told, True)


def count_ended_gateways() -> None:
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
        figure(goal, f"{what}, in {LOGS.name}", f"{len(ended)} gateways, {len(found)} with any", not found)


def pytest_terminal_summary(terminalreporter, config):
    if problems := config.stash.get(problems_in_logs, []):
        terminalreporter.section("FAILED: secrets in the logs of the session")
        terminalreporter.write_line("\n".join(problems))


@pytest.fixture
def apart():
    """Leaves gateways that are made to fail out of the count of those that did."""
    before = len(Gateway.ended)
    yield
    del Gateway.ended[before:]


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
