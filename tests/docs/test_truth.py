"""The table of docs/truth.md has the numbers of the file beside it."""

import csv
import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_every_cell_of_the_table_is_in_the_file_and_no_images_are_below_the_truth():
    with (DOCS / "results" / "truth.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    known = {(row["network"], row["norm"], row["package"], row["attack"]): row for row in rows}
    assert len(known) == len(rows)
    for row in rows:
        assert float(row["exact"]) >= float(row["truth_low"]) - 2e-4, row
    page = (DOCS / "truth.md").read_text()
    head, table = re.search(
        r"^\| attack \|(.*)\|\n\| ---.*\n((?:\|.*\n)+)", page, re.MULTILINE
    ).groups()
    networks = re.findall(r"`(\w+)`", head)
    truth, *lines = table.splitlines()
    assert len(lines) > 15
    for line in lines:
        name, *cells, gradients = (cell.strip() for cell in line.strip("|").split("|"))
        package, attack = name.split(": ", 1)
        first = next(n for n in networks if (n, "linf", package, attack) in known)
        used = known[first, "linf", package, attack]["gradients"]
        assert gradients == f"{int(used):,}", name
        for network, cell in zip(networks, cells, strict=True):
            row = known.get((network, "linf", package, attack))
            expected = (
                ""
                if row is None
                else " → ".join(f"{float(row[column]):.3f}" for column in ("reported", "exact"))
                + "*" * (row["warned"] == "yes")
            )
            assert cell == expected, (network, name)
    for network, cell in zip(networks, truth.strip("|").split("|")[1:-1], strict=True):
        own = next(row for row in rows if (row["network"], row["norm"]) == (network, "linf"))
        assert (
            f"{float(own['truth_low']):.3f}" in cell and f"{float(own['truth_high']):.3f}" in cell
        )
