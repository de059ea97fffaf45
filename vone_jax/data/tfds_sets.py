"""TensorFlow Datasets (TFDS) without TensorFlow. This is the only module that imports TFDS.

Sets are read from array_record files through ``as_data_source``. Images are decoded here with
Pillow: TFDS uses OpenCV if that is installed, and then the pixels differ.
"""

import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from vone_jax import files, modules
from vone_jax.data.images import decode_image
from vone_jax.data.sources import DataDir, Source, checksum
from vone_jax.data.transforms import to_pillow


class TfdsSource(Source):
    """A split of a prepared TFDS image classification set.

    The name is for instance ``"cifar10"`` or ``"imagenet_resized/64x64"``. Slices such as
    ``"train[90%:]"`` are splits. The files must allow random access. The set must have 8-bit images
    with one class label each.
    """

    def __init__(self, name: str, split: str, data_dir: DataDir = None):
        _check_features(name, data_dir)
        builder: Any = tfds.builder(name, data_dir=_expand(data_dir))
        self.name = f"tfds:{name}"
        self.split = split
        self._image_key, self._label_key = _supervised_keys(name, builder.info)
        image = builder.info.features[self._image_key]
        self.image_shape = tuple(image.shape)
        self.class_names = tuple(builder.info.features[self._label_key].names)
        try:
            self._records = builder.as_data_source(split=split)
        except (AssertionError, KeyError, NotImplementedError, ValueError) as error:
            raise _explain(error, name, split, builder, data_dir) from error
        # Set afterwards: with decoders as an argument, TFDS's mock_data needs TensorFlow.
        self._records.decoders = {self._image_key: tfds.decode.SkipDecoding()}

    def checksums(self, indices: np.ndarray) -> np.ndarray:
        records = (self._records[int(index)] for index in indices)
        return np.array(
            [checksum(each[self._image_key], int(each[self._label_key])) for each in records],
            np.uint32,
        )

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = self._records[index]
        image = example[self._image_key]
        if not isinstance(image, np.ndarray):
            image = decode_image(
                image, self.image_shape[-1], f"{index} of {self.name} {self.split}"
            )
        return {"image": image, "label": int(example[self._label_key])}


def prepare_from_arrays(
    name: str,
    splits: dict[str, tuple[np.ndarray, np.ndarray]],
    data_dir: DataDir = None,
) -> str:
    """Write arrays in the layout of a registered TFDS set, without TensorFlow.

    Each split has uint8 images (N, H, W, C) and integer labels (N,). The key of an example is its
    index, as in TFDS for MNIST and its relatives, so that examples are stored in the same order as
    by TFDS itself.

    Returns:
      The directory of the prepared set. A set that exists already is not changed.

    Raises:
      ValueError: if the images do not match the features of the set, and from TFDS for labels.
    """
    registered: Any = tfds.builder(name, data_dir=_expand(data_dir))
    shape = registered.info.features["image"].shape
    for split, (images, _) in splits.items():
        if images.shape[1:] != shape:
            raise ValueError(
                f"{name!r} has images of shape {shape}, the {split} images have the shape "
                f"{images.shape}"
            )
    base: Any = type(registered)

    class Builder(base, skip_registration=True):  # pyright: ignore
        # TFDS would derive the name from the class.
        name = registered.name

        def _split_generators(self, dl_manager: Any):
            return {split: self._generate_examples(*arrays) for split, arrays in splits.items()}

        def _generate_examples(
            self, images: np.ndarray, labels: np.ndarray
        ) -> Iterator[tuple[int, dict[str, Any]]]:
            for index, (image, label) in enumerate(zip(images, labels, strict=True)):
                # TFDS encodes arrays with TensorFlow but takes encoded bytes as they are.
                yield index, {"image": _png(image), "label": int(label)}

    builder = Builder(
        config=registered.builder_config, data_dir=_expand(data_dir), file_format="array_record"
    )
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    builder.download_and_prepare(download_config=config)
    return str(builder.data_path)


def _png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    to_pillow(image).save(file, "PNG")
    return file.getvalue()


def _expand(data_dir: DataDir) -> Path | None:
    return None if data_dir is None else files.as_path(os.fspath(data_dir))


def _check_features(name: str, data_dir: DataDir) -> None:
    """Raise a ``ValueError`` if TFDS would import a module for a set that may not be imported.

    It imports the classes that ``features.json`` names, and downloads the code of a namespace. A
    run names the set and the directory of its images.
    """
    first, *rest = re.split("[:/]", name)
    if rest and name[len(first)] == ":" and not re.match(r"[\d*]", rest[0]):
        raise ValueError(
            f"TFDS set {name!r} is of the namespace {first!r}, whose code TFDS would download; "
            "give its images as folder:<path> or npz:<path>"
        )
    place, plain = _expand(data_dir), first.replace("_", "").lower()
    for folder in place.glob("*") if place is not None else ():
        # TFDS also takes the name of a set in the form of a class.
        if folder.name.replace("_", "").lower() != plain:
            continue
        for path in folder.glob("**/features.json"):
            try:
                for named in _classes(json.loads(path.read_text())):
                    modules.of_file(named.rpartition(".")[0])
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error


def _classes(features: Any) -> Iterator[str]:
    """Yield the names of classes in ``features.json``."""
    if isinstance(features, dict):
        for key, value in features.items():
            kind = key in ("pythonClassName", "python_class_name", "type")
            if kind and isinstance(value, str) and "." in value:
                yield value
            yield from _classes(value)
    elif isinstance(features, list):
        for value in features:
            yield from _classes(value)


def _supervised_keys(name: str, info: Any) -> tuple[str, str]:
    """Return the keys of image and label; raise a ValueError if it is no classification set."""
    keys, features = info.supervised_keys, info.features
    if isinstance(keys, tuple) and len(keys) == 2:
        image, label = (features[key] for key in keys)
        kinds = isinstance(image, tfds.features.Image), isinstance(label, tfds.features.ClassLabel)
        if all(kinds) and image.np_dtype == np.uint8 and image.shape[-1] in (1, 3):
            return keys
    raise ValueError(
        f"TFDS set {name!r} is not an image classification set: its supervised_keys must be an "
        f"Image of 8 bits with 1 or 3 channels and a ClassLabel, they are {keys} of {features}"
    )


def _explain(error: Exception, name: str, split: str, builder: Any, data_dir: DataDir) -> Exception:
    """Return an error that says the cure when TFDS cannot open a split."""
    if builder.is_prepared():
        splits = ", ".join(builder.info.splits)
        return ValueError(f"TFDS set {name!r}, with splits {splits}, has no {split!r}: {error}")
    place = "" if data_dir is None else f" --data_dir={data_dir}"
    return FileNotFoundError(
        f"TFDS set {name!r} is not prepared in {builder.data_path}; prepare it with tfds build "
        f"{name} --file_format=array_record{place} (pip install 'vone-jax[prepare]'), or from "
        "arrays with prepare_from_arrays"
    )
