"""Thousands of wrong signatures of every kind, put to the verification that production uses: the host's own for RS and
ES, the module's for PS. R1; rows A15, A16, G2.

5,000 changed tokens, and with THOROUGH=1 ten times as many.
"""

import json
import os
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from .harness import APP_CHAT, APP_OTHER, Gateway, shipped_policy
from .harness.figures import figure
from .harness.load import Request, request, send
from .harness.tokens import Signer, b64, unb64

ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384"]
EACH = (50_000 if os.environ.get("THOROUGH") else 5_000) // len(ALGORITHMS)
SEED = int(os.environ.get("SEED", random.randrange(1 << 32)))
# So many of an algorithm's tokens have to come as far as the verification.
MOST_REACH_IT = 0.6

SIGNATURE = {"TokenSignatureInvalid"}
INVALID = {"JwtInvalid"}
# What a changed header or payload may be refused for, before its signature is looked at or because of it.
FORM = {"JwtInvalid", "TokenSignatureInvalid", "TokenSignatureKeyNotFound"}
CONTENT = {"JwtInvalid", "TokenSignatureInvalid", "TokenIssuerNotAllowed"}

pytestmark = pytest.mark.timeout(900)


@dataclass
class Material:
    """What changed tokens of one algorithm are made of: good tokens, and keys that are not the issuer's."""

    good: list[str]
    foreign: list[str]
    others: list[str]
    key: Signer


def flipped(data: bytes, mix: random.Random, bits: int = 1) -> bytes:
    changed = bytearray(data)
    for bit in mix.sample(range(len(data) * 8), bits):
        changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def signed_anew(change: Callable[[bytes, bytes, Material, random.Random], bytes]):
    """A change of a good token's signature, which also knows what is signed."""

    def changed(material: Material, mix: random.Random) -> str:
        signed, _, signature = mix.choice(material.good).rpartition(".")
        return f"{signed}.{b64(change(unb64(signature), signed.encode(), material, mix))}"

    return changed


def part_changed(part: int, change: Callable[[bytes, random.Random], bytes]):
    """A change of what a good token's header or payload decodes to."""

    def changed(material: Material, mix: random.Random) -> str:
        parts = mix.choice(material.good).split(".")
        parts[part] = b64(change(unb64(parts[part]), mix))
        return ".".join(parts)

    return changed


def exchanged(material: Material, mix: random.Random) -> str:
    """Parts of two good tokens, of one algorithm or of two, that do not belong together."""
    one, other = mix.sample(material.good, 2)
    if mix.random() < 0.5:
        other = mix.choice(material.others)
    one, other = one.split("."), other.split(".")
    parts = [one[0], other[1], one[2]] if mix.random() < 0.5 else [other[0], other[1], one[2]]
    return ".".join(parts)


def reordered(material: Material, mix: random.Random) -> str:
    parts = mix.choice(material.good).split(".")
    order = mix.choice([(0, 2, 1), (1, 0, 2), (2, 0, 1), (2, 1, 0), (1, 2, 0), (0, 0, 2), (0, 1, 1), (0, 1, 0)])
    return ".".join(parts[at] for at in order)


def in_base64(material: Material, mix: random.Random) -> str:
    """One character of a part is another, or none of the alphabet, or stands there once more or not at all."""
    parts = mix.choice(material.good).split(".")
    at = mix.randrange(3)
    where = mix.randrange(len(parts[at]))
    new = mix.choice(["", "=", "+", "/", "A", "_", "%2E", parts[at][where] * 2])
    text = parts[at][:where] + new + parts[at][where + 1 :]
    # The same character again would change nothing.
    parts[at] = text if text != parts[at] else text[:-1]
    return ".".join(parts)


def another_application(payload: bytes, _: random.Random) -> bytes:
    return json.dumps({**json.loads(payload), "appid": APP_CHAT}, separators=(",", ":")).encode()


def longer_life(payload: bytes, mix: random.Random) -> bytes:
    document = json.loads(payload)
    return json.dumps({**document, "exp": document["exp"] + mix.randrange(1, 1 << 20)}).encode()


def same_meaning(part: bytes, mix: random.Random) -> bytes:
    """The same JSON with other spaces."""
    return part.replace(b",", b"," + b" " * mix.randrange(1, 30), 1)


def byte_changed(part: bytes, mix: random.Random) -> bytes:
    at = mix.randrange(len(part))
    return part[:at] + bytes([part[at] ^ mix.randrange(1, 256)]) + part[at + 1 :]


def padded(signature: bytes, mix: random.Random) -> bytes:
    more = mix.choice([bytes(mix.randrange(1, 9)), mix.randbytes(mix.randrange(1, 300)), signature])
    return signature + more if mix.random() < 0.5 else more + signature


