"""Learns V1's constants by gradient and by a search, and scores them on banks of other seeds.

    python docs/examples/laws.py --csv docs/results/fitted_laws.csv

For each of five seeds: a fit by gradient, one by Nelder-Mead on the same loss, and one by gradient
to references that are shuffled among the properties. The constants are scored by the hard measures
on a bank of another seed, beside the published bank with the surround whose constants were set
before, and without a surround. Rows are written one by one, and those that the file has are kept,
so a run may be stopped. A seed takes about 5 minutes of one core. ``--block`` scores the block.
"""

import argparse
import csv
import json
import time
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import scipy

from vone_jax import __version__, fast, neurophysiology, v1
from vone_jax.neurophysiology import cells, fit

SEEDS, TESTED = range(5), 100
COLUMNS = ("kind", "seed", "property", "distance", "median", "loss", "evaluations", "seconds",
           "constants", "schema", "version", "command", "checksum")  # fmt: skip
EVALUATIONS = 1000


def by_gradient(bank: cells.Cells, references: dict, state: Path):
    """Constants, loss, gradients and seconds of a fit."""
    began = time.time()

    def report(step: int, value: float) -> None:
        print(f"  step {step}, loss {value:.3f}, {time.time() - began:.0f} s", flush=True)

    found, losses = fit.fit(bank, references, path=state, report=report)
    return found, float(losses[-1]), len(losses), time.time() - began


def by_search(bank: cells.Cells, _references: dict, _state: Path):
    """The same by the method of Nelder and Mead, from the same start."""
    start = np.array(fit.free(cells.Constants()))

    @jax.jit
    def value(form):
        return fit.loss(fit.bounded(cells.Constants(*form)), bank)

    value(jnp.asarray(start)).block_until_ready()
    began = time.time()
    simplex = np.concatenate([start[None], start + 0.3 * np.eye(len(start))])
    found = scipy.optimize.minimize(
        lambda form: float(value(jnp.asarray(form, jnp.float32))),
        start,
        method="Nelder-Mead",
        options={"maxfev": EVALUATIONS, "initial_simplex": simplex, "adaptive": True},
    )
    constants = fit.bounded(cells.Constants(*jnp.asarray(found.x, jnp.float32)))
    constants = cells.Constants(*(float(x) for x in constants))
    return constants, float(found.fun), found.nfev, time.time() - began


def unchanged(_cells, _references, _state):
    """The constants that were set before."""
    return cells.Constants(), "", "", ""


KINDS = {
    "published bank, no surround": (unchanged, False),
    "constants set before": (unchanged, True),
    "gradient": (by_gradient, True),
    "search": (by_search, True),
    "shuffled": (by_gradient, True),
}


def rows(kind: str, seed: int, folder: Path):
    """Yield a row for each property of constants that were learned on the bank of a seed."""
    learn, normalised = KINDS[kind]
    references = fit.shuffled() if kind == "shuffled" else fit.REFERENCES
    found, loss, evaluations, seconds = learn(
        cells.Cells(seed), references, folder / f"{kind}-{seed}.msgpack"
    )
    values = cells.measure(found, cells.Cells(TESTED + seed), normalised, soft=False)
    for name, reference in fit.REFERENCES.items():
        defined = values[name][~np.isnan(values[name])]
        apart = fit.distance(name, jnp.asarray(defined), reference) if len(defined) else np.nan
        yield {
            "kind": kind,
            "seed": seed,
            "property": name,
            "distance": f"{float(apart):.4f}",
            "median": f"{np.median(defined):.4f}" if len(defined) else "nan",
            "loss": loss and f"{loss:.4f}",
            "evaluations": evaluations,
            "seconds": seconds and f"{seconds:.0f}",
            "constants": json.dumps({n: round(x, 4) for n, x in found._asdict().items()}),
            "schema": 1,
            "version": __version__,
            "command": "python docs/examples/laws.py --csv docs/results/fitted_laws.csv",
            "checksum": "",
        }


def interval(values) -> str:
    """The mean of five seeds and half of its 95 % interval."""
    values = np.asarray(values, np.float64)
    if np.isnan(values).any():
        return "-"
    half = scipy.stats.t.ppf(0.975, len(values) - 1) * scipy.stats.sem(values)
    return f"{values.mean():.2f} ± {half:.2f}"


def table(found: list[dict[str, str]]) -> str:
    """The table of docs/laws.md."""
    names = [*fit.FITTED, *fit.PREDICTED]
    lines = ["| constants | " + " | ".join(f"`{name}`" for name in names) + " |"]
    lines.append("| --- |" + " ---: |" * len(names))
    for kind in KINDS:
        cells = [
            interval([r["distance"] for r in found if (r["kind"], r["property"]) == (kind, name)])
            for name in names
        ]
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def block(found: list[dict[str, str]]) -> None:
    """Print medians of the block itself beside those of the model, for the constants of seed 0."""
    bank = cells.Cells(TESTED)
    for kind in ("constants set before", "gradient"):
        row = next(r for r in found if (r["kind"], r["seed"]) == (kind, "0"))
        constants = cells.Constants(**json.loads(row["constants"]))
        config = v1.VOneBlockConfig(
            simple_channels=bank.number // 2,
            complex_channels=bank.number // 2,
            bank=constants.bank(bank.start),
            normalization=constants.surround(),
            noise=None,
        )
        site = lambda keys, images, config=config: v1.noise_free_responses(config, images)  # noqa: E731
        scores = neurophysiology.score(site)
        response = neurophysiology.contrast_response(site, jax.random.key(0), scores.site)
        values = cells.measure(constants, bank, soft=False)
        measured = dict(scores.per_unit) | {"half_saturation": response.c50}
        for name in fit.REFERENCES:
            if name in measured:
                both = (np.nanmedian(each[name]) for each in (values, measured))
                print(f"{kind}: {name}: model {next(both):.3f}, block {next(both):.3f}", flush=True)


def main() -> None:
    """Fit, write the rows and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--csv", type=Path, default=Path("fitted_laws.csv"))
    parser.add_argument("--states", type=Path, default=Path("runs/laws"), help="Unfinished fits.")
    parser.add_argument("--block", action="store_true", help="Compare the model with the block.")
    options = parser.parse_args()
    fast.keep_memory()
    options.states.mkdir(parents=True, exist_ok=True)
    # A cell that is never suppressed has no surround.
    warnings.simplefilter("ignore", RuntimeWarning)
    found = list(csv.DictReader(options.csv.open(newline=""))) if options.csv.exists() else []
    with options.csv.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if not found:
            writer.writeheader()
        for seed in SEEDS:
            for kind in KINDS:
                if any((r["kind"], r["seed"]) == (kind, str(seed)) for r in found):
                    continue
                print(f"{kind}, seed {seed}", flush=True)
                writer.writerows(rows(kind, seed, options.states))
                file.flush()
    found = list(csv.DictReader(options.csv.open(newline="")))
    print(table(found))
    if options.block:
        block(found)


if __name__ == "__main__":
    main()
