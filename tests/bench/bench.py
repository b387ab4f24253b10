"""`make bench`: Envoy's CPU per request with the gate, beside Envoy's own filters and no filter at all.

One Envoy with one worker, a listener for each chain, load from another core, the listeners in turn over
several rounds. A row's figure is the median over the rounds; its ratio is taken round by round to the
row it is paired with, so that what the machine does meanwhile falls on both. Prints a table and writes
target/bench.json. `--rounds N`, `--quick`, `--only NAME`.

BASELINE=old.wasm compares with another build of the module instead: each row of COMPARED runs with both modules in the
same Envoy, in turn, and its ratio is taken round by round. Writes target/bench-baseline.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.listeners import STREAMED, Chains  # noqa: E402
from e2e.harness import AUDIENCE, StandIns, call, new_app  # noqa: E402
from e2e.harness.figures import figure  # noqa: E402
from e2e.harness.processes import ROOT, cpu, envoy_binary, exit_on_signals, module, start, stop, wait_until  # noqa: E402

DIRECTORY = ROOT / "target" / "bench"
LOAD = Path(os.environ.get("LOAD", ROOT / "target" / "release" / "load"))
NOTHING = Path(os.environ.get("NOTHING", ROOT / "target/wasm32-wasip1/release/tollgate_bench_nothing.wasm"))
CHAT = "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21"


@dataclass
class Row:
    """What is measured: requests to a listener."""

    name: str
    listener: str
    requests: str
    pair: str | None = None
    # At most this many times its pair.
    budget: float | None = None
    # Or so many microseconds more than it.
    more: float | None = None
    # And so many times its time to the first byte.
    first_byte: float | None = None
    status: int = 200
    count: int = 20_000
    # One alone is answered without waiting for others.
    connections: int = 8
    costs: list[float] = field(default_factory=list)
    first: list[int] = field(default_factory=list)


# The native chain reads no answers, so what is compared with it does not either, unless its name says so.
ROWS = [
    Row("no filter", "none", "warm"),
    Row("Wasm that does nothing", "nothing", "warm", "no filter"),
    Row("native chain, cached", "native-cached", "warm", "no filter"),
    Row("Tollgate, warm", "warm", "warm", "native chain, cached", 1.0),
    Row("Tollgate, warm, usage read", "usage", "warm", "native chain, cached"),
    Row("Tollgate, warm, all filter state", "all-state", "warm", "Tollgate, warm", more=10),
    Row("Tollgate, warm, with the interlock", "interlock", "warm", "Tollgate, warm", more=4),
    Row("Tollgate, warm, request log", "log", "warm", "Tollgate, warm", 1.25),
    Row("Tollgate, warm, usage read, with a body", "body", "chat"),
    Row("Tollgate, warm, limits on tokens", "tokens", "chat", "Tollgate, warm, usage read, with a body"),
    Row("Tollgate, warm, roles and deployments", "roles", "warm", "Tollgate, warm"),
    Row("Tollgate, warm, 1,000 applications", "apps-1000", "warm", "Tollgate, warm", 1.1),
    Row("Tollgate, warm, 10,000 applications", "apps-10000", "warm", "Tollgate, warm", 1.1),
    Row("Tollgate, 10,000 live tokens", "live", "live", "Tollgate, warm", 1.1),
    Row("Tollgate, 50,000 live tokens", "live-50000", "live-50000", "Tollgate, warm", count=50_000),
    Row("native chain, not cached", "native", "cold", "no filter", count=2_000),
    Row("Tollgate, cold", "warm", "cold", "native chain, not cached", 0.85, count=2_000),
    Row("Tollgate, cold, verified in Wasm", "in-wasm", "cold", "Tollgate, warm", more=300, count=2_000),
    Row("Tollgate, forged signature", "warm", "forged", "Tollgate, cold", 1.1, status=401, count=2_000),
    Row("Wasm that denies", "denies", "key", "no filter", status=403),
    Row("Tollgate, API key denied", "warm", "key", "Wasm that denies", 1.3, status=403),
    # What any VM costs is not the module's: the goal is its own time.
    Row("Tollgate, garbage denied", "warm", "garbage", "Wasm that denies", 1.3, more=20, status=401),
    # Envoy alone takes several times as long to read these.
    Row("Wasm that denies, 58 KB", "denies", "garbage-58", "Wasm that denies", status=403, count=4_000),
    Row("Tollgate, garbage of 58 KB", "warm", "garbage-58", "Wasm that denies, 58 KB", 1.3, status=401, count=4_000),
    Row("4 KB answer, no filter", "json-none", "chat"),
    Row("4 KB answer, Tollgate without usage", "json-unread", "chat", "4 KB answer, no filter"),
    Row("4 KB answer, limits on tokens", "json-tokens", "chat", "4 KB answer, Tollgate without usage"),
    Row("200 events, no filter", "events-none", "chat", count=4_000),
    Row("200 events, Tollgate without usage", "events-unread", "chat", "200 events, no filter", count=4_000),
    Row(
        "200 events, limits on tokens",
        "events-tokens",
        "chat",
        "200 events, Tollgate without usage",
        more=200 * 15,
        count=4_000,
    ),
    Row("streamed answer, Tollgate without usage", "streamed-unread", "stream", count=2_000, connections=1),
    Row(
        "streamed answer, limits on tokens",
        "streamed-tokens",
        "stream",
        "streamed answer, Tollgate without usage",
        first_byte=1.1,
        count=2_000,
        connections=1,
    ),
]

# What is compared with a baseline, and how much slower it may be. Policies have only keys that any build knows.
COMPARED = {
    "Tollgate, warm",
    "Tollgate, warm, usage read",
    "Tollgate, warm, limits on tokens",
    "Tollgate, warm, request log",
    "Tollgate, warm, roles and deployments",
    "Tollgate, cold",
    "Tollgate, API key denied",
    "Tollgate, garbage denied",
    "4 KB answer, limits on tokens",
    "200 events, limits on tokens",
}
NO_SLOWER = 1.03
BASELINE_SUFFIX = ", baseline"

WHOLE_BODY = {
    "name": "envoy.filters.http.buffer",
    "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer",
        "max_request_bytes": 65_536,
    },
}
LIMITS = [{"calls": 1_000_000_000, "per": "60s"}]
TOKENS = [*LIMITS, {"tokens": 1_000_000_000_000, "per": "60s"}]
EVENT = {
    "id": "chatcmpl-AbCdEfGhIjKlMnOpQrStUvWxYz",
    "object": "chat.completion.chunk",
    "created": 1_730_000_000,
    "model": "gpt-4o-2024-08-06",
    "choices": [{"index": 0, "delta": {"content": " token"}, "logprobs": None, "finish_reason": None}],
    "usage": None,
}
USAGE = {"prompt_tokens": 9, "completion_tokens": 200, "total_tokens": 209}
JSON_ANSWER = json.dumps({"choices": [{"message": {"content": "A word or two. " * 260}}], "usage": USAGE})
CHAT_BODY = json.dumps({"messages": [{"role": "user", "content": "Hello"}]})
STREAM = json.dumps({"messages": [{"role": "user", "content": "Hello"}], "stream": True})
LAST = {**EVENT, "choices": [], "usage": USAGE}
EVENTS = "".join(f"data: {json.dumps(event)}\n\n" for event in [*[EVENT] * 199, LAST]) + "data: [DONE]\n\n"


def listeners(chains: Chains, app: str, keys: str) -> None:
    """Every chain that a row names."""
    limited = chains.policy(default_app={"limits": LIMITS}, usage={"read": False})

    def gate(name: str, **members) -> list[dict]:
        return chains.tollgate(name, {**limited, **members})

    def others(count: int) -> list[dict]:
        return [{"app_id": new_app(), "limits": LIMITS} for _ in range(count)] + [{"app_id": app, "limits": LIMITS}]

    chains.add("none", [])
    for name in ("nothing", "denies"):
        filters = chains.tollgate(name, {})
        config = filters[0]["typed_config"]["config"]
        config["vm_config"]["code"]["local"]["filename"] = str(NOTHING)
        del config["vm_config"]["capability_restriction_config"]
        if name == "nothing":
            del config["configuration"]
        chains.add(name, filters)
    chains.add("native-cached", chains.native(keys, cache=True))
    chains.add("native", chains.native(keys, cache=False))
    chains.add("warm", gate("warm"))
    chains.add("interlock", [*gate("interlock"), chains.interlock])
    chains.add("usage", gate("usage", usage={"read": True}))
    # A limit on tokens has the body decide, and the route's own response does not wait for it: this filter does.
    chains.add("body", [*gate("body", usage={"read": True}), WHOLE_BODY])
    chains.add("tokens", [*gate("tokens", default_app={"limits": TOKENS}, usage={"read": True}), WHOLE_BODY])
    chains.add("live", gate("live"))
    chains.add("live-50000", gate("live-50000"))
    in_wasm = gate("in-wasm")
    vm = in_wasm[0]["typed_config"]["config"]["vm_config"]
    del vm["capability_restriction_config"]["allowed_capabilities"]["proxy_call_foreign_function"]
    chains.add("in-wasm", in_wasm)
    chains.add("all-state", gate("all-state", log={"requests": False}))
    chains.add("log", gate("log", log={"requests": True, "filter_state": ["app_id"]}))
    narrowed = {"roles": ["Cognitive Services OpenAI User"], "deployments": ["gpt-4o"], "limits": LIMITS}
    chains.add("roles", gate("roles", default_app=narrowed))
    for count in (1_000, 10_000):
        chains.add(f"apps-{count}", gate(f"apps-{count}", apps=others(count)))
    answers = {"json": ("application/json", JSON_ANSWER), "events": ("text/event-stream", EVENTS), "streamed": STREAMED}
    for kind, answer in answers.items():
        whole = [] if answer is STREAMED else [WHOLE_BODY]
        if answer is not STREAMED:
            chains.add(f"{kind}-none", whole, answer)
        chains.add(f"{kind}-unread", [*gate(f"{kind}-unread"), *whole], answer)
        counted = {"default_app": {"limits": TOKENS}, "usage": {"read": True}}
        chains.add(f"{kind}-tokens", [*gate(f"{kind}-tokens", **counted), *whole], answer)


def with_baseline(rows: list[Row], chains: Chains, baseline: Path) -> list[Row]:
    """Pairs each row with the same one on a listener of its own that runs the baseline."""
    paired = []
    for row in rows:
        other = f"{row.listener}-baseline"
        if other not in chains.ports:
            chains.add_again(row.listener, other, baseline)
        against = replace(row, name=row.name + BASELINE_SUFFIX, listener=other, pair=None)
        against = replace(against, budget=None, more=None, first_byte=None, costs=[], first=[])
        own = replace(row, pair=against.name, budget=NO_SLOWER, more=None, first_byte=None, costs=[], first=[])
        paired += [against, own]
    return paired


def is_compared(row: Row) -> bool:
    """Whether its pair is the same row with the baseline."""
    return row.pair == row.name + BASELINE_SUFFIX


def request(token: str | None, *headers: str, body: str = "") -> str:
    lines = [f"POST {CHAT} HTTP/1.1", "host: gateway.example.com", f"content-length: {len(body)}"]
    lines += ["content-type: application/json", "user-agent: AzureOpenAI/Python 1.99.0", "accept: application/json", *headers]
    if token:
        lines.append(f"authorization: Bearer {token}")
    return "\r\n".join([*lines, "", body])


def forge(token: str) -> str:
    flipped = "A" if token[-20] != "A" else "B"
    return token[:-20] + flipped + token[-19:]


class Load:
    """Requests of each kind, and the program that sends them."""

    def __init__(self, stand_ins: StandIns, app: str, rounds: int, live: int):
        cold = max(row.count for row in ROWS if row.requests == "cold")
        # One turn more than there are rounds: the first compiles what a new token needs.
        turns = range(rounds + 1)
        fresh = stand_ins.entra.mint_many(max(cold * len(turns), 5 * live), app)
        self.requests = {
            "warm": [request(stand_ins.entra.mint(app))],
            # Limits on tokens read the body.
            "chat": [request(stand_ins.entra.mint(app), body=CHAT_BODY)],
            "stream": [request(stand_ins.entra.mint(app), body=STREAM)],
            "live": [request(token) for token in fresh[:live]],
            "live-50000": [request(token) for token in fresh[: 5 * live]],
            "key": [request(None, "api-key: 0123456789abcdef0123456789abcdef")],
            "garbage": [request("garbage.garbage.garbage")],
            # What Envoy takes of headers is 60 KiB.
            "garbage-58": [request(f"{'g' * 29_000}.{'g' * 29_000}.{'g' * 22}")],
        }
        for turn in turns:
            mine = fresh[turn * cold : (turn + 1) * cold]
            self.requests[f"cold-{turn}"] = [request(token) for token in mine]
            self.requests[f"forged-{turn}"] = [request(forge(token)) for token in mine]
        for name, requests in self.requests.items():
            (DIRECTORY / f"{name}.json").write_text(json.dumps(requests))

    def send(self, port: int, kind: str, turn: int, count: int, connections: int = 8) -> dict:
        command = ["taskset", "-c", str(LOAD_CORE), *self.command(port, kind, turn, count)]
        command += ["--connections", str(connections)]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    def command(self, port: int, kind: str, turn: int, count: int) -> list[str]:
        name = kind if kind in self.requests else f"{kind}-{turn}"
        requests = str(DIRECTORY / f"{name}.json")
        return [str(LOAD), "--to", f"127.0.0.1:{port}", "--requests", requests, "--count", str(count)]


ENVOY_CORE, LOAD_CORE = 0, (os.cpu_count() or 2) - 1


def start_envoy(config: dict, name: str = "envoy", cores: str = str(ENVOY_CORE), workers: int = 1):
    path, log, admin = (DIRECTORY / f"{name}.{kind}" for kind in ("yaml", "log", "admin"))
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    admin.unlink(missing_ok=True)
    command = ["taskset", "-c", cores, envoy_binary(), "-c", path, "--concurrency", workers]
    command += ["--use-dynamic-base-id", "--admin-address-path", admin]
    command += ["--log-level", "warning", "--component-log-level", "wasm:info"]
    child = start(command, log, stdout=subprocess.DEVNULL)

    def ready():
        if child.poll() is not None:
            sys.exit(f"bench: Envoy did not start:\n{log.read_text()[-4000:]}")
        if not admin.exists() or not admin.read_text().strip():
            return False
        host, _, port = admin.read_text().strip().rpartition(":")
        try:
            return call((host, int(port)), "GET", "/ready").status == 200
        except OSError:
            return False

    wait_until(ready, 120, "Envoy is ready")
    return child


def measure(rows: list[Row], load: Load, ports: dict[str, int], pid: int, rounds: int) -> None:
    for row in rows:  # Keys are there, caches are warm, and all of the module that a row needs is compiled.
        warm_up = row.count if row.requests in ("cold", "forged") else max(300, len(load.requests[row.requests]))
        load.send(ports[row.listener], row.requests, rounds, warm_up)
    for turn in range(rounds):
        # The other way round every other time, so that of two rows that are compared neither always comes first.
        for row in rows if turn % 2 == 0 else reversed(rows):
            before = cpu(pid)
            seen = load.send(ports[row.listener], row.requests, turn, row.count, row.connections)
            row.costs.append((cpu(pid) - before) / row.count / 1000)
            row.first.append(seen["first_byte_us"]["p50"])
            wrong = {status: count for status, count in seen["statuses"].items() if status != str(row.status)}
            if wrong:
                sys.exit(f"bench: {row.name}: answers {wrong} where {row.status} was expected")
        print(f"round {turn + 1} of {rounds}", file=sys.stderr)


def report(rows: list[Row]) -> list[dict]:
    by_name = {row.name: row for row in rows}
    result = []
    print(f"\n{'row':44}{'µs':>8}  {'ratio':>6}  budget")
    for row in rows:
        median = statistics.median(row.costs)
        line = {"row": row.name, "us": round(median, 2), "rounds": [round(cost, 2) for cost in row.costs]}
        text = f"{row.name:44}{median:8.1f}"
        pair = by_name.get(row.pair)
        if pair:
            ratio = statistics.median(one / other for one, other in zip(row.costs, pair.costs))
            more = statistics.median(one - other for one, other in zip(row.costs, pair.costs))
            first = statistics.median(one / other for one, other in zip(row.first, pair.first))
            line |= {"pair": row.pair, "ratio": round(ratio, 3), "more_us": round(more, 2), "first_byte": round(first, 3)}
            text += f"  {ratio:6.2f}  × {row.pair}"
            if is_compared(row):
                each = sorted(one / other for one, other in zip(row.costs, pair.costs))
                line["ratios"] = [round(ratio, 3) for ratio in each]
                text = f"{row.name:44}{median:8.1f}  {ratio:6.3f}  × the baseline, {each[0]:.2f} to {each[-1]:.2f}"
            if row.budget is not None:
                line |= {"budget": row.budget, "met": ratio <= row.budget}
                text += f"; at most {row.budget}: {'met' if ratio <= row.budget else 'MISSED'}"
            if row.more is not None:
                line |= {"budget_more_us": row.more, "met": line.get("met", True) and more <= row.more}
                text += f"; {more:.1f} µs more, at most {row.more}: {'met' if more <= row.more else 'MISSED'}"
            if row.first_byte is not None:
                met = first <= row.first_byte
                line |= {"budget_first_byte": row.first_byte, "met": line.get("met", True) and met}
                text += f"; first byte {first:.2f} ×, at most {row.first_byte}: {'met' if met else 'MISSED'}"
        print(text)
        result.append(line)
        if row.status != 200 and row.budget is not None and not is_compared(row):
            said = f"{median:.1f} µs of Envoy's CPU, {line['ratio']} of {row.pair}, at most {row.budget}"
            said += f"; {line['more_us']} µs more" + (f", at most {row.more}" if row.more else "")
            figure("R7", row.name, said, line["met"])
    return result


def fact(name: str, value: float, unit: str, budget: float | None = None) -> dict:
    """Something measured that has no pair."""
    line = {"row": name, "value": round(value, 2), "unit": unit}
    text = f"{name:44}{value:8.1f}  {unit}"
    if budget is not None:
        line |= {"budget": budget, "met": value <= budget}
        text += f"; at most {budget}: {'met' if value <= budget else 'MISSED'}"
    print(text)
    return line


def grown(load: Load, port: int, pid: int, count: int) -> float:
    """MiB that Envoy's memory grows by over so many requests with a known token."""

    def resident() -> int:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))

    before = resident()
    load.send(port, "warm", 0, count)
    return (resident() - before) / 1024


