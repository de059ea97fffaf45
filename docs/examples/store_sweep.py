"""Stores the accuracies of a sweep of the laboratory as a frame in docs/results.

    python docs/examples/store_sweep.py laws runs/laboratory clean attack corruption

The last words are the conditions of the sweep: its networks may have results of other sweeps. The
frame has columns of ``results.load(...).to_frame()``, the checksum of each network, the version of
the project and the command. ``results_tables.py`` makes the tables.
"""

import sys
from pathlib import Path

import pandas as pd

from vone_jax import __version__, results, sweep

DOCS = Path(__file__).parents[1]
COLUMNS = ["label", "condition", "eps", "corruption", "severity", "tag", "number", "value",
           "examples", "draws", "network.checksum"]  # fmt: skip


def main(name: str, runs: Path, conditions: list[str]) -> None:
    """Write the frame of a sweep."""
    found = []
    for label in sweep.load_sweep(f"laboratory/{name}", DOCS.parent / "configs").members:
        frame = results.load(runs / label).to_frame()
        mine = (frame["number"] == "accuracy") & frame["condition"].isin(conditions)
        found.append(frame[mine].reindex(columns=COLUMNS).assign(network=label))
    frame = pd.concat(found).rename(columns={"network.checksum": "checksum"})
    about = {"schema": 1, "version": __version__, "command": f"python sweep.py laboratory/{name}"}
    path = DOCS / "results" / f"{name}.csv"
    frame.assign(**about).to_csv(path, index=False, float_format="%.6g")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
