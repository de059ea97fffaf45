"""Writes the tables of docs/*.md and docs/results/*.md from the frames in docs/results.

    python docs/examples/results_tables.py

A table stands between the lines ``<!-- table NAME -->`` and ``<!-- end -->``. To add one, write
these two lines into a page and an entry into ``tables``, and run the command.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

DOCS = Path(__file__).parents[1]
PAGES = [*sorted(DOCS.glob("*.md")), *sorted((DOCS / "results").glob("*.md"))]

FRAMES = {path.stem: pd.read_csv(path) for path in sorted((DOCS / "results").glob("*.csv"))}
# The sets of runs: set -> (network, result, number) -> its row.
SETS = {
    name: {(row.network, row.result, row.number): row for row in frame.itertuples()}
    for name, frame in FRAMES.items()
    if "result" in frame
}

RADII = {"1/1020": "0.0009804", "1/255": "0.003922", "4/255": "0.01569", "8/255": "0.03137",
         "16/255": "0.06275", "0.1": "0.1"}  # fmt: skip
ATTACKS = ["1/1020", "1/255", "4/255", "16/255"]
STRONGEST = {
    eps: f"attack-strongest-of-pgd-apgd-linf-{RADII[eps]}"
    for eps in ("4/255", "8/255", "16/255", "0.1")
}
# ImageNet-C (Hendrycks & Dietterich 2019), and the four further corruptions of its authors.
CATEGORIES = {
    "noise": ["gaussian_noise", "shot_noise", "impulse_noise"],
    "blur": ["defocus_blur", "glass_blur", "motion_blur", "zoom_blur"],
    "weather": ["snow", "frost_procedural", "fog", "brightness"],
    "digital": ["contrast", "elastic_transform", "pixelate", "jpeg_compression"],
}
ALL = [name for members in CATEGORIES.values() for name in members]
FURTHER = ["speckle_noise", "gaussian_blur", "spatter", "saturate"]
CORRUPTIONS = CATEGORIES | {"mean of the 15": ALL} | {name: [name] for name in ALL + FURTHER}
CORRUPTED = [*CATEGORIES, "mean of the 15"]
EVERYTHING = ["clean", *ATTACKS, *CORRUPTED]

# The measures of sweeps whose frames are those of store_sweep.py.
SHORT_RADII = ("1/255", "4/255", "8/255", "16/255")
OF_SWEEPS = {
    "clean": ("condition", "clean"),
    **{r: ("label", f"PGD L∞ {r}, 20 steps, random start, expected") for r in SHORT_RADII},
    "corruptions": ("condition", "corruption"),
}

Rows = list[list[str]]
Form = Callable[[Any, Any], str]


def table(
    heads: str, rows: Mapping[str, Any], columns: Mapping[str, Any] | Sequence[str], form: Form
) -> Rows:
    """A line for each row and a cell, ``form(row, column)``, for each column.

    A name of a row has one or several cells with " | " between them, and ``heads`` those above.
    Columns that are no mapping are called as they are.
    """
    columns = columns if isinstance(columns, Mapping) else {each: each for each in columns}
    body = [
        [*name.split(" | "), *(form(row, each) for each in columns.values())]
        for name, row in rows.items()
    ]
    return [[*heads.split(" | "), *columns], *body]


# What a cell is made of. A network is "set/label", "set/label*" with every seed, or "set/label
# label" of several labels.


def seeds(network: str) -> list[str]:
    """The labels of a network: its own, or with a star those of its seeds."""
    name, label = network.split("/")
    if not label.endswith("*"):
        return label.split()
    stem = label.removesuffix("*")
    known = {key[0] for key in SETS[name]}
    return [each for each in (stem, f"{stem}-0", f"{stem}-1", f"{stem}-2") if each in known]


def find(network: str, result: str, number: str = "accuracy") -> Any:
    """The row of a number, None if it was not measured."""
    name, label = network.split("/")
    return SETS[name].get((label, result, number))


def values(network: str, measure: str, number: str = "accuracy", ending: str = "") -> list[float]:
    """The mean of the measure's results, for each seed of the network.

    A measure is a radius, a kind of corruption or the name of a result; the names of its results
    end in ``ending``.
    """
    names = [measure]
    if measure in RADII:
        names = [f"attack-linf-{RADII[measure]}"]
    elif measure in CORRUPTIONS:
        names = [f"corruption-{name}-{i}" for name in CORRUPTIONS[measure] for i in range(1, 6)]
    rows = SETS[network.split("/")[0]]
    return [
        float(np.mean([rows[label, each + ending, number].value for each in names]))
        for label in seeds(network)
    ]


def percent(of: Sequence[float], spread: bool = False, digits: int = 1) -> str:
    """The mean of fractions in percent, with the standard deviation between them if asked."""
    # Rounded twice, since the last bits of a mean differ between machines.
    text = f"{round(100 * float(np.mean(of)), 6):.{digits}f}"
    return f"{text} ± {100 * np.std(of, ddof=1):.{digits}f}" if spread else text


def fraction(of: Sequence[float]) -> str:
    """The mean of fractions without their zero, with a standard deviation if they differ."""
    text = f"{np.mean(of):.3f}".lstrip("0")
    if len(of) == 1 or np.ptp(of) == 0.0:
        return text
    return f"{text} ± {np.std(of, ddof=1):.3f}".replace("± 0", "± ")


# Forms of a cell.


def accuracy(spread: Sequence[str] = ()) -> Form:
    """The accuracy, with the standard deviation between seeds in the columns of ``spread``."""
    return lambda network, column: percent(values(network, column), column in spread)


def several(network: str, measures: Sequence[str]) -> str:
    """The accuracies of several measures in one cell."""
    return ", ".join(percent(values(network, each)) for each in measures)


def interval(network: str, result: str, digits: int = 0) -> str:
    """An accuracy in percent with its 95 % interval, or "not run"."""
    row = find(network, result)
    if row is None:
        return "not run"
    return f"{100 * row.value:.1f} ({100 * row.low:.{digits}f} to {100 * row.high:.{digits}f})"


def strongest(network: str, column: str) -> str:
    """The accuracy under the strongest attack with its interval, and other accuracies without."""
    if column in STRONGEST:
        return interval(network, STRONGEST[column])
    return percent(values(network, column))


def over_seeds(network: tuple[str, str], measure: tuple[str, str]) -> str:
    """The accuracy of a network in the frame of a sweep, with the deviation between its seeds.

    A network is (frame, label without seed), a measure (column, its value), whose mean counts.
    """
    (name, label), (column, value) = network, measure
    frame = FRAMES[name]
    mine = frame[
        frame["network"].str.fullmatch(re.escape(label) + r"-\d") & (frame[column] == value)
    ]
    return percent(mine.groupby("network")["value"].mean().tolist(), spread=True)


def paired(network: str, number: str) -> str:
    """A network less its base network, in points with a 95 % interval; or "not run"."""
    name, label = network.split("/")
    frame = FRAMES["differences"]
    found = frame[(frame["set"] == name) & (frame["network"] == label)].set_index("number")
    if number not in found.index:
        return "not run"
    row = found.loc[number]
    return f"{row['value']:.1f} ({row['low']:.1f} to {row['high']:.1f})"


def conglomerate(row: tuple[str, str], column: str) -> str:
    """A mean of the conglomerate benchmark, of a network and a step rule."""
    network, step = row
    radii = {
        "linf": ["0.0009804", "0.003922", "0.01569", "0.06275"],
        "l2": ["0.01083", "0.0433", "0.1732", "0.6928"],
        "l1": ["0.2083", "0.8333", "3.333", "13.33"],
    }
    rule = "-eps-4" if step == "eps/4" else ""
    means = {
        norm: float(np.mean([values(network, f"attack-{norm}-{eps}{rule}{art}") for eps in each]))
        for (norm, each), art in zip(radii.items(), ("", "-art-1.5", "-art-1.5"), strict=True)
    }
    norms = list(means.values())
    means["clean"] = float(np.mean(values(network, "clean")))
    means["white box"] = float(np.mean(norms))
    means["corruptions"] = float(np.mean(values(network, "mean of the 15")))
    means["by category"] = float(np.mean([values(network, each) for each in CATEGORIES]))
    means["white box and corruptions"] = (means["white box"] + means["corruptions"]) / 2
    means["all"] = float(np.mean([means["clean"], *norms, means["corruptions"]]))
    # The rule of the steps changes attacks alone.
    same = rule and column in ("clean", "corruptions", "by category")
    return "" if same else percent([means[column]])


def certificate(network: str, column: str) -> str:
    """A number of the certificates, whose result has another name with noise on the pixels."""
    if column == "clean":
        return percent(values(network, "clean"))
    (result,) = {
        key[1]
        for key in SETS["certified"]
        if key[0] in seeds(network) and key[1].startswith("certified-l2")
    }
    of = values(network, result, column)
    return fraction([float(np.mean(of))]) if "radius" in column else percent(of, digits=0)


def contrast_certificate(row: tuple[str, float], column: str) -> str:
    """A share of the images of a network at a contrast, or the largest radius."""
    frame = FRAMES["gain_control"]
    own = frame[(frame["network"] == row[0]) & (frame["contrast"] == row[1])]
    if column == "radius":
        return fraction([own["radius"].max()])
    if column.startswith("certified"):
        share = (own["right"] == 1) & (own["radius"] > float(column.split()[1]))
        return percent([share.mean()], digits=0)
    return percent([own[column].mean()], digits=0)


def metamer(row: tuple[str, str], column: str) -> str:
    """A number of the metamers of a layer; of other networks, those of the kind or not."""
    network, layer = row
    result = f"metamers-{layer}"
    if column == "mean decibel":
        return f"{np.mean(values(network, result, column)):.1f}"
    if column not in ("same kind", "other kind"):
        return percent(values(network, result, column))
    kind, asked = network.split("/")[1].removesuffix("*"), "accuracy on metamers, "
    return percent(
        [
            row.value
            for (label, of, number), row in SETS["perception"].items()
            if label.startswith(kind) and of == result and number.startswith(asked)
            if number.removeprefix(asked).startswith(kind) == (column == "same kind")
        ]
    )


def check(network: str, column: str) -> str:
    """The number of checks for masked gradients with a verdict, or that of the images."""
    verdict = "pass" if column == "images" else column
    row = find(network, "masking-linf-0.06275", f"checks: {verdict}")
    return f"{row.images if column == 'images' else row.value:.0f}"


def in_d_prime(network: str, column: str) -> str:
    """The accuracy on all images, under an attack, or the certified one."""
    if column == "validation":
        return percent(values(network, column))
    if column != "certified accuracy":
        return interval(network, column)
    row = find(network, "d-prime-2", column)
    return "-" if row is None else percent([row.value])


# Rows of several tables.


def of_sweep(name: str, networks: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Networks of the frame of a sweep."""
    return {called: (name, label) for called, label in networks.items()}


