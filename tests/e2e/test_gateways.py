"""envoy/istio.yaml and envoy/envoy-gateway.yaml: as much of them as can be told without a cluster."""

import json
import re
import subprocess

import pytest
import yaml

from .harness import shipped_config
from .harness.gateway import cluster, connection_manager, listener
from .harness.processes import ROOT, cli_binary

SIGN_IN, RESOURCE = "login.microsoftonline.com", "my-resource.openai.azure.com"


class Documents:
    """The resources of a file, by kind and name."""

    def __init__(self, name: str):
        text = (ROOT / "envoy" / name).read_text()
        self.all = list(yaml.safe_load_all(text))

    def spec(self, kind: str, name: str) -> dict:
        (found,) = (one for one in self.all if (one["kind"], one["metadata"]["name"]) == (kind, name))
        return found["spec"]


@pytest.fixture(scope="module")
def istio():
    return Documents("istio.yaml")


@pytest.fixture(scope="module")
def envoy_gateway():
    return Documents("envoy-gateway.yaml")


@pytest.fixture
def policies(istio, envoy_gateway):
    (extension,) = envoy_gateway.spec("EnvoyExtensionPolicy", "tollgate")["wasm"]
    return {
        "istio": istio.spec("WasmPlugin", "tollgate")["pluginConfig"],
        "envoy-gateway": extension["config"],
    }


@pytest.mark.parametrize("gateway", ("istio", "envoy-gateway"))
def test_the_policy_is_good(policies, directory, gateway):
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "policy.json"

    def check(policy):
        file.write_text(json.dumps(policy))
        return subprocess.run([cli_binary(), "check", file], capture_output=True, text=True)

    policy = policies[gateway]
    assert policy["default_app"] == {"access": "deny"}
    done = check(policy)
    assert done.returncode == 0, done.stdout + done.stderr
    assert check({**policy, "issuer": []}).returncode == 1


@pytest.mark.parametrize("gateway", ("istio", "envoy-gateway"))
def test_it_fails_closed(istio, envoy_gateway, gateway):
    if gateway == "istio":
        assert istio.spec("WasmPlugin", "tollgate")["failStrategy"] in ("FAIL_CLOSE", "FAIL_RELOAD")
    else:
        assert envoy_gateway.spec("EnvoyExtensionPolicy", "tollgate")["wasm"][0]["failOpen"] is False


def test_istio_has_the_cluster_that_the_policy_names(istio, policies):
    entry = istio.spec("ServiceEntry", "entra")
    (host,), (port,) = entry["hosts"], entry["ports"]
    assert policies["istio"]["issuers"][0]["cluster"] == f"outbound|{port['number']}||{host}"


def test_envoy_gateway_has_the_cluster_that_the_policy_names(envoy_gateway, policies):
    (route,) = (one for one in envoy_gateway.all if (one["kind"], one["metadata"]["name"]) == ("HTTPRoute", "entra"))
    backends = route["spec"]["rules"][0]["backendRefs"]
    assert [backend["name"] for backend in backends] == ["entra"]
    cluster = f"httproute/{route['metadata']['namespace']}/entra/rule/0"
    assert policies["envoy-gateway"]["issuers"][0]["cluster"] == cluster


@pytest.mark.parametrize(("name", "host"), (("entra", SIGN_IN), ("azure-openai", RESOURCE)))
def test_g16_certificates_have_to_name_the_host(istio, envoy_gateway, name, host):
    rule = istio.spec("DestinationRule", name)
    assert istio.spec("ServiceEntry", name)["hosts"] == [rule["host"]] == [host]
    # `system` is the default too, and said for `istioctl analyze` (G16).
    tls = {"mode": "SIMPLE", "sni": host, "subjectAltNames": [host], "caCertificates": "system"}
    assert rule["trafficPolicy"]["tls"] == tls

    (endpoint,) = envoy_gateway.spec("Backend", name)["endpoints"]
    policy = envoy_gateway.spec("BackendTLSPolicy", name)
    assert endpoint["fqdn"] == {"hostname": host, "port": 443}
    assert policy["targetRefs"] == [{"group": "gateway.envoyproxy.io", "kind": "Backend", "name": name}]
    assert policy["validation"] == {"hostname": host, "wellKnownCACertificates": "System"}


