"""Real clients, unmodified: MSAL gets the token, the OpenAI packages of today and of 2023 use it."""

import json
import os
import subprocess
import time
from pathlib import Path

import msal
import openai
import pytest

from .harness import APP_BATCH, APP_CHAT, AUDIENCE, TENANT, StandIns, shipped_policy
from .harness.gateway import cluster, set_endpoint
from .harness.processes import ROOT
from .harness.secrets import keep_secret
from .harness.stand_ins import CLIENT_SECRET

SCOPE = f"{AUDIENCE}/.default"
AUTHORITY = "https://login.microsoftonline.com"
KEY = keep_secret("real-clients-sentinel-api-key")
DEPLOYMENT = "gpt-4o"
API_VERSION = "2024-10-21"
OLD_PYTHON = Path(os.environ.get("OLD_PYTHON", ROOT / ".venv-openai-0.27" / "bin" / "python"))


@pytest.fixture
def entra_over_tls(directory):
    """Entra's stand-in under Entra's own name, with a certificate of its own authority."""
    with StandIns(directory / "stand-ins", public_url=AUTHORITY) as running:
        yield running


@pytest.fixture
def start_over_tls(start_gateway, entra_over_tls):
    """Starts gateways that fetch keys from https://login.microsoftonline.com as in production: only
    the cluster's address and its certificate authority are local."""

    def edit(config):
        set_endpoint(config, "entra", entra_over_tls.addresses["entra-https"])
        cluster(config, "entra")["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": "login.microsoftonline.com",
                "common_tls_context": {
                    "validation_context": {
                        "trusted_ca": {"filename": str(entra_over_tls.entra.ca)},
                        "match_typed_subject_alt_names": [
                            {"san_type": "DNS", "matcher": {"exact": "login.microsoftonline.com"}}
                        ],
                    }
                },
            },
        }

    def start(**members):
        policy = shipped_policy(entra_over_tls, **members)
        del policy["issuers"][0]["authority"]
        return start_gateway(entra_over_tls, policy, edit=edit)

    return start


@pytest.fixture
def gateway(start_over_tls):
    return start_over_tls()


@pytest.fixture
def token_provider(entra_over_tls, monkeypatch):
    """Tokens for an application, by MSAL over TLS."""
    # These would win over `verify`.
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)

    def provider(client_id: str):
        application = msal.ConfidentialClientApplication(
            client_id,
            client_credential=CLIENT_SECRET,
            authority="https://localhost:{}/{}".format(entra_over_tls.entra.https[1], TENANT),
            instance_discovery=False,
            verify=str(entra_over_tls.entra.ca),
        )

        def get_token() -> str:
            result = application.acquire_token_for_client([SCOPE])
            assert "access_token" in result, result
            return keep_secret(result["access_token"])

        return get_token

    return provider


def azure_client(gateway, **options) -> openai.AzureOpenAI:
    return openai.AzureOpenAI(azure_endpoint=gateway.url, api_version=API_VERSION, **options)


def complete(client: openai.AzureOpenAI, **options):
    messages = [{"role": "user", "content": "Hello"}]
    return client.chat.completions.create(model=DEPLOYMENT, messages=messages, **options)


# The current package