def within(name: str, labels: Mapping[str, str]) -> dict[str, str]:
    """Networks of one set, by what a table calls them."""
    return {title: f"{name}/{label}" for title, label in labels.items()}


def measured(
    name: str, label: str, variants: Mapping[str, str], networks: Mapping[str, str]
) -> dict[str, str]:
    """Each network of each variant that has seeds, under the variant, the network and their number.

    Means over seeds are in the frame under their labels with a space between.
    """
    rows = {}
    for variant, stem in variants.items():
        for network, prefix in networks.items():
            if found := seeds(f"{name}/{label.format(network=prefix, variant=stem)}*"):
                rows[f"{variant} | {network} | {len(found)}"] = f"{name}/{' '.join(found)}"
    return rows


def comparison(rows: Mapping[str, str], heading: str, name: str) -> dict[str, Rows]:
    """The table of a sweep that asks what V1 changes, and that of the paired differences."""
    columns, heads = ["clean", *STRONGEST, "mean of the 15"], f"{heading} | network | seeds"
    less = {
        re.sub(r" \| (\d)$", r" less base | \1", title): network
        for title, network in rows.items()
        if " | base | " not in title
    }
    return {
        name: table(heads, rows, columns, strongest),
        f"{name}, differences": table(heads, less, columns, paired),
    }


