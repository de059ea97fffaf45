"""Grade attacks on networks whose answer is known: ``python -m benchmarks truth --csv FILE``.

Each attack of this project and of the toolkits that are installed attacks the networks of
``vone_jax.answer_key``. A row has three accuracies: the one that the attack's toolkit reports, the
exact one of the images that it returns, and the truth. A reported accuracy below the truth is as
wrong as one above it. The exact one of the images is never below the truth. ``warned`` says whether
this project's evaluation of the attack warns that the accuracy may be too high.

The toolkits run on PyTorch, and see the same network, in JAX, through ``torch_module``. Rows are
written one by one, and those that the file already has are kept. So a run may be stopped.
"""

import argparse
import contextlib
import csv
import functools
import importlib
import io
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from vone_jax import __version__, answer_key, attacks, evaluation, prng
from vone_jax.answer_key import RADIUS, Problem

# Settings of iterated attacks: steps of 2.5 eps / steps, and noise draws in a gradient.
STEPS, DRAWS = 20, 10
# Name of a network -> the norms in which it is attacked.
NORMS = {
    "linear": ("linf", "l2", "l1"),
    "linear_classes": ("linf",),
    "energy": ("linf", "l2"),
    "shared_gain": ("linf",),
    "switched_noise": ("linf", "l2"),
    "quantised": ("linf",),
    "v1_templates": ("linf",),
}
COLUMNS = (
    "network", "norm", "eps", "package", "package_version", "attack", "reported", "exact",
    "truth_low", "truth_high", "gradients", "warned", "schema", "version", "command", "checksum",
)  # fmt: skip


def radius(name: str, norm: str, values: int) -> float:
    """Return the radius for images of a number of values: one that takes about a third of them."""
    if name == "v1_templates":
        return RADIUS / 8
    return {"linf": RADIUS, "l2": RADIUS * values**0.5, "l1": 0.7 * RADIUS * values}[norm]


