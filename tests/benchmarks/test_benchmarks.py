"""The benchmarks run, and what they compare computes the same. No test looks at a time."""

import dataclasses
import json
import multiprocessing
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import attacks, naive, network, timing, torch_baseline, truth
from benchmarks.__main__ import CASES, main
from vone_jax import answer_key, v1

CONFIG = dataclasses.replace(network.QUICK.front_end, noise=None)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((2, 32, 32, 3)).astype(np.float32)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the libraries that are compared with
def test_quick_form_of_all_cases(tmp_path, capsys):
    path = tmp_path / "results.json"
    assert main(["--quick", "--together", "--json", str(path)]) == 0
    measurements = json.loads(path.read_text())["measurements"]
    rows = capsys.readouterr().out.splitlines()
    assert len({m["case"] for m in measurements}) == len(CASES)
    for m in measurements:
        (row,) = (r for r in rows if r.startswith(f"| {m['case']} | {m['contender']} |"))
        if not m["seconds"]:
            assert "not installed" in row
        elif "on a small CNN" in m["case"]:
            assert 0 <= m["resisting"] <= m["images"]
            assert f"{m['resisting']} of {m['images']}" in row
    assert sum(m["contender"] == timing.OURS for m in measurements) == len(CASES)


@pytest.mark.slow
def test_attacks_are_graded_and_a_stopped_run_goes_on(tmp_path):
    table, figure = tmp_path / "truth.csv", tmp_path / "truth.png"
    names = "FGSM, 1 draw", "PGD, 10 draws", "Square, 500 queries, 10 draws"
    given = ["truth", "--csv", str(table), "--examples", "6", "--packages", "vone_jax"]
    given += ["--attacks", *names]
    assert main([*given, "--networks", "shared_gain", "quantised"]) == 0
    rows = truth.read(table)
    for row in rows:
        reported, exact, low, high = (
            float(row[name]) for name in ("reported", "exact", "truth_low", "truth_high")
        )
        # Behind steps nothing is found, and averages find the truth where noise multiplies.
        sure = (row["network"], row["attack"]) == ("shared_gain", names[1])
        assert row["warned"] == ("no" if sure else "yes")
        assert low == high and low - 2e-4 <= exact <= 1 and abs(reported - exact) < 0.35
    # Behind steps, too, where all gradients are 0.
    for name in ("shared_gain", "quantised"):
        own = [row for row in rows if row["network"] == name]
        gradients = {row["attack"]: int(row["gradients"]) for row in own}
        assert gradients["FGSM, 1 draw"] == 1 and gradients["PGD, 10 draws"] == 200
        assert gradients["Square, 500 queries, 10 draws"] == 0
    before = table.read_text()
    assert main([*given, "--networks", "shared_gain", "--figure", str(figure)]) == 0
    assert table.read_text() == before and figure.stat().st_size > 10_000


@pytest.mark.extras
def test_a_network_as_a_module_of_pytorch_has_the_same_logits_and_gradients():
    """Also for parts of the images, which toolkits drop as they go."""
    torch = pytest.importorskip("torch")
    problem = answer_key.linear_classes(classes=4, examples=5, shape=(4, 4))
    target = truth.Target(problem, "linf", answer_key.RADIUS)
    module = target.torch_module()
    images = target.tensors()[0][:3].requires_grad_()
    # The gradient is of the draws of the logits.
    with jax.debug_key_reuse(False):
        logits = module(images)
        keys = truth.Target(problem, "linf", answer_key.RADIUS).next_keys()[:3]
        theirs = problem.logits_fn(keys, problem.images[:3])
        np.testing.assert_allclose(logits.detach().numpy(), theirs, rtol=1e-5, atol=1e-5)
        (slope,) = torch.autograd.grad(logits[:, 1].sum(), images)
        expected = jax.grad(lambda x: problem.logits_fn(keys, x)[:, 1].sum())(problem.images[:3])
    np.testing.assert_allclose(slope.numpy().transpose(0, 2, 3, 1), expected, rtol=1e-5)
    assert target.gradients == 3
    # Another pass has other noise.
    assert np.abs((module(images) - logits).detach().numpy()).min() > 1e-4