def test_istio_gets_the_listeners_settings(istio):
    patches = istio.spec("EnvoyFilter", "openai-listener")["configPatches"]
    buffers, manager, _ = (one["patch"]["value"] for one in patches)
    theirs, ours = manager["typed_config"], connection_manager(shipped_config())
    assert theirs.items() <= ours.items()
    left_out = {
        # Istio's own, by its gateway's topology and its telemetry, and Envoy's default.
        "use_remote_address", "internal_address_config", "access_log",
        "stat_prefix", "http_filters", "route_config",
    }  # fmt: skip
    assert ours.keys() - theirs.keys() == left_out
    assert buffers.items() <= listener(shipped_config()).items()


def test_istio_gets_what_stands_in_the_bootstrap(istio):
    """As docs/gateways.md installs the gateway: the labels from a ConfigMap, the numbers from an annotation."""
    (labels,) = (one for one in istio.all if one["kind"] == "ConfigMap")
    shipped = shipped_config()
    bootstrap = yaml.safe_load(labels["data"]["custom_bootstrap.json"])
    assert bootstrap == {"stats_config": shipped["stats_config"]}

    document = (ROOT / "docs" / "gateways.md").read_text()
    values = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", document, re.DOTALL)[0])
    annotations = values["podAnnotations"]
    assert annotations["sidecar.istio.io/componentLogLevel"] == "wasm:info"
    config = yaml.safe_load(annotations["proxy.istio.io/config"])
    assert annotations["sidecar.istio.io/bootstrapOverride"] == labels["metadata"]["name"]
    (layer,) = shipped["layered_runtime"]["layers"]
    (monitor,) = shipped["overload_manager"]["resource_monitors"]
    assert config["runtimeValues"] == {name: str(number) for name, number in layer["static_layer"].items()}
    connections = str(monitor["typed_config"]["max_active_downstream_connections"])
    assert config["proxyMetadata"] == {"ISTIO_META_GLOBAL_DOWNSTREAM_MAX_CONNECTIONS": connections}


def test_g18_the_mesh_sends_azure_nothing_about_itself():
    document = (ROOT / "docs" / "gateways.md").read_text()
    values = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", document, re.DOTALL)[0])
    config = yaml.safe_load(values["podAnnotations"]["proxy.istio.io/config"])
    assert config["proxyHeaders"] == {"metadataExchangeHeaders": {"mode": "IN_MESH"}}


def test_istio_has_one_gateway_for_it(istio):
    """A selector that meets another gateway would guard what is not Azure's."""
    for labels in (
        istio.spec("WasmPlugin", "tollgate")["selector"]["matchLabels"],
        istio.spec("Gateway", "openai")["selector"],
        istio.spec("EnvoyFilter", "openai-listener")["workloadSelector"]["labels"],
    ):
        assert labels == {"istio": "openai"}
    assert {one["metadata"]["namespace"] for one in istio.all} == {"openai"}


def test_a_call_is_made_once_and_its_connection_is_not_forgotten(istio, envoy_gateway):
    (route,) = istio.spec("VirtualService", "openai")["http"]
    assert route["retries"] == {"attempts": 0}
    azure = yaml.safe_load((ROOT / "envoy" / "azure.yaml").read_text())
    keepalive = cluster(azure, "azure_openai")["upstream_connection_options"]["tcp_keepalive"]
    time, interval = (f"{keepalive[name]}s" for name in ("keepalive_time", "keepalive_interval"))
    pool = istio.spec("DestinationRule", "azure-openai")["trafficPolicy"]["connectionPool"]
    assert pool["tcp"]["tcpKeepalive"] == {"time": time, "interval": interval}
    policy = envoy_gateway.spec("BackendTrafficPolicy", "azure-openai")
    assert policy["tcpKeepalive"] == {"idleTime": time, "interval": interval}
    # Envoy Gateway tries again only where a policy says so.
    assert "retry" not in policy


