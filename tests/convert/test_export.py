"""A classifier as an artefact that runs in a process that has never seen the project."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vone_jax import convert, models, v1

SCRIPT = """
import sys
import jax, jax.export, numpy as np
folder = sys.argv[1]
classify = jax.export.deserialize(bytearray(open(folder + "/net.jax", "rb").read())).call
images = np.load(folder + "/images.npy")
for n in (1, 3):
    np.save(f"{folder}/logits{n}.npy", classify(jax.random.split(jax.random.key(7), n), images[:n]))
assert "vone_jax" not in sys.modules and "flax" not in sys.modules
"""


def test_a_damaged_artefact_is_refused_before_jax_reads_it():
    """JAX ends the process at some of them."""
    model = models.create("resnet18", 3, image_size=32, in_channels=1, width=2)
    variables = models.init(model, jax.random.key(0))
    artefact = convert.export(model, variables, platforms=("cpu",))
    middle = len(artefact) // 2
    flipped = artefact[:middle] + bytes([artefact[middle] ^ 1]) + artefact[middle + 1 :]
    for damaged in (flipped, artefact[:-1], artefact + b"x", artefact[:middle], b"", b"x" * 99):
        with pytest.raises(convert.CheckpointError, match="damaged, .* export the network again"):
            convert.load_exported(damaged)
    with pytest.raises(
        ValueError, match="platforms must be one of cpu, cuda, tpu, rocm; got 'gpu'"
    ):
        convert.export(model, variables, platforms=("cpu", "gpu"))


@pytest.mark.slow
def test_an_artefact_runs_in_a_fresh_process(tmp_path):
    config = v1.VOneBlockConfig(
        simple_channels=4, complex_channels=4, image_size=32, visual_degrees=1.0, kernel_size=9
    )
    model = models.create("vone_alexnet", 5, width=2, v1=config)
    images = np.random.default_rng(0).random((3, 32, 32, 3)).astype(np.float32)
    key = jax.random.key(0)
    variables = model.init({"params": key}, jnp.asarray(images[:1]), noise_key=key)
    (tmp_path / "net.jax").write_bytes(convert.export(model, variables))
    np.save(tmp_path / "images.npy", images)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    logits_fn = models.logits_fn(model, variables)
    for n in (1, 3):
        logits = logits_fn(jax.random.split(jax.random.key(7), n), images[:n])
        np.testing.assert_allclose(np.load(tmp_path / f"logits{n}.npy"), logits, atol=2e-5)
    exported = convert.load_exported((tmp_path / "net.jax").read_bytes())
    assert exported.image_shape == (32, 32, 3)
    expected = logits_fn(jax.random.key(7), images)
    np.testing.assert_allclose(exported(jax.random.key(7), images), expected, atol=2e-5)
    other = exported(jax.random.key(8), images)
    assert np.abs(other - expected).max() > 1e-3  # The key is no constant.
    with pytest.raises(ValueError, match="image_size must be an integer >= 8"):
        convert.export(model, variables, image_size=4)
    with jax.default_prng_impl("rbg"):
        elsewhere = convert.load_exported((tmp_path / "net.jax").read_bytes())
        np.testing.assert_allclose(elsewhere(jax.random.key(7), images), expected, atol=2e-5)
    # An attack differentiates a mean over draws.
    keys = jax.random.split(jax.random.key(9), (2, 3))

    def gradient(function):
        def mean(x):
            return jax.vmap(function, (0, None))(keys, x)[..., 0].mean()

        return jax.jit(jax.grad(mean))(jnp.asarray(images))

    expected = gradient(logits_fn)
    assert np.abs(expected).max() > 1e-6
    np.testing.assert_allclose(gradient(exported), expected, atol=1e-3 * np.abs(expected).max())
    with pytest.raises(convert.CheckpointError, match="the artefact is damaged"):
        convert.load_exported(b"no artefact")
