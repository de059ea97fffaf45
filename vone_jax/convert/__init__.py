"""Weights of PyTorch networks in, as Flax variables."""

from vone_jax.convert.state_dict import from_state_dict

__all__ = ["from_state_dict"]
