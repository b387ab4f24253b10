"""What every other test relies on: the searches at a gateway's end find what they look for."""

import pytest

from .harness import Gateway
from .harness.gateway import SIGNS_OF_DEATH, connection_manager


@pytest.fixture(autouse=True)
def apart():
    """What these tests put there to be found is not among what the others left."""
    before = len(Gateway.ended)
    yield
    del Gateway.ended[before:]


def test_r28_a_token_in_a_log_is_found(stand_ins, directory):
    def log_the_token(config):
        fields = connection_manager(config)["access_log"][0]["typed_config"]["log_format"]["json_format"]
        fields["leak"] = "%REQ(AUTHORIZATION)%"

    gateway = Gateway(directory, stand_ins, edit=log_the_token)
    assert gateway.chat(stand_ins.entra.mint()).status == 200
    problems = gateway.stop()
    assert len(problems) == 1
    assert "R28" in problems[0]


def test_r3_a_dead_vm_is_found(stand_ins, directory):
    gateway = Gateway(directory, stand_ins)
    with gateway.log.open("a") as log:
        log.write("\n".join(SIGNS_OF_DEATH))
    assert len(gateway.stop()) == len(SIGNS_OF_DEATH)


def test_an_envoy_that_ended_is_found(stand_ins, directory):
    gateway = Gateway(directory, stand_ins)
    gateway.kill()
    assert "ended by itself" in gateway.stop()[0]
