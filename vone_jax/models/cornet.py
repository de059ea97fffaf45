"""CORnet-S and CORnet-Z: networks with the visual areas V1, V2, V4 and IT.

CORnet-S (Kubilius, Schrimpf et al. 2019) has a recurrent block for each of V2, V4 and IT, CORnet-Z
(Kubilius, Schrimpf et al. 2018) one convolution for each area. The networks are cut behind their V1
stages, which the VOneBlock and its bottleneck replace. Submodules carry the originals' names, so
that checkpoints convert by rule.
"""

import dataclasses
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vone_jax import fast
from vone_jax.models import layers
from vone_jax.models.architecture import Architecture
from vone_jax.models.defaults import stem_form


class CORnetSV1(layers.Stem):
    """The learned V1 stage of CORnet-S: two convolutions."""

    @nn.compact
    def __call__(self, x: layers.Maps, train: bool) -> layers.Activations:
        x = layers.conv(self.features, self.kernel, self.stride, name="conv1", dtype=self.dtype)(x)
        x = fast.relu(layers.BatchNorm(self.dtype, name="norm1")(x, train))
        x = layers.max_pool(x, padding=1) if self.pool else x
        x = layers.conv(self.features, 3, name="conv2", dtype=self.dtype)(x)
        return {"V1": fast.relu(layers.BatchNorm(self.dtype, name="norm2")(x, train))}


class SteppedConv(nn.Module):
    """A 3x3 convolution whose stride is chosen at each application."""

    features: int
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: layers.Maps, stride: int) -> Float[Array, "n h2 w2 c2"]:
        shape = (3, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", layers.he_normal_fan_out, shape, jnp.float32)
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        return fast.convolve(x, kernel, (stride, stride), [(1, 1), (1, 1)])


class CORblockS(nn.Module):
    """One area of CORnet-S: the same convolutions ``steps`` times, each time with new batch norms.

    The first step halves the height and the width of the map.
    """

    features: int
    steps: int
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: layers.Maps, train: bool) -> list[Float[Array, "n h2 w2 c2"]]:
        """The output of the area after each step."""
        x = layers.conv(self.features, 1, name="conv_input", dtype=self.dtype)(x)
        conv1 = layers.conv(4 * self.features, 1, name="conv1", dtype=self.dtype)
        conv2 = SteppedConv(4 * self.features, dtype=self.dtype, name="conv2")
        conv3 = layers.conv(self.features, 1, name="conv3", dtype=self.dtype)
        outputs = []
        for t in range(self.steps):
            skip = x
            if t == 0:
                skip = layers.conv(self.features, 1, 2, name="skip", dtype=self.dtype)(x)
                skip = layers.BatchNorm(self.dtype, name="norm_skip")(skip, train)
            y = fast.relu(layers.BatchNorm(self.dtype, name=f"norm1_{t}")(conv1(x), train))
            y = conv2(y, stride=2 if t == 0 else 1)
            y = fast.relu(layers.BatchNorm(self.dtype, name=f"norm2_{t}")(y, train))
            y = layers.BatchNorm(self.dtype, name=f"norm3_{t}")(conv3(y), train)
            x = fast.relu(y + skip)
            outputs.append(x)
        return outputs


# Area -> (width relative to V1, steps in time).
AREAS = {"V2": (2, 2), "V4": (4, 4), "IT": (8, 2)}


class CORnetSBackEnd(nn.Module):
    """V2, V4, IT and the decoder of CORnet-S. ``width`` is the number of features of V1.

    The layers are named after the areas (their last step); ``V4.step0`` and so on are the
    outputs of the single steps.
    """

    num_classes: int
    width: int = 64
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: layers.Maps, train: bool) -> layers.Activations:
        activations = {}
        for area, (widening, steps) in AREAS.items():
            outputs = CORblockS(widening * self.width, steps, self.dtype, name=area)(x, train)
            activations |= {f"{area}.step{t}": output for t, output in enumerate(outputs)}
            x = activations[area] = outputs[-1]
        x = activations["avgpool"] = layers.global_average_pool(x)
        last = layers.linear(self.num_classes, x.shape[-1], name="linear", dtype=self.dtype)
        return activations | {"logits": last(x)}


