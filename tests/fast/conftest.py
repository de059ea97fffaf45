import pytest


@pytest.fixture(scope="module", autouse=True)
def as_users_compile(optimised):
    """The forms are made for what XLA makes of them, so they are tested in that."""
