"""Lines of source files that tests ran: coverage.py LCOV [PATTERN...] [--each PATTERN...], with patterns below src.

All files together are held to 97 %, and each of those after --each to 90 %. Tests within the files do not count. A
pattern that no file matches, and a file of which the report knows nothing, are errors.
"""

import argparse
import json
import os
import re
import sys
from pathlib import Path

LEAST, LEAST_OF_EACH = 97.0, 90.0
SOURCE = Path(__file__).resolve().parents[2] / "src"
FUNCTION = re.compile(r'^ *(pub(\([a-z ]+\))? )?((const|unsafe|extern "C") )*fn ')


def lines_of(report: str) -> dict[Path, dict[int, int]]:
    """How often each line of each file ran."""
    files: dict[Path, dict[int, int]] = {}
    current: dict[int, int] = {}
    for line in Path(report).read_text().splitlines():
        kind, _, value = line.partition(":")
        if kind == "SF":
            current = files.setdefault(Path(value), {})
        elif kind == "DA":
            number, count = value.split(",")[:2]
            current[int(number)] = current.get(int(number), 0) + int(count)
    return files


def own_code(text: str) -> dict[int, str]:
    """The numbered lines of a file without the items that are compiled for tests alone."""
    code, end = {}, None
    for number, line in enumerate(text.splitlines(), 1):
        if line == "#[cfg(test)]":
            end = "#"
        elif end is None:
            code[number] = line
        elif line == end or (end == "#" and line.endswith(";")):
            end = None
        elif end == "#":
            end = "}"
    return code


def matching(patterns: list[str]) -> list[Path]:
    """The files of the patterns that have functions of their own, so that there is something to run."""
    found = []
    for pattern in patterns:
        files = [file for file in sorted(SOURCE.glob(pattern)) if file.name != "tests.rs"]
        if not files:
            sys.exit(f"coverage: no file is src/{pattern}")
        found += [file for file in files if any(map(FUNCTION.match, own_code(file.read_text()).values()))]
    return found


def figure(what: str, said: str, met: bool) -> None:
    if path := os.environ.get("FIGURES"):
        with open(path, "a") as file:
            file.write(json.dumps({"goal": "R26", "what": what, "figure": said, "met": met}) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("report")
    parser.add_argument("patterns", nargs="*", default=[])
    parser.add_argument("--each", nargs="+", default=[], metavar="PATTERN")
    options = parser.parse_args()
    each = matching(options.each)
    files = lines_of(options.report)
    ran = all_lines = 0
    shares = {}
    for file in dict.fromkeys(each + matching(options.patterns)):
        name = str(file.relative_to(SOURCE))
        code = own_code(file.read_text())
        counts = {number: count for number, count in files.get(file, {}).items() if number in code}
        if not counts:
            sys.exit(f"coverage: the report has no line of src/{name}")
        missing = [number for number, count in sorted(counts.items()) if count == 0]
        ran += len(counts) - len(missing)
        all_lines += len(counts)
        shares[name] = 100 * (1 - len(missing) / len(counts))
        print(f"{shares[name]:6.1f} %  {name}  {' '.join(map(str, missing))}".rstrip())
    share = 100 * ran / max(all_lines, 1)
    print(f"{share:6.1f} %  of {all_lines} lines; {LEAST:.0f} % at least")
    met = share >= LEAST
    figure("lines that tests run, of what decides and counts", f"{share:.1f} % of {all_lines}", met)
    if each:
        least, name = min((shares[name], name) for name in (str(file.relative_to(SOURCE)) for file in each))
        print(f"{least:6.1f} %  of {name}, the least of those held one by one; {LEAST_OF_EACH:.0f} % at least")
        figure("the least of any file that decides", f"{least:.1f} %, {name}", least >= LEAST_OF_EACH)
        met = met and least >= LEAST_OF_EACH
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
