"""The condition ``Attacked``: adversarial images, judged with keys that the attack has not seen."""

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import jax
import numpy as np

from vone_jax import arguments, attacks, dataclass_json, names, results
from vone_jax.arguments import FromZero
from vone_jax.attacks import (
    APGD,
    PGD,
    Attack,
    AutoAttack,
    Square,
    Strongest,
    norms,
    parts,
)
from vone_jax.evaluation.condition import (
    FUNCTIONS,
    Condition,
    Judged,
    Numbers,
    accuracy_numbers,
    fields_of_row,
)
from vone_jax.evaluation.evaluation import Evaluation
from vone_jax.evaluation.judging import AttackNoise, Batch
from vone_jax.evaluation.masking_checks import BLIND, diagnose, quick_check
from vone_jax.results import Lines, Row, View

# The radii of the VOneNet authors: nine per norm, each twice the one before, for images of
# 224 x 224 x 3 values in [0, 1].
_FIRST_RADIUS = {"linf": 1 / 4080, "l2": 0.0375, "l1": 10.0}
_FULL_SIZE = 224 * 224 * 3
# Places on the ladder by the number of points: the whole, the set reported for main results, and
# its weak half, used for variants.
_POINTS = {9: tuple(range(9)), 4: (2, 4, 6, 8), 2: (2, 4)}
# The attack whose images the report shows, and how many.
_SHOWN, _KEPT = 4 / 255, 8
NormName = Literal["linf", "l2", "l1"]
ABOUT = "Accuracy against the radius of the perturbation. Dotted: chance."


