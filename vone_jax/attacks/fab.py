"""FAB: the fast adaptive boundary attack, and its targeted form FAB-T.

References:
  Croce and Hein, Minimally distorted adversarial examples with a fast adaptive boundary attack,
    2020, arXiv:1907.02044.
  Croce and Hein, Reliable evaluation of adversarial robustness with an ensemble of diverse
    parameter-free attacks, 2020, arXiv:2003.01690 (FAB-T).
"""

import dataclasses
import math
from typing import Annotated

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from vone_jax import fast, prng
from vone_jax.arguments import FromZero, Range, Share
from vone_jax.attacks import classifier, losses, norms
from vone_jax.attacks.attack import Attack, Estimator, Norm
from vone_jax.attacks.classifier import Draws, Images, Keys, Labels, LogitsFn, Values, where
from vone_jax.attacks.deepfool import DUAL, Boundary, nearest_boundary
from vone_jax.attacks.minimal import Closest
from vone_jax.attacks.norms import Column, Flat

_TINY = 1e-8

# A step goes at least this many units in the last place of pixels and logits.
_ROUNDING_STEPS = 16

# In a projection, a value does not move if its weight is below this share of the largest weight.
_NEGLIGIBLE = 1e-8

# Newton's method takes about 2 to 14 rounds; the bound only guards against rounding.
_MOST_ROUNDS = 64


