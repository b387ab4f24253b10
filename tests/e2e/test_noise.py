"""Bytes at random from every side at once: requests, the identity provider's documents, the backend's answers. Nothing
dies, nothing hangs, nothing gets through that should not. R3; row I1.

NOISE_SECONDS says for how long, NOISE_SEED makes the same choices again (it is told when the test fails).
"""

import json
import os
import random
import re
import time
from collections import Counter

import pytest

from .harness import APP_CHAT, APP_OTHER, AUDIENCE, Gateway, new_app, shipped_policy
from .harness.backend import Backend, answer, chunked
from .harness.figures import figure
from .harness.gateway import CHAT_BODY, CHAT_PATH, cluster, set_endpoint
from .harness.load import Request, request, send
from .harness.processes import wait_until
from .harness.tokens import Signer, b64, claims, unb64

SECONDS = float(os.environ.get("NOISE_SECONDS", 3))
LONG = 600
SEED = int(os.environ.get("NOISE_SEED", random.randrange(1 << 32)))
# After so long another gateway goes on, so that no log becomes larger than can be searched.
ROUND = 60
BATCH, CONNECTIONS = 4_000, 64
# Envoy's own refusal of a gRPC request is a 200: what became of those only the backend knows.
GOOD, MAY_PASS, MUST_NOT, GRPC = "good", "may pass", "must not", "grpc"
KINDS = (GOOD, MAY_PASS, MUST_NOT, GRPC)

PROVIDERS = 30
SIGNER, RSA, P384 = Signer("ES256", kid="provider"), Signer("RS256", kid="rsa"), Signer("ES384", kid="p384")
ODD = Signer("ES256", kid="odd")
ODD_ISSUER = "https://odd.example"

pytestmark = [pytest.mark.alone, pytest.mark.timeout(int(SECONDS * 3) + 180)]


# Bytes

NOT_IN_A_LINE = b"\r\n"
PRINTED = bytes([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])
UNPRINTED = re.compile(rb"[^\n\x20-\x7e]")
TOLD_APART = b"\"\\{}[]:,.;=&?#%+/-_ 0129eE\t"


def noise(mix: random.Random, most: int = 60) -> bytes:
    """Bytes for a line: mostly those that Envoy lets in, so that the gate has to read them."""
    size = mix.randrange(most) if mix.random() < 0.95 else mix.randrange(most * 40)
    if mix.random() < 0.8:
        return bytes(mix.choices(PRINTED, k=size))
    lowest = 0 if mix.random() < 0.1 else 1
    return bytes(mix.randrange(lowest, 256) for _ in range(size)).translate(None, NOT_IN_A_LINE)


def mutated(data: bytes, mix: random.Random) -> bytes:
    """With some bytes changed, doubled or dropped."""
    changed = bytearray(data)
    for _ in range(mix.randrange(1, 5)):
        at = mix.randrange(len(changed) + 1)
        what = mix.randrange(6)
        if what == 0:
            changed[at : at + 1] = bytes([mix.randrange(1, 256)])
        elif what == 1:
            changed[at : at + 1] = bytes([mix.choice(TOLD_APART)])
        elif what == 2:
            del changed[at : at + mix.randrange(1, 9)]
        elif what == 3:
            changed[at:at] = changed[at : at + mix.randrange(1, 60)]
        elif what == 4:
            changed[at:at] = bytes([mix.choice(TOLD_APART)]) * mix.choice([1, 2, 300])
        elif mix.random() < 0.2:
            del changed[at:]
    return bytes(changed)


def in_a_line(data: bytes) -> str:
    return data.translate(None, NOT_IN_A_LINE).decode("latin-1")


# What the gate reads of a request

HEADERS = [
    "authorization", "api-key", "ocp-apim-subscription-key", "sec-websocket-protocol", "x-request-id",
    "accept-encoding", "access-control-request-method", "content-type", "content-encoding", "x-app-id", "x-app-name",
    "x-object", "x-http-method-override", "x-http-method", "x-original-url", "x-rewrite-url", "user-agent", "cookie",
    "accept", "x-forwarded-for", "origin", "te", "traceparent", "host",
]  # fmt: skip
METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]
PATHS = [
    CHAT_PATH,
    "/openai/v1/chat/completions",
    "/openai/v1/responses?api-version=preview",
    "/openai/v1/embeddings",
    "/openai/deployments/gpt-4o/images/edits?api-version=2025-04-01-preview",
    "/openai/deployments/whisper/audio/transcriptions?api-version=2024-10-21",
    "/openai/v1/chat/completions/id/messages?api-version=v1&after=x",
    "/openai/v1/./models;x/?api-key=a&&=&x&subscription%2Dkey=%41",
    "/openai/v1/files?x=%2f..//\\;x&=&+api-version=2024-10-21#y",
]
TYPES = [
    "application/json", "application/json; charset=utf-8", "text/event-stream", "multipart/form-data; boundary=x",
    "application/x-www-form-urlencoded", "application/octet-stream", "text/plain; charset=utf-16",
    "application/vnd.api+json", "application/grpc",
]  # fmt: skip
BODIES = [
    CHAT_BODY,
    b'{"model": "gpt-4o", "stream": true, "messages": [{"role": "user", "content": "\\u00e9\\ud83d\\ude00"}]}',
    b'{"stream": true, "stream_options": {"include_usage": false}, "model": "gpt-4o", "max_tokens": 20, "n": 3}',
    b'{"max_completion_tokens": 1e3, "max_output_tokens": 9007199254740993, "model": "gpt-4\\u006f", "input": [[1]]}',
    b'--x\r\ncontent-disposition: form-data; name="model"\r\n\r\ngpt-4o\r\n--x--\r\n',
    b"model=gpt-4o&max_tokens=7&prompt=%00%ff",
]


