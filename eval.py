"""Evaluate a network. ``python eval.py --help`` explains it; see ``vone_jax/cli/evaluate.py``."""

from vone_jax.cli.evaluate import run

if __name__ == "__main__":
    run()
