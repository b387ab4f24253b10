"""A VM that is killed on purpose, under `failure_policy: FAIL_RELOAD`. Row I1; R16, and R15 for paused requests.

The module that is killed has a switch which only the cargo feature `chaos` builds: `make chaos`.
"""

import threading
import time
from collections import Counter

import pytest

from .harness import Gateway, StandIns, new_app, shipped_policy
from .harness.figures import figure
from .harness.gateway import connection_manager, plugin
from .harness.processes import module, wait_until

SWITCH = ("x-tollgate-chaos", "trap")
PASSES = (200, None)
UNAVAILABLE = (503, "KeysUnavailable")
LIMITED = (429, "RateLimitExceeded")
KILLED = (503, None)
# How long a worker may be without a VM, and a little for a machine with more to do than it can.
OUTAGE, SLACK = 2.0, 3.0
# The longest silence on a stream, in place of the minute of envoy/envoy.yaml.
IDLE = 6.0


@pytest.fixture
def start_chaos(directory, chaos_module, apart):
    """Starts gateways whose VMs may die; nothing else may go wrong."""
    started = []

    def start(stand_ins, policy=None, **options) -> Gateway:
        def edit(config):
            plugin(config)["vm_config"]["code"]["local"]["filename"] = str(chaos_module)
            connection_manager(config)["stream_idle_timeout"] = f"{IDLE}s"

        gateway = Gateway(directory / f"envoy-{len(started)}", stand_ins, policy, edit=edit, **options)
        started.append(gateway)
        return gateway

    yield start
    problems = [problem for gateway in started for problem in gateway.stop()]
    allowed = ("vm_reload", "Function: proxy_", "Uncaught RuntimeError", "in-VM backtrace")
    problems = [problem for problem in problems if not any(sign in problem for sign in allowed)]
    assert not problems, "\n".join(problems)


def kills(gateway: Gateway) -> int:
    """VMs that Envoy started in place of dead ones."""
    return sum(value for name, value in gateway.stats("vm_reload_success").items())


def test_r16_an_outage_is_short_and_lets_nobody_through(start_chaos, stand_ins):
    """VMs die several times under traffic: nobody without a token passes meanwhile, counters go on."""
    policy = shipped_policy(stand_ins, apps=[], default_app={"limits": [{"calls": 40, "per": "1h"}]})
    gateway = start_chaos(stand_ins, policy)
    limited, forged = stand_ins.entra.mint(new_app()), stand_ins.entra.mint(new_app(), key="foreign")
    before = [gateway.chat(limited).verdict for _ in range(10)]
    assert before == [PASSES] * 10
    fetches = stand_ins.entra.fetches()
    verdicts, forgeries, outages = Counter(), Counter(), []
    running = True

    def attack():
        while running:
            forgeries[gateway.chat(forged).status] += 1
            forgeries[gateway.chat().status] += 1

    def watch():
        """How long good tokens get no answer of the module, on whichever worker."""
        connection_free = stand_ins.entra.mint(new_app())
        down_since = None
        while running:
            answer = gateway.chat(connection_free)
            now = time.monotonic()
            if answer.status == 503 and down_since is None:
                down_since = now
            elif answer.status != 503 and down_since is not None:
                outages.append(now - down_since)
                down_since = None
            time.sleep(0.01)

    threads = [threading.Thread(target=target) for target in (attack, watch)]
    for thread in threads:
        thread.start()
    try:
        for killed in range(4):
            # Connections fall to workers by chance: until one more VM was replaced.
            assert gateway.chat(limited, headers=[SWITCH]).verdict == KILLED
            start = time.monotonic()
            wait_until(lambda: kills(gateway) > killed, 10, "a new VM")
            back = [False]
            while time.monotonic() < start + OUTAGE + SLACK and not all(back):
                back = [gateway.request("GET", "/status").status == 200 for _ in range(16)]
            assert all(back), "a worker is still out"
            outages.append(time.monotonic() - start)
    finally:
        running = False
        for thread in threads:
            thread.join()

    assert set(forgeries) <= {401, 503}
    assert forgeries[401] > 0
    for _ in range(60):
        verdicts[gateway.chat(limited).verdict] += 1
    # A killed call holds no place: the VM died before it decided.
    assert verdicts == {PASSES: 30, LIMITED: 30}
    assert stand_ins.entra.fetches() == fetches, "new VMs take the keys of the process"
    assert max(outages) < OUTAGE + SLACK
    figure(
        "R16",
        "VMs killed under traffic, FAIL_RELOAD",
        f"{kills(gateway)} killed, out for {max(outages):.2f} s at most; {sum(forgeries.values())} bad tokens, 0 "
        "passed; limit of 40 exact, keys shared with the new VMs",
        max(outages) <= OUTAGE,
    )


def test_r15_r16_requests_that_wait_in_a_vm_that_dies(start_chaos, own_stand_ins):
    """They cannot be decided any more: Envoy answers them when the stream's deadline passes."""
    own_stand_ins.entra.behave("all", "hang")

    gateway = start_chaos(own_stand_ins, workers=1)
    token = own_stand_ins.entra.mint()
    results = []

    def ask():
        start = time.monotonic()
        results.append((gateway.chat(token, timeout=90).status, time.monotonic() - start))

    threads = [threading.Thread(target=ask) for _ in range(10)]
    for thread in threads:
        thread.start()
    wait_until(lambda: gateway.stat("http.ingress.downstream_rq_active") == 10, 5, "they wait")
    assert gateway.chat(headers=[SWITCH]).verdict == KILLED
    own_stand_ins.entra.behave("all", "ok")
    # The next VM is without keys, and takes up the fetch that died with the last one.
    start = time.monotonic()
    wait_until(lambda: gateway.chat(token).verdict == PASSES, 20, "keys are fetched by the new VM")
    healed = time.monotonic() - start
    for thread in threads:
        thread.join()
    assert len(results) == 10
    assert {status for status, _ in results} <= {503, 408, 504}
    longest = max(seconds for _, seconds in results)
    assert longest < IDLE + SLACK
    what = "requests that wait for keys in a VM that is killed"
    told = f"{len(results)} answered, 0 passed, after {longest:.1f} s at most"
    told += f": stream_idle_timeout is {IDLE:.0f} s here, 60 s as shipped"
    figure("R15", what, told, longest < IDLE + SLACK)
    figure("R16", what, f"the new VM has keys after {healed:.1f} s", healed < 20)


def test_the_shipped_module_has_no_switch(start_gateway, stand_ins, chaos_module):
    name = SWITCH[0].encode()
    assert name in chaos_module.read_bytes()
    assert name not in module().read_bytes()
    gateway = start_gateway(stand_ins)
    token = stand_ins.entra.mint(new_app())
    assert {gateway.chat(token, headers=[SWITCH]).verdict for _ in range(16)} == {PASSES}
    # The fixture sees to it that no VM was replaced.
