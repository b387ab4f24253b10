"""`tollgate probe` in front of real Envoys: the demo's gateway, and all the ways in which one is not guarded.

One Envoy has a listener for each: what differs is the filters, and what they are told.
"""

import copy
import json
import re
import subprocess
from pathlib import Path

import pytest

from .harness import APP_OTHER, Gateway, call, processes, shipped_policy
from .harness.azure import self_signed
from .harness.backend import Backend, answer
from .harness.gateway import cluster, listener
from .harness.processes import ROOT, cli_binary
from .harness.secrets import keep_secret
from .harness.tokens import Signer

FILTERS = "type.googleapis.com/envoy.extensions.filters.http"
DOWNSTREAM_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"


def probe(url: str, *arguments: object) -> subprocess.CompletedProcess:
    """Runs the command."""
    command = [cli_binary(), "probe", url, *arguments]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120)


def result_of(url: str, *arguments: object, code: int) -> dict:
    """Its result as JSON, of a run with this exit code."""
    done = probe(url, "--json", *arguments)
    assert done.returncode == code, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert result["exit_code"] == code
    assert len(result["calls"]) <= 40
    return result


def verdicts(result: dict) -> set[str]:
    return {found["verdict"] for found in result["calls"]}


def manager(copied: dict) -> dict:
    return copied["filter_chains"][0]["filters"][0]["typed_config"]


def add_listener(config: dict, name: str) -> dict:
    """A copy of the shipped listener on a port of its own; its connection manager."""
    copied = copy.deepcopy(listener(config))
    copied["name"] = name
    copied["address"]["socket_address"]["port_value"] = 0
    config["static_resources"]["listeners"].append(copied)
    return manager(copied)


def remove(manager: dict, *names: str) -> None:
    """Takes filters out."""
    kept = [known for known in manager["http_filters"] if known["name"] not in names]
    assert len(kept) == len(manager["http_filters"]) - len(names)
    manager["http_filters"] = kept


def plugin_of(manager: dict) -> dict:
    return manager["http_filters"][0]["typed_config"]["config"]


def without_interlock(config: dict, name: str) -> dict:
    copied = add_listener(config, name)
    remove(copied, "interlock")
    return copied


def failing_open(manager: dict, module: Path) -> None:
    """A module that dies by a request's header, in a gateway that lets requests pass then."""
    plugin = plugin_of(manager)
    plugin["failure_policy"] = "FAIL_OPEN"
    plugin["vm_config"]["code"]["local"]["filename"] = str(module)


def jwt_authn() -> dict:
    """Envoy's own filter for tokens, which responds with 401 and text."""
    keys = {"keys": [Signer("ES256").jwk(alg="ES256")]}
    provider = {"issuer": "https://issuer.example/", "local_jwks": {"inline_string": json.dumps(keys)}}
    return {
        "name": "jwt_authn",
        "typed_config": {
            "@type": f"{FILTERS}.jwt_authn.v3.JwtAuthentication",
            "providers": {"another": provider},
            "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "another"}}],
        },
    }


def forbidding() -> dict:
    """Whatever else responds with 403 and text."""
    return {
        "name": "another",
        "typed_config": {
            "@type": f"{FILTERS}.fault.v3.HTTPFault",
            "abort": {"http_status": 403, "percentage": {"numerator": 100}},
        },
    }


def serve_tls(config: dict, name: str, certificate, key) -> None:
    add_listener(config, name)
    config["static_resources"]["listeners"][-1]["filter_chains"][0]["transport_socket"] = {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": DOWNSTREAM_TLS,
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_certificates": [
                    {"certificate_chain": {"filename": str(certificate)}, "private_key": {"filename": str(key)}}
                ],
            },
        },
    }


def route_all_to(manager: dict, name: str, timeout: str = "30s") -> None:
    for host in manager["route_config"]["virtual_hosts"]:
        host["routes"] = [{"match": {"prefix": "/"}, "route": {"cluster": name, "timeout": timeout}}]


def add_cluster(config: dict, name: str, address: tuple[str, int]) -> None:
    copied = copy.deepcopy(cluster(config, "azure_openai"))
    copied["name"] = copied["load_assignment"]["cluster_name"] = name
    endpoint = copied["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    endpoint["address"]["socket_address"].update(address=address[0], port_value=address[1])
    config["static_resources"]["clusters"].append(copied)


class Situations:
    """One Envoy; the URL of each of its listeners by name."""

    def __init__(self, gateway: Gateway, certificates: dict):
        self.gateway = gateway
        self.certificates = certificates
        listeners = call(gateway.admin, "GET", "/listeners?format=json").json["listener_statuses"]
        self.ports = {
            found["name"]: found["local_address"]["socket_address"]["port_value"] for found in listeners
        }

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports[name]}"