def shared_counter(stand_ins: StandIns, load: Load, rounds: int, count: int) -> float:
    """CPU of a request where two workers meet at one counter, as a multiple of what it is with one worker."""
    costs: dict[int, list[float]] = {1: [], 2: []}
    envoys = {}
    for workers in costs:
        chains = Chains(stand_ins)
        policy = chains.policy(default_app={"limits": LIMITS}, usage={"read": False})
        chains.add("warm", chains.tollgate("warm", policy))
        cores = f"{ENVOY_CORE},{LOAD_CORE}"
        envoys[workers] = (start_envoy(chains.config(), f"workers-{workers}", cores, workers), chains.ports["warm"])
    try:
        for turn in range(rounds + 1):
            for workers, (envoy, port) in envoys.items():
                before = cpu(envoy.pid)
                commands = [load.command(port, "warm", 0, count // 2)] * 2
                senders = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
                for sender in senders:
                    statuses = json.loads(sender.communicate()[0])["statuses"]
                    if set(statuses) != {"200"}:
                        sys.exit(f"bench: {workers} workers: answers {statuses}")
                if turn > 0:  # The first compiles.
                    costs[workers].append((cpu(envoy.pid) - before) / count / 1000)
    finally:
        for envoy, _ in envoys.values():
            stop(envoy)
    return statistics.median(two / one for one, two in zip(costs[1], costs[2]))


def ready_after_keys(stand_ins: StandIns, token: str) -> float:
    """Milliseconds from the first answer with keys to the first request that is served, of a cold start."""
    delay = 0.5
    stand_ins.entra.behave("keys", "delay", delay_ms=int(delay * 1000))
    try:
        asked = stand_ins.entra.stats()["keys"]
        chains = Chains(stand_ins)
        chains.add("start", chains.tollgate("start", chains.policy()))
        envoy = start_envoy(chains.config(), "start")
        try:
            wait_until(lambda: stand_ins.entra.stats()["keys"] > asked, 20, "the keys are asked for", every=0.005)
            answered = time.monotonic() + delay
            status = call(("127.0.0.1", chains.ports["start"]), "POST", CHAT, [("authorization", f"Bearer {token}")]).status
            if status != 200:
                sys.exit(f"bench: a start: answer {status}")
            return max(0.0, time.monotonic() - answered) * 1000
        finally:
            stop(envoy)
    finally:
        stand_ins.entra.behave("keys", "ok")


def main() -> int:
    exit_on_signals()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="a quarter of the requests")
    parser.add_argument("--only", action="append", default=[], help="rows whose name holds this, and their pairs")
    options = parser.parse_args()
    baseline = os.environ.get("BASELINE")
    rows = [row for row in ROWS if not options.only or any(text in row.name for text in options.only)]
    if baseline:
        rows = [row for row in rows if row.name in COMPARED]
    pairs = set() if baseline else {row.pair for row in rows}
    rows = [row for row in ROWS if row in rows or row.name in pairs]
    if not rows:
        parser.error("no such row")
    for row in rows if options.quick else []:
        row.count //= 4
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    with StandIns(DIRECTORY / "stand-ins") as stand_ins:
        app = new_app()
        keys = json.dumps(call(stand_ins.addresses["entra-http"], "GET", "/common/discovery/v2.0/keys").json)
        chains = Chains(stand_ins)
        listeners(chains, app, keys)
        if baseline:
            rows = with_baseline(rows, chains, Path(baseline).resolve(strict=True))
            chains.keep({row.listener for row in rows})
        load = Load(stand_ins, app, options.rounds, 1_000 if options.quick or baseline else 10_000)
        envoy = start_envoy(chains.config())
        try:
            measure(rows, load, chains.ports, envoy.pid, options.rounds)
            result = report(rows)
            if not options.only and not baseline:
                requests = 1_000_000 if not options.quick else 50_000
                growth = grown(load, chains.ports["warm"], envoy.pid, requests)
                result.append(fact(f"memory after {requests:,} requests", growth, "MiB more", 16))
        finally:
            stop(envoy)
        if not options.only and not baseline:
            ratio = shared_counter(stand_ins, load, options.rounds, 20_000 if not options.quick else 5_000)
            result.append(fact("two workers on one counter", ratio, "× one worker"))
            ready = ready_after_keys(stand_ins, stand_ins.entra.mint(app))
            result.append(fact("first request served after keys came", ready, "ms", 200))
    size = module().stat().st_size
    result.append(fact("module", size / 1000, "KB", 900))
    name = "bench-baseline.json" if baseline else "bench.json"
    (ROOT / "target" / name).write_text(json.dumps({"audience": AUDIENCE, "rows": result}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
