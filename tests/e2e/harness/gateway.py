"""Envoy with the filter, from envoy/envoy.yaml: what is tested is what is shipped."""

import copy
import json
import os
import re
import time
from pathlib import Path

import yaml

from . import processes, secrets
from .http import Answer, call
from .stand_ins import StandIns

CONFIG = processes.ROOT / "envoy" / "envoy.yaml"
CHAT_PATH = "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21"
CHAT_BODY = json.dumps({"messages": [{"role": "user", "content": "Hello"}]}).encode()
JSON_TYPE = ("content-type", "application/json")

# What a log must never hold: what would move a terminal's cursor or forge a line,
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
# and Rust's, V8's and Envoy's words for what has died.
SIGNS_OF_DEATH = (
    "panicked",
    "Function: proxy_",
    "Uncaught RuntimeError",
    "in-VM backtrace",
    "restricted proxy-wasm capability",
    "assert failure",
    "Caught Segmentation fault",
)


# Where a request may carry an API key.
KEY_HEADERS = ("api-key", "ocp-apim-subscription-key", "x-api-key")
KEY_IN_QUERY = re.compile(r"[?&;](?:api|subscription)-key=([^&;]+)")


class GatewayRefused(Exception):
    """Envoy did not start; the text is its log."""


def shipped_config() -> dict:
    """envoy/envoy.yaml."""
    return yaml.safe_load(CONFIG.read_text())


def listener(config: dict) -> dict:
    """The listener that clients use."""
    return config["static_resources"]["listeners"][0]


def connection_manager(config: dict) -> dict:
    """Its HTTP connection manager."""
    return listener(config)["filter_chains"][0]["filters"][0]["typed_config"]


def plugin(config: dict) -> dict:
    """The filter's plugin configuration."""
    return connection_manager(config)["http_filters"][0]["typed_config"]["config"]


def fit(config: dict, version: tuple[int, int]) -> dict:
    """The shipped configuration as docs/gateways.md says to change it for an older Envoy."""
    for http_filter in connection_manager(config)["http_filters"]:
        ours = http_filter["typed_config"].get("config", {})
        if version < (1, 40) and "capability_restriction_config" in ours.get("vm_config", {}):
            ours["capability_restriction_config"] = ours["vm_config"].pop("capability_restriction_config")
    return config


def cluster(config: dict, name: str) -> dict:
    """A cluster."""
    return next(found for found in config["static_resources"]["clusters"] if found["name"] == name)


