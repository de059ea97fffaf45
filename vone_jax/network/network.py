"""``Network``: a trained network of any origin. It is made of functions, or of a module."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.tree_util import Partial

from vone_jax import arguments, convert, data, fast, files, functions, models
from vone_jax.data import Preprocessing
from vone_jax.v1 import Noise, VOneBlockConfig

Function = Callable[[jax.Array, jax.Array], Any]


@dataclasses.dataclass(frozen=True)
class Split:
    """A split of a data set, with the arguments of ``data.load``."""

    source: str
    split: str
    data_dir: str | None = None
    # Number and checksum of the images on which a run was validated, see ``data.describe``.
    images: str | None = None

    def open(self) -> data.Source:
        """Open the split.

        Raises:
          ValueError: if the images are not those on which the run was validated.
        """
        source = data.load(self.source, self.split, data_dir=self.data_dir)
        if self.images not in (None, now := data.describe(source)):
            raise ValueError(
                f"the images of {self.source} {self.split} are not those of the run: it was "
                f"validated on {self.images}, now they are {now}; name them to evaluate on them: "
                f"--source {self.source} --split {self.split}"
            )
        return source


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """A trained network, made of functions. ``Network.of_model`` makes one of a module.

    Attributes:
      name: its name among results: that of a run directory, a file or a function.
      logits_fn: the classifier ``(keys, images) -> logits``, with one typed key per example and
        float images (N, H, W, C) in [0, 1]. Normalisation is part of it. Weights that are leaves of
        a ``jax.tree_util.Partial`` are copied to each device once.
      image_shape: (H, W, C) with H = W.
      class_names: in the order of the logits; empty if they are not known.
      stochastic: True if the logits depend on the keys.
      features: ``(keys, images) -> {layer: array}`` in the order of processing, for physiology;
        None for a network whose layers cannot be seen.
      preprocessing: the method that brings images of a data set to the network's size.
      visual_degrees: the field of view of the images in degrees, for physiology; None for that of
        its V1, or of a VOneNet for images of its size.
      architecture: one of ``models.list_models()``; empty for other networks.
      source: its origin in words; empty for a run.
      origin: its origin as JSON values, part of ``description``.
      validation: the images on which a run was validated.
      notes: what was assumed when it was opened, one line each.
      members: the networks of an ensemble.
      model: its module; None for functions.
      variables: of the module, ``{"params": ..., "batch_stats": ...}``.
      checkpoint_step: the training step of a run's checkpoint.
      run_dir: the directory of a run.
    """

    name: str
    logits_fn: Function = dataclasses.field(repr=False)
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...] = ()
    stochastic: bool = False
    features: Function | None = dataclasses.field(default=None, repr=False)
    preprocessing: Preprocessing = Preprocessing()
    visual_degrees: float | None = None
    architecture: str = ""
    source: str = ""
    origin: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False)
    validation: Split | None = None
    notes: tuple[str, ...] = ()
    members: ClassVar[tuple["Network", ...]] = ()
    model: ClassVar[models.Model | None] = None
    variables: ClassVar[Any] = None
    checkpoint_step: ClassVar[int | None] = None
    run_dir: ClassVar[Path | None] = None
    # The type in which it computes, apart from V1.
    dtype: ClassVar[str] = "float32"
    # The configuration of its V1; None for a network without one.
    v1: ClassVar[VOneBlockConfig | None] = None
    # The noise of its V1, or behind its stem, now and in training; None for none or where it is not
    # known.
    noise: ClassVar[Noise] = None
    trained_noise: ClassVar[Noise] = None

    def __post_init__(self):
        arguments.directory_name("name", self.name)
        if isinstance(self.class_names, str):
            raise ValueError(f"class_names must be a tuple of names, got {self.class_names!r}")
        shape = tuple(map(int, self.image_shape)) if np.ndim(self.image_shape) == 1 else ()
        if len(shape) != 3 or min(shape) < 1 or shape[0] != shape[1]:
            raise ValueError(f"image_shape must be (H, W, C) with H = W, got {self.image_shape!r}")
        if self.visual_degrees is not None:
            arguments.number("visual_degrees", self.visual_degrees, arguments.POSITIVE)
        object.__setattr__(self, "class_names", tuple(self.class_names))
        object.__setattr__(self, "image_shape", shape)

    @staticmethod
    def of_model(
        name: str,
        model: models.Model,
        variables: Any,
        image_size: int | None = None,
        **fields: Any,
    ) -> "Network":
        """A network of ``vone_jax.models``, with further fields.

        Its functions follow from the module and its variables. A tuned bank becomes the fixed bank
        that it has learned, see ``models.with_fixed_bank``. The images have sides of ``image_size``
        pixels; default: those of the module.
        """
        model, variables = models.with_fixed_bank(model, variables)
        size = model.image_size if image_size is None else image_size
        shape = (size, size, model.in_channels)
        return _ModelNetwork(name, shape, model=model, variables=variables, **fields)

    @property
    def label(self) -> str:
        """Its name in tables: that of its architecture, else its own."""
        return models.label(self.architecture) if self.architecture else self.name

    @property
    def image_size(self) -> int:
        """The side of its images in pixels."""
        return self.image_shape[0]

    @property
    def in_channels(self) -> int:
        """The number of channels of its images."""
        return self.image_shape[2]

    @functools.cached_property
    def num_classes(self) -> int:
        """The number of logits."""
        return jax.eval_shape(lambda *inputs: self.logits_fn(*inputs), *self.inputs()).shape[-1]

    @functools.cached_property
    def layers(self) -> tuple[str, ...]:
        """The names of its layers in the order of processing; empty if they cannot be seen."""
        found: list[str] = []
        if (features := self.features) is not None:
            # JAX would sort the names.
            jax.eval_shape(lambda *inputs: found.extend(features(*inputs)), *self.inputs())
        return tuple(found)

    @property
    def description(self) -> dict[str, Any]:
        """What it is apart from its weights, as JSON values: part of a result's identity.

        A module is described with its front end, type and normalisation. Functions are told apart
        by their ``checksum``.
        """
        what: dict[str, Any] = {**self.origin}
        if self.visual_degrees is not None:
            what["visual_degrees"] = self.visual_degrees
        return {**what, "preprocessing": dataclasses.asdict(self.preprocessing)}

    @property
    def checksum(self) -> str:
        """A checksum of its weights; of functions, that of their ``program``."""
        return self._digest()[:8]

    @property
    def program(self) -> dict[str, str] | None:
        """What code of a user computes: a digest, and the JAX and kind of device that wrote it.

        None for networks of this package. The digest is that of the network as it was trained,
        whatever ``with_noise`` has changed, without the weights of a module. Another version of JAX
        or kind of device may write the same program in another way, see ``functions.digest``, so
        that their digests cannot be compared. What Python computes behind ``jax.pure_callback`` is
        not in it. It is computed at each call, since the arrays of a function may be replaced in
        between.
        """
        return written_here(self._digest())

    def _digest(self) -> str:
        made = [self.logits_fn] if self.features is None else [self.logits_fn, self.features]
        # The leaves of a Partial become constants of the program.
        # Whatever precision this process computes with.
        with jax.default_matmul_precision("highest"):
            found = [
                functions.digest(lambda *inputs, f=f: f(*inputs), *self.inputs()) for f in made
            ]
        return files.json_digest(found)

    @property
    def parameters(self) -> int:
        """The number of trained parameters; for functions, of all floating-point constants.

        Those within custom derivatives, and of an artefact, are not counted.
        """
        traced = jax.jit(lambda *inputs: self.logits_fn(*inputs)).trace(*self.inputs())
        arrays = fast.constants(traced)
        return sum(array.size for array in arrays if jnp.issubdtype(array.dtype, jnp.floating))

    def with_noise(self, noise: Noise) -> "Network":
        """The network with other noise in V1, or behind the stem of a base network, or none.

        Other changes of its noise are undone: given the noise of training, see ``models.noise_of``,
        the network is as it was trained. See ``models.with_noise`` for EVNets, which have two
        noises.

        Raises:
          ValueError: for a network whose noise is not known.
        """
        raise ValueError(
            f"the noise of {self.name} cannot be changed, since only its functions are known; "
            "leave test_noise and attack_noise out, or make a network with other noise"
        )

    def quiet(self) -> "Network":
        """The network without noise, or the network itself if its noise is not known."""
        return self

    def with_image_size(self, image_size: int) -> "Network":
        """The network for images of another size in pixels.

        The weights, the strides and the pixels per degree of V1 stay as they are, so the field of
        view grows with the images. A transformer's table of positions is resized, and ``notes`` say
        so.

        Raises:
          ValueError: for a network of functions, or a size that is out of range.
        """
        arguments.count("image_size", image_size, least=8)
        if image_size != self.image_size:
            raise ValueError(
                f"image_size must be left out for {self.name}: its functions are for images of "
                f"{self.image_size} pixels"
            )
        return self

    def placed(self, place: Callable[[Any], Any]) -> "Network":
        """The network with its weights moved by ``place``, a function of a pytree.

        The arrays that a function closes over stay where they are.
        """

        def placed(function: Any) -> Any:
            return place(function) if functions.is_pytree(function) else function

        return dataclasses.replace(
            self, logits_fn=placed(self.logits_fn), features=placed(self.features)
        )

    def response_fn(self, layer: str) -> Partial:
        """The function ``(keys, images) -> responses`` of a layer, a name of ``layers``.

        Raises:
          ValueError: for a network without ``features``, or when it is called, for another name.
        """
        if self.features is None:
            raise ValueError(f"the layers of {self.name} cannot be seen, it has no features")
        return Partial(_Layer(layer), self.features)

    def inputs(self) -> tuple[Any, Any]:
        """The shapes and dtypes of the key and the image with which its functions are called."""
        keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
        return keys, jax.ShapeDtypeStruct((1, *self.image_shape), np.float32)


def written_here(digest: str) -> dict[str, str]:
    """A digest of a program with what wrote it."""
    return {"digest": digest[:16], "jax": jax.__version__, "device": jax.default_backend()}


def _is_ours(value: Any) -> bool:
    """True if a module, with all within its fields, is of classes of the package."""
    if isinstance(value, tuple):
        return all(map(_is_ours, value))
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return True
    return type(value).__module__.startswith("vone_jax.") and all(
        _is_ours(getattr(value, field.name))
        for field in dataclasses.fields(value)
        if not (isinstance(value, nn.Module) and field.name == "parent")
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _ModelNetwork(Network):
    """A network of a module and its variables, from which its functions follow.

    Attributes:
      trained: the module as it was trained, if ``with_noise`` has changed its noise; else None.
    """

    logits_fn: Function = dataclasses.field(init=False, repr=False)
    stochastic: bool = dataclasses.field(init=False)
    features: Function | None = dataclasses.field(init=False, repr=False)
    # Each network has a module and variables.
    model: Any = dataclasses.field(default=None, repr=False)  # pyright: ignore
    variables: Any = dataclasses.field(default=None, repr=False)  # pyright: ignore
    trained: models.Model | None = dataclasses.field(default=None, repr=False)
    checkpoint_step: int | None = None  # pyright: ignore[reportIncompatibleVariableOverride]
    run_dir: Path | None = None  # pyright: ignore[reportIncompatibleVariableOverride]

    def __post_init__(self):
        super().__post_init__()
        set_field = functools.partial(object.__setattr__, self)
        set_field("logits_fn", models.logits_fn(self.model, self.variables))
        set_field("features", models.features_fn(self.model, self.variables))
        set_field("stochastic", models.is_stochastic(self.model))

    @property
    def dtype(self) -> str:
        return jnp.dtype(self.model.dtype).name

    @property
    def v1(self) -> VOneBlockConfig | None:
        return self.model.spec.v1

    @property
    def noise(self) -> Noise:
        return models.noise_of(self.model)

    @property
    def trained_noise(self) -> Noise:
        return models.noise_of(self.trained or self.model)

    @property
    def description(self) -> dict[str, Any]:
        described = describe(self.model.spec) | {"dtype": self.dtype}
        return {**super().description, "model": described}

    @property
    def checksum(self) -> str:
        return files.weights_checksum(jax.tree.leaves(self.variables))

    @property
    def program(self) -> dict[str, str] | None:
        trained = self.trained or self.model
        if _is_ours(trained):
            return None
        with jax.default_matmul_precision("highest"):
            shapes = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), self.variables
            )
            features = models.features_fn(trained, shapes).func
            return written_here(functions.digest(features, shapes, *self.inputs()))

    @property
    def parameters(self) -> int:
        return sum(leaf.size for leaf in jax.tree.leaves(self.variables["params"]))

    def with_noise(self, noise: Noise) -> Network:
        trained = self.trained or self.model
        as_trained = noise == models.noise_of(trained)
        changed = trained if as_trained else models.with_noise(trained, noise)
        if changed == self.model:
            return self
        return dataclasses.replace(
            self, model=changed, trained=None if trained == changed else trained
        )

    def quiet(self) -> Network:
        return self.with_noise(None)

    def with_image_size(self, image_size: int) -> Network:
        arguments.count("image_size", image_size, least=8)
        # What is given is not assumed.
        notes = tuple(note for note in self.notes if not note.startswith(convert.ASSUMED_SIZE))
        if image_size == self.image_size:
            return self if notes == self.notes else dataclasses.replace(self, notes=notes)
        model, variables = models.with_image_size(self.model, self.variables, image_size)
        notes += _resized(self.variables, variables)
        trained, degrees = self.trained, self.visual_degrees
        if trained is not None:
            trained, _ = models.with_image_size(trained, self.variables, image_size)
        return dataclasses.replace(
            self,
            model=model,
            variables=variables,
            trained=trained,
            image_shape=(image_size, image_size, self.in_channels),
            notes=notes,
            visual_degrees=None if degrees is None else degrees * image_size / self.image_size,
        )

    def placed(self, place: Callable[[Any], Any]) -> Network:
        return dataclasses.replace(self, variables=place(self.variables))


def _resized(before: Any, after: Any) -> tuple[str, ...]:
    """A note if arrays of the same names have other shapes."""
    old, new = (dict(jax.tree_util.tree_leaves_with_path(each)) for each in (before, after))
    changed = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path in new
        if np.shape(new[path]) != np.shape(old[path])
    ]
    return (f"resized for images of this size: {', '.join(changed)}",) if changed else ()


def describe(value: Any) -> Any:
    """A module, a configuration, or a value of their fields as JSON values.

    Modules and dataclasses become objects of their fields with their class under ``"type"``, and
    arrays their shape and a checksum.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        hidden = ("parent", "name") if isinstance(value, nn.Module) else ()
        shown = [field.name for field in dataclasses.fields(value) if field.name not in hidden]
        return {"type": type(value).__name__} | {f: describe(getattr(value, f)) for f in shown}
    if isinstance(value, np.ndarray | jax.Array):
        return {"shape": list(value.shape), "checksum": f"{files.array_checksum([value]):08x}"}
    if isinstance(value, tuple | list):
        return [describe(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return value.item() if isinstance(value, np.generic) else np.dtype(value).name


@dataclasses.dataclass(frozen=True)
class _Layer:
    """One of the features; equal for equal layers, so that compiled code is shared."""

    layer: str

    def __call__(self, features: Partial, keys: jax.Array, images: jax.Array) -> jax.Array:
        layers = features(keys, images)
        arguments.choice("layer", self.layer, layers)
        return layers[self.layer]
