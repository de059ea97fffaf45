"""Draw docs/figures/corruptions.png: every corruption at every severity on one photograph.

    python docs/examples/corruption_grid.py

Needs scikit-image, whose "astronaut" is the photograph (Eileen Collins, by NASA, in the public
domain). If imagecorruptions is installed, its images stand beside ours. The row of frost shows the
drawn texture only, because the licence of ImageNet-C's photographs is unknown.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from skimage import data  # pyright: ignore[reportMissingImports]

from vone_jax import corruptions

try:
    import imagecorruptions  # pyright: ignore[reportMissingImports]
except ModuleNotFoundError:
    imagecorruptions = None

FIGURE = Path(__file__).parents[1] / "figures" / "corruptions.png"
CELL = 64  # pixels of the figure per image
NAMES = tuple(
    name.replace("frost", "frost_procedural")
    for name in (*corruptions.SETS["common"], *corruptions.SETS["extra"])
)


def photograph() -> np.ndarray:
    """Return the photograph, uint8 (224, 224, 3)."""
    square = Image.fromarray(data.astronaut()[:400, 30:430])
    return np.asarray(square.resize((224, 224), Image.Resampling.BICUBIC))


def ours(image: np.ndarray, name: str, severity: int) -> np.ndarray:
    """Return the image with a corruption of vone_jax, uint8."""
    batch = jnp.asarray(image[None], jnp.float32) / 255
    out = corruptions.corrupt(jax.random.key(0), batch, name, severity, form="uint8")
    return np.round(255 * np.asarray(out[0])).astype(np.uint8)


def reference(image: np.ndarray, name: str, severity: int) -> np.ndarray | None:
    """Return the image with a corruption of imagecorruptions, or None if there is none."""
    if imagecorruptions is None or name == "frost_procedural":
        return None
    np.random.seed(0)  # noqa: NPY002  imagecorruptions draws from it
    return imagecorruptions.corrupt(image, severity=severity, corruption_name=name)


def draw(path: Path) -> None:
    """Draw one row per corruption: five severities of ours, then five of the reference."""
    image = photograph()
    columns = 5 if imagecorruptions is None else 11
    widths = [1.0] * 5 + [0.15] * (columns > 5) + [1.0] * (columns - 6)
    figure, axes = plt.subplots(
        len(NAMES),
        columns,
        figsize=((sum(widths) + 1.6) * CELL / 100, (len(NAMES) + 0.5) * CELL / 100),
        width_ratios=widths,
    )
    canvas = FigureCanvasAgg(figure)
    for axis in axes.flat:
        axis.set_axis_off()
    for row, name in zip(axes, NAMES, strict=True):
        row[0].text(
            -0.08, 0.5, name.replace("_", "\n"), transform=row[0].transAxes, fontsize=7,
            ha="right", va="center",
        )  # fmt: skip
        for first, corrupt in ((0, ours), (6, reference)):
            for severity in corruptions.SEVERITIES if first < columns else ():
                out = corrupt(image, name, severity)
                if out is not None:
                    cell = Image.fromarray(out).resize((CELL, CELL), Image.Resampling.LANCZOS)
                    row[first + severity - 1].imshow(cell, interpolation="nearest")
    for first, title in ((0, "vone_jax, severity {}"), (6, "imagecorruptions, {}")):
        for severity in corruptions.SEVERITIES if first < columns else ():
            text = title.format(severity) if severity == 1 else str(severity)
            axes[0, first + severity - 1].set_title(text, fontsize=6, pad=2)
    figure.subplots_adjust(
        left=1.5 / (sum(widths) + 1.6), right=0.998, top=0.975, bottom=0.002, wspace=0.03,
        hspace=0.03,
    )  # fmt: skip
    canvas.draw()
    whole = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    whole.quantize(192, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=FIGURE)
    draw(parser.parse_args().out)


if __name__ == "__main__":
    main()
