"""Attacks of the laboratory that eval.py has no suite for, named on its command line as

python eval.py RUN --suite configs/laboratory/suites.py:long_attacks
"""

from vone_jax.evaluation.conditions import Condition
from vone_jax.evaluation.suites import Setting, white_box


def weak_attacks(setting: Setting) -> list[Condition]:
    """The attacks in L2 and L1 at the weak half of their ladders."""
    return [each for norm in ("l2", "l1") for each in white_box(setting, norm, points=2)]


def one_draw(setting: Setting) -> list[Condition]:
    """Gradients of a single noise draw."""
    return white_box(setting, "linf", eot_samples=1, variant="1-draw")


def hundred_draws(setting: Setting) -> list[Condition]:
    """Gradients averaged over 100 noise draws."""
    return white_box(setting, "linf", eot_samples=100, variant="100-draws")


def long_attacks(setting: Setting) -> list[Condition]:
    """Four times as many steps of the same length."""
    return white_box(setting, "linf", steps=256, variant="256-steps")
