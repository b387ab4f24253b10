"""What docs/running.md says of upgrades: what keeps counters, and what loses them."""

import pytest

from .harness import new_app, shipped_policy
from .harness.gateway import plugin
from .harness.processes import module

PASSED, LIMITED = (200, None), (429, "RateLimitExceeded")


@pytest.fixture
def upgrade(start_gateway, stand_ins, directory):
    """A gateway whose one application has used two of its three calls, then another module."""
    policy = shipped_policy(stand_ins, apps=[], default_app={"limits": [{"calls": 3, "per": "1h"}]})
    changes = {}

    def edit(config):
        vm = plugin(config)["vm_config"]
        vm["vm_id"] = changes.get("vm_id", vm["vm_id"])
        vm["code"]["local"]["filename"] = changes.get("filename", vm["code"]["local"]["filename"])

    gateway = start_gateway(stand_ins, policy, edit=edit, dynamic=True)
    token = stand_ins.entra.mint(new_app())
    assert [gateway.chat(token).verdict for _ in range(2)] == [PASSED] * 2

    # The same module with one more custom section: another file to Envoy, with another hash.
    name = b"upgraded"
    section = bytes([len(name)]) + name
    upgraded = directory / "upgraded.wasm"
    upgraded.write_bytes(module().read_bytes() + b"\x00" + bytes([len(section)]) + section)
    changes["filename"] = str(upgraded)

    def run(**more):
        changes.update(more)
        gateway.update(policy)
        assert gateway.stat("listener_manager.lds.update_rejected") == 0
        assert gateway.stat("wasm.envoy.wasm.runtime.v8.created") >= 6, "the module was not loaded anew"
        return [gateway.chat(token).verdict for _ in range(3)]

    return run


def test_a_new_module_under_the_same_vm_id_keeps_the_counters(upgrade):
    assert upgrade() == [PASSED, LIMITED, LIMITED]


def test_another_vm_id_begins_to_count_anew(upgrade):
    assert upgrade(vm_id="tollgate-2") == [PASSED] * 3
