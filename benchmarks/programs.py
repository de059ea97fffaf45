"""The programs that ``benchmarks.compiled`` compiles, as functions and shapes of arguments."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from vone_jax import attacks, corruptions, models, prng, training, v1
from vone_jax import mesh as meshes
from vone_jax.training.state import initial_state
from vone_jax.training.step import make_train_step

EPS = 4 / 255
DRAWS = 10
# The body of a loop counts once, so the number of steps hardly matters.
STEPS = 8
ATTACKS: dict[str, attacks.Attack] = {
    "pgd": attacks.PGD("linf", EPS, steps=1, eot_samples=DRAWS),
    "pgd-one-draw": attacks.PGD("linf", EPS, steps=1),
    "apgd-ce": attacks.APGD("linf", EPS, steps=STEPS, loss="cross_entropy"),
    "apgd-restarts": attacks.APGD("linf", EPS, steps=STEPS, loss="cross_entropy", restarts=5),
    "apgd-dlr": attacks.APGD("linf", EPS, steps=STEPS, loss="dlr"),
    "apgd-targeted": attacks.APGD("linf", EPS, steps=STEPS, loss="targeted_dlr"),
    "fab": attacks.FAB("linf", EPS, steps=STEPS, targets=9),
    "square": attacks.Square("linf", EPS, queries=STEPS),
    "fgsm": attacks.FGSM("linf", EPS),
    "mifgsm": attacks.MIFGSM("linf", EPS, steps=STEPS),
    "deepfool": attacks.DeepFool("l2", EPS, steps=STEPS),
    "cw": attacks.CW("l2", EPS, steps=STEPS),
    "ddn": attacks.DDN("l2", EPS, steps=STEPS),
    "fmn": attacks.FMN("l2", EPS, steps=STEPS),
    "spsa": attacks.SPSA("linf", EPS, steps=STEPS),
    "noise": attacks.RandomNoise("linf", EPS),
}
# Options of a training step, as fields of the experiment.
TRAINING: dict[str, dict[str, Any]] = {
    "train": {},
    "train-float32": {"precision": "float32"},
    "train-remat": {"remat": True},
    "train-accumulation": {"accumulation_steps": 4},
    "train-adversarial": {"perturbation": attacks.PGD("linf", EPS, steps=1)},
}


@dataclasses.dataclass(frozen=True)
class Program:
    """A function, the shapes of its arguments with their places on a mesh, and its precision."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    precision: str = "default"


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The devices, the network and the sizes of a program.

    Attributes:
      mesh: the devices.
      network: name of ``models.create``.
      images: number of images per chip.
      precision: precision of matrix products outside of training.
      size: side of the images in pixels.
      width: width of the network; None for the published one.
    """

    mesh: Mesh
    network: str = "vone_resnet50"
    images: int = 32
    precision: str = "highest"
    size: int = 224
    width: int | None = None

    def split(self, shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        """Return an array whose rows, ``images`` on each chip, are split over the chips."""
        total = self.images * self.mesh.size
        sharding = meshes.sharded(self.mesh)
        return jax.ShapeDtypeStruct((total, *shape), dtype, sharding=sharding)

    def everywhere(self, tree: Any) -> Any:
        """Return the shapes of a tree, on every chip."""
        place = meshes.replicated(self.mesh)
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), tree
        )

    @property
    def pictures(self) -> jax.ShapeDtypeStruct:
        """The shape of the images."""
        return self.split((self.size, self.size, 3), jnp.float32)

    @property
    def labels(self) -> jax.ShapeDtypeStruct:
        """The shape of the labels."""
        return self.split((), jnp.int32)

    @property
    def keys(self) -> jax.ShapeDtypeStruct:
        """The shape of the keys, one for each image."""
        return self.split((), jax.random.key(0).dtype)


def names() -> list[str]:
    """Return the names of all programs."""
    # "frost" needs photographs that are not in the package.
    corrupted = [f"corruption {name}" for name in corruptions.NAMES if name != "frost"]
    return ["block", "block-surround", "forward", *TRAINING, *ATTACKS, "recording", *corrupted]


def make(name: str, sizes: Sizes) -> Program:
    """Return a program by its name."""
    if name in TRAINING:
        return _training(sizes, TRAINING[name])
    if name.startswith("corruption "):
        return _corruption(sizes, name.removeprefix("corruption "))
    model = models.create(sizes.network, 1000, sizes.size, width=sizes.width)
    blank, key = jnp.zeros((1, *_shape(sizes))), jax.random.key(0)
    drawn = jax.eval_shape(lambda key: model.init({"params": key, "noise": key}, blank), key)
    variables = sizes.everywhere(drawn)
    classifier = (variables, sizes.keys, sizes.pictures)
    if name in ("block", "block-surround"):
        config = models.v1_config(sizes.size, 3, "vone_resnet50")
        if name == "block-surround":
            # Pools must end within the image. At 224 pixels they are those of the default.
            surround = v1.SurroundNormalization(largest_extent=config.visual_degrees / 4)
            config = dataclasses.replace(config, normalization=surround)
        block = v1.VOneBlock(config)
        respond = lambda keys, images: block.apply({}, images, noise_key=keys)  # noqa: E731
        return Program(respond, classifier[1:], sizes.precision)
    if name in ("forward", "recording"):
        # The physiology suite records this layer; here, of all units.
        layer = "logits" if name == "forward" else "v1"
        run = lambda variables, *batch: models.response_fn(model, variables, layer)(*batch)  # noqa: E731
        return Program(run, classifier, sizes.precision)
    attack = ATTACKS[name]

    def attacked(variables: Any, *batch: Any) -> jax.Array:
        logits_fn = models.logits_fn(model, variables)

        def share(keys: Any, images: Any, labels: Any) -> jax.Array:
            return attack.perturb(keys, logits_fn, images, labels)

        # As the evaluation does: each chip attacks its own images.
        return meshes.on_each_device(sizes.mesh, share)(*batch)

    return Program(attacked, (*classifier, sizes.labels), sizes.precision)


def _shape(sizes: Sizes) -> tuple[int, int, int]:
    return sizes.size, sizes.size, 3


def _training(sizes: Sizes, options: dict[str, Any]) -> Program:
    experiment = training.Experiment(
        name="compiled",
        model=training.ModelConfig(sizes.network, 1000, sizes.size, width=sizes.width),
        data=training.DataConfig("imagenet"),
        precision="bfloat16",
        matmul_precision="default",
    )
    experiment = dataclasses.replace(experiment, **options)
    model = experiment.build()
    state = sizes.everywhere(jax.eval_shape(lambda: initial_state(experiment, model)))
    batch = {
        "image": sizes.pictures,
        "label": sizes.labels,
        "index": sizes.split((), jnp.uint32),
    }
    return Program(make_train_step(model, experiment, 1000, sizes.mesh), (state, batch))


def _corruption(sizes: Sizes, name: str) -> Program:
    shape = _shape(sizes)
    arrays = sizes.everywhere(corruptions.prepare(name, 3, shape, "imagenet"))
    corruption = corruptions.CORRUPTIONS[name]

    def corrupted(keys: Any, images: Any, arrays: Any) -> jax.Array:
        draws = corruption.draw(prng.stream(keys, name), shape, arrays)
        return jnp.clip(corruption.apply(draws, images, arrays), 0.0, 1.0)

    return Program(corrupted, (sizes.keys, sizes.pictures, arrays), sizes.precision)