@dataclasses.dataclass(frozen=True)
class FAB(Attack):
    """Minimal perturbations by projections onto linearised boundaries within the pixel box.

    Each step projects both the current point and the original image onto the nearest boundary. It
    goes a little beyond a mean of the two projections. From an adversarial point it then goes back
    towards the original. Any class but the label counts as success, whatever ``targets`` says.
    As in AutoAttack, the paper's final search along a line is left out.

    A step costs two forward passes, and one backward pass per class considered. Without ``targets``
    these are all other classes; with ``targets`` it is one class, in one run per target.

    Attributes:
      restarts: number of runs. The first begins at the image, the others at random points at half
        the distance found so far, at most ``eps`` / 2. The closest result is kept.
      targets: None considers the boundaries to all classes in every step. A number T makes one
        run for each of the T classes with the highest logits besides the label. FAB-T takes 9.
      alpha_max: largest weight of the original image in the mean.
      eta: extrapolation beyond the boundary, at least 1.
      beta: share of an adversarial perturbation that the step back keeps.
      estimator: what is linearised: the mean of the logits over the noise draws, or with
        "mean_probability" the logarithm of their mean probability.
      norm, eps, steps, eot_samples: see ``Attack``.
      targeted: whether labels are classes to reach rather than to leave. Each step then considers
        the boundary to the class that is likeliest at the current point; ``targets`` must be None.

    Raises:
      ValueError, TypeError: if a field is out of range; the message names it. A ``targets`` larger
        than the number of other classes is refused when the attack runs.
    """

    decides_by_draws = True

    norm: Norm
    eps: float
    steps: int = 100
    restarts: int = 1
    targets: int | None = None
    alpha_max: Share = 0.1
    eta: Annotated[float, Range(1.0)] = 1.05
    beta: Share = 0.9
    _: dataclasses.KW_ONLY
    eot_samples: int = 1
    estimator: Estimator = "mean_logits"
    targeted: bool = False
    # Number of the one target of a member. Set by ``members``.
    target: FromZero | None = dataclasses.field(
        default=None, repr=False, metadata={"leaf": True, "stored": False}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.targeted and self.targets is not None:
            raise ValueError(
                "targets must be None with targeted=True, where the labels are the targets, got "
                f"{self.targets}"
            )

    @property
    def least_classes(self) -> int:
        return (self.targets or 1) + 1

    def members(self, classes: int) -> tuple[Attack, ...]:
        if self.targets is None or self.target is not None:
            return (self,)
        return tuple(dataclasses.replace(self, target=each) for each in range(self.targets))

    def search(self, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels) -> Closest:
        """Search towards all targets or, with the number of one, towards that one."""
        groups = None if self.targeted else self._groups(keys, logits_fn, images, labels)
        count = 1 if groups is None else len(groups)

        def start_again(number: Array, closest: Closest) -> Closest:
            if self.target is not None:
                number = jnp.asarray(self.target, jnp.int32) + number * count
            run_keys = prng.fold(keys, number)
            classes = None if groups is None else groups[number % count]
            point = images
            if self.restarts > 1:
                start_keys = prng.stream(run_keys, "start")
                norm = norms.of(self.norm)
                away = norms.surface(start_keys, images.shape[1:], norm, images.dtype)
                radius = 0.5 * jnp.minimum(closest.distance, self.eps)
                away = jnp.clip(images + radius[:, None, None, None] * away, 0.0, 1.0)
                point = jnp.where(number < count, images, away)

            def step(number: Array, state: tuple[Images, Closest]) -> tuple[Images, Closest]:
                point, closest = state
                step_keys = prng.fold(prng.stream(run_keys, "steps"), number)
                slope_keys = prng.stream(step_keys, "slope")
                boundary, logits = nearest_boundary(
                    self, slope_keys, logits_fn, point, labels, classes
                )
                boundary = self._beyond_rounding(boundary, logits)
                point = self._towards(boundary, point, images)
                decision_keys = prng.stream(step_keys, "decision")
                logits = classifier.draws(logits_fn, decision_keys, point, self.eot_samples)
                closest, adversarial = self.closer(closest, point, logits, images, labels)
                back = images + self.beta * (point - images)
                return where(adversarial, back, point), closest

            return jax.lax.fori_loop(0, self.steps, step, (point, closest))[1]

        starts = self.restarts * (count if self.target is None else 1)
        return jax.lax.fori_loop(0, starts, start_again, Closest.start(images))

    def _groups(
        self, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels
    ) -> Int[Array, "groups rivals n"]:
        """Return groups of classes; each run considers one group."""
        class_keys = prng.stream(keys, "classes")
        clean = jnp.mean(classifier.draws(logits_fn, class_keys, images, self.eot_samples), axis=0)
        others = clean.shape[-1] - 1
        if self.targets is not None and self.targets > others:
            raise ValueError(f"targets must be at most {others}, got {self.targets}")
        groups = losses.rivals(clean, labels, self.targets or others)
        return groups[None] if self.targets is None else groups[:, None]

    def _beyond_rounding(self, boundary: Boundary, logits: Draws) -> Boundary:
        """Enlarge the gap of points on the label's side that are within rounding of the boundary.

        A step that is shorter than the rounding of pixels or logits changes nothing, and ``eta``
        only multiplies it. Without a larger gap, such a point would never move again.
        """
        rounding = _ROUNDING_STEPS * float(jnp.finfo(logits.dtype).eps)
        values = math.prod(boundary.slope.shape[1:])
        # In L2 a step spreads over all values.
        step = rounding * (math.sqrt(values) if self.norm == "l2" else 1.0)
        least = jnp.maximum(
            rounding * fast.largest(jnp.abs(jnp.mean(logits, axis=0)), axis=-1),
            step * norms.size(boundary.slope, DUAL[self.norm]),
        )
        sign = 1.0 if self.targeted else -1.0
        ahead = sign * boundary.gap
        return boundary._replace(gap=sign * jnp.where(ahead >= 0, jnp.maximum(ahead, least), ahead))

    def _towards(self, boundary: Boundary, point: Images, images: Images) -> Images:
        """Return the mean of the steps to the boundary from the point and from the original."""
        from_point = project_onto_hyperplane(point, boundary.slope, boundary.gap, self.norm)
        gap = boundary.gap + jnp.sum(boundary.slope * (images - point), axis=(1, 2, 3))
        from_image = project_onto_hyperplane(images, boundary.slope, gap, self.norm)
        here = jnp.maximum(norms.size(from_point, self.norm), _TINY)
        there = jnp.maximum(norms.size(from_image, self.norm), _TINY)
        alpha = jnp.minimum(here / (here + there), self.alpha_max)[:, None, None, None]
        from_point, from_image = point + self.eta * from_point, images + self.eta * from_image
        return jnp.clip((1 - alpha) * from_point + alpha * from_image, 0.0, 1.0)


def project_onto_hyperplane(points: Images, normal: Images, residual: Values, norm: str) -> Images:
    """Return the smallest perturbations that lead onto a hyperplane within the pixel box.

    Per example: the smallest delta with point + delta in [0, 1] and w.(point + delta) = b. Each
    value moves towards the hyperplane, at most by its room to the border. Where the hyperplane
    does not meet the box, the result leads to the corner of the box that is nearest to it.

    Args:
      points: in [0, 1].
      normal: w. Where it is zero nothing moves.
      residual: w.point - b.
      norm: the norm that is minimised.
    """
    flat = normal.reshape(normal.shape[0], -1)
    # In units of the largest weight, so that tiny gradients count as much as large ones.
    unit = fast.largest(jnp.abs(flat), axis=-1)[:, None]
    unit = jnp.where(unit == 0, jnp.ones_like(unit), unit)
    weights = jnp.abs(flat) / unit
    sign = -jnp.sign(residual)[:, None] * jnp.sign(flat)
    values = points.reshape(flat.shape)
    room = jnp.maximum(jnp.where(sign > 0, 1.0 - values, values), 0.0)
    room = jnp.where(weights < _NEGLIGIBLE, 0.0, room)
    amount = {"linf": _level, "l2": _proportional, "l1": _greedy}[norm]
    delta = sign * amount(weights, room, jnp.abs(residual)[:, None] / unit)
    return delta.reshape(points.shape)


def _level(weights: Flat, room: Flat, residual: Column) -> Flat:
    """Move all values by the same amount, as far as there is room."""
    return jnp.minimum(_water_level(weights, room, residual), room)


def _proportional(weights: Flat, room: Flat, residual: Column) -> Flat:
    """Move each value in proportion to its weight, as far as there is room."""
    safe = jnp.where(room > 0, weights, jnp.ones_like(weights))
    level = _water_level(weights**2, room / safe, residual)
    return jnp.minimum(level * weights, room)


def _greedy(weights: Flat, room: Flat, residual: Column) -> Flat:
    """Move the values of the largest weights all the way; those at the threshold share the rest."""
    gain = weights * room
    low, high = norms.bisect(
        lambda middle: _sum(jnp.where(weights > middle, gain, 0.0)) >= residual,
        jnp.zeros_like(residual),
        jnp.ones_like(residual),
    )
    above, at = weights > high, (weights > low) & (weights <= high)
    left = residual - _sum(jnp.where(above, gain, 0.0))
    among = _sum(jnp.where(at, gain, 0.0))
    share = jnp.clip(left / jnp.where(among > 0, among, jnp.ones_like(among)), 0.0, 1.0)
    return room * jnp.where(above, 1.0, jnp.where(at, share, 0.0))


def _water_level(rates: Flat, limits: Flat, residual: Column) -> Column:
    """Return the level with sum(rates min(level, limits)) = residual, or the highest useful one.

    The sum is concave in the level, so Newton's method climbs from zero without passing the
    solution, and it ends as soon as the set of limits below the level is right.
    """

    def unfinished(state: tuple[Column, Array, Array]) -> Array:
        _, climbing, number = state
        return jnp.any(climbing) & (number < _MOST_ROUNDS)

    def climb(state: tuple[Column, Array, Array]) -> tuple[Column, Array, Array]:
        level, _, number = state
        missing = residual - _sum(rates * jnp.minimum(level, limits))
        rising = _sum(jnp.where(limits > level, rates, 0.0))
        higher = level + missing / jnp.where(rising > 0, rising, jnp.ones_like(rising))
        climbing = (rising > 0) & (higher > level)
        # The maximum keeps a residual of NaN.
        level = jnp.where(rising > 0, jnp.maximum(level, higher), level)
        return level, climbing, number + 1

    level = jnp.zeros_like(residual)
    state = (level, jnp.ones_like(level, bool), jnp.int32(0))
    return jax.lax.while_loop(unfinished, climb, state)[0]


def _sum(values: Flat) -> Column:
    return jnp.sum(values, axis=-1, keepdims=True)
