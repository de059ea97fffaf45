"""The table of the corruptions' benchmark. No test looks at a time."""

import numpy as np

from benchmarks import corruptions
from benchmarks.timing import OURS, Measurement


def test_table_of_corruptions():
    """Each reference has a row; the loop of glass_blur takes the place of the compiled one."""

    def took(name, contender, seconds, processor):
        return Measurement(name, contender, (seconds,), (processor,))

    lines = corruptions.to_markdown(
        [
            took("contrast", OURS, 0.001, 0.002),
            took("contrast", corruptions.REFERENCE, 0.002, 0.003),
            took("glass_blur", OURS, 0.002, 0.004),
            took("glass_blur", corruptions.REFERENCE, 0.004, 0.009),
            took("glass_blur", corruptions.LOOP, 0.2, 0.2),
            took("frost_procedural", OURS, 0.005, 0.005),
            Measurement("frost_procedural", corruptions.REFERENCE, ()),
        ]
    ).splitlines()
    assert lines[2].startswith("| contrast | 1 | 2 | 2.00 | 2 | 3 | 1.50 |")
    assert lines[4].startswith(
        "| glass_blur, loop in Python | 2 | 200 | 100.00 | 4 | 200 | 50.00 |"
    )
    assert lines[5].startswith("| frost_procedural | 5 | | |")
    assert lines[6].startswith("| mean of 2 common | 1.5 | 3 | 2.00 | 3 | 6 | 2.00 |")
    assert lines[7].startswith("| mean of 2 common, glass_blur as a loop in Python | 1.5 | 101 |")


def test_the_loop_in_python_copies_pixels():
    """Pixels of a ramp along the rows move, and they come from near-by."""
    ramp = np.tile(np.arange(0, 240, 10).astype(np.uint8), (24, 1))[..., None]
    values = corruptions.glass_blur_in_python(3, ramp[None]).run()[0]
    moved = np.abs(values[8:-8, 8:-8, 0] - ramp[8:-8, 8:-8, 0])
    assert 0 < moved.max() and moved.mean() < 40
