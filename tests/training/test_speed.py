"""Rates of a training by a clock that is set by hand, and the trace of a profile."""

from dataclasses import replace
from types import SimpleNamespace

import jax
import pytest

from vone_jax import training
from vone_jax.attacks import PGD
from vone_jax.training import speed
from vone_jax.training.run import read_log


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(speed.time, "perf_counter", lambda: now.seconds)
    return now


def test_rates_are_those_of_the_steps_without_the_first_and_without_pauses(clock):
    """Two steps of 8 images in 4 s on two chips, half a second of each waiting."""
    chips = [SimpleNamespace(device_kind="NVIDIA A100-SXM4-80GB")] * 2
    measured = speed.Speed(chips, lambda: 312e12)
    clock.seconds += 50
    measured.count(8)
    for _ in range(2):
        with measured.waiting():
            clock.seconds += 0.5
        clock.seconds += 1.5
        measured.count(8)
    with measured.paused():
        clock.seconds += 30
    assert measured.take() == pytest.approx(
        {
            "examples_per_second": 4.0,
            "examples_per_second_per_chip": 2.0,
            "step_seconds": 2.0,
            "waiting_seconds": 0.5,
            "share_of_peak": 0.25,
        }
    )
    clock.seconds += 1
    measured.count(8)
    assert measured.take()["examples_per_second"] == 8.0


def test_chips_are_known_by_their_kind():
    assert speed.peak("TPU v5 lite") == 197e12 != speed.peak("TPU v5p")
    assert speed.peak("NVIDIA H100 80GB HBM3") == 989e12
    assert speed.peak("NVIDIA H100 PCIe") == 756e12
    assert speed.peak("NVIDIA L40S") is None and speed.peak("cpu") is None


def test_operations_are_counted_where_no_loop_hides_them(tiny):
    """The convolution has 8 x 8 x 9 x 4 products of an image, its gradient as many."""
    from test_train_step import EXPERIMENT, MODEL, host_batch

    from vone_jax import mesh
    from vone_jax.training.step import initial_state, make_train_step

    step = make_train_step(MODEL, EXPERIMENT, 3, mesh.data_mesh(jax.devices()[:1]))
    state = initial_state(EXPERIMENT, MODEL)
    counted = speed.operations(step, state, host_batch())
    assert counted > 2 * 2 * 8 * (8 * 8 * 9 * 4)
    attacked = replace(EXPERIMENT, objectives=(PGD("linf", 0.1),))
    step = make_train_step(MODEL, attacked, 3, mesh.data_mesh(jax.devices()[:1]))
    assert speed.operations(step, state, host_batch()) is None


@pytest.mark.slow
def test_a_profile_and_the_records_of_the_log_are_given(tiny, tmp_path):
    records = []
    training.train(
        replace(tiny, steps=14), tmp_path, devices=jax.devices()[:1], on_log=records.append,
        profile=2,
    )  # fmt: skip
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
    assert records == read_log(tmp_path / "log.jsonl")
    assert {"step_seconds", "waiting_seconds"} < records[0].keys()
