"""Damage to files, for tests of what reads them."""

from collections.abc import Iterator
from pathlib import Path


def flipped_bits(path: Path) -> Iterator[None]:
    """Flip each bit of a file in turn for the body of a loop, and flip it back after it.

    It is done in place, since it takes a disk milliseconds to truncate a file.
    """
    content = path.read_bytes()
    with path.open("r+b", buffering=0) as file:

        def write(position: int, byte: int) -> None:
            file.seek(position)
            file.write(bytes([byte]))

        for bit in range(8 * len(content)):
            position = bit // 8
            write(position, content[position] ^ 1 << bit % 8)
            yield
            write(position, content[position])
