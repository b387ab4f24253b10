"""Roles and deployments: what slips past, what passes. Rows of E; Azure's own roles."""

import json
import re
from collections import Counter

import openai
import pytest

from .harness import Gateway, new_app, raw, shipped_policy
from .harness.backend import Backend, answer
from .harness.figures import figure
from .harness.gateway import JSON_TYPE, connection_manager, set_endpoint
from .harness.processes import ROOT, wait_until
from .harness.secrets import keep_secret

USER = "Cognitive Services OpenAI User"
CONTRIBUTOR = "a001fd3d-188f-4b5d-821b-7da978bf7442"
PREFIX = "Microsoft.CognitiveServices/accounts/OpenAI/"
DENIED = (403, "PermissionDenied")

# Operations that an OpenAI User lacks.
FORBIDDEN = [
    ("POST", "/openai/files"),
    ("POST", "/openai/v1/files"),
    ("DELETE", "/openai/v1/files/file-1"),
    ("POST", "/openai/v1/uploads"),
    ("POST", "/openai/fine_tuning/jobs"),
    ("POST", "/openai/v1/batches"),
    ("DELETE", "/openai/v1/chat/completions/chatcmpl-1"),
    ("PUT", "/openai/deployments/gpt-4o"),
]


def disguised_paths(path: str) -> list[bytes]:
    """Ways to write a path that some server may read as `path`."""
    head, _, last = path.rpartition("/")
    rest = path.removeprefix("/openai/")
    encoded, twice = f"%{ord(last[0]):02x}{last[1:]}", f"%25{ord(last[0]):02x}{last[1:]}"
    forms = [
        f"/{path}", f"/openai//{rest}", f"{head}//{last}", f"/./openai/{rest}", f"/openai/./{rest}",
        f"{head}/./{last}", f"/openai/models/../{rest}", f"/openai/models/x/../../{rest}",
        f"/openai/v1/models/../../{rest}", f"/openai/models/%2e%2e/{rest}", f"/openai/models/.%2e/{rest}",
        f"/openai/models/%252e%252e/{rest}", f"/openai/models/..;/{rest}", f"/openai/models/..%2f{rest}",
        f"/openai/models/..%5c{rest}", f"/openai/models/..\\{rest}", f"/openai\\{rest}", f"{head}\\{last}",
        f"{head}%5c{last}", f"{head}%2f{last}", f"{head}%2F{last}", f"{head}%252f{last}", f"{head}/{encoded}",
        f"{head}/{twice}", f"{path}/", f"{path}//", f"{path}/.", f"{path}/x/..", f"{path}/%2e", f"{path}.",
        f"{path}%20", f"{path}%00", f"{path}%00/models", f"{path}\0", f"{path}\t", f"{path};", f"{path};x=1",
        f"{path};/../models", f"/openai;x=1/{rest}", f"{path}#", f"{path}#/openai/models", f"{path}%3fx",
        f"{path}%23", f"{head}/\u200b{last}", f"{head}\u2215{last}", f"{head}\uff0f{last}",
        f"http://localhost{path}", f"https://gate//{rest}", path[1:], path.upper(), f"/OpenAI/{rest}",
        f"/openai/v2/{rest}", f"/openai/v1/v1/{rest}", f"/openai/openai/{rest}", f"/v1/{rest}", f"/{rest}",
        f"{path}?", f"{path}?/openai/models", f"{path}?x=/../../models", f"{path}?api-version=2024-10-21",
        f"/openai/deployments/gpt-4o/chat/completions/../../../../{rest}",
        f"/openai/deployments/..%2f..%2fopenai%2f{rest}/chat/completions",
        f"/openai/models/{rest}/..;", f"/openai/assistants/..;/{rest}",
    ]  # fmt: skip
    forms = [form.encode() for form in forms]
    return forms + [path.encode() + tail for tail in (b"\xff", b"/\x80", b"\xc0\xae\xc0\xae/models")]


def disguised_methods(method: str) -> list[bytes]:
    forms = [method.lower(), method.title(), f"{method}\0", f"X-{method}", "*", "PROPFIND", "TRACE", "OPTIONS", "QUERY"]
    return [form.encode() for form in forms]


