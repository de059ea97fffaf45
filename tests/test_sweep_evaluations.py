"""The evaluations of sweeps: eval.py accepts each of them, under a name of its own."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vone_jax import data, models, results, training
from vone_jax import sweep as sweeps
from vone_jax.cli import evaluate
from vone_jax.evaluation.identity import identity
from vone_jax.network import Network, Split

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
NAMES = training.config_names(CONFIGS, "sweep")
GROUPS = sorted({sweeps.load_sweep(name, CONFIGS).group for name in NAMES})


def arguments_of(words):
    """The arguments and the options of suites that the words of an evaluation give."""
    given, own = evaluate.parse(["run", *words])
    # The other networks of a sweep are not trained here.
    return dataclasses.replace(given, others=()), own


def network_of(network, variables):
    """A network with zeros in the place of its weights; a function for networks of files."""
    known = {"class_names": ("a", "b"), "source": "a file"}
    if not isinstance(network, training.Experiment):
        shape = (224, 224, 3) if isinstance(network, sweeps.Weights) else (28, 28, 1)
        return Network("net", lambda keys, x: x.mean((1, 2))[:, :1] + jnp.zeros((1, 2)), shape,
                       stochastic=True, **known)  # fmt: skip
    size, channels = network.model.image_size, network.model.in_channels or 3
    channels = 1 if "fashion" in network.data.source else channels
    split = network.data.eval_split or "test"
    images = data.ArraySource(
        np.zeros((2, size, size, channels), np.uint8), np.arange(2), class_names=("a", "b"),
        name="images", split=split,
    )  # fmt: skip
    chosen = dataclasses.replace(network.data, eval_split=split)
    model = dataclasses.replace(network.model, num_classes=None)
    model = training.resolve(dataclasses.replace(network, data=chosen, model=model), images).build()
    if model not in variables:
        shapes = jax.eval_shape(lambda: models.init(model, jax.random.key(0)))
        variables[model] = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    seen = Split(network.data.source, split)
    return Network.of_model("net", model, variables[model], validation=seen, **known)


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_no_two_evaluations_of_a_network_write_the_same_result(group, monkeypatch):
    """Across all sweeps that share its directory: one name, one identity."""
    monkeypatch.setattr(Network, "num_classes", 2)
    monkeypatch.setattr(Network, "checksum", "0")
    monkeypatch.setattr(Network, "parameters", 0)
    monkeypatch.setattr(data.ArraySource, "checksums", lambda self, indices: indices)
    members: dict[str, tuple] = {}
    for name in NAMES:
        sweep = sweeps.load_sweep(name, CONFIGS)
        if sweep.group == group:
            for label, member in sweep.members.items():
                _, wanted = members.setdefault(label, (member.network, {}))
                wanted |= dict.fromkeys(sweep.evaluations_of(label))
    parsed: dict = {}
    variables: dict = {}
    for label, (experiment, wanted) in members.items():
        network = network_of(experiment, variables)

        def load(source, split, data_dir=None, shape=network.image_shape):
            images = np.broadcast_to(np.zeros((), np.uint8), (10_000, *shape))
            return data.ArraySource(
                images, np.zeros(10_000, int), class_names=("a", "b"), name=source, split=split
            )

        monkeypatch.setattr(data, "load", load)
        identities: dict[str, dict] = {}
        for words in wanted:
            options, own = parsed.get(words) or arguments_of(words)
            parsed[words] = options, own
            if network.validation is None:
                options = dataclasses.replace(options, source="folder:images", split=".")
            for plan, condition in evaluate.tasks(network, options, own):
                what = identity(plan, condition)
                first = identities.setdefault(results.stem(plan.row(condition)), what)
                assert not results.differences(what, first), (label, words)
        assert identities, label
