"""Files made to exhaust memory, time or a terminal are refused quickly, with the one error."""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.convert.conftest import refused
from tests.convert.torch_writer import Call, Name, Stored, archive, sequence, tensor, zipped
from vone_jax import convert
from vone_jax.convert.checkpoint import read_checkpoint
from vone_jax.convert.untrusted import CheckpointError, printable

MEMORY = 600 * 2**20  # What a file may take beyond the memory of the imports.
SECONDS = 20  # Of processor time.

# Reads files as the package does. Each is read in a process of its own, with limits that the
# kernel enforces. The imports are made once, because they take longer than the files.
READ = """
import json, os, pathlib, resource, sys
from vone_jax.convert.checkpoint import read_checkpoint
from vone_jax.convert.untrusted import CheckpointError

def read(path, memory, seconds):
    pages = int(open("/proc/self/statm").read().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + memory,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    try:
        read_checkpoint(pathlib.Path(path))
    except CheckpointError as error:
        return str(error)
    return "no error"

for path, memory, seconds in json.loads(sys.argv[1]):
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            message = read(path, memory, seconds)
        except BaseException as error:
            message = f"not refused: {type(error).__name__}"
        os.write(send, message[:4000].encode())
        os._exit(0)
    os.close(send)
    _, status = os.waitpid(child, 0)
    message = os.read(receive, 4000).decode() or f"killed with status {status}"
    print(json.dumps([path, message]))
"""


def read_with_limits(files):
    """The error of each file, or what happened instead; ``files`` are (path, memory, seconds)."""
    done = subprocess.run(
        [sys.executable, "-c", READ, json.dumps(files)],
        capture_output=True,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(line) for line in done.stdout.splitlines())


def copies(data):
    """A pickle that makes 3000 ordered dictionaries of one list of 200,000 pairs."""
    pairs = b"(" + b"h\x00" * 200_000 + b"l"
    return (
        b"\x80\x02K\x01K\x02\x86q\x000"  # Memo 0: the pair (1, 2).
        + pairs
        + b"q\x01"
        + b"0ccollections\nOrderedDict\nq\x020"
        + b"(" + b"h\x02h\x01\x85R" * data + b"l."
    )  # fmt: skip


def updates(count):
    """A pickle that copies one dictionary of 200,000 items into ``count`` namespaces."""
    items = b"".join(b"J" + i.to_bytes(4, "little") + b"N" for i in range(200_000))
    return (
        b"\x80\x02}(" + items + b"uq\x000cargparse\nNamespace\nq\x010"
        b"(" + b"h\x01)Rh\x00b" * count + b"l."
    )  # fmt: skip


def archive_of(pickle):
    """An archive around the bytes of a pickle."""
    return zipped({"net/data.pkl": pickle})


def safetensors(header, numbers=b""):
    return len(header).to_bytes(8, "little") + header + numbers


def many_entries():
    """An archive whose directory lists 400,000 entries, all at the same place."""
    entry = b"PK\x01\x02" + bytes(24) + (4).to_bytes(2, "little") + bytes(16) + b"name"
    directory = entry * 400_000
    end = (
        b"PK\x05\x06" + bytes(8) + len(directory).to_bytes(4, "little")
        + (4).to_bytes(4, "little") + bytes(2)
    )  # fmt: skip
    return b"PK\x03\x04" + directory + end


