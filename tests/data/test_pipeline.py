"""Order, randomness, padding and position of the batches."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import grain
import numpy as np
import orbax.checkpoint as ocp
import pytest
from PIL import Image

from vone_jax import data
from vone_jax.data import workers as worker_processes
from vone_jax.data.sources import KeptImages

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
        extremes = np.zeros((1, 12, 12, 3), np.uint8)
        extremes[0, 0] = 255
        extremes = data.ArraySource(extremes, np.array([0]), class_names=("a",))
        (batch,) = train(extremes, batch_size=1, augment=None, epochs=1)
        assert batch["image"].min() == 0 and batch["image"].max() == 1

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

    def test_runs_without_end(self, source):
        with contextlib.closing(train(source, batch_size=23)) as batches:
            assert all(len(set(batch["index"].tolist())) == 23 for batch in take(batches, 4))

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

    @pytest.mark.parametrize("process_count", [2, 4])
    def test_processes_share_the_global_batch_in_order(self, source, process_count):
        whole = list(train(source, epochs=2))
        parts = [
            list(train(source, epochs=2, process_index=p, process_count=process_count))
            for p in range(process_count)
        ]
        joined = [
            {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
            for batches in zip(*parts, strict=True)
        ]
        all_equal(whole, joined)

    def test_grey_images_and_another_size(self):
        small = data.load("fashion_mnist_small", "test")
        with contextlib.closing(train(small, image_size=32, batch_size=8)) as batches:
            assert next(batches)["image"].shape == (8, 32, 32, 1)


class TestEvaluation:
    @pytest.mark.parametrize("batch_size", [4, 8, 12, 40])
    @pytest.mark.parametrize("process_count", [1, 2, 4])
    @pytest.mark.parametrize("start", [0, 5, 22])
    def test_every_example_once_on_any_number_of_processes(
        self, source, batch_size, process_count, start
    ):
        parts = [
            list(
                data.eval_batches(
                    source,
                    batch_size=batch_size,
                    image_size=12,
                    start=start,
                    process_index=p,
                    process_count=process_count,
                )
            )
            for p in range(process_count)
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

    @pytest.mark.parametrize("process", range(2))
    def test_kept_images_are_read_and_prepared_once(self, source, process, monkeypatch):
        reads = []

        class Counted(data.Subset):
            def __getitem__(self, index):
                reads.append(index)
                return super().__getitem__(index)

        counted = Counted(source)
        kept = KeptImages(counted, 8)
        shared = {"process_index": process, "process_count": 2, "image_size": 8}
        # Images that are cropped a second time would not be the same.
        shared["preprocessing"] = data.Preprocessing(0.5)

        def batches(start=0, batch_size=6, **options):
            fields = shared | options
            return data.eval_batches(counted, batch_size=batch_size, start=start, **fields)

        with contextlib.closing(batches(kept=kept)) as stopped:
            take(stopped, 2)
        for start in (12, 0):  # not all of them were kept before
            all_equal(list(batches(start, kept=kept)), list(batches(start)))
        expected = {start: list(batches(start)) for start in (0, 12)}
        # Workers would have to read the images again.
        monkeypatch.setattr(worker_processes, "prepare", lambda: pytest.fail("workers are started"))
        reads.clear()
        for start, of_start in expected.items():
            all_equal(list(batches(start, workers=1, kept=kept)), of_start)
        assert not reads
        for other in ({"start": 4}, {"batch_size": 8}):  # other images for this process
            all_equal(list(batches(**other, kept=kept)), list(batches(**other)))
        assert reads

    def test_start_at_the_end_gives_nothing(self, source):
        assert not list(data.eval_batches(source, batch_size=4, image_size=12, start=23))

    @pytest.mark.parametrize(
        ("image_size", "usual"), [(64, 1.0), (111, 1.0), (112, 0.875), (224, 0.875)]
    )
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


class TestPosition:
    @pytest.mark.parametrize("position", [0, 3, 5, 7])
    def test_restored_run_equals_the_uninterrupted_one(self, source, position):
        with contextlib.closing(train(source)) as batches:
            take(batches, position)
            state = json.loads(json.dumps(batches.get_state()))
            expected = take(batches, 6)
        with contextlib.closing(train(source)) as restored:
            take(restored, 2)
            restored.set_state(state)
            assert restored.get_state() == state
            all_equal(take(restored, 6), expected)

    def test_end_of_a_finite_run(self, source):
        batches = train(source, epochs=1)
        assert len(list(batches)) == 5
        restored = train(source, epochs=1)
        restored.set_state(batches.get_state())
        assert list(restored) == []

    def test_state_fits_another_number_of_processes(self, source):
        with contextlib.closing(train(source, process_count=2)) as half:
            take(half, 3)
            state = half.get_state()
        with contextlib.closing(train(source)) as whole, contextlib.closing(train(source)) as again:
            take(whole, 3)
            again.set_state(state)
            all_equal(take(whole, 2), take(again, 2))

    def test_evaluation(self, source):
        options = {"batch_size": 4, "image_size": 12, "start": 2}
        with contextlib.closing(data.eval_batches(source, **options)) as batches:
            take(batches, 2)
            state = batches.get_state()
            expected = list(batches)
        restored = data.eval_batches(source, **options)
        restored.set_state(state)
        all_equal(list(restored), expected)

    @pytest.mark.parametrize("change", [{"seed": 1}, {"batch_size": 8}])
    def test_other_pipelines_are_refused(self, source, change):
        state = train(source).get_state()
        (name,) = change
        with pytest.raises(ValueError, match=f"{name}="):
            train(source, **change).set_state(state)

    def test_other_sets_and_kinds_are_refused(self, source):
        state = train(source).get_state()
        other = data.load("fashion_mnist_small", "test")
        with pytest.raises(ValueError, match="dataset='toy'"):
            train(other).set_state(state)
        other = data.ArraySource(
            np.zeros((23, 12, 12, 3), np.uint8),
            np.zeros(23, int),
            class_names=source.class_names,
            name="toy",
            split="test",
        )
        with pytest.raises(ValueError, match="split='test'"):
            train(other).set_state(state)
        with pytest.raises(ValueError, match="kind='train'"):
            data.eval_batches(source, batch_size=4, image_size=12).set_state(state)

    def test_a_set_that_grew_and_another_start_are_refused(self, source):
        """A position in them would be at another example."""
        state = train(source).get_state()
        with pytest.raises(ValueError, match="examples=23, this one has examples=22"):
            train(data.Subset(source, 22)).set_state(state)
        first, second = (
            data.eval_batches(source, batch_size=4, image_size=12, start=start) for start in (0, 2)
        )
        with pytest.raises(ValueError, match="start=0, this one has start=2"):
            second.set_state(first.get_state())

    def test_orbax_saves_and_restores_it(self, source, tmp_path):
        with contextlib.closing(train(source)) as batches:
            take(batches, 3)
            with ocp.CheckpointManager(tmp_path) as manager:
                manager.save(
                    0, args=ocp.args.Composite(data=grain.checkpoint.CheckpointSave(batches))
                )
            expected = take(batches, 3)
        with contextlib.closing(train(source)) as restored:
            with ocp.CheckpointManager(tmp_path) as manager:
                args = ocp.args.Composite(data=grain.checkpoint.CheckpointRestore(restored))
                manager.restore(0, args=args)
            all_equal(take(restored, 3), expected)

    def test_closed_iterator_refuses(self, source):
        batches = train(source)
        next(batches)
        batches.close()
        batches.close()
        with pytest.raises(ValueError, match="closed"):
            next(batches)


class Broken(data.ArraySource):
    """A source whose third example has wrong fields, which the test sets."""

    def __getitem__(self, index):
        example = super().__getitem__(index)
        return {**example, **self.bad} if index == 2 else example


class Unreadable:
    """A source with examples that raise an error that none of our readers raises."""

    def __init__(self, source, rotten):
        self.source, self.rotten = source, rotten

    def __getattr__(self, name):
        return getattr(self.source, name)

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index):
        if index in self.rotten:
            raise KeyError(f"rotten {index}")
        return self.source[index]


class Thin(Unreadable):
    """A source with images that are wider than high."""

    def __getitem__(self, index):
        example = self.source[index]
        wide = np.concatenate([example["image"], example["image"][:, :1]], axis=1)
        return example | ({"image": wide} if index in self.rotten else {})


class TestBadInput:
    @pytest.mark.parametrize(
        ("bad", "message"),
        [
            ({"image": np.zeros((12, 12, 1), np.uint8)}, r"image 2 of 'toy'.*3 channel"),
            ({"image": np.zeros((12, 12, 3), np.float32)}, "image 2 of 'toy'.*float32"),
            ({"label": -1}, r"label -1 of example 2 of 'toy'.*\[0, 1\)"),
        ],
    )
    def test_bad_example_is_named_and_not_passed_over(self, bad, message):
        images = np.zeros((4, 12, 12, 3), np.uint8)
        broken = Broken(images, np.zeros(4, int), class_names=("a",), name="toy")
        broken.bad = bad
        with contextlib.closing(data.eval_batches(broken, batch_size=1, image_size=12)) as batches:
            take(batches, 2)
            for _ in range(2):
                with pytest.raises(ValueError, match=message):
                    next(batches)
                assert batches.get_state()["position"] == 2

    def test_what_cannot_be_read_is_named_and_ends_the_run(self, source):
        broken = Unreadable(source, {7})
        with contextlib.closing(train(broken, batch_size=23)) as batches:
            for _ in range(2):
                with pytest.raises(ValueError, match="example 7 of 'toy' 'train' .*: 'rotten 7'"):
                    next(batches)

    def test_what_cannot_be_read_gives_its_place_to_the_next(self, source):
        """Each is named once an epoch; the rest of the batches is as it was."""
        broken = Unreadable(source, {7, 8, 22})
        options = {"batch_size": 23, "epochs": 2, "augment": None}
        with pytest.warns(UserWarning, match="rotten") as warned:
            batches = list(train(broken, unreadable="skip", **options))
        names = [f"rotten {i}" in str(w.message) for w in warned for i in (7, 8, 22)]
        assert len(warned) == 6 and sum(names) == 2 * (1 + 2 + 1)
        for batch, expected in zip(batches, train(source, **options), strict=True):
            assert batch.keys() == {"image", "label", "index", "unreadable"}
            moved = {7: 9, 8: 9, 22: 0}
            index = [moved.get(i, i) for i in expected["index"].tolist()]
            assert batch["index"].tolist() == index
            assert batch["label"].tolist() == [i % 7 for i in index]
            np.testing.assert_array_equal(batch["unreadable"], batch["index"] != expected["index"])
            image = source[9]["image"].astype(np.float32) / np.float32(255)
            for row in np.flatnonzero(batch["index"] == 9):
                np.testing.assert_array_equal(batch["image"][row], image)

    def test_an_image_that_is_too_thin_is_named_and_gives_its_place_to_the_next(
        self, source, monkeypatch
    ):
        monkeypatch.setattr(data.transforms, "_MOST_PIXELS", 12 * 12)
        options = {"batch_size": 23, "augment": None}
        with contextlib.closing(train(Thin(source, {7}), **options)) as batches:
            with pytest.raises(ValueError, match="example 7 of 'toy' 'train': an image of 13 x"):
                next(batches)
        with pytest.warns(UserWarning, match="example 7 .* too thin"):
            batches = list(train(Thin(source, {7}), unreadable="skip", epochs=1, **options))
        assert sorted(batches[0]["index"]) == sorted([*set(range(23)) - {7}, 8])

    def test_a_set_that_cannot_be_read_at_all_is_not_skipped(self, source):
        broken = Unreadable(source, set(range(23)))
        with contextlib.closing(train(broken, unreadable="skip")) as batches:
            with pytest.raises(ValueError, match="10 examples in a row: .*rotten"):
                next(batches)

    def test_evaluation_never_skips(self, source):
        batches = data.eval_batches(Unreadable(source, {2}), batch_size=23, image_size=12)
        with contextlib.closing(batches), pytest.raises(ValueError, match="rotten 2"):
            next(batches)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"unreadable": "ignore"}, "unreadable must be one of raise, skip; got 'ignore'"),
            ({"batch_size": 24}, "batch_size 24 is larger than the 23 examples of 'toy'"),
            ({"batch_size": 0}, "batch_size"),
            ({"batch_size": 2.0}, "batch_size"),
            ({"image_size": 0}, "image_size"),
            ({"seed": -1}, "seed"),
            ({"seed": 2**32}, "seed"),
            ({"epochs": 0}, "epochs"),
            ({"workers": -1}, "workers"),
            ({"process_count": 3}, "divisible by process_count, got 4 and 3"),
            ({"process_count": 2, "process_index": 2}, "process_index"),
        ],
    )
    def test_training_arguments(self, source, options, message):
        with pytest.raises(ValueError, match=message):
            train(source, **options)

    @pytest.mark.parametrize("options", [{"start": -1}, {"start": 24}, {"process_index": 1}])
    def test_evaluation_arguments(self, source, options):
        (name,) = options
        with pytest.raises(ValueError, match=name):
            data.eval_batches(source, **{"batch_size": 4, "image_size": 12, **options})

    def test_empty_source(self, source, monkeypatch):
        monkeypatch.setattr(data.ArraySource, "__len__", lambda self: 0)
        for make in (train, lambda s: data.eval_batches(s, batch_size=4, image_size=12)):
            with pytest.raises(ValueError, match="'toy' 'train' has no examples"):
                make(source)


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
    """Workers of a program that parses no absl flags and imports JAX make the same batches. The
    state fits another number of workers, errors name the file, and an exit without close() is
    silent."""
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
                augment=data.AUGMENTS["imagenet"],
            )

        if __name__ == "__main__":
            plain, parallel = start(0), start(2)
            for _ in range(5):
                one, other = next(plain), next(parallel)
                assert all(np.array_equal(one[name], other[name]) for name in one)
            parallel.set_state(plain.get_state())
            plain.set_state(parallel.get_state())
            for _ in range(2):
                one, other = next(plain), next(parallel)
                assert all(np.array_equal(one[name], other[name]) for name in one)
            parallel.close()
            open("{tmp_path}/images/train/a/4.png", "wb").close()
            failing = start(1)
            try:
                for _ in range(3):
                    next(failing)
            except ValueError as error:
                print("error:", error)
            # `plain` and `failing` are left open.
        """,
        options=["-W", "error"],
    )
    assert result.returncode == 0, result.stderr
    assert "images/train/a/4.png cannot be decoded (the file is empty)" in result.stdout
    assert result.stderr == ""


