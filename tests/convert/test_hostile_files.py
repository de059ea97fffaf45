"""Files of strangers: nothing in them is executed, and damage is the one error."""

import io
import json
import pickle
import tracemalloc
import zipfile

import numpy as np
import pytest

from tests.convert.conftest import filled, refused
from tests.convert.torch_writer import (
    Call,
    Name,
    Stored,
    archive,
    pickled,
    sequence,
    tensor,
    zipped,
)
from vone_jax import convert
from vone_jax.convert import torch_file
from vone_jax.convert.checkpoint import read_checkpoint, read_safetensors
from vone_jax.convert.folder import is_folder
from vone_jax.convert.torch_file import CheckpointError
from vone_jax.progress import printable


def weights():
    return {"a": np.ones((2, 3), np.float32), "b": np.zeros(5)}


def archive_of(program):
    """An archive around the instructions of a pickle."""
    return zipped({"net/data.pkl": program})


@pytest.mark.parametrize(
    ("module", "attribute"),
    [
        ("os", "system"),
        ("builtins", "getattr"),
        ("torch.hub", "load"),
        ("vone_jax.convert.torch_file", "_NAMES"),
    ],
)
def test_hostile_pickles_are_refused_and_not_run(write, tmp_path, module, attribute):
    victim = tmp_path / "victim"
    content = {"state_dict": weights(), "x": Call(Name(module, attribute), (f"touch {victim}",))}
    refused(write(content), match=f"'{module}.{attribute}', which is not plain data")
    assert not victim.exists()


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_plain_hostile_pickle(protocol, tmp_path, capsys):
    class Hostile:
        def __reduce__(self):
            return print, ("executed",)

    refused(tmp_path / "file.pth", pickle.dumps(Hostile(), protocol=protocol))
    refused(tmp_path / "file.pth", archive_of(pickle.dumps(Hostile(), protocol=protocol)))
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize("made", [False, True])
def test_no_pickle_changes_what_later_files_are_read_with(made, tmp_path):
    """BUILD sets attributes: of a class that a name stands for, and of what the class makes."""
    path = tmp_path / "file.pth"
    state = b"N}(X\x05\x00\x00\x00arrayK\x01X\x08\x00\x00\x00__init__K\x01u\x86b"
    call = b")R" if made else b""
    for name in torch_file._NAMES:
        program = "\x80\x02c{}\n{}\n".format(*name.rsplit(".", 1)).encode()
        refused(path, archive_of(program + call + state + b"."))
    path.write_bytes(archive({"state_dict": weights()}))
    assert read_checkpoint(path).state_dict.keys() == weights().keys()


def test_known_names_cannot_be_used_for_something_else(write):
    rebuild = Name("torch._utils", "_rebuild_tensor_v2")
    for arguments in [(), ("x",) * 6, (None, -1, (2,), (1,)), ("x", 0, (2,), (1,))]:
        refused(write({"a": Call(rebuild, arguments)}, []))
    refused(write({"a": Call(Name("collections", "OrderedDict"), ("xy",))}))


def test_a_tensor_that_is_negated_lazily_is_refused(write):
    """PyTorch stores the numbers before they are negated, and says so in a seventh argument."""
    rebuild = Name("torch._utils", "_rebuild_tensor_v2")
    storage = Stored("0", np.ones(2, np.float32))
    arguments = (storage, 0, (2,), (1,), False, {})
    assert read_checkpoint(write({"a": Call(rebuild, (*arguments, {}))}, [storage])).state_dict
    negated = Call(rebuild, (*arguments, {"neg": True}))
    refused(write({"a": negated}, [storage]), match=r"store tensor.resolve_neg\(\)")


