"""The benchmarks run, and what they compare computes the same. No test looks at a time."""

import dataclasses
import functools
import json
import multiprocessing
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import attacks, naive, network, physiology, timing, torch_baseline
from benchmarks.__main__ import CASES, main
from benchmarks.sizes import QUICK
from vone_jax import models, neurophysiology, v1
from vone_jax.neurophysiology import recording, stimuli, tuning

CONFIG = dataclasses.replace(QUICK.v1, noise=None)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((2, 32, 32, 3)).astype(np.float32)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the libraries that are compared with
def test_quick_form_of_all_cases(tmp_path, capsys):
    path = tmp_path / "results.json"
    assert main(["--quick", "--together", "--json", str(path), "--cases", *CASES]) == 0
    result = json.loads(path.read_text())
    rows = capsys.readouterr().out.splitlines()
    measurements = result["measurements"]
    assert len({m["case"] for m in measurements}) == len(CASES)
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
    assert len(ours) == len(CASES)
    assert all(m["over_ours"] == 1 and m["compile_seconds"] > 0 for m in ours)
    assert result["environment"]["versions"]["jax"] == jax.__version__


@pytest.mark.slow
def test_naive_front_end_computes_the_same(images):
    ours = v1.noise_free_responses(CONFIG, images)
    theirs = jax.jit(lambda images: naive.dense_responses(CONFIG, images))(images)
    np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_naive_network_computes_the_same():
    networks = network._networks(dataclasses.replace(QUICK, v1=CONFIG), 2)
    logits = [
        jax.jit(models.logits_fn(model, networks.variables))(networks.key, networks.images)
        for model in (networks.ours, networks.naive)
    ]
    assert float(jnp.std(logits[0])) > 0
    np.testing.assert_allclose(logits[1], logits[0], rtol=1e-3, atol=1e-3)


@pytest.mark.extras
def test_pytorch_front_end_computes_the_same(images):
    pytest.importorskip("torch")
    ours = np.asarray(v1.noise_free_responses(CONFIG, images))
    tensor, _ = torch_baseline.tensors(images, np.zeros(2))
    theirs = torch_baseline.front_end(CONFIG).noise_free(tensor).cpu().numpy()
    np.testing.assert_allclose(theirs.transpose(0, 2, 3, 1), ours, rtol=1e-4, atol=1e-4)


@pytest.mark.extras
def test_pytorch_small_cnn_computes_the_same(images):
    pytest.importorskip("torch")
    weights = attacks.target_of(QUICK).weights
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
    target = attacks.Target(weights, images, np.zeros(3, np.int32), jax.random.key(0))
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

    program = timing.Program(run, compile_seconds=None, resisting=len)
    (measured,) = timing.measure(timing.Case("case", 4, {timing.OURS: lambda: program}, repeats=1))
    assert (measured.compile_seconds, measured.seconds) == (5.0, (0.5,))
    assert (measured.resisting, measured.images) == (3, 4)


@pytest.mark.slow
def test_times_are_per_image_and_in_turn():
    calls = []

    def contender(name):
        return lambda: timing.Program(lambda: calls.append(name), 1.5, lambda: 7)

    def missing():
        raise ModuleNotFoundError("no such library")

    contenders = {timing.OURS: contender("a"), "b": contender("b"), "c": missing}
    ours, other, absent = timing.measure(timing.Case("case", 4, contenders, repeats=3))
    assert calls == ["a", "b"] * 4
    assert (ours.compile_seconds, ours.memory, len(other.seconds)) == (1.5, 7, 3)
    assert absent.median is None
    fixed = [dataclasses.replace(ours, seconds=(1.0, 9.0, 2.0)), absent]
    fixed.append(dataclasses.replace(other, seconds=(3.0, 3.0, 8.0)))
    assert timing.ratios(fixed) == [1.0, None, 1.5]


def _fail():
    raise ArithmeticError("no such number")


def toy_case(sizes):
    """A case whose programs work, break or end their process, and hold the process they ran in."""
    held = []

    def counting():
        return timing.Program(lambda: held.append(os.getpid()), resisting=lambda _: held[-1])

    def breaking():
        return timing.Program(_fail)

    def dying():
        return timing.Program(lambda: os._exit(7))

    def missing():
        import no_such_library  # pyright: ignore[reportMissingImports]  # noqa: F401

    builders = {"first": counting, "second": counting, "missing": missing}
    broken = {"broken": _fail, "breaking": breaking, "dying": dying}
    return timing.Case("toy", 2, broken if sizes.repeats > 1 else builders, 1)


def test_only_the_cases_that_are_asked_for_are_run(monkeypatch, capsys):
    monkeypatch.setitem(CASES, "toy", toy_case)
    assert main(["--quick", "--together", "--cases", "toy"]) == 0
    assert capsys.readouterr().err == "toy ...\n"


