"""What somebody else wrote, in one file outside the package: a measurement up to the page, and an
objective of training up to the evaluation."""

import json
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

import vone_jax
from tests.evaluation.tiny import tiny_evaluation, tiny_trained
from vone_jax import cli, evaluation, files, results, training, v1
from vone_jax.cli import evaluate, train
from vone_jax.evaluation.suites import conditions, find

FILE = '''
import dataclasses

import altair as alt
import jax.numpy as jnp
import numpy as np

from vone_jax import evaluation, results


@dataclasses.dataclass(frozen=True)
class Brightness(evaluation.Condition):
    """How sure a network is of images that are darkened."""

    section = "Dark rooms"

    levels: tuple[float, ...] = (0.3, 0.6)
    power: float = 1.0

    def make(self, batch):
        keys = batch.keys("judge")
        dark = [batch.images * level**self.power for level in self.levels]
        top = [batch.classifier()(keys, each).max(axis=1) for each in dark]
        return {"top": jnp.stack(top, axis=1), "seen": batch.images}

    def result(self, arrays, evaluated):
        measured = [
            evaluation.number("largest logit", of=arrays["top"][:, place], unit="nats", level=level)
            for place, level in enumerate(self.levels)
        ]
        measured.append(evaluation.number("sure", of=arrays["top"][:, 0] > 0, main=True))
        chart = alt.Chart(alt.InlineData(values=[{"x": 1}])).mark_bar().encode(x="x:Q")
        views = [
            results.Lines("largest logit", "level", about="Dark rooms hide what is seen."),
            results.Chart(chart.to_dict(), "a bar of a stranger"),
            results.Pictures(("shown",), ("the first image",)),
        ]
        people = [{"network": "9 observers", "number": "largest logit", "level": 0.3, "value": 1.5}]
        return evaluation.Numbers(measured, views, people, arrays={"shown": arrays["seen"][:1]})


def rooms(evaluated, *, power: float = 2.0):
    """dark rooms at two powers"""
    return [Brightness(), Brightness(power=power)]

'''


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of two networks, made by a process that has not got the file, and their frame."""
    place = tmp_path_factory.mktemp("stranger")
    file = place / "rooms.py"
    file.write_text(FILE)
    for name, seed in (("one", 0), ("two", 1)):
        network = tiny_trained(noise=v1.GaussianNoise(0.5), seed=seed)
        plan = tiny_evaluation(network, place / name / "results")
        for condition in conditions(find([f"{file}:rooms"], {}, {}), plan, {"power": 3.0}):
            evaluation.evaluate(plan, condition)
    file.unlink()
    for name in [name for name in sys.modules if name == "file_rooms"]:
        del sys.modules[name]
    made = (
        f"from vone_jax import report; report.write({[str(place / n) for n in ('one', 'two')]!r}, "
    )
    made += f"{str(place / 'page.html')!r}); import sys; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", made], check=True, timeout=120)
    frame = results.load([place / "one", place / "two"]).to_frame()
    return (place / "page.html").read_text(), frame


def points(spec):
    """The points of networks in a chart, each once."""
    found = {}
    pending = [spec]
    while pending:
        each = pending.pop()
        if isinstance(each, dict) and {"network", "line", "x"} <= each.keys():
            found[json.dumps(each)] = each
        pending += (
            each.values() if isinstance(each, dict) else each if isinstance(each, list) else []
        )
    return [each for each in found.values() if "observers" not in each["network"]]


def section(page, name):
    """The HTML of a section of the page."""
    return re.search(rf"<section[^>]*><h2>{name}</h2>.*?</section>", page, re.DOTALL)[0]


def test_a_strangers_measurement_has_its_section_with_caption_chart_and_pictures(page):
    shown = section(page[0], "Dark rooms")
    assert "Dark rooms hide what is seen." in shown
    assert "a bar of a stranger" in shown and "the first image" in shown
    assert shown.count("data:image/png") >= 2
    assert "9 observers" in shown


def test_two_settings_stand_apart(page):
    html, frame = page
    rows = frame[(frame.number == "largest logit") & (frame.level == 0.3)]
    assert len(rows) == 4 and rows.label.nunique() == 2
    powers = sorted(rows.power.fillna(1.0))
    assert powers == [1.0, 1.0, 3.0, 3.0]
    shown = section(html, "Dark rooms")
    assert "power 3" in shown


def test_its_differences_are_paired(page):
    html, frame = page
    rows = frame[(frame.number == "largest logit") & (frame.level == 0.6) & frame.power.isna()]
    base, other = rows.value
    shown = section(html, "Dark rooms")
    pattern = r'data-label="Difference">\s*<span[^>]*><data value="([^"]+)"'
    cells = [float(each) for each in re.findall(pattern, shown)]
    assert any(np.isclose(each, other - base, atol=1e-6) for each in cells)
    assert "unpaired" not in shown


def test_its_main_numbers_stand_in_the_first_table(page):
    assert "sure" in section(page[0], "Accuracy")


def test_the_chart_joins_points_that_differ_in_the_axis_alone(page):
    shown = section(page[0], "Dark rooms")
    specs = [json.loads(each) for each in re.findall(r'class="chart">(.*?)</script>', shown)]
    lines = {(p["network"], p["line"]) for p in points(specs[0])}
    assert len(lines) == 4
    for network, line in lines:
        own = [p["x"] for p in points(specs[0]) if (p["network"], p["line"]) == (network, line)]
        assert sorted(own) == [0.3, 0.6]


# A later method of a class takes the place of an earlier one.
MISTAKE = """
    def result(self, arrays, evaluated):
        measured = [evaluation.number('sure', 1.0, level=2)]
        return evaluation.Numbers(measured, [results.Lines('shure', 'level')])
