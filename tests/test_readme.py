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


@pytest.mark.slow
def test_the_code_of_the_evnets_page_runs():
    names = names_of("docs/evnets.md")
    assert names["cells"].shape == (2, 224, 224, 4)
    assert names["lesioned"].v1.in_channels == 3