ADVERSARIAL = measured(
    "adversarial",
    "{network}-{variant}",
    {
        "clean images": "clean",
        "Gaussian noise": "noise",
        "Fast, 0.1": "fast-0.1",
        "PGD, 0.1": "pgd-0.1",
        "TRADES, 0.1": "trades-0.1",
        "TRADES with AWP, 0.1": "trades-awp-0.1",
        "PGD, 8/255": "pgd-8of255",
        "TRADES, 8/255": "trades-8of255",
    },
    {"base": "base", "V1 without noise": "vone-quiet", "VOneNet": "vone"},
)
TRUNKS = measured(
    "trunks",
    "{variant}-{network}",
    {"ResNet-18": "resnet18", "ViT": "vit", "ConvNeXt": "convnext"},
    {"base": "base", "convolutional stem": "control", "VOneNet": "vone"},
)
PAIR = {"base": "first/base*", "VOneNet": "first/vone*"}
GAIN_CONTROLS = {"none": "vone-gaussian-2", "semisaturation .25": "vone-gain-control-0.25",
                 "semisaturation .5": "vone-gain-control-0.5",
                 "semisaturation 1": "vone-gain-control-1"}  # fmt: skip
LAYERS = {
    f"{name} | {layer}": (f"perception/{label}*", layer)
    for name, label, front in (("base", "base", "stem"), ("VOneNet", "vone", "v1"))
    for layer in (front, "logits")
}
# Name -> its V1 score and its networks. Networks with one front end have the score of one of them.
FRONT_ENDS = {
    "base": ("", "fourth/base*"),
    "VOneNet": ("vone-0", "fourth/vone*"),
    "VOneNet, no noise": ("vone-0", "fourth/vone-quiet*"),
    "EVNet": ("ev-0", "fourth/ev*"),
    "VOneNet with oriented pools": ("vone-0", "fourth/vone-oriented-pools*"),
    "VOneNet with GDN": ("vone-0", "fourth/vone-gdn*"),
    "VOneNet, uniform bank": ("vone-uniform", "fourth/vone-uniform*"),
    "bank tuned from the published one": ("vone-tuned*", "fourth/vone-tuned*"),
    "bank tuned from the uniform one": ("vone-tuned-uniform*", "fourth/vone-tuned-uniform*"),
}


