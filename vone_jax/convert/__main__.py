"""The command ``python -m vone_jax.convert``, see ``vone_jax/cli/convert.py``."""

from vone_jax.cli import start_convert

start_convert()
