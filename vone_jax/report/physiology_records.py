"""Results of the kind ``physiology``: what their files must hold."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vone_jax.report.records import Record, ReportError

KIND = "physiology"
SCORED = "scored"
# Fields of experiments, and the one that only responses with spike counts have.
CONTRAST, VARIABILITY, SPIKES = "contrast_response", "variability", "median_fano_factor_spikes"
# Field of texture images, and array of receptive-field maps, which not every result has.
TEXTURES, FIELD_MAPS = "textures", "field/map"
# Tuning curve -> the axis that it is over.
AXES = {"orientation": "orientation", "spatial_frequency": "spatial_frequency", "size": "radius"}
_STATUSES = (SCORED, "needs data", "needs stimuli")
# Shares are rounded.
_SLACK = 1e-6


def check_record(record: Record) -> None:
    """Raises a ReportError unless a JSON file is that of a layer."""
    record.section("condition").text("layer")
    if record.text("status") != SCORED:
        return
    record.number("visual_degrees", low=0)
    for name in ("image_size", "trials", "units"):
        record.integer(name, low=1)
    if record.data.get("simple_channels") is not None:
        record.integer("simple_channels")
    properties = record.section("properties")
    scored = 0
    for name in properties.data:
        item = properties.section(name)
        item.text("label")
        if item.text("status", choices=_STATUSES) != SCORED:
            continue
        scored += 1
        item.number("score", low=0)
        for field in ("units", "neurons"):
            item.integer(field)
        item.text("source")
        bins = len(_numbers(item, "edges")) - 1
        for field in ("distribution", "reference_distribution"):
            values = _numbers(item, field)
            if len(values) != bins or min(values) < 0 or sum(values) > 1 + _SLACK:
                raise item.error(field, f"shares of the {bins} bins of edges")
    if not scored:
        raise record.error("properties", "an object with at least one property that is scored")
    _check_experiments(record)
    _check_textures(record)


def check_arrays(path: Path, arrays: Mapping[str, np.ndarray], record: Mapping) -> None:
    """Raises a ReportError unless an NPZ file belongs to the JSON file of a layer."""
    if record["status"] != SCORED:
        return
    units = record["units"]
    for name in ("row", "col", "channel", "field_x", "field_y"):
        _check_shape(path, arrays, f"unit/{name}", (units,))
    for curve, axis in AXES.items():
        steps = arrays.get(f"axis/{axis}", np.zeros(0))
        _check_shape(path, arrays, f"axis/{axis}", (steps.size,))
        _check_shape(path, arrays, f"curve/{curve}", (steps.size, units))
    for name in ("pref_or", "peak_sf", "modulation_ratio"):
        _check_shape(path, arrays, f"value/{name}", (units,))
    if FIELD_MAPS in arrays:
        steps = arrays.get("axis/position", np.zeros(0)).size
        _check_shape(path, arrays, "axis/position", (steps,))
        _check_shape(path, arrays, FIELD_MAPS, (steps, steps, units))
    if record.get(CONTRAST) is not None:
        levels = arrays.get("contrast/contrasts", np.zeros(0)).size
        _check_shape(path, arrays, "contrast/contrasts", (levels,))
        _check_shape(path, arrays, "contrast/curves", (levels, units))
    if (found := record.get(VARIABILITY)) is not None:
        spaces = ("", "spike_") if SPIKES in found else ("",)
        for name in (f"{space}{moment}" for space in spaces for moment in ("mean", "variance")):
            _check_shape(path, arrays, f"variability/{name}", (found["gratings"], found["units"]))


def _check_experiments(record: Record) -> None:
    """Of fields that older results and layers without noise do not have."""
    found = []
    if record.data.get(CONTRAST) is not None:
        found += [(record.section(CONTRAST), ("median_c50", "median_exponent"))]
    if record.data.get(VARIABILITY) is not None:
        variability = record.section(VARIABILITY)
        variability.integer("trials", low=2)
        for name in ("gratings", "units"):
            variability.integer(name, low=1)
        spiking = (SPIKES,) if SPIKES in variability.data else ()
        if spiking:
            variability.number("least_mean_spikes", low=0)
            variability.integer("units_above")
        found += [(variability, ("median_fano_factor", *spiking))]
    for section, names in found:
        for name in names:
            # Null where no unit has a value.
            if name not in section.data or section.data[name] is not None:
                section.number(name, low=0)


def _check_textures(record: Record) -> None:
    if record.data.get(TEXTURES) is None:
        return
    textures = record.section(TEXTURES)
    textures.text("source")
    if not isinstance(textures.data.get("proxy"), bool):
        raise textures.error("proxy", "true or false")
    for name in ("samples", "units"):
        textures.integer(name)
    medians = textures.section("medians")
    if not medians.data.keys() <= record.section("properties").data.keys():
        raise textures.error("medians", "an object with values of properties")
    for name, value in medians.data.items():
        # Null where no unit has a value.
        if value is not None:
            medians.number(name)


def _numbers(record: Record, name: str) -> list[float]:
    value = record.data.get(name)
    if isinstance(value, list) and value and all(type(item) in (int, float) for item in value):
        return value
    raise record.error(name, "a list of numbers")


def _check_shape(path: Path, arrays: Mapping[str, np.ndarray], name: str, shape: tuple) -> None:
    array = arrays.get(name)
    if array is None:
        raise ReportError(f"{path}: the array {name} is missing; delete it and evaluate again")
    if array.shape != shape or array.size == 0 or not np.issubdtype(array.dtype, np.number):
        raise ReportError(
            f"{path}: {name} must be numbers of shape {shape}, got {array.dtype} {array.shape}"
        )
    # A property that a unit does not have is NaN.
    if np.isinf(array).any():
        raise ReportError(f"{path}: {name} has values that are infinite")
