"""Stores the results of a sweep as a frame, and makes the tables of pages from stored frames.

    python docs/examples/sweep_tables.py --store front_ends runs/laboratory
    python docs/examples/sweep_tables.py

The first line writes docs/results/front_ends.csv from the runs of laboratory/front_ends: the
columns of ``results.load(...).to_frame()`` that a table needs, the checksum of the network, and the
version of the project. The second writes every table that stands between the lines ``<!-- frame
NAME -->`` and ``<!-- end -->`` of a page. A frame has one file, and a table is one entry of TABLES.
"""

import argparse
import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vone_jax import __version__, results, sweep

DOCS = Path(__file__).parents[1]
SCHEMA = 1
COLUMNS = ("label", "condition", "eps", "corruption", "severity", "tag", "number", "value",
           "examples", "draws", "network.checksum")  # fmt: skip


def store(name: str, runs: Path) -> Path:
    """Write the frame of a sweep of the laboratory, without the networks that have no results."""
    members = sweep.load_sweep(f"laboratory/{name}", DOCS.parent / "configs").members
    found = []
    for label in members:
        if not (runs / label / "results").is_dir():
            continue
        frame = results.load(runs / label).to_frame()
        frame = frame[frame["number"] == "accuracy"].reindex(columns=list(COLUMNS))
        frame = frame.rename(columns={"network.checksum": "checksum"})
        found.append(frame.assign(network=label))
    frame = pd.concat(found)
    frame["schema"], frame["version"] = SCHEMA, __version__
    frame["command"] = f"python sweep.py laboratory/{name}"
    path = DOCS / "results" / f"{name}.csv"
    frame.to_csv(path, index=False, float_format="%.6g")
    return path


@functools.cache
def read(name: str) -> pd.DataFrame:
    """Read the frame of a sweep. The kind of a network is its label without the seed."""
    frame = pd.read_csv(DOCS / "results" / f"{name}.csv")
    kind = frame["network"].str.replace(r"-\d+$", "", regex=True)
    return frame.assign(kind=kind)


def over_seeds(frame: pd.DataFrame, percent: bool = True) -> str:
    """The mean over conditions of each network, then the mean and deviation over three or more."""
    each = frame.groupby("network")["value"].mean() * (100 if percent else 1)
    if len(each) < 3:
        return "-"
    return f"{each.mean():.1f} ± {each.std():.1f}"


def attack(eps: int, tag: str = "expected") -> Callable[[pd.DataFrame], Any]:
    """Accuracy under the attack of a tag at a radius of eps / 255."""
    return lambda frame: frame[
        (frame["condition"] == "attack")
        & (frame["tag"] == tag)
        & np.isclose(frame["eps"], eps / 255)
        & (frame["number"] == "accuracy")
    ]


def of(condition: str, number: str = "accuracy") -> Callable[[pd.DataFrame], Any]:
    """A number of all conditions of a kind."""
    return lambda frame: frame[(frame["condition"] == condition) & (frame["number"] == number)]


RADII = {f"{eps}/255": attack(eps) for eps in (1, 4, 8, 16)}
ALL = {"clean": of("clean")} | RADII | {"corruptions": of("corruption")}
# Name of a table -> its frame, the kinds of networks in its rows, and its columns.
TABLES: dict[str, tuple[str, dict[str, str], dict[str, Callable]]] = {
    "front_ends": (
        "front_ends",
        {
            "base": "base network",
            "vone": "VOneNet",
            "push-pull": "push-pull, trained",
            "push-pull-v1": "push-pull over V1's bank",
            "no-pull-v1": "the same bank, no pull",
            "r-blur": "R-Blur",
        },
        ALL,
    ),
    "plain attack": (
        "front_ends",
        {"r-blur": "R-Blur"},
        {f"{eps}/255": attack(eps, "plain") for eps in (1, 4, 8, 16)},
    ),
    "diet": (
        "diet",
        {
            "base": "base network, adult",
            "base-diet-true": "base network, true order",
            "base-diet-shuffled": "base network, shuffled",
            "vone": "VOneNet, adult",
            "vone-diet-true": "VOneNet, true order",
            "vone-diet-shuffled": "VOneNet, shuffled",
        },
        ALL | {"phase noise": of("psychophysics")},
    ),
    "laws": (
        "laws",
        {"vone": "no surround", "vone-surround": "set before", "vone-laws": "learned"},
        ALL,
    ),
}


def table(name: str) -> str:
    """The lines of a table."""
    source, rows, columns = TABLES[name]
    frame = read(source)
    lines = ["| network | " + " | ".join(columns) + " |", "| --- |" + " ---: |" * len(columns)]
    for kind, title in rows.items():
        mine = frame[frame["kind"] == kind]
        cells = [over_seeds(pick(mine)) for pick in columns.values()]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def write(page: str) -> str:
    """A page with its tables made again."""
    pattern = re.compile(r"(<!-- frame (.+?) -->\n\n).*?(\n<!-- end -->)", re.DOTALL)
    return pattern.sub(lambda found: found[1] + table(found[2]) + found[3], page)


def main() -> None:
    """Store a frame, or write the tables of all pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", nargs=2, metavar=("SWEEP", "RUNS"))
    if stored := parser.parse_args().store:
        print(store(stored[0], Path(stored[1])))
    for path in DOCS.glob("*.md"):
        path.write_text(write(path.read_text()))


if __name__ == "__main__":
    main()
