"""`make demo`: what the gate does, told step by step and checked.

Each step shows the request as curl would send it, the answer, and the reason. The exit status is 0
only when every answer was the expected one.
"""

import json
import sys
import textwrap
import time

from e2e.harness import APP_BATCH, APP_CHAT, APP_WRITER, Answer, Gateway, PortTaken, StandIns
from e2e.harness.gateway import CHAT_BODY, CHAT_PATH, JSON_TYPE
from e2e.harness.identities import OTHER_TENANT
from e2e.harness.processes import ROOT, exit_on_signals, wait_until
from e2e.harness.stand_ins import FIXED_PORTS

WIDTH = 96


class Story:
    """Prints steps and remembers what went differently."""

    def __init__(self, gateway: Gateway):
        self.gateway = gateway
        self.steps = 0
        self.surprises: list[str] = []

    def chapter(self, title: str) -> None:
        print(f"\n== {title}")

    def say(self, text: str) -> None:
        print(textwrap.fill(text, WIDTH, initial_indent="   ", subsequent_indent="   "))

    def check(self, holds: bool, what: str) -> None:
        if not holds:
            self.surprises.append(what)
            print(f"   UNEXPECTED: {what}")

    def ask(
        self,
        what: str,
        expected: tuple[int, str | None],
        why: str,
        token: tuple[str, str] | None = None,
        headers: list[tuple[str, str]] | None = None,
        path: str = CHAT_PATH,
        body: dict | str | None = None,
    ) -> Answer:
        """One request. `token` is a name to show and the token itself; `body` stands for $CHAT."""
        self.steps += 1
        print(f"\n{self.steps:2}. {what}")
        shown = [f"{name}: {value}" for name, value in headers or []]
        if token:
            shown.append(f"authorization: Bearer ${token[0]}")
        posts = path == CHAT_PATH or body is not None
        if posts:
            shown.append("content-type: application/json")
        options = "".join(f" \\\n       -H '{line}'".replace("'", '"' if "$" in line else "'") for line in shown)
        text = body if isinstance(body, str) else json.dumps(body)
        sent = CHAT_BODY if body is None else text.encode()
        data = "" if not posts else ' -d "$CHAT"' if body is None else f" \\\n       -d '{sent.decode()}'"
        print(f"    $ curl '{self.gateway.url}{path}'{data}{options}")
        secret = token[1] if token else None
        if posts:
            all_headers = [JSON_TYPE, *(headers or [])]
            answer = self.gateway.request("POST", path, token=secret, headers=all_headers, body=sent)
        else:
            answer = self.gateway.request("GET", path, token=secret, headers=headers or [])
        print(f"    {describe(answer)}")
        print(textwrap.fill(f"why: {why}", WIDTH, initial_indent="    ", subsequent_indent="         "))
        self.check(answer.verdict == expected, f"step {self.steps}: {answer.verdict}, not {expected}")
        return answer


def describe(answer: Answer) -> str:
    parts = [f"HTTP {answer.status}"]
    if answer.code:
        parts.append(answer.code)
        parts.append(json.dumps(answer.json["error"]["message"], ensure_ascii=False))
    if wait := answer.header("retry-after"):
        parts.append(f"(retry-after: {wait})")
    return "  ".join(parts)


def provider_down(story: Story, stand_ins: StandIns) -> None:
    story.chapter("Entra ID is down while the gateway starts")
    token = ("TOKEN", stand_ins.entra.mint(APP_CHAT))
    answer = story.ask(
        "A good token, but no keys to check it with",
        (503, "KeysUnavailable"),
        "the fault is not the caller's: never 401, and the answer says when to try again",
        token,
    )
    story.check(answer.header("retry-after") is not None, "no retry-after")
    stand_ins.entra.behave("all", "ok")
    started = time.monotonic()
    while story.gateway.chat(token[1]).status != 200 and time.monotonic() < started + 10:
        time.sleep(0.1)
    story.say(f"Entra ID is back; {time.monotonic() - started:.1f} s later:")
    story.ask("The same token", (200, None), "the keys were fetched in the background", token)


def allowed(story: Story, stand_ins: StandIns) -> None:
    story.chapter("Who may call")
    token = ("TOKEN", stand_ins.entra.mint(APP_CHAT))
    answer = story.ask(
        "A good token; the path shows what the backend received",
        (200, None),
        "signature, issuer, audience, tenant and time are right; the backend learns who calls",
        token,
        path="/openai/echo",
    )
    received = dict(answer.json["headers"]) if answer.status == 200 else {}
    for name in ("x-app-id", "x-app-name"):
        story.say(f"backend received {name}: {received.get(name)}")
    story.check(received.get("x-app-id") == APP_CHAT, "the backend did not learn the application")
    story.check(received.get("authorization") == f"Bearer {token[1]}", "the token was not forwarded")
    answer = story.ask(
        "The same, and a caller who says to be somebody else",
        (200, None),
        "identity headers from outside are removed first",
        token,
        [("x-app-id", "somebody-else")],
        path="/openai/echo",
    )
    story.check(dict(answer.json["headers"]).get("x-app-id") == APP_CHAT, "the identity was spoofed")


