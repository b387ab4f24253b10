"""Redis, a rate limit service over it, and gateways with envoy/global-limits.yaml."""

import os
import socket
import subprocess
from pathlib import Path

import yaml

from . import processes
from .gateway import connection_manager, set_endpoint

ADDITIONS = processes.ROOT / "envoy" / "global-limits.yaml"
LIMITS = processes.ROOT / "envoy" / "global-limits.json"


def add_to(config: dict, service: tuple[str, int]) -> None:
    """Adds envoy/global-limits.yaml to envoy/envoy.yaml, as its comments say."""
    added = yaml.safe_load(ADDITIONS.read_text())
    ours, theirs = connection_manager(config), connection_manager(added)
    ours["local_reply_config"]["mappers"][:0] = theirs["local_reply_config"]["mappers"]
    ours["http_filters"][1:1] = theirs["http_filters"]
    (new_cluster,) = added["static_resources"]["clusters"]
    config["static_resources"]["clusters"].append(new_cluster)
    set_endpoint(config, "rate_limit_service", service)


class Redis:
    """A Redis of its own, with nothing on disk."""

    def __init__(self, directory: Path):
        directory.mkdir(parents=True, exist_ok=True)
        self.port = processes.free_port()
        self._log = directory / "redis.log"
        self.start()

    def start(self) -> None:
        binary = os.environ["REDIS_SERVER"]
        arguments = [binary, "--port", self.port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        # Unpacked from a package, it finds its libraries beside itself.
        libraries = ":".join(str(path) for path in Path(binary).parents[1].glob("lib/*-linux-gnu*"))
        self._child = processes.start(
            arguments, self._log, stdout=subprocess.DEVNULL, env={**os.environ, "LD_LIBRARY_PATH": libraries}
        )
        processes.wait_until(self._listens, 20, f"Redis listens; see {self._log}")

    def _listens(self) -> bool:
        with socket.socket() as connection:
            return connection.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        processes.stop(self._child)


class RateLimitService:
    """tests/rate-limit-service."""

    def __init__(self, directory: Path, redis: Redis, limits: Path = LIMITS):
        directory.mkdir(parents=True, exist_ok=True)
        self.log = directory / "rate-limit-service.log"
        arguments = [os.environ["RATE_LIMIT_SERVICE"], "--listen", "127.0.0.1:0"]
        arguments += ["--redis", f"redis://127.0.0.1:{redis.port}", "--limits", limits]
        self._child = processes.start(arguments, self.log, stdout=subprocess.PIPE)
        self.address = processes.read_addresses(self._child, self.log)["grpc"]

    def stop(self) -> None:
        processes.stop(self._child)
