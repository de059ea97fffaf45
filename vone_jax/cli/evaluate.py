"""Evaluate a network: ``python eval.py NETWORK [--suite NAME ...] [--OPTION VALUE ...]``.

NETWORK is a run directory of train.py (RUN@STEP for one of its checkpoints), a folder or a
checkpoint file, MODULE:FUNCTION or FILE.py:FUNCTION for a function that returns a network,
efficientnet_lite0, or NETWORK+NETWORK for the mean of the logits of several.

  python eval.py runs/quickstart/vone_resnet18
  python eval.py resnet50.pth --source folder:/data/imagenet/val --suite clean linf --examples 500
  python eval.py runs/vone --suite masking --eps 4/255 --others runs/base
  python eval.py runs/photos --predict cat.jpg dog.jpg

Run the same command again to continue an evaluation that was stopped. Exit status: 0 finished;
1 failed; 2 wrong arguments; 75 stopped by SIGTERM or Ctrl-C, run it again to continue.
"""

import argparse
import dataclasses
import datetime
import inspect
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import tyro

from vone_jax import cli, evaluation, fast, mesh, names, results
from vone_jax.arguments import Range, Seed
from vone_jax.cli import parsing
from vone_jax.data.loading import holds_corruptions
from vone_jax.evaluation.condition import KindError
from vone_jax.evaluation.corrupted import published
from vone_jax.evaluation.examples import find_images
from vone_jax.evaluation.judging import AttackNoise, Protocol, parse_noise, parse_protocol
from vone_jax.evaluation.suites import (
    Suite,
    conditions,
    default_directory,
    explained,
    find,
    options,
)
from vone_jax.network import Network, NetworkError, open_network
from vone_jax.progress import Progress, aligned
from vone_jax.suites import GROUPS, SUITES
from vone_jax.training.config import config_names
from vone_jax.training.run import versions

PROGRAM = cli.program("eval.py")
Task = tuple[evaluation.Evaluation, evaluation.Condition]


def _shown(metavar: str) -> Any:
    """How an option is shown by --help, whose comment says the default."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="")


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The network, what to evaluate, and how."""

    # The network, see above.
    network: Annotated[tyro.conf.Positional[str], _shown("NETWORK")]
    # Suites (default: quick); --suite help lists them.
    suite: Annotated[tuple[str, ...], _shown("NAME ...")] = ("quick",)
    # Print what the network takes these image files for, and measure nothing.
    predict: Annotated[tuple[Path, ...], _shown("FILE ...")] = ()
    # folder:DIR, npz:FILE, tfds:NAME, or published corruptions (default: the images of a run).
    source: Annotated[str | None, _shown("SET")] = None
    # Split (default: of a run, that of its validation; else validation, val, valid or test).
    split: Annotated[str | None, _shown("NAME")] = None
    # Number of images, every k-th (default: at most 5000).
    examples: Annotated[int | None, _shown("N")] = None
    # Decisions about an image, each with fresh noise (default: 10; 1 without noise).
    draws: Annotated[int | None, _shown("N")] = None
    # single (default), or of K draws: vote:K, mean_logits:K or mean_probability:K.
    decision: Annotated[str, _shown("RULE")] = "single"
    # At the test: trained (default), none, frozen, gaussian:SCALE or neuronal[:SCALE,LEVEL].
    noise: Annotated[str, _shown("NOISE")] = "trained"
    # Seen by attacks: same (default), none (a control), frozen, or a noise as above.
    attack_noise: Annotated[str, _shown("NOISE")] = "same"
    # A surrogate for masking, observers of metamers.
    others: Annotated[tuple[str, ...], _shown("NETWORK ...")] = ()
    # Root of all randomness (default: 0).
    seed: Annotated[Seed, _shown("N")] = 0
    # Text at the end of the names of results.
    tag: Annotated[str, _shown("TEXT")] = ""
    # Directory of results (default: RUN/results, or runs/NAME/results).
    results: Annotated[Path | None, _shown("DIR")] = None
    # Measure again what is finished.
    overwrite: Annotated[tyro.conf.FlagCreatePairsOff[bool], _shown("")] = False
    # Images at a time; it changes no result.
    batch_size: Annotated[int | None, Range(1), _shown("N")] = None
    # Side of the images (default: that of the network).
    image_size: Annotated[int | None, _shown("N")] = None
    # File with the name of each logit, one on a line.
    class_names: Annotated[Path | None, _shown("FILE")] = None
    # float32 (default) or bfloat16, for a run.
    dtype: Annotated[Literal["float32", "bfloat16"], _shown("TYPE")] = "float32"
    # Code that a run may ask for, such as its front end.
    code: parsing.Code = ()
    # Several processes: auto (Slurm, Open MPI, TPU), or HOST:PORT,N,I for process I of N.
    distributed: Annotated[str | None, _shown("HOW")] = None


