from tests.quick_compile import quick_compile  # noqa: F401
