"""Means over corruptions by both rules, and when corruption errors may be given."""

import json

import numpy as np
import pytest

from tests.evaluation import tiny
from vone_jax import evaluation
from vone_jax.corruptions import SETS, mce
from vone_jax.evaluation import corruption_means
from vone_jax.report.load import load_runs


def table(share, names=SETS["common"]):
    return {name: {severity: share for severity in range(1, 6)} for name in names}


def test_both_rules():
    """Three kinds of noise at 0.9 and twelve others at 0.1: 0.26 against 0.3."""
    accuracy = table(0.1) | table(0.9, SETS["noise"])
    means = corruption_means.summarise(accuracy, None, imagenet=False)
    assert means["of_corruptions"] == pytest.approx((3 * 0.9 + 12 * 0.1) / 15)
    assert means["of_categories"] == pytest.approx((0.9 + 3 * 0.1) / 4)
    assert means["categories"] == pytest.approx({"noise": 0.9, "blur": 0.1, "weather": 0.1,
                                                 "digital": 0.1})  # fmt: skip
    # The extra corruptions do not count.
    more = accuracy | table(1.0, SETS["extra"])
    assert corruption_means.summarise(more, None, imagenet=False) == means


def test_alexnet_has_an_mce_of_one_hundred():
    accuracy = {
        name: {severity: 1 - error for severity in range(1, 6)}
        for name, error in mce.ALEXNET_ERRORS.items()
    }
    clean = 1 - mce.ALEXNET_CLEAN_ERROR
    means = corruption_means.summarise(accuracy, clean, imagenet=True)
    assert (means["mce"], means["relative_mce"]) == (pytest.approx(100), pytest.approx(100))
    assert means["note"] == "Over 15 of the 15 common corruptions."
    assert corruption_means.summarise(accuracy, None, imagenet=True)["relative_mce"] is None
    means = corruption_means.summarise(accuracy, clean, imagenet=False)
    assert means["mce"] is None and "ImageNet at 224" in means["note"]


def test_an_mce_needs_all_of_it():
    accuracy = table(0.5)
    del accuracy["fog"][3]
    means = corruption_means.summarise(accuracy, 0.9, imagenet=True)
    assert means["mce"] is None and "all 15 at all five" in means["note"]
    drawn = table(0.5)
    drawn["frost_procedural"] = {s: 0.1 for s in drawn.pop("frost")}
    means = corruption_means.summarise(drawn, 0.9, imagenet=True)
    assert means["mce"] is None and "drawn texture in the place of frost" in means["note"]
    assert means["categories"]["weather"] == pytest.approx((3 * 0.5 + 0.1) / 4)
    assert corruption_means.summarise(table(0.5, SETS["noise"]), 0.9, imagenet=True) is None


def test_means_of_a_run_are_written_and_read(tmp_path):
    job = tiny.tiny_job(tiny.tiny_subject(), tmp_path / "run" / "results")
    names = ("gaussian_noise", "gaussian_blur", "brightness", "contrast", "defocus_blur")
    records = [
        evaluation.evaluate(job, condition)
        for condition in (evaluation.Clean(), *(evaluation.Corrupted(n, 2, "uint8") for n in names))
    ]
    record = corruption_means.write(job, records)
    path = tmp_path / "run" / "results" / "corruption-means-uint8.json"
    assert json.loads(path.read_text()) == record
    by_name = {r["condition"].get("corruption"): r["accuracy"] for r in records}
    common = [by_name[n] for n in names if n != "gaussian_blur"]
    assert record["means"]["of_corruptions"] == pytest.approx(np.mean(common))
    assert record["condition"]["form"] == "uint8" and record["condition"]["severities"] == [2]
    assert corruption_means.write(job, records) == record  # found finished
    (run,) = load_runs([tmp_path / "run"])
    assert len(run.of_kind("corruption_means")) == 1
    assert corruption_means.write(job, records[:2]) is None
    # Of other results it is made anew.
    assert corruption_means.write(job, records[1:])["condition"]["clean"] is False
