"""The conglomerate benchmark of the VOneNet authors as evaluations: attacks and corruptions.

White box: untargeted PGD of 64 steps from the clean image, gradients averaged over 10 noise draws,
at four budgets in L-infinity, L2 and L1. What is not settled has names: the authors' code exists
with two step sizes, and the library that it calls has changed its L2 and L1 steps.
"""

from collections.abc import Iterator, Sequence

from vone_jax.corruptions import SETS

STEP_RULES = ("eps/32", "eps/4")

# L2 and L1 steps of the Adversarial Robustness Toolbox: up to 1.17, of the time of the paper, L1
# steps are along the gradient and 1e-7 is added to norms; from 1.18 on they change one value each.
NORM_RULES = {
    "art-1.5": ("--norm-offset", "1e-7", "--order", "box_then_ball"),
    "art-1.18": ("--l1-step", "max_coordinate", "--order", "box_then_ball"),
}

# The 15 of ImageNet-C. With the benchmark's photographs of frost (--frost-dir), "frost".
CORRUPTIONS = tuple("frost_procedural" if name == "frost" else name for name in SETS["common"])


def attacks(
    examples: int,
    step_rules: Sequence[str] = STEP_RULES,
    norm_rules: Sequence[str] = tuple(NORM_RULES),
) -> Iterator[tuple[str, ...]]:
    """Evaluations of the white-box ladder; L-infinity is the same under all rules of norms.

    Args:
      examples: number of images.
      step_rules: of ``STEP_RULES``.
      norm_rules: of ``NORM_RULES``.
    """
    for step_rule in step_rules:
        # The default of eval.py goes without saying, so that its results are shared.
        said = () if step_rule == "eps/32" else ("--step-rule", step_rule)
        tag = "" if step_rule == "eps/32" else step_rule.replace("/", "-")
        tagged = ("--tag", tag) if tag else ()
        yield ("--suite", "linf", "--examples", str(examples), *said, *tagged)
        for rule in norm_rules:
            tagged = ("--tag", "-".join(filter(None, (tag, rule))))
            options = (*said, *NORM_RULES[rule], *tagged)
            yield ("--suite", "l2", "l1", "--examples", str(examples), *options)
