"""The documented name of the command that prepares data sets, see ``vone_jax/cli/prepare.py``."""

import runpy

if __name__ == "__main__":
    # Run by its name, because packages do not import commands.
    runpy.run_module("vone_jax.cli.prepare", run_name="__main__")
