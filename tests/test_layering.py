"""The import rules of the architecture."""

import ast
import functools
import graphlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import jinja2
import pytest

from vone_jax import suites
from vone_jax.evaluation import condition

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "vone_jax"


def modules():
    """The modules of the package, without the configs that an installation has in it."""
    inside = PACKAGE.rglob("*.py")
    return sorted(path for path in inside if path.relative_to(PACKAGE).parts[0] != "configs")


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


# The conditions of a science lie above its package, and above evaluation.
MEASURED = ("certification.measured", "neurophysiology.measured")


def node_of(path):
    """The package or module of a file, or one of ``MEASURED``."""
    whole = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    return whole if whole in MEASURED else whole.split(".")[0]


def nodes_that(path):
    """What a file imports, as ``node_of`` calls it."""
    inside = (i.removeprefix("vone_jax.") for i in imports(path) if i.startswith("vone_jax."))
    return {
        next((name for name in MEASURED if f"{i}.".startswith(f"{name}.")), i.split(".")[0])
        for i in inside
    }


# Every package may use these; they import neither jax nor flax.
SHARED = {"arguments", "dataclass_json", "files", "filters", "modules", "names", "progress"}


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("fast", {"fast"}),
        ("v1", {"v1", "prng", "fast"}),
        ("models", {"models", "v1", "prng", "fast"}),
        ("front_ends", {"front_ends", "v1", "prng", "fast"}),
        ("convert", {"convert", "data", "models", "v1"}),
        (
            "network",
            {"network", "runs", "convert", "data", "models", "v1", "prng"} | {"fast", "functions"},
        ),
        ("runs.py", {"training", "mesh"}),
        ("batches.py", set()),
        ("functions.py", {"fast", "prng"}),
        ("prng.py", set()),
        ("attacks", {"attacks", "batches", "prng", "fast", "functions"}),
        ("corruptions", {"corruptions", "batches", "prng", "fast"}),
        (
            "certification",
            {"certification", "batches", "models", "v1", "prng", "fast", "functions"},
        ),
        ("answer_key", {"answer_key", "attacks", "batches", "certification", "prng", "v1"}),
        ("diagnostics.py", {"batches", "certification", "functions", "prng", "v1"}),
        ("data", {"data", "prng"}),
        ("results", {"results"}),
        ("report", {"report", "results"}),
        ("neurophysiology", {"neurophysiology", "prng", "fast", "functions", "results", "v1"}),
        (
            "training",
            {"training", "attacks", "corruptions", "data", "models", "v1", "fast", "mesh", "prng"}
            | {"functions"},
        ),
        (
            "evaluation",
            {"evaluation", "results", "attacks", "corruptions", "neurophysiology", "data", "v1"}
            | {"fast", "mesh", "prng", "network", "batches", "diagnostics", "functions"},
        ),
        (
            "certification/measured.py",
            {
                "certification",
                "evaluation",
                "results",
                "network",
                "attacks",
                "models",
                "prng",
                "v1",
            },
        ),
        (
            "neurophysiology/measured.py",
            {"neurophysiology", "evaluation", "results", "network", "models", "prng", "v1"}
            | {"functions"},
        ),
        (
            "perception",
            {"perception", "evaluation", "results", "network", "attacks", "batches", "corruptions"}
            | {"data", "fast", "functions", "mesh", "prng"},
        ),
        (
            "suites.py",
            {"certification.measured", "evaluation", "neurophysiology.measured", "perception"},
        ),
        ("sweep.py", {"training"}),
    ],
)
def test_packages_import_only_what_lies_below_them(package, allowed):
    path = PACKAGE / package
    files = [file for file in modules() if file == path or path in file.parents]
    files = [file for file in files if file == path or node_of(file) not in MEASURED]
    assert files
    for path in files:
        above = nodes_that(path) - allowed - SHARED
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
        graph.setdefault(node_of(path), set()).update(nodes_that(path) - {node_of(path)})
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


# The rooms that know no kind of measurement.
CORE = [
    *(PACKAGE / "report").glob("*.py"),
    *(PACKAGE / "results").glob("*.py"),
    *(
        PACKAGE / "evaluation" / f"{name}.py"
        for name in ("run", "evaluation", "identity", "condition", "judging", "examples", "suites")
    ),
]
# A published benchmark over the column "corruption", whose relative error is against clean
# images.
BENCHMARK = {"results/means.py": {"clean", "corruption"}}


@functools.cache
def kinds():
    """The classes of all conditions of the project, with the names in their rows and sections."""
    found = set()
    for suite in suites.SUITES.values():
        module = inspect.getmodule(suite)
        for name, each in vars(module).items():
            if isinstance(each, type) and issubclass(each, condition.Condition):
                if each not in (condition.Condition, condition.Judged):
                    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
                    found |= {name, words, each.section}
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.Dict):
                for key, value in zip(node.keys, node.values, strict=True):
                    if getattr(key, "value", None) == "condition" and hasattr(value, "value"):
                        found.add(value.value)
    return found - {""}


COMPARING = ("startswith", "endswith", "removeprefix", "removesuffix", "isinstance", "issubclass")


def compared(tree):
    """Words and classes that code compares with something, or looks up in a table of its own."""
    for node in ast.walk(tree):
        parts = []
        if isinstance(node, ast.Compare):
            parts = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue | ast.MatchClass):
            parts = [getattr(node, "value", None) or node.cls]
        elif isinstance(node, ast.Dict):
            parts = node.keys
        elif isinstance(node, ast.Call):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            parts = node.args if called in COMPARING else []
        for part in filter(None, parts):
            # A column is no kind: a row may have one of any name.
            inside = [part] if isinstance(part, ast.Subscript) else ast.walk(part)
            for each in inside:
                if isinstance(each, ast.Constant):
                    yield each.value
                elif isinstance(each, ast.Name | ast.Attribute):
                    # Variables have small letters, and may be called as they like.
                    name = getattr(each, "id", getattr(each, "attr", ""))
                    yield name if name[:1].isupper() else None


def test_the_core_compares_no_name_and_no_class_of_a_kind():
    """A result carries how it is shown, so that a user's kind is shown as ours are."""
    assert {"clean", "attack", "Attacked", "physiology", "Masked gradients"} <= kinds()
    for path in CORE:
        where = str(path.relative_to(PACKAGE))
        named = kinds().intersection(compared(ast.parse(path.read_text())))
        assert named == BENCHMARK.get(where, set()), f"{where} names {named}"
        classes = {i.rpartition(".")[2] for i in imports(path)}
        assert not classes & kinds(), f"{where} imports {classes & kinds()}"


def test_the_page_names_no_kind():
    text = (PACKAGE / "report/templates/page.html").read_text()
    words = {each.value for each in jinja2.Environment().parse(text).find_all(jinja2.nodes.Const)}
    assert "verdict" in words and not words & kinds()


@pytest.mark.parametrize(
    "line",
    [
        'row["condition"] == "clean"', '"attack" in row', 'row["condition"] in ("x", "masking")',
        'isinstance(c, Attacked)', 'type(c) is Attacked', '{"clean": 1}[row["condition"]]',
        'row["condition"].startswith("corruption")', '{"attack", "eps"} <= row.keys()',
    ],
)  # fmt: skip
def test_a_comparison_with_a_kind_is_found(line):
    assert kinds().intersection(compared(ast.parse(line)))
