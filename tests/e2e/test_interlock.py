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
CEL = "type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter"
FILE_LOG = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"
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


def documents(name: str) -> list[dict]:
    """A control plane's file."""
    return list(yaml.safe_load_all((processes.ROOT / "envoy" / name).read_text()))


def passed_log(gateway: Gateway) -> Path:
    return gateway.directory / "passed.log"


@pytest.fixture(scope="module")
def gateway(stand_ins, module_directory):
    """The shipped listener, with WebSockets and preflights."""
    apps = [{"app_id": APP_CHAT, "name": "chat", "deployments": ["gpt-4o"]}]
    policy = shipped_policy(stand_ins, apps=apps, cors_preflight="pass", log={"filter_state": [], "requests": True})

    def edit(config):
        connection_manager(config)["upgrade_configs"] = [{"upgrade_type": "websocket"}]
        (policy,) = (one for one in documents("envoy-gateway.yaml") if one["kind"] == "SecurityPolicy")
        expression = policy["spec"]["authorization"]["rules"][0]["cel"]
        connection_manager(config)["access_log"].append(
            {
                "name": "passed",
                "filter": {"extension_filter": {"name": "cel", "typed_config": {"@type": CEL, "expression": expression}}},
                "typed_config": {
                    "@type": FILE_LOG,
                    "path": str(module_directory / "passes" / "passed.log"),
                    "log_format": {"text_format_source": {"inline_string": "%REQ(X-REQUEST-ID)%\n"}},
                },
            }
        )

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


# The module comes and goes while callers without a token keep calling.


def fitted(document: dict) -> dict:
    """A listener as this Envoy's version takes it."""
    fit({"static_resources": {"listeners": [document]}}, processes.envoy_version())
    return document


def put(file: Path, resources: list[dict]) -> None:
    """Envoy reads a file when another is moved into its place."""
    new = file.with_suffix(".new")
    new.write_text(json.dumps({"resources": resources}))
    new.rename(file)


def put_listeners(file: Path, documents: list[dict]) -> None:
    put(file, [{"@type": LISTENER, **fitted(copy.deepcopy(document))} for document in documents])


def attacked(gateway: Gateway, stand_ins, pair: dict[str, dict], during) -> tuple[Attack, Attack]:
    """Attacks both listeners while something happens."""
    tokens = attack_tokens(stand_ins)[:2]
    with Attack(gateway, address(pair["guarded"]), tokens) as guarded:
        with Attack(gateway, address(pair["control"]), tokens) as control:
            during()
    return guarded, control


def assert_only_the_control_was_open(guarded: Attack, control: Attack, stand_ins_saw: int) -> None:
    assert guarded.open == 0, guarded.verdicts
    assert control.open > 0, "without the interlock this stands open"
    # A request of the control whose connection closed may have reached the backend; its response was not seen.
    by_control = control.open + getattr(control.gateway, "open_polls", 0)
    assert by_control <= stand_ins_saw <= by_control + len(control.errors), "what reached the backend came by the control"
    assert guarded.verdicts[NOT_GUARDED] > 0
    assert guarded.verdicts[401, "TokenNotPresent"] > 0, "and the module decided before or after"


def decides(gateway: Gateway, document: dict) -> bool:
    """Whether a listener has its module. The control may let the question pass: that is counted."""
    try:
        seen = gateway.chat(connection=address(document))
    except OSError:
        return False
    polls = getattr(gateway, "open_polls", 0)
    gateway.open_polls = polls + (seen.header(STAND_INS_MARK) is not None)
    return seen.verdict == (401, "TokenNotPresent")


