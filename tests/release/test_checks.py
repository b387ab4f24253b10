"""What `make release`, `make coverage` and `make deny` go by, on toolchains, reports and names that are made up."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"


class Coverage:
    """Runs coverage.py on a report in which a file ran but for some of its first lines."""

    def __init__(self, folder: Path):
        self.report, self.figures = folder / "made-up.lcov", folder / "figures"
        self.report.write_text("")

    def ran(self, name: str, lines: int, missing: int = 0, first: int = 1) -> None:
        counts = "".join(f"DA:{first + number},{int(number >= missing)}\n" for number in range(lines))
        with self.report.open("a") as file:
            file.write(f"SF:{SOURCE / name}\n{counts}end_of_record\n")

    def __call__(self, *arguments: str) -> tuple[int, str]:
        self.figures.write_text("")
        command = [sys.executable, ROOT / "tests" / "setup" / "coverage.py", self.report, *arguments]
        environment = {**os.environ, "FIGURES": str(self.figures)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        return done.returncode, done.stdout + done.stderr

    def met(self) -> list[bool]:
        return [json.loads(line)["met"] for line in self.figures.read_text().splitlines()]


@pytest.fixture
def coverage(tmp_path):
    return Coverage(tmp_path)


def test_files_are_held_together_and_some_each(coverage):
    coverage.ran("credential.rs", 10, missing=1)
    coverage.ran("request.rs", 190)
    assert coverage("request.rs", "--each", "credential.rs")[0] == 0
    assert coverage.met() == [True, True]


def test_a_file_below_its_floor_is_noticed(coverage):
    coverage.ran("credential.rs", 10, missing=2)
    coverage.ran("request.rs", 190)
    assert coverage("request.rs", "credential.rs")[0] == 0
    status, said = coverage("request.rs", "--each", "credential.rs")
    assert status == 1 and "80.0 %  of credential.rs" in said
    assert coverage.met() == [True, False]


def test_too_little_of_all_is_noticed(coverage):
    coverage.ran("credential.rs", 50, missing=2)
    status, said = coverage("--each", "credential.rs")
    assert status == 1 and "96.0 %  credential.rs  1 2" in said
    assert coverage.met() == [False, True]


def test_a_pattern_without_a_file_and_a_file_without_lines_are_errors(coverage):
    coverage.ran("credential.rs", 10)
    for arguments in (["credentials.rs"], ["credential.rs", "--each", "jvt/*.rs"]):
        status, said = coverage(*arguments)
        assert status == 1 and "no file is src/" in said
    for arguments in (["credential.rs", "request.rs"], ["credential.rs", "--each", "request.rs"]):
        status, said = coverage(*arguments)
        assert status == 1 and "no line of src/request.rs" in said
    assert coverage.met() == []


def test_a_file_without_functions_has_nothing_to_run(coverage):
    coverage.ran("credential.rs", 10)
    assert coverage("credential.rs", "--each", "jwt/mod.rs", "credential.rs")[0] == 0


def test_tests_within_a_file_do_not_count_and_code_behind_them_does(coverage):
    lines = (SOURCE / "policy" / "mod.rs").read_text().splitlines()
    test = lines.index("#[cfg(test)]") + 1
    assert lines[test] == "mod tests;"
    # The two lines of the tests, which did not run, and two behind them, one of which did not.
    coverage.ran("policy/mod.rs", 4, missing=3, first=test)
    _, said = coverage("policy/mod.rs")
    assert f"50.0 %  policy/mod.rs  {test + 2}" in said


RUSTUP = """#!/bin/sh
case "$*" in
    "toolchain list") echo "other (default)" ;;
    "run other rustc --version") echo "rustc VERSION (0123456789 2026-01-01)" ;;
    "run other rustc --print target-libdir --target wasm32-wasip1") echo / ;;
    *) exit 1 ;;
