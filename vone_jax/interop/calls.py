"""Which key a call gets, in tools that know no keys."""

from typing import Literal

import jax

from vone_jax import prng

Noise = Literal["fresh", "frozen"]


class CallKeys:
    """The keys of successive calls of a noisy classifier.

    Attributes:
      calls: number of keys given out. Set it to 0 to repeat a run.
    """

    def __init__(self, key: jax.Array, noise: Noise):
        """Makes the sequence.

        Args:
          key: typed key.
          noise: ``"fresh"``: another key at each call; ``"frozen"``: always the same one.

        Raises:
          TypeError: if ``key`` is not a typed key.
          ValueError: for another ``noise``.
        """
        prng.check_key(key)
        if noise not in ("fresh", "frozen"):
            raise ValueError(f"noise must be 'fresh' or 'frozen', got {noise!r}")
        self._key = prng.stream(key, "interop call")
        self._noise = noise
        self.calls = 0

    def next(self) -> jax.Array:
        """The key of the next call."""
        number = self.calls if self._noise == "fresh" else 0
        self.calls += 1
        return prng.fold(self._key, number)
