"""Whole attacks on a small CNN, where the loop itself is a large part of the time."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks import small_cnn, torch_baseline
from benchmarks.sizes import Sizes
from benchmarks.small_cnn import EPS, NUM_CLASSES
from benchmarks.timing import KEEPING, OURS, Case, Program, jax_program, keeping_memory
from vone_jax import attacks, mesh

STEP = 2 / 255


def pgd(sizes: Sizes) -> Case:
    """Linf-PGD on a deterministic classifier, from the image itself, the same for all."""

    def naive() -> Program:
        """A loop in Python around a compiled gradient."""
        target = small_cnn.target(sizes)
        clean, labels = jnp.asarray(target.images), jnp.asarray(target.labels)

        def loss(x):
            logits = small_cnn.logits(target.weights, x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        gradient = jax.jit(jax.grad(loss))

        def run():
            x = clean
            for _ in range(sizes.loop_steps):
                x = x + STEP * jnp.sign(gradient(x))
                x = jnp.clip(jnp.clip(x, clean - EPS, clean + EPS), 0.0, 1.0)
            return jax.block_until_ready(x)

        return Program(run, resisting=target.resisting)

    def by_torchattacks() -> Program:
        import torchattacks

        target = small_cnn.target(sizes)
        model = torch_baseline.small_cnn(target.weights)
        attack = torchattacks.PGD(
            model, eps=EPS, alpha=STEP, steps=sizes.loop_steps, random_start=False
        )
        return _torch_program(attack, target)

    def by_foolbox() -> Program:
        """Its attack on a function in JAX, a compiled one."""
        from foolbox.attacks import LinfPGD
        from foolbox.models.jax import JAXModel

        target = small_cnn.target(sizes)
        images, labels = jnp.asarray(target.images), jnp.asarray(target.labels)
        model = JAXModel(jax.jit(lambda x: small_cnn.logits(target.weights, x)), bounds=(0, 1))
        attack = LinfPGD(abs_stepsize=STEP, steps=sizes.loop_steps, random_start=False)
        return Program(
            lambda: jax.block_until_ready(attack(model, images, labels, epsilons=EPS)[1]),
            resisting=target.resisting,
        )

    contenders = {
        **_ours(attacks.PGD("linf", EPS, steps=sizes.loop_steps, step_size=STEP), sizes),
        "naive JAX": keeping_memory(naive),
        "torchattacks": by_torchattacks,
        f"torchattacks, {KEEPING}": keeping_memory(by_torchattacks),
        "foolbox, JAX": keeping_memory(by_foolbox),
    }
    name = f"PGD-{sizes.loop_steps} on a small CNN"
    return Case(name, sizes.loop_batch, contenders, sizes.repeats)


def apgd(sizes: Sizes) -> Case:
    """Auto-PGD on the cross-entropy, one run from a random start of each program's own."""

    def by_torchattacks() -> Program:
        import torchattacks

        target = small_cnn.target(sizes)
        model = torch_baseline.small_cnn(target.weights)
        attack = torchattacks.APGD(model, norm="Linf", eps=EPS, steps=sizes.auto_steps)
        return _torch_program(attack, target)

    def by_pyautoattack() -> Program:
        target = small_cnn.target(sizes)
        ensemble = _pyautoattack(target, version="custom", attacks=["apgd-ce"])
        ensemble.apgd.n_restarts = 1
        ensemble.apgd.n_iter = sizes.auto_steps
        return _ensemble_program(ensemble, target)

    contenders = {
        **_ours(attacks.APGD("linf", EPS, steps=sizes.auto_steps), sizes),
        "torchattacks": by_torchattacks,
        f"torchattacks, {KEEPING}": keeping_memory(by_torchattacks),
        "pyautoattack": by_pyautoattack,
    }
    name = f"APGD-{sizes.auto_steps} on a small CNN"
    return Case(name, sizes.loop_batch, contenders, sizes.repeats)


