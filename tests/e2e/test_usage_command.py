"""`tollgate usage` where people meet it: its page in a real browser, its progress on a terminal.

Debian has a browser in the package chromium.
"""

import json
import os
import pty
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from .harness.processes import cli_binary

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")

needs_browser = pytest.mark.skipif(not BROWSER, reason="NOT CHECKED: the usage page; no chromium is installed")

# What a reader would see, measured: bars with a size inside of their chart, nothing wider than the window, and
# what the page asked the network for.
MEASURE = """
<script>
  const inside = (bar) => {
    const [inner, outer] = [bar.getBoundingClientRect(), bar.closest('svg').getBoundingClientRect()];
    return inner.width > 0 && inner.height > 0 && inner.left >= outer.left - 1 && inner.right <= outer.right + 1
      && inner.top >= outer.top - 1 && inner.bottom <= outer.bottom + 1;
  };
  const bars = [...document.querySelectorAll('svg rect')];
  const fill = (bar) => getComputedStyle(bar).fill;
  const shown = (element) => element.getClientRects().length > 0;
  const labels = [...document.querySelectorAll('.x')].map((axis) => [...axis.children].filter(shown));
  const overlaps = labels.flatMap((axis) => axis.slice(1).filter((label, at) =>
    axis[at].getBoundingClientRect().right > label.getBoundingClientRect().left));
  const cut = [...document.querySelectorAll('td')].filter((cell) =>
    cell.getBoundingClientRect().right > window.innerWidth);
  const texts = [...document.querySelectorAll('span, td, th, dt, dd, p')].filter(shown);
  document.body.dataset.measured = JSON.stringify({
    charts: document.querySelectorAll('svg').length,
    bars: bars.length,
    visible: bars.filter(inside).length,
    labels: labels.flat().length,
    overlaps: overlaps.length,
    cut: cut.length,
    smallest: Math.min(...texts.map((text) => parseFloat(getComputedStyle(text).fontSize))),
    colours: new Set(bars.map(fill)).size,
    overflow: document.documentElement.scrollWidth - window.innerWidth,
    asked: performance.getEntriesByType('resource').map((entry) => entry.name),
    tables: document.querySelectorAll('table').length,
    rows: document.querySelectorAll('tr').length,
    scripts: document.scripts.length,
  });
</script>
</body>
"""


def write_log(path: Path) -> None:
    """Three days of four applications."""
    pick = random.Random(7)
    with path.open("w") as log:
        for call in range(5_000):
            hour = call * 72 // 5_000
            record = {
                "time": f"2026-03-{1 + hour // 24:02}T{hour % 24:02}:{call % 60:02}:00.000Z",
                "outcome": "allowed",
                "code": None,
                "app_name": pick.choice(["nightly-batch", "chat", "search & rescue", "<b>" + "long" * 30]),
                "deployment": pick.choice(["gpt-4o", "gpt-4o-mini", "text-embedding-3-large"]),
                "status": 200,
                "duration_ms": int(pick.lognormvariate(6, 1)),
                "prompt_tokens": pick.randrange(5_000),
                "completion_tokens": pick.randrange(900),
            }
            record["total_tokens"] = record["prompt_tokens"] + record["completion_tokens"]
            if call % 13 == 0:
                record.update(outcome="limited", code="RateLimitExceeded", status=429, total_tokens=None)
            elif call % 29 == 0:
                record.update(status=502, total_tokens=None)
            log.write(json.dumps(record, separators=(",", ":")) + "\n")


def browse(page: Path, directory: Path, width: int) -> str:
    """The document as the browser has it in the end."""
    command = [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command += [f"--user-data-dir={directory / 'profile'}", f"--window-size={width},900"]
    command += ["--proxy-server=127.0.0.1:9", "--dump-dom", page.as_uri()]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def page(module_directory) -> Path:
    module_directory.mkdir(parents=True, exist_ok=True)
    log, page = module_directory / "usage.log", module_directory / "usage.html"
    write_log(log)
    done = subprocess.run([str(cli_binary()), "usage", "--html", str(page), str(log)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return page


@needs_browser
@pytest.mark.parametrize("width", [1280, 800, 500])
def test_u14_the_charts_are_seen_without_a_network(page, directory, width):
    directory.mkdir(parents=True, exist_ok=True)
    text = page.read_text()
    # The page lets no script run, so a copy without that rule measures itself.
    start = text.index("<meta http-equiv=")
    text = text[:start] + text[text.index("\n", start) :]
    copy = directory / "measured.html"
    copy.write_text(text.replace("</body>\n", MEASURE))
    document = browse(copy, directory, width)
    start = document.index('data-measured="') + len('data-measured="')
    measured = json.loads(document[start : document.index('"', start)].replace("&quot;", '"'))
    assert measured["asked"] == []
    # Calls, errors and tokens over time; 4 applications twice, 3 deployments, 2 codes and outcomes.
    assert measured["charts"] == 3 + 4 + 4 + 3 + 2 and measured["tables"] == 5
    # 72 hours, each with calls passed and denied, errors, and tokens of both kinds.
    assert measured["bars"] > 5 * 70
    assert measured["visible"] == measured["bars"]
    assert measured["colours"] == 5
    assert measured["labels"] >= 9 and measured["overlaps"] == 0
    assert measured["smallest"] >= 12
    assert measured["cut"] == 0
    assert measured["overflow"] <= 0
    assert measured["scripts"] == 1


@needs_browser
def test_the_page_runs_no_script(page, directory):
    """Not even one that somebody would slip in."""
    directory.mkdir(parents=True, exist_ok=True)
    copy = directory / "slipped.html"
    script = "<script>document.body.dataset.ran = 'yes'</script></body>"
    copy.write_text(page.read_text().replace("</body>", script))
    document = browse(copy, directory, 1200)
    assert "Usage of Azure OpenAI" in document
    assert 'data-ran="yes"' not in document


def on_terminal(command: list[str]) -> str:
    """What a command writes to a terminal."""
    ours, its = pty.openpty()
    child = subprocess.Popen(command, stdin=its, stdout=its, stderr=its, env={**os.environ, "TERM": "xterm"})
    os.close(its)
    written = b""
    try:
        while piece := os.read(ours, 65536):
            written += piece
    except OSError:  # Linux says so when the other end is closed.
        pass
    os.close(ours)
    assert child.wait(60) == 0, written
    return written.decode()


def test_a_long_log_shows_its_progress_on_a_terminal(directory):
    directory.mkdir(parents=True, exist_ok=True)
    short, long = directory / "short.log", directory / "long.log"
    write_log(short)
    with long.open("wb") as log:
        for _ in range(40):
            log.write(short.read_bytes())
    command = [str(cli_binary()), "usage", "--by", "code"]
    seen = on_terminal([*command, str(long)])
    assert " left" in seen and "/s" in seen
    assert "RateLimitExceeded" in seen
    # Nobody waits for a short one, and no file is to hold a bar.
    assert " left" not in on_terminal([*command, str(short)])
    done = subprocess.run([*command, str(long)], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
