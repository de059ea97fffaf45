import dataclasses
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vone_jax import attacks
from vone_jax.attacks import FGSM, PGD, executor, per_example

KEY = jax.random.key(0)


def logits_fn(key, images):
    return images.reshape(images.shape[0], -1)[:, :3]


IMAGES, LABELS = jnp.full((2, 4, 4, 1), 0.5), jnp.asarray([0, 2])


@pytest.mark.parametrize("eps", [jnp.float32(-0.1), np.asarray([0.1, 2.0])])
def test_radii_in_arrays_are_checked(eps):
    with pytest.raises(ValueError, match="^eps must"):
        PGD("linf", eps)


@pytest.mark.parametrize(
    "make",
    [
        lambda: PGD("linf", 8),
        lambda: PGD("linf", 8 / 255, step_size=8.0),
        lambda: attacks.SPSA("linf", 8 / 255, learning_rate=8.0),
        lambda: attacks.SPSA("linf", 8 / 255, delta=8.0),
    ],
)
def test_a_radius_or_step_in_levels_of_grey_is_told_apart(make):
    with pytest.raises(ValueError, match="did you mean 8/255"):
        make()


def test_a_radius_in_another_norm_may_exceed_one():
    """The images of 32 x 32 x 3 lie in a ball of radius 55 in L2."""
    assert PGD("l2", 8.0, step_size=2.0).eps == 8.0


def test_fields_that_contradict_each_other_are_refused():
    for make in (
        lambda: PGD("linf", 0.1, loss="dlr", targeted=True),
        lambda: attacks.FAB("l2", 0.1, targets=2, targeted=True),
        lambda: attacks.APGD("l2", 0.1, loss="targeted_dlr", targeted=True),
        lambda: attacks.APGD("l2", 0.1, large_eps_schedule=True, steps=4),
        lambda: attacks.DeepFool("l1", 0.1),
        lambda: attacks.SPSA("l2", 0.1),
        # Without noise, all runs from the image itself are equal.
        lambda: PGD("linf", 0.1, restarts=5),
    ):
        with pytest.raises(ValueError):
            make()


@pytest.mark.parametrize("images", [IMAGES * 2, IMAGES - 0.5 - 3e-8])
def test_one_and_the_rounding_of_a_resized_image_are_inside(images):
    assert PGD("linf", 0.1, steps=1)(KEY, logits_fn, images, LABELS * 0).shape == images.shape


@pytest.mark.untyped
@pytest.mark.parametrize(
    ("images", "labels", "error", "named"),
    [
        (np.zeros((2, 4, 4, 1), np.uint8), LABELS, TypeError, "images.*divide by 255"),
        (IMAGES * 510, LABELS, ValueError, "images"),
        # XLA's minimum and maximum pass over one NaN in a large image on CPUs.
        (jnp.full((2, 64, 64, 3), 0.5).at[0, 30, 30, 1].set(jnp.nan), LABELS, ValueError, "NaN"),
        (IMAGES[0], LABELS, ValueError, "images"),
        (IMAGES[:0], LABELS[:0], ValueError, "images.*empty"),
        (jnp.zeros((2, 3, 8, 8)), LABELS, ValueError, "NCHW"),
        (IMAGES, jnp.asarray([0, 3]), ValueError, "labels"),
        # In 32 bits these are 0 and 1.
        (IMAGES, np.array([2**32, 2**32 + 1]), ValueError, "labels"),
        (IMAGES, jax.nn.one_hot(LABELS, 3), TypeError, "labels.*one-hot"),
        (IMAGES, jnp.zeros(3, jnp.int32), ValueError, "labels"),
    ],
)
def test_batches_that_do_not_fit_are_refused(images, labels, error, named):
    with pytest.raises(error, match=named):
        PGD("linf", 0.1, steps=1)(KEY, logits_fn, images, labels)


@pytest.mark.untyped
def test_arguments_in_another_order_and_keys_that_do_not_fit_are_refused():
    attack = FGSM("linf", 0.1)
    with pytest.raises(TypeError, match="logits_fn"):
        attack(KEY, IMAGES, logits_fn, LABELS)
    with pytest.raises(TypeError, match="typed key"):
        attack(jnp.zeros(2, jnp.uint32), logits_fn, IMAGES, LABELS)
    with pytest.raises(ValueError, match=r"shape \(2,\)"):
        attack(jax.random.split(KEY, 3), logits_fn, IMAGES, LABELS)


