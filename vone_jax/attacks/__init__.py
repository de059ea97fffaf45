"""Attacks on any classifier ``logits_fn(keys, images) -> logits``, stochastic or not.

A classifier takes one typed key per example; ``per_example`` adapts a function of a single key.

An attack writes one method, see ``Attack``; a plain function is taken wherever an attack is.

Within a radius, ``FGSM``, ``PGD`` and ``APGD`` follow the gradient, ``SPSA`` and
``Square`` use scores alone, and ``RandomNoise`` is a baseline. ``FAB``, ``DeepFool``, ``CW``,
``DDN`` and ``FMN`` find the closest adversarial image. ``Strongest`` keeps the strongest result of
several attacks, of which ``AutoAttack`` is one choice, and ``Transfer`` attacks another network.
The imports below are the public names.
"""

# ruff: noqa: F401

from vone_jax.attacks import losses, norms
from vone_jax.attacks.apgd import APGD
from vone_jax.attacks.attack import Attack, Function, from_json, of, to_json
from vone_jax.attacks.carlini_wagner import CW
from vone_jax.attacks.classifier import straight_through
from vone_jax.attacks.deepfool import DeepFool
from vone_jax.attacks.ensembles import AutoAttack, Strongest, Transfer
from vone_jax.attacks.executor import Best, Trace, parts
from vone_jax.attacks.fab import FAB
from vone_jax.attacks.fmn import DDN, FMN
from vone_jax.attacks.gradient import FGSM, PGD, STEP_RULES
from vone_jax.attacks.gradient_free import SPSA, RandomNoise
from vone_jax.attacks.minimal import Closest, MinimalPerturbation
from vone_jax.attacks.square import Square
from vone_jax.functions import per_example, prepare
