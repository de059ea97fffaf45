"""Evaluation in one call: of any classifier on arrays of images, or of a network on its data set.

The conditions are those that ``run`` measures over a data set, and the loop is the same.
"""

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal

import jax
import numpy as np

from vone_jax import arguments, attacks, prng, results
from vone_jax.attacks import Attack, classifier
from vone_jax.evaluation import judging
from vone_jax.evaluation.attacked import Attacked, worst_case
from vone_jax.evaluation.clean import Clean
from vone_jax.evaluation.condition import Condition
from vone_jax.evaluation.evaluation import Evaluation
from vone_jax.evaluation.examples import find_images
from vone_jax.evaluation.judging import Batch, Protocol
from vone_jax.evaluation.masking_checks import VERDICTS, Check, Verdict, quick_checks
from vone_jax.evaluation.run import Report, evaluate, measure
from vone_jax.evaluation.suites import default_directory
from vone_jax.network import Network, open_network
from vone_jax.results import Interval

_DRAWS = 10


@dataclasses.dataclass(frozen=True, eq=False)
class Accuracy:
    """The accuracy of a classifier on arrays of images.

    Attributes:
      accuracy: mean of ``per_example``.
      interval: its 95 % interval over the images, see ``results.accuracy``.
      right: the decisions about each example that were right, (N, R).
      top_5: share of the decisions among whose first five classes the label is; None with ten
        classes or fewer.
      loss: mean cross-entropy of each example over the draws, (N,).
      distance: how far an attack moved each image, in its norm, (N,); None without attack.
      winner: of ``attacks.Strongest``, the position of the strongest attack for each example (N,),
        or the number of attacks for the image itself; None for another attack.
      protocol: how the classifier was judged.
      attack: the attack; None without one.
    """

    accuracy: float
    interval: tuple[float, float]
    right: np.ndarray
    top_5: float | None
    loss: np.ndarray
    distance: np.ndarray | None
    winner: np.ndarray | None
    protocol: Protocol
    attack: Attack | None = None

    @property
    def per_example(self) -> np.ndarray:
        """The share of the decisions about each example that were right, (N,)."""
        return judging.probability_correct(self.right)


def accuracy(
    key: jax.Array,
    logits_fn: classifier.LogitsFn,
    images: jax.Array,
    labels: jax.Array,
    *,
    draws: int = _DRAWS,
    decision: str = "single",
    batch_size: int | None = None,
) -> Accuracy:
    """Measure accuracy over fresh noise draws, or over decisions made from several draws.

    Args:
      key: typed key, or one key per example. With one key, draws depend on an example's position.
      logits_fn: classifier ``(keys, images) -> logits``, with one key per example.
      images: float32 or float64 in [0, 1], shape (N, H, W, C).
      labels: true classes, integers of shape (N,).
      draws: number R of decisions about each example.
      decision: what a decision is made of, such as "vote:8", see ``Protocol.decided``.
      batch_size: examples at a time; it changes memory and speed only. Default: all.

    Raises:
      TypeError: within ``jit``, ``grad`` or ``vmap``.
      TypeError, ValueError: for input that does not fit, see ``attacks.Attack``.
      FloatingPointError: if logits are not finite.
    """
    protocol = judging.parse_protocol("fresh", decision, draws)
    arrays = on_arrays(
        key, logits_fn, images, labels, Clean(), protocol=protocol, batch_size=batch_size
    )
    return _accuracy(arrays, protocol)


