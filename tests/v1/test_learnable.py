"""A Gabor bank that is trained: its start, its gradients, its bounds, and the bank it leaves."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vone_jax import convert, models, v1
from vone_jax.training import OptimizerConfig
from vone_jax.v1.gabor import gabor_functions

PPD = 28.0
CONFIG = v1.VOneBlockConfig(
    simple_channels=6, complex_channels=6, image_size=28, visual_degrees=1.0, kernel_size=21,
    stride=2, noise=None,
)  # fmt: skip
TUNED = dataclasses.replace(CONFIG, tuned=True)
NAMES = ("logit_sf", "theta", "phase", "log_excess_nx", "log_excess_ny")


@pytest.fixture(scope="module")
def gabor():
    return v1.LearnableGabor(CONFIG.gabor_parameters(), 21, PPD)


@pytest.fixture(scope="module")
def start(gabor):
    return gabor.init(jax.random.key(0))["params"]


@pytest.fixture(scope="module")
def images():
    return jax.random.uniform(jax.random.key(1), (2, 28, 28, 3))


@pytest.mark.parametrize("kernel", [3, 31])
def test_a_bank_without_complex_cells_may_have_any_kernel(images, kernel):
    config = dataclasses.replace(TUNED, complex_channels=0, kernel_size=kernel)
    block = v1.VOneBlock(config)
    responses, _ = jax.eval_shape(block.init_with_output, jax.random.key(0), images)
    assert responses.shape == (2, 14, 14, 6)


def test_it_starts_at_the_bank(gabor, start):
    for ours, fixed in zip(gabor.apply({"params": start}), CONFIG.gabor_kernels(), strict=True):
        np.testing.assert_allclose(ours, fixed, atol=2e-6 * np.abs(fixed).max())
    assert sorted(start) == sorted(NAMES)


def test_gradients_equal_finite_differences_of_the_formula(gabor, start):
    """The differences are of NumPy's float64, and the loss weighs both phases at random."""
    weights = np.random.default_rng(0).normal(size=(2, 12, 21, 21))
    bank = CONFIG.gabor_parameters()
    least = [np.minimum(0.5, n * PPD / bank.sf / 2.0) for n in (bank.nx, bank.ny)]

    def loss_in_numpy(params):
        sf = PPD / 2.0 / (1.0 + np.exp(-params["logit_sf"])) / PPD
        above = (np.exp(params[f"log_excess_{n}"]) / sf for n in ("nx", "ny"))
        sizes = map(np.add, least, above)
        kernels = gabor_functions(np, sf, params["theta"], params["phase"], *sizes, 21)
        return np.sum(weights * np.stack(kernels), axis=(0, 2, 3))

    @jax.jit
    @jax.grad
    def gradients(params):
        return jnp.sum(
            jnp.asarray(weights, jnp.float32) * jnp.stack(gabor.apply({"params": params}))
        )

    found, step = gradients(start), 1e-5
    values = {key: np.asarray(value, np.float64) for key, value in start.items()}
    for name in NAMES:
        above, below = (
            loss_in_numpy(values | {name: values[name] + sign * step}) for sign in (1.0, -1.0)
        )
        expected = (above - below) / (2.0 * step)
        np.testing.assert_allclose(found[name], expected, atol=2e-4 * np.abs(expected).max())


def test_no_frequency_reaches_the_nyquist_limit_and_no_envelope_becomes_a_needle(gabor, start):
    for shift in (-50.0, 50.0):
        params = {name: value + shift for name, value in start.items()}
        bank = gabor.learned(params)
        assert 0.0 < bank.sf.min() and bank.sf.max() < PPD / 2.0
        assert 0.0 <= bank.theta.min() and bank.theta.max() < 180.0
        # Half a pixel; all of this bank start above a pixel.
        sizes = [n * PPD / bank.sf for n in (bank.nx, bank.ny)]
        assert min(size.min() for size in sizes) >= 0.4999
    narrow = {name: value - 50.0 * ("excess" in name) for name, value in start.items()}
    largest = max(np.abs(kernel).max() for kernel in gabor.apply({"params": narrow}))
    # The amplitude of a Gabor function is 1 / (2 pi sigma_x sigma_y).
    assert largest <= 1.001 / (2 * np.pi * 0.5**2)


