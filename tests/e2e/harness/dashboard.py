"""The shipped dashboard, and a Prometheus that its queries are put to."""

import json
import os
import shutil
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from . import processes
from .gateway import set_endpoint
from .http import call
from .identities import APP_BATCH, APP_CHAT

DASHBOARD = processes.ROOT / "envoy" / "compose" / "grafana" / "tollgate.json"
SCRAPING = processes.ROOT / "envoy" / "compose" / "prometheus.yaml"

ALERTS = processes.ROOT / "envoy" / "compose" / "alerts.yaml"

METRICS = processes.ROOT / "envoy" / "compose" / "metrics.yaml"

# What Grafana puts in place of its variables: every application, and some scrapes of time.
VARIABLES = {"$__rate_interval": "30s", "$app": ".*"}


# Panels that show 0 while nothing happens to the keys, the counters and the module.
STILL = {"Age of the signing keys", "Key fetches", "Counter retries and VM reloads", "Denied by the interlock"}


@dataclass
class Query:
    """One line of a panel."""

    panel: str
    expression: str


def queries() -> Iterator[Query]:
    """Every query of the dashboard, as Grafana would send it."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel["targets"]:
            expression = target["expr"]
            for name, value in VARIABLES.items():
                expression = expression.replace(name, value)
            yield Query(panel["title"], expression)


class Prometheus:
    """Prometheus' API."""

    def __init__(self, address: tuple[str, int]):
        self.address = address

    def is_ready(self) -> bool:
        try:
            return call(self.address, "GET", "/-/ready").status == 200
        except OSError:
            return False

    def query(self, expression: str) -> dict[frozenset, float]:
        """An expression's value now: its series by their labels, as `Gateway.prometheus` has them."""
        path = "/api/v1/query?" + urllib.parse.urlencode({"query": expression})
        answer = call(self.address, "GET", path).json
        assert answer["status"] == "success", (expression, answer)
        found = {}
        for series in answer["data"]["result"]:
            labels = frozenset(f'{name}="{value}"' for name, value in series["metric"].items())
            found[labels] = float(series["value"][1])
        return found

    def alerts(self) -> dict[str, dict]:
        """The alerting rules by name, as they were last evaluated."""
        groups = call(self.address, "GET", "/api/v1/rules?type=alert").json["data"]["groups"]
        return {rule["name"]: rule for group in groups for rule in group["rules"]}


def check(prometheus: Prometheus, gateway, stand_ins, timeout: float = 40) -> list[str]:
    """Calls the gateway until every query has data and every busy panel moves; what still lacks at
    the end. A rate is 0 until a series has grown between two scrapes."""
    tokens = [stand_ins.entra.mint(app) for app in (APP_BATCH, APP_CHAT)]
    deadline = time.monotonic() + timeout
    while True:
        for token in tokens:
            gateway.chat(token)
        gateway.chat()
        missing = [problem for query in queries() if (problem := lacks(prometheus, query))]
        if not missing or time.monotonic() > deadline:
            return missing
        time.sleep(0.5)


def lacks(prometheus: Prometheus, query: Query) -> str | None:
    """Why a query shows nothing of a gateway that is being called."""
    series = prometheus.query(query.expression)
    if not series:
        return f"{query.panel}: no data for {query.expression}"
    if query.panel not in STILL and not any(value > 0 for value in series.values()):
        return f"{query.panel}: nothing above 0 for {query.expression}"
    return None


def prometheus_binary() -> Path | None:
    """PROMETHEUS, the one that `make` fetched from Debian, or an installed one."""
    found = os.environ.get("PROMETHEUS") or shutil.which("prometheus")
    return Path(found) if found else None


def add_metrics_listener(config: dict) -> tuple[str, int]:
    """Adds envoy/compose/metrics.yaml to a configuration, as --config-yaml does; where it listens."""
    added = yaml.safe_load(METRICS.read_text())["static_resources"]
    for kind, resources in added.items():
        config["static_resources"][kind] += resources
    where = added["listeners"][0]["address"]["socket_address"]
    where["address"], where["port_value"] = "127.0.0.1", processes.free_port()
    # The cluster leads to the admin page, whose port is otherwise Envoy's choice.
    admin = config["admin"]["address"]["socket_address"]
    admin["port_value"] = processes.free_port()
    set_endpoint(config, "admin", (admin["address"], admin["port_value"]))
    return where["address"], where["port_value"]


class LocalPrometheus(Prometheus):
    """Prometheus as a process, scraping one address as the shipped configuration says."""

    def __init__(self, binary: Path, directory: Path, target: tuple[str, int]):
        directory.mkdir(parents=True, exist_ok=True)
        config = yaml.safe_load(SCRAPING.read_text())
        config["global"] |= {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(ALERTS)]
        (job,) = config["scrape_configs"]
        job["static_configs"] = [{"targets": ["{}:{}".format(*target)]}]
        path = directory / "prometheus.yaml"
        path.write_text(yaml.safe_dump(config))
        super().__init__(("127.0.0.1", processes.free_port()))
        arguments = [binary, f"--config.file={path}", f"--storage.tsdb.path={directory / 'data'}"]
        arguments.append("--web.listen-address={}:{}".format(*self.address))
        shutil.rmtree(directory / "data", ignore_errors=True)
        self._child = processes.start(arguments, directory / "prometheus.log")

    def __enter__(self):
        try:
            processes.wait_until(self.is_ready, 30, "Prometheus is ready", every=0.1)
        except BaseException:
            processes.stop(self._child)
            raise
        return self

    def __exit__(self, *_):
        processes.stop(self._child)