OVERRIDES = [
    b"x-http-method-override",
    b"x-http-method",
    b"x-method-override",
    b"x_http_method_override",
    b"x-original-url",
    b"x-rewrite-url",
    b"x-forwarded-prefix",
]


def leave_alone(config):
    """A listener that changes and refuses nothing itself."""
    manager = connection_manager(config)
    for name in ("normalize_path", "merge_slashes", "path_with_escaped_slashes_action"):
        del manager[name]
    manager["common_http_protocol_options"]["headers_with_underscores_action"] = "ALLOW"
    del manager["route_config"]["request_headers_to_remove"]


def keep(_):
    """The listener as it is shipped."""


LISTENERS = {keep: "the listener as shipped", leave_alone: "a listener that changes nothing"}


def sending_to(backend: Backend, edit):
    """Another edit, and this backend in place of the stand-in."""

    def both(config):
        edit(config)
        set_endpoint(config, "azure_openai", backend.address)

    return both


@pytest.mark.parametrize("edit", [keep, leave_alone])
def test_nothing_slips_past_a_role(start_gateway, stand_ins, edit):
    with Backend(lambda _: [answer(b"{}")]) as backend:
        policy = shipped_policy(stand_ins, default_app={"roles": [USER]})
        gateway = start_gateway(stand_ins, policy, edit=sending_to(backend, edit))
        token = stand_ins.entra.mint(new_app()).encode()

        def send(method: bytes, path: bytes, *headers: bytes):
            lines = [b"%s %s HTTP/1.1" % (method, path), b"host: gate", b"connection: close"]
            lines += [b"authorization: Bearer " + token, b"content-length: 0", *headers, b"", b""]
            return raw(gateway.address, b"\r\n".join(lines))

        # The same token may do what its role grants.
        assert send(b"GET", b"/openai/v1/models").status == 200
        backend.received.clear()
        by, tried = Counter(), set()
        for method, path in FORBIDDEN:
            name, place = method.encode(), path.encode()
            forms = [(name, form, ()) for form in disguised_paths(path)]
            forms += [(form, place, ()) for form in disguised_methods(method)]
            forms += [(b"GET", b"/openai/v1/models/x/y", (b"%s: %s" % (over, place),)) for over in OVERRIDES]
            forms += [(b"OPTIONS", place, (b"%s: %s" % (over, name),)) for over in OVERRIDES]
            for form in forms:
                result = send(form[0], form[1], *form[2])
                assert result.status >= 400 or result.status == 0, (form, result)
                assert not backend.received, (form, backend.received[0].line)
                by["module" if result.verdict == DENIED else "Envoy"] += 1
                tried.add(form)
        assert len(tried) >= 200
        # Mostly it is the module that refuses; Envoy refuses what is no HTTP, or no path, to it.
        assert by["module"] >= 200, by
        said = f"{len(tried)} forms, {by['module']} refused by the module and {by['Envoy']} by Envoy, 0 arrived"
        figure("R22", f"requests for what a role lacks, {LISTENERS[edit]}", said, True)


@pytest.mark.parametrize("edit", [keep, leave_alone])
def test_r22_the_log_tells_the_path_that_the_backend_gets(start_gateway, stand_ins, edit):
    with Backend(lambda _: [answer(b"{}")]) as backend:
        gateway = start_gateway(stand_ins, shipped_policy(stand_ins), edit=sending_to(backend, edit))
        token = stand_ins.entra.mint(new_app())
        forms = [form for _, path in FORBIDDEN for form in disguised_paths(path)]
        for form in forms:
            lines = [b"GET " + form + b" HTTP/1.1", b"host: gate", b"connection: close"]
            raw(gateway.address, b"\r\n".join([*lines, f"authorization: Bearer {token}".encode(), b"", b""]))
        arrived = [(got.line.split(" ")[1], got.header("x-request-id")) for got in backend.received]
        assert len(arrived) > len(forms) / 4
        wait_until(lambda: len(gateway.request_log()) >= len(arrived), 5, "the lines of all requests")
        told = {line["request_id"]: line["path"] for line in gateway.request_log()}
        for path, request_id in arrived:
            # The backend's line is read as one byte a character, the log is UTF-8.
            raw_path = path.partition("?")[0].encode("latin-1")
            assert told[request_id] == raw_path.decode(errors="replace"), path
    said = f"{len(arrived)} of {len(forms)} reached the backend, all under the path that was logged"
    figure("R22", f"odd paths of a caller without roles, {LISTENERS[edit]}", said, True)


