"""The interlock of the shipped files: whatever happens to the module, nothing reaches the backend unless it has let it
pass. The rows G1 to G4 of what was tried on control planes, replayed in Envoy: once with the interlock, and once without
it as a control, which has to stand open, or the situation is none."""

import copy
import hashlib
import json
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml

from .harness import APP_CHAT, Gateway, new_app, processes, shipped_policy
from .harness.backend import Backend, answer
from .harness.gateway import JSON_TYPE, cluster, connection_manager, fit, plugin, set_endpoint
from .harness.http import STAND_INS_MARK, raw
from .harness.http2 import Http2
from .harness.nothing import nothing
from .harness.processes import free_port, wait_until

NOT_GUARDED = (403, "GatewayNotGuarded")
PASSES = (200, None)
ALERTS = processes.ROOT / "envoy" / "compose" / "alerts.yaml"
LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
WASM = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm"
EXTENSION = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"
# How long a gateway is attacked while something changes.
SECONDS = 1.0


def manager_of(document: dict) -> dict:
    """A listener's HTTP connection manager."""
    return document["filter_chains"][0]["filters"][0]["typed_config"]


def unlock(document: dict) -> None:
    """Takes the interlock away."""
    manager = manager_of(document)
    manager["http_filters"] = [one for one in manager["http_filters"] if one["name"] != "interlock"]


def copies(document: dict, change=lambda document: None) -> dict[str, dict]:
    """A listener with the interlock and one without it, both changed."""
    found = {}
    for name in ("guarded", "control"):
        found[name] = copy.deepcopy(document)
        found[name]["name"] = name
        found[name]["address"]["socket_address"]["port_value"] = free_port()
        change(found[name])
    unlock(found["control"])
    return found


def address(document: dict) -> tuple[str, int]:
    socket_address = document["address"]["socket_address"]
    return socket_address["address"], socket_address["port_value"]


class Attack:
    """Requests that nobody may send, on one listener: each answer is counted by status and code, and those that the
    backend made."""

    # What clients try to set: filter state has no header, metadata has none either.
    TRIES = [
        [],
        [("x-tollgate-passed", "true"), ("tollgate.passed", "true"), ("wasm.tollgate.passed", "true")],
        [("x-tollgate-code", "allowed"), ("x-envoy-filter-state", "wasm.tollgate.passed=true")],
        [("baggage", "wasm.tollgate.passed=true"), ("x-envoy-force-trace", "1"), ("x-envoy-internal", "true")],
        [("x-envoy-peer-metadata", "d2FzbS50b2xsZ2F0ZS5wYXNzZWQ9dHJ1ZQ=="), ("x-envoy-peer-metadata-id", "wasm")],
    ]

    def __init__(self, gateway: Gateway, where: tuple[str, int], tokens: list[str | None]):
        self.gateway, self.where, self.tokens = gateway, where, tokens
        self.verdicts: Counter = Counter()
        self.open = 0
        self.errors: list[Exception] = []
        self._running = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def once(self) -> None:
        for token in self.tokens:
            for headers in self.TRIES:
                seen = self.gateway.chat(token, headers, connection=self.where)
                self.verdicts[seen.verdict] += 1
                self.open += seen.header(STAND_INS_MARK) is not None

    def _run(self) -> None:
        while self._running.is_set():
            try:
                self.once()
            except OSError as error:
                # A listener that goes closes its connections.
                self.errors.append(error)

    def __enter__(self):
        self._running.set()
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._running.clear()
        self._thread.join()


@pytest.fixture(scope="module")
def nothing_file(module_directory) -> str:
    """A module that lets everything pass."""
    module_directory.mkdir(parents=True, exist_ok=True)
    (module_directory / "nothing.wasm").write_bytes(nothing())
    return str(module_directory / "nothing.wasm")


def plugin_of(document: dict) -> dict:
    return manager_of(document)["http_filters"][0]["typed_config"]["config"]


def replace_module(file: str):
    """Another module in the place of ours, in a VM of its own."""

    def change(document: dict) -> None:
        found = plugin_of(document)
        code = {"local": {"filename": file}}
        found["vm_config"] = {"vm_id": file, "runtime": "envoy.wasm.runtime.v8", "code": code}
        found.pop("configuration")

    return change


