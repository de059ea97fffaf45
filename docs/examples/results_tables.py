"""Writes the tables of docs/results.md and docs/results/*.md from the frames beside them.

    python docs/examples/results_tables.py

A table stands between the lines ``<!-- table NAME -->`` and ``<!-- end -->``. To add one, write
these two lines into a page and an entry into ``tables``, and run the command.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

DOCS = Path(__file__).parents[1]
PAGES = [DOCS / "results.md", *sorted((DOCS / "results").glob("*.md"))]

FRAMES = {path.stem: pd.read_csv(path) for path in sorted((DOCS / "results").glob("*.csv"))}
# The sets of runs: set -> (network, result, number) -> its row.
SETS = {
    name: {(row.network, row.result, row.number): row for row in frame.itertuples()}
    for name, frame in FRAMES.items()
    if "result" in frame
}

RADII = {
    "1/1020": "0.0009804",
    "1/255": "0.003922",
    "4/255": "0.01569",
    "8/255": "0.03137",
    "16/255": "0.06275",
    "0.1": "0.1",
}
ATTACKS = ["1/1020", "1/255", "4/255", "16/255"]
# ImageNet-C (Hendrycks & Dietterich 2019), and the four further corruptions of its authors.
CORRUPTIONS = {
    "noise": ["gaussian_noise", "shot_noise", "impulse_noise"],
    "blur": ["defocus_blur", "glass_blur", "motion_blur", "zoom_blur"],
    "weather": ["snow", "frost_procedural", "fog", "brightness"],
    "digital": ["contrast", "elastic_transform", "pixelate", "jpeg_compression"],
}
CATEGORIES = list(CORRUPTIONS)
CORRUPTIONS["mean of the 15"] = [name for members in CORRUPTIONS.values() for name in members]
FURTHER = ["speckle_noise", "gaussian_blur", "spatter", "saturate"]
for _name in [*CORRUPTIONS["mean of the 15"], *FURTHER]:
    CORRUPTIONS[_name] = [_name]
CORRUPTION_COLUMNS = [*CATEGORIES, "mean of the 15"]

Rows = list[list[str]]


# What a cell is made of. A network is named "set/label", and "set/label*" is it with every seed.


def seeds(network: str) -> list[str]:
    """The labels of a network: its own, or with a star those of its seeds."""
    name, label = network.split("/")
    if not label.endswith("*"):
        return [label]
    stem = label.removesuffix("*")
    known = {key[0] for key in SETS[name]}
    return [each for each in (stem, f"{stem}-0", f"{stem}-1", f"{stem}-2") if each in known]


def results(measure: str, ending: str = "") -> list[str]:
    """The results whose mean is a measure: a radius, a kind of corruption or a result's name."""
    names = [measure]
    if measure in RADII:
        names = [f"attack-linf-{RADII[measure]}"]
    elif measure in CORRUPTIONS:
        names = [f"corruption-{name}-{i}" for name in CORRUPTIONS[measure] for i in range(1, 6)]
    return [name + ending for name in names]


def values(network: str, measure: str, number: str = "accuracy", ending: str = "") -> list[float]:
    """The mean of the measure's results, for each seed of the network."""
    rows = SETS[network.split("/")[0]]
    return [
        float(np.mean([rows[label, each, number].value for each in results(measure, ending)]))
        for label in seeds(network)
    ]


def percent(of: Sequence[float], spread: bool = False, digits: int = 1) -> str:
    """The mean of fractions in percent, with the standard deviation between them if asked."""
    # Rounded twice, since the last bits of a mean differ between machines.
    text = f"{round(100 * float(np.mean(of)), 6):.{digits}f}"
    return f"{text} ± {100 * np.std(of, ddof=1):.{digits}f}" if spread else text


def fraction(of: Sequence[float], digits: int = 3) -> str:
    """The mean of fractions without their zero, with a standard deviation if they differ."""
    text = f"{np.mean(of):.{digits}f}".lstrip("0")
    if len(of) == 1 or np.ptp(of) == 0.0:
        return text
    return f"{text} ± {np.std(of, ddof=1):.{digits}f}".replace("± 0", "± ")


