"""Error consistency: whether two observers are wrong about the same images.

An observer is a human, whose trials are read from the files of the study, or a network. Trials have
the columns of bethgelab/model-vs-human: ``subj``, ``session``, ``trial``, ``rt``,
``object_response``, ``category``, ``condition`` and ``imagename``.

Reference: Geirhos, Meding, Wichmann, Beyond accuracy: quantifying trial-by-trial behaviour of CNNs
and humans by measuring error consistency, NeurIPS 2020, arXiv:2006.16736.
"""

import itertools
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vone_jax.results.result import Result, ResultError
from vone_jax.results.statistics import QUANTILE, Interval

if TYPE_CHECKING:
    import pandas as pd

_NEEDED = ("subj", "object_response", "category", "condition", "imagename")


def error_consistency(right: np.ndarray, other: np.ndarray) -> Interval:
    """Cohen's kappa of two observers' right and wrong decisions about the same images.

    It is (c - e) / (1 - e), where c is the share of images about which both are right or both are
    wrong, and e = p1 p2 + (1 - p1)(1 - p2) is this share for independent errors at the accuracies
    p1 and p2. It is 1 for the same errors and 0 for independent ones. The interval is over images,
    by the delta method.

    Args:
      right: decisions (N, R) of an observer, booleans, or the share of right ones for each image
        (N,). With several decisions, c is the expected share for one decision of each observer.
      other: those of the other observer, on the same images in the same order.

    Returns:
      The consistency; NaN if both observers are always right, or always wrong.

    Raises:
      ValueError: if there are no images, or their numbers differ.
    """
    if len(right) != len(other) or not len(right):
        raise ValueError(
            f"right and other must be of the same images, got {len(right)} and {len(other)} of them"
        )
    first, second = (
        np.asarray(each, np.float64).reshape(len(each), -1).mean(axis=1) for each in (right, other)
    )
    same = first * second + (1 - first) * (1 - second)
    p1, p2 = float(first.mean()), float(second.mean())
    agreed, chance = float(same.mean()), p1 * p2 + (1 - p1) * (1 - p2)
    if chance == 1:
        return Interval(math.nan, math.nan, math.nan)
    kappa = (agreed - chance) / (1 - chance)
    # How much each image moves kappa: through c, and through the accuracies in e.
    moved = (2 * p2 - 1) * first + (2 * p1 - 1) * second
    slopes = same / (1 - chance) - (1 - agreed) / (1 - chance) ** 2 * moved
    half = QUANTILE * float(slopes.std()) / math.sqrt(len(first))
    return Interval(kappa, max(-1.0, kappa - half), min(1.0, kappa + half))


def read_trials(*paths: str | os.PathLike) -> "pd.DataFrame":
    """Read trials from CSV files, or from folders of them.

    Returns:
      The columns of the files with their names in small letters, all of them text, and two more:
      ``image``, which is the same for all observers, and ``right``, 1.0 or 0.0. No response counts
      as wrong.

    Raises:
      ResultError: if there are no files, or a file lacks a column.
    """
    import pandas as pd

    files: list[Path] = []
    for path in map(Path, paths):
        files += sorted(path.glob("*.csv")) if path.is_dir() else [path]
    if not files:
        raise ResultError(f"there is no CSV file in {', '.join(map(str, paths))}")
    parts = []
    for file in files:
        part = pd.read_csv(file, dtype=str, keep_default_na=False).rename(columns=str.lower)
        if missing := [name for name in _NEEDED if name not in part.columns]:
            raise ResultError(f"{file} has no column {', '.join(missing)}")
        parts.append(part)
    trials = pd.concat(parts, ignore_index=True)
    trials["image"] = trials["imagename"].map(_image)
    trials["right"] = (trials["object_response"] == trials["category"]).astype(float)
    return trials


def _image(name: str) -> str:
    """The part of a file name that is the same for all observers.

    A photograph of ImageNet ends with its WordNet number and its own: "0001_cop_s01_c30_knife_10_"
    "n03041632_7380.png" is "n03041632_7380.png". Of others it is the part behind the last "_".
    """
    parts = Path(name).name.split("_")
    return "_".join(parts[-2:] if len(parts) > 1 and parts[-2].startswith("n0") else parts[-1:])


def decisions(result: Result, files: Sequence[str]) -> "pd.DataFrame":
    """The decisions of a network about the stimuli of a study, as trials.

    Args:
      result: a result of the suite "clean" on a folder of the stimuli with a folder for each
        category, such as "folder:stimuli".
      files: the files of this folder, ``data.load("folder:stimuli", split).files``. In their names,
        the fourth part is the condition: "0001_cop_dnn_c30_knife_10_n03041632_7380.png".

    Returns:
      The columns of ``read_trials``. ``right`` is the share of the network's decisions.
    """
    import pandas as pd

    names = [Path(files[int(index)]).name for index in result.arrays["index"]]
    parts = [name.split("_") for name in names]
    return pd.DataFrame(
        {
            "subj": result.identity["network"]["name"],
            "object_response": [result.class_name(label) for label in result.arrays["predicted"]],
            "category": [result.class_name(label) for label in result.arrays["label"]],
            "condition": [each[3] if len(each) > 4 else "0" for each in parts],
            "imagename": names,
            "image": list(map(_image, names)),
            "right": result.arrays["right"].mean(axis=1, dtype=np.float64),
        }
    )


def consistencies(trials: "pd.DataFrame") -> "pd.DataFrame":
    """The error consistency of each pair of observers in each condition.

    Args:
      trials: those of several observers, of ``read_trials`` and ``decisions``; put them together
        with ``pandas.concat``.

    Returns:
      A row for each pair that has seen the same images: ``condition``, ``observer``, ``other``,
      ``images``, ``accuracy``, ``other accuracy``, and ``value``, ``low`` and ``high`` of the
      consistency.
    """
    import pandas as pd

    rows = []
    for condition, each in trials.groupby("condition"):
        shares = each.pivot_table(index="image", columns="subj", values="right", aggfunc="mean")
        for one, other in itertools.combinations(shares.columns, 2):
            both = shares[[one, other]].dropna().to_numpy()
            if len(both):
                found = error_consistency(both[:, 0], both[:, 1])
                rows.append(
                    {
                        "condition": condition, "observer": one, "other": other,
                        "images": len(both), "accuracy": both[:, 0].mean(),
                        "other accuracy": both[:, 1].mean(), "value": found.value,
                        "low": found.low, "high": found.high,
                    }
                )  # fmt: skip
    return pd.DataFrame(rows)
