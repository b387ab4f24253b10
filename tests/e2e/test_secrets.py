"""What nobody may find in a log: client secrets where they do not belong, prompts, and text that forges lines, at level
debug too. R28; row I6.

The gateway of this file logs all that it can; at its end it is searched like every other one.
"""

import base64
import json

import pytest

from .harness import APP_CHAT, APP_OTHER, Gateway, new_app, raw, secrets, shipped_policy
from .harness.figures import figure
from .harness.gateway import CHAT_BODY, CHAT_PATH, whole_lines
from .harness.http import STAND_INS_MARK
from .harness.load import request
from .harness.processes import wait_until
from .harness.secrets import keep_secret
from .harness.stand_ins import CLIENT_SECRET
from .harness.tokens import b64
from .test_foreign_text import HOSTILE, high_bytes, percent, printable

PASSES = (200, None)
NOT_PRESENT = (401, "TokenNotPresent")
INVALID = (401, "JwtInvalid")
NO_KEY = (401, "TokenSignatureKeyNotFound")
DENIED = (403, "AuthenticationTypeDisabled")

PATH = CHAT_PATH.partition("?")[0]
BASIC = base64.b64encode(f"{APP_CHAT}:{CLIENT_SECRET}".encode()).decode()
FORM = f"grant_type=client_credentials&client_id={APP_CHAT}&client_secret={CLIENT_SECRET}"
PROMPT = keep_secret("Prompt-that-nobody-else-may-read")

# Its bodies are counted before they pass, and it may not use much.
SPARING = new_app()


@pytest.fixture(scope="module")
def gateway(stand_ins, module_directory):
    """With an application whose bodies are read for the model that they name."""
    policy = shipped_policy(stand_ins, usage={"stream_options": "inject"})
    policy["apps"].append({"app_id": APP_OTHER, "deployments": ["gpt-*"]})
    policy["apps"].append({"app_id": SPARING, "limits": [{"tokens": 50, "per": "1h", "reserve": True}]})
    with Gateway(module_directory, stand_ins, policy, level="debug") as running:
        yield running


def lines_of(gateway) -> list[str]:
    return [line for line in whole_lines(gateway.log_text()) if '"outcome"' in line]


def tell(gateway, texts: list[str]) -> list:
    """Sends requests, waits until both logs have a line for each, and searches them. Answers with the answers."""
    before, access_before = len(lines_of(gateway)), len(gateway.access_log())
    answers = [raw(gateway.address, text.encode("latin-1")) for text in texts]
    wait_until(lambda: len(gateway.access_log()) >= access_before + len(texts), 5, "the access log's lines")
    wait_until(lambda: len(lines_of(gateway)) >= before + len(texts), 5, "the module's lines")
    for log in (gateway.log_text(), gateway.access.read_text(errors="replace")):
        assert not secrets.found_in(log)
    return answers


# Where a caller who has a secret but no token puts it.
WITHOUT_A_TOKEN = {
    "bearer": ([f"authorization: Bearer {CLIENT_SECRET}"], INVALID),
    "bearer-in-three-parts": ([f"authorization: Bearer {CLIENT_SECRET}.{CLIENT_SECRET}.{CLIENT_SECRET}"], INVALID),
    "bearer-basic": ([f"authorization: Bearer {BASIC}"], INVALID),
    "two-bearers": ([f"authorization: Bearer {CLIENT_SECRET}", f"authorization: Bearer {BASIC}"], INVALID),
    "basic": ([f"authorization: Basic {BASIC}"], NOT_PRESENT),
    "no-scheme": ([f"authorization: {CLIENT_SECRET}"], NOT_PRESENT),
    "api-key": ([f"api-key: {CLIENT_SECRET}"], DENIED),
    "subscription-key": ([f"ocp-apim-subscription-key: {CLIENT_SECRET}"], DENIED),
    "websocket": ([f"sec-websocket-protocol: realtime, openai-insecure-api-key.{CLIENT_SECRET}"], DENIED),
    "other-headers": ([f"x-client-secret: {CLIENT_SECRET}", f"cookie: client_secret={CLIENT_SECRET}"], NOT_PRESENT),
}
QUERIES = {
    f"client_secret={CLIENT_SECRET}": PASSES,
    FORM: PASSES,
    f"client_assertion={BASIC}": PASSES,
    f"api-version={CLIENT_SECRET}": PASSES,
    f"api-version=1&api-key={CLIENT_SECRET}": DENIED,
    f"api-key={BASIC}": DENIED,
    f"?api-key={CLIENT_SECRET}": DENIED,
    f"api%2Dkey={CLIENT_SECRET}": DENIED,
    f"subscription-key={CLIENT_SECRET}": DENIED,
}
BODIES = {
    "form": ("application/x-www-form-urlencoded", FORM),
    "member": ("application/json", json.dumps({**json.loads(CHAT_BODY), "client_secret": CLIENT_SECRET})),
    "message": ("application/json", json.dumps({"messages": [{"role": "user", "content": CLIENT_SECRET}]})),
    "twice": ("application/json", f'{{"model": "gpt-4o", "model": "{CLIENT_SECRET}", "messages": []}}'),
    "cut": ("application/json", f'{{"model": "gpt-4o", "client_secret": "{CLIENT_SECRET}'),
    "text": ("text/plain", CLIENT_SECRET),
}