def odd_token(mix: random.Random) -> str:
    """Signed with a key of the policy, whatever it says."""
    now = claims(ODD_ISSUER, AUDIENCE, appid=new_app(), oid=new_app(), tid=new_app(), roles=["a", "b"], uti="u")
    payload = json.dumps({**now, "ver": "1.0", "name": "Jürgen\r\n"}).encode()
    header = b'{"typ": "JWT", "alg": "ES256", "kid": "odd"}'
    if mix.random() < 0.2:
        header = mutated(header, mix)
    return ODD.token(mutated(payload, mix), header)


def spoilt_token(token: str, mix: random.Random) -> str:
    """With a part that is something else, decoded and encoded again or as it stands."""
    parts = token.split(".")
    at = mix.randrange(3)
    if mix.random() < 0.2:
        parts[at] = in_a_line(mutated(parts[at].encode(), mix))
    else:
        data = unb64(parts[at])
        parts[at] = b64(mix.randbytes(mix.randrange(400)) if mix.random() < 0.2 else mutated(data, mix))
    return ".".join(parts)


class Callers:
    """Makes requests, and knows the tokens that may pass with whatever stands around them."""

    def __init__(self, stand_ins, mix: random.Random):
        self.mix = mix
        self.good = [*stand_ins.entra.mint_many(10, APP_OTHER), *stand_ins.entra.mint_many(10, APP_CHAT)]
        self.may_pass = set(self.good)
        issuers = [issuer(number) for number in range(PROVIDERS)]
        self.provided = [SIGNER.token(claims(name, AUDIENCE, appid=new_app())) for name in issuers]

    def token(self) -> str:
        mix = self.mix
        way = mix.random()
        if way < 0.45:
            return mix.choice(self.good)
        if way < 0.6:
            token = odd_token(mix)
        elif way < 0.7:
            # Good where the provider's key survived in the noise.
            token = mix.choice(self.provided)
        else:
            return spoilt_token(mix.choice(self.good), mix)
        self.may_pass.add(token)
        return token

    def request(self, number: int) -> Request:
        mix = self.mix
        if number % 50 == 0:
            return Request(GOOD, request(mix.choice(self.good)))
        authorization = f"Bearer {self.token()}"
        if mix.random() < 0.2:
            authorization = in_a_line(mutated(authorization.encode("latin-1"), mix))
        kind = MAY_PASS if any(word in self.may_pass for word in authorization.split()) else MUST_NOT
        method, path = mix.choice(METHODS), mix.choice(PATHS)
        if mix.random() < 0.02:
            method = in_a_line(mutated(method.encode(), mix)) or "X"
        if mix.random() < 0.3:
            path = in_a_line(mutated(path.encode(), mix)).replace(" ", "%20") or "/"
        elif mix.random() < 0.1:
            more = noise(mix)
            if mix.random() < 0.5:
                more = b"".join(b"%%%02x" % byte for byte in more)
            path += mix.choice("/?&") + in_a_line(more).replace(" ", "+")
        names = mix.sample(HEADERS, mix.choice([0, 0, 1, 1, 2, 5]))
        lines = [f"{name}: {in_a_line(noise(mix))}" for name in names]
        if "host" not in names:
            lines.append("host: gateway.example.com")
        if "content-type" not in names:
            content_type = mix.choice(TYPES)
            lines.append(f"content-type: {content_type}")
            if content_type == "application/grpc":
                kind = GRPC
        lines += [f"authorization: {authorization}", f"x-noise: {number}"]
        mix.shuffle(lines)
        body = mix.choice(BODIES)
        if mix.random() < 0.7:
            body = mutated(body, mix) if mix.random() < 0.8 else mix.randbytes(mix.randrange(5_000))
        sent = body.decode("latin-1")
        if mix.random() < 0.3:
            lines.append("transfer-encoding: chunked")
            cut = mix.randrange(len(sent) + 1)
            sent = "".join(f"{len(piece):x}\r\n{piece}\r\n" for piece in (sent[:cut], sent[cut:]) if piece)
            sent += "0\r\n\r\n"
        else:
            lines.append(f"content-length: {len(body)}")
        return Request(kind, "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", sent]))


