import dataclasses
import re
import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vone_jax import attacks, prng
from vone_jax.attacks import FGSM, PGD, classifier, per_example

KEY = jax.random.key(0)


def logits_fn(key, images):
    return images.reshape(images.shape[0], -1)[:, :3]


IMAGES, LABELS = jnp.full((2, 4, 4, 1), 0.5), jnp.asarray([0, 2])


@pytest.mark.untyped
@pytest.mark.parametrize(
    ("attack", "fields", "message"),
    [
        (attacks.FAB, dict(eps=float("inf")), "eps must be a finite number"),
        (attacks.FAB, dict(targets=2, targeted=True), "targets must be None with targeted=True"),
        (attacks.FAB, dict(eta=0.5), "eta must be a finite number >= 1, got 0.5"),
        (attacks.DeepFool, dict(norm="l1"), "norm must be one of l2, linf; got 'l1'"),
        (attacks.CW, dict(abort_early=1), "abort_early must be True or False"),
        (attacks.DDN, dict(gamma=1.0), "gamma must be a finite number >= 0 and < 1, got 1.0"),
        (attacks.MIFGSM, dict(loss="dlr", targeted=True), "untargeted"),
        (attacks.APGD, dict(loss="targeted_dlr", targeted=True), "is for untargeted attacks"),
        (attacks.APGD, dict(large_eps_schedule=True, steps=4), "or 5 and more, got 4"),
        (attacks.Square, dict(p_init=0.0), "p_init must be a finite number > 0 and <= 1, got 0.0"),
        (attacks.SPSA, dict(norm="l2"), "norm must be one of linf; got 'l2'"),
        (attacks.RandomNoise, dict(noise="pink"), "noise must be one of uniform, gaussian, signs"),
    ],
)
def test_fields_of_each_attack_out_of_range_are_refused(attack, fields, message):
    error = TypeError if "abort_early" in fields else ValueError
    norm = "linf" if attack is attacks.SPSA else "l2"
    with pytest.raises(error, match=re.escape(message)):
        attack(**{"norm": norm, "eps": 0.1, **fields})


@pytest.mark.untyped
@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        (dict(norm="l3"), ValueError, "norm must be one of linf, l2, l1; got 'l3'"),
        (dict(eps=-0.1), ValueError, "eps must be a finite number >= 0.*-0.1"),
        (dict(eps=jnp.float32(-0.1)), ValueError, "eps must be a finite number >= 0.*-0.1"),
        (dict(eps=np.asarray([0.1, -0.2])), ValueError, "eps must be a finite number >= 0.*-0.2"),
        (dict(eps=8), ValueError, r"eps must be at most 1 in norm linf.*did you mean 8/255\?"),
        (dict(eps=np.asarray([0.1, 2.0])), ValueError, "got 2; did you mean 2/255"),
        (dict(eps="8/255"), TypeError, "eps must be a number"),
        (dict(eps=None), TypeError, "eps must be a number"),
        (dict(eps=True), ValueError, "eps must be a finite number >= 0, got True"),
        (dict(steps=0), ValueError, "steps must be an integer >= 1, got 0"),
        (dict(step_size=-1.0), ValueError, "step_size"),
        (dict(step_rule="eps/5"), ValueError, "step_rule must be one of"),
        (dict(random_start=1), TypeError, "random_start must be True or False"),
        (dict(loss="hinge"), ValueError, "loss must be one of cross_entropy, margin, dlr"),
        (dict(loss="dlr", targeted=True), ValueError, "untargeted"),
    ],
)
def test_fields_out_of_range_are_refused(fields, error, message):
    with pytest.raises(error, match=message):
        PGD(**{"norm": "linf", "eps": 0.1, **fields})
    shared = {field.name for field in dataclasses.fields(FGSM)}
    if set(fields) <= shared:
        with pytest.raises(error, match=message):
            FGSM(**{"norm": "linf", "eps": 0.1, **fields})


def test_one_nan_in_a_large_image_is_seen():
    """XLA's minimum and maximum pass over it on CPUs."""
    images = jnp.full((1, 64, 64, 3), 0.5).at[0, 30, 30, 1].set(jnp.nan)
    with pytest.raises(ValueError, match="NaN"):
        classifier.check_batch(KEY, logits_fn, images, jnp.zeros(1, jnp.int32))


