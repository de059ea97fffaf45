"""What an experiment is: a tree of frozen dataclasses that says everything a run depends on.

An experiment prints as code, goes through JSON unchanged and is checked when it is built, so a
mistake shows before anything is computed. Lengths of time are in epochs unless a name says
otherwise; one epoch is ``steps_per_epoch`` steps, see ``data.train_batches``.
"""

import dataclasses
import json
from typing import Any, Literal

from vone_jax import corruptions, data, models
from vone_jax.training import codec
from vone_jax.training.checks import check_at_least, check_choice, check_number, check_span
from vone_jax.training.perturbation import Perturbation
from vone_jax.training.schedules import Constant, Cosine, OneCycle, Plateau, Step
from vone_jax.training.similarity import Similarity
from vone_jax.v1 import GaussianNoise, NeuronalNoise, VOneBlockConfig

Precision = Literal["float32", "bfloat16"]
MatmulPrecision = Literal["default", "high", "highest"]
DecayedParameters = Literal["all", "kernels"]
Unreadable = Literal["raise", "skip"]
NonFinite = Literal["stop", "skip"]


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network, see ``models.create``."""

    # One of models.NAMES.
    name: str
    # Number of logits; None takes the number of classes of the data.
    num_classes: int | None = None
    # Side of the images in pixels.
    image_size: int = 224
    # 3 for RGB, 1 for grey.
    in_channels: int = 3
    # Channels behind the stem; the published networks have 64.
    width: int = 64
    # The front end of a VOneNet. None takes models.v1_config for the image size and writes it
    # here, so that a stored experiment does not depend on defaults.
    v1: VOneBlockConfig | None = None
    # Noise behind the stem of a base network: the control of noise without V1.
    stem_noise: NeuronalNoise | GaussianNoise | None = None
    # Multiplies the stem's output before that noise.
    stem_gain: float = 1.0
    # Normalisation of images in a base network, one number per channel; None takes the default of
    # models.create. VOneNets have v1.image_mean and v1.image_std.
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self):
        if self.num_classes is not None:
            check_at_least("num_classes", self.num_classes, 1)
        check_at_least("image_size", self.image_size, 8)
        check_at_least("in_channels", self.in_channels, 1)
        if self.v1 is None and self.name in models.NAMES and self.name.startswith("vone_"):
            object.__setattr__(self, "v1", models.v1_config(self.image_size, self.in_channels))
        # Building is cheap and checks the rest: the name, the width, and v1 against both.
        models.create(
            self.name,
            1,
            self.image_size,
            self.in_channels,
            v1=self.v1,
            width=self.width,
            stem_noise=self.stem_noise,
            stem_gain=self.stem_gain,
            mean=self.mean,
            std=self.std,
        )


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The images."""

    # A name that data.load knows: "fashion_mnist_small", "tfds:<name>" or "folder:<path>".
    source: str
    # Trained on.
    train_split: str = "train"
    # Validated on while training.
    eval_split: str = "test"
    # Where TFDS keeps its prepared sets; None is the default of TFDS.
    data_dir: str | None = None
    # Global, over all devices and processes.
    batch_size: int = 128
    # The same, in validation; it decides memory and speed, never a number.
    eval_batch_size: int = 256
    # Random transforms of training images.
    augment: data.Augment = data.Augment()
    # Share of the shorter side that is kept where an image is resized without a random crop;
    # None: 0.875 for photographs at 112 pixels or more, else 1.
    center_crop: float | None = None
    # Processes that decode and augment; 0 does it in threads of this one.
    workers: int = 0
    # Batches that are put on the devices before their step: 0 loads one when the step before has
    # ended, 1 while it runs, and more make up for batches that come unevenly.
    prefetch: int = 1
    # A training image that cannot be read ends the run ("raise"), or gives its place to the next
    # one in the set ("skip"), is named in a warning and counted in the log. So does a worker that
    # dies end the run, or is started again, in training and in validation.
    unreadable: Unreadable = "raise"
    # Images that may be skipped over the whole run, each epoch counted; one more ends it.
    unreadable_limit: int = 100
    # Common corruptions that training images get after the augmentation, see
    # corruptions.NAMES. Each step draws one of them and one severity for the whole batch.
    corruptions: tuple[str, ...] = ()
    # The lowest and the highest severity.
    corruption_severity: tuple[int, int] = (1, 3)
    # Of each image of a batch to be corrupted; the others stay as they are.
    corruption_probability: float = 0.5

    def __post_init__(self):
        check_at_least("batch_size", self.batch_size, 1)
        check_at_least("eval_batch_size", self.eval_batch_size, 1)
        check_at_least("workers", self.workers, 0)
        check_at_least("prefetch", self.prefetch, 0)
        check_choice("unreadable", self.unreadable, Unreadable)
        check_at_least("unreadable_limit", self.unreadable_limit, 0)
        for name in self.corruptions:
            # Frost needs photographs that are not the project's to give.
            known = [name for name in corruptions.NAMES if name != "frost"]
            if name not in known:
                raise ValueError(
                    f"corruptions must be among {', '.join(known)}, got {name!r}"
                    + codec.nearest(str(name), known)
                )
        check_span("corruption_severity", self.corruption_severity, corruptions.SEVERITIES)
        check_number("corruption_probability", self.corruption_probability, most=1.0)
        if self.center_crop is not None and not 0 < self.center_crop <= 1:
            raise ValueError(f"center_crop must be in (0, 1] or None, got {self.center_crop!r}")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Stochastic gradient descent in PyTorch's form, see ``optimizer.make_optimizer``."""

    # The base rate, which the schedule multiplies.
    learning_rate: float = 0.1
    # How the rate moves over the run.
    schedule: Constant | Step | Cosine | OneCycle | Plateau = Constant()
    # Epochs in which a linear rise from 0 to 1 multiplies the rate of the schedule.
    warmup_epochs: float = 0.0
    # Share of the last step's direction that is kept, in [0, 1).
    momentum: float = 0.9
    # Look ahead along the momentum (Nesterov's form).
    nesterov: bool = False
    # Times the parameters, added to the gradient before momentum (coupled, as in PyTorch).
    weight_decay: float = 1e-4
    # "all" trained parameters, or "kernels": none of batch norm's and no biases.
    decayed: DecayedParameters = "all"
    # Share of the target distribution that is spread evenly over the classes.
    label_smoothing: float = 0.0
    # Longest gradient over all parameters (Euclidean norm); None does not clip.
    gradient_clip: float | None = None

    def __post_init__(self):
        check_number("learning_rate", self.learning_rate, positive=True)
        check_number("warmup_epochs", self.warmup_epochs)
        check_number("momentum", self.momentum, most=1.0, below=True)
        check_number("weight_decay", self.weight_decay)
        check_choice("decayed", self.decayed, DecayedParameters)
        check_number("label_smoothing", self.label_smoothing, most=1.0, below=True)
        if self.gradient_clip is not None:
            check_number("gradient_clip", self.gradient_clip, positive=True)
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs momentum > 0, got momentum 0")
        if self.warmup_epochs and isinstance(self.schedule, OneCycle):
            raise ValueError("warmup_epochs must be 0 with OneCycle, which has its own warm-up")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One training run, to the last number."""

    # Of the experiment, and by default of its run directory.
    name: str
    # The network.
    model: ModelConfig
    # The images.
    data: DataConfig
    # Stochastic gradient descent.
    optimizer: OptimizerConfig = OptimizerConfig()
    # The length of the run.
    epochs: float = 1.0
    # The length in steps; if given, epochs says nothing.
    steps: int | None = None
    # What the network is trained on in the place of its images: those of an attack on the network
    # as it is (adversarial training), or noisy ones. Batch norm uses its running values in the
    # attack.
    perturbation: Perturbation = None
    # Draws the similarities of images in the network to those of neurons, V1 or pixels.
    similarity: Similarity | None = None
    # Root of all randomness: initialisation, order, augmentation, noise, dropout.
    seed: int = 0
    # In which the layers behind V1 compute; parameters, batch statistics, V1 and the loss are
    # float32 either way.
    precision: Precision = "float32"
    # Of float32 matrix products and convolutions on GPU and TPU; a CPU always has the highest.
    matmul_precision: MatmulPrecision = "highest"
    # Parts of each batch whose gradients are computed one after another, with the memory of one.
    # Batch norm then sees one part at a time.
    accumulation_steps: int = 1
    # Keep only the results of convolutions and matrix products of the forward pass and compute
    # the rest again in the backward pass: less memory, more time, the same result.
    remat: bool = False
    # Directory in which compiled programs are kept, so that the next start does not wait for the
    # compiler; None keeps none.
    compilation_cache: str | None = None
    # A step whose loss, gradient or result is NaN or infinite is never taken. It ends the run
    # ("stop"), or is passed over and counted in the log ("skip").
    non_finite: NonFinite = "stop"
    # Steps that may be passed over in the whole run; one more ends it.
    non_finite_limit: int = 10
    # Validation, at these intervals and at the end.
    evaluate_every: float = 1.0
    # Checkpoints, at these intervals and at the end.
    checkpoint_every: float = 1.0
    # Checkpoints that are kept. With one alone there is none to go back to if it is damaged.
    keep_checkpoints: int = 2
    # A line in the log every so many steps.
    log_every: int = 50

    def __post_init__(self):
        if not self.name or "/" in self.name or self.name.startswith("."):
            raise ValueError(f"name must be usable as the name of a directory, got {self.name!r}")
        check_number("epochs", self.epochs, positive=True)
        if self.steps is not None:
            check_at_least("steps", self.steps, 1)
        check_at_least("seed", self.seed, 0)
        if self.seed >= 2**32:
            raise ValueError(f"seed must be < 2**32, got {self.seed}")
        check_choice("precision", self.precision, Precision)
        check_choice("matmul_precision", self.matmul_precision, MatmulPrecision)
        check_at_least("accumulation_steps", self.accumulation_steps, 1)
        if self.data.batch_size % self.accumulation_steps:
            raise ValueError(
                f"accumulation_steps must divide data.batch_size, {self.data.batch_size}, got "
                f"{self.accumulation_steps}"
            )
        check_choice("non_finite", self.non_finite, NonFinite)
        check_at_least("non_finite_limit", self.non_finite_limit, 0)
        check_number("evaluate_every", self.evaluate_every, positive=True)
        check_number("checkpoint_every", self.checkpoint_every, positive=True)
        check_at_least("keep_checkpoints", self.keep_checkpoints, 1)
        check_at_least("log_every", self.log_every, 1)

    def total_steps(self, steps_per_epoch: int) -> int:
        """Number of optimiser steps of the whole run, at least 1."""
        if self.steps is not None:
            return self.steps
        return max(1, round(self.epochs * steps_per_epoch))


def to_json(experiment: Experiment) -> dict[str, Any]:
    """The experiment as a tree of JSON values; ``from_json`` gives it back, equal."""
    return codec.encode(experiment)


def from_json(data: Any) -> Experiment:
    """The experiment of ``to_json``.

    Raises:
      ValueError: naming an unknown field (and the nearest known one), a missing or a mistyped one.
    """
    if not isinstance(data, dict):
        raise ValueError(f"experiment must be a JSON object, got {data!r}")
    return codec.decode(Experiment, data, "experiment")


# Fields that decide how a run gets on but no number in it, except by rounding: it may go on with
# others.
_OPERATION = (
    "checkpoint_every",
    "compilation_cache",
    "keep_checkpoints",
    "non_finite",
    "non_finite_limit",
    "remat",
    "data.data_dir",
    "data.eval_batch_size",
    "data.prefetch",
    "data.unreadable",
    "data.unreadable_limit",
    "data.workers",
)


def differences(ours: Experiment, theirs: Experiment) -> list[str]:
    """The fields in which two experiments differ, as ``"optimizer.momentum: 0.9 is not 0.8"``.

    Those that change no number of a run are passed over: where the data lie, the number of
    workers, when checkpoints are written, what happens on errors.
    """
    flat_ours, flat_theirs = _flatten(to_json(ours)), _flatten(to_json(theirs))
    return [
        f"{name}: {_show(flat_ours, name)} is not {_show(flat_theirs, name)}"
        for name in sorted(flat_ours.keys() | flat_theirs.keys())
        # As values, since 3 and 3.0 epochs are the same.
        if name not in _OPERATION and flat_ours.get(name, _ABSENT) != flat_theirs.get(name, _ABSENT)
    ]


_ABSENT = object()


def _flatten(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {path: value}
    flat = {}
    for name, item in value.items():
        flat |= _flatten(item, f"{path}.{name}" if path else name)
    return flat


def _show(flat: dict[str, Any], name: str) -> str:
    return json.dumps(flat[name]) if name in flat else "absent"
