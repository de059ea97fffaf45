"""Networks with noise whose accuracy under the strongest attack is known.

An attack only gives an upper bound of the accuracy under attack. On the networks of this package
the answer is known, so an attack can be graded: against the accuracy that it reports, and against
the exact accuracy of the images that it returns. Each network sees an image through a few linear
features, or through V1, and adds Gaussian noise. So the probability of a right answer has a closed
form, and the worst case within a radius is a search in one or two dimensions.

All networks have images of grey levels in [0, 1]. Perturbed images stay in this range, which the
answers take into account. Probabilities are computed in float64, and the networks in float32.
"""

from collections.abc import Callable

from vone_jax.answer_key.decoders import linear, linear_classes, quantised, shared_gain
from vone_jax.answer_key.plane import energy, switched_noise
from vone_jax.answer_key.problem import RADIUS, Problem, steepest
from vone_jax.answer_key.templates import v1_templates

__all__ = [
    "PROBLEMS", "RADIUS", "Problem", "energy", "linear", "linear_classes", "quantised",
    "shared_gain", "steepest", "switched_noise", "v1_templates",
]  # fmt: skip

# Name -> function that makes the problem.
PROBLEMS: dict[str, Callable[..., Problem]] = {
    each.__name__: each
    for each in (
        linear, linear_classes, energy, shared_gain, switched_noise, quantised, v1_templates,
    )
}  # fmt: skip
