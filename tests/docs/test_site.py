"""The checks that the build of the site makes, and the page of the package."""

import importlib
import re
import runpy
import shutil
import sys
import tomllib
from pathlib import Path

import pytest

import vone_jax

ROOT = Path(__file__).parents[2]
EXTENSIONS = ROOT / "docs" / "_extensions"


@pytest.fixture
def extension(monkeypatch):
    """Import a Sphinx extension of the site by its name."""
    pytest.importorskip("sphinx", reason="the extra docs is not installed")
    monkeypatch.syspath_prepend(EXTENSIONS)

    def load(name):
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    return load


@pytest.mark.extras
def test_links_that_lead_nowhere_are_found(extension, tmp_path):
    (tmp_path / "one.html").write_text(
        '<h1 id="top"></h1><a href="two.html#here"></a><a href="#top"></a>'
        '<a href="https://example.org/none"></a><img src="figure.png">'
    )
    (tmp_path / "two.html").write_text('<p id="here"></p>')
    (tmp_path / "figure.png").touch()
    broken = extension("internal_links").broken_links
    assert broken(tmp_path) == []
    (tmp_path / "two.html").write_text('<a href="three.html"></a><p id="there"></p>')
    (tmp_path / "figure.png").unlink()
    assert broken(tmp_path) == [
        "one.html: two.html#here",
        "one.html: figure.png",
        "two.html: three.html",
    ]


@pytest.mark.extras
def test_every_package_has_a_page(extension):
    pages = extension("public_names").PACKAGES
    packages = {name for name in vone_jax.__all__ if name[0].islower()} - {"open_network"}
    assert {f"vone_jax.{name}" for name in packages} == {p for p in pages if p.count(".") == 1}


def test_the_package_page_has_absolute_links(tmp_path):
    for name in ("README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    page = runpy.run_path(str(ROOT / ".github" / "package_page.py"))
    page["main"](tmp_path, "https://example.org/Owner/name", "v1.2.3")
    text = (tmp_path / "README.md").read_text()
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert all(re.match("https?://", link) for link in links)
    assert "https://example.org/Owner/name/raw/v1.2.3/docs/figures/quickstart.png" in links
    page = "https://example.org/Owner/name/blob/v1.2.3/docs/start.md"
    assert f"{page}#what-the-quickstart-shows" in links
    urls = tomllib.loads((tmp_path / "pyproject.toml").read_text())["project"]["urls"]
    assert urls["Source"] == "https://example.org/Owner/name"
    assert urls["Documentation"] == "https://owner.github.io/name/"
