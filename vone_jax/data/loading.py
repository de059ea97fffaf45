"""Finds a set by its name."""

import difflib
import os

from vone_jax.data.embedded import NAME as EMBEDDED
from vone_jax.data.embedded import embedded_source
from vone_jax.data.folder import FolderSource
from vone_jax.data.sources import Source


def load(name: str, split: str, *, data_dir: str | os.PathLike | None = None) -> Source:
    """Opens a split of an image classification set.

    Args:
      name: ``"fashion_mnist_small"``, the subset that comes with the package;
        ``"tfds:<name>"``, any TFDS image classification set that is prepared on this machine, for
        instance ``"tfds:imagenet2012"``; or ``"folder:<path>"``, a directory of images laid out as
        ``<path>/<split>/<class>/<image>``.
      split: ``"train"``, ``"test"``, ``"validation"``, ...: whatever the set has.
      data_dir: where TFDS keeps its sets; ``$TFDS_DATA_DIR`` or ``~/tensorflow_datasets`` by
        default. Only for ``"tfds:"``.

    Returns:
      A random-access source, see ``Source``.

    Raises:
      FileNotFoundError: if a folder does not exist or a TFDS set is not prepared.
      ValueError: if there is no such set or split; the message names the choices.
    """
    kind, _, rest = name.partition(":")
    if data_dir is not None and kind != "tfds":
        raise ValueError(f"data_dir is for 'tfds:' sets, got {data_dir!r} for {name!r}")
    if name == EMBEDDED:
        return embedded_source(split)
    if kind == "folder" and rest:
        return FolderSource(rest, split)
    if kind == "tfds" and rest:
        # TFDS takes a second to import, and only these sets need it.
        from vone_jax.data.tfds_sets import TfdsSource

        return TfdsSource(rest, split, data_dir)
    raise ValueError(
        f"no data set {name!r}{_suggestion(name)}; accepted are {EMBEDDED!r}, 'tfds:<name>' "
        f"and 'folder:<path>'"
    )


def _suggestion(name: str) -> str:
    from vone_jax.data.tfds_sets import registered_names

    names = {EMBEDDED: EMBEDDED} | {known: f"tfds:{known}" for known in registered_names()}
    near = difflib.get_close_matches(name.rpartition(":")[2], names, n=1)
    return f", did you mean {names[near[0]]!r}?" if near else ""
