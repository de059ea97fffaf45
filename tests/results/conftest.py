from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def first_format():
    """Run directories with real result files of format 1."""
    return Path(__file__).parent / "first_format"
