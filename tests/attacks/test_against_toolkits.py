"""Budget attacks against foolbox and the authors' AutoAttack on one network and 20 images.

Deterministic attacks agree in the mean cross-entropy, random ones in how many images resist.
"""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed (extra: convert)")
pytest.importorskip("foolbox", reason="foolbox is not installed")
pytestmark = pytest.mark.extras

from tests.attacks import toolkit_network as network  # noqa: E402
from tests.attacks.toolkit_network import full_speed  # noqa: E402, F401
from vone_jax.attacks import APGD, FGSM, MIFGSM, PGD, AutoAttack, losses  # noqa: E402

KEY = jax.random.key(0)
EPS = {"linf": 4 / 255, "l2": 0.25, "l1": 6.0}
NAMES = {"linf": "Linf", "l2": "L2", "l1": "L1"}


@pytest.fixture(scope="module")
def batch():
    return jnp.asarray(network.images()), jnp.asarray(network.labels())


def cross_entropy(images, labels):
    logits = network.logits_fn(KEY, jnp.asarray(images))
    return float(jnp.mean(losses.cross_entropy(logits, labels)))


def resisting(images, labels):
    logits = network.logits_fn(KEY, jnp.asarray(images))
    return int(jnp.sum(jnp.argmax(logits, axis=-1) == labels))


def test_the_networks_are_the_same(batch):
    images, labels = batch
    ours = network.logits_fn(KEY, images)
    theirs = network.torch_network()(network.to_torch(images)).numpy()
    np.testing.assert_allclose(ours, theirs, atol=2e-5)
    assert len(set(labels.tolist())) >= 4


@pytest.mark.parametrize(
    ("ours", "name", "arguments"),
    [
        (FGSM("linf", 8 / 255), "LinfFastGradientAttack", dict(random_start=False)),
        (
            PGD("linf", 8 / 255, steps=20, step_size=2 / 255),
            "LinfBasicIterativeAttack",
            dict(steps=20, abs_stepsize=2 / 255, random_start=False),
        ),
        (
            PGD("l2", 0.5, steps=20, step_size=0.1),
            "L2BasicIterativeAttack",
            dict(steps=20, abs_stepsize=0.1, random_start=False),
        ),
        (
            PGD("l1", 6.0, steps=20, step_size=1.0),
            "L1BasicIterativeAttack",
            dict(steps=20, abs_stepsize=1.0, random_start=False),
        ),
        (
            MIFGSM("linf", 8 / 255, step_size=2 / 255, variant="foolbox"),
            "LinfMomentumIterativeFastGradientMethod",
            dict(steps=10, abs_stepsize=2 / 255, random_start=False),
        ),
    ],
)
def test_deterministic_attacks_equal_those_of_foolbox(batch, ours, name, arguments):
    import foolbox

    images, labels = batch
    mine = ours(KEY, network.logits_fn, images, labels)
    model = foolbox.PyTorchModel(network.torch_network(), bounds=(0, 1), device="cpu")
    attack = getattr(foolbox.attacks, name, None) or getattr(
        importlib.import_module("foolbox.attacks.mi_fgsm"), name
    )
    torch_labels = network.torch_labels(labels)
    theirs, _, _ = attack(**arguments)(
        model, network.to_torch(images), torch_labels, epsilons=float(ours.eps)
    )
    expected = cross_entropy(network.from_torch(theirs), labels)
    assert abs(cross_entropy(mine, labels) - expected) < 1e-5 * expected
    assert expected > 1.2 * cross_entropy(images, labels)


# Of the 20 images the same number resists with any of five seeds, ours and theirs: 8 in
# L-infinity, 15 in L2, 13 in L1. So the counts have to be equal.


def resisting_theirs(norm, name, images, labels, **settings):
    pyautoattack = pytest.importorskip("pyautoattack", reason="pyautoattack is not installed")
    theirs = pyautoattack.AutoAttack(
        network.torch_network(), norm=NAMES[norm], eps=EPS[norm], seed=0, version="custom",
        attacks=[name],
    )  # fmt: skip
    theirs.apgd.n_restarts = 1
    for field, value in settings.items():
        setattr(theirs.apgd, field, value)
        setattr(theirs.apgd_targeted, field, value)
    found, *_ = theirs.run_standard_evaluation(
        network.to_torch(images), network.torch_labels(labels), batch_size=20
    )
    return resisting(network.from_torch(found), labels)


@pytest.mark.parametrize(
    ("attack", "name", "settings"),
    [
        (APGD("linf", EPS["linf"]), "apgd-ce", {}),
        (APGD("linf", EPS["linf"], loss="dlr"), "apgd-dlr", {}),
        (APGD("l2", EPS["l2"]), "apgd-ce", {}),
        (APGD("l1", EPS["l1"]), "apgd-ce", {}),
        (APGD("l1", EPS["l1"], large_eps_schedule=True), "apgd-ce", dict(use_largereps=True)),
    ],
)
def test_as_many_images_resist_auto_pgd_as_that_of_its_authors(batch, attack, name, settings):
    images, labels = batch
    ours = resisting(attack(KEY, network.logits_fn, images, labels), labels)
    assert ours == resisting_theirs(attack.norm, name, images, labels, **settings)


@pytest.mark.slow
@pytest.mark.parametrize("norm", EPS)
def test_as_many_images_resist_targeted_auto_pgd_as_that_of_its_authors(batch, norm):
    images, labels = batch
    attack = APGD(norm, EPS[norm], loss="targeted_dlr")
    ours = resisting(attack(KEY, network.logits_fn, images, labels), labels)
    assert ours == resisting_theirs(norm, "apgd-t", images, labels)


# In L1, where the members take five restarts, a run of both takes six minutes; it agreed, too.
@pytest.mark.slow
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_as_many_images_resist_auto_attack_as_that_of_its_authors(batch, norm):
    """The whole of version "standard", with its 5000 queries of Square."""
    pyautoattack = pytest.importorskip("pyautoattack", reason="pyautoattack is not installed")
    images, labels = batch
    ours = AutoAttack(norm, EPS[norm])(KEY, network.logits_fn, images, labels)
    theirs, *_ = pyautoattack.AutoAttack(
        network.torch_network(), norm=NAMES[norm], eps=EPS[norm], seed=0
    ).run_standard_evaluation(network.to_torch(images), network.torch_labels(labels), batch_size=20)
    assert resisting(ours, labels) == resisting(network.from_torch(theirs), labels)
