"""A long run takes no more memory than a short one, and leaves no arrays behind."""

import gc
from dataclasses import replace

import jax
import pytest

from vone_jax import training
from vone_jax.training.speed import Speed

pytestmark = pytest.mark.usefixtures("cached_compilation")


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


@pytest.mark.slow
def test_memory_does_not_grow_over_1000_steps(tiny, tmp_path, monkeypatch):
    """Memory is compared at the steps 200, 600 and 1,000, with validations in between."""
    seen, counted, count = {}, [], Speed.count

    def watch(self, examples):
        count(self, examples)
        counted.append(examples)
        # Not at a fence post, so that each time the same is under way.
        if len(counted) in (202, 602, 1001):
            gc.collect()
            seen[len(counted)] = (len(jax.live_arrays()), resident_bytes())

    monkeypatch.setattr(Speed, "count", watch)
    experiment = replace(tiny, steps=1002, evaluate_every=30.0, checkpoint_every=30.0)
    assert training.train(experiment, tmp_path, devices=jax.devices()[:1]).finished
    (arrays, early), (_, middle), (arrays_late, late) = (seen[step] for step in (202, 602, 1001))
    assert arrays == arrays_late
    # The memory of the allocator comes in pieces; 16 MB are 20 kB a step.
    assert late - early < 16e6 and late - middle < 16e6
