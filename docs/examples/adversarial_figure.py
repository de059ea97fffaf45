"""Draws docs/figures/adversarial.png: accuracy under attack against clean accuracy.

    python docs/examples/adversarial_figure.py

Reads docs/results/adversarial.csv. A point is the mean over the seeds of a network, and its bar the
mean of their 95 % intervals over images. With several seeds, each has a small point.
"""

import argparse
import itertools
import re
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.lines import Line2D

DOCS = Path(__file__).parents[1]
FIGURE = DOCS / "figures" / "adversarial.png"
RADII = {"8/255": "0.03137", "16/255": "0.06275", "0.1": "0.1"}
# Network -> its name and colour, and training -> its name and marker.
NETWORKS = {
    "base": ("base", "C7"),
    "vone-quiet": ("V1 without noise", "C1"),
    "vone": ("VOneNet", "C0"),
}
TRAININGS = {
    "clean": ("clean images", "o"),
    "noise": ("Gaussian noise", "P"),
    "fast-0.1": ("Fast", "v"),
    "pgd-0.1": ("PGD", "s"),
    "trades-0.1": ("TRADES", "^"),
    "trades-awp-0.1": ("TRADES with AWP", "D"),
    "pgd-8of255": ("PGD, 8/255", "<"),
    "trades-8of255": ("TRADES, 8/255", ">"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=FIGURE)
    out = parser.parse_args().out
    frame = pd.read_csv(DOCS / "results" / "adversarial.csv").query("number == 'accuracy'")
    rows = 100 * frame.set_index(["result", "network"])[["value", "low", "high"]]
    figure, panels = plt.subplots(1, len(RADII), figsize=(10, 4.5), sharey=True)
    for panel, (radius, eps) in zip(panels, RADII.items(), strict=True):
        attacked = rows.loc[f"attack-strongest-of-pgd-apgd-linf-{eps}"]
        clean = rows.loc["clean", "value"]
        for network, training in itertools.product(NETWORKS, TRAININGS):
            label = re.compile(rf"{re.escape(f'{network}-{training}')}-\d")
            seeds = [each for each in attacked.index if label.fullmatch(each)]
            if not seeds:
                continue
            colour, marker = NETWORKS[network][1], TRAININGS[training][1]
            mean = attacked.loc[seeds].mean()
            bar = [[mean["value"] - mean["low"]], [mean["high"] - mean["value"]]]
            panel.errorbar(
                clean[seeds].mean(), mean["value"], bar,
                color=colour, marker=marker, markersize=8, capsize=3, linestyle="none",
            )  # fmt: skip
            if len(seeds) > 1:
                points = clean[seeds], attacked.loc[seeds, "value"]
                panel.plot(*points, marker, color=colour, markersize=3)
        panel.set(title=f"L-infinity {radius}", xlabel="clean accuracy (%)")
    panels[0].set(ylabel="accuracy under the strongest attack (%)", ylim=(0, 100))
    figure.tight_layout(rect=(0, 0.12, 1, 1))
    kinds = [(name, colour, "o") for name, colour in NETWORKS.values()]
    kinds += [(name, "k", marker) for name, marker in TRAININGS.values()]
    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle="none", label=name)
        for name, colour, marker in kinds
    ]
    figure.legend(handles=handles, loc="lower center", ncols=6, fontsize=8, frameon=False)
    figure.savefig(out, dpi=150)


if __name__ == "__main__":
    main()
