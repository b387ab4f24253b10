"""An identity provider that does everything wrong. Rows F1 to F7, C10; R12 to R15.

One gateway trusts two issuers for every fault: a warm one, whose provider goes bad once its keys are there, and
a cold one, whose provider is bad from the start and good in the end. All of them fail at the same time.
"""

import copy
import gzip
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

import pytest

from .harness import AUDIENCE, Gateway, new_app, shipped_policy
from .harness.azure import Names, lead
from .harness.backend import Backend, answer
from .harness.figures import figure
from .harness.gateway import cluster, set_endpoint
from .harness.processes import free_port, wait_until
from .harness.tokens import Signer, claims

PASSES = (200, None)
UNAVAILABLE = (503, "KeysUnavailable")
MIB = 1024 * 1024
# Of one callout, and as long a request waits.
TIMEOUT = 0.5
# Beside what the module waits itself: a machine with more to do than it can.
SLACK = 4.0
# What the goal grants a refusal beyond the wait.
SOON = 0.1

SIGNER, FOREIGN = Signer(kid="good"), Signer(kid="foreign")
GOOD_SET = json.dumps({"keys": [SIGNER.jwk()]}).encode()


def plain(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    return answer(body, "application/json", status, "connection: close", *headers)


def cut(part: float | int):
    """Says how long the good answer is, and resets the connection after a part of it."""

    def script(good):
        whole = plain(good)
        yield whole[: int(len(whole) * part) if isinstance(part, float) else part]
        yield 0.05
        yield None

    return script


def ended(whole: bytes):
    yield whole
    yield 0.05
    raise ConnectionError("the provider hangs up")


def dripping(good):
    for byte in plain(good):
        yield bytes([byte])
        yield 0.05


def chunks(*pieces: bytes):
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    return [head, *pieces, 0.05, None]


def with_length(good: bytes, length: int) -> bytes:
    return plain(good).replace(b"content-length: %d" % len(good), b"content-length: %d" % length)


def changed(good: bytes, **members) -> list[bytes]:
    return [plain(json.dumps({**json.loads(good), **members}).encode())]


def huge(good: bytes, size: int) -> list[bytes]:
    return changed(good, padding="x" * size)


# Of the good document: the pieces of the answer.
EITHER = {
    "silent": lambda _: [60.0],
    "dripping": dripping,
    "reset-at-once": lambda _: [None],
    "reset-after-the-status": cut(len(b"HTTP/1.1 200 OK\r\n")),
    "reset-in-the-headers": cut(len(b"HTTP/1.1 200 OK\r\ncontent-ty")),
    "reset-in-the-body": cut(0.8),
    "reset-before-the-last-byte": cut(-1),
    "hangs-up-at-once": lambda _: ended(b""),
    "33-megabytes": lambda good: huge(good, 33_000_000),
    "over-1-mebibyte": lambda good: huge(good, MIB),
    "redirect": lambda good: [plain(good, "302 Found", "location: /elsewhere")],
    "html": lambda _: [answer(b"<!DOCTYPE html><title>Sign in</title>", "text/html", "200 OK", "connection: close")],
    "204": lambda _: [b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"],
    "304": lambda _: [b"HTTP/1.1 304 Not Modified\r\nconnection: close\r\n\r\n"],
    "404": lambda good: [plain(good, "404 Not Found")],
    "500": lambda good: [plain(good, "500 Internal Server Error")],
    "not-http": lambda _: ended(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "truncated": lambda good: [plain(good[: len(good) // 2])],
    "gzip": lambda good: [plain(gzip.compress(good), "200 OK", "content-encoding: gzip")],
    "length-too-long": lambda good: ended(with_length(good, len(good) + 10)),
    "length-too-short": lambda good: ended(with_length(good, len(good) - 10)),
    "length-no-number": lambda good: ended(plain(good).replace(b"content-length: ", b"content-length: x")),
    "chunk-size-no-number": lambda good: chunks(b"zz\r\n", good),
    "chunk-without-end": lambda good: chunks(b"%x\r\n" % (2 * len(good)), good),
    "empty": lambda _: [plain(b"")],
    "byte-order-mark": lambda good: [plain(b"\xef\xbb\xbf" + good)],
    "utf-16": lambda good: [plain(good.decode().encode("utf-16"))],
}
METADATA = {
    "wrong-issuer": lambda good: changed(good, issuer="https://other.example"),
    "jwks-uri-of-another-scheme": lambda good: [plain(good.replace(b'"jwks_uri": "http:', b'"jwks_uri": "https:'))],
    "jwks-uri-of-another-host": lambda good: changed(good, jwks_uri="http://other.example/keys"),
    "jwks-uri-a-number": lambda good: changed(good, jwks_uri=7),
}
KEYS = {
    "empty-set": lambda _: [plain(b'{"keys":[]}')],
    "keys-a-number": lambda _: [plain(b'{"keys":123}')],
    "100000-keys": lambda _: [plain(b'{"keys":[' + b",".join([b'{"kty":"RSA"}'] * 100_000) + b"]}")],
    "one-kid-twice": lambda _: [plain(json.dumps({"keys": [SIGNER.jwk(), FOREIGN.jwk(kid="good")]}).encode())],
}
# The first letter tells which document is bad. A policy has room for 100 issuers, two for each case.
FAULTS = {f"m-{name}": fault for name, fault in METADATA.items()}
FAULTS |= {f"k-{name}": fault for name, fault in (EITHER | KEYS).items()}
FAULTS |= {f"m-{name}": fault for name, fault in EITHER.items() if name.startswith(("s", "r", "3", "c"))}
UNREACHABLE = ["u-refused", "u-no-hosts", "u-no-such-name"]
CASES = [*FAULTS, *UNREACHABLE]


class Provider:
    """Serves every issuer's documents, and those of `spoilt` as their case says."""

    def __init__(self, spoilt: set[str]):
        self.spoilt = spoilt
        self._backend = Backend(self._answer)
        self.address = self._backend.address

    def _answer(self, received):
        _, issuer, document = received.line.split()[1].split("/")
        if document == "keys":
            good = GOOD_SET
        else:
            uri = f"http://provider.example/{issuer}/keys"
            good = json.dumps({"issuer": url(issuer), "jwks_uri": uri}).encode()
        case = issuer.partition("-")[2]
        if issuer in self.spoilt and case.startswith(document[0]):
            return FAULTS[case](good)
        return [plain(good)]

    def close(self) -> None:
        self._backend.close()


def url(issuer: str) -> str:
    return f"https://{issuer}.example"


def trusted(issuer: str, cluster_name: str) -> dict:
    return {
        "name": issuer,
        "issuers": [url(issuer)],
        "openid_config": f"http://provider.example/{issuer}/metadata",
        "cluster": cluster_name,
        "audiences": [AUDIENCE],
        "app_claim": "appid",
        "refresh": {"every": "1s", "at_most_every": "1s", "keep_stale_for": "1h", "timeout": f"{int(TIMEOUT * 1000)}ms"},
    }


def token(issuer: str) -> str:
    return SIGNER.token(claims(url(issuer), AUDIENCE, appid=new_app()))


class Unreachable:
    """Clusters that reach nobody, one for each way and temperature, until they do."""

    def __init__(self, directory, provider: Provider):
        self.directory, self.provider = directory, provider
        directory.mkdir(parents=True, exist_ok=True)
        self.names = Names()
        self.ports = {temperature: free_port() for temperature in ("warm", "cold")}
        self._listening: dict[str, Backend] = {}

    def add_to(self, config: dict) -> None:
        lead(config, self.names, {})
        template = copy.deepcopy(cluster(config, "provider"))
        for temperature, port in self.ports.items():
            refused = {**copy.deepcopy(template), "name": f"{temperature}-u-refused"}
            refused["load_assignment"]["cluster_name"] = refused["name"]
            by_name = {**copy.deepcopy(template), "name": f"{temperature}-u-no-such-name"}
            del by_name["type"]
            by_name["cluster_type"] = {
                "name": "envoy.clusters.dns",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster",
                    "dns_refresh_rate": "0.5s",
                    "dns_failure_refresh_rate": {"base_interval": "0.5s", "max_interval": "0.5s"},
                },
            }
            no_hosts = {
                "name": f"{temperature}-u-no-hosts",
                "type": "EDS",
                "connect_timeout": "1s",
                "eds_cluster_config": {
                    "eds_config": {"path_config_source": {"path": str(self._endpoints(temperature))}}
                },
            }
            config["static_resources"]["clusters"] += [refused, by_name, no_hosts]
            set_endpoint(config, refused["name"], ("127.0.0.1", port))
            set_endpoint(config, by_name["name"], (f"{temperature}.example", self.provider.address[1]))
        config.setdefault("node", {"id": "test", "cluster": "test"})

    def _endpoints(self, temperature: str):
        return self.directory / f"{temperature}.json"

    def reach(self, temperature: str, is_there: bool) -> None:
        """Opens or shuts all three ways."""
        name = f"{temperature}-u-no-hosts"
        address = {"address": "127.0.0.1", "port_value": self.provider.address[1]}
        endpoint = {"endpoint": {"address": {"socket_address": address}}}
        resource = {
            "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [endpoint]}] if is_there else [],
        }
        new = self._endpoints(temperature).with_suffix(".new")
        new.write_text(json.dumps({"resources": [resource]}))
        new.rename(self._endpoints(temperature))
        host = f"{temperature}.example"
        if is_there:
            self.names.unknown.discard(host)
            self._listening[temperature] = Backend(self.provider._answer, port=self.ports[temperature])
        else:
            self.names.unknown.add(host)
            if listening := self._listening.pop(temperature, None):
                listening.close()

    def close(self) -> None:
        self.names.close()
        for listening in self._listening.values():
            listening.close()


@dataclass
class Seen:
    """What one case's callers saw."""

    warm: Counter = field(default_factory=Counter)
    cold: list = field(default_factory=list)
    healed_after: float | None = None


@dataclass
class Outcome:
    """What all of them saw, and how long Envoy had each request that was refused for want of keys, in seconds."""

    cases: dict[str, Seen]
    waits: list[float]


def observe(gateway: Gateway, case: str, seen: Seen) -> None:
    """While everything is bad: good tokens of the warm issuer, and some of the cold one."""
    warm, cold = token(f"warm-{case}"), token(f"cold-{case}")
    for _ in range(6):
        seen.warm[gateway.chat(warm).verdict] += 1
    for _ in range(2):
        start = time.monotonic()
        refused = gateway.chat(cold)
        seen.cold.append((refused.verdict, refused.header("retry-after"), time.monotonic() - start))


def heal(gateway: Gateway, case: str, seen: Seen, start: float) -> None:
    cold = token(f"cold-{case}")
    while time.monotonic() < start + 30:
        if gateway.chat(cold).verdict == PASSES:
            seen.healed_after = time.monotonic() - start
            return


def each(work, seen: dict[str, Seen], *arguments) -> None:
    threads = [threading.Thread(target=work, args=(*arguments[:1], case, seen[case], *arguments[1:])) for case in CASES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def failed_fetches(gateway: Gateway) -> set[str]:
    """The issuers whose keys could not be fetched at least once."""
    return {
        label.split('"')[1]
        for labels in gateway.prometheus("tollgate_key_fetches")
        if 'result="ok"' not in labels
        for label in labels
        if label.startswith("issuer=")
    }


@pytest.fixture(scope="module")
def outcome(stand_ins, module_directory):
    """Runs all cases at once, and tells what was seen of each."""
    spoilt = {f"cold-{case}" for case in FAULTS}
    provider = Provider(spoilt)
    unreachable = Unreachable(module_directory / "endpoints", provider)
    unreachable.reach("cold", False)
    unreachable.reach("warm", True)

    def edit(config):
        known = copy.deepcopy(cluster(config, "entra"))
        known["name"] = known["load_assignment"]["cluster_name"] = "provider"
        # So many issuers at once are more than the shipped breakers are for.
        del known["circuit_breakers"]
        config["static_resources"]["clusters"].append(known)
        set_endpoint(config, "provider", provider.address)
        unreachable.add_to(config)

    issuers = [
        trusted(f"{temperature}-{case}", f"{temperature}-{case}" if case in UNREACHABLE else "provider")
        for case in CASES
        for temperature in ("warm", "cold")
    ]
    policy = shipped_policy(stand_ins, issuers=issuers, apps=[])
    seen = {case: Seen() for case in CASES}
    gateway = Gateway(module_directory / "envoy", stand_ins, policy, edit=edit)
    try:
        for case in CASES:
            wait_until(lambda: gateway.chat(token(f"warm-{case}")).verdict == PASSES, 20, f"keys of warm-{case}")
        spoilt |= {f"warm-{case}" for case in FAULTS}
        unreachable.reach("warm", False)
        everyone = {f"{temperature}-{case}" for case in CASES for temperature in ("warm", "cold")}
        wait_until(lambda: failed_fetches(gateway) >= everyone, 30, "every issuer has failed", every=0.2)
        each(observe, seen, gateway)
        start = time.monotonic()
        spoilt.clear()
        unreachable.reach("cold", True)
        each(heal, seen, gateway, start)
    finally:
        problems = gateway.stop()
        provider.close()
        unreachable.close()
    assert not problems, "\n".join(problems)
    refused = [line for line in gateway.access_log() if (line["status"], line["code"]) == UNAVAILABLE]
    return Outcome(seen, [line["duration_ms"] / 1000 for line in refused])


@pytest.fixture(scope="module")
def seen(outcome):
    return outcome.cases


@pytest.mark.parametrize("case", CASES)
def test_r14_a_bad_answer_costs_nobody_with_keys_and_is_nobodys_fault(seen, case):
    warm, cold, healed_after = seen[case].warm, seen[case].cold, seen[case].healed_after
    assert warm == {PASSES: 6}
    assert {verdict for verdict, _, _ in cold} == {UNAVAILABLE}
    assert all(int(retry_after) >= 1 for _, retry_after, _ in cold)
    assert max(seconds for _, _, seconds in cold) < TIMEOUT + SLACK
    assert healed_after is not None, "good answers did not heal it"
    # The longest pause between two attempts, and an attempt that was under way.
    assert healed_after < 2 + 2 * TIMEOUT + SLACK


def test_r12_r13_r14_in_figures(outcome):
    assert len(CASES) >= 25
    seen, waits = outcome.cases, outcome.waits
    assert len(waits) >= 2 * len(CASES)
    healed = [case.healed_after for case in seen.values() if case.healed_after is not None]
    good = sum(case.warm[PASSES] for case in seen.values())
    assert good == 6 * len(CASES)
    assert len(healed) == len(CASES)
    what = f"{len(CASES)} bad answers and ways to be unreachable, all at once"
    figure("R12", what, f"{good} of {6 * len(CASES)} good tokens passed with old keys", good == 6 * len(CASES))
    figure(
        "R13",
        what,
        f"{len(waits)} of {len(waits)} without keys got 503 with retry-after, after {max(waits):.3f} s at most "
        f"({TIMEOUT:.1f} s is the wait), by Envoy's clock; good {max(healed):.1f} s after the provider was",
        max(waits) <= TIMEOUT + SOON and max(healed) <= 2,
    )
    # The fixture has searched the gateway for lost workers and hung requests, and let nothing pass that had some.
    figure("R14", what, f"{len(CASES)} cases, 0 lost workers, 0 hung requests", True)
