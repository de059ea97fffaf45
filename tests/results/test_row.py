"""The row: its label, its file name, and which rows are of one condition."""

import itertools

from vone_jax import results

CLEAN = {"condition": "clean", "number": "accuracy"}
PGD = {"condition": "attack", "attack": "PGD", "norm": "linf", "eps": 4 / 255, "steps": 64}
# Rows of a network with noise, all of different conditions.
NOISY = [
    CLEAN | {"draws": 10},
    CLEAN | {"draws": 10, "decision": "vote:8"},
    CLEAN | {"draws": 1, "noise": "frozen"},
    CLEAN | {"draws": 10, "noise": "neuronal 0.35, 0.07, 1"},
    CLEAN | {"draws": 10, "tag": "again"},
    PGD | {"draws": 10},
    PGD | {"draws": 10, "attack_noise": "none"},
    PGD | {"draws": 10, "attack_noise": "frozen"},
    PGD | {"draws": 10, "noise": "frozen"},
    PGD | {"draws": 10, "steps": 256},
    PGD | {"draws": 10, "norm": "l2"},
    PGD | {"draws": 10, "eps": 8 / 255},
    PGD | {"draws": 10, "attack": "strongest of PGD, APGD", "steps": 9},
    {"condition": "minimal", "attack": "FMN", "norm": "linf", "steps": 100, "draws": 10},
    {"condition": "corruption", "corruption": "fog", "severity": 3, "draws": 10},
    {"condition": "corruption", "corruption": "fog", "severity": 3, "form": "uint8", "draws": 10},
    {"condition": "physiology", "layer": "v1", "draws": 10},
    # Columns of a kind of a user.
    {"condition": "dark rooms", "power": 2.5, "draws": 10},
    {"condition": "dark rooms", "power": 2.5, "grey": True, "draws": 10},
    {"condition": "dark rooms", "power": 2.5, "grey": False, "draws": 10},
    {"condition": "dark rooms", "walls": ["red", "blue"], "levels": [1, 2.5], "draws": 10},
]


def test_labels_say_what_a_number_is():
    assert [results.label(row) for row in NOISY] == [
        "clean",
        "clean, vote:8",
        "clean, frozen noise",
        "clean, neuronal 0.35, 0.07, 1",
        "clean, again",
        "PGD L∞ 4/255, 64 steps",
        "PGD L∞ 4/255, 64 steps, attacked without noise",
        "PGD L∞ 4/255, 64 steps, attacked under frozen noise",
        "PGD L∞ 4/255, 64 steps, frozen noise",
        "PGD L∞ 4/255, 256 steps",
        "PGD L2 0.01569, 64 steps",
        "PGD L∞ 8/255, 64 steps",
        "strongest of PGD, APGD L∞ 4/255, 9 steps",
        "minimal L∞, FMN, 100 steps",
        "fog, severity 3",
        "fog, severity 3, uint8",
        "physiology, v1",
        "dark rooms, power 2.5",
        "dark rooms, power 2.5, grey",
        "dark rooms, power 2.5, not grey",
        "dark rooms, walls red blue, levels 1 2.5",
    ]


def test_different_labels_have_different_files_and_are_different_conditions():
    for one, other in itertools.combinations(NOISY, 2):
        assert results.stem(one) != results.stem(other)
        assert results.condition_key(one) != results.condition_key(other)
        assert not results.same_condition(one, other)
    assert results.stem(NOISY[5]) == "attack-pgd-linf-0.0156863-64-steps"
    assert results.stem(NOISY[3] | {"tag": "My.tag"}) == "clean-neuronal-0.35-0.07-1-My.tag"


def test_a_network_without_noise_meets_a_noisy_one_under_any_decision_and_noise():
    for base in (CLEAN, PGD):
        met = [row for row in NOISY if results.same_condition(base, row)]
        assert met == [row for row in NOISY if row.get("tag") is None and all(
            row.get(name) == base.get(name) for name in ("condition", "attack", "steps", "eps",
                                                         "norm", "corruption"))]  # fmt: skip
    # A VOneNet whose noise is switched off is not one that has its noise.
    off = PGD | {"noise": "none"}
    assert not results.same_condition(off, PGD | {"draws": 10})
    assert results.same_condition(off, PGD) and results.same_condition(off, off)
    assert not results.same_condition(off, PGD | {"noise": "frozen", "draws": 1})


def test_noise_that_is_added_for_the_attack_sets_an_attack_on_a_quiet_network_apart():
    """Such an attack stood in for the plain one where a network lacked the plain one."""
    off = PGD | {"noise": "none"}
    seen = {"attack_noise": "gaussian 1"}
    for quiet in (PGD, off):
        assert not results.same_condition(quiet | seen, PGD | {"draws": 10})
        assert not results.same_condition(quiet | seen, off)
        assert results.same_condition(quiet | seen, off | seen)
    assert results.same_condition(PGD, off | seen)


def test_what_is_no_condition_is_compared_all_the_same():
    """The number of draws, images and seeds: a comparison names them."""
    one = PGD | {"draws": 10, "attack_draws": 10, "examples": 100, "seed": 0, "network": "a"}
    two = PGD | {"draws": 20, "attack_draws": 1, "examples": 50, "seed": 1, "network": "b"}
    assert results.same_condition(one, two)
    assert not results.same_condition(one | {"number": "accuracy"}, two)
    # How a number is shown sets nothing apart, and what nobody knows does.
    shown = {"unit": "share", "main": True, "section": "x", "note": "y", "of": "right"}
    assert results.same_condition(one, two | shown)
    assert not results.same_condition(one, two | {"strength": 2})
