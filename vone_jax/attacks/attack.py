"""The form every attack has: a frozen dataclass that is a pytree and a pure function.

An attack's radius and step size are leaves, everything else is static. So one compiled function
serves a whole ladder of radii, and an attack is passed to a jitted function like an array.
"""

import abc

import jax

from vone_jax import prng
from vone_jax.attacks import checks, classifier


class Attack(abc.ABC):
    """Base of the attacks; subclasses are frozen dataclasses that say how to ``perturb``.

    Attributes:
      norm: "linf", "l2" or "l1", in which the attack is bounded.
      eps: its bound in pixel units.
      targeted: whether labels are classes to reach rather than to leave.
    """

    norm: str
    eps: float
    targeted: bool = False

    def __call__(
        self,
        key: jax.Array,
        logits_fn: classifier.LogitsFn,
        images: jax.Array,
        labels: jax.Array,
    ) -> jax.Array:
        """Adversarial images.

        Args:
          key: typed key. A scalar numbers the examples by position; an array of N keys gives
            each example its own, and then its result does not depend on the batch around it.
          logits_fn: classifier ``(key, images) -> logits``; may draw noise from its key.
          images: floating point in [0, 1], shape (N, H, W, C).
          labels: integers of shape (N,): the true classes or, for a targeted attack, the
            classes to reach.

        Returns:
          Images in [0, 1] within the attack's ball, same shape and dtype as ``images``.

        Raises:
          TypeError, ValueError: for input that does not fit, see ``checks.batch``.
          FloatingPointError: if a gradient or the logits were not finite.
        """
        checks.single("eps", self.eps)
        images, labels = checks.batch(key, logits_fn, images, labels)
        keys = prng.example_keys(key, images.shape[0])
        adversarial = compiled(self, keys, classifier.as_pytree(logits_fn), images, labels)
        return checks.finite(adversarial)

    @abc.abstractmethod
    def perturb(
        self,
        keys: jax.Array,
        logits_fn: classifier.LogitsFn,
        images: jax.Array,
        labels: jax.Array,
    ) -> jax.Array:
        """The attack itself: pure, on checked input, with one key per example."""


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


@jax.jit
def compiled(attack, keys, logits_fn, images, labels):
    """The attack as one compiled function, on checked input, with one key per example."""
    logits_fn = classifier.checked(logits_fn, keys, images)
    return jax.lax.stop_gradient(attack.perturb(keys, logits_fn, images, labels))
