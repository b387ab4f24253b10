"""envoy/azure.yaml, with name resolution and ports that lead to local servers."""

import datetime
import os
import socket
import ssl
import struct
import subprocess
import sys
import threading
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from . import processes
from .gateway import cluster
from .identities import TENANT

SCRIPT = processes.ROOT / "envoy" / "azure.py"
RESOURCE = "contoso"
NEEDED = {"AZURE_TENANT_ID": TENANT, "AZURE_OPENAI_RESOURCE": RESOURCE}


def render(**environment) -> subprocess.CompletedProcess:
    """Runs envoy/azure.py with these variables and no others."""
    environment = {"PATH": os.environ["PATH"], **{name: str(value) for name, value in environment.items()}}
    return subprocess.run([sys.executable, SCRIPT], env=environment, cwd=processes.ROOT, capture_output=True, text=True)


def rendered(**environment) -> dict:
    """The configuration that envoy/azure.py prints."""
    done = render(TOLLGATE_MODULE=processes.module(), **NEEDED | environment)
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)


def lead(config: dict, names: "Names", ports: dict[str, int]) -> None:
    """Has Envoy ask these names, and clusters use other ports than 443. Names, SNI and trust stay."""
    resolver = {"socket_address": {"address": "127.0.0.1", "port_value": names.port, "protocol": "UDP"}}
    config["typed_dns_resolver_config"] = {
        "name": "envoy.network.dns_resolver.cares",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
            "resolvers": [resolver],
        },
    }
    for name, port in ports.items():
        endpoints = cluster(config, name)["load_assignment"]["endpoints"]
        endpoints[0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]["port_value"] = port


class Names:
    """A name server that knows one address for every name: 127.0.0.1, but for those in `unknown`."""

    def __init__(self):
        self.unknown: set[str] = set()
        self.asked: set[str] = set()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                query, peer = self._socket.recvfrom(4096)
            except OSError:
                return
            self._socket.sendto(self._answer(query), peer)

    def _answer(self, query: bytes) -> bytes:
        """RFC 1035 section 4: header, the question again, and a record if IPv4 was asked for."""
        labels, at = [], 12
        while length := query[at]:
            labels.append(query[at + 1 : at + 1 + length].decode())
            at += 1 + length
        name = ".".join(labels)
        self.asked.add(name)
        question = query[12 : at + 5]
        is_ipv4 = struct.unpack(">H", query[at + 1 : at + 3]) == (1,)
        if name in self.unknown:
            return query[:2] + struct.pack(">HHHHH", 0x8183, 1, 0, 0, 0) + question
        header = query[:2] + struct.pack(">HHHHH", 0x8180, 1, int(is_ipv4), 0, 0)
        record = struct.pack(">HHHIH", 0xC00C, 1, 1, 1, 4) + bytes([127, 0, 0, 1])
        return header + question + (record if is_ipv4 else b"")

    def close(self) -> None:
        self._socket.close()


def self_signed(directory: Path, name: str, expires_in: int = 3600) -> tuple[Path, Path]:
    """A certificate that no CA has signed, and its key. `expires_in` is in seconds, and may have passed."""
    directory.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=2))
        .not_valid_after(now + datetime.timedelta(seconds=expires_in))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = directory / "certificate.pem", directory / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return paths


class Impostor:
    """Shows a certificate of its own to whoever connects, and notes the name that was asked for."""

    def __init__(self, certificate: Path, key: Path):
        self.names: list[str | None] = []
        self.let_in = 0
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self._context.sni_callback = lambda _socket, name, _context: self.names.append(name)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            try:
                with self._context.wrap_socket(connection, server_side=True) as secured:
                    # TLS 1.3 ends the server's side of the handshake before the client has judged.
                    self.let_in += bool(secured.recv(1))
            except OSError:
                pass

    def close(self) -> None:
        self._socket.close()
