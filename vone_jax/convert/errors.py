"""The one error of files that cannot be converted."""

from collections.abc import Sequence


class CheckpointError(ValueError):
    """A file that cannot be converted. The message lists every problem, one on each line.

    Names of a stranger's file end up in terminals. So control characters are replaced, and long
    lines are cut.

    Attributes:
      problems: the problems, one line each.
    """

    def __init__(self, what: str, problems: Sequence[str] = ()):
        self.problems = tuple(map(printable, problems))
        super().__init__("\n  ".join([printable(what), *self.problems]))


def printable(text: str, most: int = 600) -> str:
    """Cut a text to the length of a line, with "?" in place of control characters."""
    line = "".join(c if c.isprintable() else "?" for c in text[:most])
    return line if len(text) <= most else f"{line}..."
