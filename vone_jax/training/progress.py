"""What a person sees of a run: a bar on terminals, a line for each validation anywhere."""

import sys
from types import TracebackType
from typing import TextIO

import jax
from tqdm import tqdm


class Progress:
    """Reports on stderr, from process 0 only; use it in a ``with`` block.

    Args:
      step: of the first call of ``advance``, less one.
      total_steps: of the run.
      shown: False keeps quiet.
      stream: where to write; default: stderr.
    """

    def __init__(
        self, step: int, total_steps: int, shown: bool = True, stream: TextIO | None = None
    ):
        self._stream = sys.stderr if stream is None else stream
        self._shown = shown and jax.process_index() == 0
        self._bar = tqdm(
            total=total_steps,
            initial=step,
            unit="step",
            file=self._stream,
            disable=not (self._shown and self._stream.isatty()),
            dynamic_ncols=True,
            leave=False,
        )

    def advance(self, loss: float) -> None:
        """One more step is done, with the mean loss ``loss`` over its batch."""
        self._bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
        self._bar.update()

    def line(self, text: str) -> None:
        """A line that stays, above the bar if there is one."""
        if self._shown:
            self._bar.write(text, file=self._stream)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()
