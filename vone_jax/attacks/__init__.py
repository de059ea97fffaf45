"""White-box attacks on any classifier ``logits_fn(key, images) -> logits``, stochastic or not."""

from vone_jax.attacks.attack import Attack
from vone_jax.attacks.gradient import FGSM, PGD, STEP_RULES

__all__ = ["FGSM", "PGD", "STEP_RULES", "Attack"]
