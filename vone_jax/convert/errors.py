"""The one error of conversion."""

from collections.abc import Sequence


class CheckpointError(ValueError):
    """A file that cannot be converted. The message lists every problem that was found."""

    def __init__(self, what: str, problems: Sequence[str] = ()):
        self.problems = tuple(problems)
        super().__init__(what + "".join(f"\n  {problem}" for problem in self.problems))