def api_keys(story: Story, stand_ins: StandIns) -> None:
    story.chapter("API keys")
    key = [("api-key", "0123456789abcdef")]
    why = "a key says nothing about who calls, so it is refused in a header and in the query"
    denied = (403, "AuthenticationTypeDisabled")
    story.ask("An API key", denied, why, headers=key)
    token = ("TOKEN", stand_ins.entra.mint(APP_CHAT))
    story.ask("An API key beside a good token", denied, why, token, key)
    story.ask("An API key in the query", denied, why, path="/openai/models?api-key=0123456789abcdef")


def bad_tokens(story: Story, stand_ins: StandIns) -> None:
    story.chapter("Tokens that do not pass")
    story.ask("No token", (401, "TokenNotPresent"), "a token is needed")
    hour_ago = int(time.time()) - 3600
    cases = [
        ("An expired token", "TokenExpired", {"claims": {"exp": hour_ago}}, "its time has passed"),
        (
            "A forged token",
            "TokenSignatureInvalid",
            {"key": "foreign"},
            "it names Entra's key, but another one signed it",
        ),
        (
            "A token that names no algorithm",
            "JwtInvalid",
            {"alg": "none"},
            "only the algorithms of the policy count: RS256",
        ),
        (
            "A token for another service",
            "TokenAudienceNotAllowed",
            {"audience": "https://graph.microsoft.com"},
            "it was issued for Microsoft Graph",
        ),
        (
            "A token of another tenant",
            "TokenIssuerNotAllowed",
            {"tenant": OTHER_TENANT},
            "the policy trusts one tenant",
        ),
    ]
    for what, code, options, why in cases:
        token = stand_ins.entra.mint(APP_CHAT, **options)
        story.ask(what, (401, code), why, ("BAD_TOKEN", token))


def rotation(story: Story, stand_ins: StandIns) -> None:
    story.chapter("New signing keys")
    time.sleep(1.1)  # at_most_every in the policy
    stand_ins.entra.rotate(keep_old=True)
    story.say("Entra ID signs with a new key from now on.")
    started = time.monotonic()
    token = ("NEW_TOKEN", stand_ins.entra.mint(APP_CHAT))
    story.ask(
        "A token signed with the new key",
        (200, None),
        "an unknown key id makes the gateway ask for the keys once, while the request waits",
        token,
    )
    story.say(f"That took {(time.monotonic() - started) * 1000:.0f} ms.")


def limits(story: Story, stand_ins: StandIns) -> None:
    story.chapter('Limits: "batch" has 3 calls a minute, "chat" has 100')
    batch = ("BATCH_TOKEN", stand_ins.entra.mint(APP_BATCH))
    for number in range(1, 4):
        story.ask(f"batch, call {number}", (200, None), f"{3 - number} left", batch)
    answer = story.ask(
        "batch, call 4",
        (429, "RateLimitExceeded"),
        "the limit is reached, counted over all workers; the answer says when there is room again",
        batch,
    )
    story.check(1 <= int(answer.header("retry-after") or 0) <= 61, "no useful retry-after")
    chat = ("TOKEN", stand_ins.entra.mint(APP_CHAT))
    story.ask("chat goes on", (200, None), "each application has counters of its own", chat)


HELLO = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 20}
V1_CHAT = "/openai/v1/chat/completions"


def permissions(story: Story, stand_ins: StandIns) -> None:
    story.chapter('Permissions: "writer" has the role Cognitive Services OpenAI User, and gpt-4o only')
    writer = ("WRITER_TOKEN", stand_ins.entra.mint(APP_WRITER))
    why = "the role grants chat, and the deployment is one of the application's"
    story.ask("A chat completion", (200, None), why, writer, body=HELLO)
    answer = story.ask(
        "A file upload",
        (403, "PermissionDenied"),
        "the role grants no files/write; the answer names the data action that is missing, as Azure does",
        writer,
        path="/openai/v1/files",
        body={"purpose": "fine-tune"},
    )
    story.check("OpenAI/files/write" in answer.json["error"]["message"], "the data action is not named")
    why = "gpt-4 is none of the application's deployments"
    denied = (403, "DeploymentNotAllowed")
    story.ask(
        "Another deployment, in the path", denied, why, writer, path=CHAT_PATH.replace("gpt-4o", "gpt-4"), body=HELLO
    )
    story.ask(
        "Another deployment, in the body of a v1 request",
        denied,
        why + ": the model is read from the body as it streams by",
        writer,
        path=V1_CHAT,
        body={**HELLO, "model": "gpt-4"},
    )
    story.ask(
        "Two models in one body",
        denied,
        "the gateway and the backend could read two different ones",
        writer,
        path=V1_CHAT,
        body='{"model":"gpt-4o","messages":[],"model":"gpt-4"}',
    )


