"""The conglomerate benchmark of the VOneNet authors: attacks and corruptions.

White box: untargeted PGD of 64 steps from the clean image, gradients averaged over 10 noise draws,
at four radii in L-infinity, L2 and L1. Two settings are not certain, so their variants are suites
of this file: the authors' code exists with two step sizes, and the library that it calls has
changed its L2 and L1 steps.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from vone_jax.evaluation.attacked import white_box
from vone_jax.evaluation.condition import Condition
from vone_jax.evaluation.corrupted import corrupted
from vone_jax.evaluation.evaluation import Evaluation
from vone_jax.names import COMMON_CORRUPTIONS

# L2 and L1 steps of the Adversarial Robustness Toolbox 1.5 to 1.17, as for the paper: steps are
# along the gradient, and 1e-7 is added to norms.
_ART: dict[str, Any] = {"norm_offset": 1e-7, "order": "box_then_ball"}


def linf_eps4(evaluation: Evaluation) -> list[Condition]:
    """L-infinity with steps of eps/4, as in an earlier example of the authors."""
    return white_box(evaluation, "linf", step_rule="eps/4", variant="eps-4")


def l2_l1_art(evaluation: Evaluation) -> list[Condition]:
    """L2 and L1 with the steps of the paper's time."""
    return [
        each
        for norm in ("l2", "l1")
        for each in white_box(evaluation, norm, variant="art-1.5", **_ART)
    ]


def l2_l1_art_eps4(evaluation: Evaluation) -> list[Condition]:
    """L2 and L1 with the steps of the paper's time, of length eps/4."""
    variant = "eps-4-art-1.5"
    return [
        each
        for norm in ("l2", "l1")
        for each in white_box(evaluation, norm, step_rule="eps/4", variant=variant, **_ART)
    ]


def common(evaluation: Evaluation) -> list[Condition]:
    """The 15 corruptions of ImageNet-C, with a drawn texture in place of frost."""
    return corrupted(COMMON_CORRUPTIONS)


STEP_RULES = {"eps/32": ("linf", "l2_l1_art"), "eps/4": ("linf_eps4", "l2_l1_art_eps4")}


def attacks(
    examples: int | None, step_rules: Sequence[str] = tuple(STEP_RULES)
) -> Iterator[tuple[str, ...]]:
    """Evaluations of the white-box ladder, as words of eval.py.

    Args:
      examples: number of images. None: 5000, or all if there are fewer.
      step_rules: of ``STEP_RULES``.
    """
    count = () if examples is None else ("--examples", str(examples))
    for rule in step_rules:
        for suite in STEP_RULES[rule]:
            name = suite if suite == "linf" else f"{__file__}:{suite}"
            yield ("--suite", name, *count)


def corruptions(examples: int | None = None) -> tuple[str, ...]:
    """The evaluation of the 15 corruptions, as words of eval.py."""
    count = () if examples is None else ("--examples", str(examples))
    return ("--suite", f"{__file__}:common", *count)