@pytest.mark.untyped
@pytest.mark.parametrize(
    ("images", "labels", "error", "message"),
    [
        (np.zeros((2, 4, 4, 1), np.uint8), LABELS, TypeError, "uint8; divide by 255"),
        (IMAGES.astype(jnp.float16), LABELS, TypeError, "float16"),
        (IMAGES * 2, LABELS * 0, None, None),  # exactly 1 is inside
        (IMAGES * 510, LABELS, ValueError, r"\[0, 1\], got values from 255 to 255"),
        (IMAGES - 0.6, LABELS, ValueError, "values from -0.1"),
        (IMAGES - 0.5 - 3e-8, LABELS, None, None),  # the rounding of a resized image is accepted
        (IMAGES.at[0, 0, 0, 0].set(jnp.nan), LABELS, ValueError, "NaN"),
        (IMAGES[0], LABELS, ValueError, r"shape \(N, H, W, C\), got \(4, 4, 1\)"),
        (IMAGES[:0], LABELS[:0], ValueError, r"got \(0, 4, 4, 1\), which is empty"),
        (jnp.zeros((2, 3, 8, 8)), LABELS, ValueError, "NCHW"),
        (
            IMAGES,
            jnp.asarray([0, 3]),
            ValueError,
            r"\[0, 2\] for 3 classes, got values from 0 to 3",
        ),
        (IMAGES, jnp.asarray([-1, 0]), ValueError, "from -1"),
        # In 32 bits these are 0 and 1.
        (IMAGES, np.array([2**32, 2**32 + 1]), ValueError, r"\[0, 2\] for 3 classes"),
        (IMAGES, jnp.asarray([0.0, 1.0]), TypeError, "labels must be integers"),
        (IMAGES, jax.nn.one_hot(LABELS, 3), TypeError, "one-hot labels are not accepted"),
        (IMAGES, None, TypeError, "labels must be an array of numbers, got None"),
        (IMAGES, ["cat", "dog"], TypeError, "labels .* of numbers, got list of dtype"),
        (IMAGES, np.array([0, 1], object), TypeError, "numbers, got ndarray of dtype object"),
        (jax.random.key(1), LABELS, TypeError, r"images .* numbers, got PRNGKeyArray of dtype"),
        ([np.zeros((4, 4)), np.zeros(4)], LABELS, TypeError, "images must be .* inhomogeneous"),
        (IMAGES, jnp.zeros((2, 3), jnp.int32), ValueError, "one-hot"),
        (IMAGES, jnp.zeros(3, jnp.int32), ValueError, r"shape \(2,\), got \(3,\)"),
    ],
)
def test_batches_that_do_not_fit_are_refused(images, labels, error, message):
    attack = PGD("linf", 0.1, steps=1)
    if error is None:
        assert attack(KEY, logits_fn, images, labels).shape == images.shape
        return
    with pytest.raises(error, match=message):
        attack(KEY, logits_fn, images, labels)


@pytest.mark.untyped
def test_arguments_in_another_order_are_named():
    with pytest.raises(TypeError, match="logits_fn must be a function of .keys, images., got Arr"):
        FGSM("linf", 0.1)(KEY, IMAGES, logits_fn, LABELS)


@pytest.mark.untyped
def test_keys_that_do_not_fit_are_refused():
    attack = FGSM("linf", 0.1)
    with pytest.raises(TypeError, match="typed key"):
        attack(jnp.zeros(2, jnp.uint32), logits_fn, IMAGES, LABELS)
    with pytest.raises(ValueError, match=r"shape \(2,\)"):
        attack(jax.random.split(KEY, 3), logits_fn, IMAGES, LABELS)


@pytest.mark.untyped
@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (lambda key, x: jnp.argmax(x.reshape(2, -1), axis=-1), ValueError, "shape"),
        (lambda key, x: jnp.zeros((2, 1)), ValueError, "at least 2 classes"),
        (lambda key, x: jnp.zeros((2, 3), jnp.int32), TypeError, "floating-point logits"),
        (lambda key, x: {"logits": x}, ValueError, "got dict"),
        ("resnet18", TypeError, "logits_fn must be a function"),
        (lambda key, x: logits_fn(key, x) / 0.0, FloatingPointError, r"positions \[0, 1\]"),
    ],
)
def test_classifiers_that_do_not_fit_are_refused(bad, error, message):
    with pytest.raises(error, match=message):
        PGD("linf", 0.1, steps=1)(KEY, bad, IMAGES, LABELS)


def images_seen(attack, count, draws_noise=False):
    """The numbers of images in each pass through a network, in the order of the passes."""
    seen = []

    def counted(keys, images):
        jax.debug.callback(lambda images: seen.append(len(images)), images)
        logits = images.reshape(images.shape[0], -1)[:, :5] * 8
        return logits + jax.vmap(jax.random.normal)(keys)[:, None] if draws_noise else logits

    images = jax.random.uniform(jax.random.key(1), (count, 4, 4, 1))
    attack(KEY, counted, images, jnp.argmax(images.reshape(count, -1)[:, :5], axis=1))
    jax.effects_barrier()
    return seen