def with_interval(network: str, result: str, digits: int) -> str:
    """An accuracy in percent with its 95 % interval, or "not run"."""
    name, label = network.split("/")
    row = SETS[name].get((label, result, "accuracy"))
    if row is None:
        return "not run"
    low, high = (f"{100 * end:.{digits}f}" for end in (row.low, row.high))
    return f"{100 * row.value:.1f} ({low} to {high})"


def accuracies(
    networks: Mapping[str, str],
    columns: Sequence[str],
    spread: Sequence[str] = (),
    heading: str = "network",
    ending: str = "",
) -> Rows:
    """A row for each network, called as in ``networks``, with the accuracy in each column.

    Columns in ``spread`` have the standard deviation between seeds. The names of results end in
    ``ending``.
    """
    rows = [[heading, *columns]]
    for name, network in networks.items():
        cells = (
            percent(values(network, column, ending=ending), column in spread) for column in columns
        )
        rows.append([name, *cells])
    return rows


def insert(rows: Rows, heading: str, cells: Sequence[str]) -> Rows:
    """The table with another column behind its first."""
    return [[row[0], cell, *row[1:]] for row, cell in zip(rows, [heading, *cells], strict=True)]


# The tables that are more than accuracies of networks.


def repeated() -> Rows:
    networks = {
        "base, seed 0, first and second": "base-0",
        "VOneNet, seed 0": "vone-0",
        "V1 without noise": "vone-quiet",
        "stem noise, no V1": "base-stem-noise",
        "adversarial training, 8/255, one step": "base-adversarial-8",
        "Gaussian noise on images": "base-gaussian",
    }
    columns = ["clean", "4/255", "16/255", "mean of the 15"]
    return [
        ["", *columns],
        *(
            [
                name,
                *(
                    ", ".join(percent(values(f"{of}/{label}", each)) for of in ("first", "second"))
                    for each in columns
                ),
            ]
            for name, label in networks.items()
        ),
    ]


def headline() -> Rows:
    measures = {
        "clean": ["clean"],
        **{f"L-infinity {radius}": [radius] for radius in ATTACKS},
        "L2 .0108, .0433": ["attack-l2-0.01083", "attack-l2-0.0433"],
        "L1 .208, .833": ["attack-l1-0.2083", "attack-l1-0.8333"],
        **{f"corruptions: {name}": [name] for name in CATEGORIES},
        "mean of the 15": ["mean of the 15"],
    }
    spread = {"clean", *ATTACKS, "mean of the 15"}
    return [
        ["", "base", "VOneNet"],
        *(
            [
                name,
                *(
                    ", ".join(percent(values(network, each), each in spread) for each in group)
                    for network in ("first/base*", "first/vone*")
                ),
            ]
            for name, group in measures.items()
        ),
    ]


def by_corruption() -> Rows:
    groups = [[name] for name in CORRUPTIONS["mean of the 15"] + FURTHER[:2]] + [FURTHER[2:]]
    cells = [
        [
            ", ".join(group),
            *(
                ", ".join(percent(values(network, each)) for each in group)
                for network in ("first/base*", "first/vone*")
            ),
        ]
        for group in groups
    ]
    half = len(cells) // 2
    left, right = cells[:half], cells[half:]
    return [
        ["", "base", "VOneNet"] * 2,
        *([*one, *other] for one, other in zip(left, right, strict=True)),
    ]


