"""Tokens signed here, for what no stand-in would mint: odd keys, other algorithms, raw bytes."""

import base64
import json
import time

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from .secrets import keep_secret

HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
CURVES = {"ES256": (ec.SECP256R1(), "P-256", 32), "ES384": (ec.SECP384R1(), "P-384", 48)}


def b64(data: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def number(value: int) -> str:
    return b64(value.to_bytes((value.bit_length() + 7) // 8, "big"))


class Signer:
    """A key pair and its algorithm. `private` is a key that exists already."""

    def __init__(
        self, alg: str = "RS256", kid: str = "key-1", bits: int = 2048, exponent: int = 65537, private=None
    ):
        self.alg, self.kid = alg, kid
        if private is not None:
            self.private = private
        elif alg in CURVES:
            self.private = ec.generate_private_key(CURVES[alg][0])
        else:
            self.private = rsa.generate_private_key(exponent, bits)

    def jwk(self, **members) -> dict:
        """The public key as a JWK; members replaced, added, or removed with None."""
        public = self.private.public_key().public_numbers()
        if self.alg in CURVES:
            _, name, size = CURVES[self.alg]
            point = {axis: b64(getattr(public, axis).to_bytes(size, "big")) for axis in "xy"}
            key = {"kty": "EC", "crv": name, **point}
        else:
            key = {"kty": "RSA", "n": number(public.n), "e": number(public.e)}
        key = {**key, "use": "sig", "kid": self.kid, **members}
        return {name: value for name, value in key.items() if value is not None}

    def signature(self, data: bytes, alg: str | None = None) -> bytes:
        """Signs bytes as RFC 7518 says for an algorithm."""
        alg = alg or self.alg
        digest = HASHES[alg[2:]]
        if alg.startswith("ES"):
            r, s = utils.decode_dss_signature(self.private.sign(data, ec.ECDSA(digest)))
            size = CURVES[alg][2]
            return r.to_bytes(size, "big") + s.to_bytes(size, "big")
        if alg.startswith("PS"):
            scheme = padding.PSS(padding.MGF1(digest), padding.PSS.DIGEST_LENGTH)
        else:
            scheme = padding.PKCS1v15()
        return self.private.sign(data, scheme, digest)

    def raw_rsa(self, block: bytes) -> bytes:
        """The RSA operation alone, over a block that is already padded (or badly padded)."""
        private = self.private.private_numbers()
        modulus = private.public_numbers.n
        size = (modulus.bit_length() + 7) // 8
        return pow(int.from_bytes(block, "big"), private.d, modulus).to_bytes(size, "big")

    def token(self, claims: dict | bytes, header: dict | bytes | None = None, alg: str | None = None) -> str:
        """A token; bytes stand for JSON text that goes in as it is. None removes a header member."""
        alg = alg or self.alg
        if not isinstance(header, bytes):
            members = {"typ": "JWT", "alg": alg, "kid": self.kid, **(header or {})}
            header = json.dumps({name: value for name, value in members.items() if value is not None}).encode()
        if not isinstance(claims, bytes):
            claims = json.dumps(claims).encode()
        signed = f"{b64(header)}.{b64(claims)}"
        return keep_secret(f"{signed}.{b64(self.signature(signed.encode(), alg))}")


def claims(issuer: str, audience: str, **members) -> dict:
    """Claims of a token that is good now; members replaced, added, or removed with None."""
    now = int(time.time())
    all_claims = {
        "iss": issuer,
        "aud": audience,
        "iat": now,
        "nbf": now,
        "exp": now + 3600,
        **members,
    }
    return {name: value for name, value in all_claims.items() if value is not None}
