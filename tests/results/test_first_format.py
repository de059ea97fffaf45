"""Files of format 1, which earlier versions wrote, read as those of the present format."""

import dataclasses
import json
import shutil

import pytest

from tests.results import built
from vone_jax import results

VONE = "attack-linf-0.06275"


@pytest.fixture(scope="module")
def vone(first_format):
    """The results of a VOneNet by name."""
    (run,) = results.load([first_format / "vone"])
    return {result.name: result for result in run.results}


def test_an_attack_is_no_text_any_more(vone, first_format):
    result = vone[VONE]
    (attack,) = result.condition.attacks
    old = json.loads((first_format / "vone" / "results" / f"{VONE}.json").read_text())
    assert (attack.name, attack.norm, attack.eps) == ("PGD", "linf", 16 / 255)
    assert attack.fields["steps"] == 64 and attack.fields["random_start"] is False
    assert attack.fields["step_size"] is None and attack.fields["step_rule"] == "eps/32"
    assert str(attack) == old["condition"]["attack"]
    assert attack.eps_label == old["condition"]["eps_label"] == "16/255"
    assert result.condition.eot_samples == 10
    assert result.accuracy == old["accuracy"] and list(result.interval) == old["interval"]
    assert result.measured.correct == old["sums"]["correct"]
    assert len(result.arrays["index"]) == result.images == 200
    assert result.network.weights == old["weights"]
    assert result.network.trained_noise == results.Noise("neuronal", 0.35, 0.07)
    assert result.network.config == old["config"]


@pytest.mark.parametrize(
    ("name", "noise", "change", "protocol"),
    [
        ("", "same", "", "fresh"),
        ("-frozen", "same", "", "frozen"),
        ("-frozen-attack", "frozen", "", "fresh"),
        ("-noise-free", "none", "", "fresh"),
        ("-test-none", "same", "noise removed", "none"),
        (
            "-attacked-neuronal-0.35-0.07-1-test-none",
            results.Noise("neuronal", 0.35, 0.07),
            "noise removed",
            "none",
        ),
    ],
)
def test_controls_of_the_noise(vone, name, noise, change, protocol):
    result = vone[VONE + name]
    assert result.attack_noise == noise
    assert result.network.noise_change == change
    assert result.protocol.noise == protocol


def test_noise_behind_a_stem_is_read(first_format, tmp_path):
    path = tmp_path / "clean.json"
    shutil.copy(first_format / "base" / "results" / path.name, path)
    noise = {"kind": "GaussianNoise", "scale": 4}
    built.edit(path, config__model__stem_noise=noise)
    network = results.read(path).network
    assert network.trained_noise == network.test_noise == results.Noise("gaussian", 4.0)


def test_several_attacks_are_all_read(first_format, tmp_path):
    path = tmp_path / f"{VONE}.json"
    shutil.copy(first_format / "vone" / "results" / path.name, path)
    both = "WorstOf(PGD(norm='linf', eps=0.1, steps=2), APGD(norm='linf', eps=0.1))"
    won = {"PGD": 150, "APGD": 40, "clean": 10}
    built.edit(path, condition__attack=both, won=won)
    read = results.read(path)
    assert read.condition.attack_name == "Worst of PGD, APGD"
    assert read.measured.won == (150, 40, 10)


def test_every_kind_is_read(vone, first_format):
    (base,) = results.load([first_format / "base"])
    (tiny,) = results.load([first_format / "tiny"])
    kinds = {result.kind: result for result in (*base.results, *tiny.results, *vone.values())}
    assert set(kinds) == {
        *("clean", "attack", "corruption", "corruption_means", "masking", "minimal", "gallery"),
        *("v1", "physiology"),
    }
    assert kinds["corruption"].condition == results.CorruptionCondition("fog", 3)
    assert kinds["corruption_means"].measured.categories.keys() == {
        *("noise", "blur", "weather", "digital")
    }
    checks = kinds["masking"].measured
    assert checks.count("pass") > 5 and checks.checks[0].name == "logits"
    assert kinds["masking"].condition.attacks["eps"].eps == 16 / 255
    rungs = kinds["minimal"].measured.ladder
    assert len(rungs) == 9 and rungs[0].eps == pytest.approx(1 / 4080)
    assert kinds["gallery"].condition.selection == "first"
    assert kinds["physiology"].measured.scores.properties["pref_or"].score > 0
    assert kinds["v1"].arrays["kernels_in_phase"].shape == (8, 9, 9)
    assert len(base.log) == 3 and base.config["experiment"]["name"] == "laboratory-base"


