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
def test_certificates_have_to_name_the_host(istio, envoy_gateway, name, host):
    rule = istio.spec("DestinationRule", name)
    assert istio.spec("ServiceEntry", name)["hosts"] == [rule["host"]] == [host]
    assert rule["trafficPolicy"]["tls"] == {"mode": "SIMPLE", "sni": host, "subjectAltNames": [host]}

    (endpoint,) = envoy_gateway.spec("Backend", name)["endpoints"]
    policy = envoy_gateway.spec("BackendTLSPolicy", name)
    assert endpoint["fqdn"] == {"hostname": host, "port": 443}
    assert policy["targetRefs"] == [{"group": "gateway.envoyproxy.io", "kind": "Backend", "name": name}]
    assert policy["validation"] == {"hostname": host, "wellKnownCACertificates": "System"}


def test_istio_gets_the_listeners_settings(istio):
    buffers, manager = (one["patch"]["value"] for one in istio.spec("EnvoyFilter", "openai-listener")["configPatches"])
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
    assert pool == {"tcp": {"tcpKeepalive": {"time": time, "interval": interval}}}
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


def test_letter_case_does_not_change_the_route(istio, envoy_gateway):
    first = connection_manager(shipped_config())["route_config"]["virtual_hosts"][0]["routes"][0]
    assert first["match"] == {"prefix": "/openai/", "case_sensitive": False}
    (match,) = istio.spec("VirtualService", "openai")["http"][0]["match"]
    assert match == {"uri": {"prefix": "/openai/"}, "ignoreUriCase": True}
    # The Gateway API has no such field: another spelling meets no route, and 404 (docs/gateways.md).
    (match,) = envoy_gateway.spec("HTTPRoute", "azure-openai")["rules"][0]["matches"]
    assert match == {"path": {"type": "PathPrefix", "value": "/openai/"}}


def test_headers_that_replace_the_path_are_removed(istio, envoy_gateway):
    removed = connection_manager(shipped_config())["route_config"]["request_headers_to_remove"]
    assert istio.spec("VirtualService", "openai")["http"][0]["headers"]["request"]["remove"] == removed
    filters = envoy_gateway.spec("HTTPRoute", "azure-openai")["rules"][0]["filters"]
    assert [one["requestHeaderModifier"]["remove"] for one in filters if "requestHeaderModifier" in one] == [removed]
