"""An objective of training: what each one, ours or a user's, may do in a step, and what it sees.

``Experiment.objectives`` is a tuple of them, applied in its order. An objective changes the batch,
the loss of each example, or the gradient. An attack in the tuple is the objective ``Attacked``. The
step and the loop know no objective by its class.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from vone_jax import arguments, attacks, fast, prng
from vone_jax.attacks import FGSM, PGD, Attack

# The images of a step and what belongs to them, each with a row for each example: ``image``
# (N, H, W, C), float32 in [0, 1]; ``label`` (N,), int32; ``index`` (N,), uint32, the number of the
# example in the data set; and what objectives add.
Batch = dict[str, jax.Array]


def open_no_network(spec: str) -> Any:
    """Raise a ``ValueError``, where nobody said how networks are opened."""
    raise ValueError(f"the run needs the network {spec!r}; give open_network=vone_jax.open_network")


@dataclasses.dataclass(frozen=True)
class Setup:
    """What an objective may know of a run before its first step."""

    # The ``Experiment``, with all fields filled in.
    experiment: Any
    # The network without its variables.
    model: nn.Module
    # The ``jax.sharding.Mesh`` of the devices that train; None where nothing is trained.
    mesh: Any = None
    # One name per logit, in order.
    class_names: Sequence[str] = ()
    # Opens a network by its text, see ``vone_jax.open_network``. The run then depends on it: a run
    # does not resume with other weights of this network.
    open_network: Callable[[str], Any] = open_no_network
    # Steps of the whole run; None where nothing is trained.
    total_steps: int | None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The shape of an image, (H, W, C)."""
        config = self.experiment.model
        return config.image_size, config.image_size, config.in_channels or 3

    def variables(self) -> Any:
        """Draw the variables of the network; the stream ``"init"`` of the seed draws them."""
        root = jax.random.key(self.experiment.seed)
        keys = {"params": prng.stream(root, "init"), "noise": prng.stream(root, "init noise")}
        return self.model.init(keys, jnp.zeros((1, *self.image_shape)))


@dataclasses.dataclass(frozen=True)
class Context:
    """What an objective sees of a step."""

    # The name of the objective in this run: that of its class, with a number from the second on.
    name: str
    # Key of this objective and this step; in ``batch``, of this batch. The replays of a batch are
    # changed alike.
    key: Any
    # One key for each example, from ``key`` and its index.
    keys: Any
    # Steps done, int32 scalar.
    step: Any
    steps_per_epoch: int
    # What is trained: the parameters of the network under "network", without frozen ones, and those
    # of objectives under their names.
    params: Any
    # What ``resources`` returned.
    resources: Any
    # What ``init`` returned, then ``gradient``.
    state: Any
    mesh: Any
    # ``(images, keys=None) -> logits`` in training mode. The noise is that of the step; with one
    # key for each example, it is that of these keys. In ``losses`` the statistics of batch norm
    # that it moves are kept, so call it there outside of gradients and loops of your own.
    forward: Callable[..., jax.Array]
    # ``(keys, images) -> logits`` in evaluation mode.
    logits_fn: Callable[[Any, jax.Array], jax.Array]
    # ``(params, images, keys, dropout_key, method="__call__") -> outputs`` in training mode, at any
    # ``params`` of the form above. It keeps no statistics, so it may stand in a gradient or a loop.
    apply: Callable[..., Any]
    # ``(logits, labels) -> losses`` (N,), with the label smoothing of the experiment.
    cross_entropy: Callable[[jax.Array, jax.Array], jax.Array]
    # ``(name, value)`` puts a finite scalar into the log, as "OBJECTIVE.NAME". Call it outside of
    # gradients and loops of your own.
    log: Callable[[str, Any], None]

    @property
    def own(self) -> Any:
        """The trained parameters of this objective."""
        return self.params.get(self.name)

    @property
    def epoch(self) -> jax.Array:
        """Epochs done, float32 scalar."""
        return self.step.astype(jnp.float32) / self.steps_per_epoch


@flax.struct.dataclass
class Gradient:
    """The gradient of a batch, and what the pass that found it gives beside."""

    # Gradient of ``Context.params``, in the same form.
    params: Any
    # Gradient of the images (N, H, W, C) of the mean loss. The compiler leaves it out where it is
    # not used.
    images: Any
    # Metrics as ``step.Sums``, and statistics of batch norm after the pass.
    sums: Any
    batch_stats: Any
    # States of objectives, and numbers for the log, by name.
    states: Any
    numbers: Any


