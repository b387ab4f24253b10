"""What every other test relies on: the searches at a gateway's end find what they look for."""

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .harness import APP_CHAT, Gateway, raw, secrets, shipped_policy
from .harness.gateway import SIGNS_OF_DEATH, connection_manager
from .harness.load import request
from .harness.stand_ins import CLIENT_SECRET


# What these tests put there to be found is not among what the others left.
pytestmark = pytest.mark.usefixtures("apart")


def log_a_header(name: str):
    def edit(config):
        fields = connection_manager(config)["access_log"][0]["typed_config"]["log_format"]["json_format"]
        fields["leak"] = f"%REQ({name})%"

    return edit


def test_r28_a_token_in_a_log_is_found(stand_ins, directory):
    gateway = Gateway(directory, stand_ins, edit=log_a_header("authorization"))
    assert gateway.chat(stand_ins.entra.mint()).status == 200
    problems = gateway.stop()
    assert problems
    assert all("R28" in problem for problem in problems)
    # The search of all logs at the end finds it too, so nothing is left of this one.
    assert secrets.found_below(directory) == problems
    gateway.access.unlink()


def test_r28_a_key_in_a_log_is_found(stand_ins, directory):
    gateway = Gateway(directory, stand_ins, edit=log_a_header("api-key"))
    assert gateway.chat(headers=[("api-key", "sentinel-of-the-harness")]).status == 403
    (problem,) = gateway.stop()
    assert "R28" in problem
    gateway.access.unlink()


@pytest.mark.parametrize("before", ["", f"{APP_CHAT}:", "a:", "ab:", None], ids=repr)
def test_r28_a_client_secret_in_a_log_is_found(stand_ins, directory, before):
    """As it is, and as `Basic` has it with any name before it."""
    gateway = Gateway(directory, stand_ins, edit=log_a_header("authorization"))
    basic = "Basic " + base64.b64encode(f"{before}{CLIENT_SECRET}".encode()).decode()
    sent = f"Bearer {CLIENT_SECRET}" if before is None else basic
    assert gateway.chat(headers=[("authorization", sent)]).status == 401
    problems = gateway.stop()
    assert problems
    assert all("R28" in problem for problem in problems)
    gateway.access.unlink()


@pytest.mark.parametrize("part", [0, 1, 2])
def test_r28_a_piece_of_a_token_is_found(stand_ins, part):
    token = stand_ins.entra.mint()
    piece = token.split(".")[part][:40]
    whole = token.split(".")[part]
    pieces = [whole[at : at + 100] for at in range(1, len(whole) - 100, 7)] + [whole[-80:]]
    # The end of the header is of its key's id, which is public.
    pieces += [whole[60:], whole[100:300]] if part else []
    # Of header and claims what they begin with, of the signature any piece; and longer ones wherever they are cut.
    for text in (piece, f"x={piece}&y", *([piece[5:28]] if part == 2 else []), *pieces):
        assert secrets.found_in(f'{{"path":"/openai/{text}"}}'), text
    ids = ["8af3b0b2-5d0a-4f5c-9f5e-0242ac120002", "x" * 200, "fedcba98" * 16, "Microsoft-CognitiveServices_accounts" * 3]
    for harmless in ids:
        assert not secrets.found_in(f'{{"request_id":"{harmless}","path":"/openai/models"}}'), harmless


def ask_over_http(gateway, token=None):
    gateway.chat(token)


def ask_in_bytes(gateway, token=None):
    raw(gateway.address, request(token).encode())


@pytest.mark.parametrize("ask", [ask_over_http, ask_in_bytes])
def test_r28_a_secret_in_an_answer_is_found(start_gateway, stand_ins, ask):
    signature = stand_ins.entra.mint().split(".")[2]
    policy = shipped_policy(stand_ins, responses={"unauthenticated": {"message": f"Not {signature[:40]}"}})
    gateway = start_gateway(stand_ins, policy)
    with pytest.raises(AssertionError, match="R28"):
        ask(gateway)


@pytest.mark.parametrize("ask", [ask_over_http, ask_in_bytes])
@pytest.mark.parametrize("status", [200, 404])
def test_r28_a_secret_in_an_answer_that_is_not_the_backends_is_found(start_gateway, stand_ins, ask, status):
    def edit(config):
        (hosts,) = connection_manager(config)["route_config"]["virtual_hosts"]
        direct = {"status": status, "body": {"inline_string": f"So {CLIENT_SECRET}"}}
        hosts["routes"] = [{"match": {"prefix": "/"}, "direct_response": direct}]

    gateway = start_gateway(stand_ins, edit=edit)
    with pytest.raises(AssertionError, match="R28"):
        ask(gateway, stand_ins.entra.mint())


@pytest.mark.parametrize("ask", [ask_over_http, ask_in_bytes])
def test_r28_a_secret_in_the_head_of_any_answer_is_found(start_gateway, stand_ins, ask):
    def edit(config):
        header = {"key": "x-told", "value": f"So {CLIENT_SECRET}"}
        connection_manager(config)["route_config"]["response_headers_to_add"] = [{"header": header}]

    gateway = start_gateway(stand_ins, edit=edit)
    with pytest.raises(AssertionError, match="R28"):
        ask(gateway, stand_ins.entra.mint())


def test_what_the_backend_echoes_is_its_own(start_gateway, stand_ins):
    token = stand_ins.entra.mint()
    assert token in start_gateway(stand_ins).echo(token).body.decode()


def test_r3_a_dead_vm_is_found(stand_ins, directory):
    gateway = Gateway(directory, stand_ins)
    with gateway.log.open("a") as log:
        log.write("\n".join(SIGNS_OF_DEATH))
    assert len(gateway.stop()) == len(SIGNS_OF_DEATH)


def test_an_envoy_that_ended_is_found(stand_ins, directory):
    gateway = Gateway(directory, stand_ins)
    gateway.kill()
    assert "ended by itself" in gateway.stop()[0]


SESSION = Path(__file__).parent
LEAKS = {
    "test_one.py": "from .harness.secrets import keep_secret\n\n\ndef test():\n    keep_secret('key-of-the-first-worker')\n",
    "test_two.py": "from .conftest import LOGS\n\n\ndef test():\n    LOGS.mkdir(parents=True)\n"
    "    (LOGS / 'x.log').write_text('key-of-the-' + LEAK)\n",
}


@pytest.mark.parametrize("leak, status", [("first-worker", 1), ("second-worker", 0)])
def test_r28_a_secret_of_one_worker_is_found_in_the_log_of_another(tmp_path, leak, status):
    """The session's own search, over files that two processes ran."""
    package = tmp_path / "session"
    package.mkdir()
    for name in ("__init__.py", "conftest.py", "harness", "pytest.ini"):
        (package / name).symlink_to(SESSION / name)
    for name, text in LEAKS.items():
        (package / name).write_text(text.replace("LEAK", repr(leak)))
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", package, "-n", "2", "--dist", "loadfile"]
    own = {"E2E_LOGS": str(tmp_path / "logs"), "FIGURES": str(tmp_path / "figures")}
    # Those of the session that runs this are not for that one.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(command, capture_output=True, text=True, env=inherited | own)
    assert done.returncode == status, done.stdout + done.stderr
    assert "2 passed" in done.stdout
    assert ("secret key-of... in " in done.stdout) == bool(status)
    assert (tmp_path / "figures").exists() != bool(status)
