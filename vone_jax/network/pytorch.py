"""Networks of PyTorch modules that no converter knows: PyTorch computes, JAX calls it."""

import dataclasses
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
    module = module.eval()
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    variables = {n: tensor.detach().cpu().numpy() for n, tensor in tensors.items()}
    classes = _Computed(module)(variables, np.zeros((1, *image_shape), np.float32)).shape[-1]
    return Network(
        name,
        Partial(_Logits(_Computed(module), classes), variables),
        image_shape,
        class_names,
        origin={"torch": repr(module)},
        **fields,
    )


@dataclasses.dataclass(frozen=True)
class _Computed:
    """What PyTorch computes with a module. Equal for one module, so that programs are shared."""

    module: Any

    def __call__(self, variables: Any, images: Any, change: Any = None) -> np.ndarray:
        """The logits, or with a change of them, what it takes back to the images."""
        import torch

        given = {n: torch.tensor(np.asarray(array)) for n, array in variables.items()}
        pixels = torch.tensor(np.asarray(images).transpose(0, 3, 1, 2).copy())
        pixels.requires_grad_(change is not None)
        with torch.set_grad_enabled(change is not None):
            logits = torch.func.functional_call(self.module, given, (pixels,))
            if change is None:
                return logits.numpy()
            weighted = (logits * torch.tensor(np.asarray(change))).sum()
            (gradient,) = torch.autograd.grad(weighted, pixels)
        return gradient.permute(0, 2, 3, 1).contiguous().numpy()


@dataclasses.dataclass(frozen=True)
class _Logits:
    """The logits of a module in JAX, with their gradient."""

    compute: _Computed
    num_classes: int

    def __call__(self, variables: Any, keys: jax.Array, images: jax.Array) -> jax.Array:
        del keys
        logits = jax.custom_vjp(self._logits)
        logits.defvjp(lambda *inputs: (self._logits(*inputs), inputs), self._pull_back)
        return logits(variables, images)

    def _logits(self, variables: Any, images: jax.Array) -> jax.Array:
        shape = jax.ShapeDtypeStruct((len(images), self.num_classes), jnp.float32)
        return jax.pure_callback(self.compute, shape, variables, images, vmap_method="sequential")

    def _pull_back(self, saved: Any, change: jax.Array) -> tuple[None, jax.Array]:
        variables, images = saved
        shape = jax.ShapeDtypeStruct(images.shape, jnp.float32)
        gradient = jax.pure_callback(
            self.compute, shape, variables, images, change, vmap_method="sequential"
        )
        return None, gradient
