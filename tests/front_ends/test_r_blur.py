"""R-Blur against its equations in NumPy and SciPy, and as the front end of a network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, stats

from vone_jax import models, prng
from vone_jax.front_ends import RBlur, acuity, foveate, rings
from vone_jax.v1 import FanoNoise


def reference(image, fixation, cone=0.12, rod=0.09, most=0.12, blur=0.05):
    """The equations in float64, pixel by pixel: each ring is blurred as a whole image."""
    side = max(image.shape[:2])

    def cones(d, b):
        q = np.maximum(stats.laplace(0, b).pdf(d), stats.cauchy(0, 2.5 * b).pdf(d))
        return q / max(1, stats.laplace(0, b).pdf(0))

    d = np.arange(side) / side
    both = (cones(d, cone), most * (1 - cones(d, rod)))
    grey = image @ (np.array([0.299, 0.587, 0.114]) if image.shape[2] == 3 else np.ones(1))
    copies = [image, grey[..., None]]
    out = np.zeros(image.shape)
    for copy, p in zip(copies, both, strict=True):
        starts, deviations = rings(side, p, blur)
        blurred = [
            ndimage.gaussian_filter(copy, (s, s, 0), mode="mirror", radius=int(np.ceil(4 * s)))
            if s else copy
            for s in deviations
        ]  # fmt: skip
        for i, j in np.ndindex(*image.shape[:2]):
            e = max(abs(i - fixation[0]), abs(j - fixation[1]))
            ring = np.searchsorted(starts, e, side="right") - 1
            out[i, j] += p[e] * blurred[ring][i, j] / (both[0][e] + both[1][e])
    return out


@pytest.mark.parametrize("shape", [(28, 28, 1), (64, 64, 3), (20, 30, 3)])
def test_what_is_seen_is_the_equations_at_any_fixation(shape):
    images = np.random.default_rng(0).uniform(size=(2, *shape))
    fixations = np.array([[[0, 0], [9, 17]], [[shape[0] - 1, 3], [10, shape[1] - 1]]])
    found = foveate(jnp.float32(images), jnp.asarray(fixations))
    for n, v in np.ndindex(2, 2):
        np.testing.assert_allclose(found[n, v], reference(images[n], fixations[n, v]), atol=3e-6)


def test_gradients_are_finite_differences_of_the_equations():
    rng = np.random.default_rng(1)
    image, weights, step = (rng.normal(size=(28, 28, 1)) for _ in range(3))
    seen = lambda x: jnp.sum(weights * foveate(x[None], jnp.array([[[5, 20]]]))[0, 0])  # noqa: E731
    slope = np.sum(step * np.asarray(jax.grad(seen)(jnp.float32(image))))
    ends = [np.sum(weights * reference(image + s * step, (5, 20))) for s in (1e-4, -1e-4)]
    assert slope == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=1e-4)


@pytest.mark.parametrize("side", [28, 64, 224])
def test_rings_are_few_squares_whose_blur_grows_with_eccentricity(side):
    distance = np.arange(side) / side
    cones = acuity(np, distance, 0.12)
    assert cones[0] == 1 and np.all(np.diff(cones) < 0)
    cut = rings(side, cones)
    assert 5 <= len(cut.starts) <= 15 and cut.starts[0] == 0
    assert np.diff(cut.starts).min() >= side / 50 and np.all(np.diff(cut.deviations) > 0)
    # The mean over all eccentricities is kept.
    widths = np.diff([*cut.starts, side])
    assert np.sum(widths * cut.deviations) == pytest.approx(np.sum(0.05 * side * (1 - cones)))


def test_colour_is_lost_with_eccentricity():
    """On an image of one colour there is no blur, so the share of grey alone is seen."""
    colour = np.array([0.9, 0.2, 0.1])
    image = jnp.broadcast_to(jnp.float32(colour), (1, 64, 64, 3))
    seen = np.asarray(foveate(image, jnp.array([[[32, 0]]])))[0, 0, 32]
    saturation = np.ptp(seen, axis=-1) / np.ptp(colour)
    assert saturation[0] == pytest.approx(1) and saturation[-1] < 0.3
    assert np.all(np.diff(saturation) < 0)
    p = acuity(np, 40 / 64, 0.12)
    rods = 0.12 * (1 - acuity(np, 40 / 64, 0.09))
    assert saturation[40] == pytest.approx(p / (p + rods), rel=1e-4)


def network(**fields):
    stem = (
        models.Spec("resnet18", image_size=28, in_channels=1, width=4).complete().stem(jnp.float32)
    )
    front_end = RBlur(stem, **fields)
    return models.create("resnet18", 3, 28, 1, width=4, front_end=front_end, mean=(0,), std=(1,))


def test_evaluation_averages_the_logits_of_the_fixations():
    model = network()
    variables = models.init(model, jax.random.key(0))
    keys = prng.example_keys(jax.random.key(1), 3)
    images = jax.random.uniform(jax.random.key(2), (3, 28, 28, 1))
    both = models.features_fn(model, variables)(keys, images)
    single = [
        models.features_fn(network(fixations=(point,)), variables)(keys, images)
        for point in model.spec.front_end.fixations
    ]
    for layer in ("blurred", "layer2", "logits"):
        expected = np.mean([each[layer] for each in single], axis=0)
        np.testing.assert_allclose(both[layer], expected, atol=1e-5)
    assert np.ptp([each["logits"] for each in single], axis=0).max() > 1e-3
    # The same key gives the same result in any batch.
    alone = models.logits_fn(model, variables)(keys[1:2], images[1:2])
    np.testing.assert_allclose(alone[0], both["logits"][1], atol=1e-5)


def test_training_draws_a_fixation_for_each_key_and_compiles_once():
    front_end = RBlur(noise=None)
    compiled = []

    @jax.jit
    def seen(x, keys):
        compiled.append(1)
        return front_end.apply({}, x, True, keys)["blurred"]

    images = jnp.broadcast_to(jax.random.uniform(jax.random.key(0), (28, 28, 1)), (40, 28, 28, 1))
    keys = jax.random.split(jax.random.key(1), 40)
    first, other = seen(images, keys), seen(images, keys[::-1])
    np.testing.assert_allclose(first[::-1], other, atol=1e-6)
    # The pixel that is seen sharply is the fixated one: they are spread over the image.
    sharp = np.abs(np.asarray(first - images))[..., 0].reshape(40, -1).argmin(1)
    assert len(compiled) == 1 and len(set(sharp)) > 30


def test_the_noise_of_a_front_end_is_that_of_the_network():
    model = network()
    assert models.is_stochastic(model) and models.noise_of(model) == FanoNoise(0.0, 0.125**2)
    quiet = models.without_noise(model)
    assert quiet.spec.front_end.noise is None and not models.is_stochastic(quiet)
    variables = models.init(model, jax.random.key(0))
    images = jnp.full((2, 28, 28, 1), 0.5)
    logits = [models.logits_fn(quiet, variables)(jax.random.key(k), images) for k in (0, 1)]
    np.testing.assert_array_equal(*logits)
    assert models.with_noise(quiet, models.noise_of(model)) == model
    pixels = RBlur(blur=1e-6).apply({}, images, False, jax.random.split(jax.random.key(0)))
    assert np.asarray(pixels["blurred"]).std() == pytest.approx(0.125, rel=0.05)
    with pytest.raises(ValueError, match="RBlur has noise of its own"):
        models.create("resnet18", front_end=RBlur(), stem_noise=FanoNoise())
    with pytest.raises(ValueError, match="give noise_key"):
        model.apply(variables, images)
    assert models.from_json(models.Spec, models.to_json(model.spec), "spec") == model.spec


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cone_width": 0.0}, "cone_width must be a finite number > 0, got 0.0"),
        ({"rod_width": 0.0}, "rod_width must be a finite number > 0"),
        ({"blur": 0.0}, "blur must be a finite number > 0"),
        ({"fixations": ((0.5, 1.2),)}, "fixations must be points within the image"),
        ({"fixations": ()}, "fixations must be points within the image"),
        ({"fixations": ((0.5, float("nan")),)}, "fixations must be points within the image"),
    ],
)
def test_a_wrong_field_is_one_sentence(fields, message):
    with pytest.raises(ValueError, match=message):
        RBlur(**fields)
