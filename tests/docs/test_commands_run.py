"""The commands of the pages that need no large data set run, on small networks and few images."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from tests.docs.test_commands import PAGES, ROOT, commands_of
from tests.test_readme import files_of
from vone_jax import convert, models

pytestmark = [pytest.mark.slow, pytest.mark.extras]

SMALL = ["--steps", "4", "--log-every", "1", "--data.batch-size", "8"]
# Runs that another page, or nobody, trains before a page evaluates them.
RUNS = {
    "resnet18": ["base", "low", "A", "quickstart/resnet18"],
    "vone_resnet18": ["loud", "high", "quiet", "vone", "B", "quickstart/vone_resnet18"],
}
# A network or a configuration of the reader.
STANDS_FOR = {"RUN": "runs/vone", "RUN_DIR": "runs/vone", "NETWORK": "net.pth"}
# Large data sets, many machines, buckets, and networks that take hours.
ELSEWHERE = re.compile(r"imagenet|tfds:|/data/|^gs:|--distributed|laboratory/|stabilised|^trained ")
FILE = re.compile(r"(?:folder:)?([\w/.@-]+?(?:\.(?:py|pth|tar|csv|npz)|/))(?::\w+)?$|folder:(\w+)$")


def photographs(folder, classes):
    """Write twelve photographs of random grey for each class."""
    rng = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(12):
            pixels = rng.integers(0, 256, (80, 96, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.jpg")
        shutil.copy(folder / name / "0.jpg", folder / name / "IMAGE.jpg")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A directory with what a reader has: photographs, a checkpoint file, networks and runs."""
    home = tmp_path_factory.mktemp("home")
    photographs(home / "DIR", ["airplane", "CLASS", "dog"])
    (home / "DIR" / "CLASS").rename(home / "DIR" / "cat")
    photographs(home / "wordnet", ["n01440764", "n01443537", "n01484850"])
    photographic = models.create("resnet18", width=8)
    convert.save_torch(home / "net.pth", photographic, models.init(photographic, jax.random.key(0)))
    grey = models.create("resnet18", num_classes=10, image_size=28, in_channels=1, width=8)
    with pytest.warns(UserWarning, match="other strides"):
        convert.save_torch(home / "checkpoint.pth", grey, models.init(grey, jax.random.key(0)))
    files_of("docs/networks.md", home)
    for config, names in RUNS.items():
        first, *others = names
        words = [f"quickstart/{config}", *SMALL, "--model.width", "4", "--run-dir", f"runs/{first}"]
        run(home, "train", words)
        run(home, "eval", [f"runs/{first}", "--suite", "clean", "--examples", "2"])
        for other in others:
            shutil.copytree(home / "runs" / first, home / "runs" / other)
    files_of("docs/front_ends.md", home)
    run(home, "train", ["with_energy.py", *SMALL])
    return home


def run(directory, command, words):
    """Run a command as a user does; it must end with 0, and without a traceback."""
    program = Path(sys.executable).parent / f"vone-{command}"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(directory), str(ROOT)])}
    done = subprocess.run(
        [str(program), *words],
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    assert done.returncode == 0, f"vone-{command} {' '.join(words)}\n{done.stderr[-3000:]}"


def shortened(command, words):
    """The words of a command with few steps and images, and names that stand for the reader's."""
    words = [re.sub(r"@\d+$", "@4", STANDS_FOR.get(word, word)) for word in words]
    if words[0] in ("net.pth", "resnet50.pth"):
        words = [word.replace("folder:DIR", "folder:wordnet") for word in words]
    for option in ("--examples", "--epochs"):
        if option in words:
            place = words.index(option)
            del words[place : place + 2]
    if command == "train" and "--help-all" not in words:
        narrow = ["--model.width", "8"] if words[0].startswith("photos") else []
        return [*words, *SMALL, *narrow]
    if command == "eval" and not {"help", "--help", "--predict"} & {*words}:
        return [*words, "--examples", "2"]
    return words


def is_here(command, words, directory):
    """Whether a command can run here: nothing large, and each file that it names is shown."""
    if command not in ("train", "eval", "report", "convert", "sweep"):
        return False
    if command == "sweep" or ELSEWHERE.search(" ".join(words)):
        return command == "sweep" and "--dry-run" in words
    files = [next(filter(None, found.groups())) for found in map(FILE.match, words) if found]
    return all((directory / file).exists() for file in files)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_run(page, home, tmp_path):
    """In the order of the page, in a directory with its programs."""
    shutil.copytree(home, tmp_path, dirs_exist_ok=True)
    files_of(page, tmp_path)
    commands = [(command, shortened(command, words)) for command, words in commands_of(page)]
    for _, words in commands:
        if "--run-dir" in words:
            shutil.rmtree(tmp_path / words[words.index("--run-dir") + 1], ignore_errors=True)
    for command, words in commands:
        if is_here(command, words, tmp_path):
            run(tmp_path, command, words)
