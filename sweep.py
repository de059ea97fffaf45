"""Run a sweep. ``python sweep.py --help`` explains it; see ``vone_jax/cli/sweep.py``."""

from vone_jax import cli

if __name__ == "__main__":
    cli.start_sweep()
