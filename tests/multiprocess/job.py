"""``python job.py RUN_DIR CLUSTER [FAULT]``: train.py on the tiny network, in one of two processes.

CLUSTER is what ``--distributed`` takes. FAULT happens to this process when it has loaded the fifth
batch: "term" is a SIGTERM, "unreadable" an image that cannot be decoded.
"""

import importlib.util
import os
import signal
import sys
from pathlib import Path

import jax
import numpy as np

from vone_jax import data, mesh, prng, training, v1
from vone_jax.training import setup as setups

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS / "training"))
from tiny import TinyNet, tiny_source  # noqa: E402

EXPERIMENT = training.Experiment(
    name="processes",
    model=training.ModelConfig(name="resnet18", image_size=8, in_channels=1),
    data=training.DataConfig(source="tiny", batch_size=8, eval_batch_size=4),
    optimizer=training.OptimizerConfig(schedule=training.Plateau(patience=2)),
    steps=9,
    log_every=1,
)


class FaultySetup(setups.Setup):
    """A run in which something happens to this process."""

    fault = ""
    batches = 0

    def shard(self, batch, stop=False):
        if "mask" not in batch:
            FaultySetup.batches += 1
            if FaultySetup.batches == 5 and self.fault == "term":
                os.kill(os.getpid(), signal.SIGTERM)
            elif FaultySetup.batches == 5 and self.fault == "unreadable":
                raise ValueError("image 3 cannot be decoded")
        return super().shard(batch, stop)


def noise_of_a_batch():
    """V1's noise of 8 examples, drawn where their images would lie."""
    devices = mesh.data_mesh()
    rows = 8 // jax.process_count()
    first = rows * jax.process_index()
    indices = mesh.shard_batch(devices, np.arange(first, first + rows, dtype=np.uint32))
    keys = jax.jit(lambda i: prng.index_keys(jax.random.key(3), i))(indices)
    draw = jax.jit(lambda keys: v1.standard_normal(keys, (6,)))
    return mesh.fetch(draw(keys))


def main(run_dir, cluster, fault=""):
    data.load = lambda name, split, data_dir=None: tiny_source(split)
    setups.build_model = lambda config, precision: TinyNet()
    setups.Setup = FaultySetup
    FaultySetup.fault = fault
    training.load_config = lambda name, configs: EXPERIMENT
    spec = importlib.util.spec_from_file_location("train", TESTS.parent / "train.py")
    train = sys.modules["train"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(train)
    status = train.main(["processes", "--run-dir", run_dir, "--distributed", cluster])
    if status == 0:
        np.save(Path(run_dir) / f"noise-{jax.process_index()}.npy", noise_of_a_batch())
    return status


if __name__ == "__main__":
    with mesh.ending_together():
        sys.exit(main(*sys.argv[1:]))
