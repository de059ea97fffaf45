"""Draws docs/figures/quickstart.png: the quickstart's accuracy under attack, and V1's filters.

sh quickstart.sh
python docs/examples/quickstart_figure.py
"""

from pathlib import Path

import matplotlib
import numpy as np

from vone_jax import results, training

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import PercentFormatter

ROOT = Path(__file__).parents[2]
RUNS = ROOT / "runs" / "quickstart"
FIGURE = ROOT / "docs" / "figures" / "quickstart.png"
LINES = {
    "resnet18": ("ResNet-18", "tab:orange", "o--"),
    "vone_resnet18": ("VOneResNet-18", "tab:blue", "s-"),
}
FILTERS = 20


def main() -> None:
    """Draw both runs, with the 95 % intervals over images, below filters from coarse to fine."""
    figure, (top, axis) = plt.subplots(
        2, 1, figsize=(7.6, 5.4), layout="constrained", height_ratios=[1, 9]
    )
    block = training.load_config("quickstart/vone_resnet18", ROOT / "configs").model.v1
    assert block is not None
    kernels, order = block.gabor_kernels().in_phase, np.argsort(block.gabor_parameters().sf)
    chosen = kernels[order[np.linspace(0, len(order) - 1, FILTERS).astype(int)]]
    chosen = chosen / np.abs(chosen).max(axis=(1, 2), keepdims=True)
    top.imshow(np.concatenate([*chosen], axis=1), cmap="gray", vmin=-1, vmax=1)
    top.axis("off")

    for run, (label, colour, style) in LINES.items():
        (loaded,) = results.load(RUNS / run)
        attacks = {each.row["eps"]: each for each in loaded.of("attack")}
        measured = [*loaded.of("clean"), *(attacks[eps] for eps in sorted(attacks))]
        numbers = [each.find("accuracy") or {} for each in measured]
        accuracies, low, high = ([row[end] for row in numbers] for end in ("value", "low", "high"))
        places = range(len(measured))
        axis.fill_between(places, low, high, color=colour, alpha=0.2, linewidth=0)
        axis.plot(places, accuracies, style, color=colour, label=label)
    axis.axhline(0.1, color="gray", linestyle=":")
    axis.set_xticks(range(5), ["clean", "1/1020", "1/255", "4/255", "16/255"])
    axis.set(xlabel="L-infinity radius of the attack", ylabel="accuracy", ylim=(0, 1))
    axis.yaxis.set_major_formatter(PercentFormatter(1.0))
    axis.grid(axis="y", alpha=0.4)
    axis.legend(frameon=False)
    figure.savefig(FIGURE, dpi=100, metadata={"Software": None})


if __name__ == "__main__":
    main()
