"""What callers put where it does not belong is told nowhere: client secrets. R28; row I6.

The gateway of this file logs all that it can; at its end it is searched like every other one.
"""

import base64
import json

import pytest

from .harness import APP_CHAT, APP_OTHER, Gateway, raw, secrets, shipped_policy
from .harness.figures import figure
from .harness.gateway import CHAT_BODY, CHAT_PATH
from .harness.load import request
from .harness.processes import wait_until
from .harness.stand_ins import CLIENT_SECRET
from .harness.tokens import b64

PASSES = (200, None)
NOT_PRESENT = (401, "TokenNotPresent")
INVALID = (401, "JwtInvalid")
NO_KEY = (401, "TokenSignatureKeyNotFound")
DENIED = (403, "AuthenticationTypeDisabled")

PATH = CHAT_PATH.partition("?")[0]
BASIC = base64.b64encode(f"{APP_CHAT}:{CLIENT_SECRET}".encode()).decode()
FORM = f"grant_type=client_credentials&client_id={APP_CHAT}&client_secret={CLIENT_SECRET}"


@pytest.fixture(scope="module")
def gateway(stand_ins, module_directory):
    """With an application whose bodies are read for the model that they name."""
    policy = shipped_policy(stand_ins, usage={"stream_options": "inject"})
    policy["apps"].append({"app_id": APP_OTHER, "deployments": ["gpt-*"]})
    with Gateway(module_directory, stand_ins, policy) as running:
        yield running


def lines_of(gateway) -> list[str]:
    return [line for line in gateway.log_text().splitlines() if '"outcome"' in line]


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
    expected = [NO_KEY, INVALID, INVALID, (401, "TokenAudienceNotAllowed"), (401, "TokenIssuerNotAllowed")]
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
        assert seen == {(403, "DeploymentNotAllowed")}


def test_r28_the_places_of_client_secrets_in_figures(gateway):
    places = len(WITHOUT_A_TOKEN) + 2 * len(QUERIES) + 5 + 2 * len(BODIES)
    found = secrets.found_in(gateway.log_text() + gateway.access.read_text(errors="replace"))
    figure("R28", "client secrets sent to the gateway", f"in {places} requests, {len(found)} told", not found)
    assert not found
