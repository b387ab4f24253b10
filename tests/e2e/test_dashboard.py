"""The shipped dashboard: each of its queries has data in a Prometheus that scrapes a real Envoy."""

import os

import pytest

from .harness import dashboard

HOW = "`make test-dashboard` fetches Prometheus from Debian; or set PROMETHEUS to its path"


@pytest.fixture(scope="module")
def binary():
    found = dashboard.prometheus_binary()
    if found is None:
        if os.environ.get("REQUIRE_PROMETHEUS") == "1":
            pytest.fail(f"no Prometheus here: {HOW}")
        pytest.skip(f"NOT CHECKED, no Prometheus here: {HOW}")
    return found


def test_every_panel_shows_the_running_gateway(start_gateway, own_stand_ins, binary, directory):
    gateway = start_gateway(own_stand_ins)
    with dashboard.LocalPrometheus(binary, directory / "prometheus", gateway.admin) as prometheus:
        problems = dashboard.check(prometheus, gateway, own_stand_ins)
    assert not problems, "\n".join(problems)


def test_a_query_without_data_is_told(start_gateway, own_stand_ins, binary, directory):
    gateway = start_gateway(own_stand_ins)
    unknown = dashboard.Query("Unknown", "sum by (app) (rate(tollgate_unknown[30s]))")
    still = dashboard.Query("Calls", 'sum(rate(tollgate_requests{app="nobody"}[30s]) or vector(0))')
    with dashboard.LocalPrometheus(binary, directory / "prometheus", gateway.admin) as prometheus:
        assert "no data" in dashboard.lacks(prometheus, unknown)
        assert "nothing above 0" in dashboard.lacks(prometheus, still)
