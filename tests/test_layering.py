"""The import rules of the architecture."""

import ast
import functools
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "vone_jax"


def modules():
    """The modules of the package."""
    return sorted(PACKAGE.rglob("*.py"))


@functools.cache
def imports(path):
    """Absolute names of everything a file imports."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return found


def importers(*names):
    """Files of the package that import any of the names (or something below them)."""
    return {
        str(path.relative_to(PACKAGE))
        for path in modules()
        if any(i == n or i.startswith(f"{n}.") for i in imports(path) for n in names)
    }


# Every package may use these; they import neither jax nor flax.
SHARED = {"arguments", "dataclass_json", "files", "filters", "modules", "names", "progress"}


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("fast", {"fast"}),
        ("v1", {"v1", "prng", "fast"}),
        ("models", {"models", "v1", "prng", "fast"}),
        ("convert", {"convert", "data", "models", "v1"}),
        (
            "network",
            {"network", "runs", "convert", "data", "models", "v1", "prng"}
            | {"fast", "fingerprint"},
        ),
        ("runs.py", {"training", "mesh"}),
        ("batches.py", set()),
        ("fingerprint.py", {"fast"}),
        ("prng.py", {"fingerprint"}),
        ("attacks", {"attacks", "batches", "prng", "fast", "fingerprint", "mesh"}),
        ("corruptions", {"corruptions", "batches", "prng", "fast"}),
        ("geometry.py", set()),
        ("certification", {"certification", "batches", "models", "v1", "prng", "fast"}),
        ("answer_key", {"answer_key", "attacks", "batches", "certification", "prng", "v1"}),
        ("diagnostics.py", {"batches", "certification", "prng", "v1"}),
        ("synthesis.py", {"batches", "fast", "prng"}),
        ("data", {"data", "prng"}),
        ("results", {"results"}),
        ("report", {"report", "results"}),
        ("neurophysiology", {"neurophysiology", "prng", "fast"}),
        (
            "training",
            {"training", "attacks", "corruptions", "data", "models", "v1", "fast", "mesh", "prng"},
        ),
        (
            "evaluation",
            {"evaluation", "results", "training", "attacks", "corruptions", "neurophysiology"}
            | {"certification", "data", "models", "v1", "fast", "mesh", "prng", "network"}
            | {"batches", "diagnostics", "fingerprint", "geometry", "synthesis"},
        ),
        ("sweep.py", {"training"}),
    ],
)
def test_packages_import_only_what_lies_below_them(package, allowed):
    path = PACKAGE / package
    files = [file for file in modules() if file == path or path in file.parents]
    assert files
    for path in files:
        inside = {i.split(".")[1] for i in imports(path) if i.startswith("vone_jax.")}
        above = inside - allowed - SHARED
        assert not above, f"{path} imports {above}"


def test_no_modules_import_each_other_in_a_circle():
    """Also counts imports inside functions and for type checkers, but not those of the root."""

    def name(path):
        parts = path.relative_to(ROOT).with_suffix("").parts
        return ".".join(parts[: len(parts) - (parts[-1] == "__init__")])

    known = {name(path): path for path in modules()}
    del known["vone_jax"]
    graph = {}
    for module, path in known.items():
        inside = [i for i in imports(path) if i in known]
        # "from package import module" needs the module alone.
        packages = {i.rpartition(".")[0] for i in inside}
        graph[module] = {i for i in inside if i not in packages}
    assert list(graphlib.TopologicalSorter(graph).static_order())


def test_no_packages_import_each_other_in_a_circle():
    """As packages, whatever their modules do."""
    graph = {}
    for path in modules():
        first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        inside = {i.split(".")[1] for i in imports(path) if i.startswith("vone_jax.")}
        graph.setdefault(first, set()).update(inside - {first})
    del graph["__init__"]
    assert list(graphlib.TopologicalSorter(graph).static_order())


def test_results_and_reports_need_neither_jax_nor_flax():
    without = ("results/", "report/", "cli/__init__.py", *(f"{name}.py" for name in SHARED))
    assert not {f for f in importers("jax", "flax") if f.startswith(without)}


def test_reports_and_results_load_without_jax():
    program = "import sys, vone_jax.report, vone_jax.results; sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


def test_jaxprs_are_read_in_one_place():
    reading = r"make_jaxpr|jax\.extend\.core|\.eqns|\.jaxpr\b|ClosedJaxpr|eval_jaxpr"
    readers = {
        str(path.relative_to(PACKAGE)) for path in modules() if re.search(reading, path.read_text())
    }
    assert readers == {"fast/jaxprs.py"}


@pytest.mark.parametrize("library", ["orbax", "grain", "tensorflow_datasets", "sklearn"])
def test_changing_libraries_have_one_importer(library):
    assert len(importers(library)) == 1


def test_meshes_are_made_in_one_place():
    # ``fast.switch`` makes no mesh. It reads how its arguments are split, and keeps that.
    modules = {"mesh.py", "fast/switch.py"}
    assert importers("jax.sharding", "jax.experimental.multihost_utils") == modules
    assert importers("jax.experimental.multihost_utils") == {"mesh.py"}


def test_only_commands_import_commands():
    assert not {f for f in importers("vone_jax.cli") if not f.startswith("cli/")}


def test_nothing_imports_tensorflow():
    assert not importers("tensorflow")


def test_the_package_imports_nothing_that_lies_around_it():
    around = ("benchmarks", "configs", "tests", "train", "eval")
    inside = {i for path in modules() for i in imports(path)}
    assert not {i for i in inside if i.split(".")[0] in around}
