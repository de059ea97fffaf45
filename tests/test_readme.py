"""The README tells the truth: its files are there and its code runs."""

import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def names_of(document):
    """Run the Python code of a document, and return the names that it defines."""
    code = re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)
    names: dict = {}
    exec(compile("\n".join(code), document, "exec"), names)
    return names


DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))),
]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_that_a_document_names_are_there(document):
    path = ROOT / document
    text = path.read_text()
    links = [path.parent / link for link in re.findall(r"\]\(([\w./-]+)\)", text)]
    commands = re.findall(r"\bsh (\w+\.sh)|python (\w+\.py)", text)
    scripts = [ROOT / name for match in commands for name in match if name]
    assert all(named.exists() for named in links + scripts), links + scripts


def test_the_readme_has_its_two_commands():
    assert "\nsh quickstart.sh" in README and "\nsh test.sh" in README


def test_configs_that_the_guide_names_are_there():
    guide = (ROOT / "docs" / "guide.md").read_text()
    configs = re.findall(r"python train\.py (\w+/\w+)", guide)
    assert configs
    assert all((ROOT / "configs" / f"{name}.py").exists() for name in configs)


@pytest.mark.slow
def test_the_code_runs():
    names = names_of("README.md")
    assert names["adversarial"].shape == names["images"].shape
    change = abs(names["adversarial"] - names["images"]).max()
    assert 0 < float(change) <= 4 / 255 + 1e-6


@pytest.mark.slow
def test_the_code_of_the_attacks_page_runs():
    names = names_of("docs/attacks.md")
    for found in ("adversarial", "transferred"):
        change = abs(names[found] - names["images"]).max()
        assert 0 < float(change) <= 4 / 255 + 1e-6
    assert names["result"].draws == 20 and names["closest"].found.shape == (4,)
    # Three steps of a quarter of each radius.
    way = 3 / 4 * np.array([1, 2, 4]) / 255
    assert abs(names["ladder"] - way[:, None]).max() < 2**-22
    assert (names["control"].distance <= 4 / 255 + 1e-6).all() and names["control"].draws == 10
    assert names["voted"].protocol.averaged > 1 and names["frozen"].draws == 1
    assert names["worst"].winner.shape == (4,) and names["sevens"].shape == (4, 28, 28, 1)
    assert (names["distance"](names["delta"]) > names["distance"](names["start"])).all()


def test_the_code_of_the_corruptions_page_runs():
    names = names_of("docs/corruptions.md")
    assert names["foggy"].shape == names["as_cifar10_c"].shape == (2, 32, 32, 3)


@pytest.mark.slow
def test_the_code_of_the_neurophysiology_page_gives_its_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = names_of("docs/neurophysiology.md")
    page = (ROOT / "docs/neurophysiology.md").read_text()
    rows = re.findall(r"^\| `(\w+)` ((?:\| 0\.\d\d ){3}\| \d+ \|)", page, re.MULTILINE)
    assert len(rows) == 7
    for name, told in rows:
        each = names["scores"][name]
        numbers = [f"{x:.2f}" for x in (each.score, each.similarity, each.ceiling)]
        assert told == f"| {' | '.join(numbers)} | {each.neurons} |", name
    assert names["responses"].shape == (2, 36, 8, len(names["site"]))
    assert names["result"].score("v3") > 0


@pytest.mark.slow
def test_the_code_of_the_evnets_page_runs():
    names = names_of("docs/evnets.md")
    assert names["cells"].shape == (2, 224, 224, 4)
    assert names["lesioned"].v1.in_channels == 3
