"""The published block on a proxy of the texture images."""

import jax
import numpy as np
import pytest

from tests.neurophysiology.conftest import central_site
from vone_jax import v1
from vone_jax.neurophysiology import texture_proxies, textures
from vone_jax.neurophysiology.recording import RateMap, present, record_blank
from vone_jax.neurophysiology.texture_properties import texture_properties

pytestmark = pytest.mark.extras
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def measured():
    """Properties of the 4 central locations of the block, for three photographs."""
    data = pytest.importorskip("skimage.data")
    photographs = {name: getattr(data, name)() for name in ("brick", "grass", "gravel")}
    images = texture_proxies.proxy_from_images(KEY, photographs)
    config = v1.VOneBlockConfig(noise=None, in_channels=1)

    def layer(key, images):
        return v1.noise_free_responses(config, images)

    site = central_site(512)
    rate_map = RateMap(8.190, 0.8100)  # of the block, see test_score

    def draw(batch):
        return textures.render(images, batch, site.display, site.window)

    activations = present(layer, KEY, draw, np.arange(len(images)), site)
    rates = rate_map(activations).reshape(*images.shape, -1)
    found = texture_properties(rates, rate_map(record_blank(layer, KEY, site)))
    return found, site.channel < 256


# Measured with another program: medians over units for two seeds of the crops.
@pytest.mark.slow
def test_a_block_hardly_tells_textures_from_their_noise(measured):
    found, simple = measured
    index = found["texture_modulation_index"]
    # +.007 and -.076; the crops of three photographs decide.
    assert abs(index.mean()) < 0.1
    assert np.median(np.abs(index)) == pytest.approx(0.075, abs=0.03)
    # Simple cells .10 to .15, complex ones .04 to .07.
    assert np.median(np.abs(index[~simple])) < 0.09 < np.median(np.abs(index[simple]))
    low, high = np.quantile(index, [0.05, 0.95])
    assert -0.35 < low < -0.1 < 0.1 < high < 0.35


@pytest.mark.slow
def test_simple_cells_are_sparser_than_complex_ones(measured):
    found, simple = measured
    sparseness = found["texture_sparseness"]
    assert np.median(sparseness) == pytest.approx(0.57, abs=0.05)
    assert np.median(sparseness[simple]) == pytest.approx(0.74, abs=0.05)
    assert np.median(sparseness[~simple]) == pytest.approx(0.36, abs=0.05)
