#!/usr/bin/env python3
"""Prints Envoy's configuration for a real tenant and a real Azure OpenAI resource, made of a template
and the environment:

  AZURE_TENANT_ID         the tenant whose tokens count: its GUID
  AZURE_OPENAI_RESOURCE   the resource's name: my-resource of https://my-resource.openai.azure.com
  AZURE_OPENAI_DOMAIN     openai.azure.com; openai.azure.us for Azure Government
  AZURE_AUTHORITY_HOST    https://login.microsoftonline.com; https://login.microsoftonline.us
  TOLLGATE_POLICY         file with the policy; envoy/azure.json
  TOLLGATE_MODULE         the module; dist/tollgate.wasm
  TOLLGATE_LISTEN         127.0.0.1:10000
  TOLLGATE_TEMPLATE       the template, envoy/azure.yaml or a changed copy of it; envoy/azure.yaml
  SSL_CERT_FILE           certificates of the trusted CAs; the system's

The first two have no default. A policy may name ${AZURE_TENANT_ID} and ${AZURE_AUTHORITY_HOST} too.

With --listeners FILE the listener is written to FILE, and what is printed reads it from there: Envoy takes a new
FILE without a restart, so the same again, printed to /dev/null, brings a changed policy to a running Envoy.
"""

import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent

# Debian and Alpine, Fedora, SUSE, macOS.
SYSTEM_CAS = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)

LABEL = "[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?"
HOST = rf"{LABEL}(?:\.{LABEL})+"

# What a variable looks like, in a regular expression and in words.
FORMS = {
    "AZURE_TENANT_ID": (
        "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",
        "the tenant's GUID; `az account show --query tenantId` prints it",
    ),
    "AZURE_OPENAI_RESOURCE": (LABEL, "the resource's name alone, such as my-resource"),
    "AZURE_OPENAI_DOMAIN": (HOST, "a domain, such as openai.azure.com"),
    "AZURE_AUTHORITY_HOST": (rf"https://{HOST}/?", "a host with https://, such as https://login.microsoftonline.com"),
    "TOLLGATE_LISTEN": (r"[0-9.]{7,15}:[0-9]{1,5}", "an IPv4 address and a port, such as 127.0.0.1:10000"),
}

DEFAULTS = {
    "AZURE_OPENAI_DOMAIN": "openai.azure.com",
    "AZURE_AUTHORITY_HOST": "https://login.microsoftonline.com",
    "TOLLGATE_POLICY": str(HERE / "azure.json"),
    "TOLLGATE_MODULE": "dist/tollgate.wasm",
    "TOLLGATE_LISTEN": "127.0.0.1:10000",
    "TOLLGATE_TEMPLATE": str(HERE / "azure.yaml"),
}


class Wrong(Exception):
    """What is wrong with the environment, a sentence for each."""

    def __init__(self, *problems: str):
        super().__init__("\n".join(problems))
        self.problems = problems