def benchmark() -> Rows:
    radii = {
        "linf": ["0.0009804", "0.003922", "0.01569", "0.06275"],
        "l2": ["0.01083", "0.0433", "0.1732", "0.6928"],
        "l1": ["0.2083", "0.8333", "3.333", "13.33"],
    }
    networks = {
        "base": "base-0",
        "VOneNet": "vone-0",
        "adversarial training, 8/255": "base-adversarial-8",
        "Gaussian noise on images": "base-gaussian",
        "stem noise, no V1": "base-stem-noise",
    }
    rows = [
        ["network", "step", "clean", "L-infinity", "L2", "L1", "white box", "corruptions"]
        + ["by category", "white box and corruptions", "all"]
    ]
    for name, label in networks.items():

        def mean(results: Sequence[str], label: str = label) -> float:
            return float(np.mean([values(f"third/{label}", each) for each in results]))

        clean, corruptions = mean(["clean"]), mean(["mean of the 15"])
        for step in ("eps/32", "eps/4"):
            norms = [
                mean(
                    [
                        f"attack-{norm}-{eps}"
                        + ("-eps-4" if step == "eps/4" else "")
                        + ("" if norm == "linf" else "-art-1.5")
                        for eps in each
                    ]
                )
                for norm, each in radii.items()
            ]
            white = float(np.mean(norms))
            cells: list[float | None] = [
                *(clean, *norms, white, corruptions, mean(CATEGORIES)),
                *(np.mean([white, corruptions]), np.mean([clean, *norms, corruptions])),
            ]
            if step == "eps/4":
                cells = [None if i in (0, 5, 6) else cell for i, cell in enumerate(cells)]
            rows.append([name, step, *("" if c is None else percent([c]) for c in cells)])
    return rows


def stochasticity() -> Rows:
    on, off, noise = "noise", "no noise", "neuronal-0.35-0.07-1"
    # Each network with its noise in training, in the attack and in the judgement, and how the names
    # of results on clean and attacked images end.
    networks = [
        ("base (3 seeds)", "base*", ("-", "-", "-"), "", ""),
        ("V1", "vone-quiet", (off, off, off), "", ""),
        ("V1", "vone-0", (on, on, on), "", ""),
        ("stem", "base-stem-noise", (on, on, on), "", ""),
        ("V1, in training only", "vone-0", (on, off, off), "-test-none", "-test-none"),
        ("V1, at the test only", "vone-quiet", (off, on, on), f"-test-{noise}", f"-test-{noise}"),
        ("V1, surrogate", "vone-0", (on, off, on), "", "-noise-free"),
        (
            "V1, frozen: attack and judgement share a draw",
            *("vone-0", (on, "frozen", "frozen"), None, "-frozen"),
        ),
        ("V1, at the attack only", "vone-quiet", (off, on, off), "", f"-attacked-{noise}"),
    ]
    rows = [["network", "trained", "attacked", "judged", "clean", *ATTACKS]]
    for name, label, noises, of_clean, of_attacked in networks:
        network = f"first/{label}"
        rows.append([name, *noises])
        # One frozen draw says little about clean images.
        rows[-1].append(
            "" if of_clean is None else percent(values(network, "clean", ending=of_clean))
        )
        rows[-1] += [percent(values(network, eps, ending=of_attacked)) for eps in ATTACKS]
    return rows


def gabor_banks() -> Rows:
    scores = {
        "orientation": "pref_or",
        "peak frequency": "peak_sf",
        "bandwidth": "sf_bandwidth",
        "selectivity": "sf_selective",
        "summation": "grating_summation_field",
    }
    networks = {
        "physiological, fixed": "second/vone-0",
        "physiological, tuned": "fourth/vone-tuned*",
        "uniform, fixed": "second/vone-uniform",
        "uniform, tuned": "fourth/vone-tuned-uniform*",
    }
    return [
        ["bank", *scores],
        *(
            [
                name,
                *(
                    fraction(values(network, "physiology-v1", f"score: {score}"))
                    for score in scores.values()
                ),
            ]
            for name, network in networks.items()
        ),
    ]


def ensembles() -> Rows:
    columns = ["clean", "1/255", "4/255", "16/255", *CORRUPTION_COLUMNS]
    networks = {
        "VOneNet": "fourth/vone-0",
        "low frequencies": "fourth/vone-low",
        "middle frequencies": "fourth/vone-mid",
        "high frequencies": "fourth/vone-high",
        "simple cells": "fourth/vone-simple",
        "complex cells": "fourth/vone-complex",
        "no noise": "fourth/vone-quiet",
        "half the noise": "fourth/vone-noise-0.5",
        "**ensemble of the eight**": "fourth/ensemble-variants",
        "ensemble of three seeds": "fourth/ensemble-seeds",
    }
    draws = {"VOneNet, mean of eight draws": "fourth/vone-0"}
    return [
        *accuracies(networks, columns),
        *accuracies(draws, columns, ending="-mean_logits-8-8-draws")[1:],
        *accuracies({"distilled from the eight": "fourth/vone-distilled"}, columns)[1:],
    ]


