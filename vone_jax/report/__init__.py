"""Result files of one or more networks -> one self-contained HTML page.

This package reads result files only and imports neither JAX nor Flax, so a report can be made on
any machine.
"""

from vone_jax.report.page import write

__all__ = ["write"]
