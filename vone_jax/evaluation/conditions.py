"""What is done to images before a classifier sees them. Each condition names its result."""

import abc
import dataclasses
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vone_jax import arguments, corruptions
from vone_jax.attacks import Attack, AutoAttack, Transfer, norms
from vone_jax.evaluation import judging, other_noise, protocol
from vone_jax.evaluation import labels as wording
from vone_jax.evaluation.judging import Trial
from vone_jax.v1 import Noise


class Condition(abc.ABC):
    """What is measured on a batch, and how a result file tells it.

    Attributes:
      kind: kind of its result.
      name: name of its result.
    """

    kind: str
    name: str

    @abc.abstractmethod
    def record(self) -> dict[str, Any]:
        """The condition for a result file: with the protocol it says all that a number needs."""

    @abc.abstractmethod
    def measure(self, trial: Trial) -> dict[str, jax.Array]:
        """Arrays with one entry per example."""

    @abc.abstractmethod
    def summary(self, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
        """Fields of the result from the arrays of all examples."""

    def constants(self) -> dict[str, Any]:
        """Scalars that stand beside the arrays, so that these can be read alone."""
        return {}


class Judged(Condition):
    """A condition whose images are judged; subclasses say how they come about."""

    @abc.abstractmethod
    def perturb(self, trial: Trial) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The images that are judged, and what else is to be kept of each, arrays (N,)."""

    def measure(self, trial: Trial) -> dict[str, jax.Array]:
        images, kept = self.perturb(trial)
        return trial.judge(images) | kept

    def summary(self, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
        judging.check_finite(arrays["loss"], arrays["index"])
        return judging.summary(arrays["right"])


@dataclasses.dataclass(frozen=True)
class Clean(Judged):
    """The images as they are."""

    kind = "clean"
    name = "clean"

    def record(self) -> dict[str, Any]:
        return {}

    def perturb(self, trial):
        return trial.images, {}


@dataclasses.dataclass(frozen=True)
class Attacked(Judged):
    """Adversarial images.

    Attributes:
      attack: the attack.
      noise_free_gradients: attack the surrogate of the trial, the network with its noise switched
        off, and judge the noisy one: the deterministic-surrogate control.
      attack_noise: attack the network with this noise, and judge it as it is: noise at the attack
        only, for a network that is judged without any.

    Raises:
      ValueError: if both are given.

    Raises:
      ValueError: for a targeted attack.
    """

    attack: Attack
    noise_free_gradients: bool = False
    attack_noise: Noise = None

    kind = "attack"

    def __post_init__(self):
        if self.noise_free_gradients and self.attack_noise is not None:
            raise ValueError(
                f"attack_noise must be None with noise_free_gradients, got {self.attack_noise}"
            )
        check_untargeted(self.attack)

    @property
    def name(self) -> str:
        suffix = "-noise-free" if self.noise_free_gradients else ""
        if self.attack_noise is not None:
            suffix = f"-attacked-{other_noise.label(self.attack_noise)}"
        return f"attack-{_stem(self.attack)}{suffix}"

    def record(self) -> dict[str, Any]:
        surrogate = " on the network without noise" if self.noise_free_gradients else ""
        given = {}
        if self.attack_noise is not None:
            surrogate = f" on the network with {self.attack_noise!r}"
            given = {"attack_noise": other_noise.words(self.attack_noise)}
        return _bound(self.attack) | {
            "attack": f"{self.attack!r}{surrogate}",
            **_averaging(self.attack),
            "noise_free_gradients": self.noise_free_gradients,
            **given,
        }

    def perturb(self, trial):
        keys = protocol.attack_keys(trial.example_keys)
        attacked = trial.attacked(self.noise_free_gradients, self.attack_noise)
        adversarial = self.attack(keys, attacked, trial.images, trial.labels)
        return adversarial, _distance(adversarial, trial.images, self.attack.norm)

    def summary(self, arrays):
        return super().summary(arrays) | _success(arrays)

    def constants(self):
        return {"attack": np.str_(repr(self.attack)), "eps": np.float64(self.attack.eps)}


@dataclasses.dataclass(frozen=True)
class WorstOf(Judged):
    """The worst of several attacks for each image, and of the image itself.

    The candidate with the lowest probability of being right is chosen, among equals the one with
    the highest loss, on draws that neither the attacks nor the judgement use: of noisy estimates
    the lowest is too low, so the one that chose a candidate must not report it.

    Attributes:
      attacks: of one norm and radius.

    Raises:
      ValueError: for no attack, attacks of different norms or radii, or a targeted one.
    """

    attacks: tuple[Attack, ...]

    kind = "attack"

    def __post_init__(self):
        check_untargeted(*self.attacks)
        bounds = {(attack.norm, float(attack.eps)) for attack in self.attacks}
        if len(bounds) != 1:
            raise ValueError(
                f"attacks must be of one norm and radius, got {sorted(bounds) or 'none'}"
            )

    @property
    def name(self) -> str:
        first = self.attacks[0]
        return f"attack-worst-{first.norm}-{first.eps:.4g}"

    def record(self) -> dict[str, Any]:
        return _bound(self.attacks[0]) | {
            "attack": f"WorstOf({', '.join(map(repr, self.attacks))})",
            **_averaging(*self.attacks),
            "noise_free_gradients": False,
            "chosen_by": "lowest probability of being right on draws that are not reported",
        }

    def perturb(self, trial):
        choice = protocol.choice_keys(trial.example_keys)
        # Each attack has the keys that it has alone. The image itself comes last, so that among
        # equals an attack is named.
        candidates = [
            *(Attacked(attack).perturb(trial)[0] for attack in self.attacks),
            trial.images,
        ]
        scores = [
            judging.judge(trial.judged, choice, images, trial.labels, trial.how)
            for images in candidates
        ]
        right = jnp.stack([jnp.sum(each, axis=1, dtype=jnp.int32) for each, _ in scores])
        loss = jnp.stack([each for _, each in scores])
        loss = jnp.where(right == jnp.min(right, axis=0, keepdims=True), loss, -jnp.inf)
        winner = jnp.argmax(loss, axis=0).astype(jnp.int32)
        rows = jnp.arange(len(trial.labels))
        worst = jnp.stack(candidates)[winner, rows]
        kept = _distance(worst, trial.images, self.attacks[0].norm)
        return worst, kept | {"winner": winner}

    def summary(self, arrays):
        names = [*(repr(attack) for attack in self.attacks), "the image itself"]
        won = Counter(names[place] for place in arrays["winner"])
        return super().summary(arrays) | _success(arrays) | {"won": {n: won[n] for n in names}}

    def constants(self):
        attacks = np.array([*(repr(attack) for attack in self.attacks), "the image itself"])
        return {"attack": attacks, "eps": np.float64(self.attacks[0].eps)}


@dataclasses.dataclass(frozen=True)
class Corrupted(Judged):
    """Images with a common corruption, made in memory.

    Attributes:
      corruption: one of ``corruptions.NAMES``.
      severity: 0 to 5.
      form: in which form the network gets them, one of ``corruptions.FORMS``.
      frost_images: the benchmark's photographs, for the corruption "frost".

    Raises:
      ValueError: for another name, severity or form, or frost without photographs.
    """

    corruption: str
    severity: int
    form: str = "float"
    frost_images: corruptions.FrostImages | None = dataclasses.field(default=None, repr=False)

    kind = "corruption"

    def __post_init__(self):
        corruptions.check_name(self.corruption)
        corruptions.check_severity(self.severity)
        arguments.choice("form", self.form, corruptions.FORMS)
        if (self.corruption == "frost") != (self.frost_images is not None):
            raise ValueError(
                f"frost_images must be given for the corruption 'frost' and for no other, got "
                f"{self.corruption!r}; 'frost_procedural' does without"
            )

    @property
    def name(self) -> str:
        suffix = "" if self.form == "float" else f"-{self.form}"
        return f"corruption-{self.corruption}-{self.severity}{suffix}"

    def record(self) -> dict[str, Any]:
        return {"corruption": self.corruption, "severity": self.severity, "form": self.form}

    def perturb(self, trial):
        images = corruptions.corrupt(
            protocol.corruption_keys(trial.example_keys),
            trial.images,
            self.corruption,
            self.severity,
            form=self.form,
            frost_images=self.frost_images,
        )
        return images, {}


def check_untargeted(*attacks: Attack) -> None:
    """Raises a ValueError for an attack that would take the true classes for its targets."""
    for attack in attacks:
        if attack.targeted:
            raise ValueError(
                f"attack must be untargeted, since the labels are the true classes, got "
                f"{attack!r}; call it by itself and judge its images as clean ones"
            )


def _stem(attack: Attack) -> str:
    """Norm and radius, and the attack's name unless it is the usual one."""
    kind = type(attack).__name__
    return f"{'' if kind == 'PGD' else f'{kind.lower()}-'}{attack.norm}-{attack.eps:.4g}"


def _bound(attack: Attack) -> dict[str, Any]:
    return {
        "norm": attack.norm,
        "eps": attack.eps,
        "eps_label": wording.eps(attack.norm, attack.eps),
    }


def _averaging(*attacks: Attack) -> dict[str, Any]:
    """The least number of noise draws that any of the attacks averages over, and over what."""
    draws, estimators = [], []
    for attack in attacks:
        if isinstance(attack, AutoAttack):
            # The draws of its members do not depend on the number of classes.
            inner = _averaging(*attack.members(classes=10))
        elif isinstance(attack, Transfer):
            inner = _averaging(attack.attack)
        else:
            fields = vars(attack)
            inner = {
                "eot_samples": fields.get("eot_samples", 1),
                "estimator": fields.get("estimator", "mean_loss"),
            }
        draws.append(inner["eot_samples"])
        estimators.append(inner["estimator"])
    return {"eot_samples": min(draws), "estimator": ", ".join(dict.fromkeys(estimators))}


def _distance(adversarial: jax.Array, images: jax.Array, norm: str) -> dict[str, jax.Array]:
    return {"distance": norms.size(adversarial - images, norm)}


def _success(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """How often the attack got its way: wrong decisions among all of them."""
    right = arrays["right"]
    return {"successes": {"wrong": int((~right).sum()), "decisions": int(right.size)}}
