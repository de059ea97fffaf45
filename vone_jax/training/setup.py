"""From an experiment to the parts of a run: data, network, compiled functions, fence posts."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vone_jax import data, models
from vone_jax import mesh as meshes
from vone_jax.training.augmentation import make_augmentation
from vone_jax.training.codec import nearest
from vone_jax.training.experiment import Experiment, ModelConfig
from vone_jax.training.optimizer import learning_rate, make_optimizer
from vone_jax.training.similarity_targets import make_targets
from vone_jax.training.state import TrainState, create_state
from vone_jax.training.step import MARKS, StepMetrics, make_eval_step, make_train_step

_FIELDS_ON_DEVICE = ("image", "label", "index", "mask", *MARKS)
# The state counts its steps in an int32.
_MOST_STEPS = 2**31 - 1


def build_model(config: ModelConfig, precision: str = "float32") -> nn.Module:
    """The network of an experiment.

    Raises:
      ValueError: if the number of classes is open.
    """
    if config.num_classes is None:
        raise ValueError("model.num_classes must be given where there are no data to take it from")
    return models.create(
        config.name,
        config.num_classes,
        config.image_size,
        config.in_channels,
        v1=config.v1,
        width=config.width,
        stem_noise=config.stem_noise,
        stem_gain=config.stem_gain,
        mean=config.mean,
        std=config.std,
        dtype=jnp.bfloat16 if precision == "bfloat16" else jnp.float32,
    )


def initial_state(experiment: Experiment, model: nn.Module) -> TrainState:
    """The state at step 0; under ``jax.eval_shape``, its shapes."""
    size, channels = experiment.model.image_size, experiment.model.in_channels
    optimizer = make_optimizer(experiment.optimizer)
    compared = 0 if experiment.similarity is None else len(experiment.similarity.layers)
    return create_state(model, optimizer, experiment.seed, (size, size, channels), compared)


@dataclasses.dataclass(frozen=True)
class Setup:
    """The parts of a run.

    Attributes:
      experiment: with the number of classes filled in.
      mesh: that it runs on.
      model: the network.
      parameters: number of trained parameters.
      train_source: images to train on.
      eval_source: images to validate on.
      steps_per_epoch: full batches in an epoch.
      total_steps: of the run.
      train_step: see ``make_train_step``.
      eval_step: see ``make_eval_step``.
    """

    experiment: Experiment
    mesh: meshes.Mesh
    model: nn.Module
    parameters: int
    train_source: data.Source
    eval_source: data.Source
    steps_per_epoch: int
    total_steps: int
    train_step: Callable[[TrainState, Any], tuple[TrainState, StepMetrics]]
    eval_step: Callable[[Any, Any], Any]

    def initial_state(self) -> TrainState:
        """The state at step 0, on every device."""
        make = jax.jit(
            lambda: initial_state(self.experiment, self.model),
            out_shardings=meshes.replicated(self.mesh),
            # Runs once, and optimising its many random draws takes longer than all the rest.
            compiler_options={"xla_backend_optimization_level": 0},
        )
        return make()

    def train_batches(self) -> data.Batches:
        """Training batches without end; this process's part."""
        config = self.experiment.data
        return data.train_batches(
            self.train_source,
            batch_size=config.batch_size,
            seed=self.experiment.seed,
            augment=config.augment,
            unreadable=config.unreadable,
            **self._reading(),
        )

    def eval_batches(self) -> data.Batches:
        """The validation split once, padded and masked; this process's part.

        Workers that die are started again as in training. No image may be left out: the results
        of one validation would be of other images than those of the next.
        """
        config = self.experiment.data
        return data.eval_batches(
            self.eval_source,
            batch_size=config.eval_batch_size,
            restart_workers=config.unreadable == "skip",
            **self._reading(),
        )

    def shard(self, batch: dict[str, Any]) -> dict[str, jax.Array]:
        """This process's part of a batch of the host, on the devices."""
        fields = {name: batch[name] for name in _FIELDS_ON_DEVICE if name in batch}
        return meshes.shard_batch(self.mesh, fields)

    def mark(self, batch: dict[str, jax.Array], stop: bool) -> dict[str, jax.Array]:
        """A placed batch that tells the other processes whether this one was asked to stop."""
        if jax.process_count() == 1:
            return batch
        rows = np.full(len(batch["label"]) // jax.process_count(), stop)
        return batch | {"stop": meshes.shard_batch(self.mesh, rows)}

    def validate(self, state: TrainState, stop: Callable[[], bool]) -> dict[str, float] | None:
        """Mean ``loss`` and ``accuracy`` over the validation split, and ``seen``, its size.

        Args:
          state: at any step.
          stop: asked before each batch; once it says True, the result is None.
        """
        sums = []
        batches = self.eval_batches()
        try:
            for batch in batches:
                if meshes.any_process(stop()):
                    return None
                sums.append(self.eval_step(state.variables, self.shard(batch)))
        except ChildProcessError:
            # A signal to all processes also ends workers that have not begun, see data/worker.py.
            if jax.process_count() > 1 or not stop():
                raise
            return None
        finally:
            batches.close()
        host = meshes.fetch(sums)
        seen = sum(int(s.seen) for s in host)
        if seen != len(self.eval_source):
            raise RuntimeError(
                f"validation has seen {seen} of {len(self.eval_source)} examples: the mask of the "
                "batches is wrong"
            )
        return {
            "loss": sum(float(s.loss) for s in host) / seen,
            "accuracy": sum(int(s.correct) for s in host) / seen,
            "seen": seen,
        }

    def validates_at(self, step: int) -> bool:
        """Whether the run is validated at a step before the last."""
        return self._every(self.experiment.evaluate_every, step)

    def saves_at(self, step: int) -> bool:
        """Whether there is a checkpoint at a step before the last."""
        return self._every(self.experiment.checkpoint_every, step)

    def _every(self, epochs: float, step: int) -> bool:
        interval = min(epochs * self.steps_per_epoch, self.total_steps)
        return step > 0 and step % max(1, round(interval)) == 0

    def _reading(self) -> dict[str, Any]:
        return {
            "image_size": self.experiment.model.image_size,
            "center_crop": self.experiment.data.center_crop,
            "workers": self.experiment.data.workers,
            "process_index": jax.process_index(),
            "process_count": jax.process_count(),
        }


def prepare(experiment: Experiment, mesh: meshes.Mesh) -> Setup:
    """Opens the data and builds everything; compiles and computes nothing.

    Raises:
      ValueError: if the data, the network and the mesh do not fit each other.
    """
    config = experiment.data
    part_size = config.batch_size // experiment.accumulation_steps
    meshes.check_batch_size(mesh, part_size, "data.batch_size / accumulation_steps")
    meshes.check_batch_size(mesh, config.eval_batch_size, "data.eval_batch_size")
    train_source = data.load(config.source, config.train_split, data_dir=config.data_dir)
    eval_source = data.load(config.source, config.eval_split, data_dir=config.data_dir)
    experiment = _fit(experiment, train_source, eval_source)
    model = build_model(experiment.model, experiment.precision)
    steps_per_epoch = data.batches_per_epoch(train_source, config.batch_size)
    total_steps = experiment.total_steps(steps_per_epoch)
    if total_steps > _MOST_STEPS:
        raise ValueError(f"steps must be at most {_MOST_STEPS}, got {total_steps} (or by epochs)")
    shapes = jax.eval_shape(lambda: initial_state(experiment, model))
    return Setup(
        experiment=experiment,
        mesh=mesh,
        model=model,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(shapes.params)),
        train_source=train_source,
        eval_source=eval_source,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        train_step=make_train_step(
            model,
            make_optimizer(experiment.optimizer),
            learning_rate(experiment.optimizer, steps_per_epoch, total_steps),
            seed=experiment.seed,
            label_smoothing=experiment.optimizer.label_smoothing,
            mesh=mesh,
            augment=make_augmentation(
                config.corruptions, config.corruption_severity, config.corruption_probability
            ),
            accumulation_steps=experiment.accumulation_steps,
            remat=experiment.remat,
            perturbation=experiment.perturbation,
            similarity=experiment.similarity,
            targets=_targets(experiment, model, mesh),
        ),
        eval_step=make_eval_step(model, seed=experiment.seed, mesh=mesh),
    )


