"""The README tells the truth: its files are there and its code runs."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_files_that_the_documents_name_are_there():
    text = README + (ROOT / "docs" / "guide.md").read_text()
    named = set(re.findall(r"\bsh (\w+\.sh)|\]\(([\w./-]+)\)|python (\w+\.py)", text))
    paths = {path for match in named for path in match if path}
    assert {"quickstart.sh", "test.sh", "train.py", "eval.py"} <= paths
    assert all((ROOT / path).exists() for path in paths), paths


def test_configs_that_the_guide_names_are_there():
    guide = (ROOT / "docs" / "guide.md").read_text()
    configs = re.findall(r"python train\.py (\w+/\w+)", guide)
    assert configs
    assert all((ROOT / "configs" / f"{name}.py").exists() for name in configs)


@pytest.mark.slow
def test_the_code_runs():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["adversarial"].shape == names["images"].shape
    change = abs(names["adversarial"] - names["images"]).max()
    assert 0 < float(change) <= 4 / 255 + 1e-6