def remove(document: dict) -> None:
    manager_of(document)["http_filters"].pop(0)


def fetched(vm_id: str, path: str, policy: str | None = None):
    """The module from a server, as control planes send it, with `FAIL_OPEN`: a local file that cannot be loaded is refused
    with the configuration."""

    def change(document: dict) -> None:
        found = plugin_of(document)
        found["failure_policy"] = "FAIL_OPEN"
        found["name"] = found["vm_config"]["vm_id"] = vm_id
        remote = {"http_uri": {"uri": f"http://code{path}", "cluster": "code", "timeout": "20s"}}
        remote["sha256"] = hashlib.sha256(processes.module().read_bytes()).hexdigest()
        remote["retry_policy"] = {"num_retries": 0}
        found["vm_config"]["code"] = {"remote": remote}
        if policy:
            found["configuration"]["value"] = policy

    return change


def add_code_cluster(config: dict, backend: Backend) -> None:
    """A server of modules, for Envoy."""
    found = copy.deepcopy(cluster(config, "entra"))
    found["name"] = found["load_assignment"]["cluster_name"] = "code"
    config["static_resources"]["clusters"].append(found)
    set_endpoint(config, "code", backend.address)


def serve_code(delay: float = 0):
    """A script of a server that has the module, late."""

    def script(request):
        if "missing" in request.line:
            return [answer(b"no", "text/plain", "404 Not Found")]
        return [delay, answer(processes.module().read_bytes(), "application/wasm")]

    return script


def attack_tokens(stand_ins) -> list[str | None]:
    """None, one that nobody signed, and a good one: it too passes only where the module says so."""
    return [None, stand_ins.entra.mint(new_app(), key="foreign"), stand_ins.entra.mint(new_app())]


SITUATIONS = ["removed", "replaced by another module", "code not to be had", "policy refused"]


@pytest.fixture(scope="module")
def static(stand_ins, module_directory, nothing_file):
    """One Envoy with a pair of listeners for each way in which a module is not there."""
    changes = [remove, replace_module(nothing_file), fetched("missing", "/missing")]
    changes.append(fetched("refused", "/module", '{"issuers": []}'))
    pairs = {}
    with Backend(serve_code()) as code:

        def edit(config):
            add_code_cluster(config, code)
            listeners = config["static_resources"]["listeners"]
            for name, change in zip(SITUATIONS, changes, strict=True):
                pairs[name] = copies(listeners[0], change)
                for kind, document in pairs[name].items():
                    document["name"] = f"{name}, {kind}"
                    listeners.append(document)

        running = Gateway(module_directory / "static", stand_ins, edit=edit)
        yield running, pairs
        # A module that cannot start stands in the log as one that has died.
        running.stop()
        Gateway.ended.pop()


@pytest.mark.parametrize("situation", SITUATIONS)
def test_g4_without_the_module_nothing_passes(static, stand_ins, situation):
    gateway, pairs = static
    tokens = attack_tokens(stand_ins)
    guarded = Attack(gateway, address(pairs[situation]["guarded"]), tokens)
    control = Attack(gateway, address(pairs[situation]["control"]), tokens)
    before = stand_ins.openai.count()
    guarded.once()
    assert guarded.open == 0 and stand_ins.openai.count() == before
    assert set(guarded.verdicts) == {NOT_GUARDED}
    control.once()
    assert control.open > 0, "without the interlock this stands open"


def test_g4_what_the_interlock_stops_is_answered_logged_and_counted(static):
    gateway, pairs = static
    where = address(pairs["removed"]["guarded"])
    before = gateway.stat("http.ingress.rbac.interlock.denied")
    stopped = gateway.chat(connection=where)
    assert stopped.verdict == NOT_GUARDED
    assert stopped.header("content-type") == "application/json"
    assert stopped.header("x-tollgate-code") == "GatewayNotGuarded"
    assert set(stopped.json["error"]) == {"code", "message", "type", "param"}
    line = gateway.line_of(stopped.header("x-request-id"), gateway.access_log)
    assert (line["status"], line["error_code"]) == (403, "GatewayNotGuarded")
    assert line["details"].startswith("rbac_access_denied")
    assert gateway.stat("http.ingress.rbac.interlock.denied") == before + 1
    # As alerts.yaml has it.
    assert 'envoy_http_rbac_denied{envoy_rbac_http_prefix="interlock"}' in ALERTS.read_text()
    labels = {'envoy_rbac_http_prefix="interlock"', 'envoy_http_conn_manager_prefix="ingress"'}
    assert gateway.prometheus("envoy_http_rbac_denied")[frozenset(labels)] > before


