"""Square: random search with square-shaped changes, from the classifier's scores alone.

References:
  Andriushchenko et al., Square attack: a query-efficient black-box adversarial attack via random
    search, 2020, arXiv:1912.00049.
  Croce and Hein, Mind the box: l1-APGD for sparse adversarial attacks on image classifiers, 2021,
    arXiv:2103.01208 (the L1 form).
"""

import dataclasses
import functools
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Key

from vone_jax import prng
from vone_jax.arguments import Range
from vone_jax.attacks import losses, norms
from vone_jax.attacks.attack import Attack, Estimator, Loss, Norm
from vone_jax.attacks.classifier import Images, Keys, Labels, LogitsFn, Mask, Scalar, Values, where
from vone_jax.attacks.gradient_free import WITHOUT_GRADIENTS

# The part of the image that a square covers is halved after each of these numbers of queries, of
# so many.
SCHEDULE = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
_SCHEDULED = 10_000

# In a bump the square of half-width k has weight 1 / (k + 1)^power.
_POWER = {"l2": 2, "l1": 4}
_TINY = 1e-12

# The perturbation of one image, its pixels, and their rows or columns within a window.
Image = Float[Array, "h w c"]
Pixels = Float[Array, "h w"]
Places = Int[Array, "h w"]
Side = Array | int