def overlap() -> Rows:
    columns = {
        "4/255": "fgsm-0.01569",
        "8/255": "fgsm-0.03137",
        "16/255": "fgsm-0.06275",
        "random corners, 16/255": "corners-0.06275",
    }
    return [
        ["network", "layer", *columns],
        *(
            [name, layer]
            + [
                percent(values(network, f"geometry-{change}-{layer}", "told from clean"))
                for change in columns.values()
            ]
            for name, network, layer in LAYERS
        ),
    ]


LAYERS = [
    ("base", "perception/base*", "stem"),
    ("base", "perception/base*", "logits"),
    ("VOneNet", "perception/vone*", "v1"),
    ("VOneNet", "perception/vone*", "logits"),
]


def metamers() -> Rows:
    def others(network: str, layer: str, same_kind: bool) -> list[float]:
        """The accuracy of the other networks on the metamers of each seed."""
        kind = network.split("/")[1].removesuffix("*")
        return [
            row.value
            for (label, result, number), row in SETS["perception"].items()
            if label.startswith(kind)
            and result == f"metamers-{layer}"
            and number.startswith("accuracy on metamers, ")
            and number.removeprefix("accuracy on metamers, ").startswith(kind) == same_kind
        ]

    rows = [["network", "layer", "match, dB", "matched", "originals", "itself"]]
    rows[0] += ["another seed", "the other kind"]
    for name, network, layer in LAYERS:
        result = f"metamers-{layer}"
        rows.append(
            [name, layer, f"{np.mean(values(network, result, 'mean decibel')):.1f}"]
            + [
                percent(values(network, result, number))
                for number in ("matched", "accuracy on originals", "accuracy on metamers")
            ]
            + [percent(others(network, layer, same)) for same in (True, False)]
        )
    return rows


def masking() -> Rows:
    networks = {
        "VOneNet": ("second", "vone-0"),
        "EVNet": ("fourth", "ev-0"),
        "base, similar to V1": ("second", "base-similar-v1"),
    }
    rows = [["network", "images", "pass", "warning", "fail"]]
    for name, (of, label) in networks.items():
        checks = [
            SETS[of][label, "masking-linf-0.06275", f"checks: {each}"] for each in rows[0][2:]
        ]
        rows.append([name, f"{checks[0].images:.0f}", *(f"{row.value:.0f}" for row in checks)])
    return rows


