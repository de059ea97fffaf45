"""Evaluate a network. ``python eval.py --help`` explains it; see ``vone_jax/cli/evaluate.py``."""

from vone_jax import cli

if __name__ == "__main__":
    cli.start_evaluate()
