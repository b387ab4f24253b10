"""envoy/azure.yaml: names, TLS and trust as in Azure, with the stand-ins behind them."""

import http.client
import json
import os
import re
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from .harness import APP_CHAT, Gateway, StandIns, call, shipped_config
from .harness.azure import NEEDED, RESOURCE, SCRIPT, Impostor, Names, lead, render, rendered, self_signed
from .harness.gateway import CHAT_PATH, cluster, connection_manager, fit, listener, plugin
from .harness.processes import ROOT, cli_binary, envoy_binary, envoy_version, module
from .harness.tokens import unb64

ENTRA, AZURE = "login.microsoftonline.com", f"{RESOURCE}.openai.azure.com"
PASSES = (200, None)


@pytest.fixture(scope="module")
def names():
    names = Names()
    yield names
    names.close()


@pytest.fixture(scope="module")
def azure(module_directory):
    """Stand-ins that take themselves for the real ones."""
    with StandIns(module_directory / "stand-ins", public_url=f"https://{ENTRA}", tls=True) as running:
        yield running


@pytest.fixture
def impostor(directory):
    impostor = Impostor(*self_signed(directory, ENTRA))
    yield impostor
    impostor.close()


def ports(stand_ins) -> dict[str, int]:
    return {
        "entra": stand_ins.addresses["entra-https"][1],
        "azure_openai": stand_ins.addresses["openai-https"][1],
    }


@pytest.fixture(scope="module")
def gateway(azure, names, module_directory):
    base = rendered(SSL_CERT_FILE=azure.entra.ca)
    lead(base, names, ports(azure))
    with Gateway(module_directory / "envoy", azure, base=base) as running:
        yield running


def test_tokens_of_the_tenant_pass(gateway, azure, names):
    for version in (1, 2):
        token = azure.entra.mint(APP_CHAT, version=version)
        issuers = {1: f"https://sts.windows.net/{NEEDED['AZURE_TENANT_ID']}/"}
        issuers[2] = f"https://{ENTRA}/{NEEDED['AZURE_TENANT_ID']}/v2.0"
        assert json.loads(unb64(token.split(".")[1]))["iss"] == issuers[version]
        assert gateway.chat(token).verdict == PASSES
    assert {ENTRA, AZURE} <= names.asked
    # Azure finds the resource by the host's name.
    assert ["host", AZURE] in gateway.echo(token).json["headers"]


def test_nothing_else_passes(gateway, azure):
    token = azure.entra.mint(APP_CHAT)
    before = azure.openai.count()
    assert gateway.chat().verdict == (401, "TokenNotPresent")
    assert gateway.chat(token, [("api-key", "0123456789abcdef")]).verdict == (403, "AuthenticationTypeDisabled")
    assert gateway.chat(azure.entra.mint(APP_CHAT, audience="https://graph.microsoft.com")).status == 401
    assert gateway.request("GET", "/speechtotext/v3.2/models", token=token).status == 404
    assert gateway.request("GET", "/openai%2f..%2f", token=token).status == 400
    assert azure.openai.count() == before


def test_letter_case_does_not_change_the_route(gateway, azure):
    """Elsewhere Envoy answers 404 itself. The stand-in has no path in capitals either, but says so itself."""
    token = azure.entra.mint(APP_CHAT)
    for path in ("/OpenAI/models", "/OPENAI/v1/models"):
        assert gateway.request("GET", path, token=token).header("x-stand-in") == "azure-openai", path


def test_it_is_told(gateway, azure):
    token = azure.entra.mint(APP_CHAT)
    request_id = dict(gateway.echo(token).json["headers"])["x-request-id"]
    assert gateway.line_of(request_id, gateway.access_log)["app_id"] == APP_CHAT
    assert gateway.chat(token).verdict == PASSES
    request_id = gateway.request_log()[-1]["request_id"]
    line = gateway.line_of(request_id, gateway.access_log)
    assert (line["outcome"], line["app_id"]) == ("allowed", APP_CHAT)
    assert int(line["total_tokens"]) > 0
    labels = {"app", "outcome", "code"}
    for series in gateway.prometheus("tollgate_requests"):
        assert {label.partition("=")[0] for label in series} == labels


def test_keys_come_from_a_trusted_host_alone(azure, names, directory, start_gateway, impostor):
    base = rendered(SSL_CERT_FILE=azure.entra.ca)
    lead(base, names, {**ports(azure), "entra": impostor.port})
    gateway = start_gateway(azure, base=base)
    before = azure.openai.count()
    assert gateway.chat(azure.entra.mint(APP_CHAT)).verdict == (503, "KeysUnavailable")
    assert azure.openai.count() == before
    assert set(impostor.names) == {ENTRA}
    assert impostor.let_in == 0
    assert gateway.stat("cluster.entra.ssl.fail_verify_error") > 0