def _targets(experiment: Experiment, model: nn.Module, mesh: meshes.Mesh) -> Any:
    """Images and similarities of the regularisation, on every device; None without it."""
    config = experiment.similarity
    if config is None:
        return None
    meshes.check_batch_size(mesh, config.batch, "similarity.batch")
    size, channels = experiment.model.image_size, experiment.model.in_channels
    image = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
    key = jax.random.key(0)
    layers = jax.eval_shape(
        lambda x: model.init_with_output(
            {"params": key, "noise": key}, x, noise_key=key, method="features"
        )[0],
        image,
    )
    for layer in config.layers:
        if layer not in layers:
            raise ValueError(
                f"similarity.layers must be among {', '.join(layers)}; got {layer!r}"
                + nearest(layer, layers)
            )
    targets = make_targets(
        config,
        experiment.data.source,
        experiment.data.data_dir,
        size,
        channels,
        experiment.seed,
    )
    return meshes.replicate(mesh, {"images": targets.images, "similarity": targets.similarity})


def _fit(experiment: Experiment, *sources: data.Source) -> Experiment:
    """The experiment with the number of classes of its data."""
    model = experiment.model
    for source in sources:
        where = f"the images of {source.name!r} {source.split!r}"
        if source.image_shape[-1] != model.in_channels:
            raise ValueError(
                f"model.in_channels is {model.in_channels}, but {where} have "
                f"{source.image_shape[-1]} channel(s)"
            )
        if model.num_classes is None:
            model = dataclasses.replace(model, num_classes=source.num_classes)
        if source.num_classes != model.num_classes:
            raise ValueError(
                f"model.num_classes is {model.num_classes}, but {where} have "
                f"{source.num_classes} classes"
            )
    return dataclasses.replace(experiment, model=model)