def test_envoy_gateway_gets_the_listeners_settings(envoy_gateway):
    ours, theirs = connection_manager(shipped_config()), envoy_gateway.spec("ClientTrafficPolicy", "openai")
    assert theirs["path"] == {"escapedSlashesAction": "RejectRequest", "disableMergeSlashes": not ours["merge_slashes"]}
    assert theirs["headers"] == {"withUnderscoresAction": "RejectRequest"}
    assert theirs["http2"] == {"maxConcurrentStreams": ours["http2_protocol_options"]["max_concurrent_streams"]}
    assert theirs["timeout"]["http"] == {
        "requestReceivedTimeout": ours["request_timeout"],
        "requestHeadersReceivedTimeout": ours["request_headers_timeout"],
        "streamIdleTimeout": ours["stream_idle_timeout"],
        "idleTimeout": ours["common_http_protocol_options"]["idle_timeout"],
    }


def test_g7_letter_case_does_not_change_the_route(istio, envoy_gateway):
    first = connection_manager(shipped_config())["route_config"]["virtual_hosts"][0]["routes"][0]
    assert first["match"] == {"prefix": "/openai/", "case_sensitive": False}
    (match,) = istio.spec("VirtualService", "openai")["http"][0]["match"]
    assert match == {"uri": {"prefix": "/openai/"}, "ignoreUriCase": True}
    # The Gateway API's prefixes have one letter case; its expressions need not (G7).
    (match,) = envoy_gateway.spec("HTTPRoute", "azure-openai")["rules"][0]["matches"]
    assert match == {"path": {"type": "RegularExpression", "value": "(?i)/openai/.*"}}


def test_g12_headers_that_replace_path_or_host_are_removed(istio, envoy_gateway):
    removed = connection_manager(shipped_config())["route_config"]["request_headers_to_remove"]
    assert "x-forwarded-host" in removed
    assert istio.spec("VirtualService", "openai")["http"][0]["headers"]["request"]["remove"] == removed
    filters = envoy_gateway.spec("HTTPRoute", "azure-openai")["rules"][0]["filters"]
    assert [one["requestHeaderModifier"]["remove"] for one in filters if "requestHeaderModifier" in one] == [removed]


def interlock(config: dict) -> dict:
    """The interlock of a plain Envoy file."""
    (found,) = (one for one in connection_manager(config)["http_filters"] if one["name"] == "interlock")
    return found


def shipped(name: str) -> dict:
    return yaml.safe_load((ROOT / "envoy" / name).read_text())


def patches_of(documents: Documents, name: str) -> list[dict]:
    spec = documents.spec("EnvoyPatchPolicy", name)
    assert spec["targetRef"] == {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "openai"}
    assert {one["name"] for one in spec["jsonPatches"]} == {"openai/openai/https"}
    return [one["operation"] for one in spec["jsonPatches"]]


def test_g1_g4_every_file_has_the_interlock_before_the_router(istio, envoy_gateway):
    """Between the module and the router, with one exact match; and no filter follows but the router."""
    ours = interlock(shipped_config())
    policies = ours["typed_config"]["rules"]["policies"]
    matcher = {"key": "wasm.tollgate.passed", "string_match": {"exact": "true"}}
    assert policies == {"passed": {"permissions": [{"any": True}], "principals": [{"filter_state": matcher}]}}
    assert ours["typed_config"]["rules"]["action"] == "ALLOW"
    for name in ("envoy.yaml", "azure.yaml"):
        filters = [one["name"] for one in connection_manager(shipped(name))["http_filters"]]
        assert filters == ["tollgate", "interlock", "envoy.filters.http.router"], name
        assert interlock(shipped(name)) == ours, name

    patch = istio.spec("EnvoyFilter", "openai-listener")["configPatches"][-1]
    assert patch["match"]["listener"]["filterChain"]["filter"]["subFilter"] == {"name": "envoy.filters.http.router"}
    assert patch["patch"] == {"operation": "INSERT_BEFORE", "value": ours}
    assert istio.spec("EnvoyFilter", "openai-listener")["priority"] == 10

    patch, _, _ = patches_of(envoy_gateway, "interlock")
    assert patch == {
        "op": "add",
        "jsonPath": "..http_filters[?(@.name=='envoy.filters.http.router')]",
        "value": ours,
    }
    authorization = envoy_gateway.spec("SecurityPolicy", "interlock")["authorization"]
    assert authorization["defaultAction"] == "Deny"
    (rule,) = authorization["rules"]
    assert rule["action"] == "Allow" and "wasm.tollgate.passed" in rule["cel"]