@pytest.mark.parametrize(
    ("shape", "offset", "strides"),
    [
        ((2,), 3, (1,)),
        ((2,), 0, (9,)),
        ((2,), -1, (1,)),
        ((2,), 2, (-1,)),
        ((-2, -2), 0, (1, 1)),
        ((2**62, 2**62), 0, (0, 0)),
        (("a",), 0, (1,)),
    ],
)
def test_a_tensor_lies_within_its_storage(write, shape, offset, strides):
    storage = Stored("0", np.ones(4, np.float32))
    refused(write({"a": tensor(storage, shape, offset, strides)}, [storage]))


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
    content = {"a": tensor(good, (1,)), "b": tensor(other, (1,))}
    refused(write(content, [good]), match="described in two ways")


def test_truncation_anywhere_is_an_error(write, tmp_path):
    data = write({"state_dict": weights()}).read_bytes()
    path = tmp_path / "short.pth"
    for length in sorted({*range(0, len(data), 37), 1, 3, 4, len(data) - 1}):
        refused(path, data[:length])


def test_damage_anywhere_is_an_error_or_harmless(write, tmp_path):
    """Random bytes: whatever is damaged, nothing but CheckpointError comes out."""
    data = write({"state_dict": weights()}).read_bytes()
    path = tmp_path / "damaged.pth"
    rng, refusals = np.random.default_rng(0), 0
    for _ in range(300):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), 3):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            read_checkpoint(path)
        except CheckpointError:
            refusals += 1
    assert refusals > 30


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"protocol": 1002}, "not written by torch.save"),
        ({"little_endian": False}, "on a big-endian machine"),
        ({"keys": []}, "the file lacks storage '0'"),
        ({"keys": ["0", "1"]}, "damaged"),
    ],
)
def test_the_older_format_must_list_its_storages(tmp_path, arguments, message):
    content = {"a": np.zeros(3, np.float32)}
    refused(tmp_path / "file.pth", sequence(content, **arguments), match=message)


@pytest.mark.parametrize("entry", ["net/constants.pkl", "net/byteorder", "other/data.pkl"])
def test_archives_of_other_kinds_are_refused(tmp_path, entry):
    """A TorchScript program, numbers of a big-endian machine, two pickles; and other files."""
    refused(tmp_path / "file.pth", archive(weights(), extra=[(entry, b"big")]))
    for data in (b"", b"hello", b"\x1f\x8b\x08", b"\x80", b"PK\x03\x04"):
        refused(tmp_path / "file.pth", data)


@pytest.fixture
def few_bytes():
    """Fail if the test has held more than 16 MB at a time; NumPy and Python count their bytes."""
    tracemalloc.start()
    yield
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2**24


