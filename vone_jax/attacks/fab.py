"""FAB: the fast adaptive boundary attack, and its targeted form FAB-T.

References:
  Croce and Hein, Minimally distorted adversarial examples with a fast adaptive boundary attack,
    2020, arXiv:1907.02044.
  Croce and Hein, Reliable evaluation of adversarial robustness with an ensemble of diverse
    parameter-free attacks, 2020, arXiv:2003.01690 (FAB-T).
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from vone_jax import prng
from vone_jax.attacks import box_hyperplane, checks, linearised, norms
from vone_jax.attacks.attack import pytree
from vone_jax.attacks.minimal import MinimalNormAttack
from vone_jax.attacks.random_noise import surface

_TINY = 1e-8

# A step goes at least this many units in the last place of pixels and logits.
_ROUNDING_STEPS = 16


@pytree("eps", "alpha_max", "eta", "beta")
@dataclasses.dataclass(frozen=True)
class FAB(MinimalNormAttack):
    """Minimal perturbations by projections onto linearised boundaries within the pixel box.

    Each step projects both the present point and the original image onto the nearest boundary,
    goes to a mean of the two, a little beyond, and from an adversarial point back towards the
    original. The image counts as fooled by any class but its label, whatever ``targets`` says.
    The paper's search along a line at the end is left out, as AutoAttack does.

    A step costs two forward passes and a backward pass per class considered: all classes without
    ``targets``, one with them, and then the whole run is made once per target.

    Attributes:
      norm: "linf", "l2" or "l1".
      eps: radius that a call keeps to, see ``MinimalNormAttack``; restarts begin within half of it.
      steps: number of steps.
      restarts: number of runs. The first begins at the image, the others at random points at half
        the distance found so far, at most ``eps`` / 2. The closest result is kept.
      targets: None considers the boundaries to all classes in every step. A number T makes one
        run for each of the T classes with the highest logits besides the label: FAB-T, with 9.
      alpha_max: largest weight of the original image in the mean.
      eta: extrapolation beyond the boundary, at least 1.
      beta: what is kept of an adversarial perturbation in the step back.
      eot_samples: noise draws per step, see ``MinimalNormAttack``.
      estimator: what is linearised of them, see ``losses.combined``.
      targeted: whether labels are classes to reach rather than to leave. Each step then considers
        the boundary to the class that is likeliest at the present point; goes without ``targets``.

    Raises:
      ValueError, TypeError: if a field is out of range; the message names it. A ``targets`` larger
        than the number of other classes is refused when the attack runs.
    """

    norm: str
    eps: float
    steps: int = 100
    restarts: int = 1
    targets: int | None = None
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9
    eot_samples: int = 1
    estimator: str = "mean_logits"
    targeted: bool = False

    def __post_init__(self):
        checks.fields(self)
        if self.targeted and self.targets is not None:
            raise ValueError(
                f"targets are classes that an untargeted attack tries in turn, got {self.targets} "
                "with targeted=True, where the labels name the target"
            )

    @property
    def least_classes(self) -> int:
        return max(2, (self.targets or 0) + 1)

    def search(self, keys, logits_fn, images, labels, closest):
        groups = None if self.targeted else self._groups(keys, logits_fn, images, labels)
        count = 1 if groups is None else len(groups)

        def run(closest, number):
            run_keys = prng.fold(keys, number)
            classes = None if groups is None else groups[number % count]
            point = images
            if self.restarts > 1:
                away = surface(
                    prng.stream(run_keys, "start"), images.shape[1:], self.norm, images.dtype
                )
                radius = 0.5 * jnp.minimum(closest.distance, self.eps)
                away = jnp.clip(images + radius[:, None, None, None] * away, 0.0, 1.0)
                point = jnp.where(number < count, images, away)

            def step(state, number):
                point, closest = state
                step_keys = prng.fold(prng.stream(run_keys, "steps"), number)
                boundary, logits = linearised.nearest_boundary(
                    lambda point: self.logits(logits_fn, prng.stream(step_keys, "slope"), point),
                    point, labels, classes, self.norm, self.estimator,
                )  # fmt: skip
                boundary = self._beyond_rounding(boundary, logits)
                point = self._towards(boundary, point, images)
                logits = self.logits(logits_fn, prng.stream(step_keys, "decision"), point)
                closest, adversarial = self.closer(closest, point, logits, images, labels)
                back = images + self.beta * (point - images)
                return (jnp.where(adversarial[:, None, None, None], back, point), closest), None

            numbers = jnp.arange(self.steps, dtype=jnp.uint32)
            (_, closest), _ = jax.lax.scan(step, (point, closest), numbers)
            return closest, None

        runs = jnp.arange(self.restarts * count, dtype=jnp.uint32)
        return jax.lax.scan(run, closest, runs)[0]

    def _groups(self, keys, logits_fn, images, labels):
        """Classes of which a run considers one group, shape (groups, classes, N)."""
        clean = jnp.mean(self.logits(logits_fn, prng.stream(keys, "classes"), images), axis=0)
        others = clean.shape[-1] - 1
        if self.targets is not None and self.targets > others:
            raise ValueError(f"targets must be at most {others}, got {self.targets}")
        groups = linearised.rivals(clean, labels, self.targets or others)
        return groups[None] if self.targets is None else groups[:, None]

    def _beyond_rounding(self, boundary: linearised.Boundary, logits: jax.Array):
        """The boundary, shifted for points that are within rounding of it on the label's side.

        A step that is shorter than the rounding of pixels or logits changes nothing, and ``eta``
        stretches it by a factor only. Such a point would stay there for all further steps.
        """
        rounding = _ROUNDING_STEPS * float(jnp.finfo(logits.dtype).eps)
        values = math.prod(boundary.slope.shape[1:])
        # In L2 a step spreads over all values.
        step = rounding * (math.sqrt(values) if self.norm == "l2" else 1.0)
        least = jnp.maximum(
            rounding * jnp.max(jnp.abs(jnp.mean(logits, axis=0)), axis=-1),
            step * norms.size(boundary.slope, linearised.DUAL[self.norm]),
        )
        sign = 1.0 if self.targeted else -1.0
        ahead = sign * boundary.gap
        return boundary._replace(gap=sign * jnp.where(ahead >= 0, jnp.maximum(ahead, least), ahead))

    def _towards(self, boundary: linearised.Boundary, point, images):
        """The mean of the steps to the boundary from the point and from the original image."""
        from_point = box_hyperplane.project(point, boundary.slope, boundary.gap, self.norm)
        gap = boundary.gap + jnp.sum(boundary.slope * (images - point), axis=(1, 2, 3))
        from_image = box_hyperplane.project(images, boundary.slope, gap, self.norm)
        here = jnp.maximum(norms.size(from_point, self.norm), _TINY)
        there = jnp.maximum(norms.size(from_image, self.norm), _TINY)
        alpha = jnp.minimum(here / (here + there), self.alpha_max)[:, None, None, None]
        moved = (1 - alpha) * (point + self.eta * from_point) + alpha * (
            images + self.eta * from_image
        )
        return jnp.clip(moved, 0.0, 1.0)
