"""Transfer: adversarial images made on one classifier, to be judged on another."""

import dataclasses

from vone_jax.attacks import checks, classifier
from vone_jax.attacks.attack import Attack, Wrapper, pytree


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
    surrogate: classifier.LogitsFn = dataclasses.field(metadata={"stored": False})

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "surrogate", classifier.as_pytree(self.surrogate))

    def __call__(self, key, logits_fn, images, labels):
        """As for every attack; the surrogate has to fit as well as the classifier."""
        checks.batch(key, self.surrogate, images, labels)
        return super().__call__(key, logits_fn, images, labels)

    def perturb(self, keys, logits_fn, images, labels):
        surrogate = classifier.checked(self.surrogate, keys, images)
        return self.attack.perturb(keys, surrogate, images, labels)
