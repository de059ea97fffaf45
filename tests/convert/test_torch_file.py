"""Files of torch.save are read without torch: types, views, and what lies beside the weights."""

from collections import OrderedDict

import ml_dtypes
import numpy as np
import pytest

from tests.convert.conftest import refused
from tests.convert.torch_writer import (
    Call,
    Name,
    Stored,
    pickled,
    tensor,
    with_tensors,
    zipped,
)
from vone_jax.convert.checkpoint import read_checkpoint


def weights():
    rng = np.random.default_rng(0)
    return OrderedDict(
        a=rng.random((2, 3)).astype(np.float32),
        b=rng.random(5),
        c=rng.random((2, 2)).astype(np.float16),
        d=rng.random((3, 1)).astype(ml_dtypes.bfloat16),
        e=np.array(7),
        f=np.zeros((0, 3), np.float32),
    )


def test_tensors_of_every_type(write):
    content = {"state_dict": weights(), "epoch": 3, "flags": {"arch": "resnet50", "k": 0.5}}
    checkpoint = read_checkpoint(write(content))
    assert checkpoint.flags == {"arch": "resnet50", "k": 0.5}
    assert checkpoint.state_dict.keys() == weights().keys()
    for name, array in weights().items():
        assert checkpoint.state_dict[name].dtype == array.dtype
        np.testing.assert_array_equal(checkpoint.state_dict[name], array)


def test_a_pickle_of_a_later_protocol(tmp_path):
    """It numbers what it refers to again by itself."""
    arch, storages = "resnet50", []
    content = with_tensors({"state_dict": weights(), "flags": {"arch": arch, "k": arch}}, storages)
    entries = {f"net/data/{each.identity[2]}": each.array.tobytes() for each in storages}
    path = tmp_path / "file.pth"
    path.write_bytes(zipped({"net/data.pkl": pickled(content, 4), "net/version": "3\n"} | entries))
    checkpoint = read_checkpoint(path)
    assert checkpoint.flags == {"arch": arch, "k": arch}
    for name, array in weights().items():
        np.testing.assert_array_equal(checkpoint.state_dict[name], array)


def test_views_share_a_storage(write):
    storage = Stored("0", np.arange(12, dtype=np.float32))
    content = {
        "transposed": tensor(storage, (3, 4), strides=(1, 3)),
        "part": tensor(storage, (2,), offset=10),
        "broadcast": tensor(storage, (3, 2), offset=4, strides=(0, 1)),
        "row": tensor(storage, (1, 4), offset=4, strides=(2**48, 1)),
    }
    arrays = read_checkpoint(write(content, [storage])).state_dict
    np.testing.assert_array_equal(arrays["transposed"], np.arange(12).reshape(4, 3).T)
    np.testing.assert_array_equal(arrays["part"], [10, 11])
    np.testing.assert_array_equal(arrays["broadcast"], [[4, 5]] * 3)
    # The stride of an axis of length 1 has no meaning.
    np.testing.assert_array_equal(arrays["row"], [[4, 5, 6, 7]])


def test_what_training_scripts_save_besides_weights_is_passed_over(write):
    scalar = Call(
        Name("numpy.core.multiarray", "scalar"),
        (Call(Name("numpy", "dtype"), ("f8", False, True)), b"12345678"),
    )
    content = {
        "state_dict": weights(),
        "best": scalar,
        "where": Call(Name("pathlib", "PosixPath"), ("a", "b")),
        "optimizer": {"state": {0: {"momentum_buffer": np.ones(3, np.float32)}}, "groups": [{}]},
    }
    assert "a" in read_checkpoint(write(content)).state_dict


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "net"])
def test_weights_are_found_under_usual_names(write, key):
    found = read_checkpoint(write({"epoch": 3, key: weights(), "model_ema": weights()}))
    assert "a" in found.state_dict and any("model_ema" in note for note in found.notes)


def test_files_without_weights_say_what_they_hold(write):
    refused(write({"epoch": 3, "loss": 0.5}), match="its keys are: epoch, loss")
    refused(write([1, 2]), match="holds a list")
