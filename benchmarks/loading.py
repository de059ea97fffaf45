"""Measure the images per second that a host prepares: ``python -m benchmarks.loading``.

It writes array_record files of images that are as large as ImageNet's photographs, in pixels and in
bytes, and reads them through the training pipeline: decoding, random resized crop to 224 pixels,
flip. There are three forms of the set:

  whole      JPEG, 500 x 375 pixels, 110 kB
  resized    JPEG, shorter side 256 pixels, quality 95
  decoded    the resized images as arrays in memory: what is left without decoding

The images are noise with the spectrum of natural scenes. Rates are images per second by the clock,
per second of processor time of the program with its workers, and per second of processor time of
the program alone. The clock depends on what else runs on the machine. The last rate is the most
that a program can take from any number of workers: it receives bytes in one thread.
"""

import contextlib
import io
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from benchmarks import table
from vone_jax import data, fast
from vone_jax.data.transforms import AUGMENTS

WHOLE = 375, 500
# ImageNet's 1,281,167 training images are 138 GiB of JPEG files, and most are about this size.
WHOLE_BYTES = 110_000
SHORT = 256
SIZE = 224
RATES = ("images/s", "images/s of a core", "images/s of the program")


def photograph(rng: np.random.Generator, shape: tuple[int, int] = WHOLE) -> np.ndarray:
    """Return noise whose amplitude falls as 1/frequency, in similar colours, uint8 (H, W, 3)."""
    rows, columns = np.fft.fftfreq(shape[0]), np.fft.rfftfreq(shape[1])
    frequency = np.hypot(rows[:, None], columns)
    frequency[0, 0] = np.inf
    noise = np.fft.rfft2(rng.normal(size=(4, *shape))) / frequency
    common, *own = np.fft.irfft2(noise, shape)
    channels = np.stack([common + 0.3 * each for each in own], axis=-1)
    return np.clip(127 + 55 * channels / channels.std(), 0, 255).astype(np.uint8)


def jpeg(image: np.ndarray, quality: int) -> bytes:
    """Return a JPEG file, with colours at half the resolution as in nearly all photographs."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return file.getvalue()


def jpeg_of(image: np.ndarray, size: int) -> bytes:
    """Return the JPEG file of the best quality that has at most ``size`` bytes."""
    files = (jpeg(image, quality) for quality in range(98, 0, -1))
    return next(file for file in files if len(file) <= size)


def resized(image: np.ndarray) -> np.ndarray:
    """Return an image with a shorter side of 256 pixels."""
    scale = SHORT / min(image.shape[:2])
    width, height = (round(side * scale) for side in (image.shape[1], image.shape[0]))
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def write(files: Sequence[bytes], directory: Path) -> data.Source:
    """Write a TFDS set of JPEG files as array_record, and open it."""

    class Photographs(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self) -> tfds.core.DatasetInfo:
            image = tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg")
            features = {"image": image, "label": tfds.features.ClassLabel(num_classes=1000)}
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                supervised_keys=("image", "label"),
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
            return {"train": self._generate_examples()}

        def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
            for number, file in enumerate(files):
                yield number, {"image": file, "label": number % 1000}

    builder = Photographs(data_dir=directory, file_format="array_record")
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    # TFDS prints on stdout, where the table goes.
    with contextlib.redirect_stdout(sys.stderr):
        builder.download_and_prepare(download_config=config)
    return data.load("tfds:photographs", "train", data_dir=directory)


def seconds() -> np.ndarray:
    """Return the time by the clock, of all processors together, and of this process, (3,)."""
    own = total = time.process_time()
    for child in multiprocessing.active_children():
        # Linux: the fields behind the name in brackets; times are in ticks of the clock.
        fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return np.array([time.perf_counter(), total, own])


def rates(source: data.Source, workers: int, batch: int, batches: int) -> dict[str, float]:
    """Return images per second of each kind of ``seconds``."""
    stream = data.train_batches(
        source, batch_size=batch, seed=0, image_size=SIZE, augment=AUGMENTS["imagenet"],
        workers=workers, as_bytes=True,
    )  # fmt: skip
    with contextlib.closing(stream):
        # The start of workers, and what they prepare ahead: at most 10 batches.
        for _ in range(12):
            next(stream)
        begun = seconds()
        for _ in range(batches):
            next(stream)
        rate = batch * batches / (seconds() - begun)
    return dict(zip(RATES, rate.tolist(), strict=True))


def sources(directory: Path, distinct: int, count: int) -> dict[str, tuple[data.Source, int]]:
    """Return the forms of the set, each with the mean size of its images in bytes."""
    rng = np.random.default_rng(0)
    images = [photograph(rng) for _ in range(distinct)]
    small = [resized(image) for image in images]
    forms = {
        "whole": [jpeg_of(image, WHOLE_BYTES) for image in images],
        "resized": [jpeg(image, 95) for image in small],
    }
    made: dict[str, tuple[data.Source, int]] = {}
    for name, files in forms.items():
        source = write([files[i % distinct] for i in range(count)], directory / name)
        made[name] = source, sum(map(len, files)) // distinct
    labels = np.arange(distinct)
    names = tuple(map(str, labels))
    made["decoded"] = data.ArraySource(np.stack(small), labels, class_names=names), small[0].size
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark with the given arguments and return the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    parser = table.parser("benchmarks.loading", __doc__)
    parser.add_argument("--workers", nargs="+", type=table.at_least(0), default=[0, 1, 2])
    options = parser.parse_args(argv)
    distinct, count, batch, batches = (4, 40, 2, 2) if options.quick else (64, 2048, 64, 24)
    # As train.py does.
    fast.keep_memory()
    surroundings = table.environment("benchmarks.loading", argv)
    print(f"{table.heading(surroundings)}\n")
    print(table.markdown(["form", "bytes", "workers", *RATES], []))
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        made = sources(Path(directory), distinct, count)
        for name, (source, size) in made.items():
            for workers in options.workers:
                measured = rates(source, workers, batch, batches)
                cells = (f"{rate:.0f}" for rate in measured.values())
                print(table.line([name, f"{size:,}", str(workers), *cells]), flush=True)
                rows.append({"form": name, "bytes": size, "workers": workers, **measured})
    if options.json is not None:
        options.json.write_text(table.to_json(surroundings, options, rows=rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