def test_g4_a_module_taken_away_by_lds_lets_nothing_pass(start_gateway, stand_ins, directory):
    """As when a policy is deleted: the control plane sends the listener without its filter."""
    directory.mkdir(parents=True, exist_ok=True)
    file, pair = directory / "listeners.json", {}

    def edit(config):
        pair.update(copies(config["static_resources"]["listeners"][0]))
        put_listeners(file, list(pair.values()))
        config["node"] = {"id": "test", "cluster": "test"}
        config["dynamic_resources"] = {"lds_config": {"path_config_source": {"path": str(file)}}}

    gateway = start_gateway(stand_ins, edit=edit)
    wait_until(lambda: all(decides(gateway, one) for one in pair.values()), 20, "both listeners decide")
    before, gateway.open_polls = stand_ins.openai.count(), 0

    def during():
        time.sleep(SECONDS / 2)
        bare = copy.deepcopy(list(pair.values()))
        for document in bare:
            remove(document)
        put_listeners(file, bare)
        time.sleep(SECONDS)
        put_listeners(file, list(pair.values()))
        wait_until(lambda: all(decides(gateway, one) for one in pair.values()), 20, "they decide again")

    guarded, control = attacked(gateway, stand_ins, pair, during)
    assert_only_the_control_was_open(guarded, control, stand_ins.openai.count() - before)


def by_discovery(file: Path, default: dict | None = None) -> dict:
    """The module's filter by ECDS from a file."""
    discovery = {
        "config_source": {"path_config_source": {"path": str(file)}, "resource_api_version": "V3"},
        "type_urls": [WASM],
    }
    if default:
        discovery |= {"default_config": default, "apply_default_config_without_warming": True}
    return {"name": "tollgate", "config_discovery": discovery}


def extension(document: dict) -> dict:
    """A listener's first filter, as ECDS carries it."""
    return {"@type": EXTENSION, "name": "tollgate", "typed_config": manager_of(document)["http_filters"][0]["typed_config"]}


@pytest.mark.parametrize("late", [False, True], ids=["replaced", "late"])
def test_g2_g4_a_module_that_ecds_replaces_or_brings_late_lets_nothing_pass(
    start_gateway, stand_ins, directory, nothing_file, late
):
    """Another filter in its place for a while; or none that decides until the module is there."""
    directory.mkdir(parents=True, exist_ok=True)
    file, pair, filters = directory / "extension.json", {}, {}

    def edit(config):
        ours = fitted(copy.deepcopy(config["static_resources"]["listeners"][0]))
        other = copy.deepcopy(ours)
        replace_module(nothing_file)(other)
        filters.update(ours=extension(ours), other=extension(other))
        put(file, [] if late else [filters["ours"]])
        default = filters["other"]["typed_config"] if late else None
        pair.update(copies(ours))
        for document in pair.values():
            manager_of(document)["http_filters"][0] = by_discovery(file, default)
            config["static_resources"]["listeners"].append(document)
        config["node"] = {"id": "test", "cluster": "test"}

    gateway = start_gateway(stand_ins, edit=edit)
    before = stand_ins.openai.count()

    def during():
        if not late:
            wait_until(lambda: all(decides(gateway, one) for one in pair.values()), 20, "both listeners decide")
            put(file, [filters["other"]])
        time.sleep(SECONDS)
        put(file, [filters["ours"]])
        wait_until(lambda: all(decides(gateway, one) for one in pair.values()), 20, "both listeners decide")
        time.sleep(SECONDS / 2)

    guarded, control = attacked(gateway, stand_ins, pair, during)
    assert_only_the_control_was_open(guarded, control, stand_ins.openai.count() - before)


def test_g4_a_vm_that_dies_and_fails_open_lets_nothing_pass(stand_ins, directory, chaos_module, apart):
    pair = {}

    def edit(config):
        found = plugin(config)
        found["vm_config"]["code"]["local"]["filename"] = str(chaos_module)
        found["failure_policy"] = "FAIL_OPEN"
        pair.update(copies(config["static_resources"]["listeners"][0]))
        config["static_resources"]["listeners"] += pair.values()

    gateway = Gateway(directory, stand_ins, edit=edit, workers=1)
    try:
        before = stand_ins.openai.count()

        def during():
            time.sleep(SECONDS / 2)
            gateway.chat(headers=[("x-tollgate-chaos", "trap")], connection=address(pair["guarded"]))
            time.sleep(SECONDS)

        guarded, control = attacked(gateway, stand_ins, pair, during)
        # What meets the VM's death may get through as it is, on the control.
        assert_only_the_control_was_open(guarded, control, stand_ins.openai.count() - before)
    finally:
        gateway.stop()


