"""Draws docs/figures/drawings.png: a drawing of each class in each style, corrupted and recoloured.

    python configs/drawings/prepare.py iconify-json-*.tgz --out drawings
    python docs/examples/drawings_figure.py

The drawings are those of Google (Apache 2.0), Microsoft (MIT), Twitter (CC BY 4.0) and OpenMoji
(CC BY-SA 4.0), so the figure is under CC BY-SA 4.0.
"""

from pathlib import Path

import jax
import matplotlib
import numpy as np
from PIL import Image

from configs.drawings.suites import rotate_hue
from vone_jax import corruptions

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parents[2]
FIGURE = ROOT / "docs" / "figures" / "drawings.png"
STYLES = ("noto", "fluent-emoji-flat", "twemoji", "openmoji")
THINGS = (
    "activities/soccer-ball", "animals/sloth", "food/carrot", "objects/lipstick",
    "people/astronaut", "smileys/zipper-mouth-face", "symbols/wheelchair-symbol",
    "travel/carousel-horse",
)  # fmt: skip
CORRUPTIONS = ("gaussian_noise", "defocus_blur", "fog", "contrast", "jpeg_compression")


def read(style: str) -> np.ndarray:
    """The things in a style, (N, 64, 64, 3) in [0, 1]."""
    files = [ROOT / "drawings" / style / f"{thing}.png" for thing in THINGS]
    return np.stack([np.asarray(Image.open(file)) for file in files]) / np.float32(255)


def main() -> None:
    rows = {style: read(style) for style in STYLES}
    images, keys = rows["noto"], jax.random.split(jax.random.key(0), len(THINGS))
    for name in CORRUPTIONS:
        label = f"noto, {name.replace('_', ' ')} 3"
        rows[label] = np.asarray(corruptions.corrupt(keys, images, name, 3))
    rows["noto, hue turned by 180"] = np.asarray(rotate_hue(images, 180.0))
    figure, axes = plt.subplots(len(rows), len(THINGS), figsize=(8.6, 9.0))
    for line, (label, row) in zip(axes, rows.items(), strict=True):
        for place, image in zip(line, row, strict=True):
            place.imshow(image, interpolation="nearest")
            place.set(xticks=[], yticks=[])
            place.spines[:].set_visible(False)
        line[0].set_ylabel(label, rotation=0, ha="right", va="center")
    for place, thing in zip(axes[0], THINGS, strict=True):
        place.set_title(thing.partition("/")[0], fontsize=9)
    figure.subplots_adjust(
        left=0.27, right=0.995, top=0.965, bottom=0.005, wspace=0.03, hspace=0.03
    )
    figure.savefig(FIGURE, dpi=100)


if __name__ == "__main__":
    main()