def test_the_certificate_names_the_host(azure, names, start_gateway):
    """Signed by a trusted CA, but for another name: the resource of another cloud."""
    base = rendered(SSL_CERT_FILE=azure.entra.ca, AZURE_OPENAI_DOMAIN="openai.azure.us")
    lead(base, names, ports(azure))
    gateway = start_gateway(azure, base=base)
    before = azure.openai.count()
    answer = gateway.chat(azure.entra.mint(APP_CHAT))
    assert answer.verdict == (503, "BackendUnavailable")
    assert azure.openai.count() == before
    assert gateway.stat("cluster.azure_openai.ssl.fail_verify_san") > 0


def test_others_are_served_by_tls(azure, names, directory, start_gateway):
    """The lines of docs/azure.md."""
    document = (ROOT / "docs" / "azure.md").read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", document, re.DOTALL)
    certificate, key = self_signed(directory, "gateway.example.com")
    block = block.replace("/etc/tollgate/certificate.pem", str(certificate))
    base = rendered(SSL_CERT_FILE=azure.entra.ca)
    lead(base, names, ports(azure))
    listener(base)["filter_chains"][0] |= yaml.safe_load(block.replace("/etc/tollgate/key.pem", str(key)))
    gateway = start_gateway(azure, base=base)

    trust = ssl.create_default_context(cafile=certificate)
    trust.check_hostname = False
    connection = http.client.HTTPSConnection(*gateway.address, context=trust, timeout=30)
    token = azure.entra.mint(APP_CHAT)
    answer = call(connection, "GET", "/openai/models?api-version=2024-10-21", [("authorization", f"Bearer {token}")])
    assert answer.status == 200
    connection.close()


def test_it_shares_its_settings_with_the_other_configuration():
    """What is safe in one is safe in both."""
    theirs, ours = shipped_config(), rendered()
    for name in ("stats_config", "layered_runtime", "overload_manager", "admin"):
        assert ours[name] == theirs[name], name
    assert cluster(ours, "azure_openai")["per_connection_buffer_limit_bytes"] == 32768
    listeners = []
    for config in (ours, theirs):
        plugin(config)["configuration"] = plugin(config)["vm_config"]["code"] = "differs"
        connection_manager(config)["route_config"]["virtual_hosts"] = "differs"
        listener(config)["address"]["socket_address"]["port_value"] = "differs"
        listeners.append(listener(config))
    assert listeners[0] == listeners[1]


