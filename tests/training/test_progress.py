"""The bar is for terminals; lines are for everybody; quiet is quiet."""

import io

import pytest

from vone_jax.training.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def use(stream, **arguments):
    with Progress(2, 10, stream=stream, **arguments) as progress:
        progress.line("hello")
        progress.advance(loss=0.5)
        progress.advance(loss=0.25)
    return stream.getvalue()


def test_a_terminal_has_a_bar_that_starts_where_the_run_does():
    text = use(Terminal())
    assert "2/10" in text
    assert "hello\n" in text


def test_a_file_has_lines_only():
    assert use(io.StringIO()) == "hello\n"


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_quiet(stream):
    assert use(stream(), shown=False) == ""