def headline(measures: Sequence[str], network: str) -> str:
    """Accuracies of the first table, the main ones with the deviation between seeds."""
    spread = {"clean", *ATTACKS, "mean of the 15"}
    return ", ".join(percent(values(network, each), each in spread) for each in measures)


def by_corruption() -> Rows:
    """Corruptions in two halves beside each other."""
    groups = [[name] for name in ALL + FURTHER[:2]] + [FURTHER[2:]]
    lines = table(
        "", {", ".join(each): each for each in groups}, PAIR, lambda of, n: several(n, of)
    )
    head, body, half = lines[0], lines[1:], len(groups) // 2
    pairs = zip(body[:half], body[half:], strict=True)
    return [head * 2, *([*one, *other] for one, other in pairs)]


def stochasticity() -> Rows:
    """Networks with their noise in training, in the attack and in the judgement."""
    on = "neuronal-0.35-0.07-1"
    # How the names of results on clean and attacked images end.
    rows = {
        "base (3 seeds) | - | - | -": ("base*", "", ""),
        "V1 | no noise | no noise | no noise": ("vone-quiet", "", ""),
        "V1 | noise | noise | noise": ("vone-0", "", ""),
        "stem | noise | noise | noise": ("base-stem-noise", "", ""),
        "V1, in training only | noise | no noise | no noise": (
            *("vone-0", "-test-none", "-test-none"),
        ),
        "V1, at the test only | no noise | noise | noise": (
            *("vone-quiet", f"-test-{on}", f"-test-{on}"),
        ),
        "V1, surrogate | noise | no noise | noise": ("vone-0", "", "-noise-free"),
        # One frozen draw says little about clean images.
        "V1, frozen: attack and judgement share a draw | noise | frozen | frozen": (
            *("vone-0", None, "-frozen"),
        ),
        "V1, at the attack only | no noise | noise | no noise": (
            "vone-quiet",
            "",
            f"-attacked-{on}",
        ),
    }

    def form(row: tuple[str, str | None, str], column: str) -> str:
        ending = row[1] if column == "clean" else row[2]
        return "" if ending is None else percent(values(f"first/{row[0]}", column, ending=ending))

    return table("network | trained | attacked | judged", rows, ["clean", *ATTACKS], form)