def robust_accuracy(
    key: jax.Array,
    logits_fn: classifier.LogitsFn,
    images: jax.Array,
    labels: jax.Array,
    norm: str | None = None,
    eps: float | None = None,
    *,
    attack: Attack | Callable[..., jax.Array] | None = None,
    noise: str = "fresh",
    attack_noise: Literal["same", "frozen"] = "same",
    draws: int | None = None,
    decision: str = "single",
    surrogate: classifier.LogitsFn | None = None,
    batch_size: int | None = None,
) -> Accuracy:
    """Measure accuracy under attack, judged with keys that the attack has not seen.

    All images count, also those that are misclassified without an attack.

    Args:
      key, logits_fn, images, labels, decision, batch_size: as for ``accuracy``.
      norm: "linf", "l2" or "l1".
      eps: radius in pixel units. Norm and radius select the strongest attack that fits the
        classifier, see ``worst_case``; it takes thousands of passes for each image.
      attack: an attack to use instead: ``vonenet_pgd``, or ``attacks.Strongest`` of several. For a
        function ``(keys, logits_fn, images, labels) -> images``, norm and radius are its ball.
      noise: "fresh" or "frozen", see ``Protocol``.
      attack_noise: "same" as in the judgement, or "frozen": one draw for each example at the
        attack.
      draws: number R of decisions by which an example is judged. Default: 10, and 1 with frozen
        noise.
      surrogate: a classifier to attack instead, for instance the same network without noise;
        ``logits_fn`` is judged.

    Raises:
      TypeError, ValueError: for input that does not fit, or both or neither of an attack and a
        norm with a radius.
      FloatingPointError: if gradients or logits are not finite.

    Warns:
      UserWarning: if the attack may have failed, so that the accuracy is only an upper bound.
    """
    if attack is None:
        if norm is None or eps is None:
            raise ValueError("robust_accuracy needs norm and eps, or attack")
        seen = logits_fn if surrogate is None else surrogate
        seen, images, labels = classifier.check_batch(key, seen, images, labels)
        keys = prng.example_keys(key, len(images))
        varies = noise == "fresh" and attack_noise == "same"
        noisy = varies and classifier.has_noise(seen, keys, images)
        attack = worst_case(norm, eps, _DRAWS if noisy else 1)
    elif isinstance(attack, Attack):
        if not (norm is None and eps is None):
            raise ValueError("attack is given, so norm, eps must not be")
    else:
        ball = {"norm": norm, "eps": eps}
        attack = attacks.of(attack, **{n: v for n, v in ball.items() if v is not None})
    arguments.choice("noise", noise, ("fresh", "frozen"))
    # The classifier without noise is given as surrogate.
    known = ("same", "frozen") if surrogate is None else ("same",)
    arguments.choice("attack_noise", attack_noise, known)
    protocol = judging.parse_protocol(noise, decision, draws)
    seen_noise = attack_noise if surrogate is None else "none"
    attacked = Attacked(attack)
    arrays = on_arrays(
        key, logits_fn, images, labels, attacked, protocol=protocol, surrogate=surrogate,
        attack_noise=seen_noise, batch_size=batch_size,
    )  # fmt: skip
    # A function does not state whether it has noise. Gradients of a surrogate are not checked.
    checks = [] if surrogate is not None else quick_checks(arrays, stochastic=True)
    # The attack itself warns of probabilities in place of logits.
    failed = [check for check in checks if check.verdict == "fail" and check.name != "logits"]
    for doubt in (*attacked.doubts(arrays, seen_noise), *(check.meaning for check in failed)):
        warnings.warn(doubt, stacklevel=2)
    return _accuracy(arrays, protocol, attack)


def on_arrays(
    key: jax.Array,
    logits_fn: classifier.LogitsFn,
    images: jax.Array,
    labels: jax.Array,
    condition: Condition,
    *,
    protocol: Protocol | None = None,
    surrogate: classifier.LogitsFn | None = None,
    attack_noise: Literal["same", "none", "frozen"] = "same",
    others: Mapping[str, classifier.LogitsFn] | None = None,
    batch_size: int | None = None,
) -> dict[str, np.ndarray]:
    """The arrays that a condition makes of a classifier on images, such as those of ``Masking``.

    Args:
      key, logits_fn, images, labels, batch_size: as for ``accuracy``.
      condition: what is measured.
      protocol: how the classifier is judged. Default: ten decisions about an image.
      surrogate: the classifier without its noise, where the condition attacks it, too.
      attack_noise: the noise of the classifier at the attack, see ``judging.AttackNoise``.
      others: other classifiers by name, of which a condition carries images over.

    Raises:
      TypeError, ValueError: for input that does not fit.
      FloatingPointError: if gradients or logits are not finite.
    """
    whole = Batch(
        protocol or Protocol("fresh", _DRAWS),
        key,
        logits_fn,
        images,
        labels,
        attack_noise,
        None if surrogate is None else lambda noise: surrogate,
        others=others or {},
    )
    parts = list(measure(condition, _parts(whole, batch_size)))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """The robustness of a network at one radius.

    Attributes:
      clean: the accuracy without an attack, with its 95 % interval over the images.
      robust: the accuracy under the attack.
      masking: the worst verdict of ``checks``: "pass", "warning" or "fail". A network that fails
        may be less robust than its number says.
      checks: the checks for masked gradients that cost a few passes.
      attack: the attack in words.
      examples: number of images.
    """

    clean: Interval
    robust: Interval
    masking: Verdict
    checks: tuple[Check, ...]
    attack: str
    examples: int


