"""Conversion of weights from and to PyTorch, and networks as folders."""

# ruff: noqa: F401

from vone_jax.convert.folder import (
    Folder,
    is_folder,
    load_folder,
    read_folder,
    save_folder,
)
from vone_jax.convert.from_file import ASSUMED_SIZE, Conversion, from_torch, read
from vone_jax.convert.state_dict import from_state_dict, to_torch
from vone_jax.convert.to_file import has_torch_module, save_torch, save_torch_module
from vone_jax.convert.torch_file import CheckpointError
