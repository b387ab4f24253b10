"""`make run`: Envoy with the gate and both stand-ins on fixed ports, until Ctrl-C. TOLLGATE_POLICY names a file with
another policy than that of envoy/envoy.yaml."""

import os
import sys
import time
from pathlib import Path

from e2e.harness import APP_BATCH, APP_CHAT, APP_WRITER, AUDIENCE, TENANT, Gateway, PortTaken, StandIns
from e2e.harness.gateway import CHAT_PATH, GatewayRefused, set_policy
from e2e.harness.processes import ROOT, exit_on_signals
from e2e.harness.stand_ins import FIXED_PORTS

TEXT = """
Envoy listens on {url}; its admin page is http://127.0.0.1:9901.
Logs: {access} (access log), {log} (Envoy, one line per request from Tollgate).

Application "chat", 100 calls a minute:

  TOKEN={chat}
  curl -i '{url}{path}' -H "Authorization: Bearer $TOKEN" \\
    -H 'Content-Type: application/json' -d '{{"messages":[{{"role":"user","content":"Hello"}}]}}'

Application "batch", 3 successful calls a minute; the fourth is told when to come back:

  TOKEN_BATCH={batch}
  for call in 1 2 3 4; do curl -s -o /dev/null -w '%{{http_code}}\\n' '{url}{path}' \\
    -H "Authorization: Bearer $TOKEN_BATCH" -H 'Content-Type: application/json' \\
    -d '{{"messages":[{{"role":"user","content":"Hello"}}]}}'; done

Application "writer": may use chat on gpt-4o and no more, 100 tokens in 5 seconds:

  TOKEN_WRITER={writer}
  curl -i '{url}{path}' -H "Authorization: Bearer $TOKEN_WRITER" \\
    -H 'Content-Type: application/json' -d '{{"max_tokens":20,"messages":[{{"role":"user","content":"Hello"}}]}}'
  curl -i '{url}/openai/v1/files' -H "Authorization: Bearer $TOKEN_WRITER" -F purpose=assistants -F file=@README.md
  curl -i '{url}/openai/v1/chat/completions' -H "Authorization: Bearer $TOKEN_WRITER" \\
    -H 'Content-Type: application/json' -d '{{"model":"gpt-4","messages":[]}}'

Refused: no token, an API key, an API key beside a good token:

  curl -i '{url}{path}' -d '{{}}'
  curl -i '{url}{path}' -d '{{}}' -H 'api-key: 0123456789'
  curl -i '{url}{path}' -d '{{}}' -H 'api-key: 0123456789' -H "Authorization: Bearer $TOKEN"

An answer as it streams (the log line tells its tokens), and what the backend receives:

  curl -N '{url}{path}' -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' \\
    -d '{{"stream":true,"messages":[{{"role":"user","content":"Hello"}}]}}'
  curl '{url}/openai/echo' -H "Authorization: Bearer $TOKEN"

Another token, as an application gets it; new signing keys; the metrics:

  curl '{entra}/{tenant}/oauth2/v2.0/token' -d grant_type=client_credentials \\
    -d client_id={app} -d client_secret=stand-in-secret -d scope={audience}/.default
  curl -X POST '{entra}/control/rotate' -d '{{"keep_old":true}}'
  curl -s http://127.0.0.1:9901/stats/prometheus | grep ^tollgate_

The policy is in {policy}, read at the start: after a change, Ctrl-C and `make run` again.
{more}Ctrl-C ends everything.
"""


SHIPPED = "envoy/envoy.yaml"
OWN = "One of yours: `TOLLGATE_POLICY=mine.json make run`, with the issuer of envoy/envoy.yaml for these tokens.\n"


def main() -> int:
    exit_on_signals()
    policy = os.environ.get("TOLLGATE_POLICY")
    try:
        text = Path(policy).read_text() if policy else None
    except (OSError, UnicodeError) as error:
        print(f"run: TOLLGATE_POLICY: {error}", file=sys.stderr)
        return 1
    directory = ROOT / "target" / "run"
    try:
        with StandIns(directory / "stand-ins", FIXED_PORTS) as stand_ins:
            edit = None if text is None else lambda config: set_policy(config, text)
            gateway = Gateway(directory, stand_ins, fixed=True, edit=edit)
            try:
                print(
                    TEXT.format(
                        url=gateway.url,
                        path=CHAT_PATH,
                        access=gateway.access.relative_to(ROOT),
                        log=gateway.log.relative_to(ROOT),
                        chat=stand_ins.entra.mint(APP_CHAT),
                        batch=stand_ins.entra.mint(APP_BATCH),
                        writer=stand_ins.entra.mint(APP_WRITER),
                        entra=stand_ins.entra.authority,
                        tenant=TENANT,
                        app=APP_CHAT,
                        audience=AUDIENCE,
                        policy=policy or SHIPPED,
                        more=f"What is said of applications above is so in {SHIPPED}.\n" if policy else OWN,
                    ),
                    flush=True,
                )
                while gateway.is_running() and stand_ins.is_running():
                    time.sleep(0.2)
                print("run: a child process ended by itself; its log says why", file=sys.stderr)
                return 1
            finally:
                gateway.kill()
    except GatewayRefused as refused:
        said = [line.split("policy refused: ", 1)[1] for line in str(refused).splitlines() if "policy refused: " in line]
        print("run: Envoy refused its configuration:", *(dict.fromkeys(said) or [refused]), sep="\n  ", file=sys.stderr)
        return 1
    except PortTaken as taken:
        print(f"run: {taken}. Is another `make run` or `make demo` running?", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nrun: ended")
        return 0


if __name__ == "__main__":
    sys.exit(main())
