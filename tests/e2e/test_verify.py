"""The table of `make verify`: it says what was measured, and does not call met what was not."""

import json
import re
import sys
from pathlib import Path

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
    plan = {"steps": steps, "goals": goals, "elsewhere": ["make more"]}
    monkeypatch.setattr(verify, "PLAN", plan)
    monkeypatch.setattr(verify, "RESULTS", tmp_path)
    monkeypatch.setattr(verify, "ROOT", tmp_path)
    return plan


def measure(step: str, *figures: dict, status: int = 0, sources: str = "these") -> None:
    result = {"status": status, "seconds": 1, "ended": "now", "sources": sources}
    (verify.RESULTS / f"{step}.json").write_text(json.dumps(result))
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


def test_no_goal_is_met_by_a_step_that_failed(plan, capsys):
    measure("one", GOOD, status=2)
    measure("two", GOOD)
    assert verdict() == "NOT MET"
    assert not verify.print_table()
    assert "the step one failed" in capsys.readouterr().out
    (verify.RESULTS / "one.json").unlink()
    assert verdict() == "not measured"


def test_steps_of_several_states_are_no_whole(plan, capsys):
    measure("one", GOOD)
    measure("two", GOOD)
    assert verify.print_steps()
    measure("two", GOOD, sources="those")
    assert not verify.print_steps()
    assert "measured on these, those" in capsys.readouterr().out


def test_what_no_goal_asks_of_a_step_decides_nothing(plan):
    plan["steps"]["three"] = {"run": "true"}
    for step in ("one", "two"):
        measure(step, GOOD)
    measure("three", {**GOOD, "met": False}, status=1)
    assert verdict() == "met"


def test_a_size_is_for_the_step_that_has_it(plan, monkeypatch):
    plan["steps"]["one"]["with"] = {"SECONDS": "60", "TOKENS": "7"}
    monkeypatch.setenv("SECONDS", "5")
    monkeypatch.setenv("ELSE", "x")
    one, two = (verify.environment_of(plan["steps"][name]) for name in ("one", "two"))
    assert (one["SECONDS"], one["TOKENS"], one["ELSE"]) == ("5", "7", "x")
    assert "SECONDS" not in two and two["ELSE"] == "x"


def test_what_leaves_tests_out_reaches_no_step(plan, monkeypatch):
    monkeypatch.setenv("PYTEST_ARGS", "-k nothing")
    assert "PYTEST_ARGS" not in verify.environment_of(plan["steps"]["one"])


def test_what_is_interrupted_meets_nothing(plan, monkeypatch):
    monkeypatch.setenv("TOLLGATE_COMMIT", "0123456789ab")
    assert verify.run("one")
    assert verify.result_of("one")["sources"] == "0123456789ab"

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(verify.subprocess, "run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        verify.run("one")
    assert verify.result_of("one") is None


def writers_of_figures() -> dict[str, list[Path]]:
    """The sources in which each step's figures are written."""
    tests = ROOT / "tests"
    return {
        "vectors": [tests / "vectors.rs", tests / "generated.rs"],
        "core": [*tests.glob("*.rs"), *(tests / "fuzz").rglob("*.rs")],
        "module": list((tests / "second-host").rglob("*.rs")),
        "e2e": [path for path in (tests / "e2e").rglob("*.py") if path.name != "test_verify.py"],
        "soak": [tests / "e2e" / "test_soak.py", tests / "e2e" / "conftest.py"],
        "fuzz-smoke": [tests / "fuzz" / "main.rs"],
        "fuzz": [ROOT / "fuzz" / "run.sh"],
        "mutants": [tests / "setup" / "mutants.sh"],
        "coverage": [tests / "setup" / "coverage.py"],
        "deny": [tests / "verify" / "deny.py"],
        "bench": [tests / "bench" / "bench.py"],
    }


def test_every_step_of_a_goal_has_a_figure_for_it():
    sources = writers_of_figures()
    for name, goal in verify.PLAN["goals"].items():
        for step in goal["from"]:
            shown = verify.PLAN["steps"][step].get("shows", {})
            texts = (path.read_text() for path in sources.get(step, ()))
            assert name in shown or any(f'"{name}"' in text for text in texts), f"{name}: {step}"


def test_every_figure_is_asked_for_by_its_goal():
    steps = {}
    for step, paths in writers_of_figures().items():
        for path in paths:
            steps.setdefault(path, set()).add(step)
    for path, written_by in steps.items():
        for name in re.findall(r'figure\(\s*"(R\d+)"', path.read_text()):
            assert written_by & set(verify.PLAN["goals"][name]["from"]), f"{name}: {written_by}, {path}"


def test_what_check_leaves_out_is_printed_with_its_size(plan, capsys):
    plan["steps"]["one"]["in_check"] = True
    plan["steps"]["two"]["with"] = {"SECONDS": "60"}
    verify.print_left()
    assert "two:          SECONDS=60 true" in (left := capsys.readouterr().out)
    assert "one:" not in left and "make more" in left


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
