"""Draws docs/figures/gain_control.png: certified accuracy against radius, at three contrasts.

    python docs/examples/gain_control_figure.py

Reads docs/results/gain_control.csv, which has the certificate of each image: whether the vote was
right with a majority, and its certified L2 radius.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

DOCS = Path(__file__).parents[1]
FIGURE = DOCS / "figures" / "gain_control.png"
LABELS = {
    "vone-gaussian-2": "no gain control",
    "vone-gain-control-0.25": "semisaturation .25",
    "vone-gain-control-0.5": "semisaturation .5",
    "vone-gain-control-1": "semisaturation 1",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=FIGURE)
    out = parser.parse_args().out
    frame = pd.read_csv(DOCS / "results" / "gain_control.csv")
    contrasts = sorted(frame["contrast"].unique(), reverse=True)
    figure, panels = plt.subplots(1, len(contrasts), figsize=(9, 3), sharey=True)
    for panel, contrast in zip(panels, contrasts, strict=True):
        for number, (label, name) in enumerate(LABELS.items()):
            part = frame[(frame["network"] == label) & (frame["contrast"] == contrast)]
            if part.empty:
                continue
            radii = np.where(part["right"], part["radius"], 0.0)
            grid = np.linspace(0.0, 0.25, 251)
            certified = 100 * (radii[:, None] > grid).mean(axis=0)
            panel.plot(grid, certified, color=f"C{number}", label=name)
        panel.set(title=f"contrast {contrast:g}", xlabel="L2 radius")
    panels[0].set(ylabel="certified accuracy (%)", ylim=(0, 100))
    panels[0].legend(fontsize=8, frameon=False)
    figure.tight_layout()
    figure.savefig(out, dpi=150)


if __name__ == "__main__":
    main()
