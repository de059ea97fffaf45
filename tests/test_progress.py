"""The progress report: a bar on terminals, lines anywhere else."""

import errno
import io
import time

import pytest

from vone_jax import progress as module
from vone_jax.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
def test_a_terminal_has_a_bar_and_a_file_has_lines_only(stream):
    for shown in (True, False):
        text = stream()
        with Progress(10, 2, stream=text, shown=shown) as progress:
            progress.line("hello")
            progress.found(6)
            progress.advance(note="loss 0.5")
        if not shown:
            assert text.getvalue() == ""
        elif stream is io.StringIO:
            assert text.getvalue() == "hello\n"
        else:
            # Where the run starts, and without what was found in the rate.
            for part in ("2/10", "hello\n", "8/10 [00:00<?, ?steps/s]"):
                assert part in text.getvalue()


def test_work_goes_on_without_stderr(monkeypatch):
    """A program in the background has none, and some replace it by an object that only writes."""
    monkeypatch.setattr(module.sys, "stderr", None)
    with Progress(1) as progress:
        progress.line("hello")
        progress.advance()
    written = []
    monkeypatch.setattr(module.sys, "stderr", type("Log", (), {"write": written.append})())
    with Progress(1) as progress:
        progress.line("hello")
        progress.advance()
    assert "".join(written) == "hello\n"

    class Gone(Terminal):
        """A closed terminal, a pipe without a reader, or a full disk."""

        def write(self, text):
            raise OSError(errno.EIO, "Input/output error")

    with Progress(1, stream=Gone()) as progress:
        progress.line("hello")
        progress.advance()


def test_off_a_terminal_nothing_is_silent_for_long():
    """Also before the first unit is done, while a program is compiled."""
    stream = io.StringIO()
    with Progress(10, unit="images", stream=stream, seconds=0.01) as progress:
        progress.doing("attack")
        deadline = time.monotonic() + 20
        while "attack: 0 of 10 images" not in stream.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
        progress.advance(5)
        while "attack: 5 of 10 images" not in stream.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
    lines = stream.getvalue().splitlines()
    assert "attack: 0 of 10 images, 0 s so far" in lines
    assert any(line.startswith("attack: 5 of 10 images, ") for line in lines)


@pytest.mark.parametrize(
    ("spent", "done", "text"),
    [
        # While programs are compiled, nothing is known of the rest.
        (400, 3, "3 of 1000 steps, 7 min so far"),
        # A few steps tell little.
        (205, 8, "8 of 1000 steps, 3 min so far"),
        # 60 steps in 600 s behind the first: 10 s each, and 937 are left.
        (800, 63, "63 of 1000 steps, 13 min so far, about 2.6 h left"),
        # What is done then has no steps.
        (260, 1000, "4 min so far"),
    ],
)
def test_the_rest_is_estimated_from_what_was_done_here(spent, done, text, monkeypatch):
    """Two steps were done before, and the third compiles for 200 s."""
    progress = Progress(1000, 2, shown=False, stream=io.StringIO())
    now = time.monotonic()
    monkeypatch.setattr(module.time, "monotonic", lambda: now + 200)
    progress.advance()
    monkeypatch.setattr(module.time, "monotonic", lambda: now + spent)
    if done > 3:
        progress.advance(done - 3)
    assert progress.status() == text


def test_a_bar_has_no_rate_of_the_first_unit():
    """Programs are compiled for it."""
    text = Terminal()
    with Progress(1000, stream=text) as progress:
        time.sleep(0.2)
        progress.advance(note="loss 0.5")
        assert "1/1000 [00:00<?, ?steps/s, loss 0.5]" in text.getvalue()


@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
def test_the_first_block_of_a_kind_is_not_in_the_rate(stream, monkeypatch):
    """It compiles, as the first validation does. The second one takes part of the time."""
    now = 0.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    progress = Progress(1000, unit="units", shown=stream is Terminal, stream=stream())
    progress.advance()
    for seconds in (100, 80):
        now += 1
        progress.advance(100)
        with progress.between("validating"):
            now += seconds
            assert progress.status().startswith("validating: ")
    progress.advance(0)
    # 82 s for 200 units.
    assert progress.status() == "201 of 1000 units, 3 min so far, about 5 min left"
