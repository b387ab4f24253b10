"""`make compose-test`: the demo's story through the containers of envoy/compose.yaml.

Where a registry answers, the images are the public ones and are built from source; elsewhere
tests/setup/images.sh makes stand-ins for them, without Grafana. IMAGES=public or IMAGES=local
decides otherwise. Without an engine it says so; with REQUIRE_DOCKER=1 that is a failure.
"""

import os
import re
import subprocess
import sys
from types import SimpleNamespace

import demo
from e2e.harness import Gateway, dashboard
from e2e.harness.gateway import SIGNS_OF_DEATH
from e2e.harness.http import call
from e2e.harness.processes import (
    ROOT,
    PortTaken,
    check_port_free,
    envoy_binary,
    exit_on_signals,
    module,
    stand_ins_binary,
    wait_until,
)
from e2e.harness.secrets import found_in
from e2e.harness.stand_ins import Entra, OpenAI

COMPOSE_FILE = ROOT / "envoy" / "compose.yaml"
DOCUMENT = ROOT / "docs" / "containers.md"
DOCUMENTED_PORTS = {
    "GATEWAY_PORT": 10000,
    "ENTRA_PORT": 9101,
    "OPENAI_PORT": 9103,
    "PROMETHEUS_PORT": 9090,
    "GRAFANA_PORT": 3000,
}
PORTS = {name: int(os.environ.get(name, port)) for name, port in DOCUMENTED_PORTS.items()}
SERVICES = ["stand-ins", "gateway", "prometheus"]


class NotChecked(Exception):
    """Why nothing could be run."""


def output(*command: str) -> str | None:
    """What a command prints, or None if it fails or is not there."""
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    except (OSError, subprocess.CalledProcessError):
        return None


def compose_command() -> list[str]:
    """`docker compose`, or the older `docker-compose`."""
    if output("docker", "info") is None:
        raise NotChecked("no Docker engine answers `docker info`")
    for command in (["docker", "compose"], ["docker-compose"]):
        if output(*command, "version") is not None:
            return command
    raise NotChecked("neither `docker compose` nor `docker-compose` is installed")


class Project:
    """The containers, under a name of their own."""

    def __init__(self, images: dict[str, str], local: bool):
        self._command = [*compose_command(), "--project-name", "tollgate-test", "--file", str(COMPOSE_FILE)]
        self._environment = {**os.environ, **images}
        self.local = local

    def run(self, *arguments: str) -> None:
        subprocess.run([*self._command, *arguments], check=True, cwd=ROOT, env=self._environment)

    def up(self, *services: str) -> None:
        self.run("up", "--detach", "--no-build" if self.local else "--build", *services)

    def log(self, service: str) -> str:
        """What a service wrote."""
        command = [*self._command, "logs", "--no-color", "--no-log-prefix", service]
        options = {"check": True, "capture_output": True, "text": True, "cwd": ROOT}
        done = subprocess.run(command, env=self._environment, **options)
        return done.stdout + done.stderr

    def down(self) -> None:
        self.run("down", "--volumes", "--remove-orphans", "--timeout", "5")


class ContainerGateway(Gateway):
    """The gateway's container, by what the story asks of a gateway."""

    def __init__(self, project: Project, prometheus: dashboard.Prometheus):
        self._project, self._prometheus = project, prometheus
        self.address = ("127.0.0.1", PORTS["GATEWAY_PORT"])
        self.url = "http://{}:{}".format(*self.address)

    def log_text(self) -> str:
        return self._project.log("gateway")

    def prometheus(self, name: str) -> dict[frozenset, float]:
        return self._prometheus.query(name)

    def wait_until_it_answers(self) -> None:
        def answers() -> bool:
            try:
                return self.request("GET", "/status").status > 0
            except OSError:
                return False

        wait_until(answers, 60, "the gateway answers", every=0.1)

    def problems_in_logs(self) -> list[str]:
        text = self.log_text()
        problems = [f"{sign!r} in the gateway's log" for sign in SIGNS_OF_DEATH if sign in text]
        return problems + [f"secret {secret} in the gateway's log" for secret in found_in(text)]


