"""The shipped dashboard: each of its queries has data in a Prometheus that scrapes a real Envoy."""

import os
import re

import pytest
import yaml

from .harness import APP_BATCH, call, dashboard
from .harness.processes import ROOT, wait_until

HOW = "`make test-dashboard` fetches Prometheus from Debian; or set PROMETHEUS to its path"


@pytest.fixture(scope="module")
def binary():
    found = dashboard.prometheus_binary()
    if found is None:
        if os.environ.get("REQUIRE_PROMETHEUS") == "1":
            pytest.fail(f"no Prometheus here: {HOW}")
        pytest.skip(f"NOT CHECKED, no Prometheus here: {HOW}")
    return found


def start_with_metrics(start_gateway, stand_ins):
    """A gateway, and where it shows its metrics to others."""
    where = []
    gateway = start_gateway(stand_ins, edit=lambda config: where.append(dashboard.add_metrics_listener(config)))
    return gateway, where[0]


@pytest.fixture
def scraped(start_gateway, own_stand_ins, binary, directory):
    """A gateway, and a Prometheus that sees it through the listener for metrics."""
    gateway, metrics = start_with_metrics(start_gateway, own_stand_ins)
    with dashboard.LocalPrometheus(binary, directory / "prometheus", metrics) as prometheus:
        yield gateway, prometheus


def test_every_panel_shows_the_running_gateway(scraped, own_stand_ins):
    gateway, prometheus = scraped
    problems = dashboard.check(prometheus, gateway, own_stand_ins)
    assert not problems, "\n".join(problems)


def test_a_query_without_data_is_told(scraped):
    _, prometheus = scraped
    unknown = dashboard.Query("Unknown", "sum by (app) (rate(tollgate_unknown[30s]))")
    still = dashboard.Query("Calls", 'sum(rate(tollgate_requests{app="nobody"}[30s]) or vector(0))')
    assert "no data" in dashboard.lacks(prometheus, unknown)
    assert "nothing above 0" in dashboard.lacks(prometheus, still)


def test_alerts_fire_when_they_should(scraped, own_stand_ins):
    """Every rule is evaluated; those that something happened for fire, those that say all is lost do not."""
    gateway, prometheus = scraped
    token = own_stand_ins.entra.mint(APP_BATCH)

    def fired():
        gateway.chat(token, [("api-key", "0123456789abcdef")])
        gateway.chat(token)
        alerts = prometheus.alerts()
        assert {alert["health"] for alert in alerts.values()} <= {"ok", "unknown"}, alerts
        told = {name for name, alert in alerts.items() if alert["state"] != "inactive"}
        return {"TollgateApiKeysAreSent", "TollgateAppIsLimited"} <= told and told

    told = wait_until(fired, 40, "alerts", every=0.5)
    assert told == {"TollgateApiKeysAreSent", "TollgateAppIsLimited"}
    alerts = prometheus.alerts().values()
    assert {alert["health"] for alert in alerts} == {"ok"}
    queries = [alert["query"] for alert in alerts]
    # By an expression, or by a name that is in no quotes.
    metrics = {found for query in queries for found in re.findall(r'\{__name__=~"[^"]*"\}', query)}
    names = [re.findall(r"(?:tollgate|envoy)_\w+|\bup\b", re.sub(r'"[^"]*"', "", query)) for query in queries]
    metrics |= {name for found in names for name in found if name != "envoy_rbac_http_prefix"}
    assert len(metrics) >= 4
    assert [name for name in metrics if not prometheus.query(name)] == []


def test_every_alert_is_explained():
    document = (ROOT / "docs" / "running.md").read_text()
    (group,) = yaml.safe_load(dashboard.ALERTS.read_text())["groups"]
    names = [rule["alert"] for rule in group["rules"]]
    assert names and [name for name in names if f"| `{name}` |" not in document] == []


def test_the_listener_for_metrics_shows_nothing_else(start_gateway, own_stand_ins):
    _, metrics = start_with_metrics(start_gateway, own_stand_ins)
    assert b"envoy_server_uptime" in call(metrics, "GET", "/stats/prometheus").body
    for method, path in [
        ("GET", "/"),
        ("GET", "/config_dump"),
        ("GET", "/stats/prometheus/../../config_dump"),
        ("POST", "/stats/prometheus"),
        ("POST", "/quitquitquit"),
    ]:
        assert call(metrics, method, path).status == 404, (method, path)
