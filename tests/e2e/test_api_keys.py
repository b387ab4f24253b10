"""API keys never pass: alone, beside a good token, in any place and spelling (row D3)."""

import pytest

from .harness import APP_CHAT, Gateway, shipped_policy
from .harness.figures import figure
from .harness.gateway import CHAT_PATH, connection_manager
from .harness.secrets import keep_secret

KEY = keep_secret("0123456789abcdef-sentinel-api-key")
DENIED = (403, "AuthenticationTypeDisabled")

HEADERS = [
    [("api-key", KEY)],
    [("Api-Key", KEY)],
    [("API-KEY", KEY)],
    [("api-key", KEY), ("api-key", "second")],
    [("api-key", ""), ("api-key", KEY)],
    [("api-key", b"\xff\xfe\x80")],
    [("Ocp-Apim-Subscription-Key", KEY)],
    [("x-api-key", KEY)],
    [("sec-websocket-protocol", f"openai-insecure-api-key.{KEY}")],
    [("sec-websocket-protocol", f"realtime, openai-insecure-api-key.{KEY}")],
    [("sec-websocket-protocol", f"realtime; openai-insecure-api-key.{KEY}")],
    [("sec-websocket-protocol", f"realtime openai-insecure-api-key.{KEY}")],
    [("sec-websocket-protocol", "realtime"), ("sec-websocket-protocol", f"openai-insecure-api-key.{KEY}")],
]

QUERIES = [
    f"api-key={KEY}",
    f"API-Key={KEY}",
    f"api%2Dkey={KEY}",
    f"%61pi-key={KEY}",
    f"subscription-key={KEY}",
    f"Subscription-Key={KEY}",
    f"api-version=2024-10-21&api-key={KEY}",
    f"a=b&&api-key={KEY}&c=d",
    f"api_key={KEY}",
    f"?api-key={KEY}",
    f"+api-key={KEY}",
    f"%20api-key={KEY}",
    f"api-key%00={KEY}",
    f"api-key[]={KEY}",
    f"subscription%5Fkey%5B0%5D={KEY}",
    f"api.key={KEY}",
    f"a=b?api-key={KEY}",
]


@pytest.fixture(scope="module")
def gateway(stand_ins, module_directory):
    with Gateway(module_directory, stand_ins) as running:
        yield running


@pytest.fixture(scope="module")
def denied():
    """The forms of a key that were denied, for the figure."""
    forms = set()
    yield forms
    every = len(HEADERS) + len(QUERIES)
    said = f"{len(forms)} of {every} denied, alone and beside a good token"
    figure("R21", "forms of an API key", said, len(forms) == every)


@pytest.fixture(params=["alone", "beside a good token"])
def token(request, stand_ins):
    return stand_ins.entra.mint() if request.param != "alone" else None


@pytest.mark.parametrize("headers", HEADERS, ids=lambda headers: repr(headers)[:40])
def test_d3_in_a_header(gateway, stand_ins, token, headers, denied):
    before = stand_ins.openai.count()
    assert gateway.chat(token, headers).verdict == DENIED
    assert stand_ins.openai.count() == before
    denied.add(repr(headers))


@pytest.mark.parametrize("query", QUERIES)
def test_d3_in_the_query(gateway, stand_ins, token, query, denied):
    before = stand_ins.openai.count()
    path = CHAT_PATH.partition("?")[0]
    assert gateway.request("POST", f"{path}?{query}", token=token, body=b"{}").verdict == DENIED
    assert stand_ins.openai.count() == before
    denied.add(query)


@pytest.mark.parametrize("name", ["api_key", "Ocp_Apim_Subscription_Key"])
def test_d3_d4_underscores(gateway, start_gateway, stand_ins, name):
    token = stand_ins.entra.mint()
    # The shipped listener refuses such names; the filter does where the listener lets them in.
    assert gateway.chat(token, [(name, KEY)]).status == 400

    def let_in(config):
        options = connection_manager(config)["common_http_protocol_options"]
        options["headers_with_underscores_action"] = "ALLOW"

    lax = start_gateway(stand_ins, edit=let_in)
    assert lax.chat(token, [(name, KEY)]).verdict == DENIED


@pytest.mark.parametrize("value", ["token", KEY, f"Bearer {KEY}", f"ApiKey {KEY}"])
def test_a_key_in_the_place_of_a_token(gateway, value):
    """Such a key (plain OpenAI clients send it so on /openai/v1) is no token."""
    answer = gateway.chat(headers=[("authorization", value)])
    assert answer.status == 401
    assert answer.code in {"JwtInvalid", "TokenNotPresent"}


@pytest.mark.parametrize(
    "headers", [[("x-team-key", "x")], [("my-api-key", "x")], [("api-keys", "x")]], ids=repr
)
def test_other_headers_are_nobodys_business(gateway, stand_ins, headers):
    assert gateway.chat(stand_ins.entra.mint(), headers).status == 200


@pytest.mark.parametrize("query", ["key=x", "my-api-key=x", "x=api-key", "api-version=api-key", "api-keyx=1"])
def test_other_parameters_are_nobodys_business(gateway, stand_ins, query):
    path = CHAT_PATH.partition("?")[0]
    assert gateway.request("POST", f"{path}?{query}", token=stand_ins.entra.mint(), body=b"{}").status == 200