@pytest.mark.untyped
@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (lambda key, x: jnp.argmax(x.reshape(2, -1), axis=-1), ValueError),
        (lambda key, x: jnp.zeros((2, 1)), ValueError),
        (lambda key, x: jnp.zeros((2, 3), jnp.int32), TypeError),
        (lambda key, x: {"logits": x}, ValueError),
        ("resnet18", TypeError),
    ],
)
def test_classifiers_that_do_not_fit_are_refused(bad, error):
    with pytest.raises(error, match="logits_fn must"):
        PGD("linf", 0.1, steps=1)(KEY, bad, IMAGES, LABELS)


def images_seen(attack, count, **options):
    """The numbers of images in each pass through a network, in the order of the passes."""
    seen = []

    def counted(keys, images):
        jax.debug.callback(lambda images: seen.append(len(images)), images)
        return images.reshape(images.shape[0], -1)[:, :5] * 8

    images = jax.random.uniform(jax.random.key(1), (count, 4, 4, 1))
    labels = jnp.argmax(images.reshape(count, -1)[:, :5], axis=1)
    attack(KEY, counted, images, labels, **options)
    jax.effects_barrier()
    return seen


def test_nothing_is_computed_but_the_attack_and_one_pass_that_looks_at_the_outputs():
    assert images_seen(FGSM("linf", 0.1), 3) == [3, 3]


MEMBERS = (PGD("linf", 0.1, steps=2), attacks.Square("linf", 0.1, queries=3))


@pytest.mark.parametrize(
    "attack",
    [
        PGD("linf", 0.1, steps=2),
        attacks.Strongest(MEMBERS),
    ],
    ids=lambda attack: type(attack).__name__,
)
def test_no_more_images_than_promised_are_computed_at_once(attack):
    seen = images_seen(attack, 8, batch_size=2)
    assert set(seen) == {2} and len(seen) >= 8


def test_few_images_are_computed_at_once_on_cpus():
    """Their activations stay in the caches; results do not depend on it."""
    seen = images_seen(PGD("linf", 0.1, steps=2), 70)
    assert max(seen) < 70 and sum(seen) >= 2 * 70
    images = jax.random.uniform(jax.random.key(1), (70, 4, 4, 1))
    attack, labels = PGD("linf", 0.1, steps=2, random_start=True), np.arange(70) % 3
    parts = attack(KEY, logits_fn, images, labels)
    whole = attack.choose(KEY, logits_fn, images, labels, batch_size=len(images)).images
    np.testing.assert_allclose(parts, whole, atol=1e-6)


def noisy(keys, images):
    return logits_fn(keys, images) + jax.vmap(jax.random.normal)(keys)[:, None]


