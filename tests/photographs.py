"""Folders of black photographs, as data sets of classes."""

from pathlib import Path

from PIL import Image


def write_photographs(root: Path, *places: str, size: tuple[int, int] = (8, 8)) -> None:
    """Write a photograph to each place below a directory, such as ``"val/cat/0.png"``."""
    for place in places:
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size).save(root / place)
