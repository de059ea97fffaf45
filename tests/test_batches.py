"""All public functions that take images and labels refuse the same ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.certification.test_bounds import block
from vone_jax import attacks, certification, corruptions, diagnostics, evaluation, v1
from vone_jax.perception import synthesis

pytestmark = pytest.mark.untyped
KEY = jax.random.key(0)
CONFIG = block(in_channels=1, noise=v1.GaussianNoise(1.0))


def logits_fn(keys, images):
    return images.reshape(images.shape[0], -1)[:, :3]


SMOOTHED = certification.smooth_pixels(logits_fn, 0.5)

FUNCTIONS = {
    "attack": lambda images, labels: attacks.FGSM("linf", 0.1)(KEY, logits_fn, images, labels),
    "robust_accuracy": lambda images, labels: evaluation.robust_accuracy(
        KEY, logits_fn, images, labels, attack=attacks.FGSM("linf", 0.1)
    ),
    "fourier_map": lambda images, labels: diagnostics.fourier_map(
        KEY, logits_fn, images, labels, size=3
    ),
    "calibration": lambda images, labels: diagnostics.measure_calibration(
        jnp.zeros((2, 1, 3)), labels
    ),
    "certify": lambda images, labels: certification.certify(
        KEY, SMOOTHED, images, draws=2, choose=2, progress=False
    ),
    "local_sensitivity": lambda images, labels: certification.local_sensitivity(
        KEY, CONFIG, images, 0.0
    ),
    "eigendistortions": lambda images, labels: diagnostics.eigendistortions(
        KEY, logits_fn, images[0]
    ),
    "corrupt": lambda images, labels: corruptions.corrupt(KEY, images, "contrast", 1),
    "distort": lambda images, labels: corruptions.distort(KEY, images, "contrast", 0.5),
    "mask": lambda images, labels: corruptions.mask(KEY, images, 0, 0.1),
    "metamers": lambda images, labels: synthesis.metamers(
        KEY, logits_fn, images, rounds=1, steps=1
    ),
}
OF_IMAGES, OF_LABELS = FUNCTIONS.keys() - {"calibration"}, list(FUNCTIONS)[:4]
IMAGES, LABELS = jnp.full((2, 12, 12, 1), 0.5), jnp.array([0, 2])


@pytest.mark.parametrize("name", sorted(OF_IMAGES))
def test_images_of_eight_bits_and_of_levels_of_grey_are_refused(name):
    with pytest.raises(TypeError, match="^images must be .*divide by 255"):
        FUNCTIONS[name](np.zeros((2, 12, 12, 1), np.uint8), LABELS)
    with pytest.raises(ValueError, match=r"^images must lie in \[0, 1\]"):
        FUNCTIONS[name](200.0 * IMAGES, LABELS)
    with pytest.raises(ValueError, match="^images must lie .*NaN"):
        FUNCTIONS[name](IMAGES.at[0, 3, 3, 0].set(jnp.nan), LABELS)


@pytest.mark.parametrize("name", OF_LABELS)
@pytest.mark.parametrize("labels", [[0, -1], [0, 3]])
def test_labels_that_are_no_class_are_refused(name, labels):
    with pytest.raises(ValueError, match=r"^labels must lie in \[0, 2\]"):
        FUNCTIONS[name](IMAGES, jnp.array(labels))
