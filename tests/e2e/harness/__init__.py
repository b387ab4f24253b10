"""Starts the stand-ins and Envoy, and talks to them. Also used by `make run` and `make demo`."""

from .gateway import Gateway, GatewayRefused, shipped_config, shipped_policy
from .http import Answer, call, raw
from .identities import APP_BATCH, APP_CHAT, APP_OTHER, APP_WRITER, AUDIENCE, TENANT, new_app
from .processes import PortTaken
from .stand_ins import StandIns

__all__ = [
    "APP_BATCH",
    "APP_CHAT",
    "APP_OTHER",
    "APP_WRITER",
    "AUDIENCE",
    "TENANT",
    "Answer",
    "Gateway",
    "GatewayRefused",
    "PortTaken",
    "StandIns",
    "call",
    "new_app",
    "raw",
    "shipped_config",
    "shipped_policy",
]
