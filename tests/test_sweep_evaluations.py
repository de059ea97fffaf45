"""The evaluations of sweeps: eval.py accepts each of them, under a name of its own."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tyro

from vone_jax import data, evaluation, results, training
from vone_jax import sweep as sweeps
from vone_jax.cli.evaluate import Arguments
from vone_jax.evaluation import Condition
from vone_jax.network import Network, open_network
from vone_jax.training import run as run_dirs
from vone_jax.training.state import initial_state

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
NAMES = training.config_names(CONFIGS, "sweep")
GROUPS = sorted({sweeps.load_sweep(name, CONFIGS).group for name in NAMES})


def variables_of(experiment):
    """Shapes in the place of trained weights."""
    model = experiment.build()
    state = jax.eval_shape(lambda: initial_state(experiment, model))
    params = dict(state.params)
    if "block" in params:
        # What a bank has learned is read when its run is opened.
        params["block"] = jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), params["block"]
        )
    return model, {"params": params, "batch_stats": state.batch_stats}


@pytest.fixture
def mocked(monkeypatch):
    """Restores any experiment that is put in, and images of its size without a file."""
    current: dict = {}
    monkeypatch.setattr(run_dirs, "load_run", lambda path, step=None: current["restored"])
    monkeypatch.setattr(Network, "num_classes", property(lambda self: current["classes"]))
    monkeypatch.setattr(Network, "weights", "0")
    monkeypatch.setattr(Network, "parameters", 0)

    def load(source, split, data_dir=None):
        size, channels = current["image"]
        images = np.broadcast_to(np.zeros((), np.uint8), (10_000, size, size, channels))
        labels = np.zeros(10_000, int)
        return data.ArraySource(images, labels, class_names=("a", "b"), name=source, split=split)

    monkeypatch.setattr(data, "load", load)
    return current


@pytest.mark.slow
def test_the_command_line_of_an_evaluation_gives_its_request():
    requests = {
        request
        for sweep in (sweeps.load_sweep(name, CONFIGS) for name in NAMES)
        for label in sweep.members
        for request in sweep.evaluations_of(label)
    }
    requests |= {dataclasses.replace(each, source="folder:images", split=".") for each in requests}
    for request in requests:
        argv = ["run", *request.to_arguments()]
        parsed = tyro.cli(Arguments, args=argv, config=(tyro.conf.OmitArgPrefixes,))
        assert parsed.request == request


def _class_names(number):
    """Those of the images that are put in, and others."""
    return ("a", "b", *map(str, range(2, number)))


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_no_two_evaluations_of_a_network_write_the_same_result(group, mocked, tmp_path):
    """Across all sweeps that share its directory: one name, one identity."""
    members: dict[str, tuple] = {}
    for name in NAMES:
        sweep = sweeps.load_sweep(name, CONFIGS)
        if sweep.group == group:
            for label, member in sweep.members.items():
                experiment, wanted = members.setdefault(label, (member.network, {}))
                wanted |= dict.fromkeys(sweep.evaluations_of(label))
    restored: dict = {}
    for label, (experiment, wanted) in members.items():
        if isinstance(experiment, sweeps.Weights):
            mocked["classes"], mocked["image"] = 1000, (224, 3)
            known = {"class_names": _class_names(1000), "stochastic": True, "source": "a file"}
            network = Network("file", sum, (224, 224, 3), **known)
        elif isinstance(experiment, sweeps.Ensemble):
            mocked["classes"], mocked["image"] = 10, (28, 1)
            known = {"class_names": _class_names(10), "stochastic": True, "source": "two runs"}
            network = Network("ensemble", sum, (28, 28, 1), **known)
        else:
            # Networks of one shape share a trace.
            if experiment.model not in restored:
                restored[experiment.model] = variables_of(experiment)
            config = dataclasses.replace(
                experiment.data, eval_split=experiment.data.eval_split or "test"
            )
            described = dataclasses.replace(experiment, data=config)
            description = training.RunDescription(described, experiment, (), 0)
            mocked["restored"] = training.Run(1, description, *restored[experiment.model])
            mocked["classes"] = experiment.model.num_classes
            mocked["image"] = experiment.model.image_size, experiment.model.in_channels
            network = open_network(tmp_path)
        identities: dict[str, results.Identity] = {}
        for request in wanted:
            if not isinstance(experiment, training.Experiment):
                request = dataclasses.replace(request, source="folder:images", split=".")
            for job, task in evaluation.plan(network, request):
                if isinstance(task, Condition):
                    identity = job.identity(task.name, task.record())
                    first = identities.setdefault(identity.name, identity)
                    assert not results.differences(identity, first), (label, request)
        assert {"clean"} < set(identities), label