# What answers it

USAGE = b'{"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}'
ANSWER = b'{"choices": [{"message": {"content": "x"}}], "usage": %s}' % USAGE
EVENTS = (
    b'data: {"choices": [{"delta": {"content": "x"}}], "usage": null}\n\n'
    b'event: response.completed\r\ndata: {"response": {"usage": {"input_tokens": 3, "total_tokens": 7}}}\r\n\r\n'
    b'data: {"choices": [], "usage": {"total_tokens": 7, "prompt_tokens_details": {"cached_tokens": 1}}}\n\n'
    b"data: [DONE]\n\n"
)


def backend_answer(received):
    """Good to those who send no noise; else by the request's number, so that a seed repeats it."""
    number = received.header("x-noise")
    if number is None:
        return [answer(ANSWER)]
    mix = random.Random(f"{SEED} backend {number}")
    streams = mix.random() < 0.5
    body = EVENTS if streams else ANSWER
    if mix.random() < 0.8:
        body = mutated(body, mix) if mix.random() < 0.8 else mix.randbytes(mix.randrange(9_000))
    content_type = "text/event-stream" if streams else "application/json"
    if mix.random() < 0.2:
        content_type = mix.choice(TYPES)
    headers = [f"x-told: {in_a_line(noise(mix))}"] if mix.random() < 0.1 else []
    if mix.random() < 0.1:
        headers.append(f"content-encoding: {in_a_line(noise(mix, 9))}")
    if mix.random() < 0.5:
        statuses = ["200 OK", "200 OK", "200 OK", "201 Created", "400 Bad Request", "429 Slow Down", "500 Oh", "599 No"]
        pieces = [answer(body, content_type, mix.choice(statuses), *headers)]
    else:
        cuts = sorted(mix.randrange(len(body) + 1) for _ in range(mix.randrange(6)))
        parts = [body[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(body)])]
        # The load program could take this for the last chunk.
        pieces = chunked([part.replace(b"0\r\n", b"1\r\n") for part in parts], content_type, *headers)
    if mix.random() < 0.03:
        return [*pieces[:-1], pieces[-1][: len(pieces[-1]) // 2], None]
    return pieces


def issuer(number: int) -> str:
    return f"https://noise-{number}.example"


class Provider:
    """Serves metadata and key sets of many issuers, each answer spoilt anew."""

    def __init__(self):
        self.served = 0
        self.backend = Backend(self._answer)

    def _answer(self, received):
        self.served += 1
        mix = random.Random(f"{SEED} provider {self.served}")
        # Where metadata was spoilt, the path of the keys may be anything.
        number, _, document = received.line.split()[1].lstrip("/").partition("/")
        if document == "metadata":
            # Most are good: without the address of its keys a provider is not asked for them.
            good = {"issuer": f"https://noise-{number}.example", "jwks_uri": f"http://provider.example/{number}/keys"}
            spoil = mix.random() < 0.3
        else:
            good = {"keys": [SIGNER.jwk(), P384.jwk(), RSA.jwk(alg="RS256", x5c=["MIIB"])]}
            spoil = mix.random() < 0.9
        body = json.dumps(good).encode()
        if spoil:
            body = mutated(body, mix) if mix.random() < 0.9 else mix.randbytes(mix.randrange(5_000))
        headers = [f"x-told: {in_a_line(noise(mix))}"] if mix.random() < 0.1 else []
        return [answer(body, mix.choice(TYPES), "200 OK", "connection: close", *headers)]



def trusted(number: int) -> dict:
    return {
        "name": f"noise-{number}",
        "issuers": [issuer(number)],
        "openid_config": f"http://provider.example/{number}/metadata",
        "cluster": "provider",
        "audiences": [AUDIENCE],
        "algorithms": ["RS256", "ES256", "ES384"],
        "app_claim": "appid",
        "refresh": {"every": "1s", "at_most_every": "1s", "keep_stale_for": "2s", "timeout": "500ms"},
    }


def policy(stand_ins) -> dict:
    """Under which all that a request can hold is read."""
    odd = {"issuers": [ODD_ISSUER], "jwks": {"keys": [ODD.jwk()]}, "audiences": [AUDIENCE], "app_claim": "appid"}
    odd |= {"algorithms": ["ES256"], "required_claims": [{"name": "roles", "values": ["a", "z"], "match": "any"}]}
    policy = shipped_policy(stand_ins)
    limits = [{"tokens": 10**12, "per": "60s", "reserve": True}, {"calls": 10**9, "per": "day", "count": [200]}]
    headers = {"x-app-id": "app_id", "x-app-name": "app_name", "x-object": "object_id", "x-name": "claim.name"}
    return policy | {
        "issuers": [*policy["issuers"], odd, *(trusted(number) for number in range(PROVIDERS))],
        "apps": [{"app_id": APP_CHAT, "name": "chat", "limits": limits}],
        "default_app": {"deployments": ["gpt-*", "whisper"], "limits": limits},
        "forward": {"headers": headers},
    }


def by_worker(gateway: Gateway) -> Counter:
    """Connections that each worker took so far."""
    found = gateway.stats(r"listener\..*worker_\d+\.downstream_cx_total")
    return Counter({name.split(".")[-2]: count for name, count in found.items()})


def serve_on_both(gateway: Gateway, token: str) -> None:
    before = by_worker(gateway)
    assert len(before) == 2, before

    def served() -> bool:
        assert gateway.chat(token).status == 200
        return len(by_worker(gateway) - before) == 2

    wait_until(served, 20, "both workers served a good call")


def go_through(backend: Backend, may_pass: set[str]) -> None:
    """Holds what the backend received to what may reach it, and forgets it."""
    received, backend.received[:] = backend.received[:], []
    for one in received:
        words = (one.header("authorization") or "").split()
        assert any(word in may_pass for word in words) or one.line.split()[1].partition("?")[0] == "/status", one.line


def run(gateway: Gateway, backend: Backend, callers: Callers, seconds: float, first: int) -> Counter:
    """Sends noise for so long; by kind and answer, how often it came."""
    seen = Counter()
    end = time.monotonic() + seconds
    while time.monotonic() < end or not seen:
        batch = [callers.request(first + at) for at in range(BATCH)]
        first += BATCH
        # Many connections: some callers wait for keys that never come.
        report = send(gateway, batch, count=len(batch), connections=CONNECTIONS)
        for kind in KINDS:
            seen.update({(kind, reply): count for reply, count in report.of(kind).items()})
        go_through(backend, callers.may_pass)
        # The odd ones are not sent again.
        callers.may_pass = {*callers.good, *callers.provided}
    return seen


def test_i1_r3_noise_from_every_side(stand_ins, directory):
    print(f"NOISE_SEED={SEED}")
    callers = Callers(stand_ins, random.Random(SEED))
    provider = Provider()
    seen, decided = Counter(), 0

    with Backend(backend_answer) as backend:

        def edit(config):
            set_endpoint(config, "azure_openai", backend.address)
            added = json.loads(json.dumps(cluster(config, "entra")))
            added["name"] = added["load_assignment"]["cluster_name"] = "provider"
            # So many issuers at once are more than the shipped breakers are for.
            del added["circuit_breakers"]
            config["static_resources"]["clusters"].append(added)
            set_endpoint(config, "provider", provider.backend.address)

        left = SECONDS
        while left > 0:
            with Gateway(directory / f"envoy-{left:.0f}", stand_ins, policy(stand_ins), edit=edit) as gateway:
                wait_until(lambda: gateway.chat(callers.good[0]).status == 200, 20, "the keys are there")
                seen += run(gateway, backend, callers, min(ROUND, left), seen.total())
                wait_until(lambda: gateway.stat("cluster.azure_openai.upstream_rq_active") == 0, 10, "none is open")
                serve_on_both(gateway, callers.good[0])
                decided += sum(gateway.prometheus("tollgate_requests").values())
            assert not UNPRINTED.search(gateway.log.read_bytes())
            # Searched by now.
            if SECONDS > ROUND:
                gateway.log.unlink()
                gateway.access.unlink()
            left -= ROUND
    provider.backend.close()

    kinds = {kind: Counter({reply: n for (of, reply), n in seen.items() if of == kind}) for kind in KINDS}
    assert set(kinds[GOOD]) == {"200"}, kinds[GOOD]
    assert not [reply for reply in kinds[MUST_NOT] if reply.startswith("2")], kinds[MUST_NOT]
    assert any(reply.startswith("2") for reply in kinds[MAY_PASS])
    assert decided > seen.total() / 2, f"Envoy itself refused most of {seen.total()}"
    assert provider.served > SECONDS * 5
    told = f"{seen.total()} requests in {SECONDS:.0f} s, {decided} seen by the module, {provider.served} documents of "
    told += "the provider: 0 dead workers, 0 open requests, 0 through that should not"
    figure("R3", "random bytes in headers, paths, tokens, bodies, key sets and answers", told, SECONDS >= LONG)
