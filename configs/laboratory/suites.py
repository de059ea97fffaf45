"""Attacks of the laboratory that eval.py has no suite for, named on its command line as

python eval.py RUN --suite configs/laboratory/suites.py:long_attacks
"""

import functools
from dataclasses import replace

from configs.laboratory.discriminability import OBSERVER
from vone_jax import models
from vone_jax.attacks import APGD, PGD, Strongest, Transfer
from vone_jax.certification.measured import Certified, Discriminable
from vone_jax.evaluation.attacked import Attacked, white_box
from vone_jax.evaluation.condition import Condition
from vone_jax.evaluation.evaluation import Evaluation
from vone_jax.front_ends import RBlur
from vone_jax.perception.geometry import Geometry
from vone_jax.perception.metamers import Metamers
from vone_jax.perception.psychophysics import Psychophysics

# The scale of the experiment in certified.py. All of 1,000 votes prove a probability of .993, so no
# L2 radius is above 2.46 deviations of pixel noise. The sensitivity of V1 is that of certified.py.
_PROOF = Certified(radii=(0.01, 0.05, 0.2), draws=1000, steps=20, eot_samples=10)
_SENSITIVITY = 26.3357


def weak_attacks(evaluation: Evaluation) -> list[Condition]:
    """The attacks in L2 and L1 at the weak half of their ladders."""
    return [each for norm in ("l2", "l1") for each in white_box(evaluation, norm, points=2)]


def one_draw(evaluation: Evaluation) -> list[Condition]:
    """Gradients of a single noise draw."""
    return white_box(evaluation, "linf", eot_samples=1, variant="1-draw")


def hundred_draws(evaluation: Evaluation) -> list[Condition]:
    """Gradients averaged over 100 noise draws."""
    return white_box(evaluation, "linf", eot_samples=100, variant="100-draws")


def long_attacks(evaluation: Evaluation) -> list[Condition]:
    """Four times as many steps of the same length."""
    return white_box(evaluation, "linf", steps=256, variant="256-steps")


def strongest(evaluation: Evaluation) -> list[Condition]:
    """The strongest of PGD and APGD on two losses, at four radii, in a fifth of the time of worst.

    PGD makes 20 steps from a random point, APGD 50. Gradients are averaged over 5 noise draws.
    """
    return [
        Attacked(_strongest("linf", eps, min(evaluation.attack_draws, 5)))
        for eps in (4 / 255, 8 / 255, 16 / 255, 0.1)
    ]


def _strongest(norm: str, eps: float, draws: int) -> Strongest:
    pgd = PGD(norm, eps, steps=20, random_start=True, eot_samples=draws)
    apgd = APGD(norm, eps, steps=50, eot_samples=draws)
    return Strongest(
        tuple(
            replace(each, loss=loss) for each in (pgd, apgd) for loss in ("cross_entropy", "margin")
        )
    )


# The attack of the reference numbers of adversarial training.
reference = Attacked(PGD("linf", 0.1, steps=50, step_size=0.01, random_start=True, restarts=5))

certified = _PROOF

# The suite of this name with fewer votes and shorter attacks, those of ``strongest``.
_RADII = (0.05, 0.15, 0.5)
certified_local = Certified(
    _RADII, draws=1000, local=True, attacks=tuple(_strongest("l2", eps, 5) for eps in _RADII)
)


def _pixels(deviation: float) -> Condition:
    """Certificates from noise on the pixels, worth a deviation in V1."""
    return replace(_PROOF, pixel_noise=deviation / _SENSITIVITY)


certified_pixels_1, certified_pixels_2, certified_pixels_4 = map(_pixels, (1.0, 2.0, 4.0))


def _ends(evaluation: Evaluation) -> tuple[str, str]:
    """The front end and the end of a network."""
    return ("stem" if evaluation.network.v1 is None else "v1", "logits")


# Certificates at several contrasts, for the experiment in gain_control.py. The largest L2 radius of
# Gaussian noise of 2 is 0.187 without gain control.
certified_contrasts = [
    Certified((0.05, 0.15), draws=1000, steps=20, eot_samples=10, contrast=contrast)
    for contrast in (1.0, 0.5, 0.25)
]


# Attacks within radii of d' of one observer, for the networks of discriminability.py.
in_d_prime = Discriminable(OBSERVER, (2.0, 8.0), steps=30)


def metamers(evaluation: Evaluation) -> list[Condition]:
    """Metamers of the front end and of the logits, for the networks of ``--others``, too."""
    return [Metamers(layer) for layer in _ends(evaluation)]


def overlap(evaluation: Evaluation) -> list[Condition]:
    """Manifolds of attacked images beside clean ones, and of random changes of the same size."""
    small = functools.partial(Geometry, images=10, points=30, draws=100)
    made: list[Condition] = []
    for layer in _ends(evaluation):
        if evaluation.noisy:
            made.append(small(layer, "noise"))
        made += [small(layer, "fgsm", eps / 255) for eps in (4, 8, 16)]
        made.append(small(layer, "corners", 16 / 255))
    return made


def _pgd(eps: float, draws: int) -> PGD:
    return PGD("linf", eps, steps=20, random_start=True, eot_samples=draws)


_FOUR = (1 / 255, 4 / 255, 8 / 255, 16 / 255)


def expected(evaluation: Evaluation) -> list[Condition]:
    """PGD of 20 steps at four radii, through all that the network draws, 5 times, and fixates."""
    return [Attacked(_pgd(eps, min(evaluation.attack_draws, 5))) for eps in _FOUR]


def through_the_centre(evaluation: Evaluation) -> list[Condition]:
    """The same attack through one draw, of a network with R-Blur also through its centre alone."""
    network = evaluation.network
    seen, spec = network.logits_fn, None if network.model is None else network.model.spec
    if spec is not None and isinstance(spec.front_end, RBlur):
        central = spec.front_end.clone(fixations=((0.5, 0.5),))
        seen = models.logits_fn(replace(spec, front_end=central).build(), network.variables)
    return [Attacked(Transfer(_pgd(eps, 1), seen)) for eps in _FOUR]


# The accuracy with noise of the phases: how far a network needs the form, not the spectrum.
phase_noise = Psychophysics("phase_noise")
