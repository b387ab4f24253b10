"""The soak's traffic: callers of many kinds, one request in a hundred of each of many kinds of attack, and what has to
be told of every one. What takes a provider, a backend or a configuration that misbehaves is in the tests of faults."""

import json
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from .gateway import CHAT_BODY, CHAT_PATH, shipped_policy
from .http import call
from .load import Report, Request, request
from .secrets import keep_secret
from .stand_ins import StandIns
from .tokens import b64

# Calls of a short window, and its length.
WINDOW_CALLS, WINDOW_SECONDS = 10, 2

APPS = {
    name: f"aaaaaaaa-5555-0000-0000-{number:012}"
    for number, name in enumerate(
        ["plain", "quota", "window", "counted", "reserve", "charged", "reader", "gpt", "closed"]
    )
}
SHARED = "unlisted"

V1 = "/openai/v1/chat/completions"
STREAM = b'{"stream": true, "messages": [{"role": "user", "content": "Hello"}]}'
BOUNDED = b'{"max_tokens": 20, "messages": [{"role": "user", "content": "How are you today?"}]}'
EMBEDDINGS = "/openai/deployments/text-embedding-3-small/embeddings?api-version=2024-10-21"
OTHER_MODEL = b'{"model": "o1", "messages": [{"role": "user", "content": "Hello"}]}'

KEY = keep_secret("5eed5eed0123456789abcdef5eed5eed")

# Refused when its body is there, after its head went on.
MODEL_IN_BODY = "model-in-body"

ALLOWED = ("allowed", "none")


@dataclass
class Kind:
    """Requests that are alike. `told` is what each answer means: application, outcome and code as the metrics
    have them, or None where Envoy refused before the filter saw it."""

    share: int
    make: Callable[[int], str]
    told: dict[str, tuple[str, str, str] | None]
    leave_ms: int | None = None
    # A body that is answered with usage.
    uses: bytes | None = None
    path: str | None = None