@pytest.mark.parametrize(
    ("attack", "warns"),
    [
        (attacks.Square("linf", 0.1, queries=1), True),
        (attacks.Square("linf", 0.1, queries=1, eot_samples=2), False),
        (attacks.Strongest((attacks.Square("linf", 0.1, queries=1),)), True),
        (attacks.CW("l2", 0.1), True),
        (attacks.FAB("l2", 0.1), True),
        (attacks.FMN("l2", 0.1), True),
        (attacks.FMN("l2", 0.1, eot_samples=2), False),
        (PGD("linf", 0.1, steps=1), False),
        (PGD("linf", 0.1, steps=1, early_stop=True), True),
        (PGD("linf", 0.1, steps=1, early_stop=True, eot_samples=2), False),
    ],
)
def test_single_draws_of_noise_are_warned_of(attack, warns):
    for noise, function in ((True, noisy), (False, logits_fn)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            executor.prepared(attack, KEY, function, IMAGES, LABELS)
        told = [str(warning.message) for warning in caught if "noise" in str(warning.message)]
        assert bool(told) == (warns and noise)
        assert all("eot_samples" in text and "rand" in text for text in told)


def test_a_transfer_warns_of_the_noise_of_its_surrogate():
    for surrogate, attacked in ((noisy, logits_fn), (logits_fn, noisy)):
        attack = attacks.Transfer(attacks.Square("linf", 0.1), surrogate)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            executor.prepared(attack, KEY, attacked, IMAGES, LABELS)
        assert bool(caught) == (surrogate is noisy)


@pytest.mark.parametrize("version", ["standard", "rand"])
def test_autoattack_warns_of_noise_unless_it_averages(version):
    attack = attacks.AutoAttack("linf", 0.1, version=version)

    def four(keys, images):
        return jnp.pad(noisy(keys, images), ((0, 0), (0, 1)))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        executor.prepared(attack, KEY, four, IMAGES, LABELS)
    assert ["AutoAttack" in str(each.message) for each in caught] == [True] * (version != "rand")


def contract_notes(error):
    """The notes that name the adapter; JAX adds notes of its own."""
    return [note for note in error.__notes__ if "attacks.per_example(logits_fn)" in note]


def test_an_error_of_the_classifier_reaches_the_user_with_the_contract():
    def broken(key, images):
        raise KeyError("a bug in the classifier")

    with pytest.raises(KeyError, match="a bug in the classifier") as raised:
        PGD("linf", 0.1, steps=1)(KEY, broken, IMAGES, LABELS)
    (note,) = contract_notes(raised.value)
    assert "one key per example, keys of shape (2,)" in note
    with pytest.raises(KeyError) as raised:
        PGD("linf", 0.1, steps=1)(KEY, per_example(broken), IMAGES, LABELS)
    assert not contract_notes(raised.value)


def test_functions_of_a_single_key_or_of_images_alone_are_not_adapted_in_silence():
    def single(key, images):
        return logits_fn(key, images) + jax.random.normal(key, (images.shape[0], 3))

    with pytest.raises(ValueError, match="single key") as raised:
        FGSM("linf", 0.1)(KEY, single, IMAGES, LABELS)
    assert contract_notes(raised.value)
    assert FGSM("linf", 0.1)(KEY, per_example(single), IMAGES, LABELS).shape == IMAGES.shape
    with pytest.raises(TypeError, match=r"must be a function of \(keys, images\).*lambda keys"):
        FGSM("linf", 0.1)(KEY, lambda images: images, IMAGES, LABELS)


def test_several_radii_are_not_broadcast_over_the_channels():
    images = jnp.full((2, 4, 4, 3), 0.5)
    attack = PGD("linf", jnp.asarray([0.1, 0.2, 0.1]), steps=1)
    with pytest.raises(ValueError, match=r"eps must be one number, or one for each image.*\(3,\)"):
        attack(KEY, logits_fn, images, LABELS)
    ladder = jax.vmap(lambda attack: attack(KEY, logits_fn, images, LABELS))(attack)
    np.testing.assert_allclose(jnp.max(ladder, axis=(1, 2, 3, 4)) - 0.5, attack.eps, rtol=1e-5)


def test_an_attack_prints_as_code_and_hashes():
    attack = PGD("linf", 0.1)
    assert eval(repr(attack)) == attack
    assert hash(attack) == hash(PGD("linf", 0.1)) != hash(PGD("linf", 0.2))
    with pytest.raises(dataclasses.FrozenInstanceError):
        attack.eps = 0.2


class Shift(attacks.Attack):
    """Adds ``shift``, and forgets to project."""

    norm: str
    eps: float
    shift: float = 0.0
    dtype: str = "float32"

    def run(self, keys, logits_fn, images, labels):
        return (images + self.shift).astype(self.dtype)


def test_an_attack_of_ones_own_that_leaves_its_ball_or_its_dtype_is_refused():
    """It would break any network. The ball of another measure is not known, the box is."""
    for norm, shift in (("linf", 0.1), ("of one's own", 0.15)):
        adversarial = Shift(norm, 0.1, shift)(KEY, logits_fn, IMAGES, LABELS)
        np.testing.assert_allclose(adversarial, IMAGES + shift, atol=1e-6)
    for norm, shift in (("linf", 0.15), ("linf", 0.7), ("of one's own", 0.7)):
        with pytest.raises(ValueError, match="images of Shift must lie in"):
            Shift(norm, 0.1, shift)(KEY, logits_fn, IMAGES, LABELS)
    with pytest.raises(TypeError, match="run of Shift"):
        Shift("linf", 0.1, dtype="bfloat16")(KEY, logits_fn, IMAGES, LABELS)
