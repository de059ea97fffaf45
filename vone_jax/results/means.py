"""The mean accuracy over corruptions, and the mean corruption error, from a data frame."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vone_jax.names import (
    C_BAR_CORRUPTIONS,
    COMMON_CORRUPTIONS,
    CORRUPTION_CATEGORIES,
    EXTRA_CORRUPTIONS,
    PROCEDURAL_FROST,
    SEVERITIES,
)
from vone_jax.results import mce
from vone_jax.results.row import SHOWN, label, ordered

if TYPE_CHECKING:
    import pandas as pd

_AVERAGED = (*COMMON_CORRUPTIONS, PROCEDURAL_FROST)
_UNAVERAGED = (*EXTRA_CORRUPTIONS, *C_BAR_CORRUPTIONS)
# Clean images agree with corruptions in these.
_OF_CLEAN = ("network", "noise", "decision", "draws", "examples", "seed", "tag", "number")
# Corruptions of one network that differ in these alone, or in numbers, are averaged.
_VARYING = ("corruption", "severity", "category", "run", "label", "dataset", "split")
# Columns of a frame that are fields of the identity.
_OF_IDENTITY = ("matmul_precision", "dtype")
_NUMBERS = ("value", "low", "high")
# ImageNet's own classes at 224 pixels, for which AlexNet's errors are known.
_IMAGENET = {"dataset.classes": 1000, "dataset.wordnet": True, "network.image_size": 224}
# Which images they are. Two folders may have the same name.
_SET = ("dataset.name", "dataset.fingerprint")
# Corruption and severity -> the row of the frame.
_Group = dict[tuple[str, int], dict[Any, Any]]


def means(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Means over the common corruptions that were measured.

    A mean is over corruptions of one data set. "mean over corruptions" is the published mean: over
    the 15 common corruptions at severities 1 to 5, each of the same weight. Any other is named by
    what it is over, such as "mean over 7 of 15 corruptions, severity 3", at the severities that all
    of them have. So are the means of categories, such as "mean over weather". "mean over 4
    categories" gives the three kinds of noise as much weight as the four corruptions of each other
    category. The extra corruptions are in no mean. Where frost was not measured, its drawn texture
    takes its place. Corruptions of one's own whose rows say a category have a mean that names them,
    such as "mean over light (shadow, glare)", and are in no other. What differs in any other column
    is in no common mean.

    The ends of an interval are the means of those of the corruptions: it is right if the same
    images are hard in all of them, and too wide otherwise.

    Args:
      frame: that of ``Runs.to_frame``, or a part of it.

    Returns:
      A row for each mean, with the columns ``label`` and those of ``results.row``, whose condition
      is the mean in words. ``category`` is that of the corruptions: "" for all of them, and "all"
      for the mean over categories. ``over`` lists the corruptions and severities, since means of
      equal labels can be over different ones. ``weights`` has the weight of each label of the
      frame. "mCE" and "relative mCE", in percent and without interval, are there where they are
      defined: for all 75 conditions on ImageNet's own 1,000 classes at 224 pixels, with the
      photographs of frost.
    """
    import pandas as pd

    used = [name for name in frame if "." not in name or name in (*_IMAGENET, *_SET)]
    records = [
        {name: row[name] for name in used if isinstance(row[name], list) or pd.notna(row[name])}
        for row in frame.to_dict("records")
    ]
    accuracies = [row for row in records if row.get("number") == "accuracy" and "value" in row]
    groups: dict[tuple, _Group] = {}
    own: dict[tuple[tuple, str], _Group] = {}
    for row in accuracies:
        if not {"corruption", "severity"} <= row.keys():
            continue
        shared = (frozenset(_shared(row)), _set_of(row))
        if row["corruption"] in _AVERAGED:
            groups.setdefault(shared, {})[row["corruption"], int(row["severity"])] = row
        elif "category" in row and row["corruption"] not in _UNAVERAGED:
            group = own.setdefault((shared, row["category"]), {})
            group[row["corruption"], int(row["severity"])] = row
    rows = []
    for shared, group in groups.items():
        common = _common(shared)
        same = (row for row in accuracies if row["condition"] == "clean")
        same = (r for r in same if all(r.get(name) == common.get(name) for name in _OF_CLEAN))
        # Published images have no clean ones beside them.
        is_published = common.get("form") == "published"
        same = (r for r in same if is_published or _set_of(r) == shared[-1])
        clean = next((row["value"] for row in same), None)
        rows += [common | mean for mean in _of_group(group, clean)]
    rows += [
        _common(shared) | _of_own(group, category)
        for (shared, category), group in own.items()
        if len(group) > 1
    ]
    columns = ["label", *ordered(name for row in rows for name in row if "." not in name)]
    columns = [*dict.fromkeys([*columns, "category", "over", "weights"])]
    labelled = [row | {"label": label(row)} for row in rows]
    return pd.DataFrame(labelled).reindex(columns=columns)