def test_the_naive_front_end_computes_the_same(images):
    ours = v1.noise_free_responses(CONFIG, images)
    theirs = jax.jit(lambda key, images: naive.block(CONFIG, key, images))
    np.testing.assert_allclose(theirs(jax.random.key(0), images), ours, rtol=1e-4, atol=1e-4)


@pytest.mark.extras
def test_the_front_end_of_pytorch_computes_the_same(images):
    pytest.importorskip("torch")
    ours = np.asarray(v1.noise_free_responses(CONFIG, images))
    tensor, _ = torch_baseline.tensors(images, np.zeros(2))
    theirs = torch_baseline.front_end(CONFIG)(tensor).cpu().numpy()
    np.testing.assert_allclose(theirs.transpose(0, 2, 3, 1), ours, rtol=1e-4, atol=1e-4)


@pytest.mark.extras
def test_the_small_cnn_of_pytorch_computes_the_same(images):
    pytest.importorskip("torch")
    weights = attacks.target_of(attacks.QUICK).weights
    ours = np.asarray(attacks.logits(weights, jnp.asarray(images)))
    tensor, _ = torch_baseline.tensors(images, np.zeros(2))
    theirs = torch_baseline.small_cnn(weights)(tensor).cpu().numpy()
    assert ours.std() > 0
    np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_an_image_outside_of_the_ball_is_no_success():
    """On a network whose answer is the colour with the larger mean."""
    centre = np.zeros((3, 3, 3, 3), np.float32)
    centre[1, 1] = np.eye(3)
    weights = [jnp.asarray(centre)] * 3 + [jnp.eye(3)]
    images = np.full((3, 8, 8, 3), 0.5, np.float32)
    images[..., 0] += 0.02
    target = attacks.Target(weights, images, np.zeros(3, np.int32))
    assert target.resisting(images) == 3
    adversarial = images.copy()
    adversarial[0, ..., 1] += 0.03  # within 8/255
    adversarial[1, ..., 1] += 0.04
    assert target.resisting(adversarial) == 2
    adversarial[2] = np.nan
    assert target.resisting(adversarial) == 2


@dataclasses.dataclass(frozen=True)
class Toy:
    """A case whose programs say in which process they ran, or fail."""

    fails: bool = False


def toys(toy):
    def missing():
        import no_such_library  # pyright: ignore[reportMissingImports]  # noqa: F401

    def failing():
        raise ArithmeticError("no such number")

    def counting():
        return timing.Program(os.getpid, 4, lambda pid: pid)

    others = {"failing": failing} if toy.fails else {"missing": missing}
    return {timing.OURS: counting, "second": counting} | others


@pytest.mark.slow
def test_programs_run_in_processes_of_their_own():
    measured = {m.contender: m for m in timing.measure("toy", toys, Toy(), repeats=3)}
    ours, second = measured[timing.OURS], measured["second"]
    assert len({ours.resisting, second.resisting, os.getpid()}) == 3
    assert len(ours.seconds) == len(ours.processor_seconds) == 3 and ours.images == 4
    assert not measured["missing"].seconds
    assert not multiprocessing.active_children()
    with pytest.raises(ArithmeticError, match="no such number"):
        timing.measure("toy", toys, Toy(fails=True), repeats=1)


def test_times_are_per_image_and_beside_ours(monkeypatch):
    clock, durations = [0.0], iter([7.0, 2.0, 4.0])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])

    def run():
        clock[0] += next(durations)
        return "abc"

    contenders = {timing.OURS: lambda: timing.Program(run, 4, len)}
    (ours,) = timing.measure("case", lambda _: contenders, 0, repeats=2, apart=False)
    assert (ours.compile_seconds, ours.seconds, ours.resisting) == (4.0, (0.5, 1.0), 3)
    other = dataclasses.replace(ours, contender="b", seconds=(1.5,), processor_seconds=(2.0,))
    ours = dataclasses.replace(ours, processor_seconds=(1.0, 1.0))
    surroundings = timing.environment("benchmarks", [])
    table = timing.to_markdown(surroundings, [ours, other, timing.Measurement("case", "c")])
    assert "| case | b | 1500 | 1500 | 2.00 | 2000 | 2.00 | 4.0 | 3 of 4 |" in table
    assert "| case | c | not installed |" in table
