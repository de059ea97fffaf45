"""The pages of results have the numbers of the frames beside them, and each has a command."""

import csv
import json
import re
import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vone_jax import sweep

DOCS = Path(__file__).parents[2] / "docs"
CONFIGS = DOCS.parent / "configs"
SWEEPS = [
    f"{path.parent.name}/{path.stem}"
    for kind in ("laboratory", "drawings")
    for path in sorted((CONFIGS / kind).glob("*.py"))
    if "\nsweep = " in path.read_text()
]
TABLES = runpy.run_path(str(DOCS / "examples" / "results_tables.py"))


def test_every_table_is_written_from_the_frames():
    pages = TABLES["read"]()
    assert TABLES["write"](pages) == pages


def test_what_is_certified_is_never_above_what_an_attack_leaves():
    frame = TABLES["FRAMES"]["certified"][["network", "result", "number", "value"]]
    of = {(network, number): value for network, _, number, value in frame.itertuples(index=False)}
    compared = 0
    for (network, number), certified in of.items():
        if number.startswith("certified accuracy at"):
            attacked = of[network, number.replace("certified accuracy", "accuracy under APGD")]
            assert certified <= attacked, (network, number)
            compared += 1
    assert compared >= 39 * 3


def test_every_number_has_a_command_and_a_network_that_a_sweep_has():
    known = {label for name in SWEEPS for label in sweep.load_sweep(name, CONFIGS).members}
    for name, frame in TABLES["FRAMES"].items():
        assert (frame["schema"] == 1).all() and "checksum" in frame, name
        assert frame[["version", "command"]].notna().all(axis=None), name
        # Banks alone are no networks, and those of truth are of the answer key.
        if name != "truth" and "network" in frame:
            # Means over seeds have the labels of all, and notes stand in brackets.
            labels = frame["network"].str.replace(r" \(.*\)", "", regex=True)
            assert set(" ".join(labels.unique()).split()) <= known, name


def test_numbers_of_several_seeds_are_their_means():
    compared = 0
    for rows in TABLES["SETS"].values():
        for (network, result, number), row in rows.items():
            if " " in network:
                each = [rows[label, result, number].value for label in network.split()]
                assert row.value == pytest.approx(np.mean(each), abs=1e-5)
                compared += 1
    assert compared >= 16


def test_the_differences_in_the_text_are_those_of_the_frame():
    text = " ".join("\n".join(TABLES["read"]().values()).split())
    frame = pd.read_csv(DOCS / "results" / "differences.csv", keep_default_na=False)
    quoted = frame[frame["quoted"] != ""]
    assert len(quoted) > 50
    for row in quoted.itertuples():
        assert row.quoted in text
        written = [abs(float(each)) for each in re.findall(r"\d*\.\d+", row.quoted)]
        expected = sorted(abs(float(each)) for each in (row.low, row.high))
        assert written[0] == pytest.approx(abs(float(row.value)), abs=0.0501)
        assert sorted(written[1:]) == pytest.approx(expected, abs=0.0501)


def test_the_v1_match_is_that_of_its_tutorial(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = names_of_tutorial("v1_match")
    rows = names["correlations"].round(2).to_dict("records")
    page = (DOCS / "results" / "layers.md").read_text(encoding="utf-8")
    section = page.partition("## V1 match")[2]
    section = " ".join(section.partition("##")[0].split())
    assert len(names["table"]) == 22 and names["chart"].to_dict()["layer"]
    for number, row in enumerate(rows[:3]):
        value, low, high = (f"{row[n]:.2f}".replace("0.", ".") for n in ("value", "low", "high"))
        between = "95 % bootstrap interval over networks " if number == 0 else ""
        assert f"{value} ({between}{low} to {high})" in section
    alone = names["pearson"](names["rest"]["V1 match"], names["rest"]["weak attacks"])
    assert f"it is {alone:.2f} at".replace("0.", ".") in section


def names_of_tutorial(name):
    """Run the code of a tutorial, without its installation, and return all names after it."""
    cells = json.loads((DOCS / "tutorials" / f"{name}.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    names: dict = {}
    exec(compile("\n".join(code[1:]), name, "exec"), names)
    return names


@pytest.mark.parametrize("name", ["front_ends", "diet", "laws"])
def test_the_frame_of_a_sweep_has_every_network_with_a_checksum_of_its_own(name):
    frame = TABLES["FRAMES"][name]
    assert set(frame["command"]) == {f"python sweep.py laboratory/{name}"}
    assert set(frame["network"]) == {*sweep.load_sweep(f"laboratory/{name}", CONFIGS).members}
    pairs = frame[["network", "checksum"]].drop_duplicates()
    assert pairs["network"].is_unique and pairs["checksum"].is_unique


def test_the_table_of_learned_constants_is_that_of_its_file():
    laws = runpy.run_path(str(DOCS / "examples" / "laws.py"))
    with (DOCS / "results" / "fitted_laws.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 * 5 * 7
    assert laws["table"](rows) in (DOCS / "laws.md").read_text()


def test_the_numbers_of_the_quickstart_stand_on_one_page():
    """The README quotes the table of docs/start.md, and nobody else has numbers of it."""
    page = (DOCS / "start.md").read_text()
    base, vone = (
        re.search(rf"^\| {name} \| (\d+) .*\| (\d+) \([^|]*\) \| \d+ \|$", page, re.M).groups()
        for name in ("ResNet-18", "VOneResNet-18")
    )
    claim = f"{vone[1]} % against {base[1]} %; clean {vone[0]} % and {base[0]} %"
    assert claim in (DOCS.parent / "README.md").read_text()
    for path in (DOCS.parent / "configs" / "quickstart").glob("*.py"):
        assert not re.search(r"\d %", path.read_text()), path
