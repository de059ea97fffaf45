"""Networks of PyTorch modules that no converter knows: PyTorch computes, JAX calls it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from vone_jax.network.network import Network


def of_torch(
    name: str,
    module: Any,
    image_shape: tuple[int, int, int],
    class_names: tuple[str, ...] = (),
    **fields: Any,
) -> Network:
    """A network of a PyTorch module, which attacks can differentiate.

    PyTorch computes logits and gradients on the CPU, in evaluation mode, one call at a time. It is
    slower than a converted network, and nothing of it runs on an accelerator of JAX.

    Args:
      name: see ``Network``.
      module: a ``torch.nn.Module`` for float32 images (N, C, H, W) in [0, 1] that returns logits
        (N, classes). Normalisation is part of it. Its logits must depend on the images alone.
      image_shape: (H, W, C) with H = W.
      class_names: in the order of the logits; empty if they are not known.
      fields: further fields of ``Network``.
    """
    import torch

    module = module.eval()
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}

    def compute(variables: Any, images: Any, change: Any = None) -> np.ndarray:
        """The logits, or with a change of them, what it takes back to the images."""
        given = {n: torch.tensor(np.asarray(array)) for n, array in variables.items()}
        pixels = torch.tensor(np.asarray(images).transpose(0, 3, 1, 2).copy())
        pixels.requires_grad_(change is not None)
        with torch.set_grad_enabled(change is not None):
            logits = torch.func.functional_call(module, given, (pixels,))
            if change is None:
                return logits.numpy()
            weighted = (logits * torch.tensor(np.asarray(change))).sum()
            (gradient,) = torch.autograd.grad(weighted, pixels)
        return gradient.permute(0, 2, 3, 1).contiguous().numpy()

    variables = {n: tensor.detach().cpu().numpy() for n, tensor in tensors.items()}
    num_classes = compute(variables, np.zeros((1, *image_shape), np.float32)).shape[-1]

    @jax.custom_vjp
    def logits(variables: Any, images: jax.Array) -> jax.Array:
        shape = jax.ShapeDtypeStruct((len(images), num_classes), jnp.float32)
        return jax.pure_callback(compute, shape, variables, images, vmap_method="sequential")

    def pull_back(saved: Any, change: jax.Array) -> Any:
        variables, images = saved
        shape = jax.ShapeDtypeStruct(images.shape, jnp.float32)
        gradient = jax.pure_callback(
            compute, shape, variables, images, change, vmap_method="sequential"
        )
        return None, gradient

    logits.defvjp(lambda *inputs: (logits(*inputs), inputs), pull_back)
    return Network(
        name,
        Partial(lambda variables, keys, images: logits(variables, images), variables),
        image_shape,
        class_names,
        origin={"torch": repr(module)},
        **fields,
    )