class CORblockZ(nn.Module):
    """One area of CORnet-Z: a convolution with bias, ReLU, and, if ``pool``, a 3x3 max pool.

    The pool has stride 2.
    """

    features: int
    kernel: int = 3
    stride: int = 1
    pool: bool = True
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: layers.Maps) -> Float[Array, "n h2 w2 c2"]:
        x = layers.conv(
            self.features, self.kernel, self.stride, use_bias=True, dtype=self.dtype, name="conv",
            kernel_init=nn.initializers.xavier_uniform(),
        )(x)  # fmt: skip
        x = fast.relu(x)
        return layers.max_pool(x, padding=1) if self.pool else x


class CORnetZV1(layers.Stem):
    """The learned V1 stage of CORnet-Z."""

    @nn.compact
    def __call__(self, x: layers.Maps, train: bool) -> layers.Activations:
        area = CORblockZ(self.features, self.kernel, self.stride, self.pool, self.dtype, name="V1")
        return {"V1": area(x)}


class CORnetZBackEnd(nn.Module):
    """V2, V4, IT and the decoder of CORnet-Z. ``width`` is the number of features of V1."""

    num_classes: int
    width: int = 64
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: layers.Maps, train: bool) -> layers.Activations:
        activations = {}
        for area, widening in (("V2", 2), ("V4", 4), ("IT", 8)):
            block = CORblockZ(widening * self.width, dtype=self.dtype, name=area)
            x = activations[area] = block(x)
        x = activations["avgpool"] = layers.global_average_pool(x)
        xavier = nn.initializers.xavier_uniform()
        last = nn.Dense(self.num_classes, kernel_init=xavier, dtype=self.dtype, name="linear")
        return activations | {"logits": last(x)}


class _Size(NamedTuple):
    label: str
    stem: type[layers.Stem]
    back_end: type[nn.Module]
    width: int = 64


@dataclasses.dataclass(frozen=True)
class CORnet(Architecture):
    """CORnet-S and CORnet-Z; for small images, with the stems of ResNets."""

    SIZES = {
        "cornet_s": _Size("CORnet-S", CORnetSV1, CORnetSBackEnd),
        "cornet_z": _Size("CORnet-Z", CORnetZV1, CORnetZBackEnd),
    }
    NAMES = {
        "cornet": {
            "stem/conv{n}": "V1.conv{n}",
            "stem/norm{n}": "V1.norm{n}",
            "stem/V1/conv": "V1.conv",
            **{
                f"{area}/{module}": f"{area}.{module}"
                for area in AREAS
                for module in (
                    "conv_input", "skip", "norm_skip", "conv{n}", "norm{n}_{t}", "conv",
                )
            },
            "linear": "decoder.linear",
        }
    }  # fmt: skip
    in_torch = True

    @classmethod
    def told(cls, file, known):
        if "V2/conv_input.weight" in file:
            return {"name": ["cornet_s"], **file.ends("stem/conv1", "linear")}
        if "V2/conv.weight" in file:
            return {"name": ["cornet_z"], **file.ends("stem/V1/conv", "linear")}
        return None

    @classmethod
    def assumed(cls, file, name):
        size = file.stem_size("stem/conv1" if name == "cornet_s" else "stem/V1/conv")
        return super().assumed(file, name) | {"image_size": size, "stem_size": size}

    def stem(self, spec, dtype):
        form = stem_form(spec.form_size)._asdict()
        return self.SIZES[spec.base].stem(spec.width, **form, dtype=dtype)

    def back_end(self, spec, dtype):
        return self.SIZES[spec.base].back_end(spec.num_classes, spec.width, dtype)