@dataclasses.dataclass(frozen=True)
class Objective:
    """Base of the objectives, which are frozen dataclasses. Each method changes nothing by default.

    All methods but ``resources`` are compiled into the step. Everything random comes from the keys
    of the context.
    """

    # Steps on one batch. An epoch has as many times more steps. Not a field, unless a subclass
    # makes it one.
    replays = 1
    # Whether ``batch`` and ``gradient`` are called for each part of a batch, with
    # ``Experiment.accumulation_steps``. What uses the network should be.
    by_part = False
    # Whether ``losses`` does not use the losses of the objectives before it.
    replaces_losses = False
    # Name of the stream of its keys. Default: that of its class.
    stream = ""

    def __post_init__(self) -> None:
        arguments.fields(self)

    @property
    def watched(self) -> Attack | None:
        """An attack under which validations also measure their first batch, if any."""
        return None

    def resources(self, run: Setup) -> Any:
        """Return arrays that are made once, before the first step, as a pytree.

        They are arguments of the compiled step, not constants in it.
        """
        del run

    def init(self, key: jax.Array, run: Setup) -> tuple[Any, Any]:
        """Return trained parameters and a state of one's own, pytrees of arrays; None for none.

        Both are in checkpoints. The parameters are a dictionary or an array.
        """
        del key, run
        return None, None

    def batch(self, context: Context, batch: Batch) -> Batch:
        """Return the changed batch. Statistics that ``context.forward`` moves are dropped."""
        del context
        return batch

    def losses(
        self, context: Context, batch: Batch, logits: jax.Array, losses: jax.Array
    ) -> jax.Array:
        """Return the loss of each example (N,), from the logits at ``batch["image"]``.

        ``losses`` are those of the objectives before; the first gets the cross-entropy.
        """
        del context, batch, logits
        return losses

    def gradient(
        self, context: Context, gradient_fn: Callable[..., Gradient], params: Any, batch: Batch
    ) -> tuple[Gradient, Any]:
        """Return the gradient and the new state of this objective.

        ``gradient_fn(params, batch)`` is the gradient that the objectives before give.
        """
        return gradient_fn(params, batch), context.state


@dataclasses.dataclass(frozen=True)
class Attacked(Objective):
    """Training on the images of an attack on the network as it is, in evaluation mode.

    Madry et al., 2018, arXiv:1706.06083, with PGD. The labels are the true classes.
    """

    by_part = True
    stream = "perturbation"

    attack: Attack

    def __post_init__(self):
        if self.attack.targeted:
            raise ValueError(
                "an attack of training must be untargeted, since the labels are the true classes, "
                f"got {self.attack!r}"
            )

    @property
    def watched(self) -> Attack | None:
        """PGD of ten steps for an attack of a single step, see ``watched_by``."""
        steps = 1 if isinstance(self.attack, FGSM) else getattr(self.attack, "steps", None)
        return watched_by(self.attack) if steps == 1 else None

    def batch(self, context: Context, batch: Batch) -> Batch:
        images = attacked(
            self.attack, context.keys, context.logits_fn, batch["image"], batch["label"]
        )
        return batch | {"image": images}


def attacked(
    attack: Callable[..., jax.Array], keys: Any, logits_fn: Any, images: Any, labels: Any
) -> jax.Array:
    """Return the images of ``attack(keys, logits_fn, images, labels)``, called within a program."""
    # An attack is a loop of gradients, which CPUs compute slowly in other layouts.
    return fast.in_fast_layout(lambda keys, *rest: attack(keys, logits_fn, *rest))(
        keys, images, labels
    )


def watched_by(attack: Any) -> Attack:
    """Return the attack that shows catastrophic overfitting to an attack of a single step.

    Wong et al. (2020) watch the accuracy of one batch under PGD: the training attack goes on to
    fail, but several steps succeed. The norm and the radius are those of ``attack``.
    """
    return PGD(getattr(attack, "norm", "linf"), attack.eps, steps=10, random_start=True)


