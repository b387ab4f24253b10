"""Tokens, keys and secrets that must never stand in a log, an answer or a metric. Whoever makes one says so here."""

import base64
import re
from collections.abc import Iterable
from pathlib import Path

# A piece this long of the start of a signature holds one of the blocks that are known.
BLOCK = 12
SHORTEST_PIECE = 2 * BLOCK - 1
# How much of a signature is known by its blocks.
KNOWN = 48
# A piece this long of the rest is known by its looks: nothing else that is logged has so many different characters.
LONG = 64

# base64url text long enough to hold a block, and how every JSON object in it begins: `{"`.
RUN = re.compile(rf"[A-Za-z0-9_-]{{{SHORTEST_PIECE},}}")
OBJECT = "eyJ"
# What a piece of a header or of claims holds, wherever it is cut.
JSON_TEXT = re.compile(rb'[ -~]*(":|",)[ -~]*')
UUID = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-")

_keys: set[str] = set()
_encoded: set[str] = set()
_blocks: set[str] = set()


def keep_secret(value: str) -> str:
    """Registers a token, a key or a secret; logs, answers and metrics are searched for it.

    Of a token the signature is known: header and claims repeat from token to token. That no base64url text with
    JSON in it is told covers those, and `looks_signed` the end of a signature.
    """
    if value.count(".") == 2:
        signature = value.rsplit(".", 1)[-1][:KNOWN]
        _blocks.update(signature[at : at + BLOCK] for at in range(0, len(signature) - BLOCK + 1, BLOCK))
    elif len(value) >= BLOCK:
        _keys.add(value)
        _encoded.update(in_base64(value))
    return value


def in_base64(value: str) -> list[str]:
    """How it stands in base64 with other text around it, as in `Basic`: without the characters that both make."""
    forms = []
    for before in range(3):
        data = bytes(before) + value.encode()
        whole = slice(-(-before * 8 // 6), len(data) * 8 // 6)
        forms += [base64.b64encode(data).decode()[whole], base64.urlsafe_b64encode(data).decode()[whole]]
    return forms


def count() -> int:
    """How many keys and pieces of signatures are known."""
    return len(_keys) + len(_blocks)


def known() -> tuple[list[str], list[str]]:
    """All of them: keys, and pieces of signatures. For `know` of another process."""
    return list(_keys), list(_blocks)


def know(keys: Iterable[str], blocks: Iterable[str]) -> None:
    """Registers what another process knew."""
    for key in keys:
        keep_secret(key)
    _blocks.update(blocks)


def found_in(text: str, may_be_random: bool = False) -> list[str]:
    """What stands in a text that must not, shortened. `may_be_random`: it may hold other random bytes."""
    found = [key for key in _keys | _encoded if key in text]
    for match in RUN.finditer(text):
        run = match.group()
        if run.startswith(OBJECT) or holds_json(run) or (looks_signed(run) and not may_be_random):
            found.append(run)
            continue
        found += [run for at in range(len(run) - BLOCK + 1) if run[at : at + BLOCK] in _blocks][:1]
    return [f"{secret[:6]}..." for secret in dict.fromkeys(found)]


def looks_signed(run: str) -> bool:
    """Whether it could be random bytes: longer than any id, and of all kinds of characters."""
    upper, lower, digits = (sum(map(kind, run)) for kind in (str.isupper, str.islower, str.isdigit))
    return len(run) >= LONG and min(6 * upper, 6 * lower, 50 * digits) >= len(run) and len(set(run)) >= LONG // 3


def holds_json(run: str) -> bool:
    """Whether it is a piece of JSON in base64url, cut anywhere."""
    if UUID.match(run):
        return False
    cut = (run[begin : begin + (len(run) - begin) // 4 * 4] for begin in range(4))
    return any(JSON_TEXT.fullmatch(base64.urlsafe_b64decode(piece)) for piece in cut)


def found_below(directory: Path) -> list[str]:
    """What stands in the logs below a directory."""
    return [
        f"secret {secret} in {log} (R28)"
        for log in sorted(directory.rglob("*.log"))
        for secret in found_in(log.read_text(errors="replace"))
    ]
