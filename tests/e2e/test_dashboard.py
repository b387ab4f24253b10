"""The shipped dashboard: each of its queries has data in a Prometheus that scrapes a real Envoy."""

import os

import pytest

from .harness import call, dashboard

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
