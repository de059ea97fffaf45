"""Files of torch.save: read without torch; damaged and hostile ones give an error, nothing else."""

import pickle
import zipfile
from collections import OrderedDict

import ml_dtypes
import numpy as np
import pytest

from tests.convert.conftest import refused
from tests.convert.torch_writer import (
    Call,
    Name,
    Stored,
    archive,
    pickled,
    sequence,
    tensor,
    with_tensors,
    zipped,
)
from vone_jax.convert.checkpoint import read_checkpoint
from vone_jax.convert.untrusted import CheckpointError

FORMATS = {"archive": archive, "sequence": sequence}


@pytest.fixture(params=FORMATS)
def write(request, tmp_path):
    """Writes content in one of the formats and gives the path."""

    def write(*args, **kwargs):
        path = tmp_path / "file.pth"
        path.write_bytes(FORMATS[request.param](*args, **kwargs))
        return path

    return write


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
    }
    arrays = read_checkpoint(write(content, [storage])).state_dict
    np.testing.assert_array_equal(arrays["transposed"], np.arange(12).reshape(4, 3).T)
    np.testing.assert_array_equal(arrays["part"], [10, 11])
    np.testing.assert_array_equal(arrays["broadcast"], [[4, 5]] * 3)


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
    assert "a" in read_checkpoint(write({key: weights()})).state_dict


def test_another_state_dict_is_named(write):
    content = {"epoch": 3, "model": weights(), "model_ema": weights()}
    note = "left out: model_ema, another state dict"
    assert note in read_checkpoint(write(content)).notes
    content.pop("model_ema")
    assert not any("left out" in each for each in read_checkpoint(write(content)).notes)


def test_files_without_weights_say_what_they_hold(write):
    refused(write({"epoch": 3, "loss": 0.5}), match="no state dict.*its keys are: epoch, loss")
    refused(write([1, 2]), match="holds a list")


@pytest.mark.parametrize(
    ("module", "attribute"),
    [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("torch.hub", "load"),
        ("torch.serialization", "load"),
        ("numpy", "load"),
        ("vone_jax.convert", "from_torch"),
    ],
)
def test_hostile_pickles_are_refused_and_not_run(write, tmp_path, module, attribute):
    victim = tmp_path / "victim"
    content = {"state_dict": weights(), "x": Call(Name(module, attribute), (f"touch {victim}",))}
    refused(write(content), match=f"'{module}.{attribute}', which is not plain data")
    assert not victim.exists()


def test_a_plain_hostile_pickle(tmp_path):
    class Hostile:
        def __reduce__(self):
            return print, ("executed",)

    path = tmp_path / "file.pth"
    for protocol in range(6):
        refused(path, pickle.dumps(Hostile(), protocol=protocol))


def test_known_names_cannot_be_used_for_something_else(write):
    rebuild = Name("torch._utils", "_rebuild_tensor_v2")
    for arguments in [(), ("x",) * 6, (None, -1, (2,), (1,)), (None, 0, (2**70,), (1,))]:
        refused(write({"a": Call(rebuild, arguments)}, []))
    refused(write({"a": Call(rebuild, ("x", 0, (2,), (1,)))}, []), match="has no storage")


def test_a_tensor_that_is_negated_lazily_is_refused(write):
    """PyTorch stores the numbers before they are negated, and says so in a seventh argument."""
    rebuild = Name("torch._utils", "_rebuild_tensor_v2")
    storage = Stored("0", np.ones(2, np.float32))
    arguments = (storage, 0, (2,), (1,), False, OrderedDict())
    assert read_checkpoint(write({"a": Call(rebuild, (*arguments, {}))}, [storage])).state_dict
    negated = Call(rebuild, (*arguments, {"neg": True}))
    refused(write({"a": negated}, [storage]), match=r"store tensor.resolve_neg\(\)")


def test_truncation_anywhere_is_an_error(write, tmp_path):
    data = write({"state_dict": weights()}).read_bytes()
    path = tmp_path / "short.pth"
    for length in sorted({*range(0, len(data), 37), 1, 3, 4, len(data) - 1}):
        refused(path, data[:length])


def test_damage_anywhere_is_an_error_or_harmless(write, tmp_path):
    """Random bytes: whatever is damaged, nothing but CheckpointError comes out."""
    data = write({"state_dict": weights()}).read_bytes()
    path = tmp_path / "damaged.pth"
    rng = np.random.default_rng(0)
    path.write_bytes(data)
    intact, refused = read_checkpoint(path), 0
    for _ in range(300):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), 3):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            checkpoint = read_checkpoint(path)
        except CheckpointError:
            refused += 1
        else:
            # Damage of numbers and names shows in numbers and names, not in their amount.
            assert len(checkpoint.state_dict) == len(intact.state_dict)
    assert refused > 30


