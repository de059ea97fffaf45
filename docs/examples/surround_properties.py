"""Measures V1 with a normalising surround, on banks that no constant was fitted to.

    python docs/examples/surround_properties.py --seeds 31 47 58

Prints the seven scores, the ratio of surround diameter to summation field, the suppression and the
summation field at low contrast, and the response to a grating with an orthogonal mask. Without
noise. A bank takes about 15 minutes of processor time.
"""

import argparse

import jax
import numpy as np

from vone_jax import fast, neurophysiology, v1
from vone_jax.neurophysiology import recording, stimuli, tuning

CONTRASTS = np.array([1.0, 0.5, 0.25, 0.125])
# Contrasts of a test and of the orthogonal masks on it.
MASKS = {0.25: (0.12, 0.25, 0.5), 0.06: (0.12, 0.25, 0.5)}
# Neurons with a ratio of 1-2, 2-4, 4-8, 8-16 and 16-32 (Cavanaugh et al. 2002).
RATIO_EDGES, RATIOS = 2.0 ** np.arange(6), np.array([69, 38, 31, 10, 0]) / 148
KEY = jax.random.key(0)


def main() -> None:
    """Print the properties of each bank."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[31, 47, 58])
    fast.keep_memory()
    for seed in parser.parse_args().seeds:
        config = v1.VOneBlockConfig(
            gabor_seed=seed, noise=None, normalization=v1.SurroundNormalization()
        )
        measure(layer(config), f"seed {seed}")


def measure(response_fn: recording.ResponseFn, name: str) -> None:
    """Print the properties of a layer."""
    scores = neurophysiology.score(response_fn)
    for prop in neurophysiology.PUBLISHED:
        print(f"{name}: {prop} {scores[prop].score:.3f}", flush=True)
    fractions, similarity = ratio(
        scores.per_unit["surround_diameter"], scores.per_unit["grating_summation_field"]
    )
    print(f"{name}: ratio {np.round(fractions, 2)}, similarity {similarity:.3f}", flush=True)
    for (test, mask), (median, facilitated) in masking(response_fn, scores.site).items():
        print(
            f"{name}: test {test} mask {mask}: median {median:.2f}, facilitated {facilitated:.2f}",
            flush=True,
        )
    index, growth = contrast_series(response_fn, scores.site)
    print(f"{name}: index at {CONTRASTS}: {np.round(index, 3)}, summation grows {growth:.2f} times")


def layer(config: v1.VOneBlockConfig) -> recording.ResponseFn:
    """The responses of a block without noise."""
    return lambda keys, images: v1.noise_free_responses(config, images)


def ratio(surround: np.ndarray, summation: np.ndarray) -> tuple[np.ndarray, float]:
    """The fractions of cells with a ratio of 1-2, 2-4, ..., and their similarity to neurons."""
    values = surround / summation
    values = values[np.isfinite(values)]
    fractions = np.histogram(values, RATIO_EDGES)[0] / len(values)
    return fractions, 1.0 - np.abs(np.cumsum(fractions - RATIOS)).max()


def contrast_series(
    response_fn: recording.ResponseFn, site: neurophysiology.Site
) -> tuple[np.ndarray, float]:
    """The median suppression index at each contrast, and the growth of the summation field.

    Each cell sees its best frequency and orientation at full contrast. The growth is the geometric
    mean over cells, from the highest to the lowest contrast.
    """
    sizes = stimuli.grating_set("sizes", contrast=CONTRASTS, radius=stimuli.RADII, **stimuli.COARSE)
    flat = recording.record(response_fn, KEY, sizes, site)
    blank = recording.record_blank(response_fn, KEY, site)
    either = tuning.f0_and_f1(flat.reshape(*sizes.shape, len(site)), blank)
    best = tuning.best_condition(either[:, 0])
    curves = [tuning.curve_along(either[:, n], 1, best) for n in range(len(CONTRASTS))]
    index = np.array([np.median(tuning.suppression_index(curve)) for curve in curves])
    first, last = (tuning.summation_diameter(curves[n]) for n in (0, -1))
    return index, float(np.exp(np.mean(np.log(last / first))))


def masking(
    response_fn: recording.ResponseFn, site: neurophysiology.Site
) -> dict[tuple[float, float], tuple[float, float]]:
    """The response to a grating with an orthogonal mask, relative to that without the mask.

    Both have a radius of 1 degree and the frequency that is best for the cell. Responses are means
    over four phases of the grating and two of the mask.

    Returns:
      (Contrast of the grating, of the mask) -> median over cells, fraction of cells above 1.
    """
    factors = stimuli.COARSE | {"phase": np.arange(4) * 90.0}
    orientation, phase, contrast = map(
        stimuli.PARAMETERS.index, ("orientation", "phase", "contrast")
    )
    gratings = stimuli.grating_set("masks", radius=1.0, **factors)
    everything = np.arange(len(gratings))

    def draw(test: float, mask: float, shift: float) -> np.ndarray:
        tables = [gratings.table.copy() for _ in range(2)]
        tables[0][:, contrast], tables[1][:, contrast] = test, mask
        tables[1][:, orientation] += 90.0
        tables[1][:, phase] += shift
        one, other = (
            np.asarray(stimuli.render(table, site.display, site.window)).astype(np.int16)
            for table in tables
        )
        return (one + other - stimuli.GREY).astype(np.uint8)

    def respond(test: float, mask: float) -> np.ndarray:
        found = []
        for shift in (0.0, 90.0) if mask else (0.0,):
            images = draw(test, mask, shift)
            flat = recording.present(response_fn, KEY, images.__getitem__, everything, site)
            found.append(tuning.f0(flat.reshape(*gratings.shape, len(site))))
        return np.mean(found, axis=0)

    results = {}
    for test, masks in MASKS.items():
        alone = respond(test, 0.0)
        best = *tuning.best_condition(alone), np.arange(len(site))
        for mask in masks:
            relative = tuning.ratio(respond(test, mask)[best], alone[best])
            results[test, mask] = float(np.nanmedian(relative)), float(np.mean(relative > 1.0))
    return results


if __name__ == "__main__":
    main()
