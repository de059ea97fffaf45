"""``Spec``: what a network is, the one record that is stored, opened and compared."""

import dataclasses
from typing import Annotated, Any

import flax.linen as nn
import jax.numpy as jnp

# The architectures of this project, each a file.
from vone_jax import arguments
from vone_jax.arguments import Positive, Range
from vone_jax.models import (  # noqa: F401
    alexnet,
    convnext,
    cornet,
    efficientnet,
    resnet,
    small_cnn,
    vit,
)
from vone_jax.models.architecture import (
    Architecture,
    base_network,
    check_name,
    family,
    known,
    prefix,
    size_of,
)
from vone_jax.models.defaults import evnet_configs, stem_size, v1_config
from vone_jax.models.layers import Dtype
from vone_jax.models.network import BaseNetwork, Model, VOneNet
from vone_jax.v1 import (
    GainControl,
    Noise,
    SubcorticalConfig,
    SurroundNormalization,
    VOneBlockConfig,
)
from vone_jax.v1.divisive import Rule
from vone_jax.v1.images import PerChannel, check_normalisation

# The fields that only networks with V1, or only those without it, have.
_WITH_V1 = ("v1", "learned_normalization", "subcortical")
_WITHOUT_V1 = ("stem_size", "front_end", "mean", "std", "stem_noise")