@dataclasses.dataclass(frozen=True)
class Square(Attack):
    """Random search: a change of a square window is kept if it raises the loss.

    It needs no gradients, so it shows where gradients are masked. With one draw per query, an image
    stays once it is misclassified, and the run ends when all images are. With several draws, for a
    classifier with noise, nothing ends early. A change is then kept if its averaged loss is higher
    than that of the current image under the same fresh draws. So a lucky draw neither counts as
    success nor blocks later changes, but a query costs two evaluations.

    Windows and signs are drawn from the key of each example. The reference code differs: it shares
    them within a batch, and it never uses the last position of a window.

    Attributes:
      queries: evaluations of each image per run; the first one evaluates the starting pattern.
      norm, eps, restarts, eot_samples, loss, targeted, estimator: see ``Attack``.
      p_init: part of the image that the first squares cover, above 0 and at most 1.
      rescale_schedule: whether squares shrink over the queries of the run, as in the paper. The
        authors' AutoAttack has False: there they shrink as in the first ones of 10,000 queries.
    """

    decides_by_draws = True

    norm: Norm
    eps: float
    queries: int = 5000
    restarts: int = 1
    p_init: Annotated[float, Range(most=1.0, above=True)] = 0.8
    rescale_schedule: bool = True
    _: dataclasses.KW_ONLY
    eot_samples: int = 1
    loss: Loss = "margin"
    targeted: bool = False
    estimator: Estimator = "mean_loss"

    def doubts(self, noisy: bool) -> tuple[str, ...]:
        return WITHOUT_GRADIENTS

    def run(self, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels) -> Images:
        radii = jnp.broadcast_to(jnp.asarray(self.eps, images.dtype), labels.shape)

        def score(candidates: Images, keys: Keys) -> tuple[Values, Mask]:
            """Return the averaged loss, and whether a single draw misclassifies an image."""
            loss, logits = self.evaluate(keys, logits_fn, candidates, labels)
            if self.eot_samples > 1:
                return loss, jnp.zeros(loss.shape, bool)
            margin = losses.margin(logits[0], labels)
            return loss, (-margin if self.targeted else margin) > 0

        clean_loss, misclassified = score(images, prng.stream(keys, "clean"))
        images = _finite_or_nan(images, clean_loss)
        noise_keys = prng.stream(keys, "noise")
        query_keys = prng.stream(keys, "queries")
        start = self._start(prng.stream(keys, "start"), images, radii)

        def unfinished(state: tuple) -> Array:
            query, _, _, _, active = state
            return (query < self.queries) & jnp.any(active)

        def ask(state: tuple) -> tuple:
            query, proposal, current, loss, active = state
            fresh_keys = prng.fold(noise_keys, query)
            if self.eot_samples > 1:
                loss, _ = score(current, fresh_keys)
            new_loss, misclassified = score(proposal, fresh_keys)
            better = (query == 0) | (new_loss > loss)
            taken = active & (better | misclassified | ~jnp.isfinite(new_loss))
            current = where(taken, _finite_or_nan(proposal, new_loss), current)
            loss = jnp.where(taken, new_loss, loss)
            active = active & ~misclassified & jnp.isfinite(loss)
            # Made in the iteration before it is scored. Otherwise XLA would compute it again
            # for every part of the classifier that reads it.
            query = query + 1
            proposal_keys = prng.fold(query_keys, query)
            proposal = self._proposal(proposal_keys, current, images, radii, query)
            return query, proposal, current, loss, active

        state = (jnp.int32(0), start, images, clean_loss, ~misclassified)
        return jax.lax.while_loop(unfinished, ask, state)[2]

    def part(self, query: Array) -> Array:
        """Return the part of the image that the square of a query covers; the start is query 0."""
        queries = self.queries if self.rescale_schedule else _SCHEDULED
        # The first query that is beyond a number of the schedule, rescaled and rounded down.
        smaller = [-(-(after + 1) * queries // _SCHEDULED) for after in SCHEDULE]
        halvings = jnp.sum(query >= jnp.asarray(smaller, query.dtype))
        return self.p_init * jnp.exp2(-halvings.astype(jnp.float32))

    def _start(self, keys: Keys, images: Images, radii: Values) -> Images:
        shape, dtype = images.shape[1:], images.dtype
        if self.norm == "linf":
            delta = jax.vmap(lambda key, eps: stripes(key, shape, eps, dtype))(keys, radii)
        else:
            delta = jax.vmap(lambda key: tiles(key, shape, self.norm, dtype))(keys)
            longer = jnp.maximum(radii / norms.size(delta, self.norm), 1.0)
            delta = delta * norms.per_image(longer)
        return self._feasible(delta, images, radii)

    def _proposal(
        self, keys: Keys, current: Images, images: Images, radii: Values, query: Array
    ) -> Images:
        height, width = images.shape[1:3]
        area = self.part(query) * (height * width)
        side = jnp.round(jnp.sqrt(area)).astype(jnp.int32)
        if self.norm == "linf":
            side = jnp.clip(side, 1, min(height, width))
            propose = functools.partial(signed_window, side=side)
        else:
            side = jnp.maximum(side, 3)
            side = jnp.minimum(side + 1 - side % 2, min(height, width))
            propose = functools.partial(moved_window, side=side, norm=self.norm)
        delta = jax.vmap(lambda key, delta, eps: propose(key, delta, eps=eps))(
            keys, current - images, radii
        )
        return self._feasible(delta, images, radii)

    def _feasible(self, delta: Images, images: Images, radii: Values) -> Images:
        """Add perturbations within the box: for L2 scaled to norm ``eps``, for L1 projected."""
        if self.norm == "l2":
            delta = norms.per_image(radii) * norms.L2().direction(delta)
        if self.norm == "l1":
            # A little less than eps, as in the reference code, against rounding.
            delta = norms.project_l1_box(images, delta, radii * (1 - 1e-6))
        return jnp.clip(images + delta, 0.0, 1.0)


def _finite_or_nan(images: Images, loss: Values) -> Images:
    # Without gradients nothing else carries a NaN of the classifier into the result.
    return where(jnp.isfinite(loss), images, jnp.nan)


# Starting patterns and proposals, for one example and one key at a time. The side of a window may
# be traced: a window is a mask made from indices, so one compiled function serves all sides.


def stripes(key: Key[Array, ""], shape: tuple[int, ...], eps: Scalar, dtype: DTypeLike) -> Image:
    """Return a start for L-infinity: columns of -eps or eps, one sign per column and channel."""
    _, width, channels = shape
    signs = _signs(jax.random.uniform(key, (1, width, channels), dtype))
    return eps * jnp.broadcast_to(signs, shape)


def tiles(key: Key[Array, ""], shape: tuple[int, ...], norm: str, dtype: DTypeLike) -> Image:
    """Return a start for L2 and L1: a grid of bump pairs, one sign per tile and channel.

    A tile has a fifth of the shorter side; the grid is centred.
    """
    height, width, channels = shape
    side = max(min(height, width) // 5, 1)
    grid = (height // side, width // side)
    down = np.arange(height)[:, None] - (height - grid[0] * side) // 2
    across = np.arange(width)[None] - (width - grid[1] * side) // 2
    tiled = (down >= 0) & (down < grid[0] * side) & (across >= 0) & (across < grid[1] * side)
    tile = (np.clip(down // side, 0, grid[0] - 1), np.clip(across // side, 0, grid[1] - 1))
    drawn = jax.random.uniform(key, (*grid, channels + 1), dtype)[tile]
    rows, columns = map(jnp.asarray, np.broadcast_arrays(down % side, across % side))
    pair = bump_pair(rows, columns, side, drawn[..., 0] < 0.5, norm, dtype)
    return jnp.where(tiled, pair, 0.0)[..., None] * _signs(drawn[..., 1:])


def signed_window(key: Key[Array, ""], delta: Image, side: Side, eps: Scalar) -> Image:
    """Return a proposal for L-infinity: -eps or eps in a random window, one sign per channel."""
    # One call draws all random numbers, because each call of the generator compiles slowly.
    drawn = jax.random.uniform(key, (2 + delta.shape[-1],), delta.dtype)
    inside = _inside(*_window(drawn[:2], delta.shape, side), side)
    return jnp.where(inside[..., None], eps * _signs(drawn[None, None, 2:]), delta)


def moved_window(key: Key[Array, ""], delta: Image, side: Side, eps: Scalar, norm: str) -> Image:
    """Return a proposal for L2 and L1: the perturbation of one random window moves into another.

    The second window is emptied. The first one gets its old perturbation plus a pair of bumps. The
    new norm of each channel is its own of both windows together, plus a part of what the whole
    perturbation lacks to ``eps``.
    """
    channels = delta.shape[-1]
    drawn = jax.random.uniform(key, (5 + channels,), delta.dtype)
    rows, columns = _window(drawn[:2], delta.shape, side)
    here = _inside(rows, columns, side)[..., None]
    there = _inside(*_window(drawn[2:4], delta.shape, side), side)[..., None]
    pair = bump_pair(rows, columns, side, drawn[4] < 0.5, norm, delta.dtype)[..., None]
    pair = pair * _signs(drawn[None, None, 5:])
    old = jnp.where(here, delta, 0.0)
    new = pair + old / (_size(old, norm, (0, 1)) + _TINY)
    both = _size(jnp.where(here | there, delta, 0.0), norm, (0, 1))
    whole = _size(delta, norm)
    if norm == "l2":
        budget = jnp.sqrt(jnp.maximum(eps**2 - whole**2, 0.0) / channels + both**2)
    else:
        budget = jnp.maximum(eps - whole, 0.0) + channels * both
    new = new / (_size(new, norm, (0, 1)) + _TINY) * budget
    return jnp.where(here, new, jnp.where(there, 0.0, delta))


def bump_pair(
    rows: Places, columns: Places, side: Side, transposed: Array, norm: str, dtype: DTypeLike
) -> Pixels:
    """Return a positive bump above a negative one in a square, of norm one; zero outside of it.

    Rows and columns count from the corner of the square. Where ``transposed`` holds, for all
    pixels or for each, the bumps lie side by side instead.
    """
    down, across = jnp.where(transposed, columns, rows), jnp.where(transposed, rows, columns)
    upper = _bump(down, across, side // 2, side, norm, dtype)
    lower = _bump(down - side // 2, across, side - side // 2, side, norm, dtype)
    # Both halves have norm one, unless the square has one pixel: then the upper half is empty.
    parts = jnp.where(jnp.asarray(side) > 1, 2.0, 1.0)
    return (upper - lower) / (jnp.sqrt(parts) if norm == "l2" else parts).astype(dtype)


def _bump(
    rows: Places, columns: Places, height: Side, width: Side, norm: str, dtype: DTypeLike
) -> Pixels:
    """Return squares of half-width k = 0, 1, ... in the middle of a rectangle, of norm one."""
    longest = max(rows.shape)
    # rest[m] is the sum of 1 / (k + 1)^power over k = m, m + 1, ...
    weights = 1.0 / np.arange(1, longest + 2, dtype=np.float64) ** _POWER[norm]
    rest = jnp.asarray(np.append(np.cumsum(weights[::-1])[::-1], 0.0), dtype)
    outermost = jnp.maximum(height // 2, width // 2)

    def value(rows: Array, columns: Array) -> Array:
        ring = jnp.maximum(jnp.abs(rows - height // 2), jnp.abs(columns - width // 2))
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        # Pixels far outside would read past the end of the table.
        return jnp.where(inside, rest[jnp.minimum(ring, longest)] - rest[outermost + 1], 0.0)

    place = jnp.arange(longest, dtype=jnp.int32)
    whole = value(place[:, None], place[None])
    return value(rows, columns) / (_size(whole, norm) + _TINY)


def _window(drawn: Array, shape: tuple[int, ...], side: Side) -> tuple[Places, Places]:
    """Return rows and columns of all pixels, counted from the corner of a window.

    ``drawn`` holds two numbers in [0, 1) that choose the corner evenly among all that fit.
    """
    places = (jnp.asarray(shape[:2], jnp.int32) - side + 1).astype(drawn.dtype)
    corner = jnp.floor(drawn * places).astype(jnp.int32)
    rows = jnp.arange(shape[0], dtype=jnp.int32)[:, None] - corner[0]
    columns = jnp.arange(shape[1], dtype=jnp.int32)[None] - corner[1]
    return jnp.broadcast_to(rows, shape[:2]), jnp.broadcast_to(columns, shape[:2])


def _signs(drawn: Array) -> Array:
    return jnp.where(drawn < 0.5, -1.0, 1.0).astype(drawn.dtype)


def _inside(rows: Places, columns: Places, side: Side) -> Bool[Array, "h w"]:
    return (rows >= 0) & (rows < side) & (columns >= 0) & (columns < side)


def _size(delta: Array, norm: str, axis: tuple[int, ...] | None = None) -> Array:
    powers = jnp.square(delta) if norm == "l2" else jnp.abs(delta)
    total = jnp.sum(powers, axis=axis, keepdims=axis is not None)
    return jnp.sqrt(total) if norm == "l2" else total
