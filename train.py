"""Train one experiment. ``python train.py --help`` explains it; see ``vone_jax/cli/train.py``."""

from vone_jax.cli.train import run

if __name__ == "__main__":
    run()
