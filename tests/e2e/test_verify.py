"""The table of `make verify`: it says what was measured, and does not call met what was not."""

import json
import sys

import pytest

from .harness.processes import ROOT

sys.path.insert(0, str(ROOT / "tests" / "verify"))

import verify  # noqa: E402

GOOD = {"goal": "R1", "what": "tokens", "figure": "0 of 10", "met": True}


@pytest.fixture
def plan(monkeypatch, tmp_path):
    """Two steps that establish one goal; their commands are a test's."""
    steps = {"one": {"run": "true"}, "two": {"run": "true"}}
    goals = {"R1": {"goal": "No forged token passes", "from": ["one", "two"]}}
    plan = {"steps": steps, "goals": goals}
    monkeypatch.setattr(verify, "PLAN", plan)
    monkeypatch.setattr(verify, "RESULTS", tmp_path)
    monkeypatch.setattr(verify, "ROOT", tmp_path)
    return plan


def measure(step: str, *figures: dict) -> None:
    path = verify.RESULTS / f"{step}.figures"
    path.write_text("".join(json.dumps(figure) + "\n" for figure in figures))


def verdict() -> str:
    measured = {step: verify.figures_of(step) for step in verify.PLAN["steps"]}
    return verify.goal_of("R1", measured)[0]


def test_a_goal_is_met_when_every_step_says_so(plan, capsys):
    assert verdict() == "not measured"
    measure("one", GOOD)
    assert verdict() == "not measured"
    assert not verify.print_table()
    assert "not measured: two" in capsys.readouterr().out
    measure("two", {**GOOD, "met": False})
    assert verdict() == "NOT MET"
    assert not verify.print_table()
    # Whatever is measured again afterwards.
    measure("two", {**GOOD, "met": False}, GOOD)
    assert verdict() == "NOT MET"
    measure("two", GOOD)
    assert verdict() == "met"
    assert verify.print_table()
    assert "No forged token passes" in capsys.readouterr().out


def test_a_step_that_fails_is_told_and_stops_no_other(plan, capsys):
    plan["steps"]["one"]["shows"] = {"R1": "it holds"}
    plan["steps"]["one"]["run"] = "false"
    plan["steps"]["two"]["shows"] = {"R1": "it holds"}
    assert [verify.run(step) for step in plan["steps"]] == [False, True]
    assert verdict() == "NOT MET"
    assert not verify.print_steps()
    assert "FAILED with 1" in capsys.readouterr().out
    plan["steps"]["one"]["run"] = "true"
    assert verify.run("one")
    assert verdict() == "met"
    assert verify.print_steps()


def test_every_goal_names_steps_that_there_are():
    goals = verify.PLAN["goals"]
    assert list(goals) == [f"R{number}" for number in range(1, 31)]
    for name, goal in goals.items():
        assert goal["goal"] and goal["from"], name
        assert set(goal["from"]) <= set(verify.PLAN["steps"]), name
