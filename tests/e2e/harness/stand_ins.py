"""The stand-ins for Entra ID and Azure OpenAI: one process, driven over its control addresses."""

import json
import subprocess
from pathlib import Path

from . import processes
from .http import call
from .identities import APP_OTHER, TENANT
from .secrets import keep_secret

# What every application of the stand-in has.
CLIENT_SECRET = keep_secret("stand-in-secret")

FIXED_PORTS = {"entra-http": 9101, "entra-https": 9102, "openai": 9103}


class StandIns:
    """Running stand-ins. Ports are chosen by the system unless `ports` names them. With `tls` Azure OpenAI
    has a listener for TLS too."""

    def __init__(
        self,
        directory: Path,
        ports: dict[str, int] | None = None,
        public_url: str | None = None,
        tls: bool = False,
    ):
        directory.mkdir(parents=True, exist_ok=True)
        self.tls_dir = directory / "tls"
        arguments = [processes.stand_ins_binary(), "--exit-with-stdin", "--tls-dir", self.tls_dir]
        for name in FIXED_PORTS:
            port = (ports or {}).get(name, 0)
            if port:
                processes.check_port_free(port, f"the stand-in {name}")
            arguments += [f"--{name}", f"127.0.0.1:{port}"]
        if tls:
            arguments += ["--openai-https", "127.0.0.1:0"]
        if public_url:
            arguments += ["--public-url", public_url]
        self.log = directory / "stand-ins.log"
        self._child = processes.start(arguments, self.log, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addresses = processes.read_addresses(self._child, self.log)
        self.entra = Entra(self.addresses["entra-http"], self.addresses["entra-https"], self.tls_dir / "ca.pem")
        self.openai = OpenAI(self.addresses["openai"])

    def is_running(self) -> bool:
        return self._child.poll() is None

    def stop(self) -> None:
        processes.stop(self._child)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class Entra:
    """Entra ID's stand-in."""

    def __init__(self, http: tuple[str, int], https: tuple[str, int], ca: Path):
        self.http, self.https, self.ca = http, https, ca
        self.authority = f"http://{http[0]}:{http[1]}"

    def mint(self, client_id: str = APP_OTHER, **options) -> str:
        """A token; options as the stand-in's /control/mint has them."""
        if "raw_payload" not in options:
            options = {"client_id": client_id, "tenant": TENANT, **options}
        return keep_secret(self._control("mint", options)["access_token"])

    def mint_many(self, count: int, client_id: str = APP_OTHER, **options) -> list[str]:
        """So many tokens; with `new_clients` each is of an application of its own."""
        tokens = []
        while left := count - len(tokens):
            wanted = {"client_id": client_id, "tenant": TENANT, "count": min(left, 5_000), **options}
            tokens += self._control("mint", wanted)["access_tokens"]
        return [keep_secret(token) for token in tokens]

    def rotate(self, keep_old: bool = True) -> None:
        """A new current key; the older ones stay in the set or leave it."""
        self._control("rotate", {"keep_old": keep_old})

    def behave(self, target: str, mode: str, **options) -> None:
        """How metadata or keys are answered from now on."""
        self._control("behaviour", {"target": target, "mode": mode, **options})

    def publish(self, *keys: dict, **members) -> None:
        """Serves this key set instead of its own."""
        self.behave("keys", "ok", body=json.dumps({"keys": keys, **members}))

    def stats(self) -> dict[str, int]:
        """Requests so far: metadata, keys, token."""
        return call(self.http, "GET", "/control/stats").json

    def fetches(self) -> int:
        """Documents asked for so far."""
        stats = self.stats()
        return stats["metadata"] + stats["keys"]

    def reset(self) -> None:
        """Good behaviour again, counters at 0."""
        self._control("reset", {})

    def _control(self, name: str, document: dict):
        answer = call(
            self.http,
            "POST",
            f"/control/{name}",
            [("content-type", "application/json")],
            json.dumps(document).encode(),
        )
        assert 200 <= answer.status < 300, (name, document, answer)
        return answer.json if answer.body else None


class OpenAI:
    """Azure OpenAI's stand-in."""

    def __init__(self, address: tuple[str, int]):
        self.address = address

    def requests(self) -> list[dict]:
        """What it received, oldest first."""
        return call(self.address, "GET", "/control/requests").json

    def count(self) -> int:
        """How many requests it received."""
        return call(self.address, "GET", "/control/count").json["count"]

    def reset(self) -> None:
        call(self.address, "POST", "/control/reset", body=b"")