def test_tensors_may_not_be_larger_than_their_storage(write):
    storage = Stored("0", np.ones(4, np.float32))
    for shape, offset, strides in [
        ((2**20, 2**20), 0, (0, 0)),
        ((5,), 0, (1,)),
        ((2,), 3, (1,)),
        ((2,), 0, (9,)),
    ]:
        refused(
            write({"a": tensor(storage, shape, offset, strides)}, [storage]),
            match="does not fit its storage",
        )


def test_storages_must_be_as_described(write):
    for described in [
        Stored("0", np.ones(4, np.float32), length=2**40),
        Stored("0", np.ones(4, np.float32), length=-1),
        Stored("0", np.ones(4, np.float32), kind="DoubleStorage"),
        Stored("0", np.ones(4, np.float32), kind="QInt8Storage"),
    ]:
        refused(write({"a": tensor(described, (1,))}, [described]))
    other = Stored("0", np.ones(4), kind="DoubleStorage")
    good = Stored("0", np.ones(4, np.float32))
    refused(
        write({"a": tensor(good, (1,)), "b": tensor(other, (1,))}, [good]),
        match="described in two ways",
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"protocol": 1002}, "a protocol other than 1001"),
        ({"little_endian": False}, "on a big-endian machine"),
        ({"keys": "0"}, "the list of storages is damaged"),
        ({"keys": []}, "the file lacks storage '0'"),
        ({"keys": ["0", "1"]}, "storage '1' belongs to no tensor"),
    ],
)
def test_the_older_format_must_list_its_storages(tmp_path, arguments, message):
    content = {"a": np.zeros(3, np.float32)}
    refused(tmp_path / "file.pth", sequence(content, **arguments), match=message)


def test_a_pickle_that_is_too_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("vone_jax.convert.torch_file._LARGEST_PICKLE", 100)
    content = archive({"a": np.zeros(3, np.float32)})
    refused(tmp_path / "file.pth", content, match="the pickle in the archive has .* bytes, too man")


def test_a_pickle_without_an_end_is_refused(tmp_path):
    refused(tmp_path / "file.pth", b"\x80\x02})", match="before seeing STOP")


def test_a_directory_is_no_checkpoint(tmp_path):
    with pytest.raises(IsADirectoryError, match=tmp_path.name):
        read_checkpoint(tmp_path)


def test_huge_lengths_in_a_pickle_allocate_nothing(tmp_path):
    path = tmp_path / "file.pth"
    for hostile in (
        b"\x80\x04\x8e" + (2**50).to_bytes(8, "little"),  # BINBYTES8
        b"\x80\x04N" + b"r" + (2**31 - 1).to_bytes(4, "little") + b".",  # LONG_BINPUT
        b"\x80\x04\x8d" + (2**62).to_bytes(8, "little"),  # BINUNICODE8
    ):
        refused(path, hostile)


def test_nested_keys_do_not_hang(tmp_path):
    """A key of 60 nested pairs, ((), ()) doubled each time: to hash it would visit 2^60 tuples."""
    path = tmp_path / "file.pth"
    refused(path, b"\x80\x02})" + b"q\x00h\x00\x86" * 60 + b"Ns.")


def test_too_many_instructions_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("vone_jax.convert.pickle_reader._MOST_WORK", 1000)
    path = tmp_path / "file.pth"
    refused(path, b"\x80\x02" + b"}" * 2000 + b".", match="more than 1000 instructions")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"compression": zipfile.ZIP_DEFLATED}, "compressed or overlapping"),
        ({"extra": [("net/constants.pkl", b"")]}, "TorchScript"),
        ({"extra": [("net/byteorder", b"middle")]}, "byte order"),
        ({"extra": [("other/data.pkl", b"")]}, "no data.pkl"),
    ],
)
def test_archives_that_are_refused(tmp_path, arguments, message):
    path = tmp_path / "file.pth"
    path.write_bytes(archive({"a": np.zeros(500, np.float32)}, **arguments))
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(path)


def test_big_endian_archives(tmp_path):
    storage = Stored("0", np.arange(3).astype(">f4"), kind="FloatStorage")
    path = tmp_path / "file.pth"
    path.write_bytes(
        archive({"a": tensor(storage, (3,))}, [storage], extra=[("net/byteorder", b"big")])
    )
    np.testing.assert_array_equal(read_checkpoint(path).state_dict["a"], [0, 1, 2])


@pytest.mark.parametrize("data", [b"", b"hello", b"\x1f\x8b\x08", b"\x80", b"PK\x03\x04"])
def test_other_files_are_refused(tmp_path, data):
    refused(tmp_path / "file.pth", data)