"""


def test_a_view_of_what_was_not_measured_names_the_class_and_its_place(tmp_path):
    file, told = tmp_path / "rooms.py", "'shure' against 'level'.*it measured 'sure'"
    file.write_text(FILE.partition("def rooms")[0].rstrip() + "\n" + MISTAKE)
    condition = files.imported(f"{file}:Brightness")((0.3,))
    plan = tiny_evaluation(tiny_trained(), tmp_path / "results")
    with pytest.raises(TypeError, match=rf"Brightness \(.*rooms.py, line \d+\): .*{told}"):
        evaluation.evaluate(plan, condition)


# An objective, an attack, a schedule and an optimiser of somebody else, in a file beside a config.

CODE = '''
import dataclasses

import jax.numpy as jnp
import optax

from vone_jax import attacks, prng, training


@dataclasses.dataclass(frozen=True)
class Steady(training.Objective):
    """Weights of classes, a learned scale, the same answer in two draws, and an older gradient."""

    weight: float = 0.5

    def resources(self, run):
        return jnp.linspace(0.5, 1.5, len(run.class_names))

    def init(self, key, run):
        state = {"older": jnp.zeros(run.image_shape), "steps": jnp.int32(0)}
        return {"scale": jnp.ones(())}, state

    def batch(self, context, batch):
        return batch | {"weight": context.resources[batch["label"]]}

    def losses(self, context, batch, logits, losses):
        other = context.forward(batch["image"], prng.stream(context.keys, "other"))
        apart = jnp.mean((logits - other) ** 2, axis=1)
        context.log("apart", jnp.mean(apart))
        return context.own["scale"] * losses * batch["weight"] + self.weight * apart

    def gradient(self, context, gradient_fn, params, batch):
        older = context.state["older"][None]
        moved = jnp.clip(batch["image"] + 0.01 * jnp.sign(older), 0, 1)
        found = gradient_fn(params, batch | {"image": moved})
        older = 0.9 * older[0] + jnp.sum(found.images, axis=0)
        return found, {"older": older, "steps": context.state["steps"] + 1}


@dataclasses.dataclass(frozen=True)
class Tilt(attacks.Attack):
    """One step along the gradient itself, to a power."""

    norm: str
    eps: float
    power: float = 1.0

    def run(self, keys, logits_fn, images, labels):
        slope, _, _ = self.gradient(keys, logits_fn, images, labels)
        size = jnp.max(jnp.abs(slope), axis=(1, 2, 3), keepdims=True)
        slope = slope / (size + 1e-12)
        slope = jnp.sign(slope) * jnp.abs(slope) ** self.power
        return jnp.clip(images + self.eps * slope, 0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Saw(training.Schedule):
    teeth: int = 2

    def factor(self, step, steps_per_epoch, total_steps):
        return 1.0 / (1.0 + (step % self.teeth).astype(jnp.float32))


@dataclasses.dataclass(frozen=True)
class Lion(training.OptimizerConfig):
    def transformation(self, rate=1.0, momentum=None):
        return optax.lion(rate, b1=self.momentum)
'''

CONFIG = """
from steady import Lion, Saw, Steady, Tilt

