"""Weights in from PyTorch; out to PyTorch, to a folder, to a compiled artefact."""

from vone_jax.convert.errors import CheckpointError
from vone_jax.convert.exported import export, load_exported
from vone_jax.convert.folder import load_folder, save_folder
from vone_jax.convert.from_file import Conversion, from_torch, read
from vone_jax.convert.state_dict import from_state_dict, to_torch
from vone_jax.convert.to_file import save_torch

__all__ = [
    "CheckpointError",
    "Conversion",
    "export",
    "from_state_dict",
    "from_torch",
    "load_exported",
    "load_folder",
    "read",
    "save_folder",
    "save_torch",
    "to_torch",
]
