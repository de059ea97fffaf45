"""Attacks that run another attack: on another classifier, or on a few images at a time."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vone_jax import mesh as meshes
from vone_jax import prng
from vone_jax.attacks import classifier
from vone_jax.attacks.attack import Attack
from vone_jax.attacks.classifier import AnyImages, AnyKey, AnyLabels, Images, Keys, Labels, LogitsFn
from vone_jax.attacks.trace import Trace


class Wrapper(Attack):
    """Base of attacks that run another ``attack`` and share its norm, radius and target."""

    attack: Attack

    def __post_init__(self) -> None:
        if not isinstance(self.attack, Attack):
            raise TypeError(f"attack must be an Attack, got {type(self.attack).__name__}")
        super().__post_init__()

    # Without annotations, so that these are no fields.
    norm = property(lambda self: self.attack.norm)  # pyright: ignore
    eps = property(lambda self: self.attack.eps)  # pyright: ignore
    targeted = property(lambda self: self.attack.targeted)  # pyright: ignore
    least_classes = property(lambda self: self.attack.least_classes)

    def unaveraged(self, logits_fn: LogitsFn) -> list[tuple[Attack, LogitsFn]]:
        return self.attack.unaveraged(logits_fn)

    def with_checked_surrogates(self, key: AnyKey, images: Images, labels: AnyLabels) -> Attack:
        attack = self.attack.with_checked_surrogates(key, images, labels)
        return dataclasses.replace(self, attack=attack)

    def trace(
        self, key: AnyKey, logits_fn: LogitsFn, images: AnyImages, labels: AnyLabels
    ) -> Trace:
        return self.attack.trace(key, logits_fn, images, labels)


class Transfer(Wrapper):
    """An attack that uses only a surrogate of the classifier it is called with.

    If a white-box attack does less than its transfer from another network, or from the same network
    without noise, the gradients of the attacked network are masked.

    Attributes:
      surrogate: classifier ``(keys, images) -> logits`` that the attack is made on.

    Raises:
      TypeError: if ``attack`` is not an attack or ``surrogate`` cannot be called.
    """

    surrogate: LogitsFn = dataclasses.field(repr=False, metadata={"stored": False, "leaf": True})

    def __post_init__(self) -> None:
        super().__post_init__()
        prng.check_function(self.surrogate, "surrogate")

    def unaveraged(self, logits_fn: LogitsFn) -> list[tuple[Attack, LogitsFn]]:
        return self.attack.unaveraged(self.surrogate)

    def trace(
        self, key: AnyKey, logits_fn: LogitsFn, images: AnyImages, labels: AnyLabels
    ) -> Trace:
        """Return the course of the attack on the surrogate, see ``Attack.trace``."""
        return self.attack.trace(key, self.surrogate, images, labels)

    def with_checked_surrogates(self, key: AnyKey, images: Images, labels: AnyLabels) -> Attack:
        surrogate, *_ = classifier.check_batch(key, self.surrogate, images, labels)
        attack = dataclasses.replace(self, surrogate=surrogate)
        return super(Transfer, attack).with_checked_surrogates(key, images, labels)

    def perturb(self, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels) -> Images:
        surrogate = classifier.checked(self.surrogate, keys, images)
        return self.attack.perturb(keys, surrogate, images, labels)


class InBatches(Wrapper):
    """An attack on any number of images that holds only ``size`` of them at a time.

    The result is that of the attack on all images at once, up to the rounding of the classifier,
    since every example has a key of its own. It takes less memory. On CPUs it also takes less time:
    the activations of a small network for a few images stay in the caches. XLA runs a small
    convolution on one core, so one device per core (``jax_num_cpu_devices``) keeps all cores busy.

    Attributes:
      size: images at a time on each device, >= 1. A last batch that is not full attacks an image
        several times.
      mesh: devices that share the images, see ``mesh.data_mesh``; None for the one they are on.

    Raises:
      TypeError: if ``attack`` is not an attack or ``mesh`` not a mesh.
      ValueError: if ``size`` is not a positive number or ``mesh`` has another axis than "data", or
        one of another type than Auto.
    """

    size: int
    mesh: meshes.Mesh | None = dataclasses.field(default=None, metadata={"stored": False})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mesh is not None and not isinstance(self.mesh, meshes.Mesh):
            raise TypeError(f"mesh must be a Mesh or None, got {type(self.mesh).__name__}")
        if self.mesh is not None and not meshes.is_data_mesh(self.mesh):
            raise ValueError(
                f"mesh must have the one axis {meshes.AXIS!r} of the type Auto, as "
                f"mesh.data_mesh makes it, got {self.mesh}"
            )

    def images_at_once(self, images: Images) -> int:
        return len(images)

    def perturb(self, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels) -> Images:
        count = images.shape[0]
        devices = 1 if self.mesh is None else self.mesh.size
        size = min(self.size, math.ceil(count / devices))
        padded = math.ceil(count / (size * devices)) * size * devices

        def attack_batch(batch: tuple[Keys, Images, Labels, Array]) -> Images:
            keys, images, labels, rows = batch
            return self.attack.for_images(rows).perturb(keys, logits_fn, images, labels)

        def attack_all(*arrays: Array) -> Images:
            batches = [array.reshape(-1, size, *array.shape[1:]) for array in arrays]
            return jax.lax.map(attack_batch, tuple(batches)).reshape(-1, *images.shape[1:])

        if self.mesh is not None:
            attack_all = meshes.on_each_device(self.mesh, attack_all)
        rows = jnp.minimum(jnp.arange(padded), count - 1)
        return attack_all(keys[rows], images[rows], labels[rows], rows)[:count]
