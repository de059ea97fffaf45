"""The command: what it writes, prints and returns, and what it says when something is wrong."""

import contextlib
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.results import built
from vone_jax import cli, report, results
from vone_jax.cli import report as command


@pytest.fixture
def run(tmp_path):
    return built.write(tmp_path, built.measure("resnet18", {"clean": 0.9}))


def test_writes_the_page_and_its_tables(run, tmp_path, capsys):
    out = tmp_path / "deep" / "page.html"
    assert command.main([str(run), "--out", str(out), "--tables", str(tmp_path / "t")]) == 0
    printed = capsys.readouterr()
    assert f"wrote {out}" in printed.out and not printed.err
    names = {path.name for path in (tmp_path / "t").iterdir()}
    assert names == {"numbers.csv", "scores.csv", "scores.md"}


def test_what_may_not_be_written_has_its_option(run, tmp_path, capsys, monkeypatch):
    make, tables = Path.mkdir, str(tmp_path / "tables")

    def mkdir(self, **options):
        if str(self) == tables:
            raise PermissionError(errno.EACCES, "Permission denied", tables)
        make(self, **options)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    assert command.main([str(run), "--out", str(tmp_path / "a.html"), "--tables", tables]) == 1
    assert f"--tables {tables}: {tables}: Permission denied" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("lost", "part"),
    [("log.jsonl", "log.jsonl is missing"), ("results/clean.npz", "clean.npz is missing")],
)
def test_gaps_are_named_on_stderr_and_have_a_status_of_their_own(run, tmp_path, capsys, lost, part):
    (run / lost).unlink()
    out = tmp_path / "page.html"
    assert command.main([str(run), "--out", str(out)]) == 3
    printed = capsys.readouterr()
    assert "wrote" in printed.out and part in printed.err
    assert part in out.read_text(encoding="utf-8")


def test_the_help_lists_the_exit_statuses(capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(["--help"])
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "3 written with gaps" in text and "2 wrong arguments" in text


def test_a_page_that_cannot_be_written_is_named(run, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert command.main([str(run), "--out", str(tmp_path / "file" / "r.html")]) == 1
    assert "file" in capsys.readouterr().err


@pytest.mark.parametrize("number", cli.SIGNALS)
def test_a_signal_ends_it_with_a_line_and_no_part_of_a_page(
    run, tmp_path, capsys, monkeypatch, number
):
    monkeypatch.setattr(os, "fsync", lambda file: os.kill(os.getpid(), number))
    assert command.main([str(run), "--out", str(tmp_path / "page.html")]) == cli.STOPPED
    said = "report: stopped; run the same command again to continue\n"
    assert capsys.readouterr().err.endswith(said)
    assert list(tmp_path.iterdir()) == [run]


def test_an_output_that_cannot_be_written_is_a_failure(run, tmp_path):
    (run / "log.jsonl").unlink()  # A gap is less than a failure.
    with open("/dev/full", "w") as full, contextlib.redirect_stdout(full):
        assert command.main([str(run), "--out", str(tmp_path / "page.html")]) == 1


def test_a_damaged_file_is_named_and_nothing_is_written(run, tmp_path, capsys):
    built.edit(run / "results" / "clean.json", measured__accuracy=1.5)
    out = tmp_path / "page.html"
    assert command.main([str(run), "--out", str(out)]) == 2
    assert "clean.json is damaged: measured.accuracy.accuracy" in capsys.readouterr().err
    assert not out.exists()
    with pytest.raises(results.ResultError, match="must be a list"):
        report.write(str(run), out)


def test_too_few_networks_for_a_v1_match_have_its_option(run, tmp_path, capsys):
    options = ["--v1-match", "--tables", str(tmp_path / "t"), "--out", str(tmp_path / "page.html")]
    assert command.main([str(run), *options]) == 2
    assert "report: --v1-match needs at least 5 networks, got 1" in capsys.readouterr().err


def test_runs_as_a_module(run, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "vone_jax.report", str(tmp_path / "nowhere")],
        cwd=Path(report.__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "does not exist" in done.stderr
