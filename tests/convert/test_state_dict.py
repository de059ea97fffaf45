"""State dicts that do not fit are refused with all their problems. Golden logits check the rest."""

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from vone_jax import convert, models
from vone_jax.convert.state_dict import source


@pytest.fixture(scope="module")
def model():
    return models.create("resnet18", 10, width=2)


@pytest.fixture(scope="module")
def state_dict(model):
    """Random tensors in PyTorch's layout for every leaf."""
    key = jax.random.key(0)
    shapes = jax.eval_shape(lambda: model.init(key, np.zeros((1, 224, 224, 3), np.float32)))
    rng = np.random.default_rng(0)
    tensors = {}
    for path, leaf in flatten_dict(shapes).items():
        shape = {4: lambda s: (s[3], s[2], s[0], s[1]), 2: lambda s: s[::-1]}.get(
            len(leaf.shape), lambda s: s
        )(leaf.shape)
        tensors[source(model, path[1:]).name] = rng.random(shape).astype(np.float32)
    return tensors


def test_every_leaf_is_filled_from_its_tensor(model, state_dict):
    variables = convert.from_state_dict(
        model, state_dict | {"bn1.num_batches_tracked": np.array(3)}
    )
    kernel = variables["params"]["back_end"]["layer2_0"]["downsample_0"]["kernel"]
    tensor = state_dict["layer2.0.downsample.0.weight"]
    np.testing.assert_array_equal(kernel[0, 0, 1, 2], tensor[2, 1, 0, 0])
    stats = variables["batch_stats"]["stem"]["bn1"]["var"]
    np.testing.assert_array_equal(stats, state_dict["bn1.running_var"])
    np.testing.assert_array_equal(
        variables["params"]["back_end"]["fc"]["kernel"], state_dict["fc.weight"].T
    )


def test_all_problems_are_reported_at_once(model, state_dict):
    broken = dict(state_dict)
    del broken["layer3.1.bn2.bias"]
    broken["fc.bias"] = np.zeros(11, np.float32)
    broken["fc.weight"] = np.full_like(broken["fc.weight"], np.nan)
    broken["layer9.0.conv1.weight"] = np.zeros(1, np.float32)
    with pytest.raises(ValueError) as error:
        convert.from_state_dict(model, broken)
    report = str(error.value)
    assert "missing: layer3.1.bn2.bias" in report
    assert "shape: fc.bias gives (11,), params/back_end/fc/bias has (10,)" in report
    assert "not finite: fc.weight" in report
    assert "unused: layer9.0.conv1.weight" in report
