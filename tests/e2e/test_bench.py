"""`make bench` with a baseline: the same rows with two modules, and nothing that only the newer one has."""

import copy
import sys
from pathlib import Path

import pytest

from .harness.processes import ROOT

sys.path.insert(0, str(ROOT / "tests"))

from bench import bench, listeners  # noqa: E402

BASELINE = Path("/baseline.wasm")


@pytest.fixture
def chains(stand_ins):
    chains = listeners.Chains(stand_ins)
    bench.listeners(chains, "aaaaaaaa-0000-0000-0000-000000000001", "{}")
    return chains


def compared() -> list:
    return [copy.deepcopy(row) for row in bench.ROWS if row.name in bench.COMPARED]


def plugins(chains) -> dict[str, dict]:
    """The module's configuration by listener."""
    found = {}
    for listener in chains.config()["static_resources"]["listeners"]:
        filters = listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
        found[listener["name"]] = filters[0]["typed_config"]["config"]
    return found


def test_each_compared_row_runs_with_both_modules_under_one_policy(chains):
    assert {row.name for row in compared()} == bench.COMPARED
    rows = bench.with_baseline(compared(), chains, BASELINE)
    chains.keep({row.listener for row in rows})
    config = plugins(chains)
    assert set(config) == {row.listener for row in rows}
    by_name = {row.name: row for row in rows}
    for name in bench.COMPARED:
        ours, theirs = by_name[name], by_name[name + bench.BASELINE_SUFFIX]
        assert (ours.pair, ours.requests, ours.count) == (theirs.name, theirs.requests, theirs.count)
        ours, theirs = config[ours.listener], config[theirs.listener]
        assert theirs["vm_config"]["code"]["local"]["filename"] == str(BASELINE)
        assert ours["vm_config"]["code"]["local"]["filename"] != str(BASELINE)
        assert ours["configuration"] == theirs["configuration"]
        assert ours["name"] != theirs["name"] and ours["vm_config"]["vm_id"] != theirs["vm_config"]["vm_id"]


@pytest.mark.parametrize("costs, met", [([51.0, 52.0, 70.0], True), ([52.0, 52.0, 52.0], False)])
def test_a_ratio_is_the_median_of_the_rounds(chains, capsys, costs, met):
    """Whatever one round was disturbed by."""
    baseline, row = bench.with_baseline(compared()[:1], chains, BASELINE)
    baseline.costs, row.costs = [50.0] * 3 if not met else [50.0, 51.0, 50.0], costs
    baseline.first, row.first = [1] * 3, [1] * 3
    *_, line = bench.report([baseline, row])
    assert line["met"] == met
    assert f"{row.name:44}{costs[1]:8.1f}  {line['ratio']:6.3f}  × the baseline" in capsys.readouterr().out