from vone_jax import models, training

experiment = training.Experiment(
    name="mine",
    model=models.Spec("vone_small_cnn", image_size=28, in_channels=1, width=2),
    data=training.DataConfig("fashion_mnist_small", batch_size=16, eval_batch_size=500),
    optimizer=Lion(learning_rate=1e-3, schedule=Saw(3)),
    objectives=(training.Mixing(0.2), Tilt("linf", 0.05, power=0.5), Steady(weight=0.25)),
    steps=6,
    log_every=1,
)
"""


@pytest.fixture
def strangers(tmp_path, monkeypatch):
    """The directory of the files, which is not the working one, and not on Python's path."""
    (tmp_path / "his").mkdir()
    (tmp_path / "his" / "steady.py").write_text(CODE)
    (tmp_path / "his" / "config.py").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "his"
    forget()


def forget():
    """Be a process that has not got the file."""
    for name in ("steady", "file_steady"):
        sys.modules.pop(name, None)


def stop_after(number):
    """A request to stop that is True from a step on; a step polls it once."""
    polled = iter(range(number))
    return lambda: next(polled, None) is None


def states(directory):
    """The arrays of the last checkpoint, by their names."""
    import orbax.checkpoint as ocp

    place = directory / "checkpoints" / "6" / "state"
    with ocp.StandardCheckpointer() as saved:
        state = saved.restore(place.absolute())
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(state)}


@pytest.mark.slow
def test_a_strangers_objective_trains_stops_resumes_and_is_opened_and_evaluated(
    strangers, tmp_path, capsys
):
    config = str(strangers / "config.py")
    assert train.main([config, "--run-dir", "one"]) == 0
    assert "eval.py one --code his/steady.py" in capsys.readouterr().out
    # It stops, and another process resumes it, with the same bits.
    experiment = training.load_config(config, cli.configs())
    training.train(experiment, "two", stop=stop_after(4))
    assert training.saved_steps("two") == [4]
    forget()
    assert train.main([config, "--run-dir", "two"]) == 0
    expected, found = states(tmp_path / "one"), states(tmp_path / "two")
    assert {"['own']['Steady']['scale']", "['objectives']['Steady']['older']"} <= expected.keys()
    assert expected["['objectives']['Steady']['steps']"] == 6
    assert expected["['own']['Steady']['scale']"] != 1.0
    assert np.any(expected["['objectives']['Steady']['older']"] != 0)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    lines = [json.loads(line) for line in (tmp_path / "two/log.jsonl").read_text().splitlines()]
    apart = [line["Steady.apart"] for line in lines if line["kind"] == "train"]
    assert len(apart) == 6 and min(apart) > 0
    # It is opened and evaluated where nobody has the class, if it is named.
    forget()
    with pytest.raises(ValueError, match="'steady' is not imported.*--code steady"):
        vone_jax.open_network("two")
    assert evaluate.main(["two", "--suite", "clean", "--examples", "8"]) == 2
    named = ["--code", str(strangers / "steady.py")]
    assert evaluate.main(["two", "--suite", "clean", "--examples", "8", *named]) == 0


@pytest.mark.slow
def test_a_strangers_edited_objective_is_told_and_refused_unless_it_is_asked_for(
    strangers, tmp_path, capsys
):
    config = str(strangers / "config.py")
    experiment = training.load_config(config, cli.configs())
    training.train(experiment, "run", stop=stop_after(4))
    edited = CODE.replace("0.9 * older", "0.8 * older")
    (strangers / "steady.py").write_text(edited)
    forget()
    assert train.main([config, "--run-dir", "run"]) == 2
    told = capsys.readouterr().err
    assert "its code of steady are" in told and "--changed-code goes on" in told
    assert training.saved_steps("run") == [4]
    with pytest.warns(UserWarning, match="steady has changed since the run"):
        assert train.main([config, "--run-dir", "run", "--changed-code"]) == 0
    # From here on it is the code of the run.
    assert train.main([config, "--run-dir", "run"]) == 0
