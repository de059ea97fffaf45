"""Reports on work for people: a bar on a terminal, lines anywhere else, and aligned columns."""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from tqdm import tqdm

# An estimate of the rest needs this share of the work, or seconds since the start.
_SHARE, _LONG = 0.05, 300.0


class Progress(contextlib.AbstractContextManager["Progress"]):
    """The progress of some work, on stderr. Use it in a ``with`` block.

    The work has ``total`` units, of which ``done`` are done already; ``unit`` is the plural of
    their name. A process that does not report has ``shown`` False. Off a terminal a thread prints a
    line every ``seconds``, from the start on, so that nothing is silent while a program is
    compiled.
    """

    def __init__(
        self,
        total: int,
        done: int = 0,
        unit: str = "steps",
        shown: bool = True,
        stream: TextIO | None = None,
        seconds: float = 30.0,
    ):
        self._stream = sys.stderr if stream is None else stream
        # A program in the background may have no stderr, and one in its place may lack methods.
        self._shown = shown = shown and self._stream is not None
        self._terminal = getattr(self._stream, "isatty", bool)()
        self._total, self._first, self._done, self._unit = total, done, done, unit
        self._doing = ""
        # What was done between units.
        self._between = set[str]()
        # When the work began, and when a unit was done last.
        self._start = self._last = time.monotonic()
        # When the first units were done, for which programs are compiled. They have no rate.
        self._compiled: float | None = None
        self._bar = tqdm(
            total=total,
            initial=done,
            unit=unit,
            file=self._stream,
            disable=not (shown and self._terminal),
            dynamic_ncols=True,
            leave=False,
        )
        self._ended = threading.Event()
        self._reporter = threading.Thread(target=self._report, args=(seconds,), daemon=True)
        if shown and not self._terminal:
            self._reporter.start()

    def doing(self, what: str) -> None:
        """Say what is done now."""
        self._doing = what
        self._bar.set_description(what)

    @contextlib.contextmanager
    def between(self, what: str) -> Iterator[None]:
        """Say what is done in a ``with`` block between two units.

        Its programs are compiled in the first block of a name, which is therefore left out of the
        rate.
        """
        before, began = self._doing, time.monotonic()
        self.doing(what)
        yield
        self.doing(before)
        if what not in self._between and self._compiled is not None:
            compiling = time.monotonic() - began
            self._compiled += compiling
            self._last += compiling
            self._bar.unpause()
        self._between.add(what)

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count ``count`` more units, with a note such as ``"loss 0.5"``."""
        self._last = time.monotonic()
        if note:
            self._bar.set_postfix_str(note, refresh=False)
        if self._compiled is None:
            self._compiled = self._last
            self.found(count)
            self._bar.unpause()
            return
        self._done += count
        self._bar.update(count)

    def found(self, count: int) -> None:
        """Count ``count`` more units that were done before, and took no time now."""
        self._first += count
        self._done += count
        if not self._bar.disable:
            # Not by ``update``, which would take them into the rate.
            self._bar.initial += count
            self._bar.last_print_n += count
            self._bar.n += count
            self._bar.refresh()

    def line(self, text: str) -> None:
        """Print a line that stays, above the bar if there is one.

        A line that cannot be written is left out, since the work matters more than the report.
        """
        if self._shown:
            # The terminal is gone, nobody reads the pipe any more, or the disk is full.
            with contextlib.suppress(OSError):
                self._bar.write(text, file=self._stream)

    def status(self) -> str:
        """The progress in a line: units, time so far, and an estimate of the rest.

        If all units are done, the line leaves them out, since the present work has no units.
        """
        spent = time.monotonic() - self._start
        done = self._done - self._first
        rest = ""
        enough = done >= _SHARE * (self._total - self._first) or (done > 0 and spent >= _LONG)
        if self._compiled is not None and enough and self._done < self._total:
            each = (self._last - self._compiled) / done
            # The time since the last unit is part of the rest. If the unit has taken longer than
            # the whole estimate, there is none.
            left = each * (self._total - self._done) - (time.monotonic() - self._last)
            rest = f", about {_duration(left)} left" if left > 0 else ""
        doing = f"{self._doing}: " if self._doing else ""
        count = f"{self._done} of {self._total} {self._unit}, " if self._done < self._total else ""
        return f"{doing}{count}{_duration(spent)} so far{rest}"

    def _report(self, seconds: float) -> None:
        while not self._ended.wait(seconds):
            self.line(self.status())

    def __exit__(self, *error: Any) -> None:
        self._ended.set()
        # A line that is being printed is printed to its end, and none comes after it.
        if self._reporter.is_alive():
            self._reporter.join()
        self._bar.close()


def printable(text: str, most: int = 600) -> str:
    """Cut a text to the length of a line, with "?" in place of control characters."""
    line = "".join(c if c.isprintable() else "?" for c in text[:most])
    return line if len(text) <= most else f"{line}..."


def aligned(rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """The lines of a table, whose first ``left`` columns are aligned at the left, others right.

    Cells may hold names of files and classes. They are made ``printable``.
    """
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
