"""Draw docs/figures/c_bar.png: the ten corruptions of ImageNet-C-bar on one photograph.

    python docs/examples/c_bar_grid.py

Needs scikit-image, whose "astronaut" is the photograph (Eileen Collins, by NASA, in the public
domain).
"""

import argparse
from pathlib import Path

import jax
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from skimage import data  # pyright: ignore[reportMissingImports]

from vone_jax import corruptions

FIGURE = Path(__file__).parents[1] / "figures" / "c_bar.png"


def draw(path: Path) -> None:
    """Draw one row per severity and one column per corruption."""
    photograph = Image.fromarray(data.astronaut()).resize((224, 224))
    images = np.float32(photograph)[None] / 255
    names = corruptions.SETS["c_bar"]
    shown = (1, 3, 5)
    figure, axes = plt.subplots(len(shown), len(names), figsize=(15, 5))
    for row, severity in zip(axes, shown, strict=True):
        for axis, name in zip(row, names, strict=True):
            made = corruptions.corrupt(jax.random.key(1), images, name, severity)
            axis.imshow(made[0])
            axis.set_xticks([])
            axis.set_yticks([])
            if severity == shown[0]:
                axis.set_title(name.replace("_", "\n", 1).replace("_", " "), fontsize=8)
        row[0].set_ylabel(f"severity {severity}", fontsize=8)
    figure.tight_layout(pad=0.4)
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=FIGURE)
    draw(parser.parse_args().out)