def certificates() -> Rows:
    networks = {
        "published: level .07": "vone",
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
    columns = {
        "vote": "accuracy",
        **{f"certified .{r}": f"certified accuracy at 0.{r}" for r in ("01", "05", "2")},
        **{f"APGD .{r}": f"accuracy under APGD at 0.{r}" for r in ("01", "05", "2")},
    }
    rows = [["noise", "clean", *columns, "median radius"]]
    for name, label in networks.items():
        network = f"certified/{label}*"
        # The base networks vote with noise on the pixels, which the name of the result says.
        (result,) = {
            key[1]
            for key in SETS["certified"]
            if key[0] in seeds(network) and key[1].startswith("certified-l2")
        }
        radii = values(network, result, "median certified radius")
        rows.append(
            [name, percent(values(network, "clean"))]
            + [percent(values(network, result, number), digits=0) for number in columns.values()]
            + [fraction([float(np.mean(radii))])]
        )
    return rows


GAIN_CONTROLS = {
    "none": "vone-gaussian-2",
    "semisaturation .25": "vone-gain-control-0.25",
    "semisaturation .5": "vone-gain-control-0.5",
    "semisaturation 1": "vone-gain-control-1",
}


def gain_control() -> Rows:
    radii = ("0.05", "0.15")
    rows = [["gain control", "contrast", "vote"]]
    for radius in radii:
        rows[0] += [f"certified {radius[1:]}", f"APGD {radius[1:]}"]
    rows[0].append("largest radius")
    frame = FRAMES["gain_control"]
    for name, label in GAIN_CONTROLS.items():
        for contrast in (1.0, 0.5, 0.25):
            own = frame[(frame["network"] == label) & (frame["contrast"] == contrast)]
            shares = [own["right"]]
            for radius in radii:
                certified = (own["right"] == 1) & (own["radius"] > float(radius))
                shares += [certified, own[f"right at {radius}"]]
            cells = [percent([share.mean()], digits=0) for share in shares]
            rows.append([name, f"{contrast:g}", *cells, fraction([own["radius"].max()])])
    return rows


def gain_control_attacks() -> Rows:
    rows = [["gain control", *STRONGEST]]
    for name, label in GAIN_CONTROLS.items():
        cells = (with_interval(f"gain/{label}", each, 0) for each in STRONGEST.values())
        rows.append([name, *cells])
    return rows


def d_prime() -> Rows:
    networks = {
        "base": "base-clean-0",
        "base, noise on images": "base-noise-0",
        "VOneNet": "vone-clean-0",
        "VOneNet, noise of the observer": "vone-gaussian-0",
        "base, PGD": "base-pgd-0.1-0",
        "VOneNet, PGD": "vone-pgd-0.1-0",
    }
    rows = [["network", "clean", "d' 2", "d' 8", "certified at d' 2"]]
    for name, label in networks.items():
        certified = SETS["d_prime"].get((label, "d-prime-2", "certified accuracy"))
        rows.append(
            [name, percent(values(f"d_prime/{label}", "validation"))]
            + [with_interval(f"d_prime/{label}", f"d-prime-{eps}", 0) for eps in (2, 8)]
            + ["-" if certified is None else percent([certified.value])]
        )
    return rows


class Comparison(NamedTuple):
    """A sweep that asks what V1 changes: its set, what varies, and the networks of each variant."""

    name: str
    heading: str
    variants: dict[str, str]
    networks: dict[str, str]
    # The label of a network in the set, without its seed.
    label: str


ADVERSARIAL = Comparison(
    "adversarial",
    "training",
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
    "{network}-{variant}",
)
TRUNKS = Comparison(
    "trunks",
    "trunk",
    {"ResNet-18": "resnet18", "ViT": "vit", "ConvNeXt": "convnext"},
    {"base": "base", "convolutional stem": "control", "VOneNet": "vone"},
    "{variant}-{network}",
)
STRONGEST = {
    eps: f"attack-strongest-of-pgd-apgd-linf-{RADII[eps]}"
    for eps in ("4/255", "8/255", "16/255", "0.1")
}


def strongest(of: Comparison, less_base: bool = False) -> Rows:
    """A row for each network that was measured, under the strongest attack at each radius.

    Numbers are means over its seeds, whose rows are under their labels with a space between.
    With ``less_base`` a row has the paired differences from the base network of the same seeds.
    """
    columns = ["clean", *STRONGEST, "mean of the 15"]
    rows = [[of.heading, "network", "seeds", *columns]]
    for variant, stem in of.variants.items():
        for network, prefix in of.networks.items():
            every = f"{of.name}/{of.label.format(network=prefix, variant=stem)}*"
            labels = seeds(every)
            if not labels or (less_base and network == "base"):
                continue
            path = f"{of.name}/{' '.join(labels)}"
            if less_base:
                found = [paired(path, column) for column in columns]
                rows.append([variant, f"{network} less base", str(len(labels)), *found])
                continue
            cells = [with_interval(path, result, 0) for result in STRONGEST.values()]
            rows.append([variant, network, str(len(labels)), percent(values(every, "clean"))])
            rows[-1] += [*cells, percent(values(every, "mean of the 15"))]
    return rows


def reference() -> Rows:
    # Epochs, and clean and robust accuracy in PyTorch; these are in no frame.
    networks = {
        "clean": (5, "91.0", "0.0"),
        "fast": (5, "84.6", "73.8"),
        "pgd": (3, "83.4", "74.6"),
        "trades": (3, "83.3", "73.2"),
    }
    names = {
        "clean": "clean images",
        "fast": "Fast",
        "pgd": "PGD",
        "trades": "TRADES, beta 6",
    }
    rows = [["training", "epochs", "clean", "in PyTorch", "PGD at 0.1", "in PyTorch"]]
    for label, (epochs, clean, robust) in networks.items():
        network = f"adversarial/{label}"
        known = (label, "validation", "accuracy") in SETS["adversarial"]
        ours = percent(values(network, "validation")) if known else "not run"
        attacked = with_interval(network, "attack-pgd-linf-0.1-50-steps-first", 0)
        rows.append([names[label], str(epochs), ours, clean, attacked, robust])
    return rows


def drawings() -> Rows:
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
        **{
            f"L-infinity {eps}": f"attack-strongest-of-pgd-apgd-linf-{RADII[eps]}"
            for eps in ATTACKS
        },
        **{
            f"L2 {eps[1:] if eps < '1' else eps}": f"attack-strongest-of-pgd-apgd-l2-{eps}"
            for eps in ("0.04286", "0.1714", "0.6857", "2.743")
        },
    }
    rows = [["measure", "images", "base", "VOneNet", "difference"]]
    for name, result in measures.items():
        images = SETS["drawings"]["base-0", result, "accuracy"].images
        both = (with_interval(f"drawings/{label}", result, 1) for label in ("base-0", "vone-0"))
        rows.append([name, f"{images:.0f}", *both, paired("drawings/vone-0", result)])
    return rows