@dataclasses.dataclass(frozen=True)
class Attacked(Judged):
    """Adversarial images.

    Attributes:
      attack: the attack, or a function ``(keys, logits_fn, images, labels) -> images``.
      kept: number of adversarial images that the result keeps, to be shown.
      variant: a word behind the name of the attack, to tell two attacks of one class, radius and
        number of steps apart.

    Raises:
      ValueError: for a negative number of images, a targeted attack, or one with a radius for each
        image.
    """

    section = "Under attack"
    long: ClassVar[bool] = True
    under_attack_noise: ClassVar[bool] = True
    shown = ("adversarial", "original", "predicted before", "right before")

    attack: Attack
    # How many images are shown does not change what was measured.
    kept: FromZero = dataclasses.field(default=0, metadata={"stored": False})  # pyright: ignore[reportIncompatibleVariableOverride]
    variant: str = ""

    def __post_init__(self):
        object.__setattr__(self, "attack", attacks.of(self.attack))
        arguments.fields(self)
        check_attacks(self.attacks)

    @property
    def attacks(self) -> tuple[Attack, ...]:
        return (self.attack,)

    def row(self) -> dict[str, Any]:
        row = {"condition": "attack", **attack_row(self.attack)}
        words = " ".join(filter(None, (self.attack.label, self.variant)))
        return row | {"attack": words}

    def perturb(self, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        attacked, keys = batch.attacked, batch.keys("attack")
        # Frozen draws belong to places in the batch, so each run gets all images.
        size = len(batch.images) if batch.attacked_frozen else None
        best = self.attack.choose(keys, attacked, batch.images, batch.labels, batch_size=size)
        stored = {"distance": norms.size(best.images - batch.images, self.attack.norm)}
        if isinstance(self.attack, Strongest):
            stored["winner"] = best.winner
        # From a random point, the distance does not say whether a gradient led the attack.
        if any(getattr(each, "random_start", type(each) is APGD) for each in _members(self.attack)):
            stored["flat"] = batch.flat(attacked, _draws(self.attack))
        if self.kept:
            before = batch.judge(batch.images)
            stored |= {"adversarial": best.images, "original": batch.images}
            stored |= {"predicted before": before["predicted"], "right before": before["right"]}
        found = diagnose(
            batch.classifier(), batch.example_keys, batch.images, batch.labels, quick=True
        )
        return best.images, stored | {f"check {name}": each for name, each in found.items()}

    def result(self, arrays: Mapping[str, np.ndarray], evaluation: Any) -> Numbers:
        warnings = self.doubts(arrays, evaluation.attack_noise)
        checked, failed = quick_check(arrays, evaluation.network.stochastic)
        details: dict[str, Any] = {}
        if isinstance(self.attack, Strongest):
            won = Counter(arrays["winner"].tolist())
            # As they stand in the identity: the ``repr`` of a function has its address.
            told = [dataclass_json.encode(each, FUNCTIONS) for each in self.attack.attacks]
            told.append("the image itself")
            details["won"] = [{"attack": a, "images": won[i]} for i, a in enumerate(told)]
        pictures, shown = _gallery(arrays, evaluation.class_names)
        noted: dict[str, Any] = _note(self.attack)
        return Numbers(
            [*accuracy_numbers(arrays, **noted), checked],
            [Lines("accuracy", "eps", "norm", "clean", share=True, about=ABOUT), *pictures],
            [guessing(evaluation)],
            (*warnings, *failed),
            details,
            shown,
        )

    def doubts(self, arrays: Mapping[str, np.ndarray], attack_noise: AttackNoise) -> list[str]:
        """Warnings about an attack that was not as strong as it could be."""
        same = attack_noise == "same"
        single = single_draws(self.attack, arrays["right"]) if same else []
        noisy = same and _differ(arrays["right"])
        return [*_own_doubts(self.attack, noisy), *_blind(arrays, self.attack), *single]


def _note(attack: Attack) -> dict[str, str]:
    """The number and the length of the steps of an attack, such as "64 steps of eps/32"."""
    count, size, rule = (vars(attack).get(name) for name in ("steps", "step_size", "step_rule"))
    if not count:
        return {}
    of = f" of {rule}" if rule else ""
    if size and attack.eps:
        parts = float(attack.eps / size)
        whole = abs(parts - round(parts)) < 1e-6 * parts
        of = f" of eps/{round(parts)}" if whole else f" of {1 / parts:.3g} eps"
    return {"note": f"{count} steps{of}"}


def guessing(evaluation: Any, number: str = "accuracy") -> Row:
    """The accuracy of guessing among the network's classes, as a reference."""
    share = 1 / evaluation.network.num_classes
    return {"network": "chance", "number": number, "value": share}


def _gallery(
    arrays: Mapping[str, np.ndarray], names: Sequence[str]
) -> tuple[list[View], dict[str, np.ndarray]]:
    """Images that the attack changed from classified to misclassified, with their differences."""
    if "kept" not in arrays:
        return [], {}
    rows = [np.flatnonzero(arrays["index"] == index)[0] for index in arrays["kept"]]
    label, after = arrays["label"][rows], arrays["predicted"][rows]
    before = arrays["predicted before"]
    was = (arrays["right before"].mean(axis=1) > 0.5) & (before == label)
    now = (arrays["right"][rows].mean(axis=1) < 0.5) & (after != label)
    (changed,) = np.nonzero(was & now)
    if not len(changed):
        return [], {}
    original, adversarial = (arrays[name][changed] for name in ("original", "adversarial"))
    change = adversarial - original
    factor = _magnification(float(np.abs(change).max()))

    def name(each: int) -> str:
        return names[each] if each < len(names) else str(each)

    captions = [f"{name(int(before[i]))} → {name(int(after[i]))}" for i in changed]
    stored = {
        "changed original": original,
        "changed adversarial": adversarial,
        "magnified change": 0.5 + factor * change,
    }
    about = (
        "Images that the attack changed from classified to misclassified: the original, the "
        "adversarial image, and their difference, magnified, on grey."
    )
    title = f"difference × {factor}"
    pictures = results.Pictures(
        tuple(stored), tuple(captions), title, about=about, section="Adversarial images"
    )
    return [pictures], stored


def _magnification(largest: float) -> int:
    """The largest of 1, 2, 5, 10, 20, ... that keeps the perturbation within the grey range."""
    if largest <= 0:
        return 1
    room = 0.5 / largest
    tens = 10 ** max(0, math.floor(math.log10(max(room, 1.0))))
    return max(step * tens for step in (1, 2, 5) if step == 1 or step * tens <= room)


def check_attacks(several: Sequence[Attack]) -> None:
    """Raise a ValueError for attacks that an evaluation cannot make."""
    for attack in several:
        arguments.instance("attack", attack, Attack)
        name = type(attack).__name__
        if attack.targeted:
            raise ValueError(
                f"attack must be untargeted, since labels are true classes, got {name}"
            )
        if np.ndim(attack.eps):
            raise ValueError(
                f"attack must have one number as eps in an evaluation, got {name} with an array of "
                f"shape {np.shape(attack.eps)}; measure each radius as a condition of its own"
            )


def attack_row(attack: Attack) -> dict[str, Any]:
    """The columns of an attack in a row: its number of steps, and settings that are no defaults.

    The length of its steps stands in a note on the page. A composed attack has neither.
    """
    row = {"norm": attack.norm, "eps": float(attack.eps), "attack": attack.label}
    members = _members(attack)
    if len(members) == 1 and "steps" in vars(members[0]):
        row["steps"] = int(vars(members[0])["steps"])
    if members == [attack]:
        # A function has its name in the label.
        left_out = "eot_samples", "step_size", "step_rule", "version", "function"
        row |= fields_of_row(attack, *row, *left_out)
    return row | {"attack_draws": _draws(attack)}


def _draws(attack: Attack) -> int:
    """The least number of noise draws that an attack, or any of its members, averages over."""
    return min(each.eot_samples for each in _members(attack))


def _members(attack: Attack) -> list[Attack]:
    """The attacks that an attack runs, or the attack itself."""
    # The fields of members do not depend on the number of classes.
    return parts(attack, classes=10)


def single_draws(attack: Attack, right: np.ndarray) -> list[str]:
    """A warning if decisions (N, R) differ between draws and the attack averages over none."""
    if _draws(attack) > 1 or not _differ(right):
        return []
    return [
        "The network is stochastic, but the attack followed a single noise draw at a time. "
        "The accuracy is an upper bound: average over draws (eot_samples)."
    ]


def _differ(right: np.ndarray) -> bool:
    """Whether decisions (N, R) about an image differ between draws."""
    return bool(np.any(right != right[:, :1]))


def _own_doubts(attack: Attack, noisy: bool) -> list[str]:
    """What an attack says against itself; of several, the strongest counts, so all must doubt."""
    told = [each.doubts(noisy) for each in _members(attack)]
    return list(dict.fromkeys(itertools.chain(*told))) if all(told) else []


def _blind(arrays: Mapping[str, np.ndarray], attack: Attack) -> list[str]:
    """A warning if an attack had nothing to follow on many images that are right in all draws.

    There the margin has no gradient (the array ``flat``), or, if this was not measured, the attack
    did not move the image. For an attack on the cross-entropy, this loss may also be 0. It does not
    hold for attacks that return the image itself where they find no adversarial one.
    """
    members = _members(attack)
    keeps = all(each.is_search for each in members)
    if attack.eps == 0 or keeps:
        return []
    blind = arrays["flat"] if "flat" in arrays else arrays["distance"] == 0
    if all(vars(each).get("loss") == "cross_entropy" for each in members):
        blind = blind | (arrays["loss"] == 0)
    # An attack may stop at an image that is wrong in its own draws, and right in some others.
    share = float(np.mean(blind & arrays["right"].all(axis=1)))
    return blind_warning(share) if share > BLIND else []


def blind_warning(share: float) -> list[str]:
    return [
        f"On {share:.0%} of the images, which the network has right, the attack found no gradient "
        "or no change. The accuracy is an upper bound, see --suite masking."
    ]


def vonenet_pgd(norm: str, eps: float, **fields: Any) -> PGD:
    """The attack of Dapello, Marques et al. (NeurIPS 2020), as in the code of its authors.

    Untargeted PGD on the cross-entropy, 64 steps of eps/32 from the clean image, gradient averaged
    over 10 noise draws. An earlier example of theirs has steps of eps/4 (``step_rule="eps/4"``).

    Args:
      norm: "linf", "l2" or "l1".
      eps: radius in pixel units.
      **fields: fields of ``attacks.PGD`` to change.
    """
    usual: dict[str, Any] = {"steps": 64, "step_rule": "eps/32", "eot_samples": 10}
    return PGD(norm, eps, **(usual | fields))


def ladder(norm: str, points: int, image_shape: tuple[int, int, int]) -> tuple[float, ...]:
    """Return the radii for images of a size.

    At 224 x 224 x 3 they are the authors': 1/1020, 1/255, 4/255, 16/255 (L-infinity), 0.15 to 9.6
    (L2) and 40 to 2560 (L1) for 4 points. Images of another size get the L2 and L1 radii that
    change their values as much on average (root mean square, mean absolute change). This rule is a
    choice of this project.

    Args:
      norm: "linf", "l2" or "l1".
      points: 9, 4 or 2.
      image_shape: (H, W, C).

    Raises:
      ValueError: for another norm or number of points.
    """
    arguments.choice("norm", norm, names.NORMS)
    if points not in _POINTS:
        raise ValueError(f"points must be one of {', '.join(map(str, _POINTS))}, got {points!r}")
    size = math.prod(image_shape) / _FULL_SIZE
    scale = {"linf": 1.0, "l2": math.sqrt(size), "l1": size}[norm]
    return tuple(_FIRST_RADIUS[norm] * 2**place * scale for place in _POINTS[points])


def radii(
    evaluation: Evaluation, norm: str, points: int, eps: tuple[float, ...] = ()
) -> tuple[float, ...]:
    """The radii that were asked for, or those of ``ladder``."""
    return eps or ladder(norm, points, evaluation.network.image_shape)


def usual(evaluation: Evaluation, norm: str, eps: tuple[float, ...] = ()) -> tuple[float, ...]:
    """The radii that were asked for, or the third of the ladder, such as 4/255."""
    return eps or ladder(norm, 4, evaluation.network.image_shape)[2:3]


def white_box(
    evaluation: Evaluation,
    norm: str,
    points: int = 4,
    variant: str = "",
    eps: tuple[float, ...] = (),
    **fields: Any,
) -> list[Condition]:
    """The attack of the VOneNet authors at a ladder of radii, with fields of PGD to change."""
    fields = {"eot_samples": evaluation.attack_draws} | fields
    return [
        Attacked(
            vonenet_pgd(norm, each, **fields),
            kept=_KEPT if norm == "linf" and abs(each - _SHOWN) < 1e-6 else 0,
            variant=variant,
        )
        for each in radii(evaluation, norm, points, eps)
    ]


def worst_case(norm: str, eps: float, draws: int = 1) -> Strongest:
    """The strongest attack that fits any classifier, with or without noise.

    It is the worst of four for each image: PGD as ``vonenet_pgd``, PGD on the margin from random
    points, and APGD on the cross-entropy and on the margin. None needs more than two classes.

    Args:
      norm: "linf", "l2" or "l1".
      eps: radius in pixel units.
      draws: noise draws in a gradient: 1 for a classifier without noise.
    """
    usual = vonenet_pgd(norm, eps, eot_samples=draws)
    margin = dataclasses.replace(usual, loss="margin", random_start=True)
    apgd = APGD(norm, eps, eot_samples=draws)
    return Strongest((usual, margin, apgd, dataclasses.replace(apgd, loss="margin")))


def linf(evaluation: Evaluation, *, eps: tuple[float, ...] = ()) -> list[Condition]:
    """PGD of the VOneNet authors in L∞, four radii (7,700; 770 without noise)"""
    return white_box(evaluation, "linf", eps=eps)


def l2(evaluation: Evaluation, *, eps: tuple[float, ...] = ()) -> list[Condition]:
    """the same in L2 (7,700; 770)"""
    return white_box(evaluation, "l2", eps=eps)


def l1(evaluation: Evaluation, *, eps: tuple[float, ...] = ()) -> list[Condition]:
    """the same in L1 (7,700; 770)"""
    return white_box(evaluation, "l1", eps=eps)


def apgd(
    evaluation: Evaluation, *, eps: tuple[float, ...] = (), norm: NormName = "linf"
) -> list[Condition]:
    """APGD at one radius (3,000; 300)"""
    draws = evaluation.attack_draws
    return [Attacked(APGD(norm, e, eot_samples=draws)) for e in usual(evaluation, norm, eps)]


def square(
    evaluation: Evaluation, *, eps: tuple[float, ...] = (), norm: NormName = "linf"
) -> list[Condition]:
    """Square Attack, by scores alone (50,000; 5,000)"""
    draws = evaluation.attack_draws
    return [Attacked(Square(norm, e, eot_samples=draws)) for e in usual(evaluation, norm, eps)]


def autoattack(
    evaluation: Evaluation, *, eps: tuple[float, ...] = (), norm: NormName = "linf"
) -> list[Condition]:
    """AutoAttack; its version rand for a network with noise (12,000; 11,000)"""
    version = "rand" if evaluation.attack_draws > 1 else "standard"
    return [Attacked(AutoAttack(norm, e, version=version)) for e in usual(evaluation, norm, eps)]


def worst(
    evaluation: Evaluation, *, eps: tuple[float, ...] = (), norm: NormName = "linf"
) -> list[Condition]:
    """the strongest of PGD and APGD on two losses: the number to report (10,000; 1,100)"""
    draws = evaluation.attack_draws
    return [Attacked(worst_case(norm, e, draws)) for e in usual(evaluation, norm, eps)]


SUITES = {
    "linf": linf, "l2": l2, "l1": l1, "apgd": apgd, "square": square, "autoattack": autoattack,
    "worst": worst,
}  # fmt: skip