@pytest.mark.filterwarnings("ignore:.*starting it again")
@pytest.mark.parametrize(("unreadable", "most"), [("raise", 0), ("skip", 3)])
def test_a_dead_worker_is_started_again_where_examples_are_skipped(
    source, monkeypatch, unreadable, most
):
    """Three times in a row, and the batches stay the same."""
    expected, read, left = take(train(source), 2), data.Batches._read, []

    def die(self):
        if left:
            left.pop()
            raise ChildProcessError("a data worker died")
        return read(self)

    monkeypatch.setattr(data.Batches, "_read", die)
    left += [None] * most
    found = take(train(source, unreadable=unreadable), 2)
    np.testing.assert_array_equal(indices(found), indices(expected))
    left += [None] * (most + 1)
    with pytest.raises(ChildProcessError, match="a data worker died"):
        next(train(source, unreadable=unreadable))
    assert not left


@pytest.mark.slow
def test_worker_that_is_killed(tmp_path):
    """The error names a killed worker; with restarts, the batches stay the same. Both in training
    and in evaluation."""
    result = run_program(
        tmp_path,
        """
        import multiprocessing
        import warnings
        import numpy as np
        from vone_jax import data

        def start(workers, unreadable):
            source = data.load("fashion_mnist_small", "test")
            return data.train_batches(
                source, batch_size=500, seed=3, image_size=28, workers=workers,
                unreadable=unreadable,
            )

        def start_eval(workers, restart):
            source = data.load("fashion_mnist_small", "test")
            return data.eval_batches(
                source, batch_size=100, image_size=28, workers=workers, restart_workers=restart
            )

        def kill_workers():
            for worker in multiprocessing.active_children():
                worker.kill()

        def check(plain, failing, going_on, number):
            expected = [next(plain)["index"] for _ in range(number)]
            next(failing)
            kill_workers()
            try:
                for _ in range(number):
                    next(failing)
            except ChildProcessError as error:
                print("error:", error)
            next(going_on)
            kill_workers()
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                found = [next(going_on)["index"] for _ in range(number - 1)]
            assert all(map(np.array_equal, found, expected[1:]))
            print("warnings:", *{str(warning.message) for warning in caught})
            for batches in (plain, failing, going_on):
                batches.close()

        if __name__ == "__main__":
            check(start(0, "skip"), start(1, "raise"), start(1, "skip"), 12)
            check(start_eval(0, True), start_eval(1, False), start_eval(1, True), 20)
        """,
    )
    assert result.returncode == 0, result.stderr
    # The memory of a worker that was killed is freed without a word.
    assert "resource_tracker" not in result.stderr
    said = result.stdout.splitlines()
    died = "a data worker died at batch [0-9]+ of 'fashion_mnist_small' 'test'.*exit code -9"
    for error, warnings in (said[:2], said[2:]):
        assert re.match(f"error: {died}", error)
        assert re.match(f"warnings: {died}.*; starting it again", warnings)


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
