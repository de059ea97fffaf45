"""``python job.py train|eval RUN_DIR CLUSTER [FAULT]``: one of several processes on a tiny VOneNet.

CLUSTER is the value of ``--distributed``. FAULT happens in this process after the fifth batch of a
training, or after the second batch of an evaluation: "term" is a SIGTERM, "unreadable" an image
that cannot be decoded. With "stale" the process sees no checkpoints from its start on.
"""

import os
import signal
import sys
import time
from pathlib import Path

import jax
import numpy as np

from tests.networks import MeanBackEnd
from vone_jax import attacks, cli, corruptions, data, mesh, models, prng, training, v1
from vone_jax.cli import evaluate as eval_program
from vone_jax.cli import train as train_command
from vone_jax.evaluation import examples
from vone_jax.training import loop

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS / "training"))
from tiny import tiny_source  # noqa: E402

V1 = v1.VOneBlockConfig(
    simple_channels=2, complex_channels=2, image_size=8, visual_degrees=8 / 28, kernel_size=5,
    stride=2, in_channels=1, noise=v1.GaussianNoise(0.5),
)  # fmt: skip
EXPERIMENT = training.Experiment(
    name="processes",
    model=models.Spec(name="vone_resnet18", image_size=8, in_channels=1, v1=V1),
    data=training.DataConfig("tiny", eval_split="test", batch_size=8, eval_batch_size=8),
    optimizer=training.OptimizerConfig(schedule=training.Plateau(patience=2)),
    steps=9,
    log_every=1,
)
SUITES = Path(__file__).parents[1] / "evaluation" / "quick_suites.py"
# 10 images: of the second batch process 1 has nothing but padding.
EVALUATION = [
    "--suite", "clean", f"{SUITES}:linf", f"{SUITES}:noise", "v1", "--eps", "4/255",
    "--batch-size", "8", "--draws", "2",
]  # fmt: skip


def network(*_):
    return models.create("vone_resnet18", 3, v1=V1, back_end=MeanBackEnd(norm=True), width=4)


def open_source(name, split, data_dir=None):
    return tiny_source(split)


def befall(fault):
    """Make a fault happen in this process."""
    if fault == "term":
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(2.0)  # The processes agree on a step meanwhile.
    elif fault == "unreadable":
        raise ValueError("image 3 cannot be decoded")


def hide_checkpoints():
    """Make this process list no checkpoints, as a file system of a network may do for a while."""

    def hiding(function):
        def listed(path, *rest):
            return iter(()) if Path(path).name == "checkpoints" else function(path, *rest)

        return listed

    Path.glob, Path.iterdir = hiding(Path.glob), hiding(Path.iterdir)
    os.listdir, os.scandir = hiding(os.listdir), hiding(os.scandir)


def noise_of_a_batch():
    """Draw V1's noise of 8 examples on the devices that hold their images."""
    devices = mesh.data_mesh()
    rows = 8 // jax.process_count()
    first = rows * jax.process_index()
    indices = mesh.shard_batch(devices, np.arange(first, first + rows, dtype=np.uint32))
    keys = jax.jit(lambda i: prng.index_keys(jax.random.key(3), i))(indices)
    draw = jax.jit(lambda keys: v1.standard_normal(keys, (6,)))
    return mesh.fetch(draw(keys))


def refusals():
    """Return the messages about images above 1, of which each process holds a part."""
    devices = mesh.data_mesh()
    rows = 8 // jax.process_count()
    images = mesh.shard_batch(devices, np.full((rows, 4, 4, 3), 2.0, np.float32))
    labels = mesh.shard_batch(devices, np.zeros(rows, np.int32))
    key, attack = jax.random.key(0), attacks.FGSM("linf", 0.1)
    messages = []
    for refused in (
        lambda: corruptions.corrupt(key, images, "brightness", 3),
        lambda: attack(key, lambda keys, images: images.mean((1, 2)), images, labels),
    ):
        try:
            refused()
        except ValueError as error:
            messages.append(str(error))
    return messages


def train(run_dir, cluster, fault):
    place, batches = loop.place, []

    def faulty_place(mesh, batch):
        if "mask" not in batch:
            batches.append(batch)
            if len(batches) == 5:
                befall(fault)
        return place(mesh, batch)

    loop.place = faulty_place
    if fault == "stale":
        hide_checkpoints()
    training.load_config = lambda name, configs: EXPERIMENT
    status = train_command.main(["processes", "--run-dir", run_dir, "--distributed", cluster])
    if status == 0:
        np.save(Path(run_dir) / f"noise-{jax.process_index()}.npy", noise_of_a_batch())
        np.save(Path(run_dir) / f"refusals-{jax.process_index()}.npy", refusals())
    return status


def evaluate(run_dir, cluster, fault):
    make, parts = examples.Examples.batch, []

    def faulty_batch(plan, *batch):
        parts.append(batch)
        if len(parts) == 2:
            befall(fault)
        return make(plan, *batch)

    examples.Examples.batch = faulty_batch
    return eval_program.main([run_dir, *EVALUATION, "--distributed", cluster])


def main(what, run_dir, cluster, fault=""):
    data.load = open_source
    training.Experiment.build = network
    return {"train": train, "eval": evaluate}[what](run_dir, cluster, fault)


if __name__ == "__main__":
    status = main(*sys.argv[1:])
    if sys.argv[1] == "eval" and status == cli.STOPPED:
        cli.end_at_once(status)
    sys.exit(status)
