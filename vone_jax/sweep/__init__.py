"""Sweeps: many runs and their evaluations as one command that can be killed and shared out."""

from vone_jax.sweep.runner import STEPS, Shard, SweepError, run
from vone_jax.sweep.sweep import Member, Sweep, load_sweep, sweep_names

__all__ = ["STEPS", "Member", "Shard", "Sweep", "SweepError", "load_sweep", "run", "sweep_names"]
