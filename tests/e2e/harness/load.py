"""Many requests: the load program, and what it says of their answers."""

import json
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from . import processes
from .gateway import CHAT_BODY, CHAT_PATH, Gateway


@dataclass
class Request:
    """A request that is sent again and again, counted as a kind. With `leave_ms` its caller hangs up then."""

    kind: str
    text: str
    leave_ms: int | None = None


def request(
    token: str | None = None,
    *headers: str,
    method: str = "POST",
    path: str = CHAT_PATH,
    body: bytes | str = CHAT_BODY,
    length: int | None = None,
) -> str:
    """A request's text. `length` is what it says of its body, if that is not so."""
    body = body.decode() if isinstance(body, bytes) else body
    lines = [f"{method} {path} HTTP/1.1", "host: gateway.example.com", "content-type: application/json"]
    lines += [f"content-length: {len(body) if length is None else length}", *headers]
    if token is not None:
        lines.append(f"authorization: Bearer {token}")
    return "\r\n".join([*lines, "", body])


class Report:
    """What came back: answers (`"200"`, `"401 TokenExpired"`, `"broken"`, `"left"`) by kind."""

    def __init__(self, document: dict):
        self.document = document
        self.seconds: float = document["seconds"]
        self.answers = {kind: Counter(seen["answers"]) for kind, seen in document["kinds"].items()}

    def of(self, kind: str = "") -> Counter:
        """The answers of one kind."""
        return self.answers.get(kind, Counter())

    def p99(self, kind: str = "") -> float:
        """In milliseconds."""
        return self.document["kinds"][kind]["us"]["p99"] / 1000

    def p50(self, kind: str = "") -> float:
        """In milliseconds."""
        return self.document["kinds"][kind]["us"]["p50"] / 1000


class Load:
    """A running load program."""

    made = 0

    def __init__(
        self,
        gateway: Gateway,
        requests: list[Request] | list[str],
        *,
        count: int | None = None,
        seconds: float | None = None,
        rate: float | None = None,
        connections: int = 16,
        port: int | None = None,
    ):
        """Sends the requests in turn: so many, or for so long; `rate` of them a second, or one after another.
        `port`: to another listener of the same gateway."""
        lines = [request if isinstance(request, str) else vars(request) for request in requests]
        Load.made += 1
        name = gateway.directory / f"requests-{Load.made}.json"
        name.write_text(json.dumps(lines))
        options = {"count": count, "seconds": seconds, "rate": rate, "connections": connections}
        host, own_port = gateway.address
        arguments = [processes.stand_ins_binary().with_name("load"), "--to", f"{host}:{port or own_port}"]
        arguments += ["--requests", name]
        for option, value in options.items():
            arguments += [f"--{option}", value] if value is not None else []
        self._requests = name
        self._log = name.with_suffix(".log")
        self._child = processes.start(arguments, self._log, stdout=subprocess.PIPE)

    def is_running(self) -> bool:
        return self._child.poll() is None

    def report(self) -> Report:
        """Waits for its end."""
        output, _ = self._child.communicate()
        assert self._child.returncode == 0, self._log.read_text()
        self._requests.unlink()
        return Report(json.loads(output))


def send(gateway: Gateway, requests: list[Request] | list[str], **options) -> Report:
    """Sends requests; waits for the last answer."""
    return Load(gateway, requests, **options).report()


class Memory:
    """The resident memory of a process over time, in KiB."""

    def __init__(self, pid: int):
        self._status = Path(f"/proc/{pid}/status")
        self.samples: list[tuple[float, float]] = []

    def resident(self) -> int:
        line = next(line for line in self._status.read_text().splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1])

    def sample(self, at: float) -> None:
        """Notes the memory at a time, or after so many requests."""
        self.samples.append((at, self.resident()))

    def growth(self) -> float:
        """How far the line that fits the samples best rises from the first to the last, in KiB."""
        xs, ys = zip(*self.samples)
        mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
        above = sum((x - mean_x) * (y - mean_y) for x, y in self.samples)
        return above / sum((x - mean_x) ** 2 for x in xs) * (xs[-1] - xs[0])
