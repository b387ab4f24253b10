"""A wall clock that jumps while a real Envoy runs. Rows F12, G5; R18.

Envoy's timers go by a monotonic clock, which is left alone: only the time of day is another.
"""

import calendar
import struct
import subprocess
import time
from pathlib import Path

import pytest

from .harness import new_app, shipped_policy
from .harness.figures import figure
from .harness.processes import ROOT, wait_until
from .test_keys import with_refresh

HOUR, DAY = 3600, 86_400
PASSES = (200, None)
LIMITED = (429, "RateLimitExceeded")
EXPIRED = (401, "TokenExpired")
# In seconds; a window comes back up to 1/64 late.
WINDOW = 4


class Clock:
    """Says how far a process' time of day is off, by way of harness/clock.c in that process."""

    def __init__(self, directory: Path):
        directory.mkdir(parents=True, exist_ok=True)
        self._library, self._file = directory / "clock.so", directory / "offset"
        source = ROOT / "tests" / "e2e" / "harness" / "clock.c"
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", self._library, source], check=True)
        self._file.write_bytes(bytes(8))

    def jump_to(self, offset: int) -> None:
        """Seconds from the right time."""
        with self._file.open("r+b") as file:
            file.write(struct.pack("=q", offset))

    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self._library), "CLOCK_OFFSET": str(self._file)}


@pytest.fixture
def clock(directory):
    return Clock(directory)


def policy_with(stand_ins, per: str, **refresh) -> dict:
    policy = with_refresh(stand_ins, **refresh)
    return {**policy, "apps": [], "default_app": {"limits": [{"calls": 5, "per": per}]}}


def token_at(stand_ins, offset: int, app: str, lifetime: int = HOUR) -> str:
    """A token that is good at that time."""
    now = int(time.time()) + offset
    return stand_ins.entra.mint(app, claims={"iat": now, "nbf": now, "exp": now + lifetime})


def gateway_time(gateway, token) -> float:
    """How far the gateway's time of day is from ours, by the module's own log."""
    before = len(gateway.request_log())
    gateway.chat(token)
    line = wait_until(lambda: gateway.request_log()[before:], 5, "the request's line")[0]
    stamp = calendar.timegm(time.strptime(line["time"][:19], "%Y-%m-%dT%H:%M:%S"))
    return stamp - time.time()


@pytest.mark.parametrize("offset", [-HOUR, DAY])
def test_f12_g5_r18_a_clock_that_jumps(start_gateway, own_stand_ins, clock, offset):
    gateway = start_gateway(own_stand_ins, policy_with(own_stand_ins, f"{WINDOW}s"), environment=clock.environment())
    app = new_app()
    long_lived = token_at(own_stand_ins, -2 * HOUR, app, 4 * DAY)
    short_lived = token_at(own_stand_ins, 0, new_app(), 60)
    old = token_at(own_stand_ins, -HOUR, new_app(), 60)
    assert gateway.chat(short_lived).verdict == PASSES
    assert {gateway.chat(old).verdict for _ in range(4)} == {EXPIRED}
    fetches = own_stand_ins.entra.fetches()
    assert abs(gateway_time(gateway, token_at(own_stand_ins, 0, new_app()))) < 30
    assert [gateway.chat(long_lived).verdict for _ in range(6)] == [PASSES] * 5 + [LIMITED]

    clock.jump_to(offset)
    jumped = time.monotonic()
    passed = []
    while time.monotonic() < jumped + 3 * WINDOW:
        verdict = gateway.chat(long_lived).verdict
        assert verdict in (PASSES, LIMITED), verdict
        if verdict == PASSES:
            passed.append(time.monotonic() - jumped)
        time.sleep(0.05)
    off = gateway_time(gateway, token_at(own_stand_ins, offset, new_app()))
    assert abs(off - offset) < 30, "the gateway's clock did not jump"

    # In front of it windows are over; behind it none begins anew before a whole one has passed.
    free = sum(seconds < WINDOW * 0.9 for seconds in passed)
    assert free == (5 if offset > 0 else 0)
    # Nobody is shut out for longer than a window, and none of them holds more than five.
    assert [seconds for seconds in passed if seconds < WINDOW * (1 + 1 / 64) + 2]
    for first, last in zip(passed, passed[5:]):
        assert last - first > WINDOW * 0.9

    # What has expired stays so by the clock of the moment, and forward more has.
    expected = {EXPIRED} if offset > 0 else {(401, "TokenNotYetValid")}
    assert {gateway.chat(short_lived).verdict for _ in range(4)} == expected
    fresh = token_at(own_stand_ins, offset, new_app())
    assert {gateway.chat(fresh).verdict for _ in range(4)} == {PASSES}
    # Either way the keys are older than they should be, or from the future: they are fetched anew.
    wait_until(lambda: own_stand_ins.entra.fetches() > fetches, 10, "keys are refreshed")
    own_stand_ins.entra.rotate(keep_old=False)
    rotated = token_at(own_stand_ins, offset, new_app())
    wait_until(lambda: gateway.chat(rotated).verdict == PASSES, 10, "a new key is taken up")

    clock.jump_to(0)
    late = token_at(own_stand_ins, 0, new_app(), 2 * HOUR)
    wait_until(lambda: gateway.chat(late).verdict == PASSES, 10, "good tokens pass when the clock is right again")
    figure(
        "R18",
        f"a clock that jumps by {offset:+d} s in a running Envoy",
        f"{free} calls beyond the window of 5, shut for {passed[0]:.1f} s of {WINDOW} s at most, expired stays so",
        free <= 5 and passed[0] < WINDOW * (1 + 1 / 64) + 2,
    )
