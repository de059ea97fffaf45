"""Draws docs/figures/laboratory.png: every network of the laboratory at a glance.

    python docs/examples/laboratory_figure.py

Reads the frames in docs/results: clean accuracy and accuracy under the strongest L-infinity attack
with their 95 % intervals over images, and the mean of the 15 corruptions. Networks are compared as
they were trained: their own noise, or none, at the attack and in the judgement.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd

DOCS = Path(__file__).parents[1]
RESULTS = DOCS / "results"
# Of a network in several sets of runs, the last is taken.
SETS = ("second", "fourth")
FIGURE = DOCS / "figures" / "laboratory.png"

PANELS = {
    "clean": "clean",
    "attack-linf-0.06275": "L-infinity PGD, 16/255",
    "corruptions": "mean of 15 corruptions",
}
# The four extra corruptions of ImageNet-C are not in its mean.
EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")

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
        "ev-0": "EVNet",
        "vone-gdn": "GDN behind V1",
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
        "ensemble-variants": "eight V1 variants",
        "ensemble-seeds": "three seeds of the VOneNet",
        "vone-distilled": "distilled from the eight",
    },
    "similarity": {
        "base-similar-v1": "base, similar to V1",
        "base-similar-pixels": "base, similar to pixels",
        "base-similar-shuffled": "base, similar to shuffled V1",
    },
}
COLOURS = ("tab:blue", "tab:green", "tab:red", "tab:orange", "tab:brown", "tab:purple")


def scores() -> dict[str, dict[str, tuple[float, ...]]]:
    """For each network and panel: the value, and the ends of its interval if it has one."""
    found: dict[str, dict[str, tuple[float, ...]]] = {}
    for name in SETS:
        frame = pd.read_csv(RESULTS / f"{name}.csv")
        for network, rows in frame[frame["number"] == "accuracy"].groupby("network"):
            lines = found[str(network)] = {}
            for panel in list(PANELS)[:2]:
                line = rows[rows["result"] == panel].iloc[0]
                lines[panel] = (line["value"], line["low"], line["high"])
            corrupted = rows[(rows["kind"] == "corruption") & ~rows["corruption"].isin(EXTRA)]
            judged = corrupted[~corrupted["result"].str.contains("draws")]
            lines["corruptions"] = (judged["value"].mean(),)
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
                value, *interval = (100 * number for number in lines[label][column])
                axis.plot(interval, [rows] * len(interval), color=colour, linewidth=1.5)
                axis.plot(value, rows, "o", color=colour)
            rows, names = rows + 1, [*names, name]
        rows, names = rows + 1, [*names, ""]
    for axis, (column, title) in zip(axes, PANELS.items(), strict=True):
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("accuracy, %")
        for label in GROUPS["reference"]:
            axis.axvline(100 * lines[label][column][0], color="0.8", linewidth=1, zorder=0)
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
