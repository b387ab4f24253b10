"""`make instructions`: how many instructions the core's hot functions take, held against what they took before.

Valgrind counts them, so that neither the machine's speed nor what else it does matters: count.py PROGRAM COUNTS.
Fails where a case takes a tenth more than COUNTS says. `--write` writes COUNTS anew.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

# What a change of the C library, or of where things lie in memory, may make of a count.
TOLERANCE = 0.10
TIMES = 100


def valgrind() -> tuple[str, dict[str, str]]:
    """The program, and what it needs in its environment when it was unpacked and not installed."""
    program = os.environ.get("VALGRIND") or "valgrind"
    tools = Path(program).parent.parent / "libexec" / "valgrind"
    return program, {**os.environ, "VALGRIND_LIB": str(tools)} if "/" in program and tools.is_dir() else dict(os.environ)


def count(program: Path, case: str) -> int:
    """Instructions of one run of a case."""
    command, environment = valgrind()
    options = ["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*measured*"]
    run = subprocess.run(
        [command, *options, program, case, str(TIMES)], env=environment, capture_output=True, text=True, check=False
    )
    found = re.search(r"Collected : (\d+)", run.stderr)
    if run.returncode != 0 or not found or int(found[1]) == 0:
        sys.exit(f"instructions: {case}: nothing was counted:\n{run.stderr[-2000:]}")
    return int(found[1]) // TIMES


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", type=Path)
    parser.add_argument("counts", type=Path)
    parser.add_argument("--write", action="store_true", help="write the counts anew")
    options = parser.parse_args()
    if not shutil.which(valgrind()[0]):
        print("NOT CHECKED: instructions are counted by valgrind, which is not here (or name it: VALGRIND=)", file=sys.stderr)
        return 0
    cases = subprocess.run([options.program], check=True, capture_output=True, text=True).stdout.splitlines()
    known = json.loads(options.counts.read_text()) if options.counts.exists() else {}
    counts = {case: count(options.program, case) for case in cases}
    if options.write:
        options.counts.write_text(json.dumps(counts, indent=2) + "\n")
        return 0
    worse = []
    print(f"{'instructions':44}{'now':>12}{'before':>12}{'ratio':>8}")
    for case, now in counts.items():
        before = known.get(case)
        if before is None:
            worse.append(f"{case} is not in {options.counts}")
            continue
        print(f"{case:44}{now:12,}{before:12,}{now / before:8.3f}")
        if now > before * (1 + TOLERANCE):
            worse.append(f"{case} takes {now / before:.2f} times what it took")
    worse += [f"{case} is no case any more" for case in known if case not in counts]
    for line in worse:
        print(f"instructions: {line}", file=sys.stderr)
    if worse:
        print("instructions: if that is meant, `make instructions COUNT_ARGS=--write` takes it over", file=sys.stderr)
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