def benchmark(
    network: Network | str | Path,
    *,
    norm: str = "linf",
    eps: float,
    examples: int | None = None,
    source: str | None = None,
    split: str | None = None,
    draws: int = _DRAWS,
    seed: int = 0,
    directory: Path | str | None = None,
    progress: Report = lambda count, found: None,
) -> Benchmark:
    """Measure a network without an attack and under the strongest attack that fits it.

    The results are files, as those of eval.py: a call with more examples goes on from one with
    fewer, if the number of images is a multiple of both. Noise is averaged over in the attack, and
    each image is judged by several decisions.

    Args:
      network: the network, or what ``open_network`` takes.
      norm: "linf", "l2" or "l1".
      eps: radius in pixel units.
      examples: number of images. Default: 5000, or all if there are fewer.
      source, split: the images, see ``data.load``. Default: those on which a run was validated.
      draws: decisions about each image of a network with noise.
      seed: root of all randomness.
      directory: directory of the result files. Default: that of eval.py.
      progress: see ``evaluate``.

    Raises:
      ValueError: for images that are not named or do not fit, or a radius that is out of range.
      FloatingPointError: if gradients or logits are not finite.
    """
    network = open_network(network)
    images, trained_on = find_images(network, [Clean()], source, split)
    evaluation = Evaluation(
        network,
        images,
        Path(directory) if directory is not None else default_directory(network),
        examples,
        Protocol("fresh", draws),
        seed=seed,
        trained_on=trained_on,
        keep_images=True,
    )
    attacked = Attacked(worst_case(norm, eps, evaluation.attack_draws))
    clean, robust = (evaluate(evaluation, each, progress) for each in (Clean(), attacked))
    checks = tuple(quick_checks(robust.arrays, network.stochastic))
    return Benchmark(
        clean=results.accuracy(clean.arrays["right"]),
        robust=results.accuracy(robust.arrays["right"]),
        masking=VERDICTS[max(VERDICTS.index(check.verdict) for check in checks)],
        checks=checks,
        attack=robust.label,
        examples=len(robust.arrays["index"]),
    )


def _parts(whole: Batch, batch_size: int | None) -> Iterator[Batch]:
    """The batches of the arguments of a user, after their checks."""
    key = whole.example_keys
    logits_fn, images, labels = classifier.check_batch(
        key, whole.logits_fn, whole.images, whole.labels
    )
    count = images.shape[0]
    if batch_size is not None:
        arguments.count("batch_size", batch_size)
    size = min(batch_size or count, count)
    keys = prng.example_keys(key, count)
    for start in range(0, count, size):
        # The last batch is filled up with its last example, so that nothing is compiled again.
        places = np.arange(start, start + size)
        rows = np.minimum(places, count - 1)
        yield dataclasses.replace(
            whole,
            example_keys=keys[rows],
            logits_fn=logits_fn,
            images=images[rows],
            labels=labels[rows],
            index=rows,
            mask=places < count,
        )


def _accuracy(
    arrays: Mapping[str, np.ndarray], protocol: Protocol, attack: Attack | None = None
) -> Accuracy:
    top_5 = arrays.get("right in top 5")
    found = results.accuracy(arrays["right"])
    return Accuracy(
        accuracy=found.value,
        interval=(found.low, found.high),
        right=arrays["right"],
        top_5=None if top_5 is None else results.accuracy(top_5).value,
        loss=arrays["loss"],
        distance=arrays.get("distance"),
        winner=arrays.get("winner"),
        protocol=protocol,
        attack=attack,
    )
