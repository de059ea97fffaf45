"""The conglomerate benchmark of the VOneNet authors as evaluations: attacks and corruptions.

White box: untargeted PGD of 64 steps from the clean image, gradients averaged over 10 noise draws,
at four budgets in L-infinity, L2 and L1. One setting is not certain, so its variants have names:
the authors' code exists with two step sizes.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from vone_jax import names
from vone_jax.evaluation import Request

STEP_RULES = ("eps/32", "eps/4")

# L2 and L1 steps of the Adversarial Robustness Toolbox up to 1.17, as for the paper: L1 steps are
# along the gradient and 1e-7 is added to norms.
NORM_RULES: dict[str, dict[str, Any]] = {
    "art-1.5": {"norm_offset": 1e-7, "order": "box_then_ball"},
}

# The 15 of ImageNet-C. With the benchmark's photographs of frost (frost_dir), "frost".
CORRUPTIONS = tuple(
    names.PROCEDURAL_FROST if name == "frost" else name for name in names.COMMON_CORRUPTIONS
)


def attacks(
    examples: int | None,
    step_rules: Sequence[str] = STEP_RULES,
    norm_rules: Sequence[str] = tuple(NORM_RULES),
) -> Iterator[Request]:
    """Evaluations of the white-box ladder. L-infinity is the same under all rules of norms.

    Args:
      examples: number of images. None: 5000, or all if there are fewer.
      step_rules: of ``STEP_RULES``.
      norm_rules: of ``NORM_RULES``.
    """
    for step_rule in step_rules:
        # Without a tag for the default of eval.py, so that its results are shared.
        tag = "" if step_rule == "eps/32" else step_rule.replace("/", "-")
        yield Request(suite=("linf",), examples=examples, step_rule=step_rule, tag=tag)
        for rule in norm_rules:
            yield Request(
                suite=("l2", "l1"),
                examples=examples,
                step_rule=step_rule,
                tag="-".join(filter(None, (tag, rule))),
                **NORM_RULES[rule],
            )
