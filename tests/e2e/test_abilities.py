"""Envoy without some of what it can do, as docs/gateways.md says of other hosts: the log names it, nothing passes."""

import time

import pytest

from .harness import Gateway, new_app, shipped_policy
from .harness.gateway import plugin
from .harness.processes import wait_until

# What is withheld on purpose stands in the logs as if a worker had died of it.
pytestmark = pytest.mark.usefixtures("apart")

PASSES, NO_KEYS = (200, None), (503, "KeysUnavailable")
# The interlock lets pass only what has the module's filter state.
NOT_GUARDED = (403, "GatewayNotGuarded")
RESTRICTED = "restricted proxy-wasm capability"
AT_ONCE = 3

# What is withheld, what the log says, and what becomes of a call.
WITHHELD = {
    "crypto": (["proxy_call_foreign_function"], "signatures verified by the host: none", PASSES),
    "shared data": (["proxy_get_shared_data", "proxy_set_shared_data"], "this host has no shared data", PASSES),
    "callouts": (["proxy_http_call"], "could not send the request", NO_KEYS),
    "ticks": (["proxy_set_tick_period_milliseconds"], "this host has no ticks", NO_KEYS),
    "effective contexts": (["proxy_set_effective_context"], "this host has no effective contexts", NO_KEYS),
    "metrics": (["proxy_define_metric"], "this host has no metrics", PASSES),
    "filter state": (["proxy_set_property"], "this host refused the filter state", NOT_GUARDED),
    "properties": (["proxy_get_property"], "this host tells no plugin name", PASSES),
}


@pytest.mark.parametrize("ability", WITHHELD)
def test_without(stand_ins, directory, ability):
    calls, told, verdict = WITHHELD[ability]

    def withhold(config):
        for call in calls:
            del plugin(config)["vm_config"]["capability_restriction_config"]["allowed_capabilities"][call]

    policy = shipped_policy(stand_ins, apps=[], default_app={"limits": [{"calls": 100, "per": "1h"}]})
    with_less = Gateway(directory, stand_ins, policy, edit=withhold)
    try:
        token = stand_ins.entra.mint(new_app())
        deadline = time.monotonic() + 20
        # Keys may not be there yet.
        while (answer := with_less.chat(token)).verdict != verdict and time.monotonic() < deadline:
            time.sleep(0.1)
        assert answer.verdict == verdict
        assert with_less.chat(token + "x").verdict[0] in (401, 503)
        assert with_less.chat(token, [("api-key", "0123456789abcdef")]).verdict == (403, "AuthenticationTypeDisabled")
        assert told in with_less.log_text()
    finally:
        problems = with_less.stop()
    assert [problem for problem in problems if RESTRICTED not in problem] == []


@pytest.mark.parametrize("call", ("proxy_set_tick_period_milliseconds", "proxy_set_effective_context"))
def test_no_request_waits_where_nothing_would_end_the_wait(own_stand_ins, directory, call):
    def withhold(config):
        del plugin(config)["vm_config"]["capability_restriction_config"]["allowed_capabilities"][call]

    own_stand_ins.entra.behave("all", "status", status=503)
    gateway = Gateway(directory / "envoy", own_stand_ins, edit=withhold)
    try:
        began = time.monotonic()
        assert gateway.chat(own_stand_ins.entra.mint(new_app())).verdict == NO_KEYS
        assert time.monotonic() - began < AT_ONCE
    finally:
        problems = gateway.stop()
    assert [problem for problem in problems if RESTRICTED not in problem] == []


@pytest.mark.parametrize("call", ("proxy_get_header_map_pairs", "proxy_remove_header_map_value"))
def test_what_cannot_be_decided_or_done_is_told(stand_ins, directory, call):
    """Without a request's head, or without what takes a forged header out of it."""

    def withhold(config):
        del plugin(config)["vm_config"]["capability_restriction_config"]["allowed_capabilities"][call]

    broken, spoof = (503, "InternalError"), [("x-http-method-override", "DELETE")]
    policy = shipped_policy(stand_ins, forward={"headers": {"x-app-id": "app_id"}})
    gateway = Gateway(directory, stand_ins, policy, edit=withhold)
    try:
        token = stand_ins.entra.mint(new_app())
        wait_until(lambda: gateway.chat(token, spoof).verdict == broken, 20, "keys are there")
        told = gateway.request_log()[-1]
        assert (told["outcome"], told["code"], told["status"]) == ("unavailable", "InternalError", 503)
        seen = wait_until(gateway.access_log, 15, "the access log is written")[-1]
        assert (seen["outcome"], seen["code"], seen["status"]) == ("unavailable", "InternalError", 503)
        labels = {'code="InternalError"', 'outcome="unavailable"'}
        wait_until(lambda: any(labels <= of for of in gateway.prometheus("tollgate_requests")), 5, "it is counted")
        assert "compare its allowed_capabilities" in gateway.log_text()
    finally:
        problems = gateway.stop()
    assert [problem for problem in problems if RESTRICTED not in problem] == []


def test_without_adding_headers_they_are_replaced(stand_ins, directory):
    """As under a configuration of an earlier version, whose list of capabilities lacks the call."""

    def withhold(config):
        vm = plugin(config)["vm_config"]
        del vm["capability_restriction_config"]["allowed_capabilities"]["proxy_add_header_map_value"]

    app, policy = new_app(), shipped_policy(stand_ins, forward={"headers": {"x-app-id": "app_id"}})
    gateway = Gateway(directory, stand_ins, policy, edit=withhold)
    try:
        assert "this host has no proxy_add_header_map_value" in gateway.log_text(), "said at the start"
        token = stand_ins.entra.mint(app)
        for spoof in ([], [("x-app-id", "forged")], []):
            assert gateway.chat(token, spoof).verdict == (200, None)
            sent = stand_ins.openai.requests()[-1]["headers"]
            assert [value for name, value in sent if name.lower() == "x-app-id"] == [app]
        assert "this host refuses proxy_add_header_map_value" in gateway.log_text()
    finally:
        problems = gateway.stop()
    assert [problem for problem in problems if RESTRICTED not in problem] == []


def test_envoy_lacks_nothing(start_gateway, stand_ins):
    gateway = start_gateway(stand_ins)
    assert gateway.chat(stand_ins.entra.mint(new_app())).verdict == PASSES
    assert "this host" not in gateway.log_text()
