"""Makes docs/results/gain_control.csv: the certificate of each image at three contrasts.

    python docs/examples/gain_control_radii.py runs/laboratory/vone-gaussian-2 ...

The runs are those of the sweep laboratory/gain_control. What the file has already is not measured
again.
"""

import argparse
from pathlib import Path

import jax
import numpy as np
import pandas as pd

from vone_jax import certification, data, open_network, prng

TABLE = Path(__file__).parents[1] / "results" / "gain_control.csv"
CONTRASTS = (1.0, 0.5, 0.25)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=TABLE)
    given = parser.parse_args()
    source = data.load("tfds:fashion_mnist", "test")
    examples = [source[i] for i in range(given.examples)]
    images = np.stack([each["image"] for each in examples]) / np.float32(255)
    labels = np.array([each["label"] for each in examples])
    frames = [pd.read_csv(given.out)] if given.out.exists() else []
    done = {(row.network, row.contrast) for frame in frames for row in frame.itertuples()}
    for run in given.runs:
        network = open_network(run)
        classifier = certification.from_model(network.model, network.variables)
        for contrast in CONTRASTS:
            if (run.name, contrast) in done:
                continue
            faint = np.float32(0.5) + np.float32(contrast) * (images - np.float32(0.5))
            keys = prng.index_keys(jax.random.key(0), np.arange(len(faint)))
            found = certification.certify(keys, classifier, faint, draws=given.draws)
            frames.append(
                pd.DataFrame(
                    {
                        "network": run.name,
                        "contrast": contrast,
                        "image": np.arange(len(faint)),
                        "right": found.certified(labels, 0.0).astype(int),
                        "votes": found.votes,
                        "radius": found.l2.round(5),
                    }
                )
            )
            pd.concat(frames).to_csv(given.out, index=False)


if __name__ == "__main__":
    main()
