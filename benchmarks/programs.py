"""The programs that ``benchmarks.compiled`` compiles, as functions and shapes of arguments."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from vone_jax import attacks, corruptions, models, prng, training, v1
from vone_jax import mesh as meshes
from vone_jax.training.config import load_config
from vone_jax.training.step import initial_state, make_train_step

EPS = 4 / 255
# The body of a loop counts once, so the number of steps hardly matters.
STEPS = 8
ATTACKS: dict[str, attacks.Attack] = {
    "pgd": attacks.PGD("linf", EPS, steps=1, eot_samples=10),
    "pgd-one-draw": attacks.PGD("linf", EPS, steps=1),
    "apgd-ce": attacks.APGD("linf", EPS, steps=STEPS, loss="cross_entropy"),
    "apgd-targeted": attacks.APGD("linf", EPS, steps=STEPS, loss="targeted_dlr"),
    "fab": attacks.FAB("linf", EPS, steps=STEPS, targets=9),
    "square": attacks.Square("linf", EPS, queries=STEPS),
    "fgsm": attacks.FGSM("linf", EPS),
    "mifgsm": attacks.PGD("linf", EPS, steps=STEPS, step_rule="eps/steps", momentum=1.0),
    "deepfool": attacks.DeepFool("l2", EPS, steps=STEPS),
    "cw": attacks.CW("l2", EPS, steps=STEPS),
    "ddn": attacks.DDN("l2", EPS, steps=STEPS),
    "fmn": attacks.FMN("l2", EPS, steps=STEPS),
    "spsa": attacks.SPSA("linf", EPS, steps=STEPS),
    "noise": attacks.RandomNoise("linf", EPS),
}
# "frost" needs photographs that are not in the package.
CORRUPTIONS = tuple(f"corruption {name}" for name in corruptions.NAMES if name != "frost")
NAMES = ("block", "block-surround", "forward", "train", *ATTACKS, *CORRUPTIONS)


@dataclasses.dataclass(frozen=True)
class Program:
    """A function, the shapes of its arguments with their places on a mesh, and its precision."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    precision: str


@dataclasses.dataclass(frozen=True)
class Setting:
    """The devices, the experiment, the images on each chip, and the precision outside of training.

    The training step is that of the experiment as it stands.
    """

    mesh: Mesh
    experiment: training.Experiment
    images: int = 32
    precision: str = "highest"

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of an image."""
        model = self.experiment.build()
        return model.image_size, model.image_size, model.in_channels

    def split(self, shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        """Return an array whose rows, ``images`` on each chip, are split over the chips."""
        rows = self.images * self.mesh.size
        return jax.ShapeDtypeStruct((rows, *shape), dtype, sharding=meshes.sharded(self.mesh))

    def everywhere(self, tree: Any) -> Any:
        """Return the shapes of a tree, on every chip."""
        place = meshes.replicated(self.mesh)
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), tree
        )


def experiment_of(config: str) -> training.Experiment:
    """Return the experiment of a config as train.py names it, such as "imagenet/resnet50".

    What it leaves to the data is that of ImageNet: 1000 classes and three channels.
    """
    experiment = load_config(config, Path("configs"))
    model = experiment.model
    fields = {"num_classes": model.num_classes or 1000, "in_channels": model.in_channels or 3}
    return dataclasses.replace(experiment, model=dataclasses.replace(model, **fields))


def make(name: str, setting: Setting) -> Program:
    """Return a program by its name, one of ``NAMES``."""
    if name == "train":
        return _training(setting)
    pictures = setting.split(setting.shape, jnp.float32)
    keys = setting.split((), jax.random.key(0).dtype)
    precision = setting.precision
    if name.startswith("corruption "):
        return _corruption(name.removeprefix("corruption "), setting, keys, pictures)
    if name.startswith("block"):
        config = models.v1_config(setting.shape[0], setting.shape[2])
        if name == "block-surround":
            # Pools must end within the image. At 224 pixels they are those of the default.
            surround = v1.SurroundNormalization(largest_extent=config.visual_degrees / 8)
            config = dataclasses.replace(config, normalization=surround)
        block = v1.VOneBlock(config)
        respond = lambda keys, images: block.apply({}, images, noise_key=keys)  # noqa: E731
        return Program(respond, (keys, pictures), precision)
    model = setting.experiment.build()
    variables = setting.everywhere(
        jax.eval_shape(lambda key: models.init(model, key), jax.random.key(0))
    )
    if name == "forward":
        run = lambda variables, *batch: models.logits_fn(model, variables)(*batch)  # noqa: E731
        return Program(run, (variables, keys, pictures), precision)

    def attacked(variables: Any, *batch: Any) -> jax.Array:
        logits_fn = models.logits_fn(model, variables)

        def share(keys: Any, images: Any, labels: Any) -> jax.Array:
            return ATTACKS[name].perturb(keys, logits_fn, images, labels)

        # As the evaluation does: each chip attacks its own images.
        return meshes.on_each_device(setting.mesh, share)(*batch)

    labels = setting.split((), jnp.int32)
    return Program(attacked, (variables, keys, pictures, labels), precision)


def _training(setting: Setting) -> Program:
    experiment = setting.experiment
    model = experiment.build()
    state = setting.everywhere(jax.eval_shape(lambda: initial_state(experiment, model)))
    batch = {
        "image": setting.split(setting.shape, jnp.float32),
        "label": setting.split((), jnp.int32),
        "index": setting.split((), jnp.uint32),
    }
    step = make_train_step(model, experiment, 1000, setting.mesh)
    return Program(step, (state, batch), experiment.matmul_precision)


def _corruption(name: str, setting: Setting, keys: Any, pictures: Any) -> Program:
    arrays = setting.everywhere(corruptions.prepare(name, 3, setting.shape, "imagenet"))
    corruption = corruptions.CORRUPTIONS[name]

    def corrupted(keys: Any, images: Any, arrays: Any) -> jax.Array:
        draws = corruption.draw(prng.stream(keys, name), setting.shape, arrays)
        return jnp.clip(corruption.apply(draws, images, arrays), 0.0, 1.0)

    return Program(corrupted, (keys, pictures, arrays), setting.precision)
