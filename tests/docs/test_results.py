"""Every number in the tables of docs/results.md is computed again from the frames beside it."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

DOCS = Path(__file__).parents[2] / "docs"
SETS = {
    name: pd.read_csv(DOCS / "results" / f"{name}.csv")
    for name in ("first", "second", "third", "fourth", "fifth", "certified", "perception")
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
FIFTEEN = [name for members in CATEGORIES.values() for name in members]


def measure(of, network, column, suffix=""):
    """The number of a column of a table for one network of a set, in percent."""

    def read(result, number="accuracy"):
        return 100 * VALUES[of][network, result + suffix, number]

    def mean(names):
        return np.mean([read(f"corruption-{name}-{i}") for name in names for i in range(1, 6)])

    def mean_of_categories():
        return np.mean([mean(members) for members in CATEGORIES.values()])

    if column == "clean":
        return read("clean")
    if column in RADII:
        return read(f"attack-linf-{RADII[column]}")
    if column == "V1 score":
        return read("physiology-v1", "mean score") / 100
    if column.startswith("score: "):
        return read("physiology-v1", column) / 100
    if column == "mean of the 15":
        return mean(FIFTEEN)
    if column == "by category":
        return mean_of_categories()
    return mean(CATEGORIES.get(column, [column]))


def seeds(stem):
    """The labels of a network with seeds 0, 1 and 2."""
    plain = (VALUES["fourth"].keys() | VALUES["first"].keys()).isdisjoint(
        {(f"{stem}-0", "clean", "accuracy")}
    )
    return [stem if plain else f"{stem}-0", f"{stem}-1", f"{stem}-2"]


def tables():
    """The tables of the page: (last heading, header cells, rows of cells)."""
    found, heading = [], ""
    lines = (DOCS / "results.md").read_text(encoding="utf-8").splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("#"):
            heading = line.strip("# ")
        if line.startswith("|"):
            cells = [cell.strip(" *") for cell in line.strip("|").split("|")]
            if re.match(r"\| -", following):
                found.append((heading, cells, []))
            elif not re.match(r"\| -", line):
                found[-1][2].append(cells)
    return found


TABLES = tables()


def table(heading, *first):
    """The rows of the table under a heading whose header begins so, as dictionaries."""
    for where, header, rows in TABLES:
        if where == heading and header[: len(first)] == list(first):
            return [dict(zip(header, row, strict=True)) for row in rows]
    raise AssertionError(f"no table with {first} under {heading}")


def check(cell, expected):
    """Check that a cell holds these numbers, each to its last digit."""
    written = re.findall(r"-?\d*\.\d+|-?\d+", cell)
    assert len(written) == len(expected), (cell, expected)
    for text, value in zip(written, expected, strict=True):
        digits = len(text.partition(".")[2])
        # A value that lies between two roundings may be written as either.
        assert abs(float(text) - value) <= 0.5 * 10**-digits + 1e-6, (cell, expected)


def check_means(row, of, labels, skip=()):
    """Check a row of means over seeds; with a ± in a cell also the standard deviation."""
    for column, cell in list(row.items())[1:]:
        if column in skip or cell in ("", "-"):
            continue
        values = [measure(of, label, column) for label in labels]
        spread = [np.std(values, ddof=1)] if "±" in cell else []
        check(cell, [np.mean(values), *spread])


ONE_SEED = {
    "Other ways of training": {
        "base": "base-0",
        "VOneNet": "vone-0",
        "stem noise, no V1": "base-stem-noise",
        "base, Gaussian noise of 0.2 on the images": "base-gaussian",
        "base, adversarial training, 2/255, one step": "base-adversarial-2",
        "base, adversarial training, 8/255, one step": "base-adversarial-8",
        "base, adversarial training, 8/255, five steps": "base-pgd-8",
        "VOneNet, adversarial training, 8/255, one step": "vone-adversarial-8",
    },
    "Similarity regularisation": {
        "no regulariser": "base-0",
        "similarities of V1": "base-similar-v1",
        "of pixels": "base-similar-pixels",
        "of V1, shuffled (control)": "base-similar-shuffled",
    },
}
GAINS = {
    "VOneNet": "vone-0",
    "gain 5 (mean response 0.4)": "vone-gain-5",
    "gain 45 (mean response 3)": "vone-gain-45",
    "base network, no V1": "base-0",
}
COMPONENTS = {
    "VOneNet": "vone",
    "uniform distributions": "vone-uniform",
    "low frequencies, 0 to 2 cycles/degree": "vone-low",
    "middle, 2 to 5.6": "vone-mid",
    "high, 5.6 to 11.3": "vone-high",
    "simple cells only": "vone-simple",
    "complex cells only": "vone-complex",
    "complex cells, half the gain": "vone-complex-gain-7.5",
    "twice the noise": "vone-noise-2",
    "half the noise": "vone-noise-0.5",
    "no noise": "vone-quiet",
}
FRONT_ENDS = {
    "base": "base",
    "VOneNet": "vone",
    "VOneNet, no noise": "vone-quiet",
    "with the earlier surround": "vone-surround",
    "with the earlier surround, no noise": "vone-surround-quiet",
    "EVNet": "ev",
    "EVNet with the earlier surround": "ev-surround",
    "VOneNet with oriented pools": "vone-oriented-pools",
    "VOneNet with GDN": "vone-gdn",
    "VOneNet, neighbours normalise": "vone-neighbours",
    "VOneNet, uniform bank": "vone-uniform",
    "bank tuned from the published one": "vone-tuned",
    "bank tuned from the uniform one": "vone-tuned-uniform",
}
SURROUND = {"VOneNet": "vone", "with a surround": "vone-surround"}
VARIANTS = {
    "VOneNet": "vone-0",
    "low frequencies": "vone-low",
    "middle frequencies": "vone-mid",
    "high frequencies": "vone-high",
    "simple cells": "vone-simple",
    "complex cells": "vone-complex",
    "no noise": "vone-quiet",
    "half the noise": "vone-noise-0.5",
    "ensemble of the eight": "ensemble-variants",
    "ensemble of three seeds": "ensemble-seeds",
    "VOneNet, mean of eight draws": "vone-0",
    "distilled from the eight": "vone-distilled",
}


@pytest.mark.parametrize("heading", ONE_SEED)
def test_tables_of_one_seed(heading):
    rows = table(heading, "network", "clean")
    assert [row["network"] for row in rows] == list(ONE_SEED[heading])
    for row in rows:
        check_means(row, "second", [ONE_SEED[heading][row["network"]]])


def test_the_table_of_gains():
    for row in table("Which parts of V1 matter", "network", "clean"):
        check_means(row, "second", [GAINS[row["network"]]])


def test_the_table_of_components():
    rows = table("Which parts of V1 matter", "network", "response")
    assert [row["network"] for row in rows] == list(COMPONENTS)
    for row in rows:
        labels = seeds(COMPONENTS[row["network"]])
        check_means(row, "fourth", labels, skip=["response"])


@pytest.mark.parametrize("column", ["V1 score", "noise"])
def test_the_tables_of_front_ends(column):
    rows = table("Front ends", "network", column)
    assert [row["network"] for row in rows] == list(FRONT_ENDS)
    for row in rows:
        # The front end of a network that is not tuned is the same in all seeds.
        labels = seeds(FRONT_ENDS[row["network"]])
        check_means(row, "fourth", labels, skip=["V1 score"])
        known = [
            each for each in labels if (each, "physiology-v1", "mean score") in VALUES["fourth"]
        ]
        if "V1 score" in row and known:
            values = [measure("fourth", label, "V1 score") for label in known]
            spread = [np.std(values, ddof=1)] if "±" in row["V1 score"] else []
            check(row["V1 score"], [np.mean(values), *spread])


def test_the_table_of_the_surround():
    rows = table("A surround", "network", "clean")
    assert [row["network"] for row in rows] == list(SURROUND)
    for row in rows:
        check_means(row, "fifth", [f"{SURROUND[row['network']]}-{i}" for i in range(3)])


def test_the_table_of_ensembles():
    rows = table("Ensembles of V1 variants", "network", "clean")
    assert [row["network"] for row in rows] == list(VARIANTS)
    for row in rows:
        suffix = "-mean_logits-8-8-draws" if "eight draws" in row["network"] else ""
        for column, cell in list(row.items())[1:]:
            check(cell, [measure("fourth", VARIANTS[row["network"]], column, suffix)])


TWICE = {
    "VOneNet, seed 0": "vone-0",
    "V1 without noise": "vone-quiet",
    "stem noise, no V1": "base-stem-noise",
    "adversarial training, 8/255, one step": "base-adversarial-8",
    "Gaussian noise on images": "base-gaussian",
}


def test_the_table_of_networks_that_were_trained_twice():
    header = ["", "clean", "4/255", "16/255", "mean of the 15"]
    rows = table("The paper's experiments in small", *header)
    labels = ["base-0", *TWICE.values()]
    assert [row[""] for row in rows][1:] == list(TWICE)
    for row, label in zip(rows, labels, strict=True):
        for column in header[1:]:
            check(row[column], [measure(of, label, column) for of in ("first", "second")])


BUDGETS = {
    "L2 .0108, .0433": ("l2", "0.01083", "0.0433"),
    "L1 .208, .833": ("l1", "0.2083", "0.8333"),
}


def test_the_table_of_base_network_and_vonenet():
    rows = table("Base network against VOneNet, three seeds", "", "base", "VOneNet")
    assert len(rows) == 12
    for row in rows:
        name = row[""].removeprefix("L-infinity ").removeprefix("corruptions: ")
        for column, stem in (("base", "base"), ("VOneNet", "vone")):
            labels = [f"{stem}-{seed}" for seed in range(3)]
            if name in BUDGETS:
                norm, *radii = BUDGETS[name]
                results = [f"attack-{norm}-{radius}" for radius in radii]
                values = [
                    [100 * VALUES["first"][label, each, "accuracy"] for label in labels]
                    for each in results
                ]
                check(row[column], np.mean(values, axis=1))
                continue
            values = [measure("first", label, name) for label in labels]
            spread = [np.std(values, ddof=1)] if "±" in row[column] else []
            check(row[column], [np.mean(values), *spread])


def test_the_table_of_single_corruptions():
    for line in TABLES:
        heading, header, rows = line
        if header[:4] != ["", "base", "VOneNet", ""]:
            continue
        cells = [row[i : i + 3] for row in rows for i in (0, 3)]
        names = [name for cell in cells for name in cell[0].split(", ")]
        assert len(names) == 19
        for joined, base, vone in cells:
            for cell, stem in ((base, "base"), (vone, "vone")):
                labels = [f"{stem}-{seed}" for seed in range(3)]
                means = [
                    np.mean([measure("first", label, name) for label in labels])
                    for name in joined.split(", ")
                ]
                check(cell, means)
        return
    raise AssertionError("the table of single corruptions is missing")


def test_the_table_of_the_gain():
    labels = ["vone-gain-5", "vone-0", "vone-gain-45", "base-0"]
    rows = table("Base network against VOneNet, three seeds", "gain (mean response)")
    for row, label in zip(rows, labels, strict=True):
        check_means(row, "second", [label])


BENCHMARK = {
    "base": "base-0",
    "VOneNet": "vone-0",
    "adversarial training, 8/255": "base-adversarial-8",
    "Gaussian noise on images": "base-gaussian",
    "stem noise, no V1": "base-stem-noise",
}
ART = {"eps/32": "-art-1.5", "eps/4": "-eps-4-art-1.5"}
# The radii of each norm, and the end of the names of its results with each rule of steps.
NORMS = {
    "L-infinity": ("linf", tuple(RADII.values()), {"eps/32": "", "eps/4": "-eps-4"}),
    "L2": ("l2", ("0.01083", "0.0433", "0.1732", "0.6928"), ART),
    "L1": ("l1", ("0.2083", "0.8333", "3.333", "13.33"), ART),
}


def test_the_table_of_the_conglomerate_benchmark():
    rows = table("The conglomerate benchmark", "network", "step")
    assert len(rows) == 2 * len(BENCHMARK)
    for row in rows:
        label, step = BENCHMARK[row["network"]], row["step"]
        norms = {}
        for name, (norm, radii, ends) in NORMS.items():
            results = [f"attack-{norm}-{radius}{ends[step]}" for radius in radii]
            norms[name] = np.mean(
                [100 * VALUES["third"][label, each, "accuracy"] for each in results]
            )
            check(row[name], [norms[name]])
        clean, corrupted = (measure("third", label, name) for name in ("clean", "mean of the 15"))
        white = np.mean(list(norms.values()))
        check(row["white box"], [white])
        check(row["white box and corruptions"], [(white + corrupted) / 2])
        check(row["all"], [np.mean([clean, *norms.values(), corrupted])])
        if step == "eps/32":
            check(row["clean"], [clean])
            check(row["corruptions"], [corrupted])
            check(row["by category"], [measure("third", label, "by category")])


NEURONAL = "neuronal-0.35-0.07-1"
# Set, network and the end of the names of the results. The third set computed these again.
STOCHASTICITY = [
    ("first", "vone-quiet", ""),
    ("first", "vone-0", ""),
    ("first", "base-stem-noise", ""),
    ("first", "vone-0", "-test-none"),
    ("first", "vone-quiet", f"-test-{NEURONAL}"),
    ("first", "vone-0", "-noise-free"),
    ("first", "vone-0", "-frozen"),
    ("first", "vone-quiet", f"-attacked-{NEURONAL}"),
]


def test_the_table_of_stochasticity():
    rows = table("Where the noise must be", "network", "trained")
    check_means(
        rows[0], "first", [f"base-{seed}" for seed in range(3)], ["trained", "attacked", "judged"]
    )
    for row, (of, label, end) in zip(rows[1:], STOCHASTICITY, strict=True):
        for column in RADII:
            check(row[column], [measure(of, label, column, end)])
        if row["clean"]:
            judged = "" if end.startswith(("-attacked", "-noise-free")) else end
            check(row["clean"], [measure(of, label, "clean", judged)])


def test_the_table_of_what_training_does_to_the_bank():
    columns = {
        "orientation": "pref_or",
        "peak frequency": "peak_sf",
        "bandwidth": "sf_bandwidth",
        "selectivity": "sf_selective",
        "summation": "grating_summation_field",
    }
    stems = ["vone", "vone-tuned", "vone-uniform", "vone-tuned-uniform"]
    rows = table("Tuned banks: fixed or trained?", "bank")
    for row, stem in zip(rows, stems, strict=True):
        labels = seeds(stem) if "tuned" in stem else seeds(stem)[:1]
        for column, name in columns.items():
            values = [measure("fourth", label, f"score: {name}") for label in labels]
            spread = [np.std(values, ddof=1)] if "±" in row[column] else []
            check(row[column], [np.mean(values), *spread])


MASKING = {
    "VOneNet": ("second", "vone-0"),
    "VOneNet with a surround": ("fourth", "vone-surround-0"),
    "EVNet": ("fourth", "ev-0"),
    "base, similar to V1": ("second", "base-similar-v1"),
}


def test_the_table_of_the_checks_of_attacks():
    rows = table("Do the attacks work?", "network", "images")
    assert [row["network"] for row in rows] == list(MASKING)
    for row in rows:
        of, label = MASKING[row["network"]]
        for verdict in ("pass", "warning", "fail"):
            check(row[verdict], [VALUES[of][label, "masking-linf-0.06275", f"checks: {verdict}"]])


CERTIFIED = {
    "published: level .07": "vone-0",
    "strength 2": "vone-noise-2",
    "level 1": "vone-level-1",
    "level 2": "vone-level-2",
    "stabilised, level .07": "vone-stabilised-level-0.07",
    "stabilised, level 1": "vone-stabilised-level-1",
    "stabilised, level 2": "vone-stabilised-level-2",
    "Gaussian, 1": "vone-gaussian-1",
    "Gaussian, 2": "vone-gaussian-2",
    "Gaussian, 4": "vone-gaussian-4",
    "pixels, 1 / 26.3": "base-pixels-1",
    "pixels, 2 / 26.3": "base-pixels-2",
    "pixels, 4 / 26.3": "base-pixels-4",
}
CERTIFIED_NUMBERS = {
    "vote": "accuracy",
    **{f"certified .{d}": f"certified accuracy at 0.{d}" for d in ("01", "05", "2")},
    **{f"APGD .{d}": f"accuracy under APGD at 0.{d}" for d in ("01", "05", "2")},
    "median radius": "median certified radius",
}


def test_the_table_of_certificates():
    numbers = VALUES["certified"].items()
    of = {(network, number): x for (network, result, number), x in numbers if result != "clean"}
    rows = table("Certificates", "noise", "clean")
    assert [row["noise"] for row in rows] == list(CERTIFIED)
    for row in rows:
        first = CERTIFIED[row["noise"]]
        labels = [first] + [f"{first.removesuffix('-0')}-{seed}" for seed in (1, 2)]
        clean = [100 * VALUES["certified"][label, "clean", "accuracy"] for label in labels]
        check(row["clean"], [np.mean(clean)])
        for column, number in CERTIFIED_NUMBERS.items():
            scale = 1 if column == "median radius" else 100
            check(row[column], [scale * np.mean([of[label, number] for label in labels])])
            # What is certified is never above what an attack leaves.
            if column.startswith("certified"):
                attacked = CERTIFIED_NUMBERS[column.replace("certified", "APGD")]
                assert all(of[label, number] <= of[label, attacked] for label in labels)


PERCEPTION = [("base", "stem"), ("base", "logits"), ("vone", "v1"), ("vone", "logits")]


def of_seeds(kind, result, number, scale=100):
    """The mean of a number over the three seeds; its name may hold {seed} and {next}."""
    values = VALUES["perception"]
    names = [number.format(seed=seed, next=(seed + 1) % 3) for seed in range(3)]
    return scale * np.mean([values[f"{kind}-{s}", result, name] for s, name in enumerate(names)])


def test_the_table_of_overlap():
    rows = table("Does V1's noise make attacked images overlap with clean ones?", "network")
    columns = {
        "4/255": "fgsm-0.01569",
        "8/255": "fgsm-0.03137",
        "16/255": "fgsm-0.06275",
        "random corners, 16/255": "corners-0.06275",
    }
    assert len(rows) == len(PERCEPTION)
    for row, (kind, layer) in zip(rows, PERCEPTION, strict=True):
        assert row["layer"] == layer
        for column, name in columns.items():
            result = f"geometry-{name}-{layer}"
            check(row[column], [of_seeds(kind, result, "told from clean")])


def test_the_table_of_metamers():
    rows = table("Do other networks recognise the metamers?", "network")
    assert len(rows) == len(PERCEPTION)
    for row, (kind, layer) in zip(rows, PERCEPTION, strict=True):
        other, result = {"base": "vone", "vone": "base"}[kind], f"metamers-{layer}"
        check(row["match, dB"], [of_seeds(kind, result, "mean decibel", 1)])
        for column, number in {
            "matched": "matched",
            "originals": "accuracy on originals",
            "itself": "accuracy on metamers",
            "another seed": f"accuracy on metamers, {kind}-{{next}}",
            "the other kind": f"accuracy on metamers, {other}-{{seed}}",
        }.items():
            check(row[column], [of_seeds(kind, result, number)])


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
