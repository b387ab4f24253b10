"""Lines of source files that tests ran: coverage.py LCOV PATTERN... (below src). Tests within the files do not count."""

import json
import os
import sys
from pathlib import Path

LEAST = 97.0
SOURCE = Path(__file__).resolve().parents[2] / "src"


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


def end_of_code(file: Path) -> int:
    """The line at which a file's own tests begin, or the one after its last."""
    lines = file.read_text().splitlines()
    return lines.index("#[cfg(test)]") + 1 if "#[cfg(test)]" in lines else len(lines) + 1


def main() -> int:
    report, *patterns = sys.argv[1:]
    files = lines_of(report)
    ran = all_lines = 0
    for file in (file for pattern in patterns for file in sorted(SOURCE.glob(pattern))):
        if file.name == "tests.rs" or file not in files:
            continue
        end = end_of_code(file)
        counts = {number: count for number, count in files[file].items() if number < end}
        missing = [number for number, count in sorted(counts.items()) if count == 0]
        ran += len(counts) - len(missing)
        all_lines += len(counts)
        share = 100 * (1 - len(missing) / max(len(counts), 1))
        print(f"{share:6.1f} %  {file.relative_to(SOURCE)}  {' '.join(map(str, missing))}".rstrip())
    share = 100 * ran / max(all_lines, 1)
    print(f"{share:6.1f} %  of {all_lines} lines; {LEAST:.0f} % at least")
    met = all_lines > 0 and share >= LEAST
    if path := os.environ.get("FIGURES"):
        line = {"goal": "R26", "what": "lines that tests run, of what decides and counts", "figure": f"{share:.1f} % of {all_lines}", "met": met}
        with open(path, "a") as file:
            file.write(json.dumps(line) + "\n")
    return 0 if met else 1


sys.exit(main())
