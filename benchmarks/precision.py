"""Measure what the precision of products changes: ``python -m benchmarks.precision RUN_DIR ...``.

A TPU multiplies in 1, 3 or 6 passes of bfloat16, a GPU by default in TF32, and a CPU in float32
(``benchmarks.passes``). Here a CPU computes all of them, on the same images with the same keys:

  products     logits, gradients of images, predictions and clean accuracy of trained networks
  attacks      their accuracy under attack
  physiology   the V1 scores of a Gabor bank
  training     the accuracy of networks that are trained in each precision, for several seeds

A difference is the probability of being right minus that in float32, as the mean over images with
its 95 % interval. If no image changes, the interval has no width.
"""

import contextlib
import dataclasses
import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vone_jax
from benchmarks import table
from benchmarks.passes import PASSES, on_matrix_unit
from vone_jax import attacks, cli, evaluation, fast, models, neurophysiology, prng, training, v1
from vone_jax import mesh as meshes
from vone_jax.evaluation.job import batches, place
from vone_jax.evaluation.judging import Trial
from vone_jax.results.statistics import QUANTILE
from vone_jax.training.setup import prepare

FLOAT32 = "float32"
# What a GPU does by default.
TF32 = "tf32"
PRECISIONS = (FLOAT32, TF32, *PASSES)
# Attacks, with their radii in L-infinity times 255.
ATTACKS = ("pgd-4", "pgd-16", "apgd-4")
PARTS = ("products", "attacks", "physiology", "training")
# Measured values by network or seed, by condition, and by precision.
Numbers = dict[str, Any]


def compiled(function: Callable[..., Any], precision: str) -> Callable[..., Any]:
    """Return ``function``, compiled with its products in one of ``PRECISIONS``."""
    if precision == FLOAT32:
        return jax.jit(function)

    level, platform = ("default", "gpu") if precision == TF32 else (precision, "tpu")

    def computed(*arguments: Any) -> Any:
        with jax.default_matmul_precision(level):
            return on_matrix_unit(function, platform)(*arguments)

    return jax.jit(computed)


def paired(right: np.ndarray, reference: np.ndarray) -> Numbers:
    """Return the mean difference of two arrays (N,) of probabilities, with its 95 % interval."""
    change = right - reference
    half = QUANTILE * change.std(ddof=1) / len(change) ** 0.5
    return {
        "accuracy": float(right.mean()),
        "difference": float(change.mean()),
        "half_width": float(half),
        "images_changed": int(np.count_nonzero(change)),
    }


def open_run(run_dir: str, count: int, batch: int) -> evaluation.Job:
    """Open a run, with every k-th of its validation images, ``batch`` at a time."""
    request = evaluation.Request(suite=("clean",), examples=count, batch_size=batch)
    return evaluation.plan(vone_jax.open_network(run_dir), request)[0][0]


def over_images(
    job: evaluation.Job, function: Callable[..., Any], precision: str, *arrays: Any
) -> Any:
    """Return ``function(trial, *arrays)`` of all images, computed batch by batch.

    Arrays and results have a row for each image.
    """
    call, results, start = None, [], 0
    with contextlib.closing(batches(job)) as parts:
        for part in parts:
            placed, trial = place(job, part)

            def of_arrays(keys: Any, images: Any, labels: Any, *others: Any, trial=trial) -> Any:
                same = dataclasses.replace(trial, example_keys=keys, images=images, labels=labels)
                return function(same, *others)

            rows = np.minimum(np.arange(start, start + job.batch_size), len(job.examples) - 1)
            inputs = trial.example_keys, trial.images, trial.labels
            call = call or compiled(of_arrays, precision)
            measured = call(*inputs, *(array[rows] for array in arrays))
            mask = np.asarray(placed["mask"])
            results.append(jax.tree.map(lambda rows, mask=mask: np.asarray(rows)[mask], measured))
            start += job.batch_size
    return jax.tree.map(lambda *parts: np.concatenate(parts), *results)


def right(trial: Trial, images: Any = None) -> jax.Array:
    """Return the probability of being right on each image, (N,)."""
    judged = trial.judge(trial.images if images is None else images)["right"]
    return jnp.mean(judged.astype(jnp.float32), axis=1)


