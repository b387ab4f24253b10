"""What bodies and headers name and bound, as callers and real clients send it. Rows L6 to L8, L12, C4, C6, J12, U7."""

import gzip
import io
import json
import socket
import time

import openai
import pytest

from .harness import Gateway, new_app, shipped_policy
from .harness.backend import Backend, answer
from .harness.gateway import CHAT_PATH, set_endpoint

V1_CHAT = "/openai/v1/chat/completions"
TRANSCRIPTIONS = "/openai/v1/audio/transcriptions"
FORM = "multipart/form-data; boundary=x-1"
NARROW, RESERVING, TOKENS, BY_DEPLOYMENT, FREE, FILTERING = (new_app() for _ in range(6))
PASSES = (200, None)
NOT_ALLOWED = (403, "DeploymentNotAllowed")
NOT_READABLE = (400, "BodyNotReadable")
NOT_SUPPORTED = (415, "ContentEncodingNotSupported")
PARAMETER = (403, "ParameterNotAllowed")


@pytest.fixture(scope="module")
def backend():
    with Backend(lambda _: [answer(b'{"text":"hello","data":[]}', "application/json")]) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(stand_ins, module_directory, backend):
    apps = [
        {"app_id": NARROW, "deployments": ["whisper", "gpt-4o", "text-embedding-*"]},
        {"app_id": RESERVING, "limits": [{"tokens": 20_000, "per": "1h", "reserve": True}]},
        {"app_id": TOKENS, "limits": [{"tokens": 1_000_000, "per": "1h"}]},
        {"app_id": BY_DEPLOYMENT, "limits": [{"calls": 1, "per": "1h", "deployments": ["gpt-4o"]}]},
        {"app_id": FREE},
        {"app_id": FILTERING, "caps": {"content_filter_override": True}},
    ]
    policy = shipped_policy(stand_ins, apps=apps, usage={"stream_options": "inject"})

    def edit(config):
        set_endpoint(config, "azure_openai", backend.address)

    with Gateway(module_directory, stand_ins, policy, edit=edit) as running:
        yield running


@pytest.fixture
def send(gateway, stand_ins):
    """Sends a body as an application."""

    def send(app: str, path: str, body, content_type="application/json", headers=()):
        body = json.dumps(body) if isinstance(body, dict) else body
        body = body if isinstance(body, bytes) else body.encode()
        headers = [*headers, *([("content-type", content_type)] if content_type is not None else [])]
        return gateway.request("POST", path, token=stand_ins.entra.mint(app), headers=headers, body=body)

    return send


def form(*fields: tuple[str, str]) -> str:
    parts = (f"--x-1\r\nContent-Disposition: form-data; name={name}\r\n\r\n{value}\r\n" for name, value in fields)
    return "".join(parts) + "--x-1--\r\n"


MODEL, FILE = ("model", "whisper"), ('file; filename="a.wav"', "RIFF\r\n--x-\r\n")


def test_c4_u7_models_in_forms_are_held_to_deployments(send, backend):
    for fields in [(MODEL, FILE), (FILE, MODEL), (('"model"', "WHISPER"), FILE)]:
        assert send(NARROW, TRANSCRIPTIONS, form(*fields), FORM).verdict == PASSES, fields
        assert backend.received[-1].body.decode() == form(*fields)
    backend.received.clear()
    for fields in [
        (FILE, ("model", "o1")),
        (FILE,),
        (MODEL, MODEL),
        (MODEL, ("MODEL", "o1")),
        (MODEL, ('"mod%65l"', "o1")),
        (MODEL, ("a; name*=utf-8''model", "o1")),
        (("model; filename=m", "whisper"),),
        (("model", "whisper/../o1"),),
    ]:
        for path in (TRANSCRIPTIONS, "/openai/v1/audio/translations", "/openai/v1/images/edits", "/openai/v1/videos"):
            assert send(NARROW, path, form(*fields), FORM).verdict == NOT_ALLOWED, fields
    refused = send(NARROW, TRANSCRIPTIONS, form(FILE), FORM)
    assert refused.json["error"]["message"].startswith("The request body must name `model` once")
    for body in [
        form(MODEL, ("a; size=1", "b")),
        form(MODEL, ("a", "--x-1")),
        form(MODEL).replace("\r\n", "\n"),
        form(MODEL) + form(("model", "o1")),
        form(MODEL, ("a\r\nContent-Transfer-Encoding: base64", "b")),
        form(MODEL)[:-6],
        "",
    ]:
        assert send(NARROW, TRANSCRIPTIONS, body, FORM).verdict == NOT_READABLE, body
    for content_type in ("multipart/form-data", FORM + "; boundary=y", "multipart/mixed; boundary=x-1"):
        assert send(NARROW, TRANSCRIPTIONS, form(MODEL), content_type).verdict == NOT_READABLE, content_type
    assert not [received for received in backend.received if received.complete]
    # Nothing needs it.
    assert send(FREE, TRANSCRIPTIONS, form(FILE), FORM).verdict == PASSES


