"""Which way the arrows run: the import rules of the architecture."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "vone_jax"


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def imports(path):
    """Absolute names of everything a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def importers(*names):
    """Files of the package that import any of the names (or something below them)."""
    return {
        str(path.relative_to(PACKAGE))
        for path in modules()
        if any(i == n or i.startswith(f"{n}.") for i in imports(path) for n in names)
    }


# Every package may use these; they import neither jax nor flax.
SHARED = {"arguments", "files"}


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("fast", {"fast"}),
        ("v1", {"v1", "prng", "fast"}),
        ("models", {"models", "v1", "prng", "fast"}),
        ("convert", {"convert", "models", "prng", "v1"}),
        ("attacks", {"attacks", "prng", "fast", "mesh"}),
        ("corruptions", {"corruptions", "prng", "fast"}),
        ("data", {"data", "prng"}),
        ("report", {"report"}),
        ("neurophysiology", {"neurophysiology", "arguments", "prng"}),
        (
            "training",
            {"training", "attacks", "corruptions", "data", "models", "v1", "fast", "mesh", "prng"},
        ),
        ("sweep", {"sweep", "training"}),
    ],
)
def test_packages_import_only_what_lies_below_them(package, allowed):
    files = sorted((PACKAGE / package).rglob("*.py"))
    assert files
    for path in files:
        inside = {i.split(".")[1] for i in imports(path) if i.startswith("vone_jax.")}
        above = inside - allowed - SHARED
        assert not above, f"{path} imports {above}"


def test_the_report_needs_neither_jax_nor_flax():
    assert not {f for f in importers("jax", "flax") if f.startswith("report/")}


@pytest.mark.parametrize("library", ["orbax", "grain", "tensorflow_datasets", "sklearn"])
def test_changing_libraries_have_one_importer(library):
    assert len(importers(library)) == 1


def test_meshes_are_made_in_one_place():
    assert importers("jax.sharding", "jax.experimental.multihost_utils") == {"mesh.py"}


def test_only_commands_import_commands():
    assert not {f for f in importers("vone_jax.cli") if not f.startswith("cli/")}


def test_nothing_imports_tensorflow():
    assert not importers("tensorflow")


def test_the_package_imports_nothing_that_lies_around_it():
    around = ("benchmarks", "configs", "tests", "train", "eval")
    inside = {i for path in modules() for i in imports(path)}
    assert not {i for i in inside if i.split(".")[0] in around}
