"""Which tokens pass. Row names are those of the attack catalogue: A signature and header, B claims,
C Entra ID."""

import hashlib
import hmac
import http.client
import json
import socket
import threading
import time

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from .harness import APP_BATCH, APP_CHAT, APP_OTHER, AUDIENCE, TENANT, Gateway, new_app, shipped_policy
from .harness.identities import OTHER_TENANT
from .harness.tokens import Signer, b64, claims, unb64

ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384"]
PLAIN_ISSUER = "https://issuer.example"
RS256_ISSUER = "https://rs256.example"
PLAIN_AUDIENCE = "api://gate"

INVALID = (401, "JwtInvalid")
SIGNATURE = (401, "TokenSignatureInvalid")
KEY = (401, "TokenSignatureKeyNotFound")
ISSUER = (401, "TokenIssuerNotAllowed")
AUDIENCE_REFUSED = (401, "TokenAudienceNotAllowed")
EXPIRED = (401, "TokenExpired")
EARLY = (401, "TokenNotYetValid")
CLAIM_MISSING = (401, "TokenClaimNotFound")
CLAIM_VALUE = (401, "TokenClaimValueNotAllowed")
PASSES = (200, None)


@pytest.fixture(scope="module")
def signers() -> dict[str, Signer]:
    """One key pair for each algorithm."""
    return {alg: Signer(alg, kid=f"key-{alg}") for alg in ALGORITHMS}


@pytest.fixture(scope="module")
def gateway(stand_ins, signers, module_directory):
    """Trusts the stand-in for Entra ID, and two issuers whose keys stand in the policy."""
    policy = shipped_policy(stand_ins)
    shared = {"audiences": [PLAIN_AUDIENCE], "app_claim": "app"}
    policy["issuers"] += [
        {
            "issuers": [PLAIN_ISSUER],
            "algorithms": ALGORITHMS,
            "jwks": {"keys": [signer.jwk() for signer in signers.values()]},
            **shared,
        },
        {
            "issuers": [RS256_ISSUER],
            "jwks": {"keys": [signers["RS256"].jwk(), signers["ES256"].jwk()]},
            **shared,
        },
    ]
    with Gateway(module_directory, stand_ins, policy) as running:
        yield running


@pytest.fixture
def plain(signers):
    """Mints for the issuer that allows every algorithm."""

    def mint(alg="RS256", header=None, issuer=PLAIN_ISSUER, sign_as=None, **members):
        body = claims(issuer, PLAIN_AUDIENCE, app=APP_OTHER, **members)
        return signers[alg].token(body, header, sign_as)

    return mint


# Good tokens