def test_g2_g4_the_interlock_comes_first_and_what_it_guards_last(istio, envoy_gateway):
    """As `kubectl apply` goes through a file, and `kubectl delete` too."""
    kinds = [(one["kind"], one["metadata"]["name"]) for one in istio.all]
    assert kinds[0] == ("EnvoyFilter", "openai-listener") and kinds[-1] == ("WasmPlugin", "tollgate")
    kinds = [(one["kind"], one["metadata"]["name"]) for one in envoy_gateway.all]
    assert kinds[:2] == [("EnvoyPatchPolicy", "interlock"), ("SecurityPolicy", "interlock")]
    assert kinds.index(("HTTPRoute", "entra")) < kinds.index(("EnvoyExtensionPolicy", "tollgate"))
    assert kinds[-1] == ("HTTPRoute", "azure-openai")


def test_g1_envoy_gateways_filter_is_on_everywhere(envoy_gateway):
    """Found by the plugin's name: the filter's is made of the policy's."""
    (extension,) = envoy_gateway.spec("EnvoyExtensionPolicy", "tollgate")["wasm"]
    found = f"..http_filters[?(@.typed_config.config.name=='{extension['name']}')]"
    values = {}
    for patch in patches_of(envoy_gateway, "tollgate"):
        assert patch["op"] == "add" and patch["jsonPath"] in (found, f"{found}.typed_config.config")
        values[patch["path"]] = patch["value"]
    ours = connection_manager(shipped_config())["http_filters"][0]["typed_config"]["config"]
    assert values == {
        "disabled": False,
        "failure_policy": ours["failure_policy"],
        "capability_restriction_config": ours["vm_config"]["capability_restriction_config"],
    }


def test_j8_every_file_has_the_same_local_replies(istio, envoy_gateway):
    ours = connection_manager(shipped_config())["local_reply_config"]
    assert connection_manager(shipped("azure.yaml"))["local_reply_config"] == ours
    _, patch, continues = patches_of(envoy_gateway, "interlock")
    assert (continues["path"], continues["value"]) == ("proxy_100_continue", True)
    assert connection_manager(shipped_config())["proxy_100_continue"] is True
    assert patch["jsonPath"] == "..filters[?(@.name=='envoy.filters.network.http_connection_manager')].typed_config"
    assert (patch["path"], patch["value"]) == ("local_reply_config", ours)
    manager = istio.spec("EnvoyFilter", "openai-listener")["configPatches"][1]["patch"]["value"]["typed_config"]
    assert manager["local_reply_config"] == ours


def test_g5_envoy_gateways_access_log_has_no_keys(envoy_gateway):
    spec = envoy_gateway.spec("EnvoyProxy", "openai")
    (setting,) = spec["telemetry"]["accessLog"]["settings"]
    (ours,) = connection_manager(shipped_config())["access_log"]
    assert setting["format"] == {"type": "JSON", "json": ours["typed_config"]["log_format"]["json_format"]}
    assert not re.search(r":path|%PATH\((?!NQ)|x-envoy-original-path", json.dumps(setting), re.IGNORECASE)
    assert spec["logging"] == {"level": {"default": "warn", "wasm": "info"}}
    assert spec["bootstrap"]["type"] == "Merge"
    assert yaml.safe_load(spec["bootstrap"]["value"]) == {"stats_config": shipped_config()["stats_config"]}
    reference = {"group": "gateway.envoyproxy.io", "kind": "EnvoyProxy", "name": "openai"}
    assert envoy_gateway.spec("Gateway", "openai")["infrastructure"] == {"parametersRef": reference}