def test_c4_the_closing_delimiter_waits_for_the_model(gateway, stand_ins, backend):
    """Cut anywhere in the end of a form, nothing of its closing delimiter is there before the decision."""
    token = stand_ins.entra.mint(NARROW)
    for model, status in (("whisper", b"200"), ("o1", b"403")):
        body = form(("model", model)).encode()
        for cut in range(len(body) - 10, len(body)):
            backend.received.clear()
            head = f"POST {TRANSCRIPTIONS} HTTP/1.1\r\nhost: gate\r\nauthorization: Bearer {token}\r\n"
            head += f"content-type: {FORM}\r\ncontent-length: {len(body)}\r\n\r\n"
            with socket.create_connection(gateway.address, timeout=20) as client:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                client.sendall(head.encode() + body[:cut])
                time.sleep(0.02)
                client.sendall(body[cut:])
                assert client.makefile("rb").readline().split()[1] == status, cut
            if model == "o1":
                assert not any(received.complete or b"x-1-" in received.body for received in backend.received)


def test_c4_a_real_client_sends_forms(gateway, stand_ins):
    client = openai.OpenAI(base_url=f"{gateway.url}/openai/v1/", api_key=stand_ins.entra.mint(NARROW), max_retries=0)
    sound = ("speech (1); v2.wav", io.BytesIO(bytes(range(256)) * 2_000))
    assert client.audio.transcriptions.create(model="whisper", file=sound).text == "hello"
    assert client.audio.translations.create(model="whisper", file=sound).text == "hello"
    client.images.edit(model="gpt-4o", image=[("a.png", b"\x89PNG"), ("b.png", b"--")], prompt="a\r\nb")
    client.videos.create(model="gpt-4o", prompt="a cat")
    for model in ("o1", "whisper-2"):
        with pytest.raises(openai.PermissionDeniedError) as refused:
            client.audio.transcriptions.create(model=model, file=sound)
        assert refused.value.code == "DeploymentNotAllowed"


def test_l12_a_limit_by_deployment_counts_the_model_of_a_form(send):
    for _ in range(3):
        assert send(BY_DEPLOYMENT, TRANSCRIPTIONS, form(FILE, MODEL), FORM).verdict == PASSES
    assert send(BY_DEPLOYMENT, V1_CHAT, {"model": "gpt-4o"}).verdict == PASSES
    assert send(BY_DEPLOYMENT, TRANSCRIPTIONS, form(("model", "gpt-4o")), FORM).status == 429


