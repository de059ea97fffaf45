"""Measure how training scales: ``python -m benchmarks.scaling PART [--quick]``.

  weak      work of the host per step on 1, 2, 4 and 8 devices with the same batch on each; with
            --distributed, on the devices of all processes
  options   costs and savings of the options of a training run
  model     training of a ResNet-50 on 256 GPUs, as a model on paper

Each part prints Markdown; docs/performance.md has the results. On CPUs the devices are virtual and
share the cores: eight in one process, or two in each of several.
"""

import argparse
import contextlib
import dataclasses
import functools
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from benchmarks import paper_model, table, timing
from vone_jax import fast, models, training
from vone_jax import mesh as meshes
from vone_jax.training import Experiment
from vone_jax.training.setup import Setup, prepare

DEVICES = (1, 2, 4, 8)
DEVICES_OF_A_PROCESS = 2
# A VOneNet on the images that come with the package. The run does nothing but steps.
EXPERIMENT = Experiment(
    name="scaling",
    model=training.ModelConfig(
        name="vone_resnet18",
        image_size=28,
        in_channels=1,
        width=4,
        v1=dataclasses.replace(models.v1_config(28, 1), simple_channels=8, complex_channels=8),
    ),
    data=training.DataConfig(source="fashion_mnist_small", batch_size=64),
    epochs=1000.0,
    evaluate_every=1000.0,
    checkpoint_every=1000.0,
    log_every=1_000_000,
)
# A network that compiles quickly, for --quick.
SMALL = dataclasses.replace(
    EXPERIMENT,
    model=training.ModelConfig("alexnet", image_size=28, in_channels=1, width=1),
    data=training.DataConfig("fashion_mnist_small", batch_size=8, eval_batch_size=8),
)


class Watch:
    """The ``stop`` function of a training run. It measures the thread of the loop.

    After ``first`` steps it times ``timed`` steps, counts calls in as many more and stops the run.

    Attributes:
      seconds: seconds by the clock, per step.
      host_seconds: processor seconds of the thread, per step; waiting takes none.
      calls: calls of Python functions in the thread, per step.
    """

    def __init__(self, first: int, timed: int):
        self._first, self._timed, self._asked, self._calls = first, timed, 0, 0
        self._begun = (0.0, 0.0)
        self.seconds = self.host_seconds = self.calls = 0.0

    def __call__(self) -> bool:
        sys.setprofile(None)
        now = (time.perf_counter(), time.thread_time())
        step = self._asked - self._first
        self._asked += 1
        if step == 0:
            self._begun = now
        elif step == self._timed:
            self.seconds, self.host_seconds = (
                (end - start) / self._timed for end, start in zip(now, self._begun, strict=True)
            )
        elif step == 2 * self._timed:
            self.calls = self._calls / self._timed
            return True
        if step >= self._timed:
            sys.setprofile(self._count)
        return step >= 2 * self._timed

    def _count(self, frame: Any, event: str, argument: Any) -> None:
        self._calls += event == "call"


def watched(
    experiment: Experiment, devices: int, first: int, timed: int, run_dir: Path | None = None
) -> Watch:
    """Run the training loop with a ``Watch`` and return it."""
    watch = Watch(first, timed)
    with tempfile.TemporaryDirectory() as directory:
        training.train(
            experiment, run_dir or directory, devices=jax.devices()[:devices], stop=watch
        )
    return watch


