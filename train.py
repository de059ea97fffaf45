"""Train one experiment. ``python train.py --help`` explains it; see ``vone_jax/cli/train.py``."""

from vone_jax import cli

if __name__ == "__main__":
    cli.start_train()