def _shared(row: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The columns that the corruptions of a mean share."""
    for name, each in row.items():
        if name not in (*_VARYING, *_NUMBERS, *_OF_IDENTITY, *SHOWN) and "." not in name:
            yield name, tuple(each) if isinstance(each, list) else each


def _common(shared: tuple) -> dict[str, Any]:
    return dict(sorted(shared[0]))


def _set_of(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """The data set of a row; of a published corruption, the folder that has all of them."""
    if row.get("form") == "published":
        return (str(row.get("dataset.name")).removesuffix(row["corruption"]),)
    return tuple(map(row.get, ("dataset", "split", "dataset.fingerprint")))


def _of_own(group: _Group, category: str) -> dict[str, Any]:
    """The mean over corruptions of one's own, each of the same weight."""
    members = list(dict.fromkeys(name for name, _ in group))
    severities = sorted({s for _, s in group if all((name, s) in group for name in members)})
    listed = ", ".join(members).replace("_", " ")
    said = [f"mean over {category} ({listed})", _severities(severities)]
    shares = dict.fromkeys(members, 1 / len(members))
    return _mean(group, severities, said, category, shares)


def _mean(
    group: _Group,
    severities: Sequence[int],
    said: Sequence[str],
    category: str,
    shares: Mapping[str, float],
) -> dict[str, Any]:
    """A mean with a share for each corruption, which its severities have in equal parts."""
    chosen = [at for at in group if at[0] in shares and (at[1] in severities or not severities)]
    counts = Counter(name for name, _ in chosen)
    weights = {at: shares[at[0]] / counts[at[0]] for at in sorted(chosen)}
    first = next(iter(group.values()))
    # A condition that is not called by the corruption is named, as in labels.
    kind = [] if first["condition"] in first else [first["condition"]]
    return {
        "condition": ", ".join([*said, *kind]),
        "category": category,
        "unit": "share",
        "over": _over(shares, weights, severities),
        "weights": {group[at]["label"]: weight for at, weight in weights.items()},
        **{n: sum(w * group[at][n] for at, w in weights.items()) for n in _NUMBERS},
    }


def _of_group(group: _Group, clean: float | None) -> Iterator[dict[str, Any]]:
    """The condition, the number and what it is over, of each mean of one network."""
    drawn = [at for at in group if at[0] == PROCEDURAL_FROST]
    photographs = any(name == "frost" for name, _ in group)
    for at in drawn:
        row = group.pop(at)
        if not photographs:
            group["frost", at[1]] = row
    measured = [name for name in COMMON_CORRUPTIONS if any(name == at[0] for at in group)]
    severities = [s for s in SEVERITIES if all((name, s) in group for name in measured)]
    level = _severities(severities)

    def mean(words: str, category: str, shares: Mapping[str, float]) -> dict[str, Any]:
        said = [words]
        said += [level] if severities != list(SEVERITIES) else []
        said += ["drawn frost"] if drawn and not photographs and "frost" in shares else []
        return _mean(group, severities, said, category, shares)

    for category, members in {"": COMMON_CORRUPTIONS, **CORRUPTION_CATEGORIES}.items():
        of = [name for name in measured if name in members]
        words = f"mean over {category or 'corruptions'}"
        if len(of) < len(members):
            kind = f"{category} corruptions".strip()
            words = f"mean over {len(of)} of {len(members)} {kind}"
        if len(of) > 1:
            yield mean(words, category, dict.fromkeys(of, 1 / len(of)))
    if len(measured) < len(COMMON_CORRUPTIONS):
        return
    whole = CORRUPTION_CATEGORIES.values()
    shares = {name: 1 / len(each) / len(whole) for each in whole for name in each}
    yield mean("mean over 4 categories", "all", shares)
    first = next(iter(group.values()))
    on_imagenet = all(first.get(name) == value for name, value in _IMAGENET.items())
    if (drawn and not photographs) or severities != list(SEVERITIES) or not on_imagenet:
        return
    errors = {
        name: {s: 1 - group[name, s]["value"] for s in SEVERITIES} for name in COMMON_CORRUPTIONS
    }
    numbers = {"mCE": mce.mean_corruption_error(errors)}
    if clean is not None:
        numbers["relative mCE"] = mce.mean_corruption_error(errors, 1 - clean)
    equal = mean("mean over corruptions", "", dict.fromkeys(measured, 1 / len(measured)))
    for number, value in numbers.items():
        yield equal | {"number": number, "value": value, "low": None, "high": None, "unit": "%"}


def _over(
    names: Iterable[str], chosen: Iterable[tuple[str, int]], severities: Sequence[int]
) -> str:
    """The corruptions and severities of a mean in words, the same for the same ones only."""
    if severities:
        return f"{', '.join(names).replace('_', ' ')}; {_severities(severities)}"
    of = {name: [str(severity) for each, severity in chosen if each == name] for name in names}
    return "; ".join(f"{n.replace('_', ' ')} {', '.join(each)}" for n, each in of.items())


def _severities(severities: Sequence[int]) -> str:
    if not severities:
        return "at different severities"
    if list(severities) == list(SEVERITIES):
        return "severities 1 to 5"
    several = "severities" if len(severities) > 1 else "severity"
    return f"{several} {', '.join(map(str, severities))}"