def test_l6_under_a_limit_on_tokens_a_body_has_one_reading(send, backend):
    for path in (CHAT_PATH, V1_CHAT):
        for body in (
            '{"model":"a","stream":true,"n":1,"n":1}',
            '{"model":"a","stream":true,"stream":true}',
            '{"model":"a","stream":true,"max_tokens":100.5}',
            '{"model":"a","stream":true,"max_tokens":-1}',
            '{"model":"a","stream":true,"n":"1"}',
        ):
            assert send(TOKENS, path, body).verdict == NOT_READABLE, body
            assert send(FREE, path, body).verdict == PASSES, body
        for content_type in ("application/json; charset=us-ascii", "text/plain; charset=utf-16"):
            assert send(TOKENS, path, "{}", content_type).verdict == NOT_SUPPORTED, content_type
        for body, content_type, encoding in (
            ('\ufeff{"model":"a","stream":true}', "application/json", "identity"),
            ('{"model":"a","stream":true}', "text/plain", "identity,identity"),
            ('{"model":"a","stream":true}', None, "identity , identity"),
        ):
            headers = [("content-encoding", encoding)]
            assert send(TOKENS, path, body, content_type, headers).verdict == PASSES
            assert b'"stream_options":{"include_usage":true}' in backend.received[-1].body
    chat = CHAT_PATH.split("?")[0]
    for query in ("?Api-Version=2024-10-21", "?api%2Dversion=2024-10-21", "/?api-version=2024%2d10-21"):
        assert send(TOKENS, chat + query, {"stream": True}).verdict == PASSES, query
        assert b"include_usage" in backend.received[-1].body
    two = f"{chat}?api-version=2024-02-01&Api-Version=2024-10-21"
    assert send(TOKENS, two, {"stream": True}).verdict == NOT_READABLE
    assert send(FREE, two, {"stream": True}).verdict == PASSES


def test_l7_members_that_chat_does_not_read_bound_nothing(send):
    verdicts = [send(RESERVING, CHAT_PATH, body).status for body in [{"max_output_tokens": 1}, {"max_tokens": 0}] * 4]
    # A stand-in that reports no usage leaves what is held: four times 4,096 tokens and the prompt.
    assert verdicts == [200] * 4 + [429] * 4


def test_l8_a_model_in_a_body_has_the_form_of_a_deployments_name(send):
    for name in ("text-embedding-x/../o1-pro", "text-embedding-\u0000o1", "text-embedding-x?model=o1", "text-embedding-%"):
        for path in (V1_CHAT, "/openai/v1/embeddings"):
            assert send(NARROW, path, {"model": name}).verdict == NOT_ALLOWED, name
    assert send(NARROW, "/openai/v1/embeddings", {"model": "text-embedding-3"}).verdict == PASSES


def test_j12_a_compressed_body_that_has_to_be_read_is_not_supported(send, backend):
    packed = gzip.compress(b'{"model":"gpt-4o","max_tokens":1}')
    for app, path in (
        (RESERVING, CHAT_PATH),
        (NARROW, V1_CHAT),
        (TOKENS, V1_CHAT),
        (BY_DEPLOYMENT, V1_CHAT),
        (NARROW, TRANSCRIPTIONS),
    ):
        for encoding in ("gzip", "identity, gzip", "br"):
            refused = send(app, path, packed, headers=[("content-encoding", encoding)])
            assert refused.verdict in (NOT_SUPPORTED, (429, "RateLimitExceeded")), (path, encoding)
            assert app == BY_DEPLOYMENT or refused.verdict == NOT_SUPPORTED
    assert send(FREE, V1_CHAT, packed, headers=[("content-encoding", "gzip")]).verdict == PASSES
    assert backend.received[-1].body == packed


def test_c6_headers_that_steer_azure_are_held_to_the_policy(send):
    body = {"model": "gpt-4o"}
    for name in ("x-ms-oai-image-generation-deployment", "x-ms-spillover-deployment", "AzureML-Model-Deployment"):
        for path in (V1_CHAT, CHAT_PATH):
            assert send(NARROW, path, body, headers=[(name, "gpt-4o")]).verdict == PASSES
            for values in (["secret-o3"], ["gpt-4o", "secret-o3"], ["gpt-4o,secret-o3"], [""]):
                refused = send(NARROW, path, body, headers=[(name, value) for value in values])
                assert refused.verdict == NOT_ALLOWED, (name, values)
    for name in ("x-policy-id", "X-Policy-ID"):
        for app, expected in ((NARROW, PARAMETER), (FREE, PARAMETER), (FILTERING, PASSES)):
            refused = send(app, V1_CHAT, body, headers=[(name, "no-filter")])
            assert refused.verdict == expected, (name, app)
            assert expected == PASSES or refused.json["error"]["param"] == "x-policy-id"
