"""The benchmarks run, and what they compare computes the same. No test looks at a time."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import naive, network, small_cnn, timing, torch_baseline
from benchmarks.__main__ import CASES, main
from benchmarks.sizes import QUICK
from vone_jax import models, v1

CONFIG = dataclasses.replace(QUICK.v1, noise=None)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((2, 32, 32, 3)).astype(np.float32)


def check_run(cases, tmp_path, capsys):
    path = tmp_path / "results.json"
    assert main(["--quick", "--json", str(path), "--cases", *cases]) == 0
    result = json.loads(path.read_text())
    rows = capsys.readouterr().out.splitlines()
    measurements = result["measurements"]
    assert len({m["case"] for m in measurements}) == len(cases)
    for m in measurements:
        (row,) = (r for r in rows if r.startswith(f"| {m['case']} | {m['contender']} |"))
        if m["seconds"]:
            if "on a small CNN" in m["case"]:
                assert 0 <= m["resisting"] <= m["images"]
                assert f"{m['resisting']} of {m['images']}" in row
            assert len(m["seconds"]) == QUICK.repeats and min(m["seconds"]) > 0
        else:
            assert "not installed" in row
    ours = [m for m in measurements if m["contender"] == timing.OURS]
    assert len(ours) == len(cases)
    assert all(m["over_ours"] == 1 and m["compile_seconds"] > 0 for m in ours)
    assert result["environment"]["versions"]["jax"] == jax.__version__


@pytest.mark.filterwarnings("ignore")  # of the libraries that are compared with
def test_quick_form_writes_a_table_and_json(tmp_path, capsys):
    check_run(["bank", "block", "pgd", "apgd"], tmp_path, capsys)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_quick_form_of_all_cases(tmp_path, capsys):
    check_run(list(CASES), tmp_path, capsys)


def test_naive_front_end_computes_the_same(images):
    ours = v1.noise_free_responses(CONFIG, images)
    theirs = jax.jit(lambda images: naive.dense_responses(CONFIG, images))(images)
    np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-4)


def test_naive_network_computes_the_same():
    networks = network._networks(dataclasses.replace(QUICK, v1=CONFIG), 2)
    logits = [
        jax.jit(models.logits_fn(model, networks.variables))(networks.key, networks.images)
        for model in (networks.ours, networks.naive)
    ]
    assert float(jnp.std(logits[0])) > 0
    np.testing.assert_allclose(logits[1], logits[0], rtol=1e-3, atol=1e-3)


@pytest.mark.torch
def test_pytorch_front_end_computes_the_same(images):
    pytest.importorskip("torch")
    ours = np.asarray(v1.noise_free_responses(CONFIG, images))
    tensor, _ = torch_baseline.tensors(images, np.zeros(2))
    theirs = torch_baseline.front_end(CONFIG).noise_free(tensor).cpu().numpy()
    np.testing.assert_allclose(theirs.transpose(0, 2, 3, 1), ours, rtol=1e-4, atol=1e-4)


@pytest.mark.torch
def test_pytorch_small_cnn_computes_the_same(images):
    pytest.importorskip("torch")
    weights = small_cnn.target(QUICK).weights
    ours = np.asarray(small_cnn.logits(weights, jnp.asarray(images)))
    tensor, _ = torch_baseline.tensors(images, np.zeros(2))
    theirs = torch_baseline.small_cnn(weights)(tensor).cpu().numpy()
    assert ours.std() > 0
    np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-5)


def test_an_image_outside_of_the_ball_is_no_success():
    """On a network whose answer is the colour with the larger mean."""
    centre = np.zeros((3, 3, 3, 3), np.float32)
    centre[1, 1] = np.eye(3)
    weights = [jnp.asarray(centre)] * 3 + [jnp.eye(3)]
    images = np.full((3, 8, 8, 3), 0.5, np.float32)
    images[..., 0] += 0.02
    target = small_cnn.Target(weights, images, np.zeros(3, np.int32), jax.random.key(0))
    assert target.resisting(images) == 3
    adversarial = images.copy()
    adversarial[0, ..., 1] += 0.03  # within 8/255
    adversarial[1, ..., 1] += 0.04
    assert target.resisting(adversarial) == 2
    adversarial[2] = np.nan
    assert target.resisting(adversarial) == 2


def test_compilation_in_the_first_call_is_told_apart(monkeypatch):
    durations = iter([7.0, 2.0])
    clock = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])

    def run():
        clock[0] += next(durations)
        return "abc"

    program = timing.Program(run, compiles_when_run=True, resisting=len)
    (measured,) = timing.measure("case", 4, {timing.OURS: lambda: program}, repeats=1)
    assert (measured.compile_seconds, measured.seconds) == (5.0, (0.5,))
    assert (measured.resisting, measured.images) == (3, 4)


def test_times_are_per_image_and_in_turn():
    calls = []

    def contender(name):
        return lambda: timing.Program(lambda: calls.append(name), 1.5, lambda: 7)

    def missing():
        raise ModuleNotFoundError("no such library")

    contenders = {timing.OURS: contender("a"), "b": contender("b"), "c": missing}
    ours, other, absent = timing.measure("case", 4, contenders, repeats=3)
    assert calls == ["a", "b"] * 4
    assert (ours.compile_seconds, ours.memory, len(other.seconds)) == (1.5, 7, 3)
    assert absent.median is None
    fixed = [dataclasses.replace(ours, seconds=(1.0, 9.0, 2.0)), absent]
    fixed.append(dataclasses.replace(other, seconds=(3.0, 3.0, 8.0)))
    assert timing.ratios(fixed) == [1.0, None, 1.5]