def test_a_filter_that_starts_below_a_pixel_keeps_half_of_its_size():
    bank = dataclasses.replace(CONFIG.gabor_parameters(), nx=np.full(12, 0.01))
    gabor = v1.LearnableGabor(bank, 21, PPD)
    start = gabor.init(jax.random.key(0))["params"]
    np.testing.assert_allclose(gabor.learned(start).nx, bank.nx, rtol=1e-5)
    narrow = gabor.learned({**start, "log_excess_nx": start["log_excess_nx"] - 50.0})
    np.testing.assert_allclose(narrow.nx, np.minimum(0.005, 0.5 * bank.sf / PPD), rtol=1e-5)


def test_the_learned_bank_has_the_learned_filters(gabor, start):
    """Half turns change the sign of the quadrature phase, which no cell can tell."""
    turns = np.pi * np.arange(-6.0, 6.0)
    params = dict(start, theta=start["theta"] + turns, phase=start["phase"] - 0.7)
    bank = gabor.learned(params)
    kernels = v1.gabor_kernels(bank, 21, PPD)
    for phase, (ours, fixed) in enumerate(
        zip(gabor.apply({"params": params}), kernels, strict=True)
    ):
        sign = np.where(np.arange(12) % 2 == 1, -1.0, 1.0)[:, None, None] if phase else 1.0
        np.testing.assert_allclose(sign * ours, fixed, atol=1e-5 * np.abs(fixed).max())
    np.testing.assert_array_equal(bank.channel, CONFIG.gabor_parameters().channel)


@pytest.fixture(scope="module")
def network():
    """A tuned network with a learned normalisation, whose parameters have moved."""
    model = models.create(
        "vone_cornet_z", num_classes=4, v1=TUNED, width=8, learned_normalization=v1.GDN()
    )
    variables = models.init(model, jax.random.key(0))
    moved = jax.tree.map(lambda p: p + 0.03, variables["params"])
    return model, {**variables, "params": moved}


@pytest.mark.slow
def test_a_fixed_bank_gives_the_same_logits(network, images, tmp_path):
    model, variables = network
    fixed, rest = models.with_fixed_bank(model, variables)
    assert isinstance(fixed, models.VOneNet) and not fixed.v1.tuned
    assert "block" not in rest["params"] and "block" in variables["params"]
    before = models.logits_fn(model, variables)(jax.random.key(2), images)
    after = models.logits_fn(fixed, rest)(jax.random.key(2), images)
    np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-5)
    assert models.with_fixed_bank(fixed, rest) == (fixed, rest)
    # The folder keeps the bank and the rule.
    convert.save_folder(tmp_path, fixed, rest)
    loaded, weights = convert.load_folder(tmp_path)
    assert loaded == fixed
    jax.tree.map(np.testing.assert_array_equal, weights, dict(rest))
    with pytest.raises(ValueError, match="no place for what is learned in normalization"):
        convert.to_torch(fixed, rest)


@pytest.mark.slow
def test_what_is_learned_in_v1_does_not_decay(network):
    _, variables = network
    params = variables["params"]
    optimizer = OptimizerConfig(weight_decay=0.1).transformation()
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zero, optimizer.init(params), params)
    moved = {part: max(float(jnp.abs(u).max()) for u in jax.tree.leaves(updates[part]))
             for part in updates}  # fmt: skip
    assert moved["block"] == moved["normalization"] == 0.0
    assert moved["bottleneck"] > 0.0 and moved["back_end"] > 0.0


def test_what_contradicts_a_tuned_bank_is_refused():
    imported = v1.ImportedBank(
        *CONFIG.gabor_kernels(), parameters=CONFIG.gabor_parameters(), pixels_per_degree=PPD
    )
    size = {"image_size": 224, "visual_degrees": 8.0, "kernel_size": 21, "stride": 4}
    for fields in (
        {"normalization": v1.SurroundNormalization()}, {"allow_aliasing": True}, {"bank": imported},
    ):  # fmt: skip
        with pytest.raises(ValueError, match="^tuned"):
            dataclasses.replace(TUNED, **size, **fields)
