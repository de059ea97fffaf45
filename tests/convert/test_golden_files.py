"""The original's logits from whole files: formula weights and the original's bank, as published."""

import jax
import numpy as np
import pytest

from tests.convert.torch_writer import archive, sequence
from tests.golden import formula_weights
from vone_jax import convert, models, v1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reference", "arch", "form", "prefix"),
    [
        ("vone_resnet50", "resnet50", sequence, "module."),
        ("vone_alexnet", "alexnet", sequence, "module."),
        ("vone_cornets", "cornets", archive, ""),
    ],
)
def test_files_give_the_golden_logits(reference, arch, form, prefix, golden, tmp_path):
    state_dict = formula_weights.state_dict(reference)
    kernels = v1.gabor_kernels(v1.sample_gabor_parameters(512, sf_max=9.0), 25, 28.0)
    for phase, values in zip(("q0", "q1"), kernels, strict=True):
        weights = np.zeros((512, 3, 25, 25), np.float32)
        weights[np.arange(512), golden[f"channel_{phase}"]] = values
        state_dict[f"vone_block.simple_conv_{phase}.weight"] = weights
    flags = {
        "arch": arch,
        "stride": 4,
        "simple_channels": 256,
        "complex_channels": 256,
        "k_exc": 25.0,
        "noise_mode": None,
    }
    content = {"flags": flags, "state_dict": {prefix + n: t for n, t in state_dict.items()}}
    path = tmp_path / "net.pth.tar"
    path.write_bytes(form(content))
    model, variables = convert.from_torch(path)
    rng = np.random.Generator(np.random.PCG64(0))
    images = rng.random((2, 224, 224, 3)).astype(np.float32)
    classify = jax.jit(lambda logits_fn, x: logits_fn(jax.random.key(0), x))
    logits = classify(models.logits_fn(model, variables), images)
    np.testing.assert_allclose(logits, golden[f"logits_{reference}"], rtol=0, atol=2e-4)
