"""The run directories and the page that most tests of the report use."""

import pytest

from tests.report import evaluated
from vone_jax import report


@pytest.fixture(scope="session")
def run_dirs(tmp_path_factory):
    """A tiny network and its VOneNet, evaluated with ``eval.py``."""
    root = tmp_path_factory.mktemp("runs")
    return [evaluated.evaluate(root / name, name) for name in ("resnet18", "vone_resnet18")]


@pytest.fixture(scope="session")
def page(run_dirs, tmp_path_factory):
    """The text of their page."""
    out = tmp_path_factory.mktemp("page") / "new" / "report.html"
    return report.write(run_dirs, out).read_text(encoding="utf-8")