def products(job: evaluation.Job, precisions: Sequence[str]) -> Numbers:
    """Measure logits, gradients, predictions and clean accuracy."""
    attack = attacks.PGD("linf", 4 / 255, steps=1, eot_samples=job.effective_protocol.draws)

    def measured(trial: Trial) -> tuple[Any, ...]:
        keys, labels = trial.keys("attack"), trial.labels

        def loss(images: jax.Array) -> jax.Array:
            return jnp.sum(attack.evaluate(keys, trial.logits_fn, images, labels)[0])

        logits = trial.logits_fn(keys, trial.images)
        return logits, jax.grad(loss)(trial.images), right(trial)

    rows: Numbers = {}
    reference: Any = None
    for precision in precisions:
        logits, gradients, accuracy = over_images(job, measured, precision)
        if precision == FLOAT32:
            reference = logits, gradients, accuracy
        rows[precision] = paired(accuracy, reference[2]) | {
            "logits": _relative_error(logits, reference[0]),
            "gradients": _relative_error(gradients, reference[1]),
            "signs": float(np.mean(np.sign(gradients) == np.sign(reference[1]))),
            "predictions": float(np.mean(logits.argmax(-1) == reference[0].argmax(-1))),
        }
    return rows


def _relative_error(values: np.ndarray, reference: np.ndarray) -> float:
    return float(np.linalg.norm(values - reference) / np.linalg.norm(reference))


def make_attack(name: str, draws: int, steps: int | None) -> attacks.Attack:
    """Return one of ``ATTACKS``: that of the VOneNet authors, or Auto-PGD."""
    kind, eps = name.split("-")
    if kind == "apgd":
        return attacks.APGD("linf", int(eps) / 255, steps=steps or 100, eot_samples=draws)
    return evaluation.vonenet_pgd("linf", int(eps) / 255, steps=steps or 64, eot_samples=draws)


def attacked(job: evaluation.Job, attack: attacks.Attack, precisions: Sequence[str]) -> Numbers:
    """Measure the accuracy under an attack, judged in the attack's precision and in float32."""

    def perturbed(trial: Trial) -> tuple[jax.Array, jax.Array]:
        keys = trial.keys("attack")
        images = attack.perturb(keys, trial.logits_fn, trial.images, trial.labels)
        return images, right(trial, images)

    rows: Numbers = {}
    reference: Any = None
    for precision in precisions:
        images, accuracy = over_images(job, perturbed, precision)
        exact = over_images(job, right, FLOAT32, images)
        reference = exact if reference is None else reference
        rows[precision] = paired(accuracy, reference) | {"in_float32": paired(exact, reference)}
    return rows


def physiology(channels: int, precisions: Sequence[str]) -> Numbers:
    """Score the published V1, with fewer channels and without noise."""
    cells = channels // 2
    config = v1.VOneBlockConfig(simple_channels=cells, complex_channels=cells, noise=None)
    rows: Numbers = {}
    reference: Any = None
    for precision in precisions:
        layer = compiled(functools.partial(v1.noise_free_responses, config), precision)
        scores = neurophysiology.score(lambda key, images, layer=layer: layer(images))
        reference = scores if reference is None else reference
        changed = [
            ~np.isclose(values, reference.per_unit[name], rtol=0.01, atol=0, equal_nan=True)
            for name, values in scores.per_unit.items()
        ]
        rows[precision] = {
            "mean_score": scores.mean_score,
            "largest_difference_of_a_score": max(
                abs((scores.properties[name].score or 0.0) - (each.score or 0.0))
                for name, each in reference.properties.items()
            ),
            "values": sum(each.size for each in changed),
            "values_changed_by_1_%": int(sum(each.sum() for each in changed)),
        }
    return rows


