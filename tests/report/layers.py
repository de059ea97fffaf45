"""Results of the kind "physiology", built from numbers."""

import numpy as np

from tests.results import built
from vone_jax import results

EDGES = {"pref_or": (-22.5, 22.5, 67.5, 112.5, 157.5), "peak_sf": (0.5, 1.0, 2.0, 4.0, 8.0),
         "sf_selective": (0.0, 0.5, 1.0), "circular_variance": (0.0, 0.5, 1.0)}  # fmt: skip
LABELS = {
    "pref_or": "preferred orientation",
    "peak_sf": "preferred spatial frequency",
    "sf_selective": "spatial-frequency selective",
    "circular_variance": "circular variance",
    "max_noise": "largest response to noise",
}
UNITS = 120
SCORES = {"pref_or": 0.9, "peak_sf": 0.8, "sf_selective": 0.4}


def property_score(name, score, units=UNITS):
    """The score of a property; None for one that was not scored."""
    edges = EDGES.get(name, (0.0, 1.0))
    bins = len(edges) - 1
    shares = np.arange(1, bins + 1) / sum(range(bins + 1))
    values = {"label": LABELS[name], "unit": "deg", "group": "g", "benchmark": "b",
              "edges": edges, "distribution": tuple(shares.tolist()), "units": units}  # fmt: skip
    if score is None:
        status = "needs data" if name in EDGES else "needs stimuli"
        return results.PropertyScore(name, status, **values)
    values |= {"score": score, "neurons": 100, "source": f"Study of {LABELS[name]} (1999)",
               "reference_distribution": tuple(shares[::-1].tolist())}  # fmt: skip
    return results.PropertyScore(name, "scored", **values)


def layer(of, name, scores=SCORES, *, arrays=None, status="scored", **fields):
    """A layer with scores of some properties; the others lack a reference or images."""
    rng = np.random.default_rng(0)
    stored = {
        "axis/orientation": np.arange(12) * 15.0,
        "axis/spatial_frequency": 2.0 ** np.arange(-1, 4),
        "axis/radius": 2.0 ** np.arange(-3, 3),
        **{f"unit/{axis}": rng.integers(0, 20, UNITS) for axis in ("row", "col", "channel")},
        **{f"unit/field_{axis}": 0.5 + 0.1 * rng.random(UNITS) for axis in "xy"},
        **{f"curve/{curve}": rng.random((steps, UNITS)) * 30
           for curve, steps in (("orientation", 12), ("spatial_frequency", 5), ("size", 6))},
        "value/pref_or": rng.uniform(-22.5, 157.5, UNITS),
        "value/peak_sf": 2.0 ** rng.uniform(-1, 3, UNITS),
        "value/modulation_ratio": rng.uniform(0, 1.6, UNITS),
    }  # fmt: skip
    stored["value/peak_sf"][:3] = np.nan
    measured = None
    if status == "scored":
        units = fields.get("units", UNITS)
        properties = {each: property_score(each, scores.get(each), units) for each in LABELS}
        values = {
            "visual_degrees": 8.0, "image_size": 224, "trials": 1, "units": UNITS, "slope": 1.0,
            "offset": 0.0, "mean_score": 0.5, "groups": {}, "properties": properties,
        } | fields  # fmt: skip
        measured = results.LayerScores(**values)
    return built.result(
        results.PhysiologyCondition(name, 8.0, 224, 1, "off", 1000),
        results.Physiology(status, measured),
        (stored | (arrays or {})) if measured else {},
        of=of,
        name=f"physiology-{name}",
        dataset=results.Dataset("gratings", "MarquesEtAl2020", 9096),
        protocol=built.QUIET,
    )


def experiments(spikes=True, c50=9.5, **changes):
    """The arrays and fields of a layer with noise: responses to contrast, and trials."""
    rng = np.random.default_rng(1)
    mean = rng.uniform(0.5, 20, (4, 10))
    contrasts = np.array([0.05, 0.1, 0.2, 0.4, 0.8, 1.0])
    arrays = {
        "contrast/contrasts": contrasts,
        "contrast/curves": contrasts[:, None] * rng.uniform(1, 9, UNITS),
        "variability/mean": mean,
        "variability/variance": 2 * mean,
    }
    angles = np.array([0.0, 30.0, 60.0, 90.0])
    alone = rng.uniform(1, 9, UNITS)
    arrays |= {
        "surround/angles": angles,
        "surround/alone": alone,
        "surround/curves": (0.5 + angles / 360)[:, None] * alone,
    }
    variability = {"trials": 100, "gratings": 4, "units": 10, "median_fano_factor": 2.86}
    if spikes:
        variability |= {"median_fano_factor_spikes": 0.99, "least_mean_spikes": 2.0,
                        "units_above": 7}  # fmt: skip
        arrays |= {"variability/spike_mean": 0.5 * mean, "variability/spike_variance": 0.5 * mean}
    return {
        "arrays": arrays,
        "contrast_response": results.ContrastResponse(c50, 1.05),
        "surround_tuning": results.SurroundTuning(0.5, 0.25),
        "variability": results.Variability(**variability | changes),
    }