def auto_attack(sizes: Sizes) -> Case:
    """AutoAttack with its host loop, which leaves out the images that have fallen.

    Its portions have one size, and are filled up: the smaller, the less is attacked for nothing.
    """
    steps = sizes.ensemble_steps

    def ours(portion: int) -> Program:
        target = small_cnn.target(sizes).first(sizes.ensemble_batch)
        attack = attacks.AutoAttack("linf", EPS, batch_size=portion)
        if steps is not None:
            members = tuple(_shortened(member, steps) for member in attack.members(NUM_CLASSES))
            attack = dataclasses.replace(attack, version="custom", attacks=members)
        images, labels = jnp.asarray(target.images), jnp.asarray(target.labels)
        sharing = math.gcd(jax.device_count(), sizes.ensemble_batch)
        if sharing > 1:
            devices = mesh.data_mesh(jax.devices()[:sharing])
            images, labels = mesh.shard_batch(devices, (target.images, target.labels))
        return Program(
            lambda: jax.block_until_ready(attack(target.keys, target.logits_fn, images, labels)),
            compiles_when_run=True,
            resisting=target.resisting,
        )

    def by_pyautoattack() -> Program:
        target = small_cnn.target(sizes).first(sizes.ensemble_batch)
        ensemble = _pyautoattack(target, version="standard")
        if steps is not None:
            for member in (ensemble.apgd, ensemble.apgd_targeted, ensemble.fab):
                member.n_iter = steps
            ensemble.square.n_queries = steps
        # Its memory would take another run of minutes.
        return dataclasses.replace(_ensemble_program(ensemble, target), memory=lambda: None)

    contenders = {
        OURS: keeping_memory(functools.partial(ours, sizes.ensemble_batch)),
        f"{OURS}, {sizes.ensemble_part} at a time": keeping_memory(
            functools.partial(ours, sizes.ensemble_part)
        ),
        "pyautoattack": by_pyautoattack,
    }
    name = "AutoAttack" if steps is None else f"AutoAttack cut to {steps} steps"
    return Case(f"{name} on a small CNN", sizes.ensemble_batch, contenders, sizes.ensemble_repeats)


def _shortened(member: Any, steps: int) -> Any:
    field = "queries" if isinstance(member, attacks.Square) else "steps"
    return dataclasses.replace(member, **{field: steps})


def _ours(attack: attacks.Attack, sizes: Sizes) -> dict[str, Callable[[], Program]]:
    """Our attack on all images at once, and on so many at a time on every device."""

    def program(attack: attacks.Attack) -> Program:
        target = small_cnn.target(sizes)
        images, labels = jnp.asarray(target.images), jnp.asarray(target.labels)
        compiled = jax_program(attack.perturb, target.keys, target.logits_fn, images, labels)
        return dataclasses.replace(compiled, resisting=target.resisting)

    def in_batches() -> Program:
        return program(attacks.InBatches(attack, sizes.loop_part, mesh.data_mesh()))

    return {
        OURS: keeping_memory(lambda: program(attack)),
        f"{OURS}, {sizes.loop_part} at a time on every device": keeping_memory(in_batches),
    }


def _torch_program(attack: Callable[..., Any], target: small_cnn.Target) -> Program:
    """A program of a function of images and labels to adversarial images."""
    tensors = torch_baseline.tensors(target.images, target.labels)
    return dataclasses.replace(
        torch_baseline.program(lambda: attack(*tensors)),
        resisting=lambda adversarial: target.resisting(torch_baseline.from_tensor(adversarial)),
    )


def _pyautoattack(target: small_cnn.Target, **options: Any):
    import pyautoattack

    model = torch_baseline.small_cnn(target.weights)
    return pyautoattack.AutoAttack(
        model, norm="Linf", eps=EPS, seed=0, device=torch_baseline.device(), **options
    )


def _ensemble_program(ensemble, target: small_cnn.Target) -> Program:
    size = len(target.images)
    return _torch_program(
        lambda images, labels: ensemble.run_standard_evaluation(images, labels, batch_size=size)[0],
        target,
    )