def test_a_compressed_archive_is_refused_before_it_is_read(tmp_path, few_bytes):
    """torch.save never compresses. Zeros take a thousandth of the memory that they are read to."""
    entry = io.BytesIO()
    with zipfile.ZipFile(entry, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("net/data.pkl", pickled({"a": tensor(Stored("0", np.zeros(1)), (1,))}))
        with file.open("net/data/0", "w") as storage:
            for _ in range(100):
                storage.write(bytes(2**20))
    refused(tmp_path / "file.pth", entry.getvalue(), match="net/data.pkl is compressed")


def test_storages_must_not_take_more_bytes_than_the_file(tmp_path, few_bytes):
    """Several entries of an archive can be the same bytes of the file."""
    storage = Stored("0", np.ones(2, np.float32), length=2**40)
    path = tmp_path / "file.pth"
    refused(path, archive({"a": tensor(storage, (1,))}, [storage]), match="bytes, the file has")


@pytest.mark.parametrize("size", [2**14, 2**45])
def test_a_tensor_does_not_repeat_its_storage_without_end(write, size, few_bytes):
    """A stride of 0 repeats a number, until the tensor is copied."""
    storage = Stored("0", np.ones(2, np.float32))
    content = {"a": tensor(storage, (size,), strides=(0,)), "b": tensor(storage, (2,))}
    refused(write(content, [storage]), match=f"'a' has {4 * size:,}; store tensor.clone")


def test_tensors_do_not_repeat_a_storage_without_end(write, few_bytes):
    storage = Stored("0", np.ones(10_000, np.float32))

    def network(copies):
        return {f"w{i}": tensor(storage, (10_000,)) for i in range(copies)}

    refused(write(network(100), [storage]), match="to 4,000,000 bytes")
    # Two copies of a network, as in files of the robustness package.
    assert len(read_checkpoint(write(network(2), [storage])).state_dict) == 2


@pytest.mark.parametrize("depth", [10_000, 3_000_000])
@pytest.mark.parametrize("place", ["key", "value"])
def test_nested_metadata_is_refused(tmp_path, depth, place):
    """Python hashes nested tuples by recursion on the stack, and ends if there are millions."""
    value = b")" + b"\x85" * depth
    pair = value + b"K\x01" if place == "key" else b"K\x01" + value
    refused(tmp_path / "file.pth", archive_of(b"\x80\x02}" + pair + b"s."))


def test_flags_and_configs_that_are_nested_are_refused(tmp_path):
    nested = b"[" * 100_000
    flags = json.dumps({"__metadata__": {"flags": nested.decode()}}).encode()
    path = tmp_path / "x.safetensors"
    refused(path, len(flags).to_bytes(8, "little") + flags, "flags")
    folder = convert.save_folder(tmp_path / "net", *filled("cornet_z")[:2])
    config = (folder / "config.json").read_bytes().strip()
    (folder / "config.json").write_bytes(config[:-1] + b', "x": ' + nested + b"}")
    assert not is_folder(folder)
    refused(folder, None, "net/config.json does not", convert.load_folder)
    (folder / "config.json").write_bytes(config)
    (folder / "model.safetensors").write_bytes(b"x")
    refused(folder, None, "net/model.safetensors: ", convert.load_folder)


def test_a_place_of_the_memo_needs_a_pickle_of_its_length(tmp_path, few_bytes):
    """Python fills all places below it, here 32 GB."""
    program = b"\x80\x02}r\xff\xff\xff\x7f."
    refused(tmp_path / "file.pth", archive_of(program), match="memo")


def test_types_that_are_not_read_are_named(tmp_path):
    """They are no damage."""
    header = b'{"a": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}'
    path = tmp_path / "x.safetensors"
    refused(path, len(header).to_bytes(8, "little") + header + bytes(2), "'a' .*F8_E4M3")
    # How torch.save writes it.
    name = Name("torch._utils", "_rebuild_tensor_v3")
    storage = Stored("0", np.ones(2, np.uint8))
    storage.identity = ("storage", Name("torch.storage", "UntypedStorage"), "0", "cpu", 2)
    form = ((2,), (1,), False, {}, Name("torch", "float8_e4m3fn"))
    content = {"a": Call(name, (storage, 0, *form))}
    refused(tmp_path / "x.pth", archive(content, [storage]), match="float8")


@pytest.mark.parametrize(
    "header",
    [
        b'{"a": 3}',
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}',
        b'{"__metadata__": {"flags": "{"}, '
        b'"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}',
    ],
)
def test_malformed_safetensors(tmp_path, header):
    path = tmp_path / "x.safetensors"
    refused(path, len(header).to_bytes(8, "little") + header + bytes(4))
    refused(path, (2**60).to_bytes(8, "little") + header, "truncated", read_safetensors)


def test_names_cannot_write_to_the_terminal(tmp_path):
    path = tmp_path / "file.pth"
    names = ["\x1b[2J\x1b]0;title\x07", "\u202egnp.exe", "x" * 100_000, "a\nerror: b"]
    path.write_bytes(archive({name: np.ones(1, np.float32) for name in names}))
    for arguments in ({}, {"name": "resnet18"}):
        with pytest.raises(CheckpointError) as error:
            convert.from_torch(path, **arguments)
        text = str(error.value)
        assert all(c.isprintable() or c == "\n" for c in text)
        assert max(map(len, text.splitlines())) < 700
        assert "\nerror" not in text
    assert printable("a\t" * 400) == "a?" * 300 + "..."
