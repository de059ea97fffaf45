"""Networks of a front end (learned stem or V1) and a back end, and trained networks as functions.

Networks normalise images themselves.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.tree_util import Partial
from jaxtyping import Array, Float

from vone_jax import arguments, fast, prng
from vone_jax.models import layers
from vone_jax.models.architecture import known
from vone_jax.models.layers import Activations, Dtype, Images, Maps, NoiseKey
from vone_jax.models.vit import resize_positions
from vone_jax.v1 import (
    LearnedNormalization,
    SubcorticalBlock,
    SubcorticalConfig,
    VOneBlock,
    VOneBlockConfig,
    subcortical_responses,
)
from vone_jax.v1.block import learnable_gabor
from vone_jax.v1.images import HIGHEST, check_images, normalise
from vone_jax.v1.noise import Noise, add_noise

# Modules of a VOneNet whose parameters describe V1, in ``variables["params"]``.
V1_MODULES = ("block", "normalization")


class BaseNetwork(nn.Module):
    """A standard network: normalisation, stem, back end.

    The stem, or the front end of a user, is a module ``(x, train) -> {name: array}``. Its last
    entry is the input of the back end; an array alone is that input. ``signed = True`` in its class
    says that this input may be negative. The back end is such a module with an entry ``logits``, or
    returns the logits alone. Its layers have other names than those of the stem.

    A front end with a field ``noise``, a ``v1.Noise``, draws: it is called with
    ``(x, train, keys)``, one key for each image, or None where the caller gave none. With
    ``noise=None`` its output in evaluation does not depend on the keys. ``with_noise`` and
    ``noise_of`` are about this field. A front end may return several views of each image, as rows
    n * views to (n + 1) * views - 1 for image n, in evaluation: the responses of a layer, and the
    logits, are the means over the views.

    Attributes:
      spec: what the network is. Its ``stem_noise`` is drawn behind the stem. It is the paper's
        control for stochasticity: the noise of a VOneNet at the same place, but without its V1.
      dtype: type in which the layers compute.
    """

    spec: Any
    dtype: Dtype = jnp.float32

    @property
    def image_size(self) -> int:
        """The side of the images in pixels for which the network was made; it accepts others."""
        return self.spec.image_size

    @property
    def in_channels(self) -> int:
        """The number of image channels."""
        return known(self.spec.in_channels)

    def setup(self) -> None:
        self.stem = self.spec.stem(self.dtype)
        self.back_end = self.spec.behind(self.dtype)

    def features(
        self, images: Images, train: bool = False, noise_key: NoiseKey | None = None
    ) -> Activations:
        """The named activations, see ``VOneNet.features``.

        A network without noise ignores ``noise_key``. With noise, the stem's layer is the output
        before the noise, and ``stem.noise`` is the input of the back end.
        """
        spec = self.spec
        check_images(images, self.in_channels)
        x = normalise(images, known(spec.mean), known(spec.std)).astype(self.dtype)
        activations = _named("stem", self.stem(x, train, *self._keys(len(x), noise_key)))
        if spec.stem_noise is not None or spec.stem_gain != 1.0:
            last = list(activations.values())[-1]
            activations["stem.noise"] = self._with_noise(last, noise_key)
        # Only in training do keys go further, and then there is one view of each image.
        last, further = list(activations.values())[-1], noise_key if train else None
        behind = _behind(self, last, train, further)
        if both := sorted(activations.keys() & behind.keys()):
            raise ValueError(f"layers of the stem must have other names than {', '.join(both)}")
        found = activations | behind
        return {name: _mean_of_views(each, len(images)) for name, each in found.items()}

    def _keys(self, images: int, noise_key: NoiseKey | None) -> tuple[Any, ...]:
        """The last argument of a front end that draws; nothing for others."""
        if not _draws(self.spec):
            return ()
        if noise_key is None and self.has_rng("noise"):
            noise_key = self.make_rng("noise")
        if noise_key is None:
            return (None,)
        return (prng.stream(prng.example_keys(noise_key, images), "front end"),)

    def _with_noise(self, responses: Maps, noise_key: NoiseKey | None) -> Maps:
        responses = (self.spec.stem_gain * responses).astype(jnp.float32)
        noisy = add_noise(self, self.spec.stem_noise, "stem noise", responses, noise_key)
        return noisy.astype(self.dtype)

    def __call__(
        self, images: Images, train: bool = False, noise_key: NoiseKey | None = None
    ) -> Float[Array, "n classes"]:
        """The float32 logits; arguments as in ``features``."""
        return self.features(images, train, noise_key)["logits"]


class Bottleneck(nn.Module):
    """A convolution of 1x1 without bias.

    Attributes:
      features: output channels.
      ends: of groups of input channels that are computed apart, see ``fast.by_groups``.
      dtype: type in which it computes.
      kernel_init: initialiser of the kernel.
    """

    features: int
    ends: tuple[int, ...]
    dtype: Dtype
    kernel_init: Any

    @nn.compact
    def __call__(self, responses: Maps) -> Float[Array, "n h w features"]:
        shape = (1, 1, responses.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32).astype(self.dtype)

        def product(channels: slice, responses: jax.Array) -> jax.Array:
            inputs = responses.astype(self.dtype)
            return fast.convolve(inputs, kernel[:, :, channels], (1, 1), [(0, 0)] * 2)

        return fast.by_groups(
            product, self.ends, responses, functools.partial(functools.reduce, jnp.add)
        )


class VOneNet(nn.Module):
    """A VOneBlock, a 1x1 bottleneck (no bias, no nonlinearity), the back end of a standard network.

    With a subcortical stage before the block it is an EVNet (Piper et al. 2025, arXiv:2506.03089).
    Then V1 reads the cells of that stage in place of the channels of images, and each stage has its
    own noise. The bottleneck is initialised as in PyTorch.

    Attributes:
      spec: what the network is. Its ``learned_normalization`` stands between the noise of V1 and
        the bottleneck.
      dtype: type in which the bottleneck and the back end compute. V1 is always float32. Its
        products have the "highest" precision in a float32 network, whatever JAX's setting is. In a
        bfloat16 network, which reads them with 8 bits, they have that of JAX's setting.
      silenced: the noises of V1 and of the subcortical stage that ``with_noise`` has turned off,
        which it gives back; else None.
    """

    spec: Any
    dtype: Dtype = jnp.float32
    silenced: tuple[Noise, Noise] | None = None

    @property
    def v1(self) -> VOneBlockConfig:
        """The configuration of the VOneBlock."""
        return known(self.spec.v1)

    @property
    def subcortical(self) -> SubcorticalConfig | None:
        """The configuration of the subcortical stage of an EVNet; None for a VOneNet."""
        return self.spec.subcortical

    @property
    def image_size(self) -> int:
        """The image size in pixels for which V1 has its field of view."""
        return self.spec.image_size

    @property
    def in_channels(self) -> int:
        """The number of image channels."""
        return known(self.spec.in_channels)

    def setup(self) -> None:
        precision = HIGHEST if self.dtype == jnp.float32 else None
        self.block = VOneBlock(self.v1, precision, self.subcortical)
        if self.subcortical is not None:
            self.stage = SubcorticalBlock(self.subcortical)
        rule = self.spec.learned_normalization
        if rule is not None:
            self.normalization = LearnedNormalization(rule)
        initial = layers.he_normal_fan_out if self.subcortical is None else layers.torch_uniform
        ends = () if rule is not None else self.block.ends
        self.bottleneck = Bottleneck(self.spec.bottleneck, ends, self.dtype, initial)
        self.back_end = self.spec.behind(self.dtype)

    def front_end(self, images: Images, noise_key: NoiseKey | None = None) -> Activations:
        """The named activations up to ``v1``, see ``features``."""
        activations = {}
        if self.subcortical is not None:
            cells = subcortical_responses(self.subcortical, images)
            first = 0
            for name, _, colours in self.subcortical.populations:
                activations[f"subcortical.{name}"] = cells[..., first : first + len(colours)]
                first += len(colours)
            images = activations["subcortical"] = self.stage.add_noise(cells, noise_key)
        responses = self.block.noise_free(images)
        simple, complex_ = jnp.split(responses, [self.v1.simple_channels], axis=-1)
        activations |= {"v1.simple": simple, "v1.complex": complex_}
        return activations | {"v1": self.block.add_noise(responses, noise_key)}

    def features(
        self, images: Images, train: bool = False, noise_key: NoiseKey | None = None
    ) -> Activations:
        """The named activations, in processing order.

        Args:
          images: floating point in [0, 1].
          train: batch norm uses (and updates) batch statistics, and dropout is on. The noise is
            on either way.
          noise_key: one typed key, or one per example, see ``VOneBlock.__call__``.

        Returns:
          For an EVNet, ``subcortical.p`` and ``subcortical.m`` (before noise) and ``subcortical``
          (with noise). Then ``v1.simple`` and ``v1.complex`` (before the noise of V1), ``v1`` (with
          noise), with a learned normalisation ``v1.normalized``, then ``bottleneck``, the stages of
          the back end, ``logits``. Maps are NHWC.
        """
        activations = self.front_end(images, noise_key)
        return activations | self.behind_v1(activations["v1"], train, noise_key)

    def behind_v1(
        self, responses: Maps, train: bool = False, noise_key: NoiseKey | None = None
    ) -> Activations:
        """The named activations behind ``v1``, from its responses."""
        activations = {}
        if self.spec.learned_normalization is not None:
            responses = activations["v1.normalized"] = self.normalization(responses)
        activations["bottleneck"] = self.bottleneck(responses)
        return activations | _behind(self, activations["bottleneck"], train, noise_key)

    def __call__(
        self, images: Images, train: bool = False, noise_key: NoiseKey | None = None
    ) -> Float[Array, "n classes"]:
        """The float32 logits; arguments as in ``features``."""
        return self.features(images, train, noise_key)["logits"]


Model = BaseNetwork | VOneNet


def _named(layer: str, output: Any) -> Activations:
    """The layers that a part returns, or its only array by a name."""
    return dict(output) if isinstance(output, Mapping) else {layer: output}


def _draws(spec: Any) -> bool:
    """Whether the front end has noise of its own, or could have."""
    return hasattr(spec.front_end, "noise")


def _mean_of_views(x: jax.Array, images: int) -> jax.Array:
    """Means over the rows of each image; see ``BaseNetwork``."""
    if len(x) == images:
        return x
    if len(x) % images:
        raise ValueError(
            f"the front end must return as many views of each image, got {len(x)} for {images} "
            "images"
        )
    return jnp.mean(x.reshape(images, -1, *x.shape[1:]), axis=1)


def _behind(model: Any, x: Maps, train: bool, noise_key: NoiseKey | None) -> Activations:
    """Call the back end. Stochastic depth draws from the keys of the examples, in training."""
    back_end, keys = model.back_end, ()
    if isinstance(back_end, layers.DropPathBackEnd):
        keys = (None,)
        if train and back_end.drop_path:
            if noise_key is None:
                raise ValueError("noise_key must be given in training with drop_path, got None")
            keys = (prng.stream(prng.example_keys(noise_key, len(x)), "stochastic depth"),)
    activations = _named("logits", back_end(x, train, *keys))
    logits = activations["logits"].astype(jnp.float32)
    if logits.shape[-1] != model.spec.num_classes:
        raise ValueError(
            f"num_classes is {model.spec.num_classes}, but the back end has {logits.shape[-1]} "
            "logits"
        )
    return activations | {"logits": logits}


@dataclasses.dataclass(frozen=True)
class _Apply:
    """``model.apply`` for evaluation; equal for equal models, so that jitted code is shared."""

    model: Model
    # None: all layers.
    layer: str | None = None

    def __call__(self, variables: Any, key: NoiseKey, images: Images) -> Any:
        features: Any = self.model.apply(variables, images, noise_key=key, method="features")
        if self.layer is None:
            return features
        arguments.choice("layer", self.layer, features)
        return features[self.layer]


def init(model: Model, key: jax.Array) -> Any:
    """The variables of a new network, ``{"params": ..., "batch_stats": ...}``.

    They equal those of ``model.init`` up to rounding. One program makes all of them. It runs only
    once, so it is compiled without optimisation, which would take longer than it saves.

    Args:
      model: from ``create``.
      key: typed key. It may be traced, so ``jax.vmap`` over keys makes the networks of an ensemble,
        and ``jax.eval_shape`` gives shapes.
    """
    images = jnp.zeros((1, model.image_size, model.image_size, model.in_channels), jnp.float32)
    # A program that is part of another one cannot have compiler options of its own.
    within = isinstance(key, Tracer) or isinstance(images, Tracer)
    options = None if within else {"xla_backend_optimization_level": 0}
    compiled = jax.jit(_variables, static_argnames="model", compiler_options=options)
    return compiled(model, prng.threefry(key), images)


def _variables(model: Model, key: jax.Array, images: Images) -> Any:
    params, noise = jax.random.split(key)
    return model.init({"params": params, "noise": noise}, images)


def logits_fn(model: Model, variables: Any) -> Partial:
    """The classifier ``logits_fn(keys, images) -> logits`` of a trained network.

    Args:
      model: from ``create``.
      variables: ``{"params": ..., "batch_stats": ...}``.

    Returns:
      A function of (keys, images): one typed key per example, or a single key that numbers the
      examples by position, and float images (N, H, W, C) in [0, 1]. It is a pytree with the
      variables as leaves, so a jitted function takes it as an argument and does not compile
      again for other weights.
    """
    return response_fn(model, variables, "logits")


def response_fn(model: Model, variables: Any, layer: str) -> Partial:
    """The function ``response_fn(keys, images) -> responses`` of a layer of a trained network.

    It is like ``logits_fn``. ``layer`` is a name from ``method="features"``, such as ``"v1"``.
    """
    return Partial(_Apply(model, layer), variables)


def features_fn(model: Model, variables: Any) -> Partial:
    """The function ``features(keys, images) -> {layer: array}`` of a trained network.

    It is like ``logits_fn``. The layers are those of ``method="features"``.
    """
    return Partial(_Apply(model), variables)


def noise_of(model: Model) -> Noise:
    """The noise of a network's V1 or stem; if V1 has none, the noise of the subcortical stage.

    For a front end with noise of its own, it is this one.
    """
    if not isinstance(model, VOneNet):
        return model.spec.front_end.noise if _draws(model.spec) else model.spec.stem_noise
    before = None if model.subcortical is None else model.subcortical.noise
    return before if model.v1.noise is None else model.v1.noise


def is_stochastic(model: Model) -> bool:
    """Return True if the network has noise, so that its logits depend on the key."""
    return noise_of(model) is not None


def with_noise(model: Model, noise: Noise) -> Model:
    """The same network with other noise in V1, or behind the stem of a base network.

    Use it to evaluate with noise a network that was trained without noise, or the reverse. Other
    noise in the V1 of an EVNet leaves the noise of its subcortical stage as it is. None turns both
    off, so that the network is deterministic; noise afterwards turns the stage's on again. So
    ``with_noise(without_noise(model), noise_of(model))`` is the model.
    """
    if not isinstance(model, VOneNet):
        if _draws(model.spec):
            return _changed(model, front_end=model.spec.front_end.clone(noise=noise))
        return _changed(model, stem_noise=noise)
    if model.subcortical is None:
        return _changed(model, v1=dataclasses.replace(model.v1, noise=noise))
    own = (model.v1.noise, model.subcortical.noise)
    if own == (None, None):
        own = model.silenced or own
    if noise is None:
        now, silenced = (None, None), own if any(own) else None
    else:
        now, silenced = own if noise == (own[0] or own[1]) else (noise, own[1]), None
    changed = _changed(
        model,
        v1=dataclasses.replace(model.v1, noise=now[0]),
        subcortical=dataclasses.replace(model.subcortical, noise=now[1]),
    )
    return changed.clone(silenced=silenced)


def _changed(model: Any, **fields: Any) -> Any:
    """The network with other fields of its specification."""
    return model.clone(spec=dataclasses.replace(model.spec, **fields))


def with_image_size(model: Model, variables: Any, image_size: int) -> tuple[Model, Any]:
    """The network for images of another size in pixels, and its variables.

    The strides and the pixels per degree of V1 stay as they are, so the field of view grows with
    the images. So do the weights, but for a transformer's table of positions, which is resized.

    Raises:
      ValueError: for a transformer, if patches do not divide the size.
    """
    if "tokens" in (params := variables["params"].get("back_end", {})):
        tokens = params["tokens"]
        placed = tokens["position"].shape[1] - 1 == math.isqrt(tokens["position"].shape[1] - 1) ** 2
        side = math.isqrt(tokens["position"].shape[1] - placed)
        rows, rest = divmod(side * image_size, model.image_size)
        if rest:
            patch_size = model.image_size // side
            raise ValueError(
                f"image_size must be a multiple of {patch_size} pixels, a patch, got {image_size}"
            )
        position = resize_positions(jnp.asarray(tokens["position"]), rows, rows, placed)
        params = {**params, "tokens": {**tokens, "position": position}}
        variables = {**variables, "params": {**variables["params"], "back_end": params}}

    def resized(stage: Any) -> Any:
        if stage is None:
            return None
        degrees = image_size * (stage.visual_degrees / stage.image_size)
        return dataclasses.replace(stage, image_size=image_size, visual_degrees=degrees)

    spec = model.spec
    stages = {"v1": resized(spec.v1), "subcortical": resized(spec.subcortical)}
    return _changed(model, image_size=image_size, **stages), variables


def with_fixed_bank(model: Model, variables: Any) -> tuple[Model, Any]:
    """The network with its learned bank as a constant, and its variables without the bank.

    A network without a tuned bank is returned unchanged. The result can be used where a fixed bank
    is needed: physiology, figures of the filters, other formats, fast forms.
    """
    if not (isinstance(model, VOneNet) and model.v1.tuned):
        return model, variables
    params = dict(variables["params"])
    bank = learnable_gabor(model.v1).learned(params.pop("block")["gabor"])
    fixed = _changed(model, v1=dataclasses.replace(model.v1, bank=bank, tuned=False))
    return fixed, {**variables, "params": params}


def without_noise(model: Model) -> Model:
    """The same network without noise; its variables are valid for both."""
    return with_noise(model, None) if is_stochastic(model) else model
