"""Prepare coloured drawings of the same things by several teams: a set with a shift of style.

Four npm packages draw the same 1,485 things and sort them alike. Fetch them and prepare the set
(the second command takes a minute of one core, and needs no Node):

  npm pack @iconify-json/{noto,fluent-emoji-flat,twemoji,openmoji}
  python configs/drawings/prepare.py iconify-json-*.tgz --out drawings --size 64

DIR/STYLE/CATEGORY/NAME.png is a drawing on a light background, whose colour is drawn from the style
and the name. DIR/without-STYLE is a set for ``--data.source folder:DIR/without-STYLE``, made of
links: it trains on a part of the things in all styles but one. Its splits are

  train                 known things in known styles
  new_things            other things in known styles
  new_style             known things in the style that is left out
  new_things_new_style  other things in the style that is left out

One thing of four is new, by the SHA-256 of its name. Forms of a thing that differ by gender,
direction, colour or number stay together. Skin tones, hair, mirror images and all clocks but one
are left out. The classes are the eight categories that all packages share, without flags, of which
there are too few. DIR/LICENSES.md names the authors and DIR/SHA256SUMS has the checksum of every
drawing.
"""

import argparse
import hashlib
import io
import json
import os
import re
import struct
import sys
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import vl_convert
from PIL import Image

CLASSES = (
    "activities", "animals", "food", "objects", "people", "smileys", "symbols", "travel"
)  # fmt: skip
# Names of the same drawing with another skin or hair, mirrored, or of a clock at another time.
_REPEATED = re.compile(
    r"-(skin-tone|bald|beard|(curly|red|white)-hair|facing-right|thirty|(?<!eleven-)oclock)$"
)
# Words in which forms of one thing differ.
_FORMS = re.compile(
    r"man|woman|men|women|person|people|left|right|up|down|leftwards|rightwards|upwards|downwards"
    r"|red|orange|yellow|green|blue|purple|brown|black|white|\d+"
)
# One thing of so many is new.
_SHARE = 4
# Backgrounds have at least this value in each channel.
_LIGHTEST, _LIGHT = 256, 192
# The most bytes of a block that deflate stores.
_BLOCK = 0xFFFF