FILES = {
    "copies.pth": (lambda: archive_of(copies(3000)), "instructions and copied items"),
    "copies_old.pth": (lambda: copies(3000), "instructions and copied items"),
    "updates.pth": (lambda: archive_of(updates(3000)), "instructions and copied items"),
    "arguments.pth": (
        lambda: archive_of(
            b"\x80\x02(" + b"N" * 300_000 + b"tq\x000ctorch._utils\n_rebuild_parameter\nq\x010("
            + b"h\x01h\x00R" * 100_000 + b"l."
        ),
        "instructions and copied items",
    ),
    "empty.pth": (lambda: archive_of(b"\x80\x02" + b"}" * 3_000_000 + b"."), "instructions"),
    "collisions.pth": (
        # All keys have the same hash, so that filling a dictionary would take quadratic time.
        lambda: archive_of(
            b"\x80\x02}("
            + b"".join(
                b"\x8a\x0b" + (i * (2**61 - 1)).to_bytes(11, "little") + b"N"
                for i in range(1, 200_000)
            )
            + b"u."
        ),
        "no state dict",
    ),
    "memo.pth": (
        lambda: archive_of(
            b"\x80\x02N" + b"".join(b"p%d\n" % (i * (2**61 - 1)) for i in range(200_000)) + b"."
        ),
        "index of the memo",
    ),
    "directory.pth": (many_entries, "directory of the archive"),
    "nested.safetensors": (lambda: safetensors(b"[" * 99_000_000), "header"),
    "nested_small.safetensors": (lambda: safetensors(b'{"a":' + b"[" * 8_000_000), "damaged"),
    "dimensions.safetensors": (
        lambda: safetensors(
            b'{"a":{"dtype":"F32","shape":['
            + b",".join([b"9223372036854775807"] * 350_000)
            + b'],"data_offsets":[0,4]}}',
            bytes(4),
        ),
        "damaged",
    ),
    "many.safetensors": (
        lambda: safetensors(
            b"{" + b",".join(
                b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % i
                for i in range(130_000)
            ) + b"}"
        ),
        "no error",
    ),
    "flags.safetensors": (
        lambda: safetensors(
            b'{"__metadata__":{"flags":"' + b"[" * 7_000_000 + b'"},'
            b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
            bytes(4),
        ),
        "'flags' must have at most",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def errors(tmp_path_factory):
    """The error of each of ``FILES``, and of a harmless one that does not fit its limits."""
    folder = tmp_path_factory.mktemp("hostile")
    limits = []
    for name, (make, _) in FILES.items():
        (folder / name).write_bytes(make())
        limits.append((str(folder / name), MEMORY, SECONDS))
    large, slow = folder / "large.pth", folder / "slow.pth"
    large.write_bytes(archive({"a": np.zeros(2**23, np.float32)}))
    slow.write_bytes(archive_of(b"\x80\x02" + b"}0" * 499_000 + b"}."))
    limits += [(str(large), 2**23, SECONDS), (str(slow), MEMORY, 0)]
    return {Path(path).name: error for path, error in read_with_limits(limits).items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_memory_and_time_are_bounded(name, errors):
    assert FILES[name][1] in errors[name] and "Memory" not in errors[name]


def test_the_limits_of_these_tests_can_fail(errors):
    assert errors["large.pth"] == "not refused: MemoryError"
    assert errors["slow.pth"].startswith("killed with status")


HUGE = 2**61
TENSORS = {
    "shape (0, 2^61)": ((0, HUGE), (1, 1)),
    "stride 2^61": ((1,), (HUGE,)),
    "stride 2^48 of a dimension of 1": ((1, 4), (2**48, 1)),
    "shape (0, 2^47, 2^47)": ((0, 2**47, 2**47), (1, 1, 1)),
    "100 dimensions": ((1,) * 100, (1,) * 100),
    "integers of 4,300 digits": ((10**4299,), (1,)),
}


@pytest.mark.parametrize("form", [archive, sequence])
@pytest.mark.parametrize("case", TENSORS)
def test_impossible_tensors(case, form, tmp_path):
    shape, strides = TENSORS[case]
    storage = Stored("0", np.ones(4, np.float32))
    path = tmp_path / "file.pth"
    path.write_bytes(form({"a": tensor(storage, shape, strides=strides)}, [storage]))
    if case.startswith("stride 2^48"):  # Odd, but without meaning for a dimension of 1.
        np.testing.assert_array_equal(read_checkpoint(path).state_dict["a"], [[1, 1, 1, 1]])
        return
    refused(path)


@pytest.mark.parametrize(
    "entry",
    [
        '"dtype":"F32","shape":[0,2305843009213693952],"data_offsets":[0,0]',
        '"dtype":"F32","shape":[' + ",".join(["1"] * 100) + '],"data_offsets":[0,4]',
        '"dtype":"F32","shape":[' + "9" * 4300 + '],"data_offsets":[0,4]',
        '"dtype":"F4","shape":[2],"data_offsets":[0,1]',
    ],
)
def test_impossible_tensors_of_safetensors(entry, tmp_path):
    path = tmp_path / "file.safetensors"
    refused(path, safetensors(b'{"a":{' + entry.encode() + b"}}", bytes(int(entry[-2]))))


@pytest.mark.parametrize("form", [archive, sequence])
def test_huge_integers_in_flags_and_descriptions(form, tmp_path):
    path = tmp_path / "file.pth"
    huge = 10**5000
    content = form({"a": np.ones(1, np.float32), "flags": {"stride": huge}})
    refused(path, content, "more than 1024 bits", convert.from_torch)
    storage = Stored("0", np.ones(4, np.float32), length=huge)
    refused(path, form({"a": tensor(storage, (1,))}, [storage]), match="more than 1024 bits")


def test_views_may_not_multiply_the_work(tmp_path):
    """A thousand names for one storage: each comparison would read all of it."""
    storage = Stored("0", np.zeros(2**16, np.float32))
    names = {f"{who}{i}": tensor(storage, (2**16,)) for who in "ab" for i in range(500)}
    path = tmp_path / "file.pth"
    refused(path, archive(names, [storage]), match="more than 4 times the size of the file")


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
    many = CheckpointError("x", ["y"] * 10**5)
    assert len(many.problems) == 1001 and "and 99000 more" in str(many)
    assert printable("a\t" * 400) == "a?" * 300 + "..."


def test_pipes_and_devices_are_not_opened(tmp_path):
    for name in ("net.pth", "net.safetensors", "config.json"):
        os.mkfifo(tmp_path / name)
    started = time.monotonic()
    for read, path in (
        (convert.from_torch, tmp_path / "net.pth"),
        (convert.from_torch, tmp_path / "net.safetensors"),
        (convert.load_folder, tmp_path),
        (convert.from_torch, Path("/dev/zero")),
    ):
        refused(path, None, "must be a regular file", read)
    assert time.monotonic() - started < 5


def test_hostile_folders(vone, tmp_path):
    """Numbers in config.json decide how much is computed to check the weights."""
    convert.save_folder(tmp_path, vone[0], vone[1])
    config = json.loads((tmp_path / "config.json").read_text())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for change in (
        {"num_classes": 10**30},
        {"width": 2**40},
        {"width": 2.5},
        {"image_size": 10**9},
        {"v1": config["network"]["v1"] | {"simple_channels": 10**9}},
        {"v1": config["network"]["v1"] | {"kernel_size": 10**6 + 1}},
        {"v1": config["network"]["v1"] | {"stride": 2.5}},
        {"v1": config["network"]["v1"] | {"image_mean": [0.5]}},
        {"v1": []},
    ):
        (tmp_path / "config.json").write_text(
            json.dumps(config | {"network": config["network"] | change})
        )
        with pytest.raises(CheckpointError):
            convert.load_folder(tmp_path)
    (tmp_path / "config.json").write_text("[" * 10**7)
    with pytest.raises(CheckpointError, match="config.json must have at most"):
        convert.load_folder(tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY // 1024


def test_banks_and_flags_that_would_need_too_much_memory(vone, tmp_path):
    path = tmp_path / "file.pth"
    huge = {"arch": "resnet18", "simple_channels": 10**9, "complex_channels": 0}
    half = {k: t for k, t in vone[2].items() if k != "vone_block.simple_conv_q1.weight"}
    content = archive({"state_dict": half, "flags": huge})
    refused(path, content, "the bank must have at most", convert.from_torch)
    q = {
        f"vone_block.simple_conv_q{i}.weight": np.ones((10**6, 1, 3, 3), np.float32) for i in (0, 1)
    }
    content = archive({"state_dict": vone[2] | q})
    refused(path, content, "a bank must have at most", convert.from_torch)


def test_builders_take_only_tuples(tmp_path):
    path = tmp_path / "file.pth"
    refused(
        path,
        archive({"a": Call(Name("collections", "OrderedDict"), ("xy",))}),
        match="made of pairs",
    )