@dataclasses.dataclass(frozen=True)
class Spec:
    """What a network is, apart from its weights. A field of None follows from others.

    ``complete`` fills these in. A config leaves to the data and the initial weights what it does
    not say. The network of a specification carries the complete one, ``model.spec``.
    """

    # One of models.list_models(). A VOneNet (vone_ in front) has a VOneBlock and a bottleneck in
    # place of the stem. An EVNet (ev_) has a subcortical stage before the block.
    name: str
    # Number of logits. None is the number of classes of the data, else 1000.
    num_classes: int | None = None
    # Side of the images in pixels, at most 4096: a batch of larger ones does not fit into memory.
    # It selects the ImageNet form of the stem and of V1 (from 112 on) or that for small images. The
    # network also accepts images of other sizes. 0 becomes that of v1 or subcortical, else 224.
    image_size: Annotated[int, Range(8, 4096)] = 0
    # 3 for RGB, 1 for grey. None is that of the data, of V1 or of the stage before it, else 3.
    in_channels: int | None = None
    # The V1 of a VOneNet or EVNet. None is that of the initial weights, if they have one, else
    # models.v1_config for the image size.
    v1: VOneBlockConfig | None = None
    # Channels behind the stem or the bottleneck; all layers scale with it. None is the width of the
    # published network.
    width: Annotated[int | None, Range(1, 2**16)] = None
    # Noise behind the stem of a base network: the control with noise but without V1.
    stem_noise: Noise = None
    # Factor on the output of the stem before stem_noise.
    stem_gain: Positive = 1.0
    # Normalisation of images in [0, 1] in a base network, one number per channel or one for all.
    # None is that of the initial weights, or the published one of the network, or 0.5 where there
    # are not 3 channels. VOneNets have v1.image_mean and v1.image_std.
    mean: PerChannel | None = None
    std: PerChannel | None = None
    # The stage before V1 of an EVNet. None is as for v1, with the published one at 32 pixels per
    # degree.
    subcortical: SubcorticalConfig | None = None
    # Normalisation of V1 that is trained with the network, in front of the bottleneck.
    learned_normalization: Rule | None = None
    # The image size whose form the stem of a base network has: 224, 64, 32 or 28, which stand for
    # others. None is that of the initial weights, such as 224 for files of torchvision, else that
    # of image_size.
    stem_size: Annotated[int | None, Range(8, 4096)] = None
    # Flax modules of your own in place of the stem of a base network, and of the back end of any
    # network, see BaseNetwork and docs/front_ends.md.
    front_end: nn.Module | None = None
    back_end: nn.Module | None = None
    # The options of the architecture, such as models.ViT(depth=6). None is without any.
    options: Architecture | None = None

    def __post_init__(self):
        check_name(self.name)
        put = lambda field, value: object.__setattr__(self, field, value)  # noqa: E731
        for field in ("mean", "std"):
            value = getattr(self, field)
            if value is not None:
                # Lists come from JSON, and one number is for all channels.
                put(field, tuple(value) if isinstance(value, tuple | list) else (value,))
        for stage, kind in (("v1", VOneBlockConfig), ("subcortical", SubcorticalConfig)):
            arguments.instance(stage, getattr(self, stage), kind | None)
        stages = {"v1": self.v1, "subcortical": self.subcortical}
        size = _agreed("image_size", self.image_size or None, stages)
        put("image_size", 224 if size is None else size)
        arguments.fields(self)
        of_v1 = isinstance(self.learned_normalization, (GainControl, SurroundNormalization))
        hint = "; give it as v1.normalization" if of_v1 else ""
        rule = self.learned_normalization
        arguments.instance("learned_normalization", rule, Rule | None, hint)
        arguments.instance("front_end", self.front_end, nn.Module | None)
        arguments.instance("back_end", self.back_end, nn.Module | None)
        self._check_kind()
        self.complete()

    def _check_kind(self) -> None:
        """Check that no field is given that only other kinds of networks have."""
        unfit = _WITHOUT_V1 if self.front else _WITH_V1
        given = [field for field in unfit if getattr(self, field) is not None]
        if self.front and self.stem_gain != 1.0:
            given.append("stem_gain")
        if self.front == "vone_" and self.subcortical is not None:
            raise ValueError(f"subcortical is for EVNets, but name is {self.name!r}; use 'ev_...'")
        if given and self.front:
            raise ValueError(
                f"{given[0]} is for networks without V1, but name is {self.name!r}; what V1 has is "
                "a field of v1"
            )
        if given:
            front = "ev_" if given == ["subcortical"] else "vone_"
            raise ValueError(
                f"{given[0]} is for networks with V1, but name is {self.name!r}; use "
                f"'{front}{self.name}'"
            )
        if self.front_end is not None and self.stem_size is not None:
            raise ValueError(
                f"front_end takes the place of the stem; stem_size must be None, got "
                f"{self.stem_size}"
            )
        if hasattr(self.front_end, "noise") and self.stem_noise is not None:
            raise ValueError(
                f"{type(self.front_end).__name__} has noise of its own; stem_noise must be None, "
                f"got {self.stem_noise}"
            )
        if not isinstance(self.options, type(None) | family(self.name)):
            raise ValueError(
                f"options must be {family(self.name).__name__}(...) for {self.name}, got "
                f"{self.options!r:.80}"
            )

    @property
    def front(self) -> str:
        """What is in front of the back end: "" for a stem, "vone_" for V1, "ev_" for an EVNet's."""
        return prefix(self.name)

    @property
    def base(self) -> str:
        """The name of the base network."""
        return base_network(self.name)

    @property
    def form_size(self) -> int:
        """The image size whose form the parts of the network have."""
        return self.stem_size or self.image_size

    @property
    def code(self) -> tuple[str, ...]:
        """The words by which a command may import what a user has written: --code MODULE."""
        parts = (self.front_end, self.back_end, self.options)
        found = dict.fromkeys(type(part).__module__ for part in parts if part is not None)
        own = [name for name in found if not name.startswith("vone_jax.")]
        return tuple(word for name in own for word in ("--code", name))

    def complete(self) -> "Spec":
        """This specification with every field filled in that follows from others.

        Raises:
          ValueError: if fields contradict each other.
        """
        found: dict[str, Any] = {"num_classes": self.num_classes or 1000}
        found["width"] = self.width or size_of(self.name).width
        images = self.subcortical if self.front == "ev_" else self.v1
        stage = "subcortical" if self.front == "ev_" else "v1"
        channels = _agreed("in_channels", self.in_channels, {stage: images}) or 3
        found["in_channels"] = channels
        if self.front == "vone_":
            found["v1"] = self.v1 or v1_config(self.image_size, channels, self.name)
        elif self.front == "ev_":
            found["v1"], found["subcortical"] = evnet_configs(
                self.base, self.image_size, channels, self.v1, self.subcortical
            )
        else:
            if self.front_end is None:
                found["stem_size"] = stem_size(self.form_size)
            published = family(self.name).normalisation(self.base)
            for field, default in zip(("mean", "std"), published, strict=True):
                value = getattr(self, field)
                if value is None:
                    value = default if channels == 3 else (0.5,)
                found[field] = value * channels if len(value) == 1 else value
                check_normalisation(field, found[field], channels, positive=field == "std")
        if any(getattr(self, field) != value for field, value in found.items()):
            return dataclasses.replace(self, **found).complete()
        options = (self.options or family(self.name)()).complete(self)
        if options != self.options:
            return dataclasses.replace(self, options=options)
        noise = self.stem_noise
        if noise is not None and not noise.signed:
            stem = self.stem(jnp.float32)
            if getattr(stem, "signed", False):
                raise ValueError(
                    f"the stem {type(stem).__name__} has responses of either sign, of which "
                    f"stem_noise {noise} would set the negative ones to 0; take v1.FanoNoise, "
                    "whose variance follows the magnitude"
                )
        return self

    def build(self, dtype: Dtype = jnp.float32) -> Model:
        """The network, a Flax Linen module; see ``VOneNet`` for how to apply it.

        Args:
          dtype: ``jnp.float32``, or ``jnp.bfloat16`` for mixed precision: parameters, batch
            statistics and V1 stay float32, but the products of V1 have the precision of JAX's
            setting. It is no part of what a network is. Ends of one's own compute as they do.
        """
        if dtype not in (jnp.float32, jnp.bfloat16):
            raise ValueError(f"dtype must be float32 or bfloat16, got {dtype!r}")
        kind = VOneNet if self.front else BaseNetwork
        return kind(self.complete(), dtype)

    def stem(self, dtype: Dtype) -> nn.Module:
        """The stem of a base network, or the front end in its place."""
        return self.front_end or known(self.options).stem(self, dtype)

    def behind(self, dtype: Dtype) -> nn.Module:
        """The back end."""
        return self.back_end or known(self.options).back_end(self, dtype)

    @property
    def bottleneck(self) -> int:
        """The channels of the bottleneck behind V1."""
        return known(self.options).bottleneck(self)


