"""The progress report: a bar on terminals, lines anywhere. The request to stop."""

import io

import pytest

from vone_jax.training.monitor import Progress, Stop


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


def test_a_request_to_stop_is_followed_by_a_single_process_at_once():
    requested = []
    stop = Stop(lambda: bool(requested))
    assert not stop.poll() and not stop.poll_all()
    requested.append(True)
    assert stop.poll() and stop.here and stop.everywhere


def test_a_request_to_stop_during_validation_reaches_all():
    stop = Stop(lambda: True)
    assert stop.poll_all() and stop.everywhere