def front_ends() -> Rows:
    """Front ends with the mean score of their V1."""
    rows = {}
    for name, (scored, network) in FRONT_ENDS.items():
        score = (
            fraction(values(f"fourth/{scored}", "physiology-v1", "mean score")) if scored else "-"
        )
        rows[f"{name} | {score}"] = network
    columns = ["clean", *ATTACKS]
    return table("network | V1 score", rows, columns, accuracy(spread=columns))


def ensembles() -> Rows:
    """Ensembles and their members; the mean of eight draws has results of its own."""
    rows = {
        "VOneNet": "vone-0",
        "low frequencies": "vone-low",
        "middle frequencies": "vone-mid",
        "high frequencies": "vone-high",
        "simple cells": "vone-simple",
        "complex cells": "vone-complex",
        "no noise": "vone-quiet",
        "half the noise": "vone-noise-0.5",
        "**ensemble of the eight**": "ensemble-variants",
        "ensemble of three seeds": "ensemble-seeds",
        "VOneNet, mean of eight draws": "vone-0",
        "distilled from the eight": "vone-distilled",
    }
    draws = "VOneNet, mean of eight draws"
    named = {
        name: (label, "-mean_logits-8-8-draws" * (name == draws)) for name, label in rows.items()
    }
    columns = ["clean", "1/255", "4/255", "16/255", *CORRUPTED]
    return table(
        "network",
        named,
        columns,
        lambda row, column: percent(values(f"fourth/{row[0]}", column, ending=row[1])),
    )


def reference() -> Rows:
    """Adversarial training beside PyTorch, whose numbers are in no frame."""
    names = {
        "clean images | 5": ("clean", "91.0", "0.0"),
        "Fast | 5": ("fast", "84.6", "73.8"),
        "PGD | 3": ("pgd", "83.4", "74.6"),
        "TRADES, beta 6 | 3": ("trades", "83.3", "73.2"),
    }
    attack = "attack-pgd-linf-0.1-50-steps-first"
    rows = {}
    for name, (label, clean, robust) in names.items():
        network = f"adversarial/{label}"
        known = find(network, "validation") is not None
        ours = percent(values(network, "validation")) if known else "not run"
        rows[f"{name} | {ours} | {clean} | {interval(network, attack)} | {robust}"] = network
    heads = "training | epochs | clean | in PyTorch | PGD at 0.1 | in PyTorch"
    return table(heads, rows, [], interval)


def drawings() -> Rows:
    """What base network and VOneNet make of the drawings."""
    measures = {
        "new things": "clean-new_things",
        "known things in a new style": "clean-new_style",
        "new things in a new style": "clean-new_things_new_style",
        "training drawings": "clean-train",
        "grey": "recoloured-grey",
        "hue turned by 60": "recoloured-hue-60",
        "hue turned by 180": "recoloured-hue-180",
        "red and blue exchanged": "recoloured-channels",
        "mean of the 15 corruptions": "corruptions-15",
        "mean of the 10 of C-bar": "corruptions-c-bar",
        **{f"corruptions: {category}": f"corruptions-{category}" for category in CATEGORIES},
        **{each: f"corruptions-{each}" for each in ("contrast", "fog", "brightness")},
    }
    strong = "attack-strongest-of-pgd-apgd"
    measures |= {f"L-infinity {eps}": f"{strong}-linf-{RADII[eps]}" for eps in ATTACKS}
    l2 = ("0.04286", "0.1714", "0.6857", "2.743")
    measures |= {f"L2 {eps.removeprefix('0')}": f"{strong}-l2-{eps}" for eps in l2}
    rows = {
        f"{name} | {find('drawings/base-0', result).images:.0f}": result
        for name, result in measures.items()
    }
    columns = {"base": "base-0", "VOneNet": "vone-0", "difference": ""}

    def form(result: str, label: str) -> str:
        if not label:
            return paired("drawings/vone-0", result)
        return interval(f"drawings/{label}", result, 1)

    return table("measure | images", rows, columns, form)