esac
"""


@pytest.fixture
def set_up_rust(tmp_path):
    """Runs rust.sh where rustup can install nothing and has one toolchain, of this version."""

    def run(version: str, **environment: str) -> tuple[int, str, str]:
        rustup, chosen = tmp_path / "rustup", tmp_path / "rust.env"
        rustup.write_text(RUSTUP.replace("VERSION", version))
        rustup.chmod(0o755)
        chosen.unlink(missing_ok=True)
        without = {name: value for name, value in os.environ.items() if name != "EXACT_RUST"}
        environment = {**without, "PATH": f"{tmp_path}:{os.environ['PATH']}", **environment}
        command = [ROOT / "tests" / "setup" / "rust.sh", chosen]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
        return done.returncode, chosen.read_text() if chosen.exists() else "", done.stderr

    return run


def pinned() -> str:
    text = (ROOT / "rust-toolchain.toml").read_text()
    return text.partition('channel = "')[2].partition('"')[0]


def test_a_newer_toolchain_serves_and_an_older_one_does_not(set_up_rust):
    assert set_up_rust("1.999.0")[:2] == (0, "export RUSTUP_TOOLCHAIN=other\n")
    status, chosen, said = set_up_rust("1.80.0")
    assert (status, chosen) == (1, "") and "no Rust toolchain can build this module" in said


def test_a_release_takes_the_pinned_toolchain_alone(set_up_rust):
    status, chosen, said = set_up_rust("1.999.0", EXACT_RUST="1")
    assert (status, chosen) == (1, "") and f"rustup toolchain install {pinned()} " in said and "EXACT_RUST=1" in said
    assert set_up_rust(pinned(), EXACT_RUST="1")[:2] == (0, "export RUSTUP_TOOLCHAIN=other\n")


@pytest.fixture(scope="module")
def deny():
    path = ROOT / "tests" / "verify" / "deny.py"
    spec = importlib.util.spec_from_file_location("deny", path)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CARGO_DENY", "cargo-deny")
        spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "name",
    [
        b"_ZN7josekit3jwe17h0123456789abcdefE",
        b"_ZN7josekit3jwe9JweHeader3new17h0123456789abcdefE",
        b"_ZN71_$LT$josekit..jwe..Context$u20$as$u20$core..fmt..Debug$GT$3fmt17h0123456789abcdefE",
        b"_ZN6module11decrypt_jwe17h0123456789abcdefE",
        b"_ZN6module9NestedJwe17h0123456789abcdefE",
        b"_ZN3aes4soft17h0123456789abcdefE",
        b"_ZN7aes_gcm3new17h0123456789abcdefE",
        b"_ZN6module9Aes256Gcm17h0123456789abcdefE",
        b"_ZN4aead4Aead17h0123456789abcdefE",
        b"_ZN4hmac6simple10SimpleHmac17h0123456789abcdefE",
        b"_ZN6module5HS25617h0123456789abcdefE",
    ],
)
def test_names_of_what_must_not_be_linked_are_found(deny, name):
    assert deny.unwanted_in(b"\x05_ZN4sha26digest17h0000000000000000E\x06" + name + b"\x07_ZN5ecdsaE")


@pytest.mark.parametrize(
    "name",
    [
        b"_ZN6module9jwebtoken17h0123456789abcdefE",
        b"_ZN6module6ljweed17h0123456789abcdefE",
        b"_ZN6module6Caesar17h0123456789abcdefE",
        # Digits that spell it, and a name behind them that begins with what looks like its end.
        b"_ZN4core3fmt17h0123aead456789afE",
        b"_ZN4core3fmt17h0123456789abcd9aES_ZN4core3ptr17h0123456789abcdefE",
    ],
)
def test_names_of_something_else_are_not(deny, name):
    assert deny.unwanted_in(b"\x05_ZN4sha26digest17h0000000000000000E\x06" + name + b"\x07_ZN5ecdsaE") == set()
