"""Attacks that run another attack: on another classifier, or on a few images at a time."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax import Array

from vone_jax import mesh as meshes
from vone_jax.attacks import checks, classifier
from vone_jax.attacks.attack import Attack, pytree
from vone_jax.attacks.classifier import LogitsFn


class Wrapper(Attack):
    """Base of attacks that make another one in their way; norm, radius and target are its own.

    Attributes:
      attack: the other attack.

    Raises:
      TypeError: if ``attack`` is not an attack.
    """

    attack: Attack

    def __post_init__(self):
        if not isinstance(self.attack, Attack):
            raise TypeError(f"attack must be an Attack, got {type(self.attack).__name__}")

    @property
    def norm(self) -> str:
        return self.attack.norm

    @property
    def eps(self) -> float:
        return self.attack.eps

    @property
    def targeted(self) -> bool:
        return self.attack.targeted

    @property
    def least_classes(self) -> int:
        return self.attack.least_classes


@pytree("attack", "surrogate")
@dataclasses.dataclass(frozen=True)
class Transfer(Wrapper):
    """An attack that sees only a surrogate of the classifier it is called with.

    A white-box attack that does less than its transfer from another network, or from the same
    network without noise, has met masked gradients.

    Attributes:
      attack: the attack, with its norm and radius.
      surrogate: classifier ``(key, images) -> logits`` that the attack is made on. It is a pytree,
        see ``classifier.as_pytree``: other weights do not compile anew.

    Raises:
      TypeError: if ``attack`` is not an attack or ``surrogate`` cannot be called.
    """

    attack: Attack
    surrogate: LogitsFn = dataclasses.field(metadata={"stored": False})

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "surrogate", classifier.as_pytree(self.surrogate))

    def __call__(self, key: Array, logits_fn: LogitsFn, images: Array, labels: Array) -> Array:
        """Return adversarial images; checks the surrogate as well as the classifier."""
        checks.batch(key, self.surrogate, images, labels)
        return super().__call__(key, logits_fn, images, labels)

    def perturb(self, keys: Array, logits_fn: LogitsFn, images: Array, labels: Array) -> Array:
        surrogate = classifier.checked(self.surrogate, keys, images)
        return self.attack.perturb(keys, surrogate, images, labels)


@pytree("attack")
@dataclasses.dataclass(frozen=True)
class InBatches(Wrapper):
    """An attack on any number of images that holds only ``size`` of them at a time.

    The adversarial images are those of the attack on all images at once, up to the rounding of
    the classifier, since every example has a key of its own. It takes less memory, and on CPUs
    less time: all that a small network computes for a few images stays in the caches, and XLA
    gives small convolutions to one core, so a device for each core (``jax_num_cpu_devices``)
    keeps the others busy.

    Attributes:
      attack: the attack, with its norm and radius.
      size: images at a time on each device, >= 1. A last batch that is not full attacks an image
        several times.
      mesh: devices that share the images, see ``mesh.data_mesh``; None for the one they are on.

    Raises:
      TypeError: if ``attack`` is not an attack or ``mesh`` not a mesh.
      ValueError: if ``size`` is not a positive number or ``mesh`` has another axis than "data".
    """

    attack: Attack
    size: int
    mesh: meshes.Mesh | None = dataclasses.field(default=None, metadata={"stored": False})

    def __post_init__(self):
        super().__post_init__()
        checks.fields(self)
        if self.mesh is not None and not isinstance(self.mesh, meshes.Mesh):
            raise TypeError(f"mesh must be a Mesh or None, got {type(self.mesh).__name__}")
        if self.mesh is not None and self.mesh.axis_names != (meshes.AXIS,):
            raise ValueError(
                f"mesh must have the one axis {meshes.AXIS!r}, got {self.mesh.axis_names}"
            )

    def perturb(self, keys: Array, logits_fn: LogitsFn, images: Array, labels: Array) -> Array:
        count = images.shape[0]
        shares = 1 if self.mesh is None else self.mesh.size
        size = min(self.size, math.ceil(count / shares))
        whole = math.ceil(count / (size * shares)) * size * shares

        def batch(part):
            keys, images, labels = part
            return self.attack.perturb(keys, logits_fn, images, labels)

        def share(*arrays):
            batches = [array.reshape(-1, size, *array.shape[1:]) for array in arrays]
            return jax.lax.map(batch, tuple(batches)).reshape(-1, *images.shape[1:])

        if self.mesh is not None:
            share = meshes.on_each_device(self.mesh, share)
        rows = jnp.minimum(jnp.arange(whole), count - 1)
        return share(keys[rows], images[rows], labels[rows])[:count]
