"""Draws the pictures of pages: what V1 and the cells of an EVNet see, an attack, and tuning.

    python docs/examples/page_figures.py front_end evnet tuning
    python docs/examples/page_figures.py attack        # after sh quickstart.sh

The drawing is from Noto Emoji (Google, Apache 2.0), as in tests/golden/drawings.
"""

import argparse
from pathlib import Path

import altair as alt
import jax
import matplotlib
import numpy as np

import vone_jax
from configs.drawings import prepare
from vone_jax import attacks, data, neurophysiology, v1
from vone_jax.neurophysiology import pictures as charts

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parents[2]
FIGURES = ROOT / "docs" / "figures"
EPS = 16 / 255
# Test images that both networks of the quickstart classify correctly, one of each class.
SHOWN = 6


def main() -> None:
    """Draw the figures that are named."""
    drawn = {"front_end": front_end, "evnet": evnet, "tuning": tuning, "attack": attack}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", choices=drawn)
    for name in parser.parse_args().names:
        drawn[name](FIGURES / f"{name}.png")


def drawing(side: int) -> np.ndarray:
    """A drawing (1, side, side, 3) in [0, 1]."""
    style = prepare.read_package(ROOT / "tests" / "golden" / "drawings" / "noto")
    pixels = prepare.rasterise(style.drawings["frog"], (235, 235, 235), side)
    return np.float32(pixels)[None] / 255


def front_end(path: Path) -> None:
    """Kernels of cells from coarse to fine, and their responses without and with noise."""
    config = v1.VOneBlockConfig()
    images = drawing(config.image_size)
    quiet = np.asarray(v1.noise_free_responses(config, images))[0]
    noisy = np.asarray(v1.VOneBlock(config).apply({}, images, rngs={"noise": jax.random.key(0)}))[0]
    kernels, order = config.gabor_kernels().in_phase, np.argsort(config.gabor_parameters().sf)
    cells = [
        kind[place]
        for kind in (order[order < config.simple_channels], order[order >= config.simple_channels])
        for place in (len(kind) * np.array([0.15, 0.4, 0.75])).astype(int)
    ]
    figure, axes = plt.subplots(3, 7, figsize=(9.2, 4.2), layout="constrained")
    for axis in axes.flat:
        axis.axis("off")
    axes[1, 0].imshow(images[0])
    axes[1, 0].set_title("image", fontsize=9)
    for column, cell in zip(axes[:, 1:].T, cells, strict=True):
        kind = "simple" if cell < config.simple_channels else "complex"
        most, size = noisy[..., cell].max(), np.abs(kernels[cell]).max()
        column[0].imshow(kernels[cell], cmap="gray", vmin=-size, vmax=size)
        column[0].set_title(f"{kind} cell", fontsize=9)
        column[1].imshow(quiet[..., cell], cmap="magma", vmin=0, vmax=most)
        column[1].set_title("without noise", fontsize=8)
        column[2].imshow(noisy[..., cell], cmap="magma", vmin=0, vmax=most)
        column[2].set_title("with noise", fontsize=8)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def evnet(path: Path) -> None:
    """Responses of the subcortical cells of an EVNet, without noise."""
    config = v1.SubcorticalConfig(image_size=224, visual_degrees=7.0, noise=None)
    images = drawing(config.image_size)
    cells = np.asarray(v1.SubcorticalBlock(config).apply({}, images))[0]
    titles = (
        "P: red, green around",
        "P: green, red around",
        "P: blue, yellow around",
        "M: luminance",
    )
    figure, axes = plt.subplots(1, 5, figsize=(9.2, 2.2), layout="constrained")
    for axis in axes:
        axis.axis("off")
    axes[0].imshow(images[0])
    axes[0].set_title("image", fontsize=9)
    for axis, title, response in zip(axes[1:], titles, np.moveaxis(cells, -1, 0), strict=True):
        most = np.abs(response).max()
        axis.imshow(response, cmap="RdBu_r", vmin=-most, vmax=most)
        axis.set_title(title, fontsize=9)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def tuning(path: Path) -> None:
    """The charts that the page of a run has, of four units of the published block."""
    config = v1.VOneBlockConfig(noise=None)
    scores = neurophysiology.score(
        lambda keys, images: v1.noise_free_responses(config, images),
        visual_degrees=8.0,
        image_size=224,
    )
    arrays = scores.arrays()
    shown = [charts.tuning(arrays, curve).properties(width=190) for curve in charts.CURVES]
    alt.hconcat(*shown, charts.receptive_fields(arrays)).save(path, scale_factor=1.5)


def attack(path: Path) -> None:
    """Images, and what an attack makes of them for a base network and for a VOneNet."""
    networks = [
        vone_jax.open_network(ROOT / "runs" / "quickstart" / name)
        for name in ("resnet18", "vone_resnet18")
    ]
    source = data.load("fashion_mnist_small", "test")
    examples = [source[place] for place in range(200)]
    images = np.stack([np.float32(each["image"]) / 255 for each in examples])
    labels = np.array([each["label"] for each in examples])
    keys = jax.random.split(jax.random.key(0), len(images))
    right = np.all([net.logits_fn(keys, images).argmax(-1) == labels for net in networks], axis=0)
    chosen = [np.flatnonzero(right & (labels == label))[0] for label in np.unique(labels)[:SHOWN]]
    images, labels = images[chosen], labels[chosen]
    names = source.class_names
    figure, axes = plt.subplots(3, SHOWN, figsize=(9.2, 5.4), layout="constrained")
    rows = [("image", images, labels)]
    for title, net in zip(("ResNet-18", "VOneResNet-18"), networks, strict=True):
        draws = 10 if net.stochastic else 1
        pgd = attacks.PGD("linf", EPS, steps=64, step_rule="eps/32", eot_samples=draws)
        adversarial = np.asarray(pgd(jax.random.key(1), net.logits_fn, images, labels))
        judged = net.logits_fn(jax.random.split(jax.random.key(2), len(images)), adversarial)
        rows.append((title, adversarial, np.asarray(judged.argmax(-1))))
    for line, (title, pictures, predicted) in zip(axes, rows, strict=True):
        for axis, picture, taken, label in zip(line, pictures, predicted, labels, strict=True):
            axis.imshow(picture[..., 0], cmap="gray", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
            colour = "black" if taken == label else "tab:red"
            axis.set_title(names[taken], fontsize=9, color=colour)
        line[0].set_ylabel(title, fontsize=9)
    figure.savefig(path, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
