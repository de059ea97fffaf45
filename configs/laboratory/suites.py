"""Attacks of the laboratory that eval.py has no suite for, named on its command line as

python eval.py RUN --suite configs/laboratory/suites.py:long_attacks
"""

from vone_jax.attacks import APGD
from vone_jax.evaluation.certified import Certified
from vone_jax.evaluation.conditions import Attacked, Condition
from vone_jax.evaluation.suites import Setting, white_box

# L2 radii of certificates, and the sensitivity of V1, see certified.py.
_RADII = (0.01, 0.03, 0.1, 0.2, 0.4, 0.8)
_SENSITIVITY = 26.3357


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


def certified(setting: Setting) -> list[Condition]:
    """Certificates from the noise of V1, and APGD with gradients over 20 draws."""
    attacks = [APGD("l2", eps, eot_samples=20) for eps in _RADII]
    return [Certified(_RADII), *(Attacked(attack) for attack in attacks)]


def _pixels(deviation: float) -> list[Condition]:
    """Certificates from noise on the pixels, worth a deviation in V1; the vote is not attacked."""
    return [Certified(_RADII, pixel_noise=deviation / _SENSITIVITY)]


certified_pixels_1, certified_pixels_2, certified_pixels_4 = map(_pixels, (1.0, 2.0, 4.0))
