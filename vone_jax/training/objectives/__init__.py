"""The objectives of this project. Each is written as a user's own, see ``training.Objective``.

Nothing outside of this package knows them; ``training`` lists their names for users.
"""

# ruff: noqa: F401

from vone_jax.training.objectives.diet import Diet
from vone_jax.training.objectives.distillation import Distillation
from vone_jax.training.objectives.images import Corruptions, GaussianImageNoise
from vone_jax.training.objectives.mixing import Mixing
from vone_jax.training.objectives.pairs import MART, TRADES
from vone_jax.training.objectives.prime import PRIME
from vone_jax.training.objectives.similarity import Similarity
from vone_jax.training.objectives.single import AWP, Fast, Free
