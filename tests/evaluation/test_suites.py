import numpy as np
import pytest
from scipy import stats

from vone_jax import corruptions, evaluation
from vone_jax.attacks import PGD, AutoAttack
from vone_jax.evaluation import intervals, labels, suites, tables

FULL = (224, 224, 3)


def test_wilson_equals_scipy():
    for correct, seen in ((0, 10), (10, 10), (3, 10), (450, 500), (1, 1)):
        expected = stats.binomtest(correct, seen).proportion_ci(0.95, "wilson")
        assert intervals.wilson(correct, seen) == pytest.approx(tuple(expected), abs=1e-9)
    low, high = intervals.wilson(4.35, 10)
    assert 0 < low < 0.435 < high < 1
    for bad in ((-1, 10), (11, 10), (0, 0), (float("nan"), 10)):
        with pytest.raises(ValueError, match="correct"):
            intervals.wilson(*bad)


def test_ladders_are_the_authors_at_full_size():
    assert evaluation.ladder("linf", 4, FULL) == pytest.approx(
        (1 / 1020, 1 / 255, 4 / 255, 16 / 255)
    )
    assert evaluation.ladder("l2", 4, FULL) == pytest.approx((0.15, 0.6, 2.4, 9.6))
    assert evaluation.ladder("l1", 4, FULL) == pytest.approx((40, 160, 640, 2560))
    whole = evaluation.ladder("l2", 9, FULL)
    assert whole[0] == 0.0375 and all(b == 2 * a for a, b in zip(whole, whole[1:], strict=False))
    assert evaluation.ladder("l1", 2, FULL) == (40.0, 160.0)


def test_ladders_of_small_images_change_values_as_much():
    small, count = (28, 28, 1), 28 * 28
    assert evaluation.ladder("linf", 4, small) == evaluation.ladder("linf", 4, FULL)
    l2 = evaluation.ladder("l2", 4, small)[0] / count**0.5
    assert l2 == pytest.approx(0.15 / (224 * 224 * 3) ** 0.5)
    assert evaluation.ladder("l1", 4, small)[0] / count == pytest.approx(40 / (224 * 224 * 3))
    for bad in (("l3", 4), ("linf", 3)):
        with pytest.raises(ValueError):
            evaluation.ladder(*bad, FULL)


@pytest.mark.parametrize(
    ("norm", "eps", "label"),
    [
        ("linf", 4 / 255, "4/255"),
        ("linf", 1 / 1020, "1/1020"),
        ("linf", 0.03, "0.03"),
        ("linf", 0.0, "0"),
        ("linf", 1.0, "255/255"),
        ("l2", 0.15, "0.15"),
        ("l1", 2560.0, "2560"),
    ],
)
def test_radii_have_their_names(norm, eps, label):
    assert labels.eps(norm, eps) == label


def test_networks_have_their_names():
    assert labels.network("vone_resnet50") == "VOneResNet-50"
    assert labels.network("cornet_s") == "CORnet-S"
    assert labels.network("vone_cornet_s") == "VOneCORnet-S"


def test_suites_expand_to_conditions():
    assert suites.expand(["linf", "quick"]) == (
        "linf",
        "clean",
        "corruptions_quick",
        "gallery",
        "v1",
    )
    settings = evaluation.Settings(corruptions=("contrast",), severities=(1, 5), eot_samples=7)
    found = suites.conditions(suites.expand(["all"]), settings, FULL, True)
    names = [condition.name for condition in found]
    assert names[0] == "clean" and names[-2:] == ["corruption-contrast-1", "corruption-contrast-5"]
    assert "attack-l2-9.6" in names and len(names) == len(set(names)) == 1 + 12 + 2
    assert found[1].attack == PGD("linf", 1 / 1020, step_rule="eps/32", eot_samples=7)
    # Each once, whatever the groups have in common.
    quick = suites.conditions(suites.expand(["quick"]), evaluation.Settings(), FULL, True)
    both = suites.conditions(
        suites.expand(["quick", "corruptions"]), evaluation.Settings(), FULL, True
    )
    assert len(quick) == 1 + 4 + 9 and len(both) == 1 + 4 + 5 * 19
    # Draws of a network without noise are all the same.
    (attacked,) = suites.conditions(["linf"], evaluation.Settings(eps=(0.1,)), FULL, False)
    assert attacked.attack.eot_samples == 1 and not attacked.noise_free_gradients
    settings = evaluation.Settings(eps=(0.1,), noise_free_gradients=True)
    (attacked,) = suites.conditions(["linf"], settings, FULL, True)
    assert attacked.attack.eot_samples == 1 and attacked.noise_free_gradients
    assert attacked.name == "attack-linf-0.1-noise-free"