def drawings_styles() -> Rows:
    """A row for each style that the training left out, with what the networks know of it."""
    measures = {"known things": "clean-new_style", "new things": "clean-new_things_new_style"}
    rows = {
        f"{style} | {things}": (
            "-0" if style == "openmoji" else f"-without-{style}",
            things,
            result,
        )
        for style in ("openmoji", "noto", "twemoji", "fluent-emoji-flat")
        for things, result in measures.items()
    }
    columns = ["base", "VOneNet", "difference", "VOneNet loses less by"]

    def form(row: tuple[str, str, str], column: str) -> str:
        ending, things, result = row
        if column in ("base", "VOneNet"):
            return interval(f"drawings/{column.removesuffix('Net').lower()}{ending}", result, 1)
        change = result if column == "difference" else f"style, {things}"
        return paired(f"drawings/vone{ending}", change)

    return table("style left out | things", rows, columns, form)


def tables() -> dict[str, Rows]:
    """The rows of each table of the pages, by its name there."""
    components = {
        "VOneNet | 1.1": "vone*",
        "uniform distributions | 1.2": "vone-uniform*",
        "low frequencies, 0 to 2 cycles/degree | 1.0": "vone-low*",
        "middle, 2 to 5.6 | 1.2": "vone-mid*",
        "high, 5.6 to 11.3 | 1.2": "vone-high*",
        "simple cells only | 0.7": "vone-simple*",
        "complex cells only | 1.5": "vone-complex*",
        "complex cells, half the gain | 0.7": "vone-complex-gain-7.5*",
        "twice the noise | 1.1": "vone-noise-2*",
        "half the noise | 1.1": "vone-noise-0.5*",
        "no noise | 1.1": "vone-quiet*",
    }
    repeated = {
        "base, seed 0, first and second": "base-0",
        "VOneNet, seed 0": "vone-0",
        "V1 without noise": "vone-quiet",
        "stem noise, no V1": "base-stem-noise",
        "adversarial training, 8/255, one step": "base-adversarial-8",
        "Gaussian noise on images": "base-gaussian",
    }
    benchmark = {
        "base": "base-0",
        "VOneNet": "vone-0",
        "adversarial training, 8/255": "base-adversarial-8",
        "Gaussian noise on images": "base-gaussian",
        "stem noise, no V1": "base-stem-noise",
    }
    levels = ("01", "05", "2")
    return {
        "repeated": table(
            "",
            repeated,
            ["clean", "4/255", "16/255", "mean of the 15"],
            lambda label, column: ", ".join(
                percent(values(f"{of}/{label}", column)) for of in ("first", "second")
            ),
        ),
        "headline": table(
            "",
            {"clean": ["clean"]}
            | {f"L-infinity {radius}": [radius] for radius in ATTACKS}
            | {
                "L2 .0108, .0433": ["attack-l2-0.01083", "attack-l2-0.0433"],
                "L1 .208, .833": ["attack-l1-0.2083", "attack-l1-0.8333"],
            }
            | {f"corruptions: {name}": [name] for name in CATEGORIES}
            | {"mean of the 15": ["mean of the 15"]},
            PAIR,
            headline,
        ),
        "by corruption": by_corruption(),
        "benchmark": table(
            "network | step",
            {
                f"{name} | {step}": (f"third/{label}", step)
                for name, label in benchmark.items()
                for step in ("eps/32", "eps/4")
            },
            {"clean": "clean", "L-infinity": "linf", "L2": "l2", "L1": "l1"}
            | {each: each for each in ("white box", "corruptions", "by category")}
            | {each: each for each in ("white box and corruptions", "all")},
            conglomerate,
        ),
        "stochasticity": stochasticity(),
        # The mean responses are in no frame: they were measured when the gains were chosen.
        "components": table(
            "network | response", within("fourth", components), EVERYTHING, accuracy(EVERYTHING)
        ),
        "components, gain": table(
            "network",
            within(
                "second",
                {
                    "VOneNet": "vone-0",
                    "gain 5 (mean response 0.4)": "vone-gain-5",
                    "gain 45 (mean response 3)": "vone-gain-45",
                    "base network, no V1": "base-0",
                },
            ),
            EVERYTHING,
            accuracy(),
        ),
        "front ends": front_ends(),
        "front ends, corruptions": table(
            "network",
            {name: network for name, (_, network) in FRONT_ENDS.items()},
            CORRUPTED,
            accuracy(["mean of the 15"]),
        ),
        "surround": table(
            "network",
            within("fifth", {"VOneNet": "vone*", "with a surround": "vone-surround*"}),
            ["clean", *CORRUPTED],
            accuracy(["clean", "mean of the 15"]),
        ),
        "gabor banks": table(
            "bank",
            {
                "physiological, fixed": "second/vone-0",
                "physiological, tuned": "fourth/vone-tuned*",
                "uniform, fixed": "second/vone-uniform",
                "uniform, tuned": "fourth/vone-tuned-uniform*",
            },
            {
                "orientation": "pref_or",
                "peak frequency": "peak_sf",
                "bandwidth": "sf_bandwidth",
                "selectivity": "sf_selective",
                "summation": "grating_summation_field",
            },
            lambda network, score: fraction(values(network, "physiology-v1", f"score: {score}")),
        ),
        "ensembles": ensembles(),
        "training": table(
            "network",
            within(
                "second",
                {
                    "base": "base-0",
                    "VOneNet": "vone-0",
                    "stem noise, no V1": "base-stem-noise",
                    "base, Gaussian noise of 0.2 on the images": "base-gaussian",
                    "base, adversarial training, 2/255, one step": "base-adversarial-2",
                    "base, adversarial training, 8/255, one step": "base-adversarial-8",
                    "base, adversarial training, 8/255, five steps": "base-pgd-8",
                    "VOneNet, adversarial training, 8/255, one step": "vone-adversarial-8",
                },
            ),
            EVERYTHING,
            accuracy(),
        ),
        **comparison(ADVERSARIAL, "training", "adversarial"),
        **comparison(TRUNKS, "trunk", "trunks"),
        "reference": reference(),
        "similarity": table(
            "network",
            within(
                "second",
                {
                    "no regulariser": "base-0",
                    "similarities of V1": "base-similar-v1",
                    "of pixels": "base-similar-pixels",
                    "of V1, shuffled (control)": "base-similar-shuffled",
                },
            ),
            EVERYTHING,
            accuracy(),
        ),
        "overlap": table(
            "network | layer",
            LAYERS,
            {f"{eps}": f"fgsm-{RADII[eps]}" for eps in ("4/255", "8/255", "16/255")}
            | {"random corners, 16/255": "corners-0.06275"},
            lambda row, change: percent(
                values(row[0], f"geometry-{change}-{row[1]}", "told from clean")
            ),
        ),
        "metamers": table(
            "network | layer",
            LAYERS,
            {
                "match, dB": "mean decibel",
                "matched": "matched",
                "originals": "accuracy on originals",
                "itself": "accuracy on metamers",
                "another seed": "same kind",
                "the other kind": "other kind",
            },
            metamer,
        ),
        "masking": table(
            "network",
            {
                "VOneNet": "second/vone-0",
                "EVNet": "fourth/ev-0",
                "base, similar to V1": "second/base-similar-v1",
            },
            ["images", "pass", "warning", "fail"],
            check,
        ),
        "certificates": table(
            "noise",
            within(
                "certified",
                {
                    "published: level .07": "vone*",
                    "strength 2": "vone-noise-2*",
                    **{f"level {n}": f"vone-level-{n}*" for n in (1, 2)},
                    "stabilised, level .07": "vone-stabilised-level-0.07*",
                    **{f"stabilised, level {n}": f"vone-stabilised-level-{n}*" for n in (1, 2)},
                    **{f"Gaussian, {n}": f"vone-gaussian-{n}*" for n in (1, 2, 4)},
                    **{f"pixels, {n} / 26.3": f"base-pixels-{n}*" for n in (1, 2, 4)},
                },
            ),
            {"clean": "clean", "vote": "accuracy"}
            | {f"certified .{r}": f"certified accuracy at 0.{r}" for r in levels}
            | {f"APGD .{r}": f"accuracy under APGD at 0.{r}" for r in levels}
            | {"median radius": "median certified radius"},
            certificate,
        ),
        "gain control": table(
            "gain control | contrast",
            {
                f"{name} | {contrast:g}": (label, contrast)
                for name, label in GAIN_CONTROLS.items()
                for contrast in (1.0, 0.5, 0.25)
            },
            {
                "vote": "right",
                "certified .05": "certified 0.05",
                "APGD .05": "right at 0.05",
                "certified .15": "certified 0.15",
                "APGD .15": "right at 0.15",
                "largest radius": "radius",
            },
            contrast_certificate,
        ),
        "gain control, corruptions": table(
            "normalisation",
            within("gain", GAIN_CONTROLS | {"surround, squared": "vone-surround-gaussian-2"}),
            ["clean", "contrast", "fog", "brightness", *CORRUPTED],
            accuracy(),
        ),
        "gain control, attacks": table(
            "gain control", within("gain", GAIN_CONTROLS), STRONGEST, interval
        ),
        "d prime": table(
            "network",
            within(
                "d_prime",
                {
                    "base": "base-clean-0",
                    "base, noise on images": "base-noise-0",
                    "VOneNet": "vone-clean-0",
                    "VOneNet, noise of the observer": "vone-gaussian-0",
                    "base, PGD": "base-pgd-0.1-0",
                    "VOneNet, PGD": "vone-pgd-0.1-0",
                },
            ),
            {
                "clean": "validation",
                "d' 2": "d-prime-2",
                "d' 8": "d-prime-8",
                "certified at d' 2": "certified accuracy",
            },
            in_d_prime,
        ),
        "push-pull and R-Blur": table(
            "network",
            of_sweep(
                "front_ends",
                {
                    "base network": "base",
                    "VOneNet": "vone",
                    "push-pull, trained": "push-pull",
                    "push-pull over V1's bank": "push-pull-v1",
                    "the same bank, no pull": "no-pull-v1",
                    "R-Blur": "r-blur",
                },
            ),
            OF_SWEEPS,
            over_seeds,
        ),
        "R-Blur, plain attack": table(
            "network",
            of_sweep("front_ends", {"R-Blur": "r-blur"}),
            {r: ("label", f"transferred PGD L∞ {r}, 20 steps, plain") for r in SHORT_RADII},
            over_seeds,
        ),
        "diet": table(
            "network",
            of_sweep(
                "diet",
                {
                    f"{network}, {name}": f"{label}{order}"
                    for network, label in {"base network": "base", "VOneNet": "vone"}.items()
                    for name, order in {
                        "adult": "",
                        "true order": "-diet-true",
                        "shuffled": "-diet-shuffled",
                    }.items()
                },
            ),
            OF_SWEEPS | {"phase noise": ("condition", "psychophysics")},
            over_seeds,
        ),
        "laws": table(
            "constants",
            of_sweep(
                "laws",
                {"no surround": "vone", "set before": "vone-surround", "learned": "vone-laws"},
            ),
            OF_SWEEPS,
            over_seeds,
        ),
        "drawings": drawings(),
        "drawings, styles": drawings_styles(),
    }


