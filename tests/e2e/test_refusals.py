"""What refusals give away, and what the log takes in from callers. R28, R29; rows B6, I6."""

import json
import re
import time

import pytest

from .harness import APP_CHAT, TENANT, Gateway, new_app, raw, shipped_policy
from .harness.figures import figure
from .harness.gateway import CHAT_PATH
from .harness.load import Request, request, send
from .harness.processes import ROOT, wait_until
from .harness.tokens import unb64
from .harness.traffic import APPS, Traffic

# Those that the README lists.
ROWS = re.findall(r"^\| \d{3} \| (`.*?) \|", (ROOT / "README.md").read_text(), re.MULTILINE)
CODES = {code for row in ROWS for code in re.findall(r"\w+", row)}


@pytest.fixture(scope="module")
def traffic(stand_ins):
    return Traffic(stand_ins, 1_000)


@pytest.fixture(scope="module")
def gateway(stand_ins, traffic, module_directory):
    with Gateway(module_directory, stand_ins, traffic.policy()) as running:
        yield running


def refusals(gateway, traffic) -> dict[str, list]:
    """Each kind of refused request and its answers to several callers."""
    found = {}
    for name, kind in traffic.kinds.items():
        (answer,) = kind.told if len(kind.told) == 1 else [""]
        if re.match(r"40[13] \w+$", answer):
            found[name] = [raw(gateway.address, kind.make(cycle).encode("latin-1")) for cycle in range(3)]
            assert {"{} {}".format(*got.verdict) for got in found[name]} == {answer}, name
    return found


def test_r29_refusals_of_one_code_are_alike(gateway, traffic):
    """All 401 have one shape, and what differs is the code, its message and its challenge. Two callers who are
    refused for one reason get the same bytes."""
    found = refusals(gateway, traffic)
    answers = [answer for kind in found.values() for answer in kind]
    bodies = {(answer.verdict, answer.body) for answer in answers}
    per_code = {verdict for verdict, _ in bodies}
    # A permission that is missing is named.
    assert len(bodies) <= len(per_code) + 1
    # Envoy closes the connection where it answers before a request is all there.
    headers = [
        tuple(name for name, _ in answer.headers if name != "connection") for answer in answers if answer.status == 401
    ]
    assert len(set(headers)) == 1
    shapes = {tuple(answer.json["error"]) for answer in answers}
    assert len(shapes) == 1
    for answer in answers:
        assert answer.code in CODES
        if answer.status == 401:
            challenge = answer.header("www-authenticate")
            message = f', error="invalid_token", error_description="{answer.json["error"]["message"]}"'
            assert challenge == 'Bearer realm="tollgate"' + (message if answer.code != "TokenNotPresent" else "")
    told = f"{len(answers)} refusals of {len(found)} kinds, {len(per_code)} codes: one shape, one body for each code"
    figure("R29", "answers of refusals", told, True)


def test_r29_refusals_tell_no_claim_no_key_and_nothing_of_the_policy(gateway, traffic, stand_ins):
    secrets = {TENANT, stand_ins.entra.authority, "127.0.0.1", "entra", "cognitiveservices.azure.com", "graph"}
    secrets |= {"evil", "gpt", "o1", "Reader", "admin", *APPS, *APPS.values()}
    for name, answers in refusals(gateway, traffic).items():
        for cycle, answer in enumerate(answers):
            # What the gate wrote: Envoy's own headers say nothing of the request.
            headers = {name: value for name, value in answer.headers if name.lower() not in ("date", "server")}
            text = f"{headers} {answer.body.decode()}"
            # The action that is missing stands in Azure's words, in every policy the same.
            text = re.sub(r"`Microsoft\.CognitiveServices/accounts/OpenAI/[\w/]+`", "", text)
            for secret in secrets | claims_of(traffic.kinds[name].make(cycle)):
                assert not re.search(rf"\b{re.escape(secret)}\b", text), (name, secret, text)


def claims_of(text: str) -> set[str]:
    """Header members and claims of the tokens in a request."""
    found = set()
    for token in re.findall(r"Bearer (eyJ[\w.-]+)", text):
        for part in token.split(".")[:2]:
            found |= {str(value) for value in json.loads(unb64(part)).values() if len(str(value)) > 3}
    return found


def test_r29_a_401_takes_as_long_whoever_is_named(start_gateway, stand_ins):
    """A forged token that names a listed application, and one that names nobody's: in turn over one connection."""
    listed = [new_app() for _ in range(1_000)]
    apps = [{"app_id": app, "limits": [{"calls": 1, "per": "60s"}]} for app in listed]
    gateway = start_gateway(stand_ins, shipped_policy(stand_ins, apps=apps, log={"requests": False}))
    wrong = {"forged": {"key": "foreign"}, "expired": {"claims": {"exp": int(time.time()) - 7200}}}
    requests = [
        Request(f"{what} {who}", request(stand_ins.entra.mint(app, **options)))
        for what, options in wrong.items()
        for index in range(20)
        for who, app in (("listed", listed[index]), ("unlisted", new_app()))
    ]
    send(gateway, requests, count=200, connections=1)
    report = send(gateway, requests, count=8_000, connections=1)
    assert {answer.split()[0] for kind in report.answers.values() for answer in kind} == {"401"}
    for what in wrong:
        one, other = report.p50(f"{what} listed"), report.p50(f"{what} unlisted")
        ratio = one / other
        assert 0.9 < ratio < 1.1, (what, one, other)
        told = f"medians of 2000: {one * 1000:.0f} µs and {other * 1000:.0f} µs, {ratio:.2f} times"
        figure("R29", f"time of a 401, {what} token, listed against unlisted application", told, True)


# What callers write into the log

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
    return [line for line in gateway.log.read_bytes().decode("latin-1").splitlines() if '"outcome"' in line]


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
