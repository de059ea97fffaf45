"""The ``Network`` class: a trained network of any origin, for evaluation and sweeps."""

import dataclasses
import functools
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from vone_jax import arguments, files, models, prng, v1
from vone_jax.data import Preprocessing
from vone_jax.models import VOneNet
from vone_jax.v1 import Noise


@dataclasses.dataclass(frozen=True)
class Split:
    """A split of a data set, with the arguments of ``data.load``."""

    source: str
    split: str
    data_dir: str | None = None
    # A hash of the names of files in a folder, or a TFDS set with its version; None for other data.
    # Runs of earlier versions do not record it, so it is not compared.
    names_digest: str | None = dataclasses.field(default=None, compare=False)


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """A trained network of any origin. It prints without its functions and weights.

    Attributes:
      name: its name among results: that of a run directory, a file or a function.
      logits_fn: the classifier ``(keys, images) -> logits``, with one typed key per example and
        float images (N, H, W, C) in [0, 1]. Normalisation is part of it. Weights that are leaves of
        a ``jax.tree_util.Partial`` are copied to each device once; weights that a function closes
        over become part of every compiled program.
      image_shape: (H, W, C) with H = W.
      class_names: in the order of the logits; empty if they are not known.
      stochastic: True if the logits depend on the keys.
      features: ``(keys, images) -> {layer: array}`` in the order of processing, for physiology;
        None for a network whose layers cannot be seen.
      preprocessing: the method that brings images of a data set to the network's size.
      model: its module, for networks of ``vone_jax.models``; else None. Only such a network can get
        other noise. Its functions are those of the module, so functions of one's own need None.
      variables: of the module, ``{"params": ..., "batch_stats": ...}``.
      architecture: one of ``models.NAMES``; empty for other networks.
      source: its origin in words; empty for a run.
      config: its description as JSON values; for a run, the experiment.
      checkpoint_step: the training step of a run's checkpoint.
      run_dir: the directory of a run.
      validation: the images on which a run was validated.
      notes: what was assumed when it was opened, one line each.
      assumed: fields of V1, or of a base network, whose values its file does not state.
      trained: the module as it was trained, if ``with_noise`` has changed its noise; else None.
      members: the networks of an ensemble.

    Raises:
      ValueError: for a name that cannot name a directory, an image shape that is not (H, H, C),
        class names in one text, functions or noise that are not those of the model, or a run
        directory without a model.
    """

    name: str
    logits_fn: Callable[[jax.Array, jax.Array], jax.Array] = dataclasses.field(repr=False)
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...] = ()
    stochastic: bool = False
    features: Callable[[jax.Array, jax.Array], Mapping[str, jax.Array]] | None = dataclasses.field(
        default=None, repr=False
    )
    preprocessing: Preprocessing = Preprocessing()
    model: models.Model | None = dataclasses.field(default=None, repr=False)
    variables: Any = dataclasses.field(default=None, repr=False)
    architecture: str = ""
    source: str = ""
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False)
    checkpoint_step: int | None = None
    run_dir: Path | None = None
    validation: Split | None = None
    notes: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    trained: models.Model | None = dataclasses.field(default=None, repr=False)
    members: tuple["Network", ...] = ()

    def __post_init__(self):
        given: Any = self.image_shape if np.ndim(self.image_shape) == 1 else ()
        shape = tuple(side.item() if isinstance(side, np.integer) else side for side in given)
        if isinstance(self.class_names, str):
            raise ValueError(f"class_names must be a tuple of names, got {self.class_names!r}")
        object.__setattr__(self, "class_names", tuple(self.class_names))
        arguments.directory_name("name", self.name)
        whole = all(isinstance(side, int) and side > 0 for side in shape)
        if len(shape) != 3 or not whole or shape[0] != shape[1]:
            raise ValueError(f"image_shape must be (H, W, C) with H = W, got {self.image_shape!r}")
        object.__setattr__(self, "image_shape", shape)
        if self.model is None:
            if self.run_dir is not None:
                raise ValueError(
                    f"run_dir must be None for functions of your own, got {self.run_dir}, which "
                    "has the results of another network; make a new Network"
                )
            return
        if self.stochastic != (noisy := models.is_stochastic(self.model)):
            raise ValueError(
                f"stochastic must be {noisy}, as the model of {self.name} is, got "
                f"{self.stochastic}; Network.of_model takes it from the model"
            )
        for field, make in (("logits_fn", models.logits_fn), ("features", models.features_fn)):
            given: Any = getattr(self, field)
            own = make(self.model, self.variables)
            made = isinstance(given, Partial) and given.func == own.func
            if given is not None and not (made and given.args[0] is self.variables):
                raise ValueError(
                    f"{field} must be that of the model and variables of {self.name}; make a new "
                    "Network of a function of your own, and use Network.of_model for other "
                    "variables"
                )

    @classmethod
    def of_model(
        cls,
        name: str,
        model: models.Model,
        variables: Any,
        image_size: int | None = None,
        **fields: Any,
    ) -> "Network":
        """A network of ``vone_jax.models``, with further fields.

        A tuned bank becomes the fixed bank that it has learned, see ``models.with_fixed_bank``. The
        images have sides of ``image_size`` pixels; default: those of the module.
        """
        model, variables = models.with_fixed_bank(model, variables)
        size = model.image_size if image_size is None else image_size
        return cls(
            name=name,
            logits_fn=models.logits_fn(model, variables),
            image_shape=(size, size, model.in_channels),
            stochastic=models.is_stochastic(model),
            features=models.features_fn(model, variables),
            model=model,
            variables=variables,
            **fields,
        )

    @property
    def image_size(self) -> int:
        """The side of its images in pixels."""
        return self.image_shape[0]

    @property
    def v1(self) -> v1.VOneBlockConfig | None:
        """The configuration of its V1; None for a network without one."""
        return self.model.v1 if isinstance(self.model, VOneNet) else None

    @property
    def noise(self) -> Noise:
        """The noise of its V1, or behind its stem; None for none or where it is not known."""
        return None if self.model is None else models.noise_of(self.model)

    @functools.cached_property
    def num_classes(self) -> int:
        """The number of logits."""
        logits_fn = prng.as_pytree(self.logits_fn)
        logits = jax.eval_shape(lambda call, *inputs: call(*inputs), logits_fn, *self._inputs())
        return logits.shape[-1]

    def with_noise(self, noise: Noise) -> "Network":
        """The network with other noise in V1, or behind the stem of a base network, or none.

        Other changes of its noise are undone: given the noise of training, see ``models.noise_of``,
        the network is as it was trained. See ``models.with_noise`` for EVNets, which have two
        noises.

        Raises:
          ValueError: for a network whose noise is not known.
        """
        if self.model is None:
            raise ValueError(
                f"the noise of {self.name} cannot be changed, since only its functions are known; "
                "leave test_noise and attack_noise out, or make a network with other noise"
            )
        trained = self.model if self.trained is None else self.trained
        as_trained = noise == models.noise_of(trained)
        changed = trained if as_trained else models.with_noise(trained, noise)
        if changed == self.model:
            return self
        trained = None if trained == changed else trained
        return dataclasses.replace(self._of(changed, self.variables), trained=trained)

    def quiet(self) -> "Network":
        """The network without noise, or the network itself if its noise is not known."""
        return self if self.model is None else self.with_noise(None)

    def placed(self, place: Callable[[Any], Any]) -> "Network":
        """The network with its weights moved by ``place``, a function of a pytree."""
        if self.model is not None:
            return self._of(self.model, place(self.variables))
        logits_fn, features = place(prng.as_pytree(self.logits_fn)), self.features
        if features is not None:
            features = place(prng.as_pytree(features, "features"))
        return dataclasses.replace(self, logits_fn=logits_fn, features=features)

    def _of(self, model: models.Model, variables: Any) -> "Network":
        """The network with another module or other variables, and the functions of both."""
        made = Network.of_model(self.name, model, variables, self.image_size)
        names = ("model", "variables", "logits_fn", "features", "stochastic")
        return dataclasses.replace(self, **{name: getattr(made, name) for name in names})

    def response_fn(self, layer: str) -> Partial:
        """The function ``(keys, images) -> responses`` of a layer of ``features``.

        Raises:
          ValueError: for a network without ``features``.
        """
        if self.features is None:
            raise ValueError(f"the layers of {self.name} cannot be seen, it has no features")
        return Partial(_Layer(layer), prng.as_pytree(self.features, "features"))

    @property
    def weights(self) -> str:
        """A checksum of all weights. It differs for a network that is trained anew.

        For a network of functions, it also covers the traced programs of ``logits_fn`` and
        ``features``, but not what Python computes behind ``jax.pure_callback``.
        """
        return self._checksum_and_floats()[0]

    def _checksum_and_floats(self) -> tuple[str, int]:
        """``weights``, and the number of floating-point constants in ``logits_fn``; 0 for a model.

        The programs of functions are traced once for both, and again where the functions close over
        other arrays than before.
        """
        version = [jax.tree.structure(prng.as_pytree(self.logits_fn))]
        if self.features is not None:
            version.append(jax.tree.structure(prng.as_pytree(self.features, "features")))
        if vars(self).get("_version") == version:
            return vars(self)["_known"]
        floats = 0
        if self.model is not None:
            checksum = files.array_checksum(jax.tree.leaves(self.variables))
        else:
            programs = [
                _traced(function, *self._inputs())
                for function in (self.logits_fn, self.features)
                if function is not None
            ]
            checksum = 0
            for program in programs:
                checksum = files.array_checksum(_constants(program), checksum)
            for program in programs:
                # Addresses of functions differ between processes.
                text = re.sub(r"0x[0-9a-f]+", "", str(program))
                checksum = zlib.crc32(text.encode(), checksum)
            # The leaves of a Partial are constants of its program, too.
            constants = map(np.asarray, _constants(programs[0]))
            floats = sum(a.size for a in constants if jnp.issubdtype(a.dtype, jnp.floating))
        vars(self).update(_version=version, _known=(f"{checksum:08x}", floats))
        return vars(self)["_known"]

    @functools.cached_property
    def variables_checksum(self) -> str:
        """A checksum of the weights without any program, so that no version of JAX changes it.

        For functions, it covers only arrays that are leaves of a pytree, as those of ensembles are.
        It is empty if there are none.
        """
        leaves = jax.tree.leaves(prng.as_pytree(self.logits_fn))
        return f"{files.array_checksum(leaves):08x}" if leaves else ""

    @functools.cached_property
    def parameters(self) -> int:
        """The number of trained parameters; for functions, of all floating-point constants.

        It is 0 for an artefact, whose program does not show its constants.
        """
        if self.members:
            return sum(member.parameters for member in self.members)
        if self.model is not None:
            return sum(leaf.size for leaf in jax.tree.leaves(self.variables["params"]))
        return self._checksum_and_floats()[1]

    def _inputs(self) -> tuple[Any, Any]:
        keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
        return keys, jax.ShapeDtypeStruct((1, *self.image_shape), np.float32)


@dataclasses.dataclass(frozen=True)
class _Layer:
    """One of the features; equal for equal layers, so that compiled code is shared."""

    layer: str

    def __call__(self, features: Partial, keys: jax.Array, images: jax.Array) -> jax.Array:
        layers = features(keys, images)
        arguments.choice("layer", self.layer, layers)
        return layers[self.layer]


def _traced(function: Callable[..., Any], *inputs: Any) -> Any:
    """The program of a function now; JAX would give a known function its first program."""
    return jax.make_jaxpr(lambda *inputs: function(*inputs))(*inputs)


def _constants(program: Any) -> Iterator[Any]:
    """The arrays that a traced function closes over, also those in functions that it calls.

    An exported program holds its weights as text, so its serialised bytes stand for them.
    """
    yield from getattr(program, "consts", ())
    for equation in getattr(program, "jaxpr", program).eqns:
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_program):
            if _is_program(value):
                yield from _constants(value)
            elif isinstance(value, jax.export.Exported):
                yield np.frombuffer(value.mlir_module_serialized, np.uint8)


def _is_program(value: Any) -> bool:
    return hasattr(getattr(value, "jaxpr", value), "eqns")