class Style(NamedTuple):
    """The drawings of one package.

    Attributes:
      name: of the style, such as ``"noto"``.
      drawings: SVG by name.
      classes: class by name, one of ``CLASSES``.
      credit: the row of the licence file.
    """

    name: str
    drawings: dict[str, str]
    classes: dict[str, str]
    credit: str


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with the given arguments and return its exit status."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "prepare.py", description=__doc__, formatter_class=raw, allow_abbrev=False
    )
    parser.add_argument(
        "packages", nargs="+", type=Path, metavar="PACKAGE", help="archive or its folder"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new directory")
    parser.add_argument("--size", type=int, default=64, help="side in pixels (default: 64)")
    given = parser.parse_args(argv)
    try:
        digest = prepare(given.packages, given.out, given.size)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(f"{given.out} is ready, checksum {digest}")
    return 0


def prepare(packages: Sequence[Path], out: Path, size: int) -> str:
    """Write the set and return the SHA-256 of its list of checksums.

    Args:
      packages: at least two, as ``npm pack`` writes them or unpacked, in any order.
      out: directory that does not exist yet.
      size: side of the drawings in pixels, at least 8.

    Raises:
      ValueError: if there are fewer than two styles, or an argument is out of range.
      FileNotFoundError: if a package or one of its files is missing.
    """
    if size < 8:
        raise ValueError(f"--size must be at least 8, got {size}")
    if out.exists():
        raise ValueError(f"--out must be a new directory, {out} exists")
    styles = sorted(map(read_package, packages))
    names = [style.name for style in styles]
    if len(set(names)) < max(2, len(names)):
        raise ValueError(f"packages must be of two or more different styles, got {names}")
    sums = []
    for name, category in shared(styles):
        for style in styles:
            picture = Path(style.name, category, f"{name}.png")
            content = png(rasterise(style.drawings[name], background(style.name, name), size))
            (out / picture).parent.mkdir(parents=True, exist_ok=True)
            (out / picture).write_bytes(content)
            sums.append(f"{hashlib.sha256(content).hexdigest()}  {picture.as_posix()}\n")
            for left_out in names:
                place = Path(f"without-{left_out}", split(name, style.name == left_out), category)
                _link(out, picture, place / style.name)
    listed = "".join(sorted(sums, key=lambda line: line.split()[1])).encode()
    (out / "SHA256SUMS").write_bytes(listed)
    rows = "\n".join(style.credit for style in styles)
    (out / "LICENSES.md").write_text(f"{_LICENSES}{rows}\n", encoding="utf-8")
    return hashlib.sha256(listed).hexdigest()


def read_package(path: Path) -> Style:
    """Read a package of ``@iconify-json``, an archive or the folder that holds its files."""
    files = {name: json.loads(_read(path, f"{name}.json")) for name in _FILES}
    icons, info, package = files["icons"], files["info"], files["package"]
    classes = {
        name: category.lower().split()[0]
        for category, names in files["metadata"]["categories"].items()
        for name in names
    }
    size = {"left": 0, "top": 0, "width": icons["width"], "height": icons["height"]}
    drawings = {name: _svg(size | icon) for name, icon in icons["icons"].items() if name in classes}
    licence, author = info["license"], info["author"]
    credit = (
        f"| {icons['prefix']} | {info['name']} | [{author['name']}]({author['url']}) "
        f"| [{licence['title']}]({licence['url']}) | {package['name']} {package['version']} |"
    )
    return Style(icons["prefix"], drawings, classes, credit)


def shared(styles: Sequence[Style]) -> Iterator[tuple[str, str]]:
    """The names that all styles draw and put into the same class, in order, with the class."""
    for name in sorted(set.intersection(*(set(style.drawings) for style in styles))):
        classes = {style.classes[name] for style in styles}
        if len(classes) == 1 and classes <= {*CLASSES} and not _REPEATED.search(name):
            yield name, classes.pop()


def thing(name: str) -> str:
    """What a drawing shows, without the words in which forms of one thing differ."""
    words = [word for word in name.split("-") if not _FORMS.fullmatch(word)]
    return "-".join(words) or name


def split(name: str, left_out: bool) -> str:
    """The split of a drawing, by its name and by whether its style is left out."""
    new = int.from_bytes(_digest(thing(name))[:8], "big") % _SHARE == 0
    if left_out:
        return "new_things_new_style" if new else "new_style"
    return "new_things" if new else "train"


def background(style: str, name: str) -> tuple[int, int, int]:
    """A light colour, from the style and the name."""
    red, green, blue = (_LIGHT + byte % (_LIGHTEST - _LIGHT) for byte in _digest(style, name)[:3])
    return red, green, blue


def rasterise(svg: str, colour: tuple[int, int, int], size: int) -> np.ndarray:
    """Draw an SVG on a background: uint8 (size, size, 3). Pillow blends in whole numbers."""
    scale = size / _CANVAS
    drawing = Image.open(io.BytesIO(vl_convert.svg_to_png(svg, scale=scale))).convert("RGBA")
    behind = Image.new("RGBA", drawing.size, (*colour, 255))
    return np.asarray(Image.alpha_composite(behind, drawing).convert("RGB"))


def png(pixels: np.ndarray) -> bytes:
    """A PNG file of pixels, uint8 (H, W, 3), without compression.

    Compressed files differ between the libraries that write them.
    """
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    blocks = [rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK)]
    stored = b"".join(
        struct.pack("<BHH", block is blocks[-1], len(block), _BLOCK - len(block)) + block
        for block in blocks
    )
    height, width = pixels.shape[:2]
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", b"\x78\x01" + stored + struct.pack(">I", zlib.adler32(rows))),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


# Side of a drawing before it is scaled.
_CANVAS = 64
_FILES = ("icons", "metadata", "info", "package")
_LICENSES = """# Where the drawings come from

Each drawing was rasterised and put on a light background. The pictures of a style have the licence
of its drawings.

| style | name | author | licence | package |
| --- | --- | --- | --- | --- |
"""


def _svg(icon: dict[str, Any]) -> str:
    """An SVG of a square, in whose middle the drawing is."""
    box = " ".join(str(icon[name]) for name in ("left", "top", "width", "height"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{_CANVAS}" height="{_CANVAS}" viewBox="{box}">{icon["body"]}</svg>'
    )


def _read(path: Path, name: str) -> bytes:
    """A file of a package."""
    if path.is_dir():
        return (path / name).read_bytes()
    with tarfile.open(path) as archive:
        try:
            file = archive.extractfile(f"package/{name}")
        except KeyError:
            file = None
        if file is None:
            raise FileNotFoundError(f"{path} has no package/{name}; is it a package of npm?")
        return file.read()


def _digest(*words: str) -> bytes:
    return hashlib.sha256("/".join(words).encode()).digest()


def _link(out: Path, picture: Path, folder: Path) -> None:
    """A link to a picture in a folder, which holds wherever the set is moved."""
    (out / folder).mkdir(parents=True, exist_ok=True)
    os.symlink(os.path.relpath(picture, folder), out / folder / picture.name)


if __name__ == "__main__":
    sys.exit(main())
