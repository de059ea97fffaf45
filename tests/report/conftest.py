"""Two synthetic runs, a base network and its VOneNet, and their page."""

import pytest
from report_runs import STRONG, write_run

from vone_jax import report


@pytest.fixture(scope="session")
def run_dirs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return [
        write_run(root, "base", "resnet18", channels=3),
        write_run(root, "vone", "vone_resnet18", accuracy=STRONG, channels=3),
    ]


@pytest.fixture(scope="session")
def page(run_dirs, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "new" / "report.html"
    return report.write(run_dirs, out).read_text(encoding="utf-8")
