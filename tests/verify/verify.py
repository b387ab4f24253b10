"""Runs the steps of goals.yaml one after the other, then prints what they measured, goal by goal.

    verify.py [--table | --left] [step ...]

Without names all steps run. A step that fails stops no other, and no goal that needs it is met. The figures of each
stay until it runs again, so that a table can be printed from several runs. Ends with 1 when a step failed or a goal
is not met.
"""

import argparse
import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
PLAN = yaml.safe_load(Path(__file__).with_name("goals.yaml").read_text())
RESULTS = ROOT / "target" / "verify"
WIDTH = 118
TAIL = 20
# Each leaves out a part of what a step is to run.
CHOICES = {"PYTEST_ARGS", "BENCH_ARGS", "FUZZ_TARGETS", "MUTANTS"}


def run(name: str) -> bool:
    """Runs a step; its output goes to a file."""
    step = PLAN["steps"][name]
    log, figures = RESULTS / f"{name}.log", RESULTS / f"{name}.figures"
    # What is interrupted leaves nothing that a goal could be met by.
    (RESULTS / f"{name}.json").unlink(missing_ok=True)
    figures.write_text("")
    environment = environment_of(step) | {"FIGURES": str(figures)}
    print(f"{name}: {step['run']} ...", flush=True)
    begin = time.monotonic()
    with log.open("wb") as output:
        # Its make is a run of its own, and not a part of the one that started this.
        for variable in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL"):
            environment.pop(variable, None)
        status = subprocess.run(
            step["run"].split(), cwd=ROOT, env=environment, stdout=output, stderr=output
        ).returncode
    for goal, what in step.get("shows", {}).items():
        line = {"goal": goal, "what": what, "figure": "no" if status else "yes", "met": not status}
        with figures.open("a") as file:
            file.write(json.dumps(line) + "\n")
    seconds = round(time.monotonic() - begin)
    sources = os.environ.get("TOLLGATE_COMMIT", "unknown")
    result = {"status": status, "seconds": seconds, "ended": time.strftime("%Y-%m-%d %H:%M"), "sources": sources}
    (RESULTS / f"{name}.json").write_text(json.dumps(result))
    if status:
        print("".join(f"    {line}\n" for line in log.read_text(errors="replace").splitlines()[-TAIL:]), end="")
    print(f"{name}: {'FAILED' if status else 'ok'} after {seconds} s, see {log.relative_to(ROOT)}", flush=True)
    return status == 0


def environment_of(step: dict) -> dict[str, str]:
    """The caller's environment, without what chooses among a step's tests. What it says of a step's size goes before
    the plan, and is for that step alone."""
    sizes = {name for other in PLAN["steps"].values() for name in other.get("with", {})} | CHOICES
    own = step.get("with", {})
    return own | {name: value for name, value in os.environ.items() if name in own or name not in sizes}


def result_of(step: str) -> dict | None:
    """How a step ended, if it has run."""
    path = RESULTS / f"{step}.json"
    return json.loads(path.read_text()) if path.exists() else None


def figures_of(step: str) -> list[dict]:
    """What a step measured when it last ran; of what was measured several times, the worst or else the last."""
    path = RESULTS / f"{step}.figures"
    found: dict[tuple[str, str], dict] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        measured = json.loads(line)
        key = measured["goal"], measured["what"]
        if key not in found or found[key]["met"]:
            found[key] = measured
    return list(found.values())


def goal_of(name: str, measured: dict[str, list[dict]]) -> tuple[str, list[str]]:
    """Whether a goal is met, and the lines that show it."""
    lines, missing, good = [], [], True
    for step in PLAN["goals"][name]["from"]:
        own = [figure for figure in measured[step] if figure["goal"] == name]
        good &= all(figure["met"] for figure in own)
        lines += [
            f"{'' if figure['met'] else 'NOT MET: '}{figure['what']}: {figure['figure']} ({step})" for figure in own
        ]
        result = result_of(step)
        if result and result["status"]:
            good = False
            lines.append(f"NOT MET: the step {step} failed, see {step}.log")
        elif not result or not own:
            missing.append(step)
            lines.append(f"not measured: {step}")
    return "NOT MET" if not good else "not measured" if missing else "met", lines


def print_steps() -> bool:
    """When each step ran, and how it ended; whether all that ran went well, on the same sources."""
    results = {name: result for name in PLAN["steps"] if (result := result_of(name))}
    print("\nSteps")
    for name in PLAN["steps"]:
        if result := results.get(name):
            verdict = f"FAILED with {result['status']}" if result["status"] else "ok"
            sources = result.get("sources", "unknown")
            print(f"  {name:13} {result['ended']}  {result['seconds']:6} s  {sources:18}  {verdict}")
        else:
            print(f"  {name:13} has not run")
    total = sum(result["seconds"] for result in results.values())
    print(f"  {total // 60} min {total % 60} s in all")
    sources = sorted({result.get("sources", "unknown") for result in results.values()})
    if len(sources) > 1:
        print(f"  NOT ONE STATE: measured on {', '.join(sources)}")
    return len(sources) < 2 and not any(result["status"] for result in results.values())


def print_table() -> bool:
    """The goals with their figures; whether all are met."""
    measured = {step: figures_of(step) for step in PLAN["steps"]}
    count = {"met": 0, "NOT MET": 0, "not measured": 0}
    print("\nGoals")
    for name, goal in PLAN["goals"].items():
        verdict, lines = goal_of(name, measured)
        count[verdict] += 1
        print(f"  {name:4} {verdict:13} {goal['goal']}")
        for line in lines:
            print(textwrap.fill(line, WIDTH, initial_indent=" " * 21, subsequent_indent=" " * 23))
    print("\n" + ", ".join(f"{number} {verdict}" for verdict, number in count.items()))
    return count["met"] == len(PLAN["goals"])


def print_left() -> None:
    """What `make check` leaves out: steps, and the sizes of those that it runs at a smaller one."""
    print("Not run here, but by `make verify` (STEPS=... chooses):")
    for name, step in PLAN["steps"].items():
        if not step.get("in_check"):
            sizes = [f"{variable}={value}" for variable, value in step.get("with", {}).items()]
            print("  " + " ".join([f"{name + ':':13}", *sizes, step["run"]]))
    print(f"Nor there: {', '.join(PLAN['elsewhere'])}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("steps", nargs="*", metavar="step", help=", ".join(PLAN["steps"]))
    parser.add_argument("--table", action="store_true", help="run nothing, print what was measured last")
    parser.add_argument("--left", action="store_true", help="run nothing, print what `make check` leaves out")
    options = parser.parse_args()
    if options.left:
        print_left()
        return 0
    if unknown := set(options.steps) - set(PLAN["steps"]):
        parser.error(f"no such step: {', '.join(sorted(unknown))}")
    RESULTS.mkdir(parents=True, exist_ok=True)
    if not options.table:
        for name in options.steps or PLAN["steps"]:
            run(name)
    went_well = print_steps()
    return 0 if print_table() and went_well else 1


if __name__ == "__main__":
    sys.exit(main())