def paired(network: str, number: str) -> str:
    """A network less its base network, in points with a 95 % interval; or "not run"."""
    name, label = network.split("/")
    frame = FRAMES["differences"]
    found = frame[(frame["set"] == name) & (frame["network"] == label)].set_index("number")
    if number not in found.index:
        return "not run"
    row = found.loc[number]
    return f"{row['value']:.1f} ({row['low']:.1f} to {row['high']:.1f})"


def drawings_styles() -> Rows:
    """A row for each style that the training left out, with what the networks know of it."""
    measures = {"known things": "clean-new_style", "new things": "clean-new_things_new_style"}
    rows = [["style left out", "things", "base", "VOneNet", "difference", "VOneNet loses less by"]]
    for style in ("openmoji", "noto", "twemoji", "fluent-emoji-flat"):
        ending = "-0" if style == "openmoji" else f"-without-{style}"
        if (f"vone{ending}", "clean-new_style", "accuracy") not in SETS["drawings"]:
            continue
        for things, result in measures.items():
            both = (with_interval(f"drawings/{of}{ending}", result, 1) for of in ("base", "vone"))
            changes = (result, f"style, {things}")
            differences = (paired(f"drawings/vone{ending}", change) for change in changes)
            rows.append([style, things, *both, *differences])
    return rows


