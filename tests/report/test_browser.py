"""The page in a real browser."""

import html
import json
import re
import shutil
import subprocess

import pytest

from tests.report import built_runs
from vone_jax import report, results

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")

# Notes what the console reports, also of files that cannot be loaded.
WATCH = """<script>
window.problems = [];
addEventListener("error", (e) => problems.push(String(e.message || e.target.src)), true);
for (const kind of ["error", "warn"]) console[kind] = (...said) => problems.push(String(said));
</script>"""
# Shows the page at some widths, and writes what it finds in each as JSON.
PROBE = """<body><script>
const page = PAGE, found = {};
for (const width of [390, 1300]) {
  const frame = document.createElement("iframe");
  Object.assign(frame, {width, height: 900, srcdoc: page});
  document.body.append(frame);
  const look = setInterval(() => {
    const shown = frame.contentDocument, root = shown.documentElement;
    if (!root.classList.contains("drawn")) return;
    clearInterval(look);
    const count = (what) => shown.querySelectorAll(what).length;
    found[width] = {
      beyond: root.scrollWidth - root.clientWidth, drawn: count("div.chart svg.marks"),
      charts: count("script.chart"), exports: count(".vega-actions a[download]"),
      numbers: [...shown.querySelectorAll("#numbers data")].map((each) => +each.value),
      problems: frame.contentWindow.problems,
    };
    frame.remove();
    if (Object.keys(found).length == 2) document.body.textContent = JSON.stringify(found);
  }, 100);
}
</script></body>"""


def test_the_page_is_drawn_without_errors_at_any_width(tmp_path):
    paths = built_runs.write(tmp_path)
    page = report.write(paths, tmp_path / "report.html").read_text()
    watched = json.dumps(page.replace("<head>", f"<head>{WATCH}", 1)).replace("</", "<\\/")
    (tmp_path / "probe.html").write_text(PROBE.replace("PAGE", watched))
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=60000")
    profile, probe = f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / "probe.html").as_uri()
    command = [BROWSER, *options, "--window-size=1400,900", profile, "--dump-dom", probe]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
    (found,) = re.findall(r"<body>(\{.*\})</body>", html.unescape(shown), re.DOTALL)
    rows = results.load(paths).to_frame()
    numbers = sorted(rows["value"].dropna())
    for width, page in json.loads(found).items():
        assert page["beyond"] == 0 and page["problems"] == [], (width, page)
        assert page["drawn"] == page["charts"] > 8
        # Each chart has a menu that exports it, and the numbers are those of the files.
        assert page["exports"] > 8 and sorted(page["numbers"]) == numbers