@pytest.mark.parametrize("version", [1, 2])
def test_an_entra_token_passes_and_reaches_the_backend(gateway, stand_ins, version):
    token = stand_ins.entra.mint(version=version)
    answer = gateway.echo(token)
    assert answer.status == 200
    assert answer.header("x-stand-in") == "azure-openai"
    assert ["authorization", f"Bearer {token}"] in answer.json["headers"]


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_every_algorithm_verifies_with_its_own_key(gateway, plain, alg):
    assert gateway.chat(plain(alg)).verdict == PASSES
    # The same token again comes from the cache.
    token = plain(alg)
    assert [gateway.chat(token).status for _ in range(4)] == [200] * 4


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_a15_a_flipped_bit_never_verifies(gateway, plain, alg):
    head, _, signature = plain(alg).rpartition(".")
    good = unb64(signature)
    connection = http.client.HTTPConnection(*gateway.address)
    # Every bit for the algorithm that Entra uses; each byte once for the others.
    bits = range(len(good) * 8) if alg == "RS256" else range(0, len(good) * 8, 9)
    for bit in bits:
        flipped = bytearray(good)
        flipped[bit // 8] ^= 1 << bit % 8
        answer = gateway.chat(f"{head}.{b64(flipped)}", connection=connection)
        assert answer.verdict == SIGNATURE, f"bit {bit}"
    for size in range(1, len(good)):
        answer = gateway.chat(f"{head}.{b64(good[:size])}", connection=connection)
        assert answer.verdict == SIGNATURE, f"{size} bytes"
    assert gateway.chat(f"{head}.{signature}", connection=connection).verdict == PASSES


def test_a16_g2_a_known_token_with_another_signature_is_refused(gateway, stand_ins):
    token, other = stand_ins.entra.mint(), stand_ins.entra.mint()
    for _ in range(8):  # Known to both workers.
        assert gateway.chat(token).verdict == PASSES
    signed, _, _ = token.rpartition(".")
    other_signature = other.rpartition(".")[2]
    for signature, expected in [(other_signature, SIGNATURE), ("", INVALID), ("AAAA", SIGNATURE)]:
        assert gateway.chat(f"{signed}.{signature}").verdict == expected


# A: signature and header


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE"])
@pytest.mark.parametrize("signature", ["", "AAAA"])
def test_a1_alg_none(gateway, stand_ins, alg, signature):
    header, payload, _ = stand_ins.entra.mint().split(".")
    header = b64(json.dumps({**json.loads(unb64(header)), "alg": alg}).encode())
    assert gateway.chat(f"{header}.{payload}.{signature}").verdict == INVALID


def test_a1_alg_none_as_the_provider_would_write_it(gateway, stand_ins):
    assert gateway.chat(stand_ins.entra.mint(alg="none")).verdict == INVALID


def test_a2_hmac_with_the_public_key(gateway, stand_ins):
    assert gateway.chat(stand_ins.entra.mint(alg="HS256-with-public-key")).verdict == INVALID


def public_forms(signer: Signer) -> list[bytes]:
    """What is public about a key, in every form that may have been taken for a secret."""
    key = signer.private.public_key()
    forms = [PublicFormat.SubjectPublicKeyInfo, PublicFormat.PKCS1]
    pems = [key.public_bytes(Encoding.PEM, form) for form in forms]
    ders = [key.public_bytes(Encoding.DER, form) for form in forms]
    jwk = signer.jwk()
    texts = [jwk["n"], json.dumps(jwk), json.dumps(jwk, separators=(",", ":")), signer.kid, ""]
    return [*pems, *(pem.strip() for pem in pems), *ders, unb64(jwk["n"]), *(text.encode() for text in texts)]


@pytest.mark.parametrize("alg", ["HS256", "HS384", "HS512"])
def test_a2_hmac_with_every_form_of_the_public_key(gateway, signers, alg):
    body = json.dumps(claims(PLAIN_ISSUER, PLAIN_AUDIENCE, app=APP_OTHER)).encode()
    signed = f"{b64(json.dumps({'alg': alg, 'kid': 'key-RS256'}).encode())}.{b64(body)}"
    for secret in public_forms(signers["RS256"]):
        code = hmac.digest(secret, signed.encode(), f"sha{alg[2:]}")
        assert gateway.chat(f"{signed}.{b64(code)}").verdict == INVALID, secret


@pytest.mark.parametrize("alg", ["RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384"])
def test_a3_an_algorithm_that_is_not_allowed(gateway, stand_ins, plain, alg):
    if alg.startswith("RS") or alg.startswith("PS"):
        assert gateway.chat(stand_ins.entra.mint(alg=alg)).verdict == INVALID
        assert gateway.chat(plain("RS256", issuer=RS256_ISSUER, sign_as=alg)).verdict == INVALID
    else:
        assert gateway.chat(plain(alg, issuer=RS256_ISSUER)).verdict == INVALID


def test_a3_a_key_of_another_kind(gateway, plain):
    # The header says RS256, the key of that kid is for ES256, and the other way round.
    for alg, kid in [("RS256", "key-ES256"), ("ES256", "key-RS256"), ("ES256", "key-ES384")]:
        answer = gateway.chat(plain(alg, {"kid": kid}))
        assert answer.status == 401
        assert answer.code in {"TokenSignatureInvalid", "TokenSignatureKeyNotFound"}


def test_a4_keys_that_the_token_brings_or_points_to(gateway, stand_ins, plain):
    attacker = Signer("RS256", kid="key-RS256")
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.settimeout(0.5)
        where = "http://127.0.0.1:{}/keys".format(trap.getsockname()[1])
        for extra in [
            {"jwk": attacker.jwk()},
            {"jku": where},
            {"x5u": where},
            {"x5c": ["MIIB"]},
            {"x5t#S256": b64(bytes(32))},
        ]:
            body = claims(PLAIN_ISSUER, PLAIN_AUDIENCE, app=APP_OTHER)
            assert gateway.chat(attacker.token(body, extra)).verdict == SIGNATURE
            token = stand_ins.entra.mint(key="foreign", header=extra)
            assert gateway.chat(token).verdict == SIGNATURE
            # Without effect beside a good signature.
            assert gateway.chat(plain("RS256", extra)).verdict == PASSES
        with pytest.raises(TimeoutError):
            trap.accept()


@pytest.mark.parametrize("crit", [[], ["b64"], ["exp"], "b64", None, {}, 1], ids=repr)
def test_a5_crit_in_any_form(gateway, signers, crit):
    header = {"alg": "RS256", "kid": "key-RS256", "crit": crit}
    body = claims(PLAIN_ISSUER, PLAIN_AUDIENCE, app=APP_OTHER)
    assert gateway.chat(signers["RS256"].token(body, json.dumps(header).encode())).verdict == INVALID


def test_a5_unencoded_payload(gateway, plain):
    assert gateway.chat(plain("RS256", {"b64": False})).verdict == INVALID


@pytest.mark.parametrize(
    "kid, expected",
    [
        ("../../dev/null", KEY),
        ("/dev/null", KEY),
        ("|sleep 10", KEY),
        ("' OR 1=1 --", KEY),
        ("key-RS256\x00", KEY),
        ("KEY-rs256", KEY),
        ("k" * 256, KEY),
        ("k" * 257, INVALID),
        ("k" * 10_000, INVALID),
        ("", INVALID),
        (1, INVALID),
        (["key-RS256"], INVALID),
        ({}, INVALID),
        (True, INVALID),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_a6_kid_is_opaque(gateway, plain, kid, expected):
    assert gateway.chat(plain("RS256", {"kid": kid})).verdict == expected


@pytest.mark.parametrize("kid", ["", ', "kid": null'], ids=["absent", "null"])
def test_a6_a7_no_kid(gateway, signers, kid):
    header = f'{{"alg": "RS256"{kid}}}'.encode()
    body = claims(PLAIN_ISSUER, PLAIN_AUDIENCE, app=APP_OTHER)
    assert gateway.chat(signers["RS256"].token(body, header)).verdict == INVALID


def test_a7_no_kid_from_entra(gateway, stand_ins):
    assert gateway.chat(stand_ins.entra.mint(header={"kid": None})).verdict == INVALID


def pkcs1_blocks(message: bytes, size: int) -> dict[str, bytes]:
    """EMSA-PKCS1-v1_5 (RFC 8017 section 9.2) and ways to get it wrong."""
    digest = hashlib.sha256(message).digest()
    info = bytes.fromhex("3031300d060960864801650304020105000420")
    no_null = bytes.fromhex("302f300b0609608648016503040201" + "0420")
    sha512 = bytes.fromhex("3051300d060960864801650304020305000440")

    def block(tail: bytes, start=b"\x00\x01", fill=b"\xff") -> bytes:
        return start + fill * (size - len(start) - 1 - len(tail)) + b"\x00" + tail

    return {
        "good": block(info + digest),
        "missing NULL": block(no_null + digest),
        "trailing bytes": b"\x00\x01" + b"\xff" * 8 + b"\x00" + (info + digest).ljust(size - 11, b"\x00"),
        "BER length": block(bytes.fromhex("308131300d060960864801650304020105000420") + digest),
        "other hash": block(sha512 + digest * 2),
        "block type 2": block(info + digest, start=b"\x00\x02"),
        "zero padding": block(info + digest, fill=b"\x00"),
        "no DigestInfo": block(digest),
    }


def test_a12_forged_padding(gateway, signers):
    signer = signers["RS256"]
    token = signer.token(claims(PLAIN_ISSUER, PLAIN_AUDIENCE, app=APP_OTHER))
    signed = token.rpartition(".")[0]
    for name, block in pkcs1_blocks(signed.encode(), 256).items():
        signature = b64(signer.raw_rsa(block))
        expected = PASSES if name == "good" else SIGNATURE
        assert gateway.chat(f"{signed}.{signature}").verdict == expected, name


def test_a12_numbers_beyond_the_modulus(gateway, signers):
    signer = signers["RS256"]
    signed, _, signature = signer.token(claims(PLAIN_ISSUER, PLAIN_AUDIENCE, app=APP_OTHER)).rpartition(".")
    value = int.from_bytes(unb64(signature), "big")
    modulus = signer.private.public_key().public_numbers().n
    longer = b64((value + modulus).to_bytes(257, "big"))
    padded = b64(b"\x00" + unb64(signature))
    for forged in (longer, padded, b64(b"\x00" * 256), b64(modulus.to_bytes(256, "big")), b64(b"\x01")):
        assert gateway.chat(f"{signed}.{forged}").verdict == SIGNATURE


@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text + "=",
        lambda text: text + "==",
        lambda text: text[:-1] + "+",
        lambda text: text[:-1] + "/",
        lambda text: text[:5] + "?" + text[6:],
        lambda text: text[:5] + "#" + text[6:],
        lambda text: text[:5] + "%41" + text[6:],
        lambda text: text + "A" * ((1 - len(text)) % 4),
        lambda text: "",
    ],
    ids=["padding", "padding 2", "plus", "slash", "question mark", "hash", "percent", "length 1 mod 4", "empty"],
)
def test_a13_base64url_is_strict(gateway, stand_ins, part, spoil):
    parts = stand_ins.entra.mint().split(".")
    parts[part] = spoil(parts[part])
    assert gateway.chat(".".join(parts)).verdict == INVALID


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a13_spare_bits_are_zero(gateway, signers, part):
    """Two texts that stand for the same bytes are not one token."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for padding in ("", " ", "  "):  # Until the last character has spare bits.
        header = json.dumps({"alg": "RS256", "kid": "key-RS256"}) + padding
        body = json.dumps(claims(PLAIN_ISSUER, PLAIN_AUDIENCE, app=APP_OTHER)) + padding
        parts = signers["RS256"].token(body.encode(), header.encode()).split(".")
        if len(parts[part]) % 4 != 0:
            break
    assert len(parts[part]) % 4 != 0
    assert gateway.chat(".".join(parts)).verdict == PASSES
    parts[part] = parts[part][:-1] + alphabet[alphabet.index(parts[part][-1]) ^ 1]
    assert gateway.chat(".".join(parts)).verdict == INVALID


def test_a14_three_parts(gateway, stand_ins):
    token = stand_ins.entra.mint()
    header, payload, signature = token.split(".")
    flattened = json.dumps({"protected": header, "payload": payload, "signature": signature})
    for shape in [
        f"{header}.{payload}",
        f"{token}.",
        f".{token}",
        f"{token}.AAAA",
        f"{header}.AAAA.AAAA.AAAA.{signature}",
        f"{header}..{payload}.{signature}",
        "a.b.c",
        "..",
        ".",
        "x",
        flattened.replace(" ", ""),
    ]:
        assert gateway.chat(shape).verdict == INVALID, shape[:40]


@pytest.mark.parametrize(
    "typ, expected",
    [("JWT", PASSES), ("jwt", PASSES), (None, PASSES), ("JWE", INVALID), ("at+jwt", INVALID), (1, INVALID)],
)
def test_a17_typ(gateway, stand_ins, typ, expected):
    assert gateway.chat(stand_ins.entra.mint(header={"typ": typ})).verdict == expected


def test_a18_tokens_up_to_16_kib(gateway, signers):
    def token_of(length: int) -> str:
        body = claims(PLAIN_ISSUER, PLAIN_AUDIENCE, app=APP_OTHER, groups="")
        for size in range(11_000, 13_000):
            token = signers["RS256"].token({**body, "groups": "g" * size})
            if len(token) >= length:
                return token
        raise AssertionError("not reached")

    fits, too_long = token_of(16 * 1024 - 2), token_of(16 * 1024 + 1)
    assert len(fits) <= 16 * 1024 < len(too_long)
    assert gateway.chat(fits).verdict == PASSES
    assert gateway.chat(too_long).verdict == INVALID


@pytest.mark.parametrize("size", [20_000, 59_000])
def test_a18_d7_a_59_kb_token_is_refused(gateway, signers, size):
    body = claims(PLAIN_ISSUER, PLAIN_AUDIENCE, app=APP_OTHER, groups="g" * (size * 3 // 4 - 800))
    assert gateway.chat(signers["RS256"].token(body)).verdict == INVALID
    # The same with everything in the header.
    header = {"typ": "JWT", "x": "x" * (size * 3 // 4 - 1000)}
    assert gateway.chat(signers["RS256"].token(claims(PLAIN_ISSUER, PLAIN_AUDIENCE, app=APP_OTHER), header)).verdict == INVALID


@pytest.mark.parametrize(
    "payload",
    [
        b"[" * 10_000,
        b'{"a":' + b"[" * 129 + b"]" * 129 + b"}",
        b'{"a":' * 3_000,
        b'{"exp":' + b"9" * 10_000 + b"}",
        b'{"a":"\\ud800"}',
        b"\xef\xbb\xbf{}",
        '{"iss":"x"}'.encode("utf-16"),
        b"{}{}",
        b"{} x",
        b'{"a":1,}',
        b'/* c */{"a":1}',
        b'{"a":"\x00"}',
        b'{"a":"\xff"}',
        b"{'a':1}",
        b'{"a":NaN}',
        b"",
        b" ",
        b"[]",
        b'"text"',
        b"1",
        b"null",
        b"true",
    ],
    ids=lambda value: repr(value[:16]),
)
def test_a19_b7_a_payload_that_is_no_json_object(gateway, signers, payload):
    assert gateway.chat(signers["RS256"].token(payload)).verdict == INVALID


@pytest.mark.parametrize(
    "header",
    [b"[" * 10_000, b"{}", b"[]", b'"RS256"', b'{"alg":', b'{"alg":1,"kid":"key-RS256"}', b"\xff\xfe"],
    ids=lambda value: repr(value[:16]),
)
def test_a19_a_header_that_is_no_jose_header(gateway, signers, header):
    body = claims(PLAIN_ISSUER, PLAIN_AUDIENCE, app=APP_OTHER)
    assert gateway.chat(signers["RS256"].token(body, header)).verdict == INVALID


@pytest.mark.parametrize(
    "header",
    [
        b'{"alg":"none","alg":"RS256","kid":"key-RS256"}',
        b'{"alg":"RS256","kid":"x","kid":"key-RS256"}',
        b'{"alg":"RS256","\\u006bid":"x","kid":"key-RS256"}',
    ],
)
def test_a20_repeated_header_members(gateway, signers, header):
    body = claims(PLAIN_ISSUER, PLAIN_AUDIENCE, app=APP_OTHER)
    assert gateway.chat(signers["RS256"].token(body, header)).verdict == INVALID


@pytest.mark.parametrize("name", ["aud", "iss", "exp", "app", "nbf"])
def test_a20_repeated_claims(gateway, signers, name):
    body = claims(PLAIN_ISSUER, PLAIN_AUDIENCE, app=APP_OTHER)
    text = json.dumps(body)[:-1] + f", {json.dumps(name)}: {json.dumps(body[name])}}}"
    assert gateway.chat(signers["RS256"].token(text.encode())).verdict == INVALID


@pytest.mark.parametrize("name", ["TID", "Tid"])
def test_a20_two_tenants(gateway, signers, name):
    body = claims(PLAIN_ISSUER, PLAIN_AUDIENCE, app=APP_OTHER)
    other, own = {name: TENANT}, {"tid": TENANT}
    for both in (body | other | own, body | own | other):
        assert gateway.chat(signers["RS256"].token(json.dumps(both).encode())).verdict == INVALID
    assert gateway.chat(signers["RS256"].token(json.dumps(body | own).encode())).verdict == PASSES


# B: claims


@pytest.mark.parametrize("value", [None, "never", "1893456000", True, [], {}, -1], ids=repr)
def test_b1_exp_is_a_number(gateway, plain, signers, value):
    if value is None:
        assert gateway.chat(plain(exp=None)).verdict == CLAIM_MISSING
        text = json.dumps(claims(PLAIN_ISSUER, PLAIN_AUDIENCE, app=APP_OTHER))
        null = text.replace('"exp": ', '"exp": null, "unused": ')
        assert gateway.chat(signers["RS256"].token(null.encode())).verdict == INVALID
    else:
        assert gateway.chat(plain(exp=value)).verdict == INVALID


@pytest.mark.parametrize("text", ["1e400", "2.001e+206", "99999999999999999999999", "-1e400"])
def test_b1_exp_out_of_range(gateway, signers, text):
    body = json.dumps(claims(PLAIN_ISSUER, PLAIN_AUDIENCE, app=APP_OTHER, exp=12345))
    token = signers["RS256"].token(body.replace("12345", text).encode())
    assert gateway.chat(token).verdict == INVALID


def test_b1_a_fraction_is_cut_off(gateway, plain):
    assert gateway.chat(plain(exp=time.time() + 100.5)).verdict == PASSES
    assert gateway.chat(plain(exp=0)).verdict == EXPIRED
    assert gateway.chat(plain(exp=1.5)).verdict == EXPIRED


@pytest.mark.parametrize(
    "claim, offset, expected",
    [
        ("exp", -57, PASSES),
        ("exp", -60, EXPIRED),
        ("exp", -3600, EXPIRED),
        ("nbf", 57, PASSES),
        ("nbf", 63, EARLY),
        ("iat", 57, PASSES),
        ("iat", 63, EARLY),
    ],
)
def test_b2_b3_times_have_60_seconds_of_skew(gateway, plain, claim, offset, expected):
    assert gateway.chat(plain(**{claim: int(time.time()) + offset})).verdict == expected


@pytest.mark.parametrize("value", [2**63 - 1, 2**53], ids=["i64 max", "2^53"])
def test_b3_nbf_far_in_the_future(gateway, plain, value):
    # A date that no calendar has is malformed.
    assert gateway.chat(plain(nbf=value)).verdict in (EARLY, INVALID)


@pytest.mark.parametrize("claim", ["nbf", "iat"])
@pytest.mark.parametrize("value", ["0", True, [], -1], ids=repr)
def test_b1_other_times_are_numbers_too(gateway, plain, claim, value):
    assert gateway.chat(plain(**{claim: value})).verdict == INVALID


@pytest.mark.parametrize(
    "aud, expected",
    [
        (AUDIENCE, PASSES),
        (AUDIENCE + "/", PASSES),
        ([AUDIENCE], PASSES),
        (["x", AUDIENCE], PASSES),
        # What Microsoft's pages on the v1 API ask for (row C1).
        ("https://ai.azure.com", PASSES),
        (AUDIENCE + "//", AUDIENCE_REFUSED),
        (AUDIENCE.upper(), AUDIENCE_REFUSED),
        (AUDIENCE[:-1], AUDIENCE_REFUSED),
        (AUDIENCE + ".evil.example", AUDIENCE_REFUSED),
        (AUDIENCE + " x", AUDIENCE_REFUSED),
        (AUDIENCE.removeprefix("https://"), AUDIENCE_REFUSED),
        ("http" + AUDIENCE.removeprefix("https"), AUDIENCE_REFUSED),
        ("", AUDIENCE_REFUSED),
        ("/", AUDIENCE_REFUSED),
        ([], AUDIENCE_REFUSED),
        ({}, INVALID),
        (1, INVALID),
        ([AUDIENCE, 1], INVALID),
        ([[AUDIENCE]], INVALID),
    ],
    ids=repr,
)
def test_b4_audiences_match_exactly(gateway, stand_ins, aud, expected):
    assert gateway.chat(stand_ins.entra.mint(claims={"aud": aud})).verdict == expected


def test_b4_no_audience(gateway, stand_ins):
    answer = gateway.chat(stand_ins.entra.mint(claims={"aud": None}))
    assert answer.verdict in {AUDIENCE_REFUSED, CLAIM_MISSING}


def v1_issuer(tenant=TENANT):
    return f"https://sts.windows.net/{tenant}/"


@pytest.mark.parametrize(
    "iss, expected",
    [
        (v1_issuer(), PASSES),
        (v1_issuer()[:-1], ISSUER),
        (v1_issuer().upper(), ISSUER),
        (v1_issuer() + "x", ISSUER),
        (v1_issuer(OTHER_TENANT), ISSUER),
        ("https://sts.windows.net/{tenantid}/", ISSUER),
        ("https://sts.windows.net/", ISSUER),
        ("", ISSUER),
        (None, ISSUER),
        ([v1_issuer()], INVALID),
        (1, INVALID),
    ],
    ids=repr,
)
def test_b5_issuers_match_exactly(gateway, stand_ins, iss, expected):
    assert gateway.chat(stand_ins.entra.mint(claims={"iss": iss})).verdict == expected


@pytest.mark.parametrize(
    "app",
    [
        APP_CHAT + "\x00",
        APP_CHAT + "\n",
        f" {APP_CHAT}",
        f"{{{APP_CHAT}}}",
        APP_CHAT.replace("-", ""),
        APP_CHAT.replace("a", "а"),  # Cyrillic
        "chat",
        "x" * 8_000,
        "",
        1,
        [APP_CHAT],
    ],
    ids=lambda value: repr(value)[:24],
)
def test_b6_c9_an_application_is_a_guid(gateway, stand_ins, app):
    assert gateway.chat(stand_ins.entra.mint(claims={"appid": app})).verdict == INVALID


def test_b6_c9_guids_compare_without_case(gateway, stand_ins):
    answer = gateway.echo(stand_ins.entra.mint(claims={"appid": APP_CHAT.upper(), "tid": TENANT.upper()}))
    assert answer.status == 200
    assert ["x-app-id", APP_CHAT] in answer.json["headers"]


@pytest.mark.parametrize("claim", ["oid", "tid"])
@pytest.mark.parametrize("value", ["x\r\nx-app-id: evil", 1, "", [TENANT]], ids=repr)
def test_b6_b8_identities_have_their_form(gateway, stand_ins, claim, value):
    assert gateway.chat(stand_ins.entra.mint(claims={claim: value})).verdict == INVALID


@pytest.mark.parametrize(
    "members",
    [{"uti": 1}, {"idtyp": []}, {"scp": []}, {"roles": "x"}, {"_claim_names": {"groups": "src1"}}, {"jti": 1}],
    ids=repr,
)
def test_b8_odd_types_of_claims_that_decide_nothing(gateway, stand_ins, members):
    assert gateway.chat(stand_ins.entra.mint(claims=members)).verdict == PASSES


# C: Entra ID


@pytest.mark.parametrize(
    "version, members, expected",
    [
        (1, {"azp": APP_OTHER}, PASSES),
        (1, {"azp": APP_BATCH}, CLAIM_VALUE),
        (2, {"appid": APP_OTHER}, PASSES),
        (2, {"appid": APP_BATCH}, CLAIM_VALUE),
        (1, {"appid": None, "azp": APP_OTHER}, CLAIM_MISSING),
        (2, {"azp": None, "appid": APP_OTHER}, CLAIM_MISSING),
        # C6: an ID token names no application.
        (1, {"appid": None}, CLAIM_MISSING),
        (2, {"azp": None, "nonce": "n"}, CLAIM_MISSING),
    ],
    ids=repr,
)
def test_c1_c6_the_application_stands_where_the_version_says(gateway, stand_ins, version, members, expected):
    token = stand_ins.entra.mint(version=version, claims=members)
    assert gateway.chat(token).verdict == expected


@pytest.mark.parametrize(
    "version, ver",
    [(1, None), (1, "3.0"), (1, 1.0), (1, ""), (1, "2.0"), (2, "1.0"), (2, None)],
    ids=repr,
)
def test_c2_ver_agrees_with_iss(gateway, stand_ins, version, ver):
    token = stand_ins.entra.mint(version=version, claims={"ver": ver})
    answer = gateway.chat(token)
    assert answer.status == 401
    assert answer.code in {"JwtInvalid", "TokenIssuerNotAllowed", "TokenClaimNotFound", "TokenClaimValueNotAllowed"}


def test_c3_another_tenant(gateway, stand_ins):
    assert gateway.chat(stand_ins.entra.mint(tenant=OTHER_TENANT)).verdict == ISSUER
    assert gateway.chat(stand_ins.entra.mint(tenant=OTHER_TENANT, version=2)).verdict == ISSUER


@pytest.mark.parametrize("tid, expected", [(OTHER_TENANT, CLAIM_VALUE), (None, CLAIM_MISSING)])
def test_c3_the_tenant_inside(gateway, stand_ins, tid, expected):
    for version in (1, 2):
        token = stand_ins.entra.mint(version=version, claims={"tid": tid})
        assert gateway.chat(token).verdict == expected


def test_c7_a_token_for_another_service(gateway, stand_ins):
    graph = stand_ins.entra.mint(audience="https://graph.microsoft.com")
    assert gateway.chat(graph).verdict == AUDIENCE_REFUSED
    hashed_nonce = stand_ins.entra.mint(header={"nonce": "n"}, key="foreign")
    assert gateway.chat(hashed_nonce).verdict == SIGNATURE


def test_forged_and_unpublished_keys(gateway, stand_ins):
    assert gateway.chat(stand_ins.entra.mint(key="foreign")).verdict == SIGNATURE
    assert gateway.chat(stand_ins.entra.mint(key="unpublished")).verdict == KEY
    assert gateway.chat(stand_ins.entra.mint(key="previous")).verdict == PASSES


def test_a_key_of_one_issuer_never_verifies_for_another(gateway, signers):
    """The Entra tenant's claims, signed by a key that another issuer of the policy trusts."""
    body = claims(v1_issuer(), AUDIENCE, tid=TENANT, appid=APP_OTHER, ver="1.0")
    assert gateway.chat(signers["RS256"].token(body)).verdict == KEY
    # A kid that only the first of two plain issuers has.
    body = claims(RS256_ISSUER, PLAIN_AUDIENCE, app=APP_OTHER)
    assert gateway.chat(signers["RS384"].token(body, {"alg": "RS256"}, "RS256")).verdict == KEY


def test_c8_required_claims(start_gateway, stand_ins):
    policy = shipped_policy(stand_ins)
    policy["issuers"][0]["required_claims"] = [
        {"name": "roles", "values": ["Caller", "Admin"], "match": "any"},
        {"name": "scp", "values": ["a", "b"]},
    ]
    policy["issuers"][0]["audiences"] += [APP_OTHER.upper()]
    gateway = start_gateway(stand_ins, policy)

    def verdict(**members):
        return gateway.chat(stand_ins.entra.mint(claims=members)).verdict

    assert verdict(roles=["Caller"], scp="b a c") == PASSES
    assert verdict(roles="Admin", scp=["a", "b"]) == PASSES
    assert verdict(roles="Admin", scp=["a", "b"], aud=APP_OTHER) == PASSES
    assert verdict(roles=["Caller"]) == CLAIM_MISSING
    assert verdict(roles=["Caller"], scp="a") == CLAIM_VALUE
    assert verdict(roles=["Other"], scp="a b") == CLAIM_VALUE
    # One text is one value, but for scopes.
    assert verdict(roles="Not Admin", scp="a b") == CLAIM_VALUE
    assert verdict(roles=["Caller"], scp="a bb") == CLAIM_VALUE


# G: what is cached


def test_c12_g1_a_known_token_ends_with_its_exp(start_gateway, stand_ins):
    policy = shipped_policy(stand_ins)
    policy["issuers"][0]["clock_skew"] = "1s"
    gateway = start_gateway(stand_ins, policy)
    token = stand_ins.entra.mint(claims={"exp": int(time.time()) + 2})
    assert {gateway.chat(token).status for _ in range(8)} == {200}
    time.sleep(3.2)
    assert {gateway.chat(token).verdict for _ in range(8)} == {EXPIRED}


def test_g1_g4_a_known_token_is_decided_anew_under_a_new_policy(start_gateway, stand_ins):
    gateway = start_gateway(stand_ins, dynamic=True)
    app = new_app()
    token = stand_ins.entra.mint(app)
    assert {gateway.chat(token).status for _ in range(8)} == {200}
    gateway.update(shipped_policy(stand_ins, default_app={"access": "deny"}))
    assert {gateway.chat(token).verdict for _ in range(8)} == {(403, "AppNotAllowed")}
    policy = shipped_policy(stand_ins)
    policy["issuers"][0]["audiences"] = ["https://other.example"]
    gateway.update(policy)
    assert {gateway.chat(token).verdict for _ in range(8)} == {AUDIENCE_REFUSED}


def test_g3_many_tokens(gateway, signers):
    """Good tokens in thousands, and garbage in between: nothing is answered wrongly."""
    signer = signers["ES256"]
    stop = time.monotonic() + 60
    results = []

    def run(offset):
        connection = http.client.HTTPConnection(*gateway.address)
        for number in range(500):
            if time.monotonic() > stop:
                break
            body = claims(PLAIN_ISSUER, PLAIN_AUDIENCE, app=new_app(), n=offset + number)
            token = signer.token(body)
            good = gateway.echo(token, connection=connection)
            bad = gateway.echo(token[:-4] + "AAAA", connection=connection)
            results.append((good.status, bad.code))

    threads = [threading.Thread(target=run, args=(index * 500,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) >= 500
    assert set(results) == {(200, "TokenSignatureInvalid")}