def operations() -> list[tuple[str, str, str, str]]:
    """Method, path, data action and where the model is named: the documented table, on its surfaces."""
    rows = re.findall(
        r"^\| ([A-Z]+) \| `(/openai\S+)` \| `(\S+)` \| (\w*) +\|$|^\| ([A-Z]+) \| `(/openai\S+)` \| `(\S+)` \|  \|$",
        (ROOT / "docs" / "operations.md").read_text(),
        re.MULTILINE,
    )
    found = []
    for row in rows:
        method, path, action = row[:3] if row[0] else row[4:7]
        place = row[3]
        path = path.replace("{deployment}", "gpt-4o").replace("{id}", "x-1")
        if place == "query":
            path += "?model=gpt-4o" if "/v1/" in path else "?deployment=gpt-4o"
        for surface in ["", "/v1"] if "[/v1]" in path else [None]:
            full = path if surface is None else path.replace("[/v1]", surface)
            if place == "query":
                full = full.replace("?model=", "?deployment=") if "/v1/" not in full else full.replace("?deployment=", "?model=")
            found.append((method, full, action, place))
    return found


def test_each_operation_passes_under_its_role_and_under_no_other(start_gateway, stand_ins):
    table = operations()
    assert len(table) > 150
    actions = sorted({action for _, _, action, _ in table})
    apps, roles, granted, withheld = [], {}, {}, {}
    for number, action in enumerate(actions):
        name = PREFIX + action
        roles[f"only {number}"] = {"data_actions": [name]}
        roles[f"all but {number}"] = {"data_actions": ["*"], "not_data_actions": [name]}
        for kind, callers in (("only", granted), ("all but", withheld)):
            app = new_app()
            apps.append({"app_id": app, "roles": [f"{kind} {number}"]})
            callers[action] = stand_ins.entra.mint(app)
    everything = new_app()
    apps.append({"app_id": everything, "roles": [CONTRIBUTOR]})
    contributor = stand_ins.entra.mint(everything)
    with Backend(lambda _: [answer(b"{}")]) as backend:
        gateway = start_gateway(
            stand_ins,
            shipped_policy(stand_ins, apps=apps, roles=roles),
            edit=lambda config: set_endpoint(config, "azure_openai", backend.address),
        )
        for method, path, action, place in table:

            def send(token):
                body = b'{"model":"gpt-4o"}' if method in ("POST", "PUT", "PATCH") else None
                return gateway.request(method, path, token=token, headers=[JSON_TYPE], body=body)

            backend.received.clear()
            assert send(granted[action]).status == 200, (method, path)
            assert send(contributor).status == 200, (method, path)
            assert [received.line for received in backend.received] == [f"{method} {path} HTTP/1.1"] * 2
            refused = send(withheld[action])
            if method == "HEAD":  # An answer without a body.
                assert refused.status == 403
            else:
                assert refused.verdict == DENIED, (method, path)
                assert f"`{PREFIX}{action}`" in refused.json["error"]["message"], (method, path)
            assert len(backend.received) == 2
        # All of that is told with its action, and where there is one with its deployment.
        lines = [line for line in gateway.request_log() if line["outcome"] == "allowed"]
        assert len(lines) == 2 * len(table)
        for line, (method, path, action, place) in zip(lines[::2], table):
            assert (line["method"], line["path"]) == (method, path.split("?")[0])
            assert line["action"] == PREFIX + action
            named = {"path": "gpt-4o", "query": "gpt-4o", "body": "gpt-4o" if method == "POST" else None}
            assert line["deployment"] == named.get(place), (method, path)


# Azure's own words