def test_suites_of_other_attacks():
    """Each is named after its attack, in the norm of the settings, at 4/255 or the radii asked."""
    settings = evaluation.Settings(eot_samples=7)
    names = ("apgd", "autoattack", "square", "worst", "minimal")
    found = suites.conditions(names, settings, FULL, True)
    assert [condition.name for condition in found] == [
        "attack-apgd-linf-0.01569",
        "attack-autoattack-linf-0.01569",
        "attack-square-linf-0.01569",
        "attack-worst-linf-0.01569",
        "minimal-fmn-linf",
    ]
    records = [condition.record() for condition in found]
    # The members of AutoAttack's version for stochastic networks average over 20.
    assert [record["eot_samples"] for record in records] == [7, 20, 7, 7, 7]
    assert found[1].attack == AutoAttack("linf", 4 / 255, version="rand")
    assert found[3].attacks[0] == settings.attack("linf", 4 / 255)
    assert found[4].radii == evaluation.ladder("linf", 9, FULL)
    quiet = suites.conditions(names, settings, FULL, False)
    assert quiet[1].attack == AutoAttack("linf", 4 / 255, version="standard")
    assert [condition.record()["eot_samples"] for condition in quiet] == [1] * 5
    settings = evaluation.Settings(norm="l1", eps=(3.0, 6.0))
    found = suites.conditions(["apgd", "minimal"], settings, FULL, False)
    assert [condition.name for condition in found] == [
        "attack-apgd-l1-3", "attack-apgd-l1-6", "minimal-fmn-l1"
    ]  # fmt: skip
    assert found[2].radii == (3.0, 6.0)


def test_the_checks_for_masked_gradients_are_a_suite():
    settings = evaluation.Settings(norm="l2", eot_samples=7)
    assert suites.conditions(["masking"], settings, FULL, True) == []
    (condition,) = suites.masking(settings, FULL, True, "base")
    assert condition == evaluation.Masking("l2", 2.4, True, "base", eot_samples=7)
    record = condition.record()
    assert record["eps_label"] == "2.4" and record["transfer"] == "base"
    assert record["attacks"]["eps"] == record["attack"]
    assert "eot_samples=28" in record["attacks"]["4 k draws"]
    (condition,) = suites.masking(settings, FULL, False)
    assert condition.record()["eot_samples"] == 1 and "without noise" not in condition.attacks()


def test_forms_of_corrupted_images_have_their_names():
    settings = evaluation.Settings(corruptions=("contrast",), severities=(3,), form="jpeg85")
    (condition,) = suites.conditions(["corruptions"], settings, FULL, True)
    assert condition.name == "corruption-contrast-3-jpeg85"
    assert condition.record()["form"] == "jpeg85"


def test_frost_needs_its_photographs(tmp_path):
    found = suites.conditions(["corruptions"], evaluation.Settings(), FULL, True)
    names = {condition.corruption for condition in found}
    assert names == {*corruptions.NAMES} - {"frost"}
    with pytest.raises(ValueError, match="frost_images must be given"):
        evaluation.Corrupted("frost", 1)
    with pytest.raises(ValueError, match="photographs frost_dir must name"):
        evaluation.Settings(corruptions=("frost",))
    with pytest.raises(FileNotFoundError, match="lacks the frost images"):
        settings = evaluation.Settings(frost_dir=tmp_path)
        suites.conditions(["corruptions"], settings, FULL, True)
    photographs = corruptions.FrostImages((np.zeros((300, 300, 3), np.uint8),))
    condition = evaluation.Corrupted("frost", 1, frost_images=photographs)
    assert condition.name == "corruption-frost-1"


@pytest.mark.parametrize(
    ("names", "message"),
    [(["lnf"], "did you mean 'linf'"), (["corruption"], "'corruptions'"), ([], "at least one")],
)
def test_unknown_suites_are_refused(names, message):
    with pytest.raises(ValueError, match=message):
        suites.expand(names)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(points=3), "points must be one of 9, 4, 2; got 3"),
        (dict(eps=(-1.0,)), "eps must be"),
        (dict(steps=0), "steps must be"),
        (dict(step_rule="eps"), "step_rule must be one of"),
        (dict(loss="mse"), "loss must be one of"),
        (dict(restarts=0), "restarts must be"),
        (dict(eot_samples=0), "eot_samples must be"),
        (dict(l1_step="x"), "l1_step must be one of"),
        (dict(norm="l0"), "norm must be one of"),
        (dict(form="png"), "form must be one of float, uint8, jpeg85"),
        (dict(corruptions=("contrasts",)), "did you mean 'contrast'"),
        (dict(severities=(6,)), "severity must be an integer from 0 to 5"),
    ],
)
def test_settings_out_of_range_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        evaluation.Settings(**fields)


def test_radii_for_several_norms_are_refused():
    settings = evaluation.Settings(eps=(0.1,))
    for names in (["linf", "l2"], ["l2", "apgd"], ["l2", "masking"]):
        with pytest.raises(ValueError, match="l2, linf"):
            suites.conditions(names, settings, FULL, True)
    with pytest.raises(ValueError, match="attack in none"):
        suites.conditions(["clean"], settings, FULL, True)


def test_the_table_has_a_line_per_measured_result():
    record = {
        "kind": "attack",
        "condition": {**evaluation.Attacked(PGD("linf", 4 / 255)).record()},
        "accuracy": 0.5,
        "interval": [0.4, 0.6],
        "sums": {"seen": 100},
    }
    lines = tables.table([record, {"kind": "v1"}]).splitlines()
    assert len(lines) == 3 and lines[2].split() == [
        "PGD", "linf", "4/255", "50.0", "40.0", "to", "60.0", "100"
    ]  # fmt: skip
    assert tables.table([{"kind": "v1"}]) == ""


def test_corruptions_that_images_are_too_small_for_are_named_when_it_is_planned():
    settings = suites.Settings()
    assert suites.conditions(("corruptions_quick",), settings, (11, 11, 1), False)
    with pytest.raises(ValueError, match="defocus_blur needs images larger than 10 pixels"):
        suites.conditions(("clean", "corruptions_quick"), settings, (8, 8, 1), False)