# The pages.


def render(rows: Rows) -> str:
    """The lines of a table; a column of numbers is set to the right."""
    head, *body = rows
    marks = [
        "---:" if i and any(re.match(r"-?[.\d]|not run", row[i]) for row in body) else "---"
        for i in range(len(head))
    ]
    return "".join(
        "".join(f"| {cell} " if cell else "| " for cell in cells) + "|\n"
        for cells in (head, marks, *body)
    )


def read() -> dict[Path, str]:
    """The text of each page."""
    return {path: path.read_text(encoding="utf-8") for path in PAGES}


def write(pages: Mapping[Path, str]) -> dict[Path, str]:
    """The pages with each of their tables written anew."""
    known = tables()
    pattern = re.compile(r"(<!-- table (.+?) -->\n\n)(.*?)(\n<!-- end -->)", re.DOTALL)
    named = {name for page in pages.values() for _, name, _, _ in pattern.findall(page)}
    if named != set(known):
        raise ValueError(f"not both in a page and in `tables`: {sorted(named ^ set(known))}")
    return {
        path: pattern.sub(lambda match: match[1] + render(known[match[2]]) + match[4], page)
        for path, page in pages.items()
    }


if __name__ == "__main__":
    for written, text in write(read()).items():
        written.write_text(text, encoding="utf-8")