def test_the_default_has_the_systems_authorities_and_is_valid(directory):
    """As `make azure` does it."""
    text = render(TOLLGATE_MODULE=module(), **NEEDED).stdout
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "azure.yaml"
    # On the version it is for, the very text.
    path.write_text(text if envoy_version() >= (1, 40) else yaml.safe_dump(fit(yaml.safe_load(text), envoy_version())))
    for name, host in (("entra", ENTRA), ("azure_openai", AZURE)):
        used = cluster(yaml.safe_load(text), name)
        tls = used["transport_socket"]["typed_config"]
        validation = tls["common_tls_context"]["validation_context"]
        assert tls["sni"] == host
        assert validation["match_typed_subject_alt_names"] == [{"san_type": "DNS", "matcher": {"exact": host}}]
        assert "BEGIN CERTIFICATE" in open(validation["trusted_ca"]["filename"]).read()
    done = subprocess.run([envoy_binary(), "--mode", "validate", "-c", path], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Deprecated" not in done.stderr


WRONG = [
    ({"AZURE_TENANT_ID": ""}, "AZURE_TENANT_ID is not set: the tenant's GUID"),
    ({"AZURE_TENANT_ID": "contoso.onmicrosoft.com"}, "AZURE_TENANT_ID is 'contoso.onmicrosoft.com': write"),
    ({"AZURE_OPENAI_RESOURCE": ""}, "AZURE_OPENAI_RESOURCE is not set: the resource's name alone"),
    (
        {"AZURE_OPENAI_RESOURCE": "https://contoso.openai.azure.com"},
        "AZURE_OPENAI_RESOURCE is 'https://contoso.openai.azure.com': write the resource's name alone",
    ),
    ({"AZURE_OPENAI_RESOURCE": 'a" }\n'}, "AZURE_OPENAI_RESOURCE is"),
    ({"AZURE_OPENAI_DOMAIN": "a/b"}, "AZURE_OPENAI_DOMAIN is 'a/b': write a domain"),
    ({"AZURE_AUTHORITY_HOST": "http://login.example.com"}, "write a host with https://"),
    ({"TOLLGATE_LISTEN": "10000"}, "TOLLGATE_LISTEN is '10000': write an IPv4 address and a port"),
    ({"TOLLGATE_POLICY": "no-such.json"}, "TOLLGATE_POLICY: no-such.json is no file"),
    ({"TOLLGATE_POLICY": "README.md"}, "TOLLGATE_POLICY: README.md is not JSON: Expecting value"),
    ({"TOLLGATE_MODULE": "dist/none.wasm"}, "TOLLGATE_MODULE: dist/none.wasm is no file"),
    ({"TOLLGATE_TEMPLATE": "none.yaml"}, "TOLLGATE_TEMPLATE: none.yaml is no file"),
    ({"SSL_CERT_FILE": "none.pem"}, "SSL_CERT_FILE: none.pem is no file"),
]


@pytest.mark.parametrize(("environment", "told"), WRONG, ids=lambda value: "-".join(value)[:40])
def test_a_wrong_environment_is_told(environment, told):
    done = render(**{"TOLLGATE_MODULE": module(), **NEEDED} | environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_all_that_is_wrong_is_told_at_once():
    done = render(TOLLGATE_MODULE="none", TOLLGATE_LISTEN="here")
    assert len(done.stderr.splitlines()) == 5, done.stderr


def test_an_unknown_placeholder_is_told(directory):
    directory.mkdir(parents=True, exist_ok=True)
    policy = directory / "policy.json"
    policy.write_text('{"issuers": [{"tenant_id": "${TENANT}"}]}')
    done = render(TOLLGATE_MODULE=module(), TOLLGATE_POLICY=policy, **NEEDED)
    assert f"{policy} names ${{TENANT}}; known here are AZURE_AUTHORITY_HOST, AZURE_TENANT_ID" in done.stderr


def test_a_changed_copy_of_the_template_is_used(directory):
    directory.mkdir(parents=True, exist_ok=True)
    template = directory / "mine.yaml"
    shipped = (ROOT / "envoy" / "azure.yaml").read_text()
    template.write_text(shipped.replace("stream_idle_timeout: 60s", "stream_idle_timeout: 300s"))
    assert connection_manager(rendered(TOLLGATE_TEMPLATE=template))["stream_idle_timeout"] == "300s"
    template.write_text('name: "${RESOURCE}"')
    done = render(TOLLGATE_MODULE=module(), TOLLGATE_TEMPLATE=template, **NEEDED)
    assert f"{template} names ${{RESOURCE}}; known here are AZURE_OPENAI_HOST" in done.stderr


def test_the_listener_can_stand_in_a_file_of_its_own(directory):
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "listeners.yaml"

    def run(*arguments, **environment):
        environment = {"PATH": os.environ["PATH"], "TOLLGATE_MODULE": str(module()), **NEEDED, **environment}
        return subprocess.run(
            [sys.executable, SCRIPT, *arguments], env=environment, cwd=ROOT, capture_output=True, text=True
        )

    done = run("--listeners", file)
    assert done.returncode == 0, done.stderr
    whole, parts, listeners = rendered(), yaml.safe_load(done.stdout), yaml.safe_load(file.read_text())
    assert parts.pop("node").keys() == {"id", "cluster"}
    assert parts.pop("dynamic_resources") == {"lds_config": {"path_config_source": {"path": str(file)}}}
    (resource,) = listeners.pop("resources")
    assert (resource.pop("@type"), listeners) == ("type.googleapis.com/envoy.config.listener.v3.Listener", {})
    assert [resource] == whole["static_resources"].pop("listeners")
    assert parts == whole

    assert run("--listeners").returncode == 2
    assert "--listeners: " in run("--listeners", directory / "none" / "listeners.yaml").stderr
    template = directory / "none.yaml"
    template.write_text("admin: {}\n")
    assert "no `listeners`" in run("--listeners", file, TOLLGATE_TEMPLATE=str(template)).stderr


def test_a_reader_that_leaves_gets_no_traceback():
    reads, writes = os.pipe()
    os.close(reads)
    environment = {"PATH": os.environ["PATH"], "TOLLGATE_MODULE": str(module()), **NEEDED}
    done = subprocess.run(
        [sys.executable, SCRIPT], env=environment, cwd=ROOT, stdout=writes, stderr=subprocess.PIPE, text=True
    )
    os.close(writes)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_policy_stays_as_it_was_written(directory):
    directory.mkdir(parents=True, exist_ok=True)
    policy = directory / "policy.json"
    text = json.dumps({"issuers": [], "note": "\"quoted\", %REQ(x)%, \\ and é\n- 'yaml': #"}, indent=1)
    policy.write_text(text)
    config = rendered(TOLLGATE_POLICY=policy)
    assert plugin(config)["configuration"]["value"] == text


def test_the_policy_is_checked_as_it_is_documented():
    (command,) = re.findall(r"^\$ (.*tollgate check -)$", (ROOT / "docs" / "azure.md").read_text(), re.MULTILINE)
    path = f"{Path(cli_binary()).parent}:{os.environ['PATH']}"

    def check(**environment):
        environment = {"PATH": path, "TOLLGATE_MODULE": module(), **NEEDED, **environment}
        return subprocess.run(
            ["bash", "-o", "pipefail", "-c", command], env=environment, cwd=ROOT, capture_output=True, text=True
        )

    done = check()
    assert done.returncode == 0, done.stderr
    assert "good, with 1 warning" in done.stderr
    assert check(TOLLGATE_POLICY="tests/cli/samples/draft.json").returncode == 1


def test_every_variable_is_documented():
    document = (ROOT / "docs" / "azure.md").read_text()
    names = re.findall(r"^  ([A-Z_]+)  ", SCRIPT.read_text(), re.MULTILINE)
    assert len(names) == 9
    assert [name for name in names if f"`{name}`" not in document] == []
