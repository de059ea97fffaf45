"""Draws docs/figures/surround.png: contrast response and surround of V1, published and normalised.

    python docs/examples/surround_figure.py

Records 128 cells of a bank that the normalisation was not fitted to, at the four locations of the
stimuli, without noise. Takes about 2 minutes of processor time.
"""

import dataclasses
from pathlib import Path

import jax
import matplotlib
import numpy as np

from vone_jax import fast, neurophysiology, v1

matplotlib.use("Agg")
import matplotlib.pyplot as plt

FIGURE = Path(__file__).parents[1] / "figures" / "surround.png"
PUBLISHED = v1.VOneBlockConfig(
    simple_channels=64, complex_channels=64, gabor_seed=1, in_channels=1, noise=None
)
BLOCKS = {
    "published block": (PUBLISHED, "tab:gray"),
    "normalising surround": (
        dataclasses.replace(PUBLISHED, normalization=v1.SurroundNormalization()),
        "tab:blue",
    ),
}


def main() -> None:
    """Record both blocks, print the medians and draw the figure."""
    fast.keep_memory()
    display = neurophysiology.Display(in_channels=1)
    key = jax.random.key(0)
    site, _ = neurophysiology.find_units(layer(PUBLISHED), key, display)
    # Both blocks have the same cells. A surround needs the whole image.
    side = PUBLISHED.image_size // PUBLISHED.stride
    units = (site.row * side + site.col) * PUBLISHED.num_channels + site.channel
    site = dataclasses.replace(site, window=display.whole(), units=units)

    figure, (left, right) = plt.subplots(1, 2, figsize=(8.0, 3.2), layout="constrained")
    for label, (config, colour) in BLOCKS.items():
        contrast = neurophysiology.contrast_response(layer(config), key, site)
        surround = neurophysiology.surround_tuning(layer(config), key, site)
        relative = contrast.curves / contrast.curves[-1]
        print(f"{label}: median c50 {np.nanmedian(contrast.c50):.2f}")
        print("  relative response", np.round(np.nanmedian(relative, axis=1), 3))
        print("  suppression", np.round(np.nanmedian(surround.suppression, axis=1), 3))
        draw(left, contrast.contrasts, relative, label, colour)
        draw(right, surround.angles, 1.0 - surround.suppression, label, colour)
    left.set(xscale="log", xlabel="contrast", ylabel="response / largest response", ylim=(0, 1.05))
    right.axhline(1.0, color="black", linewidth=0.8, linestyle=":")
    right.set(
        xticks=[0, 30, 60, 90],
        xlabel="surround minus centre, degrees",
        ylabel="response / response to centre alone",
        ylim=(0, None),
    )
    left.legend(frameon=False)
    figure.savefig(FIGURE, dpi=150)


def layer(config: v1.VOneBlockConfig) -> neurophysiology.recording.ResponseFn:
    """The responses of a block without noise."""
    return lambda keys, images: v1.noise_free_responses(config, images)


def draw(axes: plt.Axes, x: np.ndarray, curves: np.ndarray, label: str, colour: str) -> None:
    """Draw the median and the middle half of the units."""
    low, middle, high = np.nanpercentile(curves, [25, 50, 75], axis=1)
    axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.plot(x, middle, "o-", color=colour, label=label)


if __name__ == "__main__":
    main()
