"""The products of V1 as a program for TPUs states them; nothing is computed."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import pytest

from vone_jax import models, v1

BLOCK = v1.VOneBlockConfig(
    simple_channels=4, complex_channels=4, image_size=32, visual_degrees=1.0, kernel_size=7,
    stride=2,
)  # fmt: skip
SURROUND = v1.SurroundNormalization(largest_extent=0.1)
IMAGES = jnp.zeros((2, 32, 32, 3))


def precisions(function, *arguments):
    """The precision of each product and convolution of a function and its gradient, on a TPU."""

    def both(*arguments):
        result, transpose = jax.vjp(function, *arguments)
        return result, transpose(result)

    # As in a process of a user, who told JAX nothing.
    with jax.default_matmul_precision(None):
        traced = jax.jit(both).trace(*arguments)
        text = traced.lower(lowering_platforms=("tpu",)).as_text()
    found = set()
    for line in text.splitlines():
        if re.search(r"\.(dot_general|convolution)", line):
            # Without the attribute, both operands have the default.
            found.update(re.findall(r"\b(DEFAULT|HIGH|HIGHEST)\b", line) or ["DEFAULT"])
    return found


def products_of(name):
    """A function of V1, or of the stage before it, and its arguments."""
    responses = jnp.ones((2, 8, 8, 8))
    if name == "subcortical stage":
        stage = v1.SubcorticalConfig(image_size=32, visual_degrees=1.0)
        return lambda images: v1.subcortical_responses(stage, images), IMAGES
    if name in ("GDN", "OrientedPools"):
        module = v1.LearnedNormalization(v1.GDN() if name == "GDN" else v1.OrientedPools(3))
        variables = module.init(jax.random.key(0), responses)
        return lambda params, x: module.apply({"params": params}, x), variables["params"], responses
    changes = {"surround": {"normalization": SURROUND}, "tuned": {"tuned": True}}.get(name, {})
    block = v1.VOneBlock(dataclasses.replace(BLOCK, **changes))
    variables = block.init(jax.random.key(0), IMAGES, jax.random.key(1))

    def respond(variables, images):
        return block.apply(variables, images, noise_key=jax.random.key(0))

    return respond, variables, IMAGES


@pytest.mark.parametrize(
    "name", ["published", "surround", "tuned", "subcortical stage", "GDN", "OrientedPools"]
)
def test_v1_asks_for_full_products_whatever_jax_is_set_to(name):
    """Otherwise a TPU has one pass of bfloat16, and a GPU TF32, where float32 is written."""
    assert precisions(*products_of(name)) == {"HIGHEST"}


def test_the_dtype_of_a_network_decides_about_the_products_of_its_v1():
    """Training in bfloat16 has one pass, as its configuration says."""
    found = []
    for dtype in (jnp.float32, jnp.bfloat16):
        model = models.create("vone_resnet18", 10, v1=BLOCK, width=4, dtype=dtype)

        def respond(images, model=model):
            key = jax.random.key(0)
            return model.apply({}, images, noise_key=key, method="front_end")["v1"]

        found.append(precisions(respond, IMAGES))
    assert found[0] == {"HIGHEST"} and "DEFAULT" in found[1]
