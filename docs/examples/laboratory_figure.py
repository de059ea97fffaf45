"""Draws docs/figures/laboratory.png: every network of the laboratory at a glance.

    python docs/examples/laboratory_figure.py

Reads tables in docs/results: clean accuracy, accuracy under the strongest L-infinity attack,
and the mean of the 15 corruptions, with their 95 % intervals over images. Networks are compared as
they were trained: their own noise, or none, at the attack and in the judgement.
"""

import argparse
import csv
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

DOCS = Path(__file__).parents[1]
RESULTS = DOCS / "results"
# Of a network in several, the last is taken.
SWEEPS = (
    "variants", "components", "training", "similarity", "front_ends", "bands_and_cells",
)  # fmt: skip
FIGURE = DOCS / "figures" / "laboratory.png"

PANELS = {
    "clean": "clean",
    "linf_16/255": "L-infinity PGD, 16/255",
    "corruptions": "mean of 15 corruptions",
}

# Networks under the question that they answer, by label: what the figure calls them.
GROUPS = {
    "reference": {"base-0": "base", "vone-0": "VOneNet"},
    "components": {
        "vone-uniform": "uniform distributions",
        "vone-low": "low frequencies",
        "vone-mid": "middle frequencies",
        "vone-high": "high frequencies",
        "vone-simple": "simple cells only",
        "vone-complex": "complex cells only",
        "vone-gain-5": "a third of the gain",
        "vone-gain-45": "three times the gain",
        "vone-quiet": "no noise",
        "vone-noise-0.5": "half the noise",
        "vone-noise-2": "twice the noise",
    },
    "front ends": {
        "vone-surround-0": "a normalising surround",
        "vone-surround-quiet-0": "a surround, no noise",
        "ev-0": "EVNet",
        "ev-surround-0": "EVNet with a surround",
        "vone-gdn": "GDN behind V1",
        "vone-neighbours": "neighbours normalise",
        "vone-tuned": "bank tuned from the published one",
        "vone-tuned-uniform": "bank tuned from the uniform one",
    },
    "training": {
        "base-stem-noise": "base, noise behind its stem",
        "base-gaussian": "base, Gaussian noise on images",
        "base-adversarial-2": "base, adversarial 2/255, one step",
        "base-adversarial-8": "base, adversarial 8/255, one step",
        "base-pgd-8": "base, adversarial 8/255, five steps",
        "vone-adversarial-8": "VOneNet, adversarial 8/255",
    },
    "ensembles": {
        "vone-0+vone-low+vone-mid+vone-high+vone-simple+vone-complex+vone-quiet+vone-noise-0.5": (
            "eight V1 variants"
        ),
        "vone-0+vone-1+vone-2": "three seeds of the VOneNet",
        "vone-distilled": "distilled from the eight",
    },
    "similarity": {
        "base-similar-v1": "base, similar to V1",
        "base-similar-pixels": "base, similar to pixels",
        "base-similar-shuffled": "base, similar to shuffled V1",
    },
}
COLOURS = ("tab:blue", "tab:green", "tab:red", "tab:orange", "tab:brown", "tab:purple")


def scores() -> dict[str, dict[str, str]]:
    """By label of the network, its line as it was trained."""
    found = {}
    for sweep in SWEEPS:
        with (RESULTS / sweep / "scores.csv").open(newline="") as file:
            for line in csv.DictReader(file):
                label = line["network"].rpartition("(")[2].rstrip(")")
                usual = line["attack"].startswith("PGD, 64 steps of eps/32")
                if line["trained"] == line["attacked"] == line["judged"] and usual:
                    found[label] = line
    return found


def draw(path: Path) -> None:
    """One row per network, one panel per measure.

    Raises:
      KeyError: if a network or a measure is in no table.
    """
    lines = scores()
    figure, axes = plt.subplots(1, len(PANELS), figsize=(11, 10), sharey=True)
    rows, names = 0, []
    for colour, members in zip(COLOURS, GROUPS.values(), strict=True):
        for label, name in members.items():
            for axis, column in zip(axes, PANELS, strict=True):
                ends = (column, f"{column}_low", f"{column}_high")
                value, low, high = (100 * float(lines[label][end]) for end in ends)
                axis.plot([low, high], [rows, rows], color=colour, linewidth=1.5)
                axis.plot(value, rows, "o", color=colour)
            rows, names = rows + 1, [*names, name]
        rows, names = rows + 1, [*names, ""]
    for axis, (column, title) in zip(axes, PANELS.items(), strict=True):
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("accuracy, %")
        for label in GROUPS["reference"]:
            axis.axvline(100 * float(lines[label][column]), color="0.8", linewidth=1, zorder=0)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(axis="y", length=0)
    axes[0].set_yticks([row for row, name in enumerate(names) if name], filter(None, names))
    axes[0].invert_yaxis()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=FIGURE)
    draw(parser.parse_args().out)