@pytest.fixture(scope="module")
def situations(module_directory, stand_ins):
    certificates = {
        name: self_signed(module_directory / name, "localhost", expires_in)
        for name, expires_in in [("tls", 3600), ("expired", -60)]
    }
    backends = {
        "silent": Backend(lambda _: [30.0]),
        "resetting": Backend(lambda _: [None]),
        "verbose": Backend(lambda _: [answer(b"{}", "application/json", "200 OK", "x-long: " + "a" * 50_000)]),
        "echoing": Backend(
            lambda _: [answer(b"{}", "application/json", "401 Unauthorized", "x-tollgate-code: TokenNotPresent")]
        ),
    }

    def edit(config):
        remove(add_listener(config, "removed"), "tollgate")
        remove(without_interlock(config, "removed, no interlock"), "tollgate")
        for name, other in [("another 401", jwt_authn()), ("another 403", forbidding())]:
            without_interlock(config, name)["http_filters"][0] = other
        report = plugin_of(add_listener(config, "report"))
        report["name"] = "report"
        report["configuration"]["value"] = json.dumps(shipped_policy(stand_ins, mode="report"))
        public = plugin_of(add_listener(config, "public"))
        public["name"] = "public"
        public["configuration"]["value"] = json.dumps(shipped_policy(stand_ins, public_paths=["/openai/v1/*"]))
        for name, backend in backends.items():
            add_cluster(config, name, backend.address)
            opened = without_interlock(config, name)
            remove(opened, "tollgate")
            route_all_to(opened, name)
        elsewhere = add_listener(config, "no route")
        remove(elsewhere, "tollgate", "interlock")
        elsewhere["route_config"]["virtual_hosts"] = []
        for name, paths in certificates.items():
            serve_tls(config, name, *paths)
        serve_tls(config, "verbose, TLS", *certificates["tls"])
        verbose = manager(config["static_resources"]["listeners"][-1])
        remove(verbose, "tollgate", "interlock")
        route_all_to(verbose, "verbose")

    with Gateway(module_directory / "envoy", stand_ins, edit=edit) as gateway:
        yield Situations(gateway, certificates)
    for backend in backends.values():
        backend.close()


def test_the_demos_gateway_is_deciding(situations, stand_ins, tmp_path):
    before = stand_ins.openai.count()
    result = result_of(situations.gateway.url, code=0)
    assert result["state"] == "deciding"
    assert verdicts(result) == {"deciding", "guarded"}
    for found in result["calls"]:
        if found["verdict"] == "guarded":
            assert (found["code"], found["call"]) == ("RequestNotAccepted", "path: escaped slash")
    assert stand_ins.openai.count() == before, "a request of the probe passed"

    token = stand_ins.entra.mint(APP_OTHER)
    file = tmp_path / "token"
    file.write_text(token + "\n")
    done = probe(situations.gateway.url, "--token-file", file)
    assert done.returncode == 0, done.stdout
    assert token.split(".")[1] not in done.stdout + done.stderr
    assert len([line for line in done.stdout.splitlines() if line.startswith("passed ")]) == 2
    assert stand_ins.openai.count() == before + 2

    file.write_text(keep_secret(stand_ins.entra.mint(APP_OTHER, claims={"exp": 1_700_000_000})))
    done = probe(situations.gateway.url, "--token-file", file)
    assert done.returncode == 1
    assert "denied      401  TokenExpired" in done.stdout


def test_the_documents_show_what_it_writes(situations):
    text = (ROOT / "docs" / "command-line.md").read_text().partition("\n## probe\n")[2]
    sample = next(block for block in text.split("\n```\n") if block.startswith("deciding"))
    written = probe(situations.gateway.url).stdout.replace(situations.gateway.url, "http://127.0.0.1:10000")
    missing = set(sample.splitlines()) - set(written.splitlines())
    assert not missing, written


def test_without_the_module_the_interlock_guards(situations):
    result = result_of(situations.url("removed"), code=1)
    assert result["state"] == "guarded"
    assert verdicts(result) == {"guarded"}
    assert {"GatewayNotGuarded"} <= {found["code"] for found in result["calls"]}
    assert result["summary"].startswith("guarded, not deciding")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("removed, no interlock", "passed: no module"),
        # Report mode denies nothing: that it would have changes nothing for who calls.
        ("report", '"mode": "report"'),
        ("public", "public path"),
        ("another 401", "a refusal of something else"),
        ("another 403", "a refusal of something else"),
        ("echoing", "something else sends it"),
        ("resetting", "passed to the backend"),
    ],
)
def test_what_lets_requests_pass_is_open(situations, name, words):
    result = result_of(situations.url(name), code=1)
    assert result["state"] == "open"
    reasons = {found["reason"] for found in result["calls"] if found["verdict"] == "open"}
    assert any(words in reason for reason in reasons), reasons
    done = probe(situations.url(name))
    assert done.stdout.splitlines()[-1].startswith(f"{situations.url(name)}: open: "), done.stdout


