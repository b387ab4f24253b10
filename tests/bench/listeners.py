"""The rows of the benchmark: one Envoy, one worker, a listener for each chain that is measured."""

import copy
import json
from pathlib import Path

from e2e.harness import AUDIENCE, TENANT, StandIns
from e2e.harness.gateway import connection_manager, listener, plugin, set_endpoint, shipped_config
from e2e.harness.processes import free_port, module

OK = ("application/json", "{}")


# A backend behind the gateway, that streams: for the time to the first byte.
STREAMED = None


def routes(answer: tuple[str, str] | None) -> dict:
    """Routes that answer at once, with this type and body; or that lead to a backend."""
    if answer is STREAMED:
        route = {"match": {"prefix": "/"}, "route": {"cluster": "azure_openai", "timeout": "0s"}}
        return {"name": "streamed", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]}
    content_type = {"header": {"key": "content-type", "value": answer[0]}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
    route = {
        "match": {"prefix": "/"},
        "direct_response": {"status": 200, "body": {"inline_string": answer[1]}},
        "response_headers_to_add": [content_type],
    }
    return {
        "name": "direct",
        "max_direct_response_body_size_bytes": 1_000_000,
        "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}],
    }


WASM = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm"
FILTERS = "type.googleapis.com/envoy.extensions.filters.http"


class Chains:
    """Builds one Envoy configuration out of named filter chains."""

    def __init__(self, stand_ins: StandIns):
        self.stand_ins = stand_ins
        self.ports: dict[str, int] = {}
        self._config = shipped_config()
        set_endpoint(self._config, "entra", stand_ins.addresses["entra-http"])
        set_endpoint(self._config, "azure_openai", stand_ins.addresses["openai"])
        self._template = listener(self._config)
        self._wasm = plugin(self._config)
        # The interlock is in no chain but its own.
        self.interlock, self._router = connection_manager(self._config)["http_filters"][-2:]
        self._config["static_resources"]["listeners"] = []

    def add(self, name: str, filters: list[dict], answer: tuple[str, str] | None = OK) -> None:
        """A listener with these filters, which answers itself or leads to the backend."""
        config = copy.deepcopy(self._template)
        self.ports[name] = free_port()
        config["name"] = name
        config["address"]["socket_address"]["port_value"] = self.ports[name]
        manager = config["filter_chains"][0]["filters"][0]["typed_config"]
        manager["stat_prefix"] = name
        del manager["access_log"]
        manager["route_config"] = routes(answer)
        manager["http_filters"] = [*filters, self._router]
        self._config["static_resources"]["listeners"].append(config)

    def add_again(self, name: str, new_name: str, module: Path) -> None:
        """A listener like one that there is, with another module in a VM of its own."""
        listeners = self._config["static_resources"]["listeners"]
        config = copy.deepcopy(next(found for found in listeners if found["name"] == name))
        self.ports[new_name] = free_port()
        config["name"] = new_name
        config["address"]["socket_address"]["port_value"] = self.ports[new_name]
        manager = config["filter_chains"][0]["filters"][0]["typed_config"]
        manager["stat_prefix"] = new_name
        plugin = manager["http_filters"][0]["typed_config"]["config"]
        plugin["name"] = plugin["vm_config"]["vm_id"] = new_name
        plugin["vm_config"]["code"]["local"]["filename"] = str(module)
        listeners.append(config)

    def keep(self, names: set[str]) -> None:
        """Leaves out the other listeners."""
        resources = self._config["static_resources"]
        resources["listeners"] = [listener for listener in resources["listeners"] if listener["name"] in names]

    def tollgate(self, name: str, policy: dict) -> list[dict]:
        """The filter with a policy of its own, in a VM of its own."""
        config = copy.deepcopy(self._wasm)
        config["name"] = config["vm_config"]["vm_id"] = name
        config["vm_config"]["code"]["local"]["filename"] = str(module())
        config["configuration"]["value"] = json.dumps(policy)
        return [{"name": "tollgate", "typed_config": {"@type": WASM, "config": config}}]

    def policy(self, **members) -> dict:
        """A policy whose keys are fetched from the stand-in, without a request log."""
        issuer = {
            "tenant_id": TENANT,
            "authority": self.stand_ins.entra.authority,
            "audiences": [AUDIENCE],
            "cluster": "entra",
        }
        log = {"requests": False, "filter_state": ["app_id"]}
        return {"issuers": [issuer], "log": log, **members}

    def native(self, keys: str, cache: bool) -> list[dict]:
        """What Envoy brings for the same: jwt_authn, rbac against `api-key`, local_ratelimit by `appid`."""
        issuer = f"https://sts.windows.net/{TENANT}/"
        provider = {
            "issuer": issuer,
            "audiences": [AUDIENCE],
            "forward": True,
            "payload_in_metadata": "payload",
            "local_jwks": {"inline_string": keys},
        }
        if cache:
            provider["jwt_cache_config"] = {"jwt_cache_size": 10_000}
        has_key = {"header": {"name": "api-key", "present_match": True}}
        bucket = {"max_tokens": 1_000_000_000, "tokens_per_fill": 1_000_000_000, "fill_interval": "60s"}
        by_app = {"key": "envoy.filters.http.jwt_authn", "path": [{"key": "payload"}, {"key": "appid"}]}
        return [
            {
                "name": "rbac",
                "typed_config": {
                    "@type": f"{FILTERS}.rbac.v3.RBAC",
                    "rules": {
                        "action": "DENY",
                        "policies": {"keys": {"permissions": [has_key], "principals": [{"any": True}]}},
                    },
                },
            },
            {
                "name": "envoy.filters.http.jwt_authn",
                "typed_config": {
                    "@type": f"{FILTERS}.jwt_authn.v3.JwtAuthentication",
                    "providers": {"entra": provider},
                    "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "entra"}}],
                },
            },
            {
                "name": "local_ratelimit",
                "typed_config": {
                    "@type": f"{FILTERS}.local_ratelimit.v3.LocalRateLimit",
                    "stat_prefix": "limit",
                    "token_bucket": bucket,
                    "filter_enabled": {"default_value": {"numerator": 100}},
                    "filter_enforced": {"default_value": {"numerator": 100}},
                    "rate_limits": [
                        {"actions": [{"metadata": {"descriptor_key": "app", "metadata_key": by_app}}]}
                    ],
                    "descriptors": [{"entries": [{"key": "app"}], "token_bucket": bucket}],
                },
            },
        ]

    def config(self) -> dict:
        """The whole bootstrap."""
        self._config["admin"]["address"]["socket_address"]["port_value"] = 0
        return self._config