def tokens(story: Story, stand_ins: StandIns) -> None:
    story.chapter('Tokens: "writer" has 100 in 5 seconds, of which a call holds what it may use')
    writer = ("WRITER_TOKEN", stand_ins.entra.mint(APP_WRITER))
    time.sleep(5.2)  # What the last chapter used.
    used = 0
    for what, more in (("A plain answer", {}), ("A streamed answer, whose caller asks for no usage", {"stream": True})):
        before = len(story.gateway.request_log())
        why = "what it used is read from the answer as it passes"
        answer = story.ask(what, (200, None), why, writer, body={**HELLO, **more})
        lines = wait_until(lambda: story.gateway.request_log()[before:], 5, "the request's line")
        total = lines[0]["total_tokens"] or 0
        said = {name: lines[0][name] for name in ("stream", "prompt_tokens", "completion_tokens", "total_tokens")}
        story.say(f"The request log says {json.dumps(said)}.")
        story.check(total > 10, f"step {story.steps}: no tokens are told")
        if more:
            story.check(lines[0]["stream"] is True, "the stream is not told")
            hidden = b'"choices":[],"usage"' not in answer.body
            story.check(hidden, "the caller sees an event that it did not ask for")
            story.say("The gateway asked for the usage, and took the extra event out of the stream.")
        used += total
    passed = 0
    while story.gateway.request(
        "POST", CHAT_PATH, token=writer[1], headers=[JSON_TYPE], body=json.dumps(HELLO).encode()
    ).status == 200 and passed < 10:
        passed += 1
    story.say(f"{passed} more calls pass.")
    answer = story.ask(
        "One more",
        (429, "TokenLimitExceeded"),
        "the prompt and max_tokens do not fit in what is left",
        writer,
        body=HELLO,
    )
    for name in ("limit", "remaining", "reset"):
        value = answer.header(f"x-ratelimit-{name}-tokens")
        story.say(f"x-ratelimit-{name}-tokens: {value}")
        story.check(value is not None, f"no x-ratelimit-{name}-tokens")
    millis = int(answer.header("retry-after-ms") or 0)
    story.check(0 < millis <= 5_100, "no useful retry-after-ms")
    time.sleep(millis / 1000 + 0.05)
    story.say(f"{millis} ms later, as retry-after-ms said:")
    story.ask("The same call", (200, None), "the window has moved on", writer, body=HELLO)
    answer = story.ask(
        "A call that may use more than the limit at all",
        (413, "CallExceedsLimit"),
        "waiting would not help, and no SDK tries a 413 again",
        writer,
        body={**HELLO, "max_tokens": 1000},
    )
    story.check(answer.header("retry-after") is None, "a useless retry-after")


def told(story: Story) -> None:
    story.chapter("What the gateway told about it")
    story.say("The last line of the request log:")
    lines = story.gateway.request_log()
    print(f"   {json.dumps(lines[-1]) if lines else 'nothing'}")
    story.check(bool(lines) and lines[-1].get("app_name") == "writer", "the request log is silent")
    story.say("Requests by application and outcome, as Prometheus sees them:")
    deadline = time.monotonic() + 5
    while not (series := story.gateway.prometheus("tollgate_requests")) and time.monotonic() < deadline:
        time.sleep(0.1)
    for labels, count in sorted(series.items(), key=lambda item: sorted(item[0])):
        print(f"   tollgate_requests{{{','.join(sorted(labels))}}} {count}")
    story.check(bool(series), "no metrics")
    story.say("Tokens by application, read from the answers:")
    for labels, count in sorted(story.gateway.prometheus("tollgate_tokens").items(), key=lambda item: sorted(item[0])):
        print(f"   tollgate_tokens{{{','.join(sorted(labels))}}} {count}")


def tell(story: Story, stand_ins: StandIns) -> None:
    """Everything, of a gateway that was started while Entra ID was down."""
    provider_down(story, stand_ins)
    allowed(story, stand_ins)
    api_keys(story, stand_ins)
    bad_tokens(story, stand_ins)
    rotation(story, stand_ins)
    limits(story, stand_ins)
    permissions(story, stand_ins)
    tokens(story, stand_ins)
    told(story)


def main() -> int:
    exit_on_signals()
    directory = ROOT / "target" / "demo"
    print("Envoy with Tollgate, and stand-ins for Entra ID and Azure OpenAI, all on this machine.")
    print(f"CHAT='{CHAT_BODY.decode()}'")
    try:
        with StandIns(directory / "stand-ins", FIXED_PORTS) as stand_ins:
            stand_ins.entra.behave("all", "status", status=503)
            gateway = Gateway(directory, stand_ins, fixed=True)
            try:
                story = Story(gateway)
                tell(story, stand_ins)
                story.surprises += gateway.stop()
            finally:
                gateway.kill()
    except PortTaken as taken:
        print(f"demo: {taken}. Is another `make run` or `make demo` running?", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: interrupted", file=sys.stderr)
        return 130
    if story.surprises:
        print("\nThis went differently:")
        for surprise in story.surprises:
            print(f"  {surprise}")
        return 1
    print(f"\nAll {story.steps} steps went as expected.")
    print("For requests of your own: `make run` starts the same again, and prints curl lines with tokens to paste.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
