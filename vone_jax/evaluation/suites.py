"""The conditions that the suites of a request stand for."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from vone_jax import corruptions, names, prng
from vone_jax.attacks import APGD, FMN, AutoAttack, Square
from vone_jax.evaluation.conditions import Attacked, Clean, Condition, Corrupted, Minimal, WorstOf
from vone_jax.evaluation.judging import AttackNoise
from vone_jax.evaluation.masking import Masking
from vone_jax.evaluation.request import AT_RADII, MASKING, Request, ladder
from vone_jax.network import Network


def attacked(
    request: Request, norm: str, eps: float, network: Network, attack_noise: AttackNoise = "same"
) -> Attacked:
    """The condition for one radius."""
    # Averaging over draws makes sense only if the draws differ.
    differ = attack_noise not in ("none", "frozen")
    if attack_noise == "same":
        differ = _noisy(request, network)
    return Attacked(request.pgd(norm, eps, differ), attack_noise)


def _noisy(request: Request, network: Network) -> bool:
    """True if the network's own noise differs between the passes of an attack."""
    return network.stochastic and request.noise == "fresh"


def _at_radius(
    name: str, request: Request, eps: float, network: Network, other: Network | None
) -> Condition:
    """The condition of a suite in the norm of the request, for one radius."""
    norm, noisy = request.norm, _noisy(request, network)
    draws = request.eot_samples if noisy else 1
    if name == MASKING:
        return Masking(
            norm,
            eps,
            noisy,
            transfer="" if other is None else f"{other.name}, weights {other.weights}",
            eot_samples=request.eot_samples,
            without_noise=network.model is not None,
            transfer_stochastic=other is not None and other.stochastic,
        )
    if name == "autoattack":
        return Attacked(AutoAttack(norm, eps, version="rand" if noisy else "standard"))
    if name == "square":
        return Attacked(Square(norm, eps, eot_samples=draws))
    apgd = APGD(norm, eps, eot_samples=draws)
    if name == "apgd":
        return Attacked(apgd)
    usual = request.pgd(norm, eps, noisy)
    margin = dataclasses.replace(usual, loss="margin", random_start=True)
    return WorstOf((usual, margin, apgd, dataclasses.replace(apgd, loss="margin")))


def _corrupted(
    request: Request, usual: Sequence[str], severities: Sequence[int], shape: tuple[int, int, int]
) -> list[Corrupted]:
    """The corruptions of the request, else the usual ones."""
    frost = None if request.frost_dir is None else corruptions.load_frost(request.frost_dir)
    chosen = request.corruptions or usual
    if frost is None:
        chosen = [names.PROCEDURAL_FROST if name == "frost" else name for name in chosen]
    corrupted = [
        Corrupted(name, severity, request.form, frost if name == "frost" else None)
        for name in chosen
        for severity in request.severities or severities
    ]
    # Images that are too small for a corruption raise an error now, before any work.
    images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    keys = jax.eval_shape(lambda: prng.example_keys(jax.random.key(0), 1))
    for one_severity in {each.corruption: each for each in corrupted}.values():
        try:
            jax.eval_shape(one_severity.corrupt, keys, images)
        except ValueError as error:
            # Drop JAX's note about tracing. The command line takes a note as a sign that a function
            # of the user has failed.
            raise ValueError(*error.args) from None
    return corrupted


# Corruptions and severities of a suite, unless the request names others.
CORRUPTIONS: dict[str, tuple[Sequence[str], Sequence[int]]] = {
    "corruptions": (
        (*corruptions.SETS["common"], *corruptions.SETS["extra"]),
        corruptions.SEVERITIES,
    ),
    "corruptions_quick": (
        (
            "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "brightness",
            "contrast", "pixelate", "speckle_noise", "gaussian_blur",
        ),
        (3,),
    ),
}  # fmt: skip


def conditions(
    suite: Sequence[str],
    request: Request,
    network: Network,
    attack_noise: AttackNoise = "same",
    other: Network | None = None,
) -> list[Condition]:
    """The conditions of suites, each once.

    Args:
      suite: expanded names; ``PHYSIOLOGY``, ``GALLERY`` and ``FRONT_END`` have no conditions.
      request: settings of attacks and corruptions.
      network: the network that is evaluated.
      attack_noise: the noise at the attack, see ``Attacked``.
      other: a network whose adversarial images the masking checks carry over.

    Raises:
      ValueError: if the images are too small for a corruption.
    """
    shape = network.image_shape
    members: list[Condition] = []
    for name in suite:
        if name == "clean":
            members.append(Clean())
        elif name in names.NORMS:
            eps = request.eps or ladder(name, request.points, shape)
            members += [attacked(request, name, each, network, attack_noise) for each in eps]
        elif name in AT_RADII:
            eps = request.eps or (ladder(request.norm, 4, shape)[2],)
            members += [_at_radius(name, request, each, network, other) for each in eps]
        elif name == "minimal":
            eps = request.eps or ladder(request.norm, 9, shape)
            draws = request.eot_samples if _noisy(request, network) else 1
            attack = FMN(request.norm, max(eps), eot_samples=draws)
            members.append(Minimal(attack, eps, moved=_noisy(request, network)))
        elif name in CORRUPTIONS:
            members += _corrupted(request, *CORRUPTIONS[name], shape)
    found: dict[str, Condition] = {}
    for each in members:
        if found.setdefault(each.name, each).record() != each.record():
            raise ValueError(
                f"eps must hold radii that differ in the first four digits, got two for the result "
                f"{each.name!r}"
            )
    return list(found.values())
