"""Order, randomness, padding and position of the batches."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vone_jax import data
from vone_jax.data import batches as making

# Everything random at once.
AUGMENT = data.Augment(
    random_resized_crop=True,
    affine_degrees=20.0,
    affine_shift=0.1,
    affine_scale=(0.9, 1.1),
    crop_padding=2,
    flip=True,
)


@pytest.fixture(scope="module")
def source():
    """23 images of 12 x 12 px; the label is the index modulo 7."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (23, 12, 12, 3), np.uint8)
    names = tuple("abcdefg")
    return data.ArraySource(images, np.arange(23) % 7, class_names=names, name="toy")


def train(source, **options):
    options = {"batch_size": 4, "seed": 0, "image_size": 12, "augment": AUGMENT} | options
    return data.train_batches(source, **options)


def take(batches, number):
    return [next(batches) for _ in range(number)]


def all_equal(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


def indices(batches):
    return np.concatenate([batch["index"] for batch in batches])


def by_example(batches):
    """(epoch-local) index -> image, over batches of one epoch."""
    return {
        int(index): image
        for batch in batches
        for index, image in zip(batch["index"], batch["image"], strict=True)
    }


class TestTraining:
    def test_batches_hold_the_examples(self, source):
        batches = list(train(source, augment=None, epochs=2))
        assert len(batches) == 2 * data.batches_per_epoch(source, 4) == 10
        for batch in batches:
            assert {name: (b.dtype.name, b.shape) for name, b in batch.items()} == {
                "image": ("float32", (4, 12, 12, 3)),
                "label": ("int32", (4,)),
                "index": ("uint32", (4,)),
            }
            for image, label, index in zip(*batch.values(), strict=True):
                expected = source[int(index)]["image"].astype(np.float32) / np.float32(255)
                np.testing.assert_array_equal(image, expected)
                assert label == int(index) % 7

    def test_every_epoch_is_a_new_permutation(self, source):
        batches = list(train(source, batch_size=23, epochs=3))
        orders = [batch["index"].tolist() for batch in batches]
        assert all(sorted(order) == list(range(23)) for order in orders)
        assert len({tuple(order) for order in orders}) == 3
        images = [by_example([batch])[5] for batch in batches]
        assert not np.array_equal(images[0], images[1])

    def test_remainder_is_dropped_per_epoch(self, source):
        batches = list(train(source, epochs=2))
        for epoch in (batches[:5], batches[5:]):
            assert len(set(indices(epoch).tolist())) == 20

    def test_seed_decides(self, source):
        with contextlib.closing(train(source)) as one, contextlib.closing(train(source)) as two:
            all_equal(take(one, 7), take(two, 7))
        # Grain's own seeding would make seed 1 the run of seed 0 without its first epoch.
        first = [batch["index"].tolist() for batch in train(source, batch_size=23, epochs=3)]
        other = [
            batch["index"].tolist() for batch in train(source, batch_size=23, epochs=3, seed=1)
        ]
        assert not {tuple(order) for order in first} & {tuple(order) for order in other}

    def test_order_and_augmentation_do_not_depend_on_batch_size(self, source):
        small = by_example(train(source, batch_size=1, epochs=1))
        large = by_example(train(source, batch_size=23, epochs=1))
        assert list(small) == list(large) and set(small) == set(range(23))
        for index, image in small.items():
            np.testing.assert_array_equal(image, large[index])

    def test_processes_share_the_global_batch_in_order(self, source):
        whole = list(train(source, epochs=2))
        parts = [list(train(source, epochs=2, process_index=p, process_count=2)) for p in (0, 1)]
        joined = [
            {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
            for batches in zip(*parts, strict=True)
        ]
        all_equal(whole, joined)


class TestEvaluation:
    @pytest.mark.parametrize(
        ("batch_size", "process_count", "start"), [(4, 1, 22), (12, 4, 0), (40, 2, 5)]
    )
    def test_every_example_once_on_any_number_of_processes(
        self, source, batch_size, process_count, start
    ):
        options = {"batch_size": batch_size, "image_size": 12, "start": start}
        processes = [{"process_index": p} for p in range(process_count)]
        parts = [
            list(data.eval_batches(source, **options, **each, process_count=process_count))
            for each in processes
        ]
        assert len({len(part) for part in parts}) == 1
        assert sum(batch["mask"].sum() for part in parts for batch in part) == 23 - start
        seen = []
        for batches in zip(*parts, strict=True):
            for batch in batches:
                assert len(batch["mask"]) == batch_size // process_count
                assert batch["mask"].dtype == bool
                seen += batch["index"][batch["mask"]].tolist()
                assert (batch["index"][~batch["mask"]] == 23).all()
                assert not batch["image"][~batch["mask"]].any()
        assert seen == list(range(start, 23))

    def test_images_and_labels(self, source):
        batches = data.eval_batches(source, batch_size=23, image_size=12)
        (batch,) = list(batches)
        for index in range(23):
            expected = source[index]["image"].astype(np.float32) / np.float32(255)
            np.testing.assert_array_equal(batch["image"][index], expected)
            assert batch["label"][index] == index % 7

    @pytest.mark.parametrize("kept", [True, False])
    def test_prepared_images_equal_the_ordinary_ones_and_may_be_read_once(
        self, source, kept, monkeypatch
    ):
        reads = []

        class Counted(data.Subset):
            def __getitem__(self, index):
                reads.append(index)
                return super().__getitem__(index)

        if not kept:
            monkeypatch.setattr(data.sources, "_MOST_KEPT", 10)
        crop = data.Preprocessing(0.5)  # Images that are cropped twice would not be the same.
        prepared = data.Prepared(Counted(source), 8, crop)
        options = {"batch_size": 6, "image_size": 8}
        for start in (12, 0, 4):
            expected = data.eval_batches(source, preprocessing=crop, start=start, **options)
            all_equal(list(data.eval_batches(prepared, start=start, **options)), list(expected))
        assert len(reads) == (23 if kept else 11 + 23 + 19)

    @pytest.mark.parametrize(("image_size", "usual"), [(111, 1.0), (112, 0.875)])
    def test_photographs_from_112_pixels_on_are_cropped_as_imagenet(
        self, tmp_path, image_size, usual
    ):
        """The photograph has a white frame, which the centre crop cuts off."""
        pixels = np.random.default_rng(0).integers(0, 200, (320, 420, 3), np.uint8)
        pixels[:15] = pixels[-15:] = 255
        (tmp_path / "val" / "a").mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / "val/a/x.png")
        photos = data.load(f"folder:{tmp_path}", "val")
        cropped = {}
        for crop in (None, 1.0, 0.875):
            options = {"batch_size": 1, "preprocessing": data.Preprocessing(crop)}
            (cropped[crop],) = data.eval_batches(photos, image_size=image_size, **options)
            assert (cropped[crop]["image"].max() == 1) == ((crop or usual) == 1)
        (default,) = data.eval_batches(photos, batch_size=1, image_size=image_size)
        all_equal([default, cropped[None]], [cropped[usual]] * 2)


class TestResuming:
    @pytest.mark.parametrize("skip", [0, 7])
    def test_a_run_that_skips_batches_gets_those_of_an_uninterrupted_one(self, source, skip):
        """On any number of processes; epochs have 5 batches."""
        with contextlib.closing(train(source)) as batches:
            expected = take(batches, skip + 6)[skip:]
        with contextlib.closing(train(source, skip=skip)) as resumed:
            all_equal(take(resumed, 6), expected)
        with contextlib.closing(train(source, skip=skip, process_count=2)) as half:
            np.testing.assert_array_equal(next(half)["image"], expected[0]["image"][:2])


class TestSpeed:
    def test_the_images_of_a_batch_are_not_copied(self, source, monkeypatch):
        """Each batch was copied twice on its way to the devices."""
        made, make = [], making._EvalBatch.__call__
        monkeypatch.setattr(
            making._EvalBatch, "__call__", lambda *args: made.append(make(*args)) or made[-1]
        )
        options = {"batch_size": 23, "image_size": 12, "as_bytes": True}
        (batch,) = data.eval_batches(source, **options)
        assert np.shares_memory(batch["image"], made[0]["image"])

    def test_threads_of_the_process_make_batches_at_a_time(self, monkeypatch):
        """They were at most four, on machines of any size."""
        monkeypatch.setattr(making, "_THREADS", 6)
        together = threading.Barrier(6, timeout=20)

        class Waiting(data.ArraySource):
            def __getitem__(self, index):
                together.wait()
                return super().__getitem__(index)

        images = np.zeros((6, 4, 4, 1), np.uint8)
        waiting = Waiting(images, np.zeros(6, int), class_names=("a",))
        assert len(list(data.eval_batches(waiting, batch_size=1, image_size=4))) == 6


class Broken(data.ArraySource):
    """A source whose third example has wrong fields, which the test sets."""

    def __getitem__(self, index):
        example = super().__getitem__(index)
        return {**example, **self.bad} if index == 2 else example


class Unreadable(data.ArraySource):
    """A source whose example 7 raises an error that none of our readers raises."""

    def __getitem__(self, index):
        if index == 7:
            raise KeyError("rotten 7")
        return super().__getitem__(index)


class TestBadInput:
    @pytest.mark.parametrize(
        ("bad", "message"),
        [
            ({"image": np.zeros((12, 12, 3), np.float32)}, "example 2 of 'toy'.*float32"),
            ({"label": -1}, "example 2 of 'toy'.*label -1"),
        ],
    )
    def test_a_bad_example_is_named(self, bad, message):
        images = np.zeros((4, 12, 12, 3), np.uint8)
        broken = Broken(images, np.zeros(4, int), class_names=("a",), name="toy")
        broken.bad = bad
        with contextlib.closing(data.eval_batches(broken, batch_size=1, image_size=12)) as batches:
            take(batches, 2)
            with pytest.raises(ValueError, match=message):
                next(batches)

    @pytest.mark.parametrize("make", [train, data.eval_batches])
    def test_an_image_that_cannot_be_read_is_an_error_that_names_it(self, make):
        images, labels = np.zeros((23, 12, 12, 3), np.uint8), np.zeros(23, int)
        broken = Unreadable(images, labels, class_names=("a",), name="toy")
        with contextlib.closing(make(broken, batch_size=23, image_size=12)) as batches:
            with pytest.raises(ValueError, match="example 7 of 'toy' 'train' .*: 'rotten 7'"):
                next(batches)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"batch_size": 24}, "batch_size 24 is larger than the 23 examples"),
            ({"process_count": 3}, "process_count"),
        ],
    )
    def test_training_arguments(self, source, options, message):
        with pytest.raises(ValueError, match=message):
            train(source, **options)


