"""Configurations that come and go under load, as a control plane or a file brings them. Rows G7, I7; R24.

`SWAP_SECONDS` makes it longer than the 6 s of `make test`; the goal asks for 300.
"""

import http.client
import os
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from .harness import new_app
from .harness.figures import figure
from .harness.gateway import connection_manager
from .harness.processes import wait_until
from .test_limits import with_limits

SECONDS = float(os.environ.get("SWAP_SECONDS", 6))
EVERY = 2.0
CALLS = 500
CLIENTS = 4
PASSES, LIMITED = (200, None), (429, "RateLimitExceeded")
LONG = 300
# What memory may still grow by after the first swaps, in MiB: allocators keep what they had, and a short run has not
# seen all of that.
ROOM = 2 if SECONDS >= LONG else 8

pytestmark = [pytest.mark.alone, pytest.mark.timeout(int(SECONDS * 2) + 120)]


def resident(process_id: int) -> float:
    """MiB of memory that a process holds."""
    status = Path(f"/proc/{process_id}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


class Load:
    """Clients that ask as fast as they are answered: one keeps its connection until Envoy asks for another, as SDKs do,
    and the others are on a new one each time."""

    def __init__(self, gateway, limited: str, free: str):
        self.gateway, self.limited, self.free = gateway, limited, free
        self._connection = http.client.HTTPConnection(*gateway.address, timeout=30)
        self.verdicts, self.others, self.errors = Counter(), Counter(), []
        # Requests on a connection that was there, and on one that was not.
        self.kept = Counter()
        self._running, self._lock = True, threading.Lock()
        targets = [self._keep, *[self._renew] * (CLIENTS - 1)]
        self._threads = [threading.Thread(target=self._run, args=(target,)) for target in targets]

    def _run(self, target) -> None:
        try:
            while self._running:
                # A refusal that does not wait for the body closes the connection: the limited ones get a new one.
                limited, other = self._renew(self.limited), target(self.free)
                with self._lock:
                    self.verdicts[limited] += 1
                    self.others[other] += 1
        except Exception as error:
            self.errors.append(error)

    def _renew(self, token: str) -> tuple:
        return self.gateway.chat(token).verdict

    def _keep(self, token: str) -> tuple:
        self.kept[self._connection.sock is not None] += 1
        return self.gateway.chat(token, connection=self._connection).verdict

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._running = False
        for thread in self._threads:
            thread.join()
        self._connection.close()


def leave_in_time(config: dict) -> None:
    """Callers are told to leave before the old listener closes their connections: both are shorter here than in use."""
    connection_manager(config)["drain_timeout"] = "0.2s"


def test_g7_i7_r24_swaps_under_load(start_gateway, stand_ins):
    free_app = new_app()

    def policy(number: int) -> dict:
        limit = {"calls": CALLS, "per": "24h"}
        free = {"app_id": free_app, "name": f"free-{number}"}
        return with_limits(stand_ins, limit) | {"apps": [free], "public_paths": ["/status", f"/generation-{number}"]}

    gateway = start_gateway(stand_ins, policy(0), dynamic=True, edit=leave_in_time)
    limited, free = stand_ins.entra.mint(new_app()), stand_ins.entra.mint(free_app)
    memory, swaps = [], 0
    with Load(gateway, limited, free) as load:
        start = time.monotonic()
        while time.monotonic() < start + SECONDS:
            swaps += 1
            due = start + swaps * EVERY
            gateway.update(policy(swaps))
            time.sleep(max(0.0, due - time.monotonic()))
            memory.append(resident(gateway.pid))
    assert not load.errors
    assert gateway.stat("listener_manager.lds.update_rejected") == 0
    assert gateway.stat("listener_manager.lds.update_success") >= swaps
    # The last policy is the one that holds, on every worker.
    wait_until(
        lambda: 401 not in {gateway.request("GET", f"/generation-{swaps}").status for _ in range(16)},
        10,
        "the last policy",
    )
    # It was asked to leave the old listeners, and was on a connection of its own in between.
    assert load.kept[False] > swaps // 2 and load.kept[True] > 10 * load.kept[False]
    assert set(load.others) == {PASSES}
    assert set(load.verdicts) <= {PASSES, LIMITED}
    while (verdict := gateway.chat(limited).verdict) == PASSES:
        load.verdicts[verdict] += 1
    assert load.verdicts[PASSES] == CALLS
    # The first swaps fill what is then reused.
    settled, last = max(memory[: len(memory) // 2]), memory[-1]
    assert last - settled < ROOM
    sent = load.others.total() + load.verdicts.total()
    figure(
        "R24",
        f"{swaps} swaps of the configuration, one every {EVERY:.0f} s under load",
        f"{sent} requests, {sent / SECONDS:.0f}/s, 0 failed: {load.kept[True]} on kept connections, the rest on new "
        f"ones; limit of {CALLS} exact; "
        f"{settled:.0f} MiB in the first half, {last:.0f} MiB at the end",
        SECONDS >= LONG and sent / SECONDS >= 500,
    )
