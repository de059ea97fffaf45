"""Prefetched batches keep their order, and the position is that of the last batch taken."""

import pytest

from vone_jax.training.setup import Prefetch


class Numbers:
    """An iterator over the numbers from a position."""

    def __init__(self, position):
        self.position = position

    def __next__(self):
        self.position += 1
        return self.position - 1

    def get_state(self):
        return {"position": self.position}


@pytest.mark.parametrize("ahead", [0, 1, 3, 9])
def test_batches_come_in_order_and_none_beyond_the_last_is_loaded(ahead):
    numbers, placed = Numbers(5), []
    prefetch = Prefetch(numbers, lambda batch: placed.append(batch) or -batch, ahead, number=4)
    assert prefetch.get_state() == {"position": 5} and placed == []
    for step in range(4):
        assert prefetch.take() == -(5 + step)
        assert prefetch.get_state() == {"position": 6 + step}
        assert placed == list(range(5, min(6 + step + ahead, 9)))
    assert numbers.position == 9
