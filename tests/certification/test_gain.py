"""Certificates behind gain control: each step of the proof, and attempts to exceed the bounds."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy

from tests.certification.test_bounds import bank, block, matrix
from tests.certification.test_certificates import Head, certify
from vone_jax import attacks, certification, models, v1
from vone_jax.certification import bounds
from vone_jax.certification.gain import Pools

POOLS = ("image", "position")
NOISES = (v1.GaussianNoise(0.3), v1.StabilisedNoise(level=0.5), v1.NeuronalNoise(level=0.5))


def controlled(noise=NOISES[0], cells=(5, 6), size=12, **fields):
    fields = {"semisaturation": 0.4, "gain": 1.7} | fields
    return block(
        cells, size=size, in_channels=1, noise=noise, normalization=v1.GainControl(**fields)
    )


def cells_of(config):
    return lambda images: v1.noise_free_responses(config, images)


def uniform(*shape, seed=0):
    return jax.random.uniform(jax.random.key(seed), shape)


@pytest.mark.parametrize("seed", range(4))
def test_the_matrix_of_the_proof_has_eigenvalues_from_zero_to_one(seed):
    """For any symmetric, positive semidefinite and non-negative weights of pools."""
    rng = np.random.default_rng(seed)
    factors = rng.exponential(size=(7, 3)) * (rng.random((7, 3)) < 0.5)
    of_pools, semisaturation = factors @ factors.T, 0.3
    x = rng.exponential(size=7) * rng.choice([0.0, 0.1, 1.0, 30.0], size=7)
    divisor = semisaturation**2 + of_pools @ x**2
    root = 1 / np.sqrt(divisor)
    s = root[:, None] * x[:, None] * of_pools * x * root
    values = np.linalg.eigvalsh(s)
    assert -1e-9 < values.min() and values.max() < 1.0

    def divide(x):
        return x / jnp.sqrt(semisaturation**2 + jnp.float32(of_pools) @ x**2)

    jacobian = jax.jacfwd(divide)(jnp.float32(x))
    expected = (np.eye(7) - s) / divisor[:, None] * np.sqrt(divisor)
    np.testing.assert_allclose(jacobian, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("pool", POOLS)
def test_gain_control_is_a_contraction_by_the_divisor_of_each_pool(pool):
    control = v1.GainControl(0.4, pool, gain=1.7)
    responses = 3 * jax.random.exponential(jax.random.key(0), (2, 2, 3)) ** 2
    flat = responses.reshape(-1)
    of_flat = lambda r: control(r.reshape(1, 2, 2, 3)).reshape(-1)  # noqa: E731
    jacobian = np.asarray(jax.jacfwd(of_flat)(flat), np.float64).reshape(4, 3, 4, 3)
    pools = Pools.of(control, np.asarray(responses))
    steepest = 1.7 / np.hypot(0.4, pools.mean)
    if pool == "image":
        found = np.linalg.norm(jacobian.reshape(12, 12), 2)
    else:
        found = np.array([np.linalg.norm(jacobian[i, :, i], 2) for i in range(4)])
        jacobian[np.arange(4), :, np.arange(4)] = 0
        assert not jacobian.any()
    # A direction at a right angle to the responses is not divided any further.
    np.testing.assert_allclose(found, steepest, rtol=1e-5)


@pytest.mark.parametrize("semisaturation", [0.01, 0.5, 20.0])
def test_the_bound_of_a_pool_is_the_integral_of_its_derivation(semisaturation):
    pools = Pools(v1.GainControl(semisaturation, gain=2.0), 9, np.array([1.3]), np.array([0.0]))

    def slope(s):
        return 2.0 / np.hypot(semisaturation, max(1.3 - s / 3.0, 0.0))

    for change in (1e-8, 0.01, 1.0, 3.8, 3.9, 4.0, 50.0):
        expected = scipy.integrate.quad(slope, 0, min(change, 3.9), limit=500)[0]
        expected += max(change - 3.9, 0.0) * 2.0 / semisaturation
        assert pools.moved(change)[0] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("semisaturation", [0.05, 0.5, 5.0])
def test_no_change_of_a_pool_exceeds_its_bound(semisaturation):
    """The farthest responses at a distance lie in the plane of two responses, so it is searched."""
    control, count = v1.GainControl(semisaturation, gain=1.5), 4
    start = np.array([2.0, 0.0])
    pools = Pools(control, count, np.linalg.norm(start)[None] / 2, np.zeros(1))
    divide = lambda r: 1.5 * r / np.sqrt(semisaturation**2 + np.sum(r**2, -1, keepdims=True) / 4)  # noqa: E731
    ratios = []
    for change in np.geomspace(1e-3, 100.0, 40):
        angle = np.linspace(0, np.pi, 2001)[:, None]
        other = start + change * np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
        moved = np.linalg.norm(divide(other) - divide(start), axis=1).max()
        ratios.append(moved / pools.moved(change)[0])
    assert 0.99 < max(ratios) <= 1 + 1e-9


@pytest.mark.parametrize("pool", POOLS)
def test_the_jacobian_of_a_block_is_within_the_rate_at_radius_zero(pool):
    config = controlled(pool=pool)
    classifier = certification.NoisyClassifier(config, lambda keys, r: r, config.noise)
    images = jnp.stack([uniform(12, 12, 1), 0.5 + 0.02 * uniform(12, 12, 1, seed=1)])
    for image in images:
        jacobian = jax.jacrev(lambda x: cells_of(config)(x[None]).reshape(-1))(image)
        jacobian = np.asarray(jacobian).reshape(-1, 144)
        of_all, of_cell = classifier.rates(image[None])["l2"](0.0)
        assert 0.25 * of_all < np.linalg.norm(jacobian, 2) <= of_all * (1 + 1e-5)
        assert np.linalg.norm(jacobian, axis=1).max() <= of_cell * (1 + 1e-5)
        assert of_all <= certification.sensitivity(config)


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("pool", POOLS)
def test_gradient_ascent_does_not_move_the_responses_beyond_the_bound(pool, norm):
    config = controlled(pool=pool)
    classifier = certification.NoisyClassifier(config, lambda keys, r: r, config.noise)
    image = 0.5 + 0.1 * (uniform(1, 12, 12, 1) - 0.5)
    clean, rates = cells_of(config)(image), classifier.rates(image)[norm]

    def project(change, radius):
        if norm == "linf":
            return jnp.clip(change, -radius, radius)
        return change * jnp.minimum(1.0, radius / jnp.linalg.norm(change))

    @jax.jit
    def farthest(change, radius):
        moved = lambda d: cells_of(config)(image + d) - clean  # noqa: E731

        def step(_, change):
            slope = jax.grad(lambda d: jnp.sum(moved(d) ** 2))(change)
            slope = jnp.sign(slope) if norm == "linf" else slope / jnp.linalg.norm(slope)
            return project(change + 0.2 * radius * slope, radius)

        found = moved(jax.lax.fori_loop(0, 60, step, project(change, radius)))
        return jnp.linalg.norm(found), jnp.max(jnp.abs(found))

    shares = []
    for radius in (0.003, 0.03, 0.3, 1.0):
        for seed in range(2):
            start = radius * jax.random.normal(jax.random.key(seed), image.shape)
            found, cell = farthest(start, radius)
            of_all, of_cell = rates(radius)
            assert cell <= radius * of_cell * (1 + 1e-5)
            shares.append(float(found) / (radius * of_all))
    assert (0.15 if norm == "l2" else 0.03) < max(shares) <= 1 + 1e-5


def test_the_cells_of_no_position_move_by_more_than_its_sensitivity():
    config = bounds.without_gain_control(controlled(size=16))
    found = bounds.position_sensitivities(config)
    rows = matrix(config, 16, 16).reshape(-1, 64, 256)
    norms = [np.linalg.norm(rows[:, i], 2) for i in range(64)]
    assert max(norms) == pytest.approx(found.l2, rel=1e-6)
    dense = np.concatenate([rows[:, i] @ np.sign(rows[0, i])[:, None] for i in range(64)], axis=1)
    assert np.linalg.norm(dense, axis=0).max() <= found.linf


@pytest.mark.parametrize("margin", [1.0, 2.5])
def test_the_radius_is_just_below_that_of_a_decoder_whose_answer_is_known(margin):
    """A half-space at a right angle to the responses of one delta kernel to a uniform image."""
    side, gain, semisaturation, deviation = 4, 1.5, 3.0, 0.4
    delta = np.zeros((2, 1, 3, 3))
    delta[0, 0, 1, 1] = 1.0
    noise = v1.GaussianNoise(deviation)
    config = block(
        (1, 0), size=side, kernel_size=3, stride=1, in_channels=1, k_exc=5.0, noise=noise,
        bank=bank([0], 3, delta), normalization=v1.GainControl(semisaturation, gain=gain),
    )  # fmt: skip
    signs = np.float32(np.where(np.arange(16) % 2, 1.0, -1.0)).reshape(1, 4, 4, 1)
    # A response of 4, far above 0: no cell is rectified.
    image = jnp.full((1, side, side, 1), 0.9)

    def back_end(keys, responses):
        noisy = responses + deviation * v1.standard_normal(keys, responses.shape[1:])
        score = jnp.sum(signs * noisy, axis=(1, 2, 3)) / 4 / deviation + margin
        return jnp.stack([score, jnp.zeros_like(score)], axis=-1)

    found = certify(certification.NoisyClassifier(config, back_end, noise), image)
    needed = scipy.stats.norm.ppf(found.lower[0])
    assert needed == pytest.approx(margin, abs=0.2)

    def d_prime(radius):
        change = 10.0 * radius  # The kernel reads 5 (x - 0.5) / 0.5.
        return gain * change / np.sqrt(semisaturation**2 + 16.0 + change**2 / 16) / deviation

    exact = scipy.optimize.brentq(lambda radius: d_prime(radius) - needed, 0, 10)
    assert 0.85 * exact < found.l2[0] <= exact


@pytest.mark.slow
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("noise", NOISES, ids=["gaussian", "stabilised", "neuronal"])
def test_no_attack_of_a_certified_radius_changes_the_answer(pool, noise):
    config = controlled(noise, (6, 6), 8, pool=pool, semisaturation=0.2)
    model = models.create("vone_resnet18", 3, v1=config, back_end=Head(), width=8)
    variables = models.init(model, jax.random.key(3))
    classifier = certification.from_model(model, variables)
    images = uniform(6, 8, 8, 1, seed=5)
    found = certify(classifier, images, draws=1000)
    stands = ~found.abstained
    assert stands.sum() >= 2 and np.all(found.l2[stands] > 0)
    radius = np.where(stands, 0.999 * found.l2, 0.0)
    attack = attacks.PGD(norm="l2", eps=jnp.float32(radius), steps=10, eot_samples=8)
    labels = jnp.asarray(found.prediction)
    changed = attack(jax.random.key(1), models.logits_fn(model, variables), images, labels)
    assert np.all(certify(classifier, changed, draws=1000).prediction[stands] == labels[stands])
    # The certified region contains the balls, and more.
    signs = jnp.sign(changed - images + 1e-9)
    tiny = jnp.float32(0.999 * found.linf)[:, None, None, None] * signs
    for change in (changed - images, tiny):
        assert np.all(found.covers(images, change)[stands])
    step = 0.999 * found.l2 / 8
    wide = jnp.float32(1.05 * step)[:, None, None, None] * jnp.ones_like(images)
    assert np.any(found.covers(images, wide)[stands])
    assert not found.covers(images, 100 * wide).any()


def test_radii_fall_with_the_energy_of_the_image_and_are_those_of_the_faintest_at_least():
    config = controlled()
    classifier = certification.NoisyClassifier(config, lambda keys, r: r, config.noise)
    image = uniform(1, 12, 12, 1)
    sensitivity = certification.sensitivity(config)
    last = 0.0
    for contrast in (0.0, 0.25, 1.0):
        rates = classifier.rates(0.5 + contrast * (image - 0.5))["l2"]
        radius, _ = certification.observer.certified_radius(config.noise, 0.99, rates)
        least = 0.3 * scipy.stats.norm.ppf(0.99) / sensitivity
        assert max(last, least * (1 - 1e-6)) <= radius
        last = radius


def test_what_has_no_proof_is_refused():
    config = controlled()
    surround = dataclasses.replace(
        config, image_size=28, visual_degrees=1.0,
        normalization=v1.SurroundNormalization(largest_extent=0.2),
    )  # fmt: skip
    model = models.create("vone_resnet18", 3, v1=surround, back_end=Head(), width=8)
    with pytest.raises(ValueError, match="do not overlap"):
        certification.from_model(model, models.init(model, jax.random.key(0)))
    with pytest.raises(ValueError, match="normalization"):
        certification.displacements(config, uniform(1, 12, 12, 1))
    classifier = certification.NoisyClassifier(config, lambda keys, r: r, config.noise)
    with pytest.raises(ValueError, match="local"):
        certify(classifier, uniform(1, 12, 12, 1), local=True)
