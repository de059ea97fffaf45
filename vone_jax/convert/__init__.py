"""Conversion of weights from and to other programs, and adapters for other tools.

The adapters are imported by module: ``convert.tools`` (Foolbox, Brain-Score) and ``convert.art``
(Adversarial Robustness Toolbox).
"""

# ruff: noqa: F401

from vone_jax.convert.export import export, load_exported, save_torch
from vone_jax.convert.folder import (
    Folder,
    describe,
    is_folder,
    load_folder,
    read_folder,
    save_folder,
)
from vone_jax.convert.from_file import Conversion, from_torch, read
from vone_jax.convert.state_dict import from_state_dict, to_torch
from vone_jax.convert.untrusted import CheckpointError
