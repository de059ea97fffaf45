"""The benchmarks run, and what they compare computes the same. No test looks at a time."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import naive, network, timing, torch_baseline
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
            assert len(m["seconds"]) == QUICK.repeats and min(m["seconds"]) > 0
        else:
            assert "not installed" in row
    ours = [m for m in measurements if m["contender"] == timing.OURS]
    assert len(ours) == len(cases)
    assert all(m["over_ours"] == 1 and m["compile_seconds"] > 0 for m in ours)
    assert result["environment"]["versions"]["jax"] == jax.__version__


@pytest.mark.filterwarnings("ignore")  # of the libraries that are compared with
def test_quick_form_writes_a_table_and_json(tmp_path, capsys):
    check_run(["bank", "block", "pgd"], tmp_path, capsys)


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