@dataclasses.dataclass(frozen=True)
class Applied:
    """An objective in its place in the tuple of an experiment."""

    # Unique in the tuple, as is the name of the stream of its keys.
    name: str
    stream: str
    objective: Objective

    def overrides(self, method: str) -> bool:
        """Return True if the objective has a method of its own."""
        return getattr(type(self.objective), method) is not getattr(Objective, method)


def of(value: Any) -> Any:
    """Return an objective or an attack as it is, and a plain function as an attack."""
    return attacks.of(value) if inspect.isfunction(value) else value


def applied(objectives: Sequence[Any]) -> tuple[Applied, ...]:
    """Return the objectives of a tuple with their names, and the attacks in it as objectives."""
    found, names = [], []
    for each in objectives:
        objective = each if isinstance(each, Objective) else Attacked(each)
        own = each.label if isinstance(each, attacks.Function) else type(each).__name__
        names.append((own, objective.stream or f"objective {own}"))
        # The second of a name or a stream has its number behind it.
        numbers = ([pair[i] for pair in names].count(names[-1][i]) for i in (0, 1))
        name, stream = (
            text if number == 1 else f"{text} {number}"
            for text, number in zip(names[-1], numbers, strict=True)
        )
        found.append(Applied(name, stream, objective))
    return tuple(found)


def check(objectives: Any, accumulation_steps: int) -> None:
    """Raise a ``ValueError`` for objectives that cannot be combined, with the reason."""
    if not isinstance(objectives, tuple):
        raise ValueError(f"objectives must be a tuple, such as (AWP(),), got {objectives!r:.80}")
    for place, each in enumerate(objectives):
        arguments.instance(f"objectives[{place}]", each, Objective | Attack)
    several = applied(objectives)
    replaying = [each.name for each in several if each.objective.replays != 1]
    if len(replaying) > 1:
        raise ValueError(
            f"objectives: {' and '.join(replaying)} both say how often a batch is replayed; leave "
            "one of them out"
        )
    with_losses = [each for each in several if each.overrides("losses")]
    for before, each in zip(with_losses, with_losses[1:], strict=False):
        if each.objective.replaces_losses:
            cure = "leave one of them out"
            if not before.objective.replaces_losses:
                cure = f"put {before.name} behind {each.name}"
            raise ValueError(
                f"objectives: {each.name} has a loss of its own, which leaves out that of "
                f"{before.name} before it; {cure}"
            )
    if accumulation_steps > 1:
        # A batch is changed as a whole, then in parts; and gradients of parts give that of all.
        _check_order([e for e in several if e.overrides("batch")], first="whole batches")
        _check_order([e for e in several if e.overrides("gradient")], first="parts of batches")


def _check_order(several: Sequence[Applied], first: str) -> None:
    names = {True: "parts of batches", False: "whole batches"}
    for one, other in zip(several, several[1:], strict=False):
        kinds = [names[each.objective.by_part] for each in (one, other)]
        if kinds[0] != kinds[1] == first:
            raise ValueError(
                f"objectives: with accumulation_steps, {other.name}, which works on {kinds[1]}, "
                f"must come before {one.name}, which works on {kinds[0]}"
            )


def cross_entropy(logits: jax.Array, labels: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
    """Return the cross-entropy of each example in nats, computed in float32.

    A share s = ``label_smoothing`` of the target is spread evenly over the classes. The target is
    1 - s + s / classes for the right class and s / classes for the others, as in PyTorch.
    """
    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32))
    right = jnp.take_along_axis(log_probabilities, labels[:, None], axis=1)[:, 0]
    return -(1.0 - label_smoothing) * right - label_smoothing * jnp.mean(log_probabilities, axis=1)


def divergence(teacher: jax.Array, logits: jax.Array, temperature: float = 1.0) -> jax.Array:
    """Return KL(teacher || network) of the softmax of logits / temperature, (N,), in nats.

    It is computed in float32, also from logits of lower precision.
    """
    theirs, ours = (
        jax.nn.log_softmax(each.astype(jnp.float32) / temperature) for each in (teacher, logits)
    )
    return jnp.sum(jnp.exp(theirs) * (theirs - ours), axis=-1)


def variables_of(params: Mapping[str, Any], batch_stats: Any) -> dict[str, Any]:
    """Return the variables that ``model.apply`` takes: no empty collection."""
    return {"params": params} | ({"batch_stats": batch_stats} if batch_stats else {})
