"""What callers write into the request log: one line of bounded size, whatever is in it. R28; rows B6, I6."""

import json

import pytest

from .harness import APP_CHAT, Gateway, raw
from .harness.figures import figure
from .harness.gateway import CHAT_PATH, whole_lines
from .harness.load import request
from .harness.processes import wait_until
from .harness.traffic import APPS, Traffic


@pytest.fixture(scope="module")
def gateway(stand_ins, module_directory):
    with Gateway(module_directory, stand_ins, Traffic(stand_ins, 1_000).policy()) as running:
        yield running


HOSTILE = {
    "newlines": 'x\r\n{"outcome":"allowed"}\n',
    "ansi": "\x1b[2J\x1b[31mred\x1b]0;title\x07",
    "nul": "a\x00b\x7f",
    "c1": "\x80\x85\x9b31m",
    "direction": "\u202egnp.\u2066x\u200b\u2028y",
    "long": "L" * 9_000,
    "long-escapes": "\x01" * 1_500,
    "quotes": '"},{"a":"\\',
    "surrogates": "\ud83d\ude00",
}
# Most bytes that a line has, Envoy's own words included.
LONGEST_LINE = 16 * 1024


def lines_of(gateway) -> list[str]:
    return [line for line in whole_lines(gateway.log.read_bytes().decode("latin-1")) if '"outcome"' in line]


@pytest.mark.parametrize("name", HOSTILE)
def test_i6_r28_a_request_is_one_line_whatever_is_in_it(gateway, stand_ins, name):
    text = HOSTILE[name]
    mint = stand_ins.entra.mint
    before = len(lines_of(gateway))
    requests = [
        request(mint(APPS["plain"], claims={"uti": text, "idtyp": text, "name": text, "roles": [text]})),
        request(mint(APPS["plain"], claims={"oid": text})),
        request(mint(APPS["plain"], claims={"appid": text})),
        request(mint(text)),
        request(mint(APPS["plain"], header={"kid": text})),
        request(mint(APPS["gpt"]), path="/openai/v1/chat/completions", body=json.dumps({"model": text})),
        request(mint(APPS["plain"]), path=f"/openai/{percent(text)}?api-version={percent(text)}"),
        request(mint(APPS["plain"]), f"user-agent: {printable(text)}", f"x-request-id: {printable(text)}"),
        request(mint(APPS["plain"]), path=f"/openai/{high_bytes(text)}"),
    ]
    seen = [raw(gateway.address, text.encode("latin-1")).status for text in requests]
    # Envoy itself refuses some, and tells the module nothing.
    by_envoy = seen.count(400)
    expected = before + len(requests) - by_envoy
    wait_until(lambda: len(lines_of(gateway)) >= expected, 5, "the log lines")
    lines = lines_of(gateway)[before:]
    assert len(lines) == len(requests) - by_envoy, seen
    assert by_envoy <= 2
    for line in lines:
        assert len(line) < LONGEST_LINE
        assert all(" " <= character <= "~" for character in line), line
        told = json.loads(line[line.index("{") :])
        assert told["method"] == "POST"
    figure("R28", f"longest request-log line with {name} in it", f"{max(map(len, lines))} bytes, printable", True)


def percent(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode("utf-8", "surrogatepass"))[:12_000]


def printable(text: str) -> str:
    """What a header may hold: no line ends and no NUL."""
    return text.translate({ord(character): None for character in "\r\n\0"}).encode("utf-8", "replace").decode("latin-1")


def high_bytes(text: str) -> str:
    return "".join(character for character in printable(text) if character > "\x7f") or "x"


def test_b6_a_claim_of_64_kb_is_one_line(gateway, stand_ins):
    """Larger than Envoy takes headers, and as large as it does."""
    before = len(lines_of(gateway))
    for size, status in ((64_000, 431), (40_000, 401)):
        token = stand_ins.entra.mint(APP_CHAT, claims={"uti": "u" * size})
        assert gateway.request("POST", CHAT_PATH, token=token, body=b"{}").status == status
    wait_until(lambda: len(lines_of(gateway)) > before, 5, "the log line")
    (line,) = lines_of(gateway)[before:]
    assert len(line) < 2_000