def tables() -> dict[str, Rows]:
    """The rows of each table of the pages, by its name there."""
    everything = ["clean", *ATTACKS, *CORRUPTION_COLUMNS]
    components = {
        "VOneNet": "fourth/vone*",
        "uniform distributions": "fourth/vone-uniform*",
        "low frequencies, 0 to 2 cycles/degree": "fourth/vone-low*",
        "middle, 2 to 5.6": "fourth/vone-mid*",
        "high, 5.6 to 11.3": "fourth/vone-high*",
        "simple cells only": "fourth/vone-simple*",
        "complex cells only": "fourth/vone-complex*",
        "complex cells, half the gain": "fourth/vone-complex-gain-7.5*",
        "twice the noise": "fourth/vone-noise-2*",
        "half the noise": "fourth/vone-noise-0.5*",
        "no noise": "fourth/vone-quiet*",
    }
    # The mean responses are in no frame: they were measured when the gains were chosen.
    responses = "1.1 1.2 1.0 1.2 1.2 0.7 1.5 0.7 1.1 1.1 1.1".split()
    front_ends = {
        "base": "fourth/base*",
        "VOneNet": "fourth/vone*",
        "VOneNet, no noise": "fourth/vone-quiet*",
        "EVNet": "fourth/ev*",
        "VOneNet with oriented pools": "fourth/vone-oriented-pools*",
        "VOneNet with GDN": "fourth/vone-gdn*",
        "VOneNet, uniform bank": "fourth/vone-uniform*",
        "bank tuned from the published one": "fourth/vone-tuned*",
        "bank tuned from the uniform one": "fourth/vone-tuned-uniform*",
    }
    # Networks with the same front end have its score, which was measured on one of them.
    scored = dict.fromkeys(front_ends, "fourth/vone-0") | {
        "EVNet": "fourth/ev-0",
        "VOneNet, uniform bank": "fourth/vone-uniform",
        "bank tuned from the published one": "fourth/vone-tuned*",
        "bank tuned from the uniform one": "fourth/vone-tuned-uniform*",
    }
    scores = [
        "-" if name == "base" else fraction(values(network, "physiology-v1", "mean score"))
        for name, network in scored.items()
    ]
    return {
        "repeated": repeated(),
        "headline": headline(),
        "by corruption": by_corruption(),
        "gain": accuracies(
            {
                "5 (0.4)": "second/vone-gain-5",
                "15 (1), as above": "second/vone-0",
                "45 (3)": "second/vone-gain-45",
                "base network": "second/base-0",
            },
            ["clean", "16/255", "blur", "contrast"],
            heading="gain (mean response)",
        ),
        "benchmark": benchmark(),
        "stochasticity": stochasticity(),
        "components": insert(
            accuracies(components, everything, spread=everything), "response", responses
        ),
        "components, gain": accuracies(
            {
                "VOneNet": "second/vone-0",
                "gain 5 (mean response 0.4)": "second/vone-gain-5",
                "gain 45 (mean response 3)": "second/vone-gain-45",
                "base network, no V1": "second/base-0",
            },
            everything,
        ),
        "front ends": insert(
            accuracies(front_ends, ["clean", *ATTACKS], spread=everything), "V1 score", scores
        ),
        "front ends, corruptions": accuracies(
            front_ends, CORRUPTION_COLUMNS, spread=["mean of the 15"]
        ),
        "surround": accuracies(
            {"VOneNet": "fifth/vone*", "with a surround": "fifth/vone-surround*"},
            ["clean", *CORRUPTION_COLUMNS],
            spread=["clean", "mean of the 15"],
        ),
        "gabor banks": gabor_banks(),
        "ensembles": ensembles(),
        "training": accuracies(
            {
                "base": "second/base-0",
                "VOneNet": "second/vone-0",
                "stem noise, no V1": "second/base-stem-noise",
                "base, Gaussian noise of 0.2 on the images": "second/base-gaussian",
                "base, adversarial training, 2/255, one step": "second/base-adversarial-2",
                "base, adversarial training, 8/255, one step": "second/base-adversarial-8",
                "base, adversarial training, 8/255, five steps": "second/base-pgd-8",
                "VOneNet, adversarial training, 8/255, one step": "second/vone-adversarial-8",
            },
            everything,
        ),
        "adversarial": strongest(ADVERSARIAL),
        "adversarial, differences": strongest(ADVERSARIAL, less_base=True),
        "trunks": strongest(TRUNKS),
        "trunks, differences": strongest(TRUNKS, less_base=True),
        "reference": reference(),
        "similarity": accuracies(
            {
                "no regulariser": "second/base-0",
                "similarities of V1": "second/base-similar-v1",
                "of pixels": "second/base-similar-pixels",
                "of V1, shuffled (control)": "second/base-similar-shuffled",
            },
            everything,
        ),
        "overlap": overlap(),
        "metamers": metamers(),
        "masking": masking(),
        "certificates": certificates(),
        "gain control": gain_control(),
        "gain control, corruptions": accuracies(
            {
                **{name: f"gain/{label}" for name, label in GAIN_CONTROLS.items()},
                "surround, squared": "gain/vone-surround-gaussian-2",
            },
            ["clean", "contrast", "fog", "brightness", *CORRUPTION_COLUMNS],
            heading="normalisation",
        ),
        "gain control, attacks": gain_control_attacks(),
        "d prime": d_prime(),
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