@pytest.mark.parametrize(
    "headers, query",
    [
        ([("api-key", "")], ""),
        ([("x-api-key", ""), ("ocp-apim-subscription-key", "")], ""),
        ([], "api-key="),
        ([], "subscription%2Dkey"),
        ([("api-key", "")], "api-key=%20+"),
    ],
)
def test_j4_an_empty_key_is_none_and_is_removed(gateway, stand_ins, headers, query):
    answer = gateway.request("GET", f"/openai/echo?a=b&{query}", token=stand_ins.entra.mint(), headers=headers)
    assert answer.status == 200
    assert answer.json["path"] in ("/openai/echo?a=b", "/openai/echo?a=b&")
    assert not [name for name, _ in answer.json["headers"] if name.endswith("-key")]


@pytest.mark.parametrize("name", ["api-key", "x-api-key", "Ocp-Apim-Subscription-Key"])
def test_c5_the_token_in_a_key_header_is_no_key(gateway, stand_ins, name):
    token = stand_ins.entra.mint()
    answer = gateway.echo(token, [(name, token)])
    assert answer.status == 200
    assert [value for _, value in answer.json["headers"] if token in value] == [f"Bearer {token}"]
    assert gateway.chat(token, [(name, stand_ins.entra.mint(claims={"uti": "another"}))]).verdict == DENIED
    assert gateway.chat(token, [(name, token), (name, token)]).verdict == DENIED
    assert gateway.chat(None, [(name, token)]).verdict == DENIED
    assert gateway.chat(KEY, [(name, KEY)]).verdict == DENIED
    assert gateway.request("GET", "/status", token=token, headers=[(name, token)]).verdict == DENIED


@pytest.mark.parametrize(
    "headers, query, place",
    [
        ([("Api-Key", KEY)], "", "the header `api-key`"),
        ([("x-api-key", KEY)], "", "the header `x-api-key`"),
        ([], f"Subscription%2Dkey={KEY}", "the query parameter `subscription-key`"),
        ([("sec-websocket-protocol", f"openai-insecure-api-key.{KEY}")], "", "the header `sec-websocket-protocol`"),
    ],
)
def test_j5_the_refusal_names_where_the_key_is(gateway, stand_ins, headers, query, place):
    path = f"{CHAT_PATH}&{query}"
    answer = gateway.request("POST", path, token=stand_ins.entra.mint(), headers=headers, body=b"{}")
    assert answer.verdict == DENIED
    assert place in answer.json["error"]["message"]


def test_j6_what_is_no_token_is_told_apart(gateway, stand_ins):
    token = stand_ins.entra.mint()

    def refused(*values: str):
        return gateway.chat(headers=[("authorization", value) for value in values])

    for answer, code, words in [
        (refused("Bearer dummy", f"Bearer {token}"), "JwtInvalid", "several credentials"),
        (refused(token), "TokenNotPresent", "has no scheme"),
        (refused("Bearer ek_abc"), "JwtInvalid", "an API key or another secret"),
        (refused("Bearer sk-abc"), "JwtInvalid", "an API key or another secret"),
    ]:
        assert answer.verdict == (401, code)
        message = answer.json["error"]["message"]
        assert words in message
        assert answer.header("www-authenticate").endswith(f'error_description="{message}"')


def test_keys_are_denied_on_public_paths_too(gateway):
    assert gateway.request("GET", "/status").status == 200
    assert gateway.request("GET", "/status", headers=[("api-key", KEY)]).verdict == DENIED
    assert gateway.request("GET", f"/status?api-key={KEY}").verdict == DENIED


def test_the_answer_reads_as_azures(gateway):
    answer = gateway.chat(headers=[("api-key", KEY)])
    assert answer.header("content-type").startswith("application/json")
    error = answer.json["error"]
    assert set(error) == {"code", "message", "type", "param"}
    assert KEY not in answer.body.decode()


def test_strip_takes_the_key_away_and_the_token_decides(start_gateway, stand_ins):
    gateway = start_gateway(stand_ins, shipped_policy(stand_ins, api_keys={"action": "strip"}))
    token = stand_ins.entra.mint(APP_CHAT)
    for headers in HEADERS:
        assert gateway.chat(headers=headers).verdict == (401, "TokenNotPresent")
        answer = gateway.echo(token, headers)
        assert answer.status == 200
        received = {name: value for name, value in answer.json["headers"]}
        assert not {"api-key", "ocp-apim-subscription-key"} & set(received)
        assert KEY not in answer.body.decode()
        if "realtime," in repr(headers) or ("sec-websocket-protocol", "realtime") in headers:
            assert received["sec-websocket-protocol"] == "realtime"
    for query in QUERIES:
        answer = gateway.request("GET", f"/openai/echo?{query}", token=token)
        assert answer.status == 200
        assert KEY not in answer.json["path"]
        assert "key" not in answer.json["path"].lower()
    answer = gateway.request("GET", f"/openai/echo?a=b&api-key={KEY}&api-version=1%2F2", token=token)
    assert answer.json["path"] == "/openai/echo?a=b&api-version=1%2F2"


def test_other_places_by_policy(start_gateway, stand_ins):
    # The second is one that the gate reads for itself as well.
    places = {"headers": ["x-my-key", "access-control-request-method"], "query": ["code"]}
    gateway = start_gateway(stand_ins, shipped_policy(stand_ins, api_keys=places))
    token = stand_ins.entra.mint()
    for name in places["headers"]:
        assert gateway.chat(token, [(name, KEY)]).verdict == DENIED
    assert gateway.request("GET", f"/openai/echo?code={KEY}", token=token).verdict == DENIED
    assert gateway.chat(token).status == 200