def set_endpoint(config: dict, name: str, address: tuple[str, int]) -> None:
    """Sends a cluster's traffic to an address. Public paths lead to the backend too, by a cluster of their own."""
    clusters = {found["name"] for found in config["static_resources"]["clusters"]}
    if name == "azure_openai" and "public" in clusters:
        set_endpoint(config, "public", address)
    endpoint = cluster(config, name)["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    socket_address = endpoint["address"]["socket_address"]
    socket_address["address"], socket_address["port_value"] = address


def set_policy(config: dict, policy: dict | str) -> None:
    """Replaces the policy; a str is taken as it is."""
    text = policy if isinstance(policy, str) else json.dumps(policy)
    plugin(config)["configuration"]["value"] = text


def shipped_policy(stand_ins: StandIns, **members) -> dict:
    """The policy of envoy/envoy.yaml for these stand-ins, with members replaced or added."""
    policy = json.loads(plugin(shipped_config())["configuration"]["value"])
    policy["issuers"][0]["authority"] = stand_ins.entra.authority
    return {**policy, **members}


def whole_lines(text: str) -> list[str]:
    """The lines of a log but for the last, where it is still being written."""
    return text[: text.rfind("\n") + 1].splitlines()


def keep_keys_secret(path: str, headers: list[tuple]) -> None:
    """Registers the API keys of a request."""
    values = [value for name, value in headers if str(name).lower() in KEY_HEADERS]
    for value in [*values, *KEY_IN_QUERY.findall(path)]:
        secrets.keep_secret(value if isinstance(value, str) else value.decode("latin-1"))


class Gateway:
    """A running Envoy.

    `fixed` keeps the file's ports. `base` is another configuration, with clusters and a policy that are to
    stay. `edit` changes the configuration before the start. `level` is from where on the module's lines show. With
    `dynamic` the listener comes from a file that `update` replaces, as a control plane would.
    """

    running: list["Gateway"] = []
    # What was found at the end of each.
    ended: list[list[str]] = []

    def __init__(
        self,
        directory: Path,
        stand_ins: StandIns,
        policy: dict | str | None = None,
        *,
        base: dict | None = None,
        edit=None,
        dynamic: bool = False,
        fixed: bool = False,
        workers: int = 2,
        level: str = "info",
        environment: dict[str, str] | None = None,
    ):
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.stand_ins = stand_ins
        self._base = base
        self._edit = edit
        self.log = directory / "envoy.log"
        self.access = directory / "access.log"
        # Envoy keeps a listener's port over updates only when it is a fixed one.
        self._port = processes.free_port() if dynamic else 0

        config = self._config(policy, fixed)
        if dynamic:
            listeners = config["static_resources"].pop("listeners")
            config["dynamic_resources"] = {"lds_config": {"path_config_source": {"path": str(self._lds)}}}
            config["node"] = {"id": "test", "cluster": "test"}
            self._write_listener(listeners[0])
        path = directory / "envoy.yaml"
        path.write_text(yaml.safe_dump(config, sort_keys=False))

        admin_file = directory / "admin"
        admin_file.unlink(missing_ok=True)
        arguments = [processes.envoy_binary(), "-c", path, "--concurrency", workers]
        arguments += ["--use-dynamic-base-id", "--admin-address-path", admin_file]
        # The module's lines, and what Envoy warns of; its start alone has hundreds of others.
        arguments += ["--log-level", "warning", "--component-log-level", f"wasm:{level}"]
        # Access log lines soon after the request.
        arguments += ["--file-flush-interval-msec", 100, "--drain-time-s", 1]
        with self.access.open("wb") as access:
            # Its own environment comes on top of ours.
            options = {"env": {**os.environ, **environment}} if environment else {}
            self._child = processes.start(arguments, self.log, stdout=access, **options)
        Gateway.running.append(self)
        try:
            self._wait_until_ready(admin_file)
        except BaseException:
            self.kill()
            raise

    @property
    def _lds(self) -> Path:
        return self.directory / "listeners.json"

    def _config(self, policy: dict | str | None, fixed: bool) -> dict:
        config = copy.deepcopy(self._base) or shipped_config()
        plugin(config)["vm_config"]["code"]["local"]["filename"] = str(processes.module())
        if fixed:
            for port, what in ((10000, "Envoy"), (9901, "Envoy's admin page")):
                processes.check_port_free(port, what)
        else:
            listener(config)["address"]["socket_address"]["port_value"] = self._port
            config["admin"]["address"]["socket_address"]["port_value"] = 0
        if not fixed and self._base is None:
            set_endpoint(config, "entra", self.stand_ins.addresses["entra-http"])
            set_endpoint(config, "azure_openai", self.stand_ins.addresses["openai"])
            set_policy(config, policy if policy is not None else shipped_policy(self.stand_ins))
        if self._edit:
            self._edit(config)
        return fit(config, processes.envoy_version())

    def _write_listener(self, document: dict) -> None:
        typed = {"@type": "type.googleapis.com/envoy.config.listener.v3.Listener", **document}
        # Envoy watches for the file being moved into place.
        new = self._lds.with_suffix(".new")
        new.write_text(json.dumps({"resources": [typed]}))
        new.rename(self._lds)

    def update(self, policy: dict | str) -> None:
        """Sends a new policy to a `dynamic` gateway and waits until Envoy took or refused it."""
        before = self._lds_attempts()
        self._write_listener(listener(self._config(policy, fixed=False)))
        processes.wait_until(lambda: self._lds_attempts() > before, 20, "Envoy reads the update")
        processes.wait_until(
            lambda: self.stat("listener_manager.total_listeners_warming") == 0, 20, "the listener warms up"
        )

    def _lds_attempts(self) -> int:
        return self.stat("listener_manager.lds.update_success") + self.stat(
            "listener_manager.lds.update_rejected"
        )

    def _wait_until_ready(self, admin_file: Path) -> None:
        def ready():
            if self._child.poll() is not None:
                raise GatewayRefused(self.log.read_text(errors="replace"))
            if not admin_file.exists() or not (text := admin_file.read_text().strip()):
                return False
            host, _, port = text.rpartition(":")
            self.admin = (host, int(port))
            try:
                return call(self.admin, "GET", "/ready").status == 200
            except OSError:
                return False

        processes.wait_until(ready, 60, "Envoy is ready")
        listeners = call(self.admin, "GET", "/listeners?format=json").json
        where = listeners["listener_statuses"][0]["local_address"]["socket_address"]
        self.address = (where["address"], where["port_value"])
        self.url = "http://{}:{}".format(*self.address)

    # Requests

    def request(self, method: str, path: str, *, token: str | None = None, headers=(), **options) -> Answer:
        """One request on a connection of its own, so that any worker may get it."""
        headers = list(headers)
        keep_keys_secret(path, headers)
        if token is not None:
            headers.append(("authorization", f"Bearer {token}"))
        answer = call(options.pop("connection", self.address), method, path, headers, **options)
        return answer.hold_to_secrecy()

    def chat(self, token: str | None = None, headers=(), body: bytes = CHAT_BODY, **options) -> Answer:
        """A chat completion."""
        return self.request(
            "POST", CHAT_PATH, token=token, headers=[JSON_TYPE, *headers], body=body, **options
        )

    def echo(self, token: str | None = None, headers=(), **options) -> Answer:
        """What the backend receives of a request."""
        return self.request("GET", "/openai/echo", token=token, headers=headers, **options)

    # What Envoy knows

    def stats(self, pattern: str = "") -> dict[str, int]:
        """Counters and gauges whose names match a regular expression."""
        text = call(self.admin, "GET", f"/stats?format=json&filter={pattern}").json
        return {stat["name"]: stat["value"] for stat in text["stats"] if "name" in stat}

    def stat(self, name: str) -> int:
        """One counter or gauge; 0 when it does not exist yet."""
        return self.stats("^" + name.replace(".", r"\.") + "$").get(name, 0)

    def prometheus(self, name: str) -> dict[frozenset, int]:
        """A metric's series by their labels, as Prometheus sees them."""
        series = {}
        for line in call(self.admin, "GET", "/stats/prometheus").body.decode().splitlines():
            if line.startswith(name + "{"):
                labels, _, value = line[len(name) + 1 :].rpartition("} ")
                series[frozenset(labels.split(",")) if labels else frozenset()] = int(value)
        return series

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")

    def request_log(self) -> list[dict]:
        """The module's lines, one per request."""
        lines = []
        for line in whole_lines(self.log_text()):
            _, found, text = line.partition("wasm log ")
            if found and "{" in text and '"outcome"' in text:
                lines.append(json.loads(text[text.index("{") :]))
        return lines

    def access_log(self) -> list[dict]:
        """Envoy's own lines, one per request."""
        return [json.loads(line) for line in whole_lines(self.access.read_text())]

    def line_of(self, request_id: str, log=None) -> dict:
        """The line of one request in the module's log, or in `log`."""
        log = log or self.request_log

        def find():
            return [line for line in log() if line.get("request_id") == request_id]

        lines = processes.wait_until(find, 5, f"a log line for {request_id}")
        assert len(lines) == 1, f"{request_id} is told {len(lines)} times"
        return lines[0]

    # The end

    @property
    def pid(self) -> int:
        return self._child.pid

    def is_running(self) -> bool:
        return self._child.poll() is None

    def problems(self) -> list[str]:
        """What must never be, whatever the test did: looked for while Envoy still runs."""
        problems = []
        deadline = time.monotonic() + 10
        while active := self.stat("http.ingress.downstream_rq_active"):
            if time.monotonic() > deadline:
                problems.append(f"{active} requests hang (R15)")
                break
            time.sleep(0.05)
        for name, value in self.stats("vm_reload").items():
            if value:
                problems.append(f"{name} is {value} (R3)")
        for page in ("/stats", "/stats/prometheus", "/clusters"):
            for secret in secrets.found_in(call(self.admin, "GET", page).body.decode()):
                problems.append(f"secret {secret} in {page} (R28)")
        return problems

    def problems_in_logs(self) -> list[str]:
        """The same in the logs, after the end."""
        text = self.log_text()
        problems = [f"{sign!r} in {self.log} (R3)" for sign in SIGNS_OF_DEATH if sign in text]
        problems += [f"{line[:200]!r} in {self.log} (R28)" for line in text.split("\n") if CONTROL.search(line)]
        return problems + secrets.found_below(self.directory)

    def kill(self) -> None:
        """Ends Envoy, and asks nothing."""
        if self in Gateway.running:
            Gateway.running.remove(self)
        processes.stop(self._child)

    def stop(self) -> list[str]:
        """Ends Envoy and returns what went wrong in its life."""
        problems = []
        if (status := self._child.poll()) is not None:
            problems.append(f"Envoy ended by itself with {status}: {self.log} (R3)")
        else:
            problems += self.problems()
        self.kill()
        problems += self.problems_in_logs()
        Gateway.ended.append(problems)
        return problems

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        problems = self.stop()
        # A test that failed already says more than what followed from it.
        if kind is None:
            assert not problems, "\n".join(problems)