# How often, what it does, and what it may be refused for.
CHANGES = {
    "one-bit": (6, signed_anew(lambda signature, _, __, mix: flipped(signature, mix)), SIGNATURE),
    "some-bits": (
        2, signed_anew(lambda signature, _, __, mix: flipped(signature, mix, mix.randrange(2, 64))), SIGNATURE,
    ),
    "cut": (2, signed_anew(lambda signature, _, __, mix: signature[: mix.randrange(1, len(signature))]), SIGNATURE),
    "cut-in-front": (
        1, signed_anew(lambda signature, _, __, mix: signature[mix.randrange(1, len(signature)) :]), SIGNATURE,
    ),
    "longer": (2, signed_anew(lambda signature, _, __, mix: padded(signature, mix)), SIGNATURE),
    "empty": (1, signed_anew(lambda *_: b""), INVALID),
    "random": (1, signed_anew(lambda signature, _, __, mix: mix.randbytes(len(signature))), SIGNATURE),
    "one-byte-over-and-over": (
        1, signed_anew(lambda signature, _, __, mix: bytes([mix.choice([0, 1, 255])]) * len(signature)), SIGNATURE,
    ),
    "halves-exchanged": (
        1, signed_anew(lambda signature, *_: signature[(half := len(signature) // 2) :] + signature[:half]), SIGNATURE,
    ),
    "of-another-token": (
        2,
        lambda material, mix: ".".join(a.rpartition(".")[at] for a, at in zip(mix.sample(material.good, 2), (0, 2))),
        SIGNATURE,
    ),
    "of-another-algorithm": (
        1, signed_anew(lambda _, __, material, mix: unb64(mix.choice(material.others).rpartition(".")[2])), SIGNATURE,
    ),
    "of-another-key": (1, signed_anew(lambda _, signed, material, __: material.key.signature(signed)), SIGNATURE),
    "foreign": (1, lambda material, mix: mix.choice(material.foreign), SIGNATURE),
    "exchanged": (2, exchanged, FORM),
    "reordered": (1, reordered, FORM | CONTENT),
    "base64": (2, in_base64, FORM | CONTENT),
    "header-bit": (1, part_changed(0, flipped), FORM),
    "header-byte": (1, part_changed(0, byte_changed), FORM),
    "header-spaces": (1, part_changed(0, same_meaning), SIGNATURE),
    "payload-bit": (2, part_changed(1, flipped), CONTENT),
    "payload-byte": (1, part_changed(1, byte_changed), CONTENT),
    "payload-spaces": (1, part_changed(1, same_meaning), SIGNATURE),
    "another-application": (1, part_changed(1, another_application), SIGNATURE),
    "longer-life": (1, part_changed(1, longer_life), SIGNATURE),
}
# Between them, to be found in the caches of both workers.
GOOD = "good"


@pytest.fixture(scope="module")
def gateway(stand_ins, module_directory):
    policy = shipped_policy(stand_ins, apps=[])
    policy["issuers"][0]["algorithms"] = ALGORITHMS
    with Gateway(module_directory, stand_ins, policy) as running:
        yield running


@pytest.fixture(scope="module")
def minted(stand_ins):
    return {alg: stand_ins.entra.mint_many(40, alg=alg) for alg in ALGORITHMS}


@pytest.fixture(scope="module")
def seen():
    """By algorithm: tokens sent, and those whose signature was looked at."""
    seen: dict[str, Counter] = {}
    yield seen
    total = sum(seen.values(), Counter())
    told = f"{total['sent']} of {len(seen)} algorithms: {total['passed']} accepted"
    told += f", {total['verified']} refused for their signature"
    met = len(seen) == len(ALGORITHMS) and not total["passed"] and total["sent"] >= 50_000
    figure("R1", "changed tokens through Envoy, verified by the host where it can", told, met)


def test_the_host_verifies(gateway):
    """What follows says nothing of the host's verification otherwise."""
    assert "signatures verified by the host: RS256 RS384 RS512 " in gateway.log_text()


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_r1_no_changed_token_passes(gateway, stand_ins, minted, seen, alg):
    mix = random.Random(f"{SEED} {alg}")
    others = [token for other, tokens in minted.items() if other != alg for token in tokens]
    foreign = stand_ins.entra.mint_many(40, APP_OTHER, alg=alg, key="foreign")
    material = Material(minted[alg], foreign, others, Signer(alg))

    def goods() -> list[Request]:
        return [Request(GOOD, request(token)) for token in material.good]

    assert send(gateway, goods(), count=len(material.good)).of(GOOD) == {"200": len(material.good)}
    turns = [name for name, (share, _, _) in CHANGES.items() for _ in range(share)]
    names = [turns[at % len(turns)] for at in range(EACH)]
    changed = [Request(name, request(CHANGES[name][1](material, mix))) for name in names]
    mixed = changed + goods()
    mix.shuffle(mixed)
    report = send(gateway, mixed, count=len(mixed))

    assert report.of(GOOD) == {"200": len(material.good)}
    answers = sum((report.of(name) for name in CHANGES), Counter())
    seen[alg] = Counter(
        sent=answers.total(),
        passed=sum(count for answer, count in answers.items() if not answer.startswith("401 ")),
        verified=answers["401 TokenSignatureInvalid"],
    )
    for name, (_, _, codes) in CHANGES.items():
        came = report.of(name)
        assert came and set(came) <= {f"401 {code}" for code in codes}, f"SEED={SEED} {alg} {name}: {came}"
    assert answers.total() == EACH
    assert seen[alg]["verified"] >= MOST_REACH_IT * EACH, f"SEED={SEED} {alg}: {answers}"
    assert send(gateway, goods(), count=len(material.good)).of(GOOD) == {"200": len(material.good)}
