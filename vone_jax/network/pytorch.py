"""Networks of PyTorch modules that no converter knows: PyTorch computes, JAX calls it."""

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from vone_jax import arguments
from vone_jax.network.network import Network


def of_torch(
    name: str,
    module: Any,
    image_shape: tuple[int, int, int],
    class_names: tuple[str, ...] = (),
    layers: Sequence[str] = (),
    **fields: Any,
) -> Network:
    """A network of a PyTorch module, which attacks can differentiate.

    PyTorch computes logits and gradients on the CPU, with a copy of the module in evaluation mode,
    one call at a time. It is slower than a converted network, and nothing of it runs on an
    accelerator of JAX.

    Args:
      name: see ``Network``.
      module: a ``torch.nn.Module`` for float32 images (N, C, H, W) in [0, 1] that returns logits
        (N, classes). Normalisation is part of it. Its logits must depend on the images alone.
      image_shape: (H, W, C) with H = W.
      class_names: in the order of the logits; empty if they are not known.
      layers: the names of modules within it, such as "layer1.0", whose outputs can be recorded. A
        module that is called several times has the output of its last call.
      fields: further fields of ``Network``.

    Raises:
      ValueError: for a layer that the module does not have.
    """
    # A copy, so that the caller's module stays in its mode and may be trained further.
    module = copy.deepcopy(module).eval()
    for layer in layers:
        arguments.choice("layers", layer, [known for known, _ in module.named_modules() if known])
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    variables = {n: tensor.detach().cpu().numpy() for n, tensor in tensors.items()}
    return Network(
        name,
        Partial(_Output(_Computed(module)), variables),
        image_shape,
        class_names,
        features=Partial(_Features(module, tuple(layers)), variables) if layers else None,
        origin={"torch": repr(module)},
        **fields,
    )


@dataclasses.dataclass(frozen=True)
class _Computed:
    """What PyTorch computes with a module. Equal for one module, so that programs are shared."""

    module: Any
    # The name of a module within it; empty for the module itself.
    layer: str = ""

    def __call__(self, variables: Any, images: Any, change: Any = None) -> np.ndarray:
        """The output of the layer, or with a change of it, what it takes back to the images."""
        import torch

        given = {n: torch.tensor(np.asarray(array)) for n, array in variables.items()}
        pixels = torch.tensor(np.asarray(images).transpose(0, 3, 1, 2).copy())
        pixels.requires_grad_(change is not None)
        with torch.set_grad_enabled(change is not None):
            outputs = []
            hook = self.module.get_submodule(self.layer).register_forward_hook(
                lambda module, inputs, output: outputs.append(output)
            )
            try:
                torch.func.functional_call(self.module, given, (pixels,))
            finally:
                hook.remove()
            output = outputs[-1].permute(0, 2, 3, 1) if outputs[-1].ndim == 4 else outputs[-1]
            if change is None:
                return output.contiguous().numpy()
            weighted = (output * torch.tensor(np.asarray(change))).sum()
            (gradient,) = torch.autograd.grad(weighted, pixels)
        return gradient.permute(0, 2, 3, 1).contiguous().numpy()


@dataclasses.dataclass(frozen=True)
class _Features:
    """The outputs of some layers. PyTorch computes those alone that a program uses."""

    module: Any
    layers: tuple[str, ...]

    def __call__(self, variables: Any, keys: jax.Array, images: jax.Array) -> dict[str, jax.Array]:
        return {
            layer: _Output(_Computed(self.module, layer))(variables, keys, images)
            for layer in self.layers
        }


@dataclasses.dataclass(frozen=True)
class _Output:
    """The logits of a module, or the output of a layer, in JAX with their gradient."""

    compute: _Computed

    def __call__(self, variables: Any, keys: jax.Array, images: jax.Array) -> jax.Array:
        del keys
        output = jax.custom_vjp(self._output)
        output.defvjp(lambda *inputs: (self._output(*inputs), inputs), self._pull_back)
        return output(variables, images)

    def _output(self, variables: Any, images: jax.Array) -> jax.Array:
        # The shape depends on the weights by their shapes alone.
        zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), variables)
        alone = self.compute(zeros, np.zeros((1, *images.shape[1:]), np.float32))
        shape = jax.ShapeDtypeStruct((len(images), *alone.shape[1:]), jnp.float32)
        return jax.pure_callback(self.compute, shape, variables, images, vmap_method="sequential")

    def _pull_back(self, saved: Any, change: jax.Array) -> tuple[None, jax.Array]:
        variables, images = saved
        shape = jax.ShapeDtypeStruct(images.shape, jnp.float32)
        gradient = jax.pure_callback(
            self.compute, shape, variables, images, change, vmap_method="sequential"
        )
        return None, gradient
