"""Means over corruptions, made from their results: by corruption, by category, and mCE."""

from collections.abc import Sequence
from typing import Any

from vone_jax.corruptions import SETS, SEVERITIES, mce
from vone_jax.evaluation import store
from vone_jax.evaluation.runner import Job, now

# AlexNet's errors, by which mCE is normalised, are those on ImageNet-C.
_CLASSES, _SIDE = 1000, 224


def write(job: Job, records: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Writes the means over the common corruptions among the results.

    Args:
      job: what the results have in common.
      records: results; those of other kinds are left out, but for the clean accuracy, which the
        relative mCE needs.

    Returns:
      The content of the file, or None if a category has no corruption that was measured.
    """
    corrupted = [record for record in records if record["kind"] == "corruption"]
    clean = [record["accuracy"] for record in records if record["kind"] == "clean"]
    forms = sorted({record["condition"]["form"] for record in corrupted})
    accuracy: dict[str, dict[int, float]] = {}
    for record in corrupted:
        condition = record["condition"]
        accuracy.setdefault(condition["corruption"], {})[condition["severity"]] = record["accuracy"]
    imagenet = job.subject.image_size == _SIDE and job.subject.num_classes() == _CLASSES
    means = summarise(accuracy, clean[0] if clean else None, imagenet)
    if means is None:
        return None
    condition = {
        "form": ", ".join(forms),
        "corruptions": list(accuracy),
        "severities": sorted({severity for found in accuracy.values() for severity in found}),
        "clean": bool(clean),
    }
    suffix = "" if condition["form"] == "float" else f"-{condition['form']}"
    identity = job.identity("corruption_means", f"corruption-means{suffix}", condition)
    try:
        previous = store.finished(job.results, identity)
    except store.ResultError:
        # Of other corruptions, perhaps. It is made from the results that count, so no loss.
        previous = None
    if previous is not None:
        return previous
    record = job.record(identity, now(), 0.0) | {"means": means}
    store.publish(job.results, record, {"severities": condition["severities"]})
    return record


def summarise(
    accuracy: dict[str, dict[int, float]], clean: float | None, imagenet: bool
) -> dict[str, Any] | None:
    """Means of accuracies ``accuracy[corruption][severity]``.

    Two rules are in use: the mean of the 15 corruptions, and the mean of the four categories,
    which counts the three kinds of noise as much as the four of each other category. The extra
    corruptions of ImageNet-C belong to neither; the drawn frost takes the place of frost.

    Args:
      accuracy: shares from 0 to 1.
      clean: accuracy on images without corruption, if known.
      imagenet: whether the images are ImageNet's at 224 pixels, so that AlexNet's errors apply.

    Returns:
      ``of_corruptions``, ``of_categories`` and ``categories`` as shares; ``mce`` and
      ``relative_mce`` in percent or None; ``note``. None if a category has no corruption.
    """
    measured = {name: sum(found.values()) / len(found) for name, found in accuracy.items()}
    drawn = "frost" not in measured and "frost_procedural" in measured
    if drawn:
        measured["frost"] = measured["frost_procedural"]
    members = {
        category: [measured[name] for name in SETS[category] if name in measured]
        for category in mce.CATEGORIES
    }
    if not all(members.values()):
        return None
    categories = {category: sum(found) / len(found) for category, found in members.items()}
    common = [value for found in members.values() for value in found]
    means: dict[str, Any] = {
        "of_corruptions": sum(common) / len(common),
        "of_categories": sum(categories.values()) / len(categories),
        "categories": categories,
        "mce": None,
        "relative_mce": None,
        "note": f"Over {len(common)} of the 15 common corruptions"
        + (", with a drawn texture in the place of frost." if drawn else "."),
    }
    whole = all(sorted(accuracy.get(name, {})) == list(SEVERITIES) for name in SETS["common"])
    if not whole:
        means["note"] += " Corruption errors (mCE) need all 15 at all five severities."
    elif not imagenet:
        means["note"] += " Corruption errors (mCE) are defined on ImageNet at 224 pixels."
    else:
        errors = {
            name: {severity: 1 - share for severity, share in accuracy[name].items()}
            for name in SETS["common"]
        }
        means["mce"] = mce.mean_corruption_error(errors)
        if clean is not None:
            means["relative_mce"] = mce.relative_mean_corruption_error(errors, 1 - clean)
    return means
