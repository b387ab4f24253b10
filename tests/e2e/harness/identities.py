"""Who calls: the tenant and applications of envoy/envoy.yaml."""

import uuid

TENANT = "11111111-2222-3333-4444-555555555555"
OTHER_TENANT = "99999999-8888-7777-6666-555555555555"
APP_BATCH = "aaaaaaaa-0000-0000-0000-000000000001"
APP_CHAT = "aaaaaaaa-0000-0000-0000-000000000002"
APP_WRITER = "aaaaaaaa-0000-0000-0000-000000000003"
# In no list: allowed without limits.
APP_OTHER = "aaaaaaaa-0000-0000-0000-00000000000f"
AUDIENCE = "https://cognitiveservices.azure.com"


def new_app() -> str:
    """An application nobody has listed, with counters nobody has touched."""
    return str(uuid.uuid4())
