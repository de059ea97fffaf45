"""Ensembles: the mean of the logits of several networks.

Baidya et al. (2021), arXiv:2110.10645, add the logits. Their answers are the same. What depends on
the scale of logits differs: losses, probabilities, and the softmax that a network learns from.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.tree_util import Partial

from vone_jax import files, prng
from vone_jax.models import VOneNet
from vone_jax.network.network import Network, written_here


def _mean_of_each(members: tuple[Partial, ...], keys: jax.Array, images: jax.Array) -> jax.Array:
    logits = [member(prng.fold(keys, i), images) for i, member in enumerate(members)]
    return jnp.mean(jnp.stack(logits), axis=0)


@dataclasses.dataclass(frozen=True)
class _MeanOfVariants:
    """The mean of the logits of VOneNets that differ in their V1 and their weights only.

    The part behind V1 is compiled once, and runs for one member after another. A ``vmap`` over the
    members would take a CPU twice the time, because each member has its own kernels.
    """

    members: tuple[VOneNet, ...]

    def __call__(self, variables: Any, keys: jax.Array, images: jax.Array) -> jax.Array:
        fronts: list[Any] = [
            member.apply({}, images, prng.fold(keys, i), method="front_end")
            for i, member in enumerate(self.members)
        ]

        def logits(member: tuple[Any, jax.Array]) -> jax.Array:
            layers: Any = self.members[0].apply(member[0], member[1], method="behind_v1")
            return layers["logits"]

        responses = jnp.stack([front["v1"] for front in fronts])
        return jnp.mean(lax.map(logits, (variables, responses)), axis=0)


def _behind_v1(member: Network) -> Any:
    """What two VOneNets share that have the same part behind V1; the network itself for others."""
    model = member.model
    if not isinstance(model, VOneNet):
        return member
    # The maps of V1 have its stride, and its cells are the inputs of the bottleneck.
    parts = ("name", "num_classes", "width", "back_end", "options", "learned_normalization")
    shared = [getattr(model.spec, field) for field in parts]
    return shared, model.dtype, model.v1.stride, jax.tree.map(jnp.shape, member.variables)


@dataclasses.dataclass(frozen=True, eq=False)
class _Ensemble(Network):
    """A network whose functions call other networks, its ``members``."""

    members: tuple[Network, ...] = ()  # pyright: ignore[reportIncompatibleVariableOverride]

    @property
    def description(self) -> dict[str, Any]:
        described = [member.description for member in self.members]
        return {**super().description, "members": described}

    @property
    def checksum(self) -> str:
        return files.json_digest([member.checksum for member in self.members])[:8]

    @property
    def program(self) -> dict[str, str] | None:
        found = [member.program for member in self.members]
        digests = [each and each["digest"] for each in found]
        return written_here(files.json_digest(digests)) if any(found) else None

    @property
    def parameters(self) -> int:
        return sum(member.parameters for member in self.members)


def ensemble(members: Sequence[Network]) -> Network:
    """The mean of the logits of several networks.

    An attack uses the gradients of all members. Each member draws noise of its own. The layers of
    the members are not available, and their noise cannot be changed. VOneNets with the same back
    end share one compiled program behind V1, whatever their number and their V1.

    Args:
      members: at least two networks for the same images and classes.

    Raises:
      ValueError: for fewer than two members, or members that differ; the message names the field.
    """
    if len(members) < 2:
        raise ValueError(f"an ensemble must have at least 2 members, got {len(members)}")
    first = members[0]
    for name in ("image_shape", "num_classes", "class_names", "preprocessing"):
        for number, other in enumerate(members[1:], start=2):
            ours, theirs = getattr(first, name), getattr(other, name)
            if theirs != ours:
                raise ValueError(
                    f"members of an ensemble must have the same {name}: {ours} in member 1, "
                    f"{first.name}, and {theirs} in member {number}, {other.name}"
                )
    models = tuple(m.model for m in members if isinstance(m.model, VOneNet))
    if models and all(_behind_v1(member) == _behind_v1(first) for member in members):
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(m.variables for m in members))
        logits_fn = Partial(_MeanOfVariants(models), stacked)
    else:
        logits_fn = Partial(_mean_of_each, tuple(member.logits_fn for member in members))
    names = [member.name for member in members]
    return _Ensemble(
        "+".join(names),
        logits_fn,
        first.image_shape,
        first.class_names,
        stochastic=any(member.stochastic for member in members),
        preprocessing=first.preprocessing,
        source=f"the mean of the logits of {', '.join(names)}",
        validation=first.validation if len({each.validation for each in members}) == 1 else None,
        notes=tuple(note for member in members for note in member.notes),
        members=tuple(members),
    )
