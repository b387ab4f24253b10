"""`make deny`: what is built into the module and into what tests it: licences, sources, known faults, and what
must not be there at all (deny.toml).

The advisories come from github.com/RustSec/advisory-db, or from where git's `url.<mirror>.insteadOf` leads. Where
neither answers it says so, and with REQUIRE_ADVISORIES=1 that is a failure.
"""

import datetime
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from e2e.harness.figures import figure  # noqa: E402

CARGO_DENY = os.environ["CARGO_DENY"]
CONFIG = ROOT / "deny.toml"
TARGET = "wasm32-wasip1"
# An older copy of the database of advisories says nothing of today.
MOST_AGE = datetime.timedelta(days=90)
# Each has a lock file of its own.
WORKSPACES = [path for path in (ROOT, ROOT / "tests" / "rate-limit-service", ROOT / "fuzz") if path.exists()]
# In the names of what is linked: what must not be there, and what must, or there would be no names at all.
# Where a name begins is seen by what is no letter before it: the length that a mangled one has, a dot, a `_`; or by a
# capital. `jwe` is a word of its own, and not the beginning of one.
UNWANTED = re.compile(
    rb"(?i:hmac|rfc6979|hs256|hs384|hs512|aead|chacha|poly1305)"
    rb"|(?<![A-Za-z])(?:aes|AES)|Aes"
    rb"|(?<![A-Za-z])(?:jwe|JWE)(?![a-z])|Jwe(?![a-z])"
)
# The end of a mangled name, of hexadecimal digits: they spell `aead` now and then.
HASH = re.compile(rb"17h[0-9a-f]{16}E")
WANTED = (b"sha2", b"ecdsa")


def deny(*arguments: str | Path, folder: Path = ROOT) -> bool:
    command = [CARGO_DENY, "--locked", "--config", CONFIG, *arguments]
    return subprocess.run(command, cwd=folder).returncode == 0


def module_is_clean() -> bool:
    """The graph that reaches the module, with nothing in it that is banned or there twice."""
    checks = ["-A", "license-not-encountered", "bans", "licenses", "sources"]
    return deny("--target", TARGET, "--exclude-dev", "check", *checks)


def workspaces_are_clean(*checks: str) -> bool:
    """Everything that is ever built, with every feature."""
    allowed = ["-A", "license-not-encountered", "-A", "advisory-not-detected"]
    arguments = ["--workspace", "--all-features", "check", *allowed, *checks]
    return all([deny(*arguments, folder=path) for path in WORKSPACES])


def crates() -> int:
    locks = [(path / "Cargo.lock").read_text() for path in WORKSPACES]
    return sum(lock.count("[[package]]") for lock in locks)


def unwanted_in(names: bytes) -> set[bytes]:
    return set(UNWANTED.findall(HASH.sub(b"\n", names)))


def unwanted_names() -> set[bytes]:
    """Builds the module with its names, and looks for those of code that must not be linked."""
    folder = ROOT / "target" / "symbols"
    command = ["cargo", "build", "--release", "--locked", "--lib", "--target", TARGET, "--target-dir", folder]
    subprocess.run([*command, "--config", 'profile.release.strip="none"'], cwd=ROOT, check=True)
    # The custom section of names comes last.
    names = (folder / TARGET / "release" / "tollgate.wasm").read_bytes().rpartition(b"\x04name")[2]
    for name in WANTED:
        if name not in names:
            sys.exit(f"the module has no names: {name.decode()} is not among them")
    return unwanted_in(names)


def date_of_advisories() -> datetime.date:
    """When the database that `fetch` left was last written to."""
    home = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo"))
    command = ["git", "log", "-1", "--format=%cs"]
    folders = (home / "advisory-dbs").glob("advisory-db-*")
    dates = [subprocess.run(command, cwd=folder, capture_output=True, text=True).stdout.strip() for folder in folders]
    return max(datetime.date.fromisoformat(date) for date in dates if date)


def check_advisories() -> bool:
    if not deny("fetch", "db"):
        print("NOT CHECKED: advisories; the database of RustSec cannot be reached from here", file=sys.stderr)
        figure("R27", "known faults of dependencies", "not checked: the database cannot be reached", False)
        return os.environ.get("REQUIRE_ADVISORIES") != "1"
    good = workspaces_are_clean("advisories")
    ignored = sorted(set(re.findall(r"RUSTSEC-\d+-\d+", CONFIG.read_text().partition("[advisories]")[2])))
    date = date_of_advisories()
    said = f"{crates()} crates, {'no' if good else 'some'} advisories beyond {', '.join(ignored)} (see deny.toml)"
    fresh = datetime.date.today() - date <= MOST_AGE
    figure("R27", "known faults of dependencies", f"{said}, by a database of {date}", good and fresh)
    return good


def main() -> int:
    module, everything = module_is_clean(), workspaces_are_clean("licenses", "sources")
    held = "hold" if module else "do NOT hold"
    said = f"{crates()} crates in {len(WORKSPACES)} lock files, bans on the module {held}"
    figure("R27", "licences, sources and bans", said, module and everything)
    names = unwanted_names()
    if names:
        print(f"linked into the module: {b', '.join(sorted(names)).decode()}", file=sys.stderr)
    figure("R27", "names of HMAC or encryption in the module as linked", f"{len(names)}", not names)
    return 0 if all([module, everything, not names, check_advisories()]) else 1


if __name__ == "__main__":
    sys.exit(main())