def test_a_module_that_fails_open_is_guarded_by_the_interlock_and_open_without_it(
    directory, chaos_module, stand_ins, apart
):
    def edit(config):
        failing_open(add_listener(config, "interlock"), chaos_module)
        failing_open(without_interlock(config, "no interlock"), chaos_module)

    gateway = Gateway(directory / "envoy", stand_ins, edit=edit, workers=1)
    try:
        found = Situations(gateway, {})
        # It decides while it lives, and one death is that of both.
        assert result_of(found.url("no interlock"), code=0)["state"] == "deciding"
        call(("127.0.0.1", found.ports["interlock"]), "GET", "/", [("x-tollgate-chaos", "trap")])
        assert result_of(found.url("interlock"), code=1)["state"] == "guarded"
        assert result_of(found.url("no interlock"), code=1)["state"] == "open"
    finally:
        gateway.kill()


def test_a_backend_that_is_silent_leaves_no_verdict(situations):
    result = result_of(situations.url("silent"), "--timeout", "1s", code=2)
    assert "unanswered" in verdicts(result)
    assert "timed out waiting for a response" in result["summary"]


def test_a_response_that_is_too_long_is_no_denial(situations):
    """It passed, whatever it says; who reads no further must not take that for a reset of Envoy's."""
    certificate, _ = situations.certificates["tls"]
    url = f"https://localhost:{situations.ports['verbose, TLS']}"
    for arguments in [[situations.url("verbose")], [url, "--ca-file", certificate]]:
        result = result_of(*arguments, code=2)
        reasons = {found["reason"] for found in result["calls"] if found["verdict"] == "unanswered"}
        assert len(reasons) <= 2 and all("no HTTP response" in reason for reason in reasons), reasons


def test_a_gateway_without_a_route_is_guarded(situations):
    result = result_of(situations.url("no route"), code=1)
    assert result["state"] == "guarded"
    assert {found["code"] for found in result["calls"]} <= {"RouteNotFound", "RequestNotAccepted"}


def test_http2_over_tls(situations):
    certificate, _ = situations.certificates["tls"]
    url = f"https://localhost:{situations.ports['tls']}"
    result = result_of(url, "--ca-file", certificate, code=0)
    assert result["state"] == "deciding"
    by_protocol = {}
    for found in result["calls"]:
        by_protocol.setdefault(found["protocol"], []).append(found["call"])
    # Whatever has to be HTTP/1.1 is, and nothing else.
    assert set(by_protocol["HTTP/1.1"]) == {"path: absolute form", "no token, HTTP/1.1"}
    assert len(by_protocol["HTTP/2"]) > 25
    # What Envoy resets, it resets because it does not accept it.
    assert {found["verdict"] for found in result["calls"]} <= {"deciding", "guarded", "unanswered"}


@pytest.mark.parametrize(
    ("name", "host", "trusted", "words"),
    [
        ("tls", "localhost", False, "unknown authority"),
        ("tls", "127.0.0.1", True, "for another name"),
        ("expired", "localhost", True, "has expired"),
    ],
)
def test_certificates_that_do_not_fit_are_named(situations, name, host, trusted, words):
    certificate, _ = situations.certificates[name]
    trust = ["--ca-file", certificate] if trusted else []
    result = result_of(f"https://{host}:{situations.ports[name]}", *trust, code=2)
    assert [found["verdict"] for found in result["calls"]] == ["unanswered"]
    assert "TLS: " in result["summary"] and words in result["summary"]


def test_nothing_that_listens_is_exit_code_2():
    result = result_of(f"http://127.0.0.1:{processes.free_port()}", code=2)
    assert result["state"] == "unanswered"
    assert "connection refused" in result["summary"]


def test_every_code_of_the_shipped_files_is_known():
    """Each code that a shipped file responds with is in the list of the command line, and the other way round."""
    source = (ROOT / "src" / "bin" / "tollgate" / "probe" / "verdict.rs").read_text()
    table = source.partition("const GUARD_CODES")[2].partition("];")[0]
    known = set(re.findall(r'^\s*\(?"([A-Z]\w+)"', table, re.MULTILINE))
    shipped = set()
    for path in sorted((ROOT / "envoy").glob("*.yaml")):
        shipped |= set(re.findall(r"key: x-tollgate-code, value: (\w+)", path.read_text()))
    # The one that Envoy and the module share (envoy/global-limits.yaml) is of the module's own list.
    assert shipped - {"RateLimitExceeded"} == known
