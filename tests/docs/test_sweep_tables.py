"""The tables of sweeps are those of the frames beside the pages."""

import csv
import re
import runpy
from pathlib import Path

import pandas as pd

DOCS = Path(__file__).parents[2] / "docs"


def test_every_table_of_a_sweep_is_written_from_its_frame():
    tables = runpy.run_path(str(DOCS / "examples" / "sweep_tables.py"))
    pages = {path: path.read_text() for path in DOCS.glob("*.md")}
    found = "".join(pages.values())
    for name in tables["TABLES"]:
        assert f"<!-- frame {name} -->" in found, name
    for path, page in pages.items():
        assert tables["write"](page) == page, path


def test_every_row_of_a_sweep_has_its_command_its_version_and_its_network():
    tables = runpy.run_path(str(DOCS / "examples" / "sweep_tables.py"))
    for name in {source for source, *_ in tables["TABLES"].values()}:
        frame = pd.read_csv(DOCS / "results" / f"{name}.csv")
        assert set(frame["command"]) == {f"python sweep.py laboratory/{name}"}
        assert frame[["schema", "version", "checksum", "value"]].notna().all(axis=None)
        # One network has one checksum, and no two networks share one.
        pairs = frame[["network", "checksum"]].drop_duplicates()
        assert pairs["network"].is_unique and pairs["checksum"].is_unique


def test_the_table_of_learned_constants_is_that_of_its_file():
    laws = runpy.run_path(str(DOCS / "examples" / "laws.py"))
    with (DOCS / "results" / "fitted_laws.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 * 5 * 7
    assert laws["table"](rows) in (DOCS / "laws.md").read_text()


def test_the_numbers_of_the_quickstart_stand_on_one_page():
    """The README quotes the table of docs/start.md, and nobody else has numbers of it."""
    page = (DOCS / "start.md").read_text()
    base, vone = (
        re.search(rf"^\| {name} \| (\d+) .*\| (\d+) \([^|]*\) \| \d+ \|$", page, re.M).groups()
        for name in ("ResNet-18", "VOneResNet-18")
    )
    claim = f"{vone[1]} % against {base[1]} %; clean {vone[0]} % and {base[0]} %"
    assert claim in (DOCS.parent / "README.md").read_text()
    for path in (DOCS.parent / "configs" / "quickstart").glob("*.py"):
        assert not re.search(r"\d %", path.read_text()), path