def test_a_result_of_format_1_is_written_in_the_present_format(vone, tmp_path):
    for result in vone.values():
        path = results.write(tmp_path, result)
        assert json.loads(path.read_text())["format"] == results.FORMAT
        assert results.to_json(results.read(path)) == results.to_json(result)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"condition__attack": "import os"}, "invalid syntax"),
        ({"condition__attack": "1 + 1"}, "is not the name of a class"),
        ({"condition__attack": "PGD(steps=3)"}, "has no norm"),
        ({"condition": "none"}, "damaged"),
        ({"sums": None}, "lacks 'sums'"),
        ({"model": None}, "lacks 'model'"),
        ({"accuracy": 0.5}, "correct / seen"),
        ({"kind": "telepathy"}, "telepathy"),
    ],
)
def test_damaged_files_are_named(first_format, tmp_path, changes, part):
    path = tmp_path / f"{VONE}.json"
    shutil.copy(first_format / "vone" / "results" / path.name, path)
    built.edit(path, **changes)
    with pytest.raises(results.ResultError) as caught:
        results.read(path)
    assert part in str(caught.value) and path.name in str(caught.value)


def test_a_field_that_an_experiment_did_not_have_yet_is_no_difference(first_format):
    old = results.read(first_format / "base" / "results" / "clean.json")
    config = old.network.config
    newer = dataclasses.replace(
        old.network, config=config | {"new": {"field": None}}, image_size=32
    )
    identity = results.Identity(
        old.name, newer, old.dataset, old.condition, old.protocol, old.key, old.matmul_precision
    )
    assert results.differences(identity, old) == []
    counted = dataclasses.replace(identity, network=dataclasses.replace(newer, parameters=1))
    assert results.differences(counted, old) == []
    other = dataclasses.replace(old.network, config=config | {"seed": 99})
    identity = dataclasses.replace(identity, network=other)
    assert results.differences(identity, old) == ["network.config.seed is 99, was 0"]


def test_images_that_were_not_moved_are_no_difference_to_earlier_files(first_format):
    """A part of a result is compared as JSON values, and an earlier version wrote no ``moved``."""
    old = results.read(first_format / "base" / "results" / "clean.json")
    attack = results.Attack("FMN", "l2", 1.0, {})
    for moved, named in ((False, []), (True, ["condition.moved is true, was absent"])):
        condition = results.MinimalCondition(attack, (1.0,), moved=moved)
        ours = results.Identity(
            old.name, old.network, old.dataset, condition, old.protocol, old.key, "highest"
        )
        theirs = results.to_json(ours)
        theirs["condition"]["moved"] = not moved
        assert len(results.differences(ours, theirs)) == 1
        del theirs["condition"]["moved"]
        assert results.differences(ours, theirs) == named


def test_a_field_without_effect_is_no_difference(first_format):
    """A run may go on with other values of these, see ``experiments.experiment_files``."""
    old = results.read(first_format / "base" / "results" / "clean.json")
    moved = {
        **old.network.config,
        "keep_checkpoints": 7,
        "data": {**old.network.config["data"], "workers": 5},
    }
    assert moved != old.network.config
    network = dataclasses.replace(old.network, config=moved)
    assert results.differences(dataclasses.replace(old, network=network), old) == []
    both = [
        dataclasses.replace(old, network=dataclasses.replace(network, config={"members": [each]}))
        for each in (old.network.config, moved)
    ]
    assert results.differences(*both) == []
    moved["data"]["batch_size"] = 3
    (named,) = results.differences(*both)
    assert named.startswith("network.config.members[0].data.batch_size is ")
