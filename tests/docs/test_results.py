"""Numbers of docs/results.md are those of the frames beside it, and each has a command."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

DOCS = Path(__file__).parents[2] / "docs"
SETS = {
    name: pd.read_csv(DOCS / "results" / f"{name}.csv")
    for name in (
        "first",
        "second",
        "third",
        "fourth",
        "fifth",
        "certified",
        "perception",
        "adversarial",
        "drawings",
    )
}
VALUES = {
    name: {(row.network, row.result, row.number): row.value for row in frame.itertuples()}
    for name, frame in SETS.items()
}
RADII = {"1/1020": "0.0009804", "1/255": "0.003922", "4/255": "0.01569", "16/255": "0.06275"}
# ImageNet-C (Hendrycks & Dietterich 2019).
CATEGORIES = {
    "noise": ["gaussian_noise", "shot_noise", "impulse_noise"],
    "blur": ["defocus_blur", "glass_blur", "motion_blur", "zoom_blur"],
    "weather": ["snow", "frost_procedural", "fog", "brightness"],
    "digital": ["contrast", "elastic_transform", "pixelate", "jpeg_compression"],
}
CATEGORIES["mean of the 15"] = [name for members in CATEGORIES.values() for name in members]
# Heading of a table of accuracies, first cells of its rows -> set, and its networks in order. A
# network without a seed is the mean over three.
TABLES = {
    ("Other ways of training", "network", "clean"): (
        "second",
        "base-0 vone-0 base-stem-noise base-gaussian base-adversarial-2 base-adversarial-8 "
        "base-pgd-8 vone-adversarial-8",
    ),
    ("Similarity regularisation", "network", "clean"): (
        "second", "base-0 base-similar-v1 base-similar-pixels base-similar-shuffled",
    ),
    ("Which parts of V1 matter", "network", "clean"): (
        "second", "vone-0 vone-gain-5 vone-gain-45 base-0",
    ),
    ("Which parts of V1 matter", "network", "response"): (
        "fourth",
        "vone vone-uniform vone-low vone-mid vone-high vone-simple vone-complex "
        "vone-complex-gain-7.5 vone-noise-2 vone-noise-0.5 vone-quiet",
    ),
    ("Front ends", "network", "noise"): (
        "fourth",
        "base vone vone-quiet vone-surround vone-surround-quiet ev ev-surround "
        "vone-oriented-pools vone-gdn vone-neighbours vone-uniform vone-tuned vone-tuned-uniform",
    ),
    ("A surround", "network", "clean"): ("fifth", "vone vone-surround"),
}  # fmt: skip

# First cell of a row of the table of drawings -> its result.
DRAWINGS = {
    "new things": "clean-new_things",
    "known things in a new style": "clean-new_style",
    "new things in a new style": "clean-new_things_new_style",
    "training drawings": "clean-train",
    "grey": "recoloured-grey",
    "hue turned by 60": "recoloured-hue-60",
    "hue turned by 180": "recoloured-hue-180",
    "red and blue exchanged": "recoloured-channels",
    "nine corruptions, severity 3": "corruptions-quick",
    "gaussian noise": "corruption-gaussian-noise-severity-3",
    "defocus blur": "corruption-defocus-blur-severity-3",
    "contrast": "corruption-contrast-severity-3",
    "brightness": "corruption-brightness-severity-3",
    "L-infinity 1/255": "attack-strongest-of-pgd-apgd-linf-0.003922",
    "L-infinity 4/255": "attack-strongest-of-pgd-apgd-linf-0.01569",
    "L-infinity 16/255": "attack-strongest-of-pgd-apgd-linf-0.06275",
}


def measure(of, network, column):
    """The accuracy of a column of a table for one network of a set, in percent."""
    if column == "clean" or column in RADII:
        result = "clean" if column == "clean" else f"attack-linf-{RADII[column]}"
        return 100 * VALUES[of][network, result, "accuracy"]
    results = [f"corruption-{name}-{i}" for name in CATEGORIES[column] for i in range(1, 6)]
    return 100 * np.mean([VALUES[of][network, result, "accuracy"] for result in results])


def seeds(of, stem):
    """The labels of a network with seeds 0, 1 and 2, or of one with a seed alone."""
    known = {network for network, _, _ in VALUES[of]}
    first = stem if stem in known else f"{stem}-0"
    return [each for each in (first, f"{stem}-1", f"{stem}-2") if each in known]


def table(heading, *first):
    """The rows of the table under a heading whose header begins so, as dictionaries."""
    lines = (DOCS / "results.md").read_text(encoding="utf-8").splitlines()
    lines = lines[next(i for i, line in enumerate(lines) if line.strip("# ") == heading) :]
    lines = lines[next(i for i, x in enumerate(lines) if x.startswith(f"| {' | '.join(first)}")) :]
    rows = [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in lines]
    end = next(i for i, line in enumerate(lines) if not line.startswith("|"))
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:end]]


def check(cell, expected):
    """Check that a cell holds these numbers, each to its last digit."""
    written = re.findall(r"-?\d*\.\d+|-?\d+", cell)
    assert len(written) == len(expected), (cell, expected)
    for text, value in zip(written, expected, strict=True):
        digits = len(text.partition(".")[2])
        # A value that lies between two roundings may be written as either.
        assert abs(float(text) - value) <= 0.5 * 10**-digits + 1e-6, (cell, expected)


@pytest.mark.parametrize("key", TABLES, ids=lambda key: f"{key[0]}, {key[-1]}")
def test_accuracies_are_those_of_the_frame(key):
    of, networks = TABLES[key]
    for row, stem in zip(table(*key), networks.split(), strict=True):
        for column, cell in list(row.items())[1:]:
            if column == "response":
                continue
            values = [measure(of, label, column) for label in seeds(of, stem)]
            spread = [np.std(values, ddof=1)] if "±" in cell else []
            check(cell, [np.mean(values), *spread])


ADVERSARIAL = {
    "base": "base-clean-0", "VOneNet": "vone-clean-0",
    "base, PGD": "base-pgd-0.1-0", "VOneNet, PGD": "vone-pgd-0.1-0",
    "base, TRADES": "base-trades-0.1-0", "VOneNet, TRADES": "vone-trades-0.1-0",
}  # fmt: skip


def test_the_tables_of_adversarial_training():
    frame = SETS["adversarial"]
    frame = frame[frame["number"] == "accuracy"].set_index(["network", "result"])

    def numbers(label, column, interval):
        radius = {**RADII, "8/255": "0.03137", "0.1": "0.1"}.get(column)
        result = f"attack-strongest-of-pgd-apgd-linf-{radius}" if radius else "validation"
        row = frame.loc[label, result]
        return [100 * row[name] for name in ("value", "low", "high")[: 3 if interval else 1]]

    heading = "Does V1 add to adversarial training?"
    for row in table(heading, "network", "clean"):
        label = ADVERSARIAL[row.pop("network")]
        for column, cell in row.items():
            if cell == "not run":
                continue
            if column == "mean of the 15":
                check(cell, [measure("adversarial", label, column)])
            else:
                check(cell, numbers(label, column, "to" in cell))


def test_the_table_of_drawings_is_that_of_the_frames():
    frame = SETS["drawings"].set_index(["network", "result"])
    between = pd.read_csv(DOCS / "results" / "differences.csv").query("set == 'drawings'")
    between = between.set_index("number")[["value", "low", "high"]]
    rows = table("What one seed shows", "measure")
    assert [row["measure"] for row in rows] == list(DRAWINGS)
    for row in rows:
        result = DRAWINGS[row["measure"]]
        for column, network in (("base", "base-0"), ("VOneNet", "vone-0")):
            if row[column] == "not run":
                assert (network, result) not in frame.index
                continue
            found = frame.loc[(network, result)]
            check(row[column], [100 * found[name] for name in ("value", "low", "high")])
            check(row["images"], [found["images"]])
        check(row["difference"], between.loc[result] if result in between.index else [])


def test_what_is_certified_is_never_above_what_an_attack_leaves():
    frame = SETS["certified"][["network", "result", "number", "value"]]
    of = {(network, number): value for network, _, number, value in frame.itertuples(index=False)}
    compared = 0
    for (network, number), certified in of.items():
        if number.startswith("certified accuracy at"):
            attacked = of[network, number.replace("certified accuracy", "accuracy under APGD")]
            assert certified <= attacked, (network, number)
            compared += 1
    assert compared >= 39 * 3


def test_every_number_has_a_command_that_made_it():
    provenance = pd.read_csv(DOCS / "results" / "provenance.csv")
    made = set(zip(provenance["set"], provenance["network"], strict=True))
    for name, frame in SETS.items():
        assert {(name, network) for network in frame["network"]} <= made


def test_the_differences_in_the_text_are_those_of_the_frame():
    text = " ".join((DOCS / "results.md").read_text(encoding="utf-8").split())
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
    section = (DOCS / "results.md").read_text(encoding="utf-8").partition("## V1 match")[2]
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