def test_g6_g9_breakers_are_explicit_and_no_cluster_is_merged_away(envoy_gateway):
    for name, ours in (("azure-openai", "azure_openai"), ("entra", "entra")):
        policy = envoy_gateway.spec("BackendTrafficPolicy", name)
        reference = {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": name}
        assert policy["targetRefs"] == [reference]
        ((theirs,), mine) = (cluster(shipped_config(), ours)["circuit_breakers"]["thresholds"], policy["circuitBreaker"])
        assert mine == {
            "maxConnections": theirs["max_connections"],
            "maxPendingRequests": theirs["max_pending_requests"],
            "maxParallelRequests": theirs["max_requests"],
            "maxParallelRetries": theirs["max_retries"],
        }


def test_g8_websockets_have_a_backend_with_http_1(envoy_gateway):
    assert envoy_gateway.spec("Backend", "azure-openai")["tls"] == {"alpnProtocols": ["http/1.1"]}


def test_g10_digests_are_64_digits(istio):
    """Where they are shown, in the way that is taken."""
    text = (ROOT / "envoy" / "istio.yaml").read_text()
    assert re.search(r"# sha256: 0{64}$", text, re.MULTILINE)
    for name in ("istio.yaml", "envoy-gateway.yaml"):
        text = (ROOT / "envoy" / name).read_text()
        assert "64 digits" in text, name
        assert not re.search(r"sha256: .?sha256:", text), name


def test_l10_every_cluster_has_explicit_breakers(istio):
    needed = {"max_connections", "max_pending_requests", "max_requests", "max_retries"}
    for name in ("envoy.yaml", "azure.yaml", "global-limits.yaml", "compose/metrics.yaml"):
        for found in shipped(name)["static_resources"]["clusters"]:
            (thresholds,) = found["circuit_breakers"]["thresholds"]
            assert thresholds.keys() == needed, (name, found["name"])
    for name in ("entra", "azure-openai"):
        pool = istio.spec("DestinationRule", name)["trafficPolicy"]["connectionPool"]
        assert pool["tcp"]["maxConnections"] > 0
        assert pool["http"].keys() == {"http1MaxPendingRequests", "http2MaxRequests", "maxRetries"}


def section(title: str) -> str:
    """A section of the page on gateways."""
    document = (ROOT / "docs" / "gateways.md").read_text()
    (found,) = re.findall(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", document, re.DOTALL | re.MULTILINE)
    return found


def rows(text: str) -> list[list[str]]:
    """The cells of a section's first table, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.mark.parametrize(
    ("failure", "istio_code", "envoy_gateway_code"),
    [
        ("the image cannot be fetched", "403", "500"),
        ("`sha256` with the prefix", "", "500"),
        ("the policy is refused at a first start", "500", "503"),
        ("the policy is refused later", "the old one stays", "the old one stays"),
        ("the module's policy object is deleted", "403 `GatewayNotGuarded`", "403 `GatewayNotGuarded`"),
    ],
)
def test_g11_g17_the_page_has_what_each_failure_returns(failure, istio_code, envoy_gateway_code):
    (found,) = (cells for cells in rows(section("What each failure returns")) if cells[0].startswith(failure))
    assert found[2].startswith(istio_code) and found[3].startswith(envoy_gateway_code)


def test_g19_the_page_has_what_was_run_and_when():
    run = {cells[0].split(" (")[0]: cells[1] for cells in rows(section("What was run"))}
    for name in ("Istio 1.28.10 and 1.30.3", "Envoy Gateway 1.9.0"):
        assert re.match(r"\d{4}-\d\d-\d\d: ", run[name]), name
    assert "None of this was run" not in (ROOT / "docs" / "gateways.md").read_text()


@pytest.mark.parametrize("plugin", ["tollgate", "openai.tollgate", "openai.tollgate~istio-translated-wasmplugin"])
def test_g15_the_alert_on_reloads_matches_the_plugin_by_any_name(plugin):
    (group,) = yaml.safe_load((ROOT / "envoy/compose/alerts.yaml").read_text())["groups"]
    (expression,) = (rule["expr"] for rule in group["rules"] if rule["alert"] == "TollgateModuleWasReloaded")
    matchers = set(re.findall(r'__name__=~"([^"]*)"', expression))
    # As Prometheus names it.
    metric = re.sub(r"[^a-zA-Z0-9]", "_", f"envoy_wasm_{plugin}_vm_reload_")
    for kind in ("success", "failure", "backoff"):
        assert all(re.fullmatch(matcher, metric + kind) for matcher in matchers)
    assert matchers