# Listeners as the control planes send them.


def shipped_by(name: str) -> dict:
    """The interlock as a control plane's file has it."""
    for document in documents(name):
        if document["kind"] == "EnvoyPatchPolicy" and document["metadata"]["name"] == "interlock":
            return document["spec"]["jsonPatches"][0]["operation"]["value"]
        if document["kind"] == "EnvoyFilter":
            return document["spec"]["configPatches"][-1]["patch"]["value"]
    raise AssertionError(f"no interlock in {name}")


def as_sent(config: dict, plane: str) -> dict:
    """The data of tests/e2e/listeners, with this machine's module, policy and clusters."""
    sent = yaml.safe_load((Path(__file__).parent / "listeners" / f"{plane}.yaml").read_text())
    ours, manager = manager_of(config["static_resources"]["listeners"][0]), manager_of(sent)
    interlock = shipped_by(f"{plane}.yaml")
    for at, one in enumerate(manager["http_filters"]):
        if one["name"] == "envoy.filters.http.router":
            manager["http_filters"].insert(at, interlock)
            break
    manager["local_reply_config"] = ours["local_reply_config"]
    module = manager["http_filters"][0]["typed_config"]["config"]
    module["configuration"] = plugin(config)["configuration"]
    module["vm_config"]["code"] = plugin(config)["vm_config"]["code"]
    return sent


@pytest.mark.parametrize("plane", ["envoy-gateway", "istio"])
def test_g1_g3_g4_listeners_as_control_planes_send_them(start_gateway, stand_ins, plane):
    """Envoy Gateway leaves its filter disabled and each route switches it on: one with a policy of its own does not.
    Istio's filter is there for all routes, or for none when its WasmPlugin is deleted."""
    sent, unguarded = {}, {}

    def edit(config):
        sent.update(copies(as_sent(config, plane)))
        unguarded.update(sent if plane == "envoy-gateway" else copies(as_sent(config, plane), remove))
        pairs = [sent] if plane == "envoy-gateway" else [sent, unguarded]
        for number, pair in enumerate(pairs):
            for document in pair.values():
                document["name"] += f" {number}"
                config["static_resources"]["listeners"].append(document)

    gateway = start_gateway(stand_ins, edit=edit)
    for document in sent.values():
        assert gateway.chat(stand_ins.entra.mint(APP_CHAT), connection=address(document)).verdict == PASSES
        assert gateway.chat(connection=address(document)).verdict == (401, "TokenNotPresent")

    path = "/openai/replaced" if plane == "envoy-gateway" else "/openai/models"
    guarded, control = (address(unguarded[kind]) for kind in ("guarded", "control"))
    before = stand_ins.openai.count()
    for token in attack_tokens(stand_ins):
        for headers in Attack.TRIES:
            seen = gateway.request("GET", path, token=token, headers=headers, connection=guarded)
            assert seen.verdict == NOT_GUARDED
    # Also without a route: what a probe sees.
    assert gateway.request("GET", "/nowhere", connection=guarded).verdict == NOT_GUARDED
    assert stand_ins.openai.count() == before
    assert gateway.request("GET", path, connection=control).header(STAND_INS_MARK), "without the interlock it is open"
    assert gateway.request("GET", "/nowhere", connection=control).status == 404


def test_g4_envoy_gateways_own_authorization_has_the_same_condition(gateway, stand_ins):
    """The expression of its SecurityPolicy, put to this Envoy as the filter of an access log."""
    token = stand_ins.entra.mint(new_app())
    passed = gateway.echo(token).json["headers"]
    refused = gateway.chat().header("x-request-id")

    def lines() -> list[str]:
        return passed_log(gateway).read_text().splitlines() if passed_log(gateway).exists() else []

    wait_until(lambda: dict(passed)["x-request-id"] in lines(), 5, "what passed is in the log")
    assert refused not in lines()
