"""Makes docs/results/gain_control.csv: the certificate of each image at three contrasts.

    python docs/examples/gain_control_radii.py runs/laboratory/vone-gaussian-2 ...

Reads the results of the sweep laboratory/gain_control: certificates, and votes under APGD.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

TABLE = Path(__file__).parents[1] / "results" / "gain_control.csv"


def read(runs: Sequence[Path]) -> pd.DataFrame:
    frames = []
    for path in [file for run in runs for file in sorted(run.glob("results/certified*.json"))]:
        result = json.loads(path.read_text())
        identity, made = result["identity"], result["provenance"]
        condition, arrays = identity["condition"], np.load(path.with_suffix(".npz"))
        attacked = dict(zip(condition["radii"], arrays["right under attack"].T, strict=True))
        columns = {
            "network": identity["network"]["name"],
            "contrast": condition["contrast"],
            "image": arrays["index"],
            "right": arrays["right"][:, 0].astype(int),
            "votes": arrays["votes"],
            "radius": arrays["radius"].round(5),
            **{f"right at {radius:g}": right.astype(int) for radius, right in attacked.items()},
            "schema": 1,
            "version": made["versions"]["vone_jax"],
            "command": made["command"],
            "checksum": identity["network"]["checksum"],
        }
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames).sort_values(["network", "contrast", "image"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=TABLE)
    given = parser.parse_args()
    read(given.runs).to_csv(given.out, index=False)