def test_the_current_package_with_a_token_from_msal(gateway, token_provider):
    client = azure_client(gateway, azure_ad_token_provider=token_provider(APP_CHAT))
    completion = complete(client)
    assert completion.choices[0].message.content
    assert completion.usage.total_tokens > 0
    chunks = list(complete(client, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    embeddings = client.embeddings.create(model="text-embedding-3-small", input="Hello")
    assert embeddings.data[0].embedding
    assert client.models.list().data


def test_the_current_package_on_the_v1_paths(gateway, token_provider):
    client = openai.OpenAI(base_url=f"{gateway.url}/openai/v1/", api_key=token_provider(APP_CHAT))
    assert complete(client).choices[0].message.content
    assert client.responses.create(model=DEPLOYMENT, input="Hello").output_text
    # A key in the token's place.
    with pytest.raises(openai.AuthenticationError) as refused:
        complete(openai.OpenAI(base_url=f"{gateway.url}/openai/v1/", api_key=KEY))
    assert refused.value.code == "JwtInvalid"


def test_the_current_package_with_an_api_key(gateway, entra_over_tls):
    with pytest.raises(openai.PermissionDeniedError) as refused:
        complete(azure_client(gateway, api_key=KEY))
    assert refused.value.status_code == 403
    assert refused.value.code == "AuthenticationTypeDisabled"
    assert "Key based authentication is disabled" in str(refused.value)
    assert entra_over_tls.openai.count() == 0


def test_the_current_package_with_a_bad_token(gateway):
    with pytest.raises(openai.AuthenticationError) as refused:
        complete(azure_client(gateway, azure_ad_token="not-a-token"))
    assert refused.value.code == "JwtInvalid"
    assert refused.value.type == "invalid_request_error"


def test_the_current_package_waits_as_it_is_told(start_over_tls, token_provider):
    """The SDK retries a 429 when Retry-After says so, and then succeeds."""
    gateway = start_over_tls(apps=[{"app_id": APP_BATCH, "limits": [{"calls": 1, "per": "3s"}]}])
    client = azure_client(gateway, azure_ad_token_provider=token_provider(APP_BATCH))
    assert complete(client).choices
    start = time.monotonic()
    assert complete(client).choices
    assert 1.5 < time.monotonic() - start < 5
    with pytest.raises(openai.RateLimitError) as limited:
        complete(client.with_options(max_retries=0))
    assert limited.value.code == "RateLimitExceeded"
    assert int(limited.value.response.headers["retry-after"]) >= 1


def test_the_current_package_waits_for_tokens(start_over_tls, token_provider):
    limits = [{"tokens": 60, "per": "3s", "reserve": True}]
    gateway = start_over_tls(apps=[{"app_id": APP_BATCH, "limits": limits}])
    client = azure_client(gateway, azure_ad_token_provider=token_provider(APP_BATCH))
    start = time.monotonic()
    # Each may use 30 and uses 12: the fourth has to wait until the first are out of the window.
    for _ in range(4):
        assert complete(client, max_tokens=10).choices
    assert 1.5 < time.monotonic() - start < 5
    with pytest.raises(openai.RateLimitError) as limited:
        for _ in range(6):
            complete(client.with_options(max_retries=0), max_tokens=10)
    assert limited.value.code == "TokenLimitExceeded"
    assert int(limited.value.response.headers["x-ratelimit-limit-tokens"]) == 60
    # What can never fit is not tried again.
    start = time.monotonic()
    with pytest.raises(openai.APIStatusError) as larger:
        complete(client, max_tokens=1000)
    assert (larger.value.status_code, larger.value.code) == (413, "CallExceedsLimit")
    assert time.monotonic() - start < 1


def test_the_current_package_gives_up_on_a_quota_of_tokens(start_over_tls, token_provider):
    gateway = start_over_tls(apps=[{"app_id": APP_BATCH, "limits": [{"tokens": 10, "per": "month"}]}])
    client = azure_client(gateway, azure_ad_token_provider=token_provider(APP_BATCH))
    assert complete(client).choices
    start = time.monotonic()
    with pytest.raises(openai.RateLimitError) as limited:
        complete(client)
    assert limited.value.code == "QuotaExceeded"
    assert time.monotonic() - start < 1


# The package of 2023


OLD_PROGRAM = """
import json, sys
import openai
openai.api_type, openai.api_base, openai.api_version, openai.api_key = sys.argv[1:5]
try:
    answer = openai.ChatCompletion.create(
        engine=sys.argv[5], messages=[{"role": "user", "content": "Hello"}]
    )
    chunks = list(openai.ChatCompletion.create(
        engine=sys.argv[5], messages=[{"role": "user", "content": "Hello"}], stream=True
    ))
    print(json.dumps({"content": answer["choices"][0]["message"]["content"], "chunks": len(chunks)}))
except openai.error.OpenAIError as error:
    print(json.dumps({
        "error": type(error).__name__, "status": error.http_status, "text": str(error),
        "code": error.error.code if error.error else error.code,
        "retry_after": error.headers.get("retry-after"),
    }))
"""


def old_client(gateway, api_type: str, credential: str) -> dict:
    """One chat call by openai 0.27 in an environment of its own."""
    result = subprocess.run(
        [OLD_PYTHON, "-c", OLD_PROGRAM, api_type, gateway.url, "2023-05-15", credential, DEPLOYMENT],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_the_old_package_with_a_token_from_msal(gateway, token_provider):
    result = old_client(gateway, "azure_ad", token_provider(APP_CHAT)())
    assert result["content"]
    assert result["chunks"] > 1


def test_the_old_package_with_an_api_key(gateway):
    result = old_client(gateway, "azure", KEY)
    assert result["error"] == "PermissionError"
    assert (result["status"], result["code"]) == (403, "AuthenticationTypeDisabled")
    assert "Key based authentication is disabled" in result["text"]


def test_the_old_package_at_its_limit(gateway, token_provider):
    token = token_provider(APP_BATCH)()
    # Two calls a run, three in a minute.
    assert old_client(gateway, "azure_ad", token)["content"]
    result = old_client(gateway, "azure_ad", token)
    assert (result["error"], result["status"]) == ("RateLimitError", 429)
    assert result["code"] == "RateLimitExceeded"
    assert int(result["retry_after"]) >= 1


def test_the_old_package_at_its_limit_of_tokens(start_over_tls, token_provider):
    gateway = start_over_tls(apps=[{"app_id": APP_BATCH, "limits": [{"tokens": 30, "per": "3s"}]}])
    token = token_provider(APP_BATCH)()
    assert old_client(gateway, "azure_ad", token)["content"]
    result = old_client(gateway, "azure_ad", token)
    assert (result["error"], result["status"], result["code"]) == ("RateLimitError", 429, "TokenLimitExceeded")
    time.sleep(int(result["retry_after"]))
    assert old_client(gateway, "azure_ad", token)["content"]
