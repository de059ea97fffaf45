import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "corruptions.md"


@pytest.mark.slow
def test_the_code_of_the_page_runs():
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL))
    names: dict = {}
    exec(compile(code, PAGE.name, "exec"), names)
    assert names["foggy"].shape == names["level"].shape == (2, 32, 32, 3)
    levels = 255 * names["as_cifar10_c"]
    assert float(abs(levels - levels.round()).max()) < 1e-3
    # A share of 0.5 over the mean of AlexNet's errors, about 0.78.
    assert 60 < names["mce"].mean_corruption_error(names["errors"]) < 70