def run_program(tmp_path, text, *arguments, options=(), **process):
    """Run a program of its own with the path of this one."""
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(text))
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, *options, str(script), *arguments]
    process = {"capture_output": True, "text": True} | process
    return subprocess.run(command, timeout=300, env=environment, **process)


@pytest.mark.slow
def test_worker_processes(tmp_path):
    """Workers of a program that parses no absl flags and imports JAX make the same batches.
    Errors name the file, and an exit without close() is silent."""
    (tmp_path / "images/train/a").mkdir(parents=True)
    for number in range(6):
        noise = np.random.default_rng(number).integers(0, 256, (14, 11, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / f"images/train/a/{number}.png")
    result = run_program(
        tmp_path,
        f"""
        import jax
        import numpy as np
        from vone_jax import data

        def start(workers):
            source = data.load("folder:{tmp_path}/images", "train")
            return data.train_batches(
                source, batch_size=2, seed=3, image_size=8, workers=workers,
                augment=data.Augment(random_resized_crop=True, flip=True),
            )

        if __name__ == "__main__":
            plain, parallel = start(0), start(2)
            for _ in range(5):
                one, other = next(plain), next(parallel)
                assert all(np.array_equal(one[name], other[name]) for name in one)
            open("{tmp_path}/images/train/a/4.png", "wb").close()
            failing = start(1)
            try:
                for _ in range(3):
                    next(failing)
            except ValueError as error:
                print("error:", error)
            # `plain` and `parallel` are left open.
        """,
        options=["-W", "error"],
    )
    assert result.returncode == 0, result.stderr
    assert (
        "images/train/a/4.png cannot be decoded (UnidentifiedImageError, 0 bytes)" in result.stdout
    )
    assert result.stderr == ""


@pytest.mark.slow
def test_workers_leave_signals_to_the_program_and_end_with_it(tmp_path):
    """All processes get the signals of a terminal and of a cluster; then the program is killed."""
    result = run_program(
        tmp_path,
        """
        import multiprocessing
        import os
        import signal
        import sys
        from vone_jax import data

        if __name__ == "__main__":
            source = data.load("fashion_mnist_small", "test")
            batches = data.train_batches(
                source, batch_size=100, seed=3, image_size=28, workers=1
            )
            next(batches)
            for one in (signal.SIGINT, signal.SIGTERM):
                signal.signal(one, signal.SIG_IGN)
                os.killpg(os.getpgid(0), one)
            for _ in range(30):
                next(batches)
            (worker,) = multiprocessing.active_children()
            open(sys.argv[1], "w").write(str(worker.pid))
            os.kill(os.getpid(), signal.SIGKILL)
        """,
        str(tmp_path / "worker"),
        capture_output=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert result.returncode == -signal.SIGKILL
    worker = int((tmp_path / "worker").read_text())
    for _ in range(200):
        if not _runs(worker):
            return
        time.sleep(0.05)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("the worker has survived the program")


def _runs(process):
    """Return whether a process runs. A zombie has ended, but its parent has not read its status."""
    try:
        os.kill(process, 0)
        # Without /proc, the call above has to be enough.
        stat = Path(f"/proc/{process}/stat")
        return not stat.parents[1].exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
