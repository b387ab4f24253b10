"""A gateway that answers itself, so that nothing but it is under load."""

import copy

from .gateway import connection_manager, listener


def answer_directly(config: dict) -> None:
    """Envoy answers 200, and 404 to `/not-found`, and keeps no access log."""
    manager = connection_manager(config)
    del manager["access_log"]
    content_type = {"header": {"key": "content-type", "value": "application/json"}}
    routes = [
        {
            "match": {"prefix": path},
            "direct_response": {"status": status, "body": {"inline_string": "{}"}},
            "response_headers_to_add": [content_type],
        }
        for path, status in (("/not-found", 404), ("/", 200))
    ]
    host = {"name": "direct", "domains": ["*"], "routes": routes}
    manager["route_config"] = {"name": "direct", "virtual_hosts": [host]}


def add_refusing_listener(config: dict, port: int) -> None:
    """A listener beside the gateway's, with neither the module nor any other filter, that answers 401."""
    added = copy.deepcopy(listener(config))
    added["name"] = "refusing"
    added["address"]["socket_address"]["port_value"] = port
    manager = added["filter_chains"][0]["filters"][0]["typed_config"]
    manager["stat_prefix"] = "refusing"
    manager["http_filters"] = manager["http_filters"][-1:]
    answer = {"status": 401, "body": {"inline_string": '{"error":{"code":"None"}}'}}
    content_type = {"header": {"key": "content-type", "value": "application/json"}}
    route = {"match": {"prefix": "/"}, "direct_response": answer, "response_headers_to_add": [content_type]}
    manager["route_config"]["virtual_hosts"] = [{"name": "refusing", "domains": ["*"], "routes": [route]}]
    config["static_resources"]["listeners"].append(added)