class Target:
    """A problem, in one norm and with one radius, and a count of the gradients that are taken.

    Attributes:
      problem, norm, eps: see ``answer_key.Problem``.
      gradients: gradients of single images and draws since the last reset.
    """

    def __init__(self, problem: Problem, norm: str, eps: float):
        self.problem, self.norm, self.eps = problem, norm, eps
        self.gradients = 0
        self._calls = 0

    def counted(self) -> Any:
        """Return the network in JAX, with its gradients counted."""

        def add(slope: np.ndarray) -> None:
            self.gradients += len(slope)

        # Of the logits, which differ between draws, and not of the images, which are the same.
        @jax.custom_vjp
        def watched(logits: jax.Array) -> jax.Array:
            return logits

        def backward(_: None, slope: jax.Array) -> tuple[jax.Array]:
            jax.debug.callback(add, slope[:, 0])
            return (slope,)

        watched.defvjp(lambda logits: (logits, None), backward)

        def logits_fn(network: Any, keys: jax.Array, images: jax.Array) -> jax.Array:
            # Behind steps JAX knows that the gradient is 0 and takes none. The added 0 has one.
            nothing = 0 * jnp.sum(images, axis=(1, 2, 3))
            return watched(network(keys, images) + nothing[:, None])

        return Partial(logits_fn, self.problem.logits_fn)

    def next_keys(self) -> jax.Array:
        """Return new keys for a pass of a toolkit that knows no keys."""
        self._calls += 1
        key = prng.fold(jax.random.key(1), self._calls)
        return prng.example_keys(key, len(self.problem.images))

    def torch_module(self) -> Any:
        """Return the network as a module of PyTorch on NCHW images, with new noise in each pass."""
        import torch

        network, size = self.problem.logits_fn, len(self.problem.images)

        def padded(tensor: Any) -> jax.Array:
            # One size, so that nothing is compiled again where a toolkit drops images.
            array = tensor.detach().cpu().numpy().astype(np.float32)
            full = np.zeros((size, *array.shape[1:]), np.float32)
            full[: len(array)] = array
            return jnp.asarray(full)

        target = self

        class Network(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, images: Any) -> Any:
                ctx.keys, ctx.images = target.next_keys(), padded(images.permute(0, 2, 3, 1))
                logits = _logits(network, ctx.keys, ctx.images)
                return torch.from_numpy(np.array(logits[: len(images)])).to(images)

            @staticmethod
            def backward(ctx: Any, *slopes: Any) -> Any:
                (slope,) = slopes
                target.gradients += len(slope)
                found = _gradient(network, ctx.keys, ctx.images, padded(slope))
                found = np.array(found[: len(slope)]).transpose(0, 3, 1, 2)
                return torch.from_numpy(np.ascontiguousarray(found)).to(slope)

        class Module(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                # Toolkits look for the device of the first parameter.
                self.unused = torch.nn.Parameter(torch.zeros(1))

            def forward(self, images: Any) -> Any:
                return torch.cat([Network.apply(part) for part in images.split(size)])

        return Module().eval()

    def tensors(self) -> tuple[Any, Any]:
        """Return the images (NCHW) and the labels as tensors."""
        import torch

        images = np.array(self.problem.images).transpose(0, 3, 1, 2)
        labels = np.array(self.problem.labels, np.int64)
        return torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(labels)


@jax.jit
def _logits(network: Any, keys: jax.Array, images: jax.Array) -> jax.Array:
    return network(keys, images)


@jax.jit
def _gradient(network: Any, keys: jax.Array, images: jax.Array, slope: jax.Array) -> jax.Array:
    return jax.vjp(lambda images: network(keys, images), images)[1](slope)[0]


class Found(NamedTuple):
    """What an attack returned.

    Attributes:
      images: NHWC.
      reported: the accuracy that a user of the toolkit reads.
      warned: whether the accuracy comes with a warning that it may be too high. Ours only.
    """

    images: np.ndarray
    reported: float
    warned: bool | None = None


Entrants = dict[str, Callable[[], Found]]


def ours(target: Target) -> Entrants:
    """Attacks of this project, judged by ten draws that they have not seen."""
    norm, eps, problem = target.norm, target.eps, target.problem
    classes = problem.logits_fn(target.next_keys(), problem.images).shape[-1]
    draws: dict[str, Any] = {"eot_samples": DRAWS}
    pgd = functools.partial(attacks.PGD, norm, eps, steps=STEPS)
    apgd = functools.partial(attacks.APGD, norm, eps, steps=100)
    margin = apgd(loss="margin", **draws)
    made: dict[str, attacks.Attack] = {
        "random noise": attacks.RandomNoise(norm, eps),
        "FGSM, 1 draw": attacks.FGSM(norm, eps),
        "FGSM, 10 draws": attacks.FGSM(norm, eps, **draws),
        "PGD, 1 draw": pgd(),
        "PGD, 10 draws": pgd(**draws),
        "PGD, 10 draws, random start": pgd(random_start=True, **draws),
        "PGD, 10 draws, mean logits": pgd(estimator="mean_logits", **draws),
        "PGD, 10 draws, mean probability": pgd(estimator="mean_probability", **draws),
        "PGD, 10 draws, margin": pgd(loss="margin", **draws),
        "PGD, 10 draws, momentum": pgd(momentum=1.0, **draws),
        "PGD, 10 draws, best iterate": pgd(keep="best", **draws),
        "PGD, 10 draws, stopped early": pgd(early_stop=True, **draws),
        "PGD, steps that reach half of the radius": pgd(step_size=eps / 40, **draws),
        "APGD, 1 draw": apgd(),
        "APGD, 10 draws": apgd(**draws),
        "APGD, 10 draws, margin": margin,
        "Square, 500 queries, 1 draw": attacks.Square(norm, eps, queries=500),
        "Square, 500 queries, 10 draws": attacks.Square(norm, eps, queries=500, **draws),
        "the strongest of two": attacks.Strongest((pgd(**draws), margin)),
        "the strongest of four (worst_case)": evaluation.worst_case(norm, eps, DRAWS),
        "FMN, 10 draws": attacks.FMN(norm, eps, **draws),
    }
    if norm != "l1":
        made["DeepFool, 10 draws"] = attacks.DeepFool(norm, eps, **draws)
    made["FAB, 10 draws"] = attacks.FAB(norm, eps, **draws)
    if norm == "linf":
        made["SPSA, 10 draws"] = attacks.SPSA(norm, eps, steps=20, samples=32, **draws)
    if norm == "l2":
        made["CW, 10 draws"] = attacks.CW(norm, eps, **draws)
    if classes > 2:
        made["APGD, 10 draws, DLR"] = apgd(loss="dlr", **draws)
        made["APGD, 10 draws, each target"] = apgd(loss="targeted_dlr", **draws)
        made["AutoAttack rand"] = attacks.AutoAttack(norm, eps, version="rand")
    if classes > 3:
        made["AutoAttack standard"] = attacks.AutoAttack(norm, eps)

    def run(attack: attacks.Attack) -> Found:
        key, judge = jax.random.split(jax.random.key(0))
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            best = attack.choose(
                key, target.counted(), problem.images, problem.labels,
                batch_size=len(problem.images),
            )  # fmt: skip
            jax.effects_barrier()
            # The evaluation gets these images, whose gradients are counted.
            with mock.patch.object(attacks.Attack, "choose", lambda *_, **__: best):
                judged = evaluation.robust_accuracy(
                    judge, problem.logits_fn, problem.images, problem.labels, attack=attack
                )
        warned = any(issubclass(each.category, UserWarning) for each in told)
        return Found(np.asarray(best.images), judged.accuracy, warned)

    return {name: functools.partial(run, attack) for name, attack in made.items()}


def _one_pass(target: Target, images: Any) -> Found:
    """Count right answers in one pass, which users of most toolkits do."""
    images = np.asarray(images).transpose(0, 2, 3, 1)
    logits = _logits(target.problem.logits_fn, target.next_keys(), jnp.asarray(images))
    right = np.asarray(jnp.argmax(logits, axis=-1) == target.problem.labels)
    return Found(images, float(right.mean()))


def pyautoattack(target: Target) -> Entrants:
    """AutoAttack, whose own tally counts an image as lost at the first wrong pass."""
    import pyautoattack as package

    # The DLR loss of "rand" needs three classes, and the targeted losses of "standard" four.
    classes = target.torch_module()(target.tensors()[0]).shape[1]
    members = ["apgd-ce", "apgd-dlr"] if classes > 2 else ["apgd-ce"]
    made = {"AutoAttack rand" + (" without DLR" if classes < 3 else ""): (members, 20)}
    made["AutoAttack without draws: APGD-CE and Square"] = (["apgd-ce", "square"], 1)

    # Names that the package's types list one by one.
    def run(members: Any, draws: int) -> Found:
        images, labels = target.tensors()
        norm: Any = {"linf": "Linf", "l2": "L2", "l1": "L1"}[target.norm]
        attack = package.AutoAttack(
            target.torch_module(), norm=norm, eps=target.eps, seed=0, version="custom",
            attacks=members,
        )  # fmt: skip
        attack.apgd.n_restarts, attack.apgd.eot_iter = 1, draws
        attack.square.n_queries = 500
        found, decided = attack.run_standard_evaluation(images, labels, batch_size=len(images))
        reported = float((decided == labels).float().mean())
        return Found(found.numpy().transpose(0, 2, 3, 1), reported)

    return {name: functools.partial(run, *each) for name, each in made.items()}


def torchattacks(target: Target) -> Entrants:
    """Attacks of torchattacks, which return images; the accuracy is that of one pass."""
    import torchattacks as package

    eps, step = target.eps, 2.5 * target.eps / STEPS
    made: dict[str, tuple[Any, dict[str, Any]]] = {}
    if target.norm == "linf":
        usual = {"eps": eps, "alpha": step, "steps": STEPS}
        made = {
            "FGSM": (package.FGSM, {"eps": eps}),
            "PGD": (package.PGD, usual),
            "EOTPGD, 10 draws": (package.EOTPGD, usual | {"eot_iter": DRAWS}),
        }
    if target.norm == "l2":
        made = {"PGDL2": (package.PGDL2, {"eps": eps, "alpha": step, "steps": STEPS})}
    if target.norm != "l1":
        norm = {"linf": "Linf", "l2": "L2"}[target.norm]
        options = {"norm": norm, "eps": eps, "steps": 100, "eot_iter": DRAWS}
        made["APGD, 10 draws"] = (package.APGD, options)

    def run(attack: Any, options: dict[str, Any]) -> Found:
        images = attack(target.torch_module(), **options)(*target.tensors())
        return _one_pass(target, images.detach())

    return {name: functools.partial(run, *each) for name, each in made.items()}


def foolbox(target: Target) -> Entrants:
    """PGD of foolbox, alone and behind its wrapper, whose own success is what is reported."""
    from foolbox import attacks as package
    from foolbox.models.pytorch import PyTorchModel
    from foolbox.models.wrappers import ExpectationOverTransformationWrapper as Averaged

    kind = {"linf": "LinfPGD", "l2": "L2PGD", "l1": "L1PGD"}[target.norm]

    def run(draws: int) -> Found:
        network: Any = PyTorchModel(target.torch_module(), bounds=(0, 1), device="cpu")
        if draws > 1:
            network = Averaged(network, n_steps=draws)
        attack = getattr(package, kind)(rel_stepsize=2.5 / STEPS, steps=STEPS)
        _, images, success = attack(network, *target.tensors(), epsilons=target.eps)
        return Found(
            images.detach().numpy().transpose(0, 2, 3, 1), 1 - float(success.float().mean())
        )

    return {
        "PGD": functools.partial(run, 1),
        f"PGD, EOT wrapper of {DRAWS} draws": functools.partial(run, DRAWS),
    }


def art(target: Target) -> Entrants:
    """PGD of ART, alone and on ten copies of the network, as VOneNets have been evaluated."""
    import torch
    from art.attacks import evasion
    from art.estimators.classification import EnsembleClassifier, PyTorchClassifier

    images, labels = (tensor.numpy() for tensor in target.tensors())
    classes = target.torch_module()(target.tensors()[0]).shape[1]
    order = {"linf": np.inf, "l2": 2, "l1": 1}[target.norm]

    def classifier() -> Any:
        return PyTorchClassifier(
            target.torch_module(), torch.nn.CrossEntropyLoss(), images.shape[1:], classes,
            clip_values=(0.0, 1.0), device_type="cpu",
        )  # fmt: skip

    def run(copies: int) -> Found:
        network = classifier()
        if copies > 1:
            several = [classifier() for _ in range(copies)]
            network = EnsembleClassifier(several, channels_first=True, clip_values=(0.0, 1.0))
        attack = evasion.ProjectedGradientDescent(
            network, norm=order, eps=target.eps, eps_step=2.5 * target.eps / STEPS, max_iter=STEPS,
            batch_size=len(images), verbose=False,
        )  # fmt: skip
        return _one_pass(target, attack.generate(images, np.eye(classes)[labels]))

    return {
        "PGD": functools.partial(run, 1),
        f"PGD on {DRAWS} copies": functools.partial(run, DRAWS),
    }


# Package -> its entrants and the name of its distribution.
PACKAGES: dict[str, tuple[Callable[[Target], Entrants], str]] = {
    "vone_jax": (ours, "vone_jax"),
    "pyautoattack": (pyautoattack, "pyautoattack"),
    "torchattacks": (torchattacks, "torchattacks"),
    "foolbox": (foolbox, "foolbox"),
    "art": (art, "adversarial-robustness-toolbox"),
}


def installed(chosen: Sequence[str]) -> dict[str, tuple[Callable[[Target], Entrants], str]]:
    """Return the chosen packages that are installed, with their versions."""
    found = {}
    for name in chosen:
        entrants, distribution = PACKAGES[name]
        try:
            if name != "vone_jax":
                importlib.import_module("torch")
                importlib.import_module(name)
            found[name] = entrants, metadata.version(distribution)
        except ModuleNotFoundError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
    return found


def grade(
    networks: Sequence[str],
    packages: Sequence[str],
    chosen: Sequence[str] | None,
    examples: int | None,
    done: set[tuple],
) -> Iterator[dict[str, Any]]:
    """Yield a row for each chosen attack that is not done: network, norm, package and name."""
    present = installed(packages)
    for name in networks:
        problem = answer_key.PROBLEMS[name](**({} if examples is None else {"examples": examples}))
        for norm in NORMS[name]:
            eps = radius(name, norm, problem.images[0].size)
            target = Target(problem, norm, eps)
            low, high = problem.bounds(eps, norm)
            # A process can hold the programs of about two networks.
            jax.clear_caches()
            for package, (entrants, version) in present.items():
                for attack, run in entrants(target).items():
                    if (name, norm, package, attack) in done or attack not in (chosen or [attack]):
                        continue
                    target.gradients = 0
                    # The toolkits print.
                    with contextlib.redirect_stdout(io.StringIO()):
                        images, reported, warned = run()
                    _check(target, images, f"{package} {attack}")
                    yield {
                        "network": name,
                        "norm": norm,
                        "eps": f"{eps:.6g}",
                        "package": package,
                        "package_version": version,
                        "attack": attack,
                        "reported": f"{reported:.4f}",
                        "exact": f"{problem.probability(images).mean():.4f}",
                        "truth_low": f"{low.mean():.4f}",
                        "truth_high": f"{high.mean():.4f}",
                        "gradients": round(target.gradients / len(images)),
                        "warned": "" if warned is None else "yes" if warned else "no",
                        "schema": 1,
                        "version": __version__,
                        "command": "python -m benchmarks truth --csv truth.csv",
                        "checksum": "",
                    }


def _check(target: Target, images: np.ndarray, attack: str) -> None:
    """Check that images are in [0, 1] and within the radius, up to rounding."""
    moved = (images.astype(np.float64) - np.asarray(target.problem.images, np.float64)).reshape(
        len(images), -1
    )
    order = {"linf": np.inf, "l2": 2, "l1": 1}[target.norm]
    size = np.linalg.norm(moved, order, axis=1).max()
    if not (size <= target.eps * (1 + 1e-4) and images.min() >= 0 and images.max() <= 1):
        raise ValueError(f"{attack} left the ball or [0, 1]: {size:.6g} of {target.eps:.6g}")


def draw(rows: Sequence[dict[str, str]], path: Path) -> None:
    """Draw the errors of all attacks: reported minus truth, and exact minus truth, in points."""
    import matplotlib.pyplot as plt

    rows = [row for row in rows if row["truth_low"] == row["truth_high"]]
    names = list(dict.fromkeys((row["package"], row["attack"]) for row in rows))
    names.sort(key=lambda name: list(PACKAGES).index(name[0]))
    networks = list(dict.fromkeys((row["network"], row["norm"]) for row in rows))
    figure, axes = plt.subplots(1, 2, figsize=(12, 0.32 * len(names) + 1.6), sharey=True)
    words = {"linf": "L∞", "l2": "L2", "l1": "L1"}
    for axis, column, title in (
        (axes[0], "reported", "reported accuracy − truth, points"),
        (axes[1], "exact", "exact accuracy of the images − truth, points"),
    ):
        axis.axvline(0, color="black", linewidth=0.8)
        for place, (network, norm) in enumerate(networks):
            own = [row for row in rows if (row["network"], row["norm"]) == (network, norm)]
            errors = [100 * (float(row[column]) - float(row["truth_low"])) for row in own]
            heights = [names.index((row["package"], row["attack"])) for row in own]
            shift = 0.5 * (place / max(len(networks) - 1, 1) - 0.5)
            axis.scatter(
                errors, np.array(heights) + shift, s=22, marker="osD^vP*Xd<>"[place % 11],
                label=f"{network.replace('_', ' ')}, {words[norm]}", zorder=2,
            )  # fmt: skip
        axis.set_xlabel(title)
        axis.grid(alpha=0.3)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    axes[0].set_yticks(range(len(names)), [f"{package}: {attack}" for package, attack in names])
    axes[0].set_ylim(len(names) - 0.4, -0.6)
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="upper center", ncol=5, frameon=False, fontsize=8
    )
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.5 / figure.get_figheight()), w_pad=3)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def read(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table, none if there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def main(argv: Sequence[str]) -> int:
    """Grade attacks with the given arguments and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks truth", description=__doc__)
    parser.add_argument("--csv", type=Path, default=Path("truth.csv"), help="File of the table.")
    parser.add_argument("--figure", type=Path, help="PNG of the errors.")
    parser.add_argument("--networks", nargs="+", choices=NORMS, default=list(NORMS))
    parser.add_argument("--packages", nargs="+", choices=PACKAGES, default=list(PACKAGES))
    parser.add_argument("--attacks", nargs="+", metavar="NAME", help="Default: all.")
    parser.add_argument("--examples", type=int, help="Images of each network.")
    options = parser.parse_args(argv)
    rows = read(options.csv)
    done = {(row["network"], row["norm"], row["package"], row["attack"]) for row in rows}
    with options.csv.open("a", newline="") as file:
        table: csv.DictWriter[str] = csv.DictWriter(file, COLUMNS)
        if not rows:
            table.writeheader()
        for row in grade(
            options.networks, options.packages, options.attacks, options.examples, done
        ):
            table.writerow(row)
            file.flush()
            print(*row.values(), sep="  ", flush=True)
    if options.figure is not None:
        draw(read(options.csv), options.figure)
    return 0