def choose_images() -> tuple[dict[str, str], bool]:
    """Variables for the compose file, and whether the images are local ones."""
    wanted = os.environ.get("IMAGES", "auto")
    if wanted not in ("auto", "local", "public"):
        sys.exit(f"compose: IMAGES is auto, local or public, not {wanted!r}")
    if wanted == "auto":
        wanted = "public" if output("docker", "manifest", "inspect", envoy_image()) else "local"
    print(f"compose: {wanted} images")
    if wanted == "public":
        return {}, False
    tools = ROOT / "target" / "tools"
    arguments = ["tests/setup/images.sh", envoy_binary(), stand_ins_binary(), module(), tools]
    made = subprocess.run(arguments, check=False, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    if made.returncode != 0:
        sys.exit("compose: the local images could not be made")
    return dict(line.split("=", 1) for line in made.stdout.split()), True


def envoy_image() -> str:
    """Envoy's image as compose.yaml has it."""
    (default,) = re.findall(r"\$\{ENVOY_IMAGE:-([^}]+)\}", COMPOSE_FILE.read_text())
    return os.environ.get("ENVOY_IMAGE", default)


def start(project: Project) -> tuple[SimpleNamespace, ContainerGateway, dashboard.Prometheus]:
    """The stand-ins first: the story begins with Entra ID out of order, so that the gateway has no keys."""
    project.up("stand-ins")
    address = ("127.0.0.1", PORTS["ENTRA_PORT"])
    stand_ins = SimpleNamespace(
        entra=Entra(address, address, ROOT), openai=OpenAI(("127.0.0.1", PORTS["OPENAI_PORT"]))
    )

    def out_of_order() -> bool:
        try:
            stand_ins.entra.behave("all", "status", status=503)
        except OSError:
            return False
        return True

    wait_until(out_of_order, 60, "the stand-ins answer", every=0.1)
    project.up(*SERVICES, *([] if project.local else ["grafana"]))
    prometheus = dashboard.Prometheus(("127.0.0.1", PORTS["PROMETHEUS_PORT"]))
    wait_until(prometheus.is_ready, 60, "Prometheus is ready", every=0.1)
    gateway = ContainerGateway(project, prometheus)
    gateway.wait_until_it_answers()
    return stand_ins, gateway, prometheus


def grafana_problems() -> list[str]:
    """Whether Grafana has the dashboard, and a data source that answers its queries."""
    address = ("127.0.0.1", PORTS["GRAFANA_PORT"])

    def healthy() -> bool:
        try:
            return call(address, "GET", "/api/health").status == 200
        except OSError:
            return False

    wait_until(healthy, 120, "Grafana answers", every=0.5)
    problems = []
    source = "/api/datasources/proxy/uid/prometheus/api/v1/query?query=tollgate_requests"
    for path in ("/api/dashboards/uid/tollgate", source):
        if (status := call(address, "GET", path).status) != 200:
            problems.append(f"Grafana answers {path} with {status}")
    return problems


def documented_call() -> str:
    """What the commands of docs/containers.md print: a token, and a call with it."""
    blocks = DOCUMENT.read_text().split("```console\n")[1:]
    (block,) = [block.partition("```")[0] for block in blocks if "TOKEN=" in block]
    script = "\n".join(line.removeprefix("$ ") for line in block.splitlines())
    for name, port in DOCUMENTED_PORTS.items():
        script = script.replace(f":{port}/", f":{PORTS[name]}/")
    return output("bash", "-euo", "pipefail", "-c", script) or "nothing"


def tell(project: Project) -> list[str]:
    """The story, and what went differently."""
    stand_ins, gateway, prometheus = start(project)
    story = demo.Story(gateway)
    demo.tell(story, stand_ins)
    story.chapter("The dashboard's queries")
    problems = dashboard.check(prometheus, gateway, stand_ins)
    story.say(f"{sum(1 for _ in dashboard.queries())} queries, {len(problems)} without data.")
    story.chapter("The commands of docs/containers.md")
    printed = documented_call()
    story.check(" 200 OK" in printed and '"usage"' in printed, f"the documented call printed {printed}")
    if not project.local:
        problems += grafana_problems()
    return story.surprises + problems + gateway.problems_in_logs()


def main() -> int:
    exit_on_signals()
    try:
        compose_command()
    except NotChecked as reason:
        print(f"NOT CHECKED: the containers of {COMPOSE_FILE.relative_to(ROOT)}: {reason}.", file=sys.stderr)
        print("REQUIRE_DOCKER=1 makes that a failure.", file=sys.stderr)
        return 1 if os.environ.get("REQUIRE_DOCKER") == "1" else 0
    project = Project(*choose_images())
    project.down()
    try:
        for what, port in PORTS.items():
            check_port_free(port, what)
        problems = tell(project)
        if problems:
            for service in SERVICES:
                print(f"\n== The end of {service}'s log\n" + "\n".join(project.log(service).splitlines()[-10:]))
    except PortTaken as taken:
        print(f"compose: {taken}. Another one may be given in the environment.", file=sys.stderr)
        return 1
    finally:
        project.down()
    for problem in problems:
        print(f"UNEXPECTED: {problem}")
    if project.local:
        print("NOT CHECKED: Grafana, for which no image could be had.", file=sys.stderr)
    if not problems:
        print("\nThe containers did as expected.")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