def settings(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables with their defaults, each of the form that it should have."""
    given = {**DEFAULTS, **{name: value for name, value in environment.items() if value}}
    problems = []
    for name, (form, words) in FORMS.items():
        if name not in given:
            problems.append(f"{name} is not set: {words}")
        elif not re.fullmatch(form, given[name], re.IGNORECASE):
            problems.append(f"{name} is {given[name]!r}: write {words}")
    if "SSL_CERT_FILE" not in given:
        found = next((path for path in SYSTEM_CAS if Path(path).is_file()), None)
        if not found:
            problems.append("SSL_CERT_FILE is not set, and no CA certificates are where systems keep them")
        given["SSL_CERT_FILE"] = found or ""
    for name in ("TOLLGATE_POLICY", "TOLLGATE_MODULE", "TOLLGATE_TEMPLATE", "SSL_CERT_FILE"):
        if given[name] and not Path(given[name]).is_file():
            problems.append(f"{name}: {given[name]} is no file")
    if problems:
        raise Wrong(*problems)
    return given


def placeholders(given: dict[str, str]) -> dict[str, str]:
    """What stands for each placeholder of the template."""
    authority = given["AZURE_AUTHORITY_HOST"].rstrip("/").lower()
    address, _, port = given["TOLLGATE_LISTEN"].rpartition(":")
    for_policy = {"AZURE_TENANT_ID": given["AZURE_TENANT_ID"], "AZURE_AUTHORITY_HOST": authority}
    policy = replace(Path(given["TOLLGATE_POLICY"]).read_text(), for_policy, given["TOLLGATE_POLICY"])
    try:
        json.loads(policy)
    except ValueError as error:
        raise Wrong(f"TOLLGATE_POLICY: {given['TOLLGATE_POLICY']} is not JSON: {error}") from None
    return {
        "ENTRA_HOST": authority.removeprefix("https://"),
        "AZURE_OPENAI_HOST": f"{given['AZURE_OPENAI_RESOURCE']}.{given['AZURE_OPENAI_DOMAIN']}".lower(),
        "TOLLGATE_ADDRESS": address,
        "TOLLGATE_PORT": port,
        "TOLLGATE_MODULE": given["TOLLGATE_MODULE"],
        "SSL_CERT_FILE": given["SSL_CERT_FILE"],
        # As it stands in its file: the module checks it.
        "POLICY": policy,
    }


def replace(text: str, values: dict[str, str], where: str) -> str:
    """The text with every ${NAME} replaced. They all stand in double quotes, where YAML reads what JSON does."""
    unknown = sorted({name for name in re.findall(r"\$\{(.*?)\}", text) if name not in values})
    if unknown:
        raise Wrong(f"{where} names ${{{unknown[0]}}}; known here are {', '.join(sorted(values))}")
    return re.sub(r"\$\{(.*?)\}", lambda found: json.dumps(values[found[1]])[1:-1], text)


def render(environment: Mapping[str, str]) -> str:
    """The configuration, as text."""
    given = settings(environment)
    template = given["TOLLGATE_TEMPLATE"]
    lines = Path(template).read_text().splitlines(keepends=True)
    values = placeholders(given)
    return "".join(line if line.lstrip().startswith("#") else replace(line, values, template) for line in lines)


def split(text: str, file: str) -> tuple[str, str]:
    """The configuration without its listeners, which it reads from the file, and what is to be in the file."""
    before, _, rest = text.partition("\n  listeners:\n")
    listeners, found, clusters = rest.partition("\n  clusters:\n")
    if not found:
        raise Wrong("the template has no `listeners` before its `clusters`, as envoy/azure.yaml has them")
    typed = '    - "@type": type.googleapis.com/envoy.config.listener.v3.Listener\n      '
    # Envoy wants to know who asks for listeners, even of itself.
    asks = (
        "node: { id: tollgate, cluster: tollgate }\n\n"
        f"dynamic_resources:\n  lds_config: {{ path_config_source: {{ path: {json.dumps(file)} }} }}\n\n"
    )
    return f"{asks}{before}{found}{clusters}", "resources:\n" + re.sub("^    - ", typed, listeners, flags=re.MULTILINE)


def put(text: str, file: Path) -> None:
    """Envoy looks at a file when another is moved into its place."""
    new = file.with_name(f"{file.name}.new")
    try:
        new.write_text(text)
        new.replace(file)
    except OSError as error:
        raise Wrong(f"--listeners: {error}") from None


def main() -> int:
    arguments = sys.argv[1:]
    to_file = len(arguments) == 2 and arguments[0] == "--listeners"
    if arguments and not to_file:
        print(__doc__)
        return 0 if arguments in (["-h"], ["--help"]) else 2
    try:
        text = render(os.environ)
        if to_file:
            file = Path(arguments[1]).absolute()
            text, listeners = split(text, str(file))
            put(listeners, file)
        sys.stdout.write(text)
        sys.stdout.flush()
        return 0
    except BrokenPipeError:
        # Who reads it has seen enough. Python flushes once more at its end, which would tell of it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Wrong as wrong:
        print("envoy/azure.py cannot write a configuration:", *wrong.problems, sep="\n  ", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
