"""The page in a real browser."""

import pytest

from tests.report import browser, built_runs
from vone_jax import report, results

pytestmark = pytest.mark.skipif(browser.executable() is None, reason="there is no Chromium")


def test_the_page_is_drawn_without_errors_at_any_width(tmp_path):
    paths = built_runs.write(tmp_path)
    page = report.write(paths, tmp_path / "report.html")
    with browser.opened(tmp_path / "profile") as tab:
        for width in (390, 1300):
            tab.open(page, width)
            root = "document.documentElement"
            assert tab.evaluate(f"{root}.scrollWidth") == tab.evaluate(f"{root}.clientWidth")
            drawn = tab.evaluate("document.querySelectorAll('div.chart svg.marks').length")
            assert drawn == tab.evaluate("document.querySelectorAll('script.chart').length") > 8
        # Each chart has a menu that exports it, and the numbers are those of the files.
        assert tab.evaluate("document.querySelectorAll('.vega-actions a[download]').length") > 8
        shown = tab.evaluate(
            "[...document.querySelectorAll('#numbers data')].map((each) => +each.value)"
        )
        rows = results.load(paths).to_frame()
        assert sorted(shown) == sorted(rows[rows["number"] == "accuracy"]["value"])
        assert tab.problems == []
