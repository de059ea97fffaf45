"""Learns the constants of V1 by gradient, from distributions of properties of macaque cells.

The model of ``cells`` gives properties of every cell that have a gradient with respect to the
constants. ``distance`` compares the distribution of a property with that of neurons: the
1-Wasserstein distance, the mean distance of sorted values. ``docs/laws.md`` has what came out.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import serialization
from jaxtyping import Float

from vone_jax import arguments, files
from vone_jax.neurophysiology.cells import Cells, Constants, PerCell, measure
from vone_jax.neurophysiology.properties import PROPERTIES, PUBLISHED

# Property -> its axis and the range of its values, from which a shuffled reference is scaled.
_AXES: dict[str, tuple[Any, float, float]] = {
    "or_bandwidth": (np.log2, 5.0, 90.0),
    "peak_sf": (np.log2, 0.35, 22.4),
    "surround_suppression_index": (lambda x: x, 0.0, 1.0),
    "half_saturation": (np.log2, 1 / 16, 1.0),
    "circular_variance": (lambda x: x, 0.0, 1.0),
    "surround_diameter": (np.log2, 0.25, 16.0),
    "orthogonal_mask": (lambda x: x, 0.0, 1.0),
}
FITTED = ("or_bandwidth", "peak_sf", "surround_suppression_index", "half_saturation")
PREDICTED = ("circular_variance", "surround_diameter", "orthogonal_mask")


@dataclasses.dataclass(frozen=True, eq=False)
class Quantiles:
    """What is known of a distribution over neurons: values, and the share of neurons below each.

    Where a paper has a median alone, this is one value with the share 0.5. Nothing is assumed of
    the rest of the distribution.
    """

    values: Float[np.ndarray, " values"]
    shares: Float[np.ndarray, " values"]


def _of_counts(name: str, number: int = 64) -> Quantiles:
    """The quantiles of a published histogram, whose bins are filled evenly on their axis."""
    axis, edges = _AXES[name][0], np.maximum(PROPERTIES[name].edges, 1e-3)
    back = np.exp2 if axis is np.log2 else (lambda x: x)
    shares = (np.arange(number) + 0.5) / number
    counts = PUBLISHED[name].counts
    cumulative = np.concatenate([[0.0], np.cumsum(counts / counts.sum())])
    return Quantiles(back(np.interp(shares, cumulative, axis(edges))), shares)


def _median(value: float) -> Quantiles:
    return Quantiles(np.array([value]), np.array([0.5]))


# The cells of macaques. Histograms are those of ``PUBLISHED``. Of the others only medians are
# quoted: orientation tuning by Ringach, Shapley and Hawken (2002, J. Neuroscience 22:5639-5651);
# half-saturation and masks (contrast 0.5 on a test of 0.25) as docs/surround.md asks for them.
REFERENCES: dict[str, Quantiles] = {
    "or_bandwidth": _median(23.5),
    "peak_sf": _of_counts("peak_sf"),
    "surround_suppression_index": _of_counts("surround_suppression_index"),
    "half_saturation": _median(0.31),
    "circular_variance": _median(0.61),
    "surround_diameter": _of_counts("surround_diameter"),
    "orthogonal_mask": _median(0.39),
}


_SHARES = ("local", "orientation_tuning", "growth")


def free(constants: Constants) -> Constants:
    """Return constants in the form in which every number is allowed."""

    def logit(share: Any) -> Any:
        share = jnp.clip(share, 1e-4, 1 - 1e-4)
        return jnp.log(share) - jnp.log1p(-share)

    form = {name: jnp.log(jnp.asarray(x, jnp.float32)) for name, x in constants._asdict().items()}
    form["own"] = logit(2.0 * constants.own)
    room = 1.0 - 2.0 * constants.own
    for name in _SHARES:
        form[name] = logit(getattr(constants, name) / (room if name == "local" else 1.0))
    return Constants(**form)


def bounded(form: Constants) -> Constants:
    """Return the constants of a form in which every number is allowed."""
    made = {name: jnp.exp(x) for name, x in form._asdict().items()}
    made["own"] = 0.5 * jax.nn.sigmoid(form.own)
    for name in _SHARES:
        made[name] = jax.nn.sigmoid(getattr(form, name))
    made["local"] *= 1.0 - 2.0 * made["own"]
    return Constants(**made)


def distance(name: str, values: PerCell, reference: Quantiles) -> Any:
    """Return the 1-Wasserstein distance of values to those of neurons, on the property's axis.

    It is the mean distance of the values' quantiles to those that are known, in octaves, or in
    units of an index. Of a median alone, it is the distance of medians.
    """
    axis = jnp.log2 if _AXES[name][0] is np.log2 else (lambda x: x)
    values = jnp.sort(axis(jnp.maximum(values, 1e-3)))
    at = jnp.asarray(reference.shares, jnp.float32) * len(values) - 0.5
    known = jnp.asarray(_AXES[name][0](np.maximum(reference.values, 1e-3)), jnp.float32)
    return jnp.abs(
        jnp.interp(at, jnp.arange(len(values), dtype=jnp.float32), values) - known
    ).mean()


def loss(
    constants: Constants, cells: Cells, references: Mapping[str, Quantiles] = REFERENCES
) -> Any:
    """Return the sum of the distances of the four properties that are fitted.

    Raises:
      ValueError: if a reference is missing.
    """
    for name in FITTED:
        if name not in references:
            raise ValueError(f"references must have {name!r}; they have {[*references]}")
    found = measure(constants, cells)
    total = 0.0
    for name in FITTED:
        # An octave and a quarter of an index count the same.
        unit = 1.0 if _AXES[name][0] is np.log2 else 4.0
        total += unit * distance(name, found[name], references[name])
    return total


def shuffled(references: Mapping[str, Quantiles] = REFERENCES) -> dict[str, Quantiles]:
    """Return references in which each fitted property has the sample of the next one.

    Samples are scaled from the range of their property to that of the other.
    """
    made = dict(references)
    for name, other in zip(FITTED, (*FITTED[1:], FITTED[0]), strict=True):
        (axis, *ends), (axis_of, *ends_of) = _AXES[name], _AXES[other]
        back = np.exp2 if axis is np.log2 else (lambda x: x)
        low, high = axis(np.array(ends))
        low_of, high_of = axis_of(np.array(ends_of))
        scaled = (axis_of(np.maximum(references[other].values, 1e-3)) - low_of) / (high_of - low_of)
        values = back(low + (high - low) * np.clip(scaled, 0.0, 1.0))
        made[name] = Quantiles(values, references[other].shares)
    return made


def fit(
    cells: Cells,
    references: Mapping[str, Quantiles] = REFERENCES,
    start: Constants = Constants(),  # noqa: B008
    steps: int = 200,
    rate: float = 0.03,
    path: Path | None = None,
    report: Callable[[int, float], None] = lambda step, value: None,
) -> tuple[Constants, Float[np.ndarray, " steps"]]:
    """Learn the constants by Adam, and return them with the loss before each step.

    The rate falls to 0 along a cosine. After every twentieth step the fit is written to ``path``,
    from which it goes on, bit for bit, when it is called again with the same arguments.
    ``report`` gets the number of steps and the loss.

    Raises:
      ValueError: if the file at ``path`` is of a fit with other arguments.
      FloatingPointError: if the loss is not finite.
    """
    arguments.count("steps", steps)
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps))

    def step(state: Any, _: None) -> tuple[Any, Any]:
        form, moments = state
        value, slope = jax.value_and_grad(lambda form: loss(bounded(form), cells, references))(form)
        updates, moments = optimizer.update(slope, moments, form)
        return (optax.apply_updates(form, updates), moments), value

    @functools.partial(jax.jit, static_argnums=1)
    def some(state: Any, number: int) -> tuple[Any, Any]:
        return jax.lax.scan(step, state, length=number)

    form = free(start)
    known = {name: (x.values.tolist(), x.shares.tolist()) for name, x in references.items()}
    about = files.json_digest([cells.seed, cells.number, known, start, steps, rate])
    saved = {"about": about, "state": (form, optimizer.init(form)), "losses": np.zeros(0, "f4")}
    if path is not None and path.exists():
        saved = serialization.from_bytes(saved, path.read_bytes())
        if saved["about"] != about:
            raise ValueError(f"{path} is of a fit with other arguments; remove it or name another")
    while (done := len(saved["losses"])) < steps:
        state, values = some(saved["state"], min(20, steps - done))
        losses = np.concatenate([saved["losses"], np.asarray(values)])
        saved = {"about": about, "state": state, "losses": losses}
        if not np.all(np.isfinite(saved["losses"])):
            raise FloatingPointError("the loss is not finite; use a smaller rate")
        if path is not None:
            files.replace(path, lambda file, saved=saved: file.write(serialization.to_bytes(saved)))
        report(len(saved["losses"]), float(saved["losses"][-1]))
    return Constants(*(float(x) for x in bounded(saved["state"][0]))), saved["losses"]
