"""Draws docs/figures/d_prime.png: accuracy under attack against the radius in d'.

    python docs/examples/d_prime_figure.py

Reads docs/results/d_prime.csv. A clean image has a d' of 0; its accuracy is that of all test
images, and the others are of the few images that were attacked, with 95 % intervals.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

DOCS = Path(__file__).parents[1]
FIGURE = DOCS / "figures" / "d_prime.png"
LABELS = {
    "base-clean-0": "base",
    "base-noise-0": "base, noise on images",
    "vone-clean-0": "VOneNet",
    "vone-gaussian-0": "VOneNet, noise of the observer",
    "base-pgd-0.1-0": "base, PGD",
    "vone-pgd-0.1-0": "VOneNet, PGD",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=FIGURE)
    out = parser.parse_args().out
    frame = pd.read_csv(DOCS / "results" / "d_prime.csv")
    shown = [label for label in LABELS if label in set(frame["network"])]
    figure, panel = plt.subplots(figsize=(8, 4))
    for number, label in enumerate(shown):
        part = frame[frame["network"] == label].fillna({"eps": 0.0}).sort_values("eps")
        # Attacked points of one radius stand side by side.
        beside = 0.12 * (number - (len(shown) - 1) / 2)
        found, floor = (part[part["number"] == name] for name in ("accuracy", "certified accuracy"))
        radii = found["eps"] + np.where(found["eps"] > 0, beside, 0.0)
        panel.plot(radii, 100 * found["value"], "o-", color=f"C{number}", ms=4, label=LABELS[label])
        panel.vlines(
            radii, 100 * found["low"], 100 * found["high"], color=f"C{number}", lw=1, alpha=0.6
        )
        if len(floor):
            panel.plot(
                floor["eps"] + beside, 100 * floor["value"], "v", color=f"C{number}", ms=7, mfc="w",
                label="the same, certified: no attack goes below",
            )  # fmt: skip
    panel.set(xlabel="radius in d' of the observer", ylabel="accuracy (%)", ylim=(-3, 100))
    panel.set_xticks([0, 2, 4, 6, 8])
    panel.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    figure.tight_layout()
    figure.savefig(out, dpi=150)


if __name__ == "__main__":
    main()