def test_nothing_is_computed_before_an_attack():
    assert images_seen(FGSM("linf", 0.1), 3) == [3]


MEMBERS = (PGD("linf", 0.1, steps=2), attacks.Square("linf", 0.1, queries=3))


@pytest.mark.parametrize(
    "attack",
    [
        attacks.InBatches(PGD("linf", 0.1, steps=2), 2),
        attacks.InBatches(attacks.Strongest(MEMBERS), 2),
        attacks.AutoAttack("linf", 0.1, "custom", MEMBERS, batch_size=2),
        attacks.Strongest(MEMBERS, batch_size=2),
    ],
    ids=lambda attack: type(attack).__name__,
)
def test_no_more_images_than_promised_are_computed_at_once(attack):
    seen = images_seen(attack, 8)
    assert set(seen) == {2} and len(seen) >= 8


def test_few_images_are_computed_at_once_on_cpus():
    """Their activations stay in the caches; results do not depend on it."""
    seen = images_seen(PGD("linf", 0.1, steps=2), 70)
    assert max(seen) < 70 and sum(seen) >= 2 * 70
    images = jax.random.uniform(jax.random.key(1), (70, 4, 4, 1))
    attack, labels = PGD("linf", 0.1, steps=2, random_start=True), np.arange(70) % 3
    parts = attack(KEY, logits_fn, images, labels)
    whole = attack.choose(KEY, logits_fn, images, labels, at_once=True).images
    np.testing.assert_allclose(parts, whole, atol=1e-6)


@pytest.mark.parametrize(
    "attack",
    [
        FGSM("linf", 0.1), attacks.Square("linf", 0.1, queries=2),
        attacks.RandomNoise("linf", 0.1, draws=2), attacks.SPSA("linf", 0.1, steps=1, samples=2),
        attacks.Strongest((FGSM("linf", 0.1),)), attacks.APGD("linf", 0.1, steps=2),
    ],
    ids=lambda attack: type(attack).__name__,
)  # fmt: skip
def test_logits_of_nan_are_reported(attack):
    def broken(keys, images):
        bright = jnp.mean(images, axis=(1, 2, 3)) > 0.5
        return jnp.where(bright[:, None], jnp.nan, logits_fn(keys, images))

    images = IMAGES.at[0].set(0.2).at[1].set(0.8)
    with pytest.raises(FloatingPointError, match=r"the attack met .* positions \[1\]"):
        attack(KEY, broken, images, LABELS)


@pytest.mark.parametrize(
    ("attack", "warns"),
    [
        (attacks.Square("linf", 0.1, queries=1), True),
        (attacks.Square("linf", 0.1, queries=1, eot_samples=2), False),
        (attacks.Strongest((attacks.Square("linf", 0.1, queries=1),)), True),
        (PGD("linf", 0.1, steps=1), False),
    ],
)
def test_single_draws_of_noise_are_warned_of(attack, warns):
    for noise in (True, False):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            images_seen(attack, 2, noise)
        told = [str(warning.message) for warning in caught if "noise" in str(warning.message)]
        assert bool(told) == (warns and noise)
        assert all("eot_samples" in text and "rand" in text for text in told)


def contract_notes(error):
    """The notes that name the adapter; JAX adds notes of its own."""
    return [note for note in error.__notes__ if "attacks.per_example(logits_fn)" in note]


def test_an_error_of_the_classifier_reaches_the_user_with_the_contract():
    class OwnError(Exception):
        pass

    def broken(key, images):
        raise OwnError("a bug in the classifier")

    with pytest.raises(OwnError) as raised:
        PGD("linf", 0.1, steps=1)(KEY, broken, IMAGES, LABELS)
    assert raised.value.args == ("a bug in the classifier",)
    (note,) = contract_notes(raised.value)
    assert "one key per example, keys of shape (2,)" in note
    with pytest.raises(OwnError) as raised:
        PGD("linf", 0.1, steps=1)(KEY, per_example(broken), IMAGES, LABELS)
    assert not contract_notes(raised.value)


def test_a_function_of_a_single_key_is_not_adapted_in_silence():
    def single(key, images):
        return logits_fn(key, images) + jax.random.normal(key, (images.shape[0], 3))

    with pytest.raises(ValueError, match="single key") as raised:
        FGSM("linf", 0.1)(KEY, single, IMAGES, LABELS)
    assert contract_notes(raised.value)
    assert FGSM("linf", 0.1)(KEY, per_example(single), IMAGES, LABELS).shape == IMAGES.shape