def reasons(gateway, start: int = 0) -> list[str]:
    """Why requests were refused, from a place in the log on."""
    text = gateway.log.read_bytes()[start:].decode("latin-1")
    return [line.partition(": refused: ")[2] for line in text.splitlines() if ": refused: " in line]


def hold(answers: list, expected: list) -> None:
    assert [answer.verdict for answer in answers] == expected


def test_r28_a_client_secret_in_a_header(gateway):
    texts = [request(None, *headers) for headers, _ in WITHOUT_A_TOKEN.values()]
    hold(tell(gateway, texts), [expected for _, expected in WITHOUT_A_TOKEN.values()])


def test_r28_a_client_secret_in_the_query(gateway, stand_ins):
    token = stand_ins.entra.mint()
    texts = [request(given, path=f"{PATH}?{query}") for query in QUERIES for given in (token, None)]
    alone = [DENIED if expected == DENIED else NOT_PRESENT for expected in QUERIES.values()]
    hold(tell(gateway, texts), [verdict for both in zip(QUERIES.values(), alone) for verdict in both])


def test_r28_a_client_secret_in_a_token(gateway, stand_ins):
    """In place of the key's id, the algorithm, the type or the audience, and a token that is signed with it."""
    mint = stand_ins.entra.mint
    parts = [b64(json.dumps(part).encode()) for part in ({"alg": "HS256", "kid": CLIENT_SECRET}, {"iss": "x"})]
    kid, typ, alg = (request(mint(header={name: CLIENT_SECRET})) for name in ("kid", "typ", "alg"))
    audience = request(mint(audience=CLIENT_SECRET))
    signed = request(f"{'.'.join(parts)}.{b64(CLIENT_SECRET.encode())}")
    expected = [NO_KEY, INVALID, INVALID, (401, "TokenAudienceNotAllowed"), INVALID]
    hold(tell(gateway, [kid, typ, alg, audience, signed]), expected)


@pytest.mark.parametrize("path", [CHAT_PATH, "/openai/v1/chat/completions"])
def test_r28_a_client_secret_in_a_body(gateway, stand_ins, path):
    """No body names a model in one way, which those to /openai/v1 have to."""
    token = stand_ins.entra.mint()
    texts = [
        request(token, path=path, body=body).replace("application/json", content_type, 1)
        for content_type, body in BODIES.values()
    ]
    seen = {answer.verdict for answer in tell(gateway, texts)}
    if path == CHAT_PATH:
        # Those that are no JSON are the stand-in's to refuse.
        assert seen == {PASSES, (400, None)}
    else:
        assert seen == {(403, "DeploymentNotAllowed"), (400, "BodyNotReadable")}


def test_r28_the_places_of_client_secrets_in_figures(gateway):
    places = len(WITHOUT_A_TOKEN) + 2 * len(QUERIES) + 5 + 2 * len(BODIES)
    found = secrets.found_in(gateway.log_text() + gateway.access.read_text(errors="replace"))
    figure("R28", "client secrets sent to the gateway", f"in {places} requests, {len(found)} told", not found)
    assert not found


def prompts() -> dict[str, tuple[str, str]]:
    """Path and body of every operation that takes a prompt, and bodies that are wrong around it."""
    deployment, v1 = "/openai/deployments/gpt-4o", "/openai/v1"
    query = CHAT_PATH.partition("?")[2]
    messages = [{"role": "system", "content": PROMPT}, {"role": "user", "content": f"So, {PROMPT}?"}]
    chat = {"model": "gpt-4o", "messages": messages}
    text = json.dumps(chat)
    bodies = {
        "chat": chat,
        "stream": {**chat, "stream": True},
        "options": {**chat, "stream": True, "stream_options": {"include_usage": PROMPT}},
        "much": {**chat, "max_tokens": 1_000},
        "other-model": {**chat, "model": "o1"},
        "no-model": {"messages": messages},
        "model-of-another-type": {**chat, "model": [PROMPT]},
        "tokens-of-another-type": {**chat, "max_tokens": PROMPT},
        "large": {**chat, "user": PROMPT * 4_000},
    }
    broken = {
        "cut": text[:-9],
        "model-twice": f'{{"model": "{PROMPT}", {text[1:]}',
        "after-the-end": text + PROMPT,
        "brackets": text.replace('"So', "[" * 300 + '"So'),
        "not-utf-8": text.replace("So,", "\xff\xfe"),
        "control-characters": text.replace("So,", "\n\x1b[2J\x00"),
        "no-json": PROMPT,
    }
    told = {name: json.dumps(body) for name, body in bodies.items()} | broken
    sent = {name: (CHAT_PATH, body) for name, body in told.items()}
    sent |= {f"v1-{name}": (f"{v1}/chat/completions", body) for name, body in told.items()}
    others = {
        "completions": {"prompt": PROMPT},
        "embeddings": {"input": [PROMPT]},
        "images/generations": {"prompt": PROMPT},
        "audio/speech": {"input": PROMPT},
        "responses": {"input": PROMPT, "instructions": PROMPT},
    }
    for operation, body in others.items():
        sent[operation] = (f"{deployment}/{operation}?{query}", json.dumps(body))
        sent[f"v1-{operation}"] = (f"{v1}/{operation}", json.dumps({"model": "gpt-4o", **body}))
    return sent