@pytest.mark.slow
def test_programs_run_in_processes_of_their_own():
    start = functools.partial(timing.Apart, toy_case, QUICK)
    first, second, missing = timing.measure(toy_case(QUICK), start)
    assert len({first.resisting, second.resisting, os.getpid()}) == 3
    assert len(first.seconds) == len(first.processor_seconds) == 1
    assert missing.median is None
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("contender", "message"),
    [
        ("broken", "(?s)broken failed.*no such number"),
        ("breaking", "(?s)breaking failed.*no such number"),
        ("dying", "dying ended without an answer, status 7"),
    ],
)
def test_a_program_that_fails_in_its_process_is_named(contender, message):
    sizes = dataclasses.replace(QUICK, repeats=2)
    case = toy_case(sizes)
    only = dataclasses.replace(case, contenders={contender: case.contenders[contender]})
    with pytest.raises(timing.ContenderError, match=message):
        timing.measure(only, functools.partial(timing.Apart, toy_case, sizes))
    assert not multiprocessing.active_children()


def test_plain_recordings_are_ours(tmp_path):
    """Whole images of files against windows of drawings, on a layer that blurs and rectifies."""
    display = neurophysiology.Display(8.0, 64, 1)
    kernel = jnp.asarray(np.random.default_rng(0).normal(size=(5, 5, 1, 3)), jnp.float32)

    def layer(images):
        linear = jax.lax.conv_general_dilated(
            images, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return jax.nn.relu(linear)

    table = physiology.gratings()[[1700, 4000, 6000, 9095]]
    paths = physiology.write_stimuli(table, tmp_path)
    found = physiology.activations(layer, paths, display, slice(16, 18))
    row, col, channel = (i.ravel() for i in np.indices((2, 2, 3)))
    site = recording.Site(display, display.whole(), ((row + 16) * 32 + col + 16) * 3 + channel,
                          row, col, channel)  # fmt: skip
    gratings = stimuli.GratingSet("some", (4,), table)
    ours = neurophysiology.record(lambda key, images: layer(images), jax.random.key(0), gratings,
                                  site)  # fmt: skip
    np.testing.assert_allclose(found.reshape(4, -1), ours, atol=1e-5)
    assert np.median(ours.std(axis=0)) > 0.3


def test_plain_properties_and_similarities_are_ours():
    rng = np.random.default_rng(0)
    sets = (stimuli.orientation_set(), stimuli.spatial_frequency_set(), stimuli.size_set())
    rates = [rng.gamma(2.0, 10.0, (*one.shape, 12)) for one in sets]
    blank = rng.gamma(2.0, 1.0, 12)
    found = physiology.properties(*rates, blank)
    ours = tuning.orientation_properties(rates[0], blank)
    ours |= tuning.spatial_frequency_properties(rates[1], blank)
    ours |= tuning.size_properties(rates[2], blank)
    for name in neurophysiology.PUBLISHED:
        np.testing.assert_allclose(found[name], ours[name], rtol=1e-12)
        values = physiology.reference_values(name)
        plain = physiology.similarity(values, name, rng, 300)
        ceiling = neurophysiology.ceiling(jax.random.key(0), neurophysiology.PUBLISHED[name])
        # The bootstrap deviates by 0.02 in a draw.
        assert plain == pytest.approx(ceiling, abs=0.006)


def test_plain_receptive_fields_are_centred_where_ours_are():
    responses = np.zeros((21, 21, 8, 2))
    responses[12, 14, 3, 0], responses[14, 14, 0, 0], responses[3, 4, 0, 1] = 4.0, 2.0, 9.0
    centres = physiology.field_centres(responses.reshape(3528, 2), np.array([1.0, 0.0]))
    # Above the blank 3 and 1, at 0.5 and 1 degree.
    np.testing.assert_allclose(centres, [[0.625, 1.0], [-1.75, -1.5]])


@pytest.mark.slow
def test_the_characterisation_is_timed_beside_the_plain_one(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(physiology, "ours", lambda config: (np.array([2.0, 3.0]), 50))
    path = tmp_path / "results.json"
    assert physiology.main(["--quick", "--json", str(path)]) == 0
    result = json.loads(path.read_text())
    parts, rows = (
        {name: np.array(pair) for name, pair in result[field].items()}
        for field in ("plain_seconds_per", "seconds")
    )
    assert min(part.min() for part in parts.values()) > 0
    expected = {
        "plain: 9097 images": 9097 * parts["image"],
        "plain: receptive fields of 2048 units": 2048 * parts["mapped unit"],
        "plain: properties of 50 units": 50 * parts["scored unit"],
        "plain: bootstraps": parts["bootstraps"],
    }
    for name, pair in expected.items():
        np.testing.assert_allclose(rows[name], pair)
    total = sum(expected.values())
    np.testing.assert_allclose(result["ratio"], total / [2.0, 3.0])
    shown = capsys.readouterr().out
    assert f"| plain, together | {total[0]:.1f} | {total[1]:.1f} |" in shown
    assert (
        f"Plain over vone_jax: {total[0] / 2:.1f}, in processor time {total[1] / 3:.1f}." in shown
    )