@pytest.mark.parametrize("adapted", [False, True])
def test_a_function_of_images_alone_is_refused(adapted):
    def of_images(images):
        return logits_fn(None, images)

    with pytest.raises(TypeError, match=r"must be a function of \(keys, images\).*lambda keys"):
        bad = per_example(of_images) if adapted else of_images
        FGSM("linf", 0.1)(KEY, bad, IMAGES, LABELS)


def test_several_radii_are_not_broadcast_over_the_channels():
    images = jnp.full((2, 4, 4, 3), 0.5)
    attack = PGD("linf", jnp.asarray([0.1, 0.2, 0.1]), steps=1)
    with pytest.raises(ValueError, match=r"eps must be one number, got an array of shape \(3,\)"):
        attack(KEY, logits_fn, images, LABELS)
    ladder = jax.vmap(lambda attack: attack(KEY, logits_fn, images, LABELS))(attack)
    np.testing.assert_allclose(jnp.max(ladder, axis=(1, 2, 3, 4)) - 0.5, attack.eps, rtol=1e-5)


def test_a_flax_module_with_dropout_takes_the_key_of_each_example():
    """Flax refuses an array of keys, so the module is adapted."""

    class Dropped(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(3)(nn.Dropout(0.5, deterministic=False)(x.reshape(x.shape[0], -1)))

    module, keys = Dropped(), prng.example_keys(KEY, 2)
    variables = module.init(dict(zip(("params", "dropout"), keys, strict=True)), IMAGES)

    @per_example
    def dropped(key, images):
        return module.apply(variables, images, rngs={"dropout": key})

    attack = PGD("l2", 0.1, steps=1)
    both = attack(keys, dropped, IMAGES, LABELS)
    second = attack(keys[1:], dropped, IMAGES[1:], LABELS[1:])
    np.testing.assert_allclose(both[1:], second, atol=1e-6)


def test_an_attack_prints_as_code_and_hashes():
    attack = PGD("linf", 0.1)
    assert eval(repr(attack)) == attack
    assert hash(attack) == hash(PGD("linf", 0.1)) != hash(PGD("linf", 0.2))
    with pytest.raises(dataclasses.FrozenInstanceError):
        attack.eps = 0.2


@pytest.mark.untyped
@pytest.mark.parametrize(
    ("change", "got"),
    [
        (lambda images: images[:1], r"float32 \(1, 4, 4, 1\)"),
        (lambda images: images.astype(jnp.bfloat16), r"bfloat16 \(2, 4, 4, 1\)"),
        (lambda images: None, "NoneType"),
    ],
)
def test_an_attack_of_ones_own_returns_images_like_those_it_gets(change, got):
    class Other(attacks.Attack):
        eps: float
        norm: str = "linf"

        def perturb(self, keys, logits_fn, images, labels):
            return change(images)

    images, labels = np.full((2, 4, 4, 1), 0.5, np.float32), np.zeros(2, int)
    with pytest.raises(TypeError, match=f"perturb of Other .* float32 .*, got {got}"):
        Other(0.1)(jax.random.key(0), lambda keys, x: x.reshape(2, -1), images, labels)


@pytest.mark.parametrize(
    ("norm", "shift", "wrong"),
    [
        ("linf", 0.0, None),
        ("linf", 0.1, None),
        ("linf", 0.15, "from 0.65 to 0.65 and changes of norm up to 0.15;"),
        ("linf", 0.7, "from 1.2 to 1.2 and changes of norm up to 0.7;"),
        ("of one's own", 0.15, None),
        ("of one's own", 0.7, "from 1.2 to 1.2 and"),
    ],
)
def test_an_attack_of_ones_own_that_leaves_its_ball_is_refused(norm, shift, wrong):
    """It would break any network."""

    class Shift(attacks.Attack):
        norm: str
        eps: float

        def perturb(self, keys, logits_fn, images, labels):
            return images + shift

    images, labels = np.full((2, 4, 4, 1), 0.5, np.float32), np.zeros(2, int)
    arguments = jax.random.key(0), lambda keys, images: images.reshape(2, -1), images, labels
    attack = Shift(norm, 0.1)
    if wrong is None:
        np.testing.assert_allclose(attack(*arguments), images + shift, atol=1e-6)
    else:
        with pytest.raises(ValueError, match=f"images of Shift must lie in .* got values {wrong}"):
            attack(*arguments)