def create(
    name: str,
    num_classes: int | None = None,
    image_size: int | None = None,
    in_channels: int | None = None,
    v1: VOneBlockConfig | None = None,
    *,
    dtype: Dtype = jnp.float32,
    **fields: Any,
) -> Model:
    """Build a network, a Flax Linen module; see ``VOneNet`` for how to apply it.

    It is that of ``Spec(name, ..., **fields).build(dtype)``. Options of the architecture may be
    given by their names, such as ``create("vit_s16", depth=6)``.

    Raises:
      ValueError: for an unknown name (the message has the most similar one), or a field that is out
        of range, contradicts another one, or is for other networks.
      TypeError: for an option that the architecture does not have.
    """
    check_name(name)
    own = {field.name for field in dataclasses.fields(Spec)}
    options = {field: fields.pop(field) for field in fields.keys() - own}
    if options:
        fields["options"] = family(name)(**options)
    return Spec(name, num_classes, image_size or 0, in_channels, v1, **fields).build(dtype)


def _agreed(field: str, value: int | None, stages: dict[str, Any]) -> int | None:
    """Return the value of a field on which the argument and the configurations of stages agree."""
    for stage, config in stages.items():
        if config is not None:
            theirs = getattr(config, field)
            if value not in (None, theirs):
                raise ValueError(f"{field} is {value}, but {stage}.{field} is {theirs}")
            value = theirs
    return value