AZURE_ROLE = {
    "assignableScopes": ["/"],
    "createdBy": None,
    "createdOn": "2026-01-01T00:00:00.000000+00:00",
    "description": "May chat, may see files, may not see the content of assistants' files.",
    "id": "/subscriptions/x/providers/Microsoft.Authorization/roleDefinitions/0b0b0b0b-1111-2222-3333-444444444444",
    "name": "0b0b0b0b-1111-2222-3333-444444444444",
    "permissions": [
        {
            "actions": [],
            "notActions": [],
            "dataActions": [
                "microsoft.cognitiveservices/ACCOUNTS/openai/deployments/chat/*",
                "Microsoft.CognitiveServices/accounts/OpenAI/*/read",
            ],
            "notDataActions": ["Microsoft.CognitiveServices/accounts/OpenAI/assistants/*"],
            "condition": None,
            "conditionVersion": None,
        }
    ],
    "roleName": "Chat and look",
    "roleType": "CustomRole",
    "type": "Microsoft.Authorization/roleDefinitions",
}


@pytest.mark.parametrize("named", ["Chat and look", "CHAT AND LOOK", "0B0B0B0B-1111-2222-3333-444444444444"])
def test_a_role_as_the_command_line_prints_it(start_gateway, stand_ins, named):
    plain, more = new_app(), new_app()
    apps = [
        {"app_id": plain, "roles": [named]},
        {"app_id": more, "roles": [named, "Assistants"]},
    ]
    roles = [AZURE_ROLE, {**AZURE_ROLE, "name": "0b0b0b0b-1111-2222-3333-555555555555", "roleName": "Assistants"}]
    roles[1]["permissions"] = [{"dataActions": [f"{PREFIX}assistants/read"]}]
    gateway = start_gateway(stand_ins, shipped_policy(stand_ins, apps=apps, roles=roles))
    plain, more = stand_ins.entra.mint(plain), stand_ins.entra.mint(more)

    def status(token, method, path):
        return gateway.request(method, path, token=token, headers=[JSON_TYPE], body=b'{"messages":[]}').verdict

    assert gateway.chat(plain).status == 200
    assert status(plain, "GET", "/openai/v1/models")[0] == 200
    assert status(plain, "GET", "/openai/v1/assistants") == DENIED
    assert status(plain, "POST", "/openai/v1/files") == DENIED
    # What one role withholds another may grant.
    assert status(more, "GET", "/openai/v1/assistants") != DENIED
    assert status(more, "GET", "/openai/v1/threads/t1") == DENIED


# Real clients


@pytest.fixture(scope="module")
def clients(stand_ins, module_directory):
    app = new_app()
    policy = shipped_policy(
        stand_ins,
        apps=[{"app_id": app, "roles": [USER], "deployments": ["gpt-4o"]}],
        usage={"stream_options": "inject"},
    )
    with Gateway(module_directory, stand_ins, policy) as gateway:
        token = keep_secret(stand_ins.entra.mint(app))
        yield {
            "azure": openai.AzureOpenAI(azure_endpoint=gateway.url, api_version="2024-10-21", azure_ad_token=token),
            "v1": openai.OpenAI(base_url=f"{gateway.url}/openai/v1/", api_key=token),
        }


HELLO = [{"role": "user", "content": "Hello"}]


@pytest.mark.parametrize("kind", ["azure", "v1"])
def test_the_sdk_shows_what_is_missing(clients, kind):
    client = clients[kind]
    assert client.chat.completions.create(model="gpt-4o", messages=HELLO).choices
    chunks = list(client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True))
    # The gateway asked for usage; the caller did not.
    assert len(chunks) > 3
    assert all(chunk.usage is None for chunk in chunks)
    with pytest.raises(openai.PermissionDeniedError) as refused:
        client.files.create(file=b"{}", purpose="fine-tune")
    assert refused.value.code == "PermissionDenied"
    assert f"{PREFIX}files/write" in str(refused.value)
    with pytest.raises(openai.PermissionDeniedError) as refused:
        client.chat.completions.create(model="gpt-4", messages=HELLO)
    assert refused.value.code == "DeploymentNotAllowed"
    if kind == "v1":
        with pytest.raises(openai.PermissionDeniedError) as refused:
            client.responses.create(model="gpt-4", input="Hello")
        assert refused.value.code == "DeploymentNotAllowed"
