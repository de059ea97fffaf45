"""Noise in place of the trained one: at the test or the attack only, and what results say."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from tests.evaluation import tiny
from vone_jax import evaluation, models, v1
from vone_jax.attacks import PGD
from vone_jax.evaluation import other_noise
from vone_jax.evaluation.judging import Trial
from vone_jax.evaluation.protocol import Protocol

ATTACK = PGD("linf", 0.05, steps=2, eot_samples=2)
GIVEN = v1.GaussianNoise(2.0)


@pytest.mark.parametrize(
    ("text", "noise", "label"),
    [
        ("none", None, "none"),
        ("trained", GIVEN, "gaussian-2"),
        ("neuronal", v1.NeuronalNoise(), "neuronal-0.35-0.07-1"),
        ("neuronal:0.5,0.1", v1.NeuronalNoise(0.5, 0.1), "neuronal-0.5-0.1-1"),
        ("neuronal:0.5,0.1,2", v1.NeuronalNoise(0.5, 0.1, 2.0), "neuronal-0.5-0.1-2"),
        ("gaussian:4", v1.GaussianNoise(4.0), "gaussian-4"),
    ],
)
def test_texts_stand_for_noise(text, noise, label):
    assert other_noise.parse("test_noise", text, GIVEN) == noise
    assert other_noise.label(noise) == label


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("loud", "test_noise must be trained, none, neuronal, neuronal:SCALE"),
        ("neuronal:1", "or gaussian:SCALE; got 'neuronal:1'"),
        ("gaussian", "got 'gaussian'"),
        ("gaussian:-1", "test_noise 'gaussian:-1': scale must be a finite number >= 0"),
        ("neuronal:a,b", "test_noise 'neuronal:a,b': could not convert"),
    ],
)
def test_other_texts_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        other_noise.parse("test_noise", text, None)


def test_a_network_with_other_noise_says_so_in_its_results(tmp_path):
    """Other names, other identities; the network as it was trained has the fields of before."""
    subject = tiny.tiny_subject()
    quiet = subject.with_noise(None)
    given = tiny.tiny_subject(noise=None).with_noise(GIVEN)
    assert subject.with_noise(tiny.CONFIG.noise) is subject
    found = {}
    for each in (subject, quiet, given):
        job = tiny.tiny_job(each, tmp_path)
        record = evaluation.evaluate(job, evaluation.Clean())
        found[record["name"]] = record
    assert list(found) == ["clean", "clean-test-none", "clean-test-gaussian-2"]
    kept, removed, added = (record["model"] for record in found.values())
    assert "noise_at_test" not in kept and kept["stochastic"] is True
    assert removed["noise_at_test"] == {"trained": "GaussianNoise(scale=3.0)", "given": "none"}
    assert removed["stochastic"] is True and added["stochastic"] is False
    assert added["noise_at_test"] == {"trained": "none", "given": "GaussianNoise(scale=2.0)"}
    protocols = [record["protocol"]["noise"] for record in found.values()]
    assert protocols == ["fresh", "none", "fresh"]
    assert len({record["config_hash"] for record in found.values()}) == 3
    # Without noise all that is left is the network itself.
    with np.load(tmp_path / "clean-test-none.npz") as archive:
        source = tiny.tiny_source()
        images = np.stack([source[i]["image"] for i in range(10)]).astype(np.float32) / 255
        logits_fn = models.logits_fn(models.without_noise(subject.model), subject.variables)
        right = np.argmax(logits_fn(jax.random.key(0), images), -1) == np.arange(10) % 3
        np.testing.assert_array_equal(archive["right"], right[:, None])


def test_noise_at_the_attack_only(tmp_path):
    """The adversarial images are those of the noisy network; who judges them is the quiet one."""
    noisy, quiet = tiny.tiny_subject(), tiny.tiny_subject().with_noise(None)
    condition = evaluation.Attacked(ATTACK, attack_noise=tiny.CONFIG.noise)
    job = tiny.tiny_job(quiet, tmp_path)
    record = evaluation.evaluate(job, condition)
    assert record["name"] == "attack-linf-0.05-attacked-gaussian-3-test-none"
    assert record["condition"]["attack_noise"] == "GaussianNoise(scale=3.0)"
    assert record["condition"]["attack"].endswith("on the network with GaussianNoise(scale=3.0)")
    assert record["condition"]["noise_free_gradients"] is False
    source = tiny.tiny_source()
    images = jnp.stack([source[i]["image"] for i in range(4)]).astype(jnp.float32) / 255
    keys = job.example_keys(np.arange(4, dtype=np.uint32))

    def perturbed(subject, condition):
        subject_job = tiny.tiny_job(subject, tmp_path)
        trial = Trial(
            subject_job.how,
            keys,
            images=images,
            labels=jnp.arange(4) % 3,
            **subject_job.classifiers,
        )
        return condition.perturb(trial)[0]

    seen = perturbed(quiet, condition)
    np.testing.assert_array_equal(seen, perturbed(noisy, evaluation.Attacked(ATTACK)))
    assert np.abs(seen - perturbed(quiet, evaluation.Attacked(ATTACK))).max() > 0
    with pytest.raises(ValueError, match="attack_noise must be None with noise_free_gradients"):
        dataclasses.replace(condition, noise_free_gradients=True)
    with pytest.raises(ValueError, match="there is no network to give it to"):
        Trial(job.how, keys, Partial(jnp.sum), images, jnp.arange(4)).attacked(noise=GIVEN)


def test_noise_frozen_at_the_attack_alone():
    """The attack sees one draw an image whatever its key, the judgement others."""

    def noise(keys, images):
        return jax.random.key_data(keys).astype(jnp.float32)

    how = Protocol("frozen_attack", draws=3)
    keys = jax.random.split(jax.random.key(0), 4)
    other = jax.random.split(jax.random.key(1), 4)
    images = jnp.zeros((4, 2, 2, 1))
    frozen = Protocol("frozen", draws=1).classifier(Partial(noise), keys)
    attacked = how.classifier(Partial(noise), keys, attacked=True)
    judged = how.classifier(Partial(noise), keys)
    np.testing.assert_array_equal(attacked(keys, images), attacked(other, images))
    np.testing.assert_array_equal(attacked(keys, images), frozen(keys, images))
    np.testing.assert_array_equal(judged(other, images), noise(other, images))
    assert (how.name, how.suffix) == ("noise frozen at the attack", "frozen-attack")