def trained(config: str, seed: int, steps: int | None, precisions: Sequence[str]) -> Numbers:
    """Train a config in each precision, and judge the networks in float32."""
    experiment = dataclasses.replace(training.load_config(config, cli.configs()), seed=seed)
    if steps is not None:
        experiment = dataclasses.replace(experiment, steps=steps)
    rows: Numbers = {}
    reference: Any = None
    for precision in precisions:
        setup = prepare(experiment, meshes.data_mesh(jax.devices()[:1]))
        step, state = compiled(setup.train_step, precision), setup.initial_state()
        with contextlib.closing(setup.train_batches()) as train_batches:
            for _ in range(setup.total_steps):
                state, metrics = step(state, setup.shard(next(train_batches)))
        correct = []
        model: Any = setup.model
        logits_fn = jax.jit(models.logits_fn(model, state.variables))
        with contextlib.closing(setup.eval_batches()) as eval_batches:
            for batch in eval_batches:
                keys = prng.index_keys(jax.random.key(0), batch["index"])
                logits = np.asarray(logits_fn(keys, setup.shard(batch)["image"]))
                correct.append((logits.argmax(-1) == batch["label"])[batch["mask"]])
        accuracy = np.concatenate(correct).astype(np.float32)
        reference = accuracy if reference is None else reference
        loss = float(metrics.sums.loss) / int(metrics.sums.seen)
        rows[precision] = paired(accuracy, reference) | {"loss": loss}
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark with the given arguments and return the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    parser = table.parser("benchmarks.precision", __doc__)
    parser.add_argument("runs", nargs="*", metavar="RUN_DIR", help="Runs for products and attacks.")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS[:3]))
    parser.add_argument("--attacks", nargs="+", choices=ATTACKS, default=list(ATTACKS))
    parser.add_argument(
        "--images", type=table.at_least(1), default=1000, help="Images for products. Default: 1000."
    )
    parser.add_argument(
        "--attacked", type=table.at_least(1), default=300, help="Images for attacks. Default: 300."
    )
    parser.add_argument(
        "--batch", type=table.at_least(1), default=50, help="Images at a time. Default: 50."
    )
    parser.add_argument(
        "--channels", type=table.at_least(1), default=64, help="Physiology channels. Default: 64."
    )
    parser.add_argument("--configs", nargs="*", default=[], help="Configs for training.")
    parser.add_argument(
        "--seeds", type=table.at_least(1), default=3, help="Seeds for training. Default: 3."
    )
    parser.add_argument(
        "--precisions", nargs="+", choices=PRECISIONS[1:], default=list(PRECISIONS[1:]),
        help="Precisions to compare with float32. Default: all.",
    )  # fmt: skip
    options = parser.parse_args(argv)
    try:
        for run_dir in options.runs:
            vone_jax.open_network(run_dir)
        for config in options.configs:
            training.load_config(config, cli.configs())
    except (ValueError, RuntimeError, OSError) as error:
        parser.error(str(error))
    if "training" in options.parts and not options.configs:
        parser.error("--parts training needs --configs, the names of configs to train")
    if options.quick:
        options.images = options.attacked = options.batch = 10
        options.channels = 8
    steps = 2 if options.quick else None
    fast.keep_memory()
    surroundings = table.environment("benchmarks.precision", argv)
    precisions = (FLOAT32, *options.precisions)
    tables: Numbers = {}

    def note(title: str, rows: Numbers) -> None:
        tables[title] = rows
        print(f"{title}\n\n{markdown(rows)}\n", flush=True)
        # Written after each table, so that a run that is stopped leaves its numbers.
        if options.json is not None:
            options.json.write_text(table.to_json(surroundings, options, tables=tables))

    print(f"{table.heading(surroundings)}\n")
    for run_dir in options.runs:
        if "products" in options.parts:
            job = open_run(run_dir, options.images, options.batch)
            title = f"products, {job.network.name}, {options.images} images"
            note(title, products(job, precisions))
        if "attacks" in options.parts:
            job = open_run(run_dir, options.attacked, options.batch)
            for name in options.attacks:
                attack = make_attack(name, job.effective_protocol.draws, steps)
                title = f"{name}, {job.network.name}, {options.attacked} images"
                note(title, attacked(job, attack, precisions))
    if "physiology" in options.parts:
        note(f"V1 scores, {options.channels} channels", physiology(options.channels, precisions))
    if "training" in options.parts:
        for config in options.configs:
            for seed in range(options.seeds):
                note(f"{config}, seed {seed}", trained(config, seed, steps, precisions))
    return 0


def markdown(rows: Numbers) -> str:
    """Return a Markdown table with one row for each precision."""
    flat = {name: _flat(row) for name, row in rows.items()}
    columns = list(next(iter(flat.values())))
    lines = ([name, *(row[column] for column in columns)] for name, row in flat.items())
    return table.markdown(["precision", *columns], lines)


def _flat(row: Numbers) -> dict[str, str]:
    """Return the cells of a row; a difference and its interval share one."""
    cells: dict[str, str] = {}
    for name, value in row.items():
        if name == "difference":
            cells[name] = f"{100 * value:+.2f} ± {100 * row['half_width']:.2f}"
        elif name == "accuracy":
            cells[name] = f"{100 * value:.2f}"
        elif name == "in_float32":
            cells |= {f"in float32, {key}": cell for key, cell in _flat(value).items()}
        elif name != "half_width":
            cells[name.replace("_", " ")] = (
                f"{value:.3g}" if isinstance(value, float) else f"{value}"
            )
    return cells


if __name__ == "__main__":
    sys.exit(main())