def main(argv: Sequence[str]) -> int:
    """Run the command with the given arguments and return its exit status."""
    words = [word for word in argv[1:2] if word in (*SUITES, *GROUPS)]
    if words:
        return cli.fail(f"{argv[1]} is a suite: --suite {' '.join(argv[1:])}")
    if "help" in _named(argv):
        print(explained(SUITES, GROUPS))
        return cli.FINISHED
    try:
        given, own = parse(argv)
        fast.use_all_cores()
        fast.keep_memory()
        if given.distributed is not None:
            mesh.join_processes(given.distributed)
    except (ValueError, TypeError) as error:
        return cli.fail(error)
    # Comes after join_processes, because JAX sets its own SIGTERM handler there.
    try:
        with cli.interrupted_by_signals(PROGRAM) as interrupted:
            status = _evaluate(given, own, argv)
            # JAX can turn the interrupt into an error of its own.
            if status == cli.FAILED and interrupted.is_set():
                raise KeyboardInterrupt
            return status
    except KeyboardInterrupt:
        return cli.stopped(PROGRAM)


def _named(argv: Sequence[str]) -> list[str]:
    """The suites that a command line names."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--suite", nargs="*", default=[])
    return parser.parse_known_args(argv)[0].suite


def parse(argv: Sequence[str]) -> tuple[Arguments, dict[str, Any]]:
    """Read a command line: the arguments, and the options of the suites that it names.

    Raises:
      SystemExit: for options that do not fit, or after ``--help``.
      ValueError, TypeError: for a suite that is not known, or values that do not fit.
    """
    asked = {**find(_named(argv) or Arguments.suite, SUITES, GROUPS)}
    known = options(asked)
    if taken := known.keys() & {field.name for field in dataclasses.fields(Arguments)}:
        name = min(taken)
        raise ValueError(
            f"suite {_with(asked, name)}: the option {name} must have another name, since "
            f"{PROGRAM} has one of this name"
        )
    fields = [
        (name, Annotated[each.annotation, _of_suites(_with(asked, name), each)], _field(each))
        for name, each in known.items()
    ]
    suites = dataclasses.make_dataclass("Suites", fields, frozen=True, kw_only=True)
    # Without prefixes, all are options of the command.
    flat = tyro.conf.arg(name="")
    parts = [("given", Annotated[Arguments, flat]), ("own", Annotated[suites, flat])]
    whole: Any = dataclasses.make_dataclass("Whole", parts, frozen=True)
    found = parsing.parse(whole, argv or ["--help"], PROGRAM, __doc__ or "")
    return found.given, {name: getattr(found.own, name) for name in known}


def _of_suites(names: str, option: inspect.Parameter) -> Any:
    hint = "" if option.default == () else None
    return tyro.conf.arg(help=f"Of {names}.", help_behavior_hint=hint)


def _field(option: inspect.Parameter) -> Any:
    """An option without a default must be given."""
    given = option.default is not inspect.Parameter.empty
    return dataclasses.field(default=option.default) if given else dataclasses.field()


def _with(suites: Mapping[str, Suite], option: str) -> str:
    """The suites that have an option, in words."""
    return ", ".join(name for name, suite in suites.items() if option in options({name: suite}))


def _evaluate(given: Arguments, own: Mapping[str, Any], argv: Sequence[str]) -> int:
    """Plan and carry out the evaluation; return the exit status."""
    first = jax.process_index() == 0
    try:
        mesh.check_jax()
        network = _open(given)
        if given.predict:
            print("\n".join(_predicted(network, given)))
            return cli.FINISHED
        made = tasks(network, given, own, cli.command(PROGRAM, argv))
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        if getattr(error, "__notes__", None):
            raise  # It comes from a function of the user, who needs the traceback.
        if isinstance(error, NetworkError) and given.network in config_names(cli.configs()):
            train = f"{names.command('train.py')} {given.network}"
            error = f"{given.network} is a config: train it first ({train}), and give its run"
        return cli.fail(error)
    if first:
        for note in made[0][0].notes:
            print(f"{network.name}: {note}", file=sys.stderr)
    try:
        finished = _run(made, first)
    except results.ResultError as error:
        return cli.fail(error)
    except (ValueError, OSError, FloatingPointError, KindError) as error:
        if getattr(error, "__notes__", None):
            raise
        return cli.fail(error, cli.FAILED)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return cli.fail("there is too little memory; take a smaller --batch-size", cli.FAILED)
    if first:
        for result in finished:
            for warning in result.warnings:
                print(f"warning: {result.name}: {warning}", file=sys.stderr)
        print(f"{summary(finished)}\nresults in {made[0][0].directory}", flush=True)
    return cli.FINISHED


def _open(given: Arguments) -> Network:
    """Open the network."""
    class_names = None
    if given.class_names is not None:
        # Skips the byte order mark that Windows programs put in front.
        lines = given.class_names.read_text(encoding="utf-8-sig").splitlines()
        class_names = [line.strip() for line in lines if line.strip()]
    return open_network(
        given.network,
        class_names=class_names,
        image_size=given.image_size,
        dtype=given.dtype,
        code=_code(given),
    )


def _code(given: Arguments) -> tuple[str, ...]:
    """The code that is named: by its option, or as the file of a network or suite."""
    words = (given.network, *given.suite, *given.others)
    return (*given.code, *(word.rpartition(":")[0] for word in words if ".py:" in word))


def _predicted(network: Network, given: Arguments) -> list[str]:
    """The lines of a table: a file, its class, and how sure the network is over noise draws."""
    if given.noise != "trained":
        network = network.with_noise(parse_noise("noise", given.noise, network.noise))
    found = evaluation.predict(
        network, given.predict, jax.random.key(given.seed), given.draws or Protocol().draws
    )
    mean, votes = found.mean(axis=0), found.argmax(axis=-1)
    rows = [("file", "class", "confidence", "draws", "second class")]
    for place, file in enumerate(given.predict):
        first, second = mean[place].argsort()[::-1][:2]
        agree = int((votes[:, place] == first).sum())
        sure = [
            f"{network.class_names[each] if network.class_names else each} {mean[place, each]:.1%}"
            for each in (first, second)
        ]
        label, _, share = sure[0].rpartition(" ")
        rows.append((str(file), label, share, f"{agree} of {len(found)}", sure[1]))
    return aligned(rows, 2)


def tasks(
    network: Network, given: Arguments, own: Mapping[str, Any], command: str = ""
) -> list[Task]:
    """The conditions that are asked for, at least one, each with its evaluation.

    Raises:
      ValueError, TypeError: for options that cannot be met; the message names the option.
      FileNotFoundError: for data that do not exist.
    """
    network = open_network(network)
    trained, protocol = network.noise, parse_protocol(given.noise, given.decision, given.draws)
    if given.noise not in ("trained", "frozen"):
        network = network.with_noise(parse_noise("noise", given.noise, trained))
    plan = evaluation.Evaluation(
        network,
        directory=given.results or default_directory(network),
        examples=given.examples,
        protocol=protocol,
        attack_noise=_attack_noise(given, network, trained),
        seed=given.seed,
        tag=given.tag,
        others=tuple(
            open_network(each, dtype=given.dtype, code=_code(given)) for each in given.others
        ),
        overwrite=given.overwrite,
        batch_size=given.batch_size,
        provenance={"versions": versions(), "command": command},
    )
    chosen = conditions(find(given.suite, SUITES, GROUPS), plan, own)
    if not chosen:
        raise ValueError(f"suite {' '.join(given.suite)} has no conditions")
    rows = [each.row() for each in chosen if each.attacks]
    attacked = sorted({str(row["norm"]) for row in rows if "norm" in row})
    if own.get("eps") and len(attacked) > 1:
        raise ValueError(
            "eps is for one norm, since each has its own units; the suites attack in "
            f"{', '.join(attacked)}"
        )
    if given.source is not None and holds_corruptions(given.source):
        if given.split is not None:
            raise ValueError(f"split is not for published corruptions, got {given.split!r}")
        return published(plan, chosen, given.source)
    images, trained_on = find_images(network, chosen, given.source, given.split)
    whole = dataclasses.replace(
        plan, images=images, trained_on=trained_on, keep_images=len(chosen) > 1
    )
    return [(whole, condition) for condition in chosen]


def _attack_noise(given: Arguments, network: Network, trained: Any) -> AttackNoise:
    """The noise at the attack; "same" if it is the noise at the test."""
    asked = given.attack_noise
    if asked == "same":
        return "same"
    if asked == "frozen":
        return "frozen" if network.stochastic else "same"
    noise = parse_noise("attack_noise", asked, trained)
    if network.with_noise(noise) is network:
        return "same"
    return "none" if noise is None else noise


def _run(made: Sequence[Task], first: bool) -> list[results.Result]:
    """Measure all conditions, with reports on the progress."""
    finished: list[results.Result] = []
    for place, (plan, condition) in enumerate(made, start=1):
        doing = f"{results.label(plan.row(condition))}, {place} of {len(made)}"
        began = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        count, unit = plan.data.work_of(condition)
        with Progress(count, unit=unit, shown=first) as progress:
            # Until then, nobody knows how long the others take.
            progress.doing(f"{doing}, first batch")

            def report(
                images: int, found: bool, progress: Progress = progress, doing: str = doing
            ) -> None:
                if not found or not images:
                    progress.doing(doing if not found else f"{doing}, first batch")
                (progress.found if found else progress.advance)(images)

            result = evaluation.evaluate(plan, condition, report)
            finished.append(result)
            progress.line(line(result, kept=result.provenance["started"] < began))
    return finished


def line(result: results.Result, kept: bool = False) -> str:
    """A finished result in one line: its first number, and its time or its date."""
    first = [f"{row['number']} {_number(row)}" for row in result.rows][:1]
    when = f"{result.provenance['wall_seconds']:.1f} s"
    if kept:
        when = f"kept from {result.provenance['started'][:16].replace('T', ' ')}"
    return ", ".join([f"{result.name}: {''.join(first) or 'done'}", when])


def summary(finished: Sequence[results.Result]) -> str:
    """The main numbers of all results as a table for a terminal, and what they are of.

    Of a result without main numbers, those with intervals and the answers of checks.
    """
    means = _means(finished)
    averaged = {label for mean in means for label in mean["weights"]}
    shown: list[results.Row] = []
    for result in finished:
        told = [row for row in result.rows if "low" in row or "verdict" in row]
        main = [row for row in result.rows if row.get("main")]
        if result.label not in averaged:
            shown += main or told or result.rows[:1]
    rows = [("condition", "number", "value", "95 % interval")]
    rows += [
        (results.label(row), row["number"], _number(row), _ends(row)) for row in (*shown, *means)
    ]
    header, *others = aligned(rows, 2)
    return "\n".join([header, "-" * len(header), *others, "", _subject(finished)])


def _subject(finished: Sequence[results.Result]) -> str:
    """The network and the images in one line."""
    # Of physiology, the images are gratings.
    of_images = [each for each in finished if each.arrays.get("label") is not None]
    result = (of_images or finished)[0]
    row, network = result.row, result.identity["network"]
    step = result.provenance.get("checkpoint_step")
    told = f"{row['network']} ({network['name']}{'' if step is None else f', step {step}'})"
    if "dataset" not in row:
        return told
    few = " (an illustration, not a measurement)" if row["dataset"] == names.DEMO else ""
    return f"{told}, {row['examples']} images of {row['dataset']}{few}"


def _means(finished: Sequence[results.Result]) -> list[dict[str, Any]]:
    """The means over corruptions, as rows of ``results.means``."""
    run = results.Run(Path(), finished[0].row["network"], finished)
    found = results.means(results.Runs([run]).to_frame())
    return [
        {str(name): value for name, value in row.items() if value == value and value is not None}
        for row in found.drop(columns="label").to_dict("records")
    ]


def _number(row: results.Row) -> str:
    """A number as text; a share in percent."""
    if "value" not in row:
        return row.get("verdict", "none")
    share, unit = row.get("unit") == "share", row.get("unit", "")
    return f"{100 * row['value']:.1f} %" if share else f"{row['value']:.4g} {unit}".rstrip()


def _ends(row: results.Row) -> str:
    if "low" not in row or "high" not in row:
        return row.get("meaning", "")
    low, high = row["low"], row["high"]
    if row.get("unit") != "share":
        return f"{low:.4g} to {high:.4g}"
    return f"{100 * low:.1f} to {100 * high:.1f} %"


def run() -> None:
    """Run the command as a program of its own."""
    status = main(sys.argv[1:])
    if status == cli.STOPPED:
        cli.end_at_once(status)
    sys.exit(status)


if __name__ == "__main__":
    run()
