"""Does V1 help under a change of style? Each of the four styles is left out of the training once.

Paper row: none.
Expected: docs/results/drawings.md, with the predictions that were written before.
Hardware: 2 CPU cores. Wall time: 5 to 10 minutes of one core per network, training included.
Data: see drawings/prepare.py.
Command: python sweep.py drawings/styles
"""

from configs.drawings.networks import LEFT_OUT, STYLES, TESTS, members
from vone_jax.sweep import Sweep

_LABELS = ["base-0", "vone-0"] + [
    f"{network}-without-{style}"
    for style in STYLES
    if style != LEFT_OUT
    for network in ("base", "vone")
]

sweep = Sweep("styles", "drawings", members(_LABELS), TESTS)
