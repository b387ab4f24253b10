"""Vectors from elsewhere that are whole tokens, through Envoy: every one is refused, while tokens signed
with the same keys pass.

They are not part of the repository, see tests/vectors.rs. Payloads of Wycheproof and of the JOSE cookbook are no
claims, so that even their good tokens are refused here; what their signatures are is tested there.
"""

import functools
import json
import os
from pathlib import Path

import jwt
import pytest

from .harness import APP_OTHER, Gateway, shipped_policy
from .harness.processes import ROOT, wait_until
from .harness.tokens import Signer, claims

VECTORS = Path(os.environ.get("VECTORS", ROOT.parent / "shared" / "vectors"))
assert VECTORS.is_dir() or "REQUIRE_VECTORS" not in os.environ, VECTORS
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384"]
AUDIENCE = "api://vectors"
REFUSED = (401, "JwtInvalid")
NONE = (401, "TokenNotPresent")

pytestmark = pytest.mark.skipif(not VECTORS.is_dir(), reason=f"NOT CHECKED: no vectors in {VECTORS}")


def read(name: str) -> dict:
    return json.loads((VECTORS / name).read_text())


@functools.cache
def rows() -> list[dict]:
    """Tokens with the keys they are about: `jws`, `keys`, `valid`."""
    found = [
        {"jws": row["jws"], "keys": [row["jwk"]], "valid": row["strict_result"] == "valid"}
        for row in read("derived/wycheproof_jws_flat.json")["tests"]
    ]
    found += [
        {"jws": row["jws"], "keys": row["keyset"]["keys"], "valid": row["result"] == "valid"}
        for row in read("derived/wycheproof_jwk_flat.json")["tests"]
    ]
    for path in sorted(VECTORS.glob("jose_cookbook/*/*.json")):
        example = json.loads(path.read_text())
        compact = example.get("output", {}).get("compact")
        if compact:
            key = example["input"]["key"]
            valid = example["input"]["alg"] in ALGORITHMS
            found.append({"jws": compact, "keys": [key], "valid": valid})
    return found


@functools.cache
def private_keys() -> dict[str, dict]:
    """The private keys that the vectors come with, by modulus or coordinate."""
    groups = read("wycheproof/json_web_signature_test.json")["testGroups"]
    keys = [group["private"] for group in groups]
    examples = [json.loads(path.read_text()) for path in VECTORS.glob("jose_cookbook/jws/*.json")]
    keys += [example["input"]["key"] for example in examples if isinstance(example["input"]["key"], dict)]
    return {identity(key): key for key in keys if "d" in key}


def identity(key: dict) -> str | None:
    return key.get("n") or key.get("x")


def public(key: dict) -> dict:
    return {name: value for name, value in key.items() if name not in {"d", "p", "q", "dp", "dq", "qi"}}


def issuer_of(keys: list[dict]) -> str:
    """The issuer that publishes these keys."""
    text = json.dumps([public(key) for key in keys], sort_keys=True)
    return f"https://vectors.example/{issuers().index(text)}"


@functools.cache
def issuers() -> list[str]:
    return sorted({json.dumps([public(key) for key in row["keys"]], sort_keys=True) for row in rows()})


def signed_anew(row: dict) -> str | None:
    """Claims under a row's header, signed with the row's own key; None where the gate has no such algorithm."""
    header = row["jws"].split(".")[0]
    members = jwt.utils.base64url_decode(header)
    alg = json.loads(members)["alg"]
    key = next(key for key in row["keys"] if key.get("kid") == json.loads(members)["kid"])
    if alg not in ALGORITHMS:
        return None
    private = jwt.get_algorithm_by_name(alg).from_jwk(json.dumps(private_keys()[identity(key)]))
    good = claims(issuer_of(row["keys"]), AUDIENCE, app=APP_OTHER)
    return Signer(alg, private=private).token(good, header=members)


@pytest.fixture(scope="module")
def gateway(stand_ins, module_directory):
    """Trusts every key set of the vectors, each as an issuer's own."""
    policy = shipped_policy(stand_ins)
    shared = {"audiences": [AUDIENCE], "app_claim": "app", "algorithms": ALGORITHMS}
    # A key set without a usable key is no policy: a good key stands beside what is tested.
    spare = Signer(kid="spare").jwk()
    for text in issuers():
        keys = json.loads(text)
        policy["issuers"].append({"issuers": [issuer_of(keys)], "jwks": {"keys": [*keys, spare]}, **shared})
    with Gateway(module_directory, stand_ins, policy) as running:
        yield running


def test_every_row_is_refused(gateway, stand_ins):
    before = stand_ins.openai.count()
    for row in rows():
        expected = REFUSED if row["jws"] else NONE
        assert gateway.chat(row["jws"]).verdict == expected, row["jws"]
    assert stand_ins.openai.count() == before
    assert len(rows()) == 401 + 26 + 7
    print(f"{len(rows())} tokens refused")


def test_the_headers_and_keys_of_good_rows_pass_around_claims(gateway):
    tokens = [token for row in rows() if row["valid"] and (token := signed_anew(row))]
    for token in tokens:
        assert gateway.chat(token).verdict == (200, None), token
    print(f"{len(tokens)} tokens passed")
    assert len(tokens) == 35


def test_microsofts_samples_are_refused_until_they_are_signed(start_gateway, stand_ins):
    samples = read("entra_docs/access_token_samples.json")["tokens"]
    policy = shipped_policy(stand_ins)
    signer = Signer(kid=samples[0]["header"]["kid"])
    for sample in samples:
        payload = sample["payload"]
        issuer = {"issuers": [payload["iss"]], "audiences": [payload["aud"]], "jwks": {"keys": [signer.jwk()]}}
        policy["issuers"].append(issuer)
    gateway = start_gateway(stand_ins, policy)
    for sample in samples:
        answer = gateway.chat(sample["token_as_printed"])
        assert answer.verdict in [REFUSED, (401, "TokenSignatureInvalid")], sample["version"]
        now = claims("", "")
        dates = {name: now[name] for name in ("exp", "nbf", "iat")}
        token = signer.token(sample["payload"] | dates, header=sample["header"])
        assert gateway.chat(token).verdict == (200, None), sample["version"]
    assert len(samples) == 2


@pytest.mark.parametrize("name, keys", [("AADCommonV1JwksString", 7), ("AADCommonV2JwksString", 10)])
def test_captured_key_sets_of_entra_are_loaded_whole(start_gateway, own_stand_ins, name, keys):
    captures = read("entra_identitymodel/openid_config_strings.json")["strings"]
    own_stand_ins.entra.behave("keys", "ok", body=captures[name]["text"])
    gateway = start_gateway(own_stand_ins)
    wait_until(lambda: sum(gateway.prometheus("tollgate_keys").values()) == keys, 10, f"{keys} keys")
