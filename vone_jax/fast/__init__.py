"""Functions of arrays in two forms: a plain one, and one that is fast on CPUs, GPUs and TPUs.

The package uses the fast form. The plain form beside it is the shortest way to write the same
function in JAX, and the tests check that both agree up to the rounding of float32. One switch
chooses between them:

    from vone_jax import fast

    with fast.plain():                       # plain forms of everything inside
        logits = logits_fn(key, images)

    with fast.forms_of("tpu"):               # what a TPU computes, on any device
        logits = logits_fn(key, images)

    VONE_JAX_FAST=0 python eval.py ...       # plain forms in a whole process

See ``fast.switch`` for how the switch and ``jax.jit`` work together.
"""

# ruff: noqa: F401

from vone_jax.fast.blocks import correlate_blocks
from vone_jax.fast.convolution import convolve
from vone_jax.fast.counter_random import random_words, standard_normal, symmetric_uniform
from vone_jax.fast.depthwise import convolve_depthwise
from vone_jax.fast.jaxprs import (
    callbacks,
    closes_over_tracers,
    constants,
    has_products_in_loops,
    in_fast_layout,
    with_straight_through_relus,
)
from vone_jax.fast.operations import (
    by_groups,
    by_rows,
    largest,
    one_by_one,
    permute,
    relu,
    repeated,
    shared_by_draws,
    stage,
)
from vone_jax.fast.process import keep_memory, use_all_cores
from vone_jax.fast.switch import by_platform, enabled, forms_of, plain