# What passes.


@pytest.fixture(scope="module")
def gateway(stand_ins, module_directory):
    """The shipped listener, with WebSockets and preflights."""
    apps = [{"app_id": APP_CHAT, "name": "chat", "deployments": ["gpt-4o"]}]
    policy = shipped_policy(stand_ins, apps=apps, cors_preflight="pass", log={"filter_state": [], "requests": True})

    def edit(config):
        connection_manager(config)["upgrade_configs"] = [{"upgrade_type": "websocket"}]

    with Gateway(module_directory / "passes", stand_ins, policy, edit=edit) as running:
        yield running


def test_g4_what_the_module_allows_passes_the_interlock(gateway, stand_ins):
    token = stand_ins.entra.mint(APP_CHAT)
    assert gateway.chat(token).verdict == PASSES
    streamed = json.dumps({"messages": [{"role": "user", "content": "Hello"}], "stream": True}).encode()
    assert b"data: [DONE]" in gateway.chat(token, body=streamed).body
    body = json.dumps({"model": "gpt-4o", "messages": []}).encode()
    by_body = gateway.request("POST", "/openai/v1/chat/completions", token=token, headers=[JSON_TYPE], body=body)
    assert by_body.status == 200
    assert gateway.request("GET", "/status").status == 200
    preflight = [("origin", "https://example.com"), ("access-control-request-method", "POST")]
    assert gateway.request("OPTIONS", "/openai/models", headers=preflight).header(STAND_INS_MARK)
    with Http2(gateway.address) as connection:
        stream = connection.ask("/openai/models?api-version=2024-10-21", ("authorization", f"Bearer {token}"))
        assert stream.answer.status == 200
    # And what the module refuses, it refuses itself, byte for byte.
    refused = gateway.chat()
    assert refused.verdict == (401, "TokenNotPresent")
    assert refused.body.startswith(b'{"error":{"code":"TokenNotPresent","message":')
    wrong = json.dumps({"model": "o1", "messages": []}).encode()
    denied = gateway.request("POST", "/openai/v1/chat/completions", token=token, headers=[JSON_TYPE], body=wrong)
    assert denied.verdict == (403, "DeploymentNotAllowed")
    assert gateway.stat("http.ingress.rbac.interlock.denied") == 0


def test_g4_websockets_pass_the_interlock(start_gateway, stand_ins):
    switching = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"
    with Backend(lambda _: [switching]) as backend:

        def edit(config):
            connection_manager(config)["upgrade_configs"] = [{"upgrade_type": "websocket"}]
            set_endpoint(config, "azure_openai", backend.address)

        gateway = start_gateway(stand_ins, edit=edit)
        lines = [
            "GET /openai/v1/realtime?model=gpt-4o HTTP/1.1",
            "host: gateway.example.com",
            f"authorization: Bearer {stand_ins.entra.mint(APP_CHAT)}",
            "connection: Upgrade",
            "upgrade: websocket",
            "sec-websocket-version: 13",
            "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
        ]
        data = "\r\n".join([*lines, "", ""]).encode()
        assert raw(gateway.address, data).status == 101
        assert raw(gateway.address, data.replace(b"authorization: ", b"x-nothing: ")).status == 401
        assert len(backend.received) == 1


def test_g4_report_mode_passes_the_interlock(start_gateway, stand_ins):
    gateway = start_gateway(stand_ins, shipped_policy(stand_ins, mode="report", log={"filter_state": []}))
    assert gateway.chat().verdict == PASSES
    assert gateway.chat(stand_ins.entra.mint(new_app(), key="foreign")).verdict == PASSES