def test_r28_no_prompt_in_any_log(gateway, stand_ins):
    callers = [stand_ins.entra.mint(app) for app in (APP_OTHER, APP_CHAT, SPARING)]
    sent = prompts()
    texts = [request(token, path=path, body=body) for path, body in sent.values() for token in (*callers, None)]
    seen = {answer.verdict for answer in tell(gateway, texts)}
    refused = {NOT_PRESENT, (403, "DeploymentNotAllowed"), (429, "TokenLimitExceeded")}
    assert seen >= refused | {PASSES}
    figure("R28", "prompts in the logs at level debug", f"0 of {len(texts)} requests' told", True)


def hostile_requests(mint, text: str) -> list[str]:
    """A text and a secret in whatever the gate reads. Paths and the claims that are told hold the text alone."""
    mixed, query = f"{text}{CLIENT_SECRET}", f"{percent(text)[:3_000]}{CLIENT_SECRET}"
    line, key = printable(text), printable(mixed)
    token = mint()
    members = {"kid": mixed, "alg": mixed, "typ": mixed, "crit": [mixed]}
    claims = {"iss": mixed, "aud": mixed, "tid": mixed, "ver": mixed, "exp": mixed, "nbf": mixed, "appid": mixed}
    told = {"uti": text, "idtyp": text, "roles": [text], "oid": text}
    header, payload, signature = token.split(".")
    sent = [request(mint(header={name: value})) for name, value in members.items()]
    sent += [request(mint(claims={name: value})) for name, value in {**claims, **told}.items()]
    sent += [
        request(f"{b64(mixed.encode('utf-8', 'surrogatepass'))}.{payload}.{signature}"),
        request(f"{header}.{b64(mixed.encode('utf-8', 'surrogatepass'))}.{signature}"),
        request(f"{header}.{payload}.{key}"),
        request(key),
        request(token, f"authorization: {key}"),
        request(token, f"api-key: {key}"),
        request(token, f"ocp-apim-subscription-key: {key}"),
        request(token, f"sec-websocket-protocol: openai-insecure-api-key.{key}"),
        request(token, f"x-request-id: {line}", f"user-agent: {key}", f"cookie: {key}"),
        request(token, path=f"/openai/{percent(text)[:3_000]}"),
        request(token, path=f"/openai/{high_bytes(text)}"),
        request(token, path=f"{PATH}?api-version={query}&client_secret={query}"),
        request(token, path=f"{PATH}?api-key={query}"),
        request(token, path="/openai/v1/chat/completions", body=json.dumps({"model": text, "user": mixed})),
        request(token, path="/openai/v1/chat/completions", body=f'{{"model": "{key}\x00"'),
    ]
    return sent


@pytest.mark.parametrize("name", HOSTILE)
def test_i6_r28_level_debug_tells_why_and_nothing_else(gateway, stand_ins, name):
    """The line that README.md and docs/running.md send operators to: a reason, and nothing of what was sent."""
    texts = hostile_requests(stand_ins.entra.mint, HOSTILE[name])
    start = len(gateway.log.read_bytes())
    answers = [raw(gateway.address, text.encode("latin-1")) for text in texts]
    # What Envoy does not accept, it answers itself.
    ours = [answer for answer in answers if answer.header(STAND_INS_MARK) is None]
    refused = [answer for answer in ours if answer.code not in (None, "RequestNotAccepted")]
    wait_until(lambda: len(reasons(gateway, start)) >= len(refused), 5, "a reason for each refusal")
    assert len(reasons(gateway, start)) == len(refused) > 10
    log = gateway.log.read_bytes()[start:]
    assert all(byte == 0x0A or 0x20 <= byte < 0x7F for byte in log)
    access = gateway.access.read_bytes()
    assert all(byte == 0x0A or 0x20 <= byte != 0x7F for byte in access)
    assert not secrets.found_in(log.decode() + access.decode("latin-1"))