class Traffic:
    """A hundred turns, over and over. `turns` says how many there will be: day-long limits are reached after
    about half of them, so that the end shows whether exactly as much passed."""

    CYCLES = 10

    def __init__(self, stand_ins: StandIns, turns: int):
        self.quota, self.counted, self.tokens_limit = turns // 40, turns // 70, turns // 2
        self._mint = stand_ins.entra.mint
        self._tokens = {name: stand_ins.entra.mint_many(self.CYCLES, app) for name, app in APPS.items()}
        self._tokens[SHARED] = stand_ins.entra.mint_many(self.CYCLES, new_clients=True)
        self._stand_ins = stand_ins
        self.callers = self._callers()
        self.kinds = {**self.callers, **self._attacks()}
        assert sum(kind.share for kind in self.kinds.values()) == 100

    def policy(self) -> dict:
        """An application for each thing that can become of a call."""
        limits = {
            "quota": {"calls": self.quota, "per": "24h"},
            "window": {"calls": WINDOW_CALLS, "per": f"{WINDOW_SECONDS}s"},
            "counted": {"calls": self.counted, "per": "24h", "count": [200]},
            "reserve": {"tokens": self.tokens_limit, "per": "24h", "reserve": True},
            "charged": {"tokens": self.tokens_limit, "per": "24h"},
        }
        members = {name: {"limits": [limit]} for name, limit in limits.items()}
        members["reader"] = {"roles": ["Reader"]}
        members["gpt"] = {"deployments": ["gpt-*"]}
        members["closed"] = {"access": "deny"}
        apps = [{"app_id": app, "name": name, **members.get(name, {})} for name, app in APPS.items()]
        reader = {"data_actions": ["Microsoft.CognitiveServices/accounts/OpenAI/*/read"]}
        shared = {"limits": [{"calls": 1_000_000, "per": "24h"}]}
        return shipped_policy(self._stand_ins, apps=apps, roles={"Reader": reader}, default_app=shared)

    def requests(self) -> list[Request]:
        """All turns, mixed: the same mix every time."""
        turns = [name for name, kind in self.kinds.items() for _ in range(kind.share)]
        mix = random.Random(1)
        made = []
        for cycle in range(self.CYCLES):
            mix.shuffle(turns)
            made += [Request(name, self.kinds[name].make(cycle), self.kinds[name].leave_ms) for name in turns]
        return made

    def _call(self, app: str, *headers: str, **options) -> Callable[[int], str]:
        return lambda cycle: request(self._tokens[app][cycle], *headers, **options)

    def _wrong(self, app: str = APPS["plain"], **options) -> Callable[[int], str]:
        tokens = [self._mint(app, **options) for _ in range(self.CYCLES)]
        return lambda cycle: request(tokens[cycle])

    def _callers(self) -> dict[str, Kind]:
        def limited(app: str, code: str) -> dict:
            return {"200": (app, *ALLOWED), f"429 {code}": (app, "limited", code)}

        def allowed(app: str, answer: str = "200") -> dict:
            return {answer: (app, *ALLOWED)}

        def chat(share: int, app: str, told: dict, body: bytes = CHAT_BODY, **options) -> Kind:
            return Kind(share, self._call(app, body=body, **options), told, uses=body, path=options.get("path"))

        calls, tokens = "RateLimitExceeded", "TokenLimitExceeded"
        return {
            "chat": chat(8, "plain", allowed("plain")),
            "stream": chat(6, "plain", allowed("plain"), STREAM),
            "embeddings": chat(4, "plain", allowed("plain"), b'{"input": "Hello"}', path=EMBEDDINGS),
            "v1": chat(3, "gpt", allowed("gpt"), b'{"model": "gpt-4o", "messages": []}', path=V1),
            "models": Kind(3, self._call("reader", method="GET", path="/openai/models", body=""), allowed("reader")),
            "unlisted": chat(5, SHARED, allowed(SHARED)),
            "quota": chat(5, "quota", limited("quota", calls)),
            "window": chat(6, "window", limited("window", calls)),
            "counted": chat(3, "counted", limited("counted", calls)),
            "not-counted": Kind(
                1,
                self._call("counted", "x-stand-in-status: 500"),
                {"500 500": ("counted", *ALLOWED), f"429 {calls}": ("counted", "limited", calls)},
            ),
            "reserve": chat(5, "reserve", limited("reserve", tokens), BOUNDED),
            "charged": chat(4, "charged", limited("charged", tokens), BOUNDED),
            "charged-stream": chat(2, "charged", limited("charged", tokens), STREAM),
            "public": Kind(2, lambda _: request(method="GET", path="/status", body=""), allowed("none")),
        }

    def _attacks(self) -> dict[str, Kind]:
        """One in a hundred each."""
        return {**self._bad_tokens(), **self._keys(), **self._forbidden(), **self._misfortunes()}

    def _bad_tokens(self) -> dict[str, Kind]:
        past = int(time.time()) - 7200
        tokens = self._tokens
        unverified = {
            "no-token": (lambda _: request(), "TokenNotPresent"),
            "garbage": (lambda _: request("garbage.garbage.garbage"), "JwtInvalid"),
            "bytes": (lambda _: request("\x80\xff.\xfe.x"), "JwtInvalid"),
            "brackets": (lambda _: request(f"{b64(b'[' * 9_000)}.{b64(b'{}')}.{b64(b'x' * 256)}"), "JwtInvalid"),
            "large": (self._wrong(claims={"groups": "g" * 17_000}), "JwtInvalid"),
            "alg-none": (self._wrong(alg="none"), "JwtInvalid"),
            "hmac": (self._wrong(alg="HS256-with-public-key"), "JwtInvalid"),
            "two-tokens": (
                lambda cycle: request(tokens["plain"][cycle], f"authorization: Bearer {tokens['gpt'][cycle]}"),
                "JwtInvalid",
            ),
            "two-parts": (lambda cycle: request(tokens["plain"][cycle].rpartition(".")[0]), "JwtInvalid"),
            "encrypted": (lambda cycle: request(tokens["plain"][cycle] + ".e30.e30"), "JwtInvalid"),
            "padded": (lambda cycle: request(tokens["plain"][cycle] + "="), "JwtInvalid"),
            "no-kid": (self._wrong(header={"kid": None}), "JwtInvalid"),
            "critical": (self._wrong(header={"crit": ["exp"], "exp": 1}), "JwtInvalid"),
            "exp-text": (self._wrong(claims={"exp": "soon"}), "JwtInvalid"),
            "basic": (lambda _: request(None, "authorization: Basic dXNlcjpwYXNz"), "TokenNotPresent"),
            "no-application": (self._wrong(claims={"appid": None, "azp": None}), "TokenClaimNotFound"),
            "forged": (self._wrong(key="foreign"), "TokenSignatureInvalid"),
            "own-key": (self._wrong(key="foreign", header={"jku": "https://evil.example/keys"}), "TokenSignatureInvalid"),
            "other-signature": (
                lambda cycle: request(with_signature_of(tokens["plain"][cycle], tokens["gpt"][cycle])),
                "TokenSignatureInvalid",
            ),
            "unknown-kid": (self._wrong(key="unpublished"), "TokenSignatureKeyNotFound"),
            "issuer": (self._wrong(claims={"iss": "https://evil.example/"}), "TokenIssuerNotAllowed"),
            "tenant": (self._wrong(tenant="22222222-2222-3333-4444-555555555555"), "TokenIssuerNotAllowed"),
        }
        # Whose they are is known.
        signed = {
            "expired": (self._wrong(claims={"exp": past}), "TokenExpired"),
            "early": (self._wrong(claims={"nbf": past + 86_400}), "TokenNotYetValid"),
            "audience": (self._wrong(audience="https://graph.microsoft.com"), "TokenAudienceNotAllowed"),
        }
        found = {"none": unverified, "plain": signed}
        return {
            name: refused(make, 401, app, "unauthenticated", code)
            for app, kinds in found.items()
            for name, (make, code) in kinds.items()
        }

    def _keys(self) -> dict[str, Kind]:
        kinds = {
            "key": lambda _: request(None, f"api-key: {KEY}"),
            "key-and-token": self._call("plain", f"Ocp-Apim-Subscription-Key: {KEY}"),
            "key-in-query": lambda _: request(path=f"/openai/models?api-key={KEY}"),
        }
        code = "AuthenticationTypeDisabled"
        return {name: refused(make, 403, "none", "api_key", code) for name, make in kinds.items()}

    def _forbidden(self) -> dict[str, Kind]:
        o1 = "/openai/deployments/o1/chat/completions?api-version=2024-10-21"
        kinds = {
            "operation": ("reader", {}, "PermissionDenied"),
            "traversal": ("reader", {"path": "/openai/models/./../unknown"}, "PermissionDenied"),
            "deployment": ("gpt", {"path": o1}, "DeploymentNotAllowed"),
            "injection": ("reader", {"path": '/openai/models/"},{"'}, "PermissionDenied"),
            MODEL_IN_BODY: ("gpt", {"path": V1, "body": OTHER_MODEL}, "DeploymentNotAllowed"),
            "closed": ("closed", {}, "AppNotAllowed"),
        }
        return {
            name: refused(self._call(app, **options), 403, app, "forbidden", code)
            for name, (app, options, code) in kinds.items()
        }

    def _misfortunes(self) -> dict[str, Kind]:
        passed = ("plain", *ALLOWED)

        def kind(answer: str, *headers: str, told=passed, **options) -> Kind:
            path = options.pop("path", CHAT_PATH)
            return Kind(1, self._call("plain", *headers, path=path), {answer: told}, **options)

        return {
            "spoofed": kind("200", "x-app-id: admin", uses=CHAT_BODY),
            "override": kind("200", "x-http-method-override: DELETE", uses=CHAT_BODY),
            "websocket": kind("403 RequestNotAccepted", "connection: upgrade", "upgrade: websocket", told=None),
            "escaped": kind("400 RequestNotAccepted", told=None, path="/openai%2fmodels"),
            "underscore": kind("400 RequestNotAccepted", "x_app_id: admin", told=None),
            "backend-error": kind("503 503", "x-stand-in-status: 503"),
            "backend-reset": kind("503 BackendUnavailable", "x-stand-in-reset: before-headers"),
            "backend-breaks-off": kind("broken", "x-stand-in-reset: mid-body"),
            "leaves": kind("left", "x-stand-in-delay-ms: 3000", leave_ms=100),
        }

    # What has to be told

    def expected(self, reports: list[Report]) -> Counter:
        """How often each answer of each kind came, by what has to be told of it: application, outcome, code,
        status. Whatever came that should not have is an error here."""
        expected = Counter()
        for name, kind in self.kinds.items():
            for answer, count in total(reports, name).items():
                assert answer in kind.told, (name, answer, count)
                if told := kind.told[answer]:
                    expected[(*told, status_told(answer))] += count
        return expected

    def tokens(self, reports: list[Report]) -> dict[tuple[str, str], int]:
        """The tokens of each application and kind that responses reported, from what the backend says of one call."""
        used = Counter()
        for name, kind in self.kinds.items():
            answered = total(reports, name)
            app = next((told[0] for told in kind.told.values() if told), None)
            if kind.uses is not None:
                for what, tokens in self._usage(kind).items():
                    used[app, what] += answered["200"] * tokens
        return {labels: count for labels, count in used.items() if count}

    def without_usage(self, reports: list[Report]) -> int:
        """How many calls ended without usage, and are estimated."""
        answered = [total(reports, name) for name in self.kinds]
        return sum(answers["broken"] + answers["left"] for answers in answered)

    def _usage(self, kind: Kind) -> dict[str, int]:
        body = json.loads(kind.uses) | {"stream": False}
        path = kind.path or "/openai/deployments/gpt-4o/chat/completions"
        headers = [("content-type", "application/json")]
        answer = call(self._stand_ins.openai.address, "POST", path, headers, json.dumps(body).encode())
        usage = answer.json["usage"]
        return {what: usage.get(f"{what}_tokens", 0) for what in ("prompt", "completion", "total")}


def with_signature_of(token: str, other: str) -> str:
    return ".".join([*token.split(".")[:2], other.split(".")[2]])


def refused(make: Callable[[int], str], status: int, app: str, outcome: str, code: str) -> Kind:
    """Requests that the gate answers."""
    return Kind(1, make, {f"{status} {code}": (app, outcome, code)})


def total(reports: list[Report], kind: str) -> Counter:
    """The answers of one kind in all reports."""
    return sum((report.of(kind) for report in reports), Counter())


def status_told(answer: str) -> int | None:
    """The status that is told of an answer: one that broke off had one, a caller who left saw none."""
    first = answer.split()[0]
    return {"broken": 200, "left": None}.get(first) if not first.isdigit() else int(first)