def weak(per_device: int, timed: int, run_dir: Path | None) -> str:
    """Measure the work of the host on more and more devices, or on those of all processes."""
    header = ["processes", "devices of each", "host, ms/step", "Python calls/step"]
    processes, rows = jax.process_count(), []
    for devices in (jax.device_count(),) if jax.distributed.is_initialized() else DEVICES:
        sizes = {name: per_device * devices for name in ("batch_size", "eval_batch_size")}
        data = dataclasses.replace(EXPERIMENT.data, **sizes)
        watch = watched(dataclasses.replace(EXPERIMENT, data=data), devices, 20, timed, run_dir)
        host, clock = f"{1e3 * watch.host_seconds:.2f}", f"{1e3 * watch.seconds:.1f}"
        count = str(processes), str(devices // processes)
        rows.append([*count, host, f"{watch.calls:.1f}", clock])
    return table.markdown([*header, "clock, ms/step"], rows, left=0)


def options(experiment: Experiment, repeats: int, steps: int) -> list[str]:
    """Measure each option beside the run without it."""
    programs = {
        text: _compiled(_one_device(dataclasses.replace(experiment, **fields)))
        for text, fields in {
            "none": {},
            "`accumulation_steps` 2": {"accumulation_steps": 2},
            "`accumulation_steps` 4": {"accumulation_steps": 4},
            "`remat`": {"remat": True},
            "`precision` bfloat16": {"precision": "bfloat16"},
        }.items()
    }
    steps_of, loops, compiled = [], [], []
    for text, (clock, processor) in _times(programs, repeats).items():
        memory = programs[text][0].memory_analysis().temp_size_in_bytes
        numbers = 1e3 * clock, 1e3 * processor, memory / 1e6
        steps_of.append([text, *(f"{number:.1f}" for number in numbers)])
    for prefetch in (0, 1, 2, 4):
        data = dataclasses.replace(experiment.data, prefetch=prefetch)
        watch = watched(dataclasses.replace(experiment, data=data), 1, 5, steps)
        loops.append([str(prefetch), f"{1e3 * watch.seconds:.1f}"])
    before = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    with tempfile.TemporaryDirectory() as cache:
        try:
            for text in ("empty", "filled"):
                fast.keep_compiled(cache)
                jax.clear_caches()
                since = time.perf_counter()
                _compiled(_one_device(experiment))
                compiled.append([text, f"{time.perf_counter() - since:.1f}"])
        finally:
            fast.keep_compiled(before)
    return [
        table.markdown(
            ["option", "step, ms", "processor, ms/step", "temporary memory, MB"], steps_of
        ),
        table.markdown(["`data.prefetch`", "step of the loop, ms"], loops, left=0),
        table.markdown(["`compilation_cache`", "until the step is compiled, s"], compiled),
    ]


def _one_device(experiment: Experiment) -> Setup:
    return prepare(experiment, meshes.data_mesh(jax.devices()[:1]))


def _compiled(setup: Setup) -> tuple[Any, Any, Any]:
    """Return the compiled step, with a state and a batch for it."""
    with contextlib.closing(setup.train_batches()) as batches:
        batch = setup.shard(next(batches))
    state = setup.initial_state()
    step: Any = setup.train_step
    return step.lower(state, batch).compile(), state, batch


def _times(programs: dict[str, Any], repeats: int) -> dict[str, tuple[float, float]]:
    """Run programs in turn; return the median seconds of a step by the clock and of processors."""
    seconds = {text: [] for text in programs}
    states = {text: state for text, (_, state, _) in programs.items()}
    for _ in range(repeats + 1):
        for text, (step, _, batch) in programs.items():
            run = functools.partial(step, states[text], batch)
            taken, (states[text], _) = timing.timed(lambda run=run: jax.block_until_ready(run()))
            seconds[text].append(taken)
    return {
        text: (statistics.median(clock), statistics.median(processor))
        for text, measured in seconds.items()
        for clock, processor in [zip(*measured[1:], strict=True)]
    }


def main(argv: Sequence[str]) -> int:
    """Run a part and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("part", choices=("weak", "options", "model"))
    parser.add_argument("--quick", action="store_true", help="Few steps: show that it runs.")
    parser.add_argument("--distributed", help="For weak: as for train.py.")
    parser.add_argument(
        "--run-dir", type=Path, help="With --distributed: a new directory that all share."
    )
    arguments = parser.parse_args(argv)
    quick = arguments.quick
    if arguments.distributed is not None:
        if arguments.part != "weak":
            parser.error(f"--distributed is for weak, got {arguments.part}; leave it out")
        # Platforms other than the CPU ignore this setting.
        jax.config.update("jax_num_cpu_devices", DEVICES_OF_A_PROCESS)
        try:
            meshes.join_processes(arguments.distributed)
        except ValueError as error:
            parser.error(str(error))
    if arguments.part == "weak":
        tables = [weak(4, 3 if quick else 100, arguments.run_dir)]
    elif arguments.part == "options":
        tables = options(SMALL, 1, 3) if quick else options(EXPERIMENT, 15, 60)
        networks = ("vone_resnet18",) if quick else ("cornet_s", "vone_resnet50")
        tables.append(paper_model.kept(networks, 64 if quick else 224))
    else:
        tables = [paper_model.times(*("vone_resnet18", 64) if quick else ("vone_resnet50", 224))]
    if jax.process_index() == 0:
        print("\n\n".join(tables))
    return 0


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", max(DEVICES))
    sys.exit(main(sys.argv[1:]))
