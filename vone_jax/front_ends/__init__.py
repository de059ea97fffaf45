"""Front ends of others, in the place of a stem. Each is one file, written as a user's own is.

Give one as ``front_end`` of ``models.create`` or of a config; docs/front_ends.md has examples.
"""

# ruff: noqa: F401

from vone_jax.front_ends.push_pull import PushPull, PushPullV1, push_pull_responses
from vone_jax.front_ends.r_blur import RBlur, Rings, acuity, foveate, rings
