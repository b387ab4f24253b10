"""The CORS recipe of docs/clients.md, as it is written there."""

import re

import pytest
import yaml

from .harness.gateway import connection_manager
from .harness.processes import ROOT

ORIGIN = "https://app.example"


def recipe() -> tuple[list, dict]:
    """The filter and the virtual host's part."""
    text = (ROOT / "docs" / "clients.md").read_text()
    http_filters, virtual_host = re.findall(r"```yaml\n(.*?)```", text, re.S)
    return yaml.safe_load(http_filters), yaml.safe_load(virtual_host)


@pytest.fixture
def gateway(start_gateway, stand_ins):
    def edit(config):
        http_filters, virtual_host = recipe()
        manager = connection_manager(config)
        manager["http_filters"] = [*http_filters, *manager["http_filters"]]
        manager["route_config"]["virtual_hosts"][0].update(virtual_host)

    return start_gateway(stand_ins, edit=edit)


def test_j13_browsers_see_a_denial_and_its_headers(gateway):
    denied = gateway.chat(headers=[("origin", ORIGIN)])
    assert denied.verdict == (401, "TokenNotPresent")
    assert denied.header("access-control-allow-origin") == ORIGIN
    exposed = denied.header("access-control-expose-headers")
    assert "x-request-id" in exposed and "retry-after" in exposed
    other = gateway.chat(headers=[("origin", "https://other.example")])
    assert other.status == 401 and other.header("access-control-allow-origin") is None


def test_j13_preflights_need_no_token_and_reach_no_backend(gateway):
    asked = [("origin", ORIGIN), ("access-control-request-method", "POST")]
    preflight = gateway.request("OPTIONS", "/openai/v1/chat/completions", headers=asked)
    assert preflight.status == 200
    assert preflight.header("access-control-allow-origin") == ORIGIN
    assert "authorization" in preflight.header("access-control-allow-headers")
    assert preflight.header("x-stand-in") is None
