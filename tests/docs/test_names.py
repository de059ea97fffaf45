"""Every file, link, config, module and dotted name of the README and the pages exists."""

import contextlib
import dataclasses
import importlib
import re
from pathlib import Path

import pytest

from vone_jax import training

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "results").glob("*.md")),
]
FOLDERS = ("benchmarks", "configs", "docs", "tests", "vone_jax")
PACKAGES = {path.parent.name for path in (ROOT / "vone_jax").glob("*/__init__.py")}
MODULES = PACKAGES | {"diagnostics", "mesh", "prng"}
CONFIGS = {path.name for path in (ROOT / "configs").iterdir() if path.is_dir()}
PATH = re.compile(r"(?<![\w/.*-])((?:[\w.-]+/)+[\w.*-]*)")
DOTTED = re.compile(r"(?<![\w/.-])([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+)(?![\w/])")
# A part in capitals, as in ``attacks/NAME.py``, is one that a reader chooses.
CHOSEN = re.compile(r"(?:^|[/_])[A-Z]{2,}(?:[./]|$)")
# Variables of examples that have the name of a package, and a layer.
NOT_OURS = re.compile(r"network\.|v1\.normalized$")


def exists(path, page):
    """True if a path exists from the root, in the package, among the configs or beside the page."""
    places = ROOT, ROOT / "vone_jax", ROOT / "configs", page.parent
    return bool(CHOSEN.search(path)) or any(
        place.joinpath(f"{path}{end}").exists() for place in places for end in ("", ".py")
    )


def resolves(name):
    """True if a dotted name is that of a module, or of an attribute or a field in one."""
    parts = name.split(".")
    if parts[0] in MODULES:
        parts.insert(0, "vone_jax")
    found = importlib.import_module(parts[0])
    for place, part in enumerate(parts[1:], start=2):
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(".".join(parts[:place]))
        if part in getattr(found, "__dataclass_fields__", {}):
            return True
        if not hasattr(found, part):
            return False
        found = getattr(found, part)
    return True


def is_option(name):
    """True for a field of the data of an experiment, such as ``data.batch_size``."""
    return name in {f"data.{field.name}" for field in dataclasses.fields(training.DataConfig)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_links_and_files_of_a_page_exist(page):
    text = page.read_text()
    links = re.findall(r"\]\(([\w./-]+)\)", text)
    scripts = re.findall(r"\bsh (\w+\.sh)|python ([\w/]+\.py)", text)
    files = [name for names in scripts for name in names if name]
    for path in PATH.findall(" ".join(code_of(text))):
        if path.split("/")[0] in {*FOLDERS, *PACKAGES, *CONFIGS} or path.endswith(".py"):
            files.append(path)
    lost = [link for link in links if not (page.parent / link).exists()]
    assert not lost + [file for file in files if not exists(file, page)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_dotted_names_of_a_page_exist(page):
    if page.name == "CHANGELOG.md":
        return  # It has the names of the past.
    names = [
        name
        for name in DOTTED.findall(" ".join(code_of(page.read_text())))
        if name.split(".")[0] in {"vone_jax", "benchmarks", "configs", *MODULES}
        and not name.endswith((".py", ".md"))
        and not NOT_OURS.match(name)
        and not is_option(name)
    ]
    assert not [name for name in names if not resolves(name)]


def code_of(text):
    """The code within the sentences of a page."""
    prose = re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"`([^`]+)`", prose)
