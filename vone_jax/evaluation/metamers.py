"""The condition ``Metamers``: other images to which a layer responds as to the originals."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np

from vone_jax import arguments, prng, results, synthesis
from vone_jax.arguments import Range
from vone_jax.evaluation.conditions import Condition, Summary
from vone_jax.evaluation.geometry import check_layer, reduced_responses
from vone_jax.evaluation.judging import Trial
from vone_jax.network import Network


@dataclasses.dataclass(frozen=True)
class Metamers(Condition):
    """Metamers of a layer, see ``synthesis.metamers``, and the decisions of the network about them.

    The network's noise is frozen while a metamer is made, and fresh when it is judged. A metamer
    shows what the layer keeps: if a human does not recognise it, the layer's invariances are not
    those of humans.

    Attributes:
      layer: a name of ``Network.layers``.
      rounds, steps: rounds of gradient steps, and steps in each; the step is halved after a round.
        The authors take 8 rounds of 3000. Fewer steps match less well, which the numbers say.
      images: number of images.

    Raises:
      ValueError: if a field is out of range.
    """

    layer: str
    rounds: Annotated[int, Range(1)] = 8
    steps: Annotated[int, Range(1)] = 250
    images: Annotated[int, Range(2)] = 8

    def __post_init__(self):
        arguments.fields(self)

    @property
    def limit(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The number of images."""
        return self.images

    @property
    def name(self) -> str:
        return f"metamers-{self.layer}"

    @property
    def label(self) -> str:
        return f"metamers of {self.layer}"

    def passes(self, draws: int) -> int:
        return 3 * self.rounds * self.steps + 2 * draws

    def check(self, network: Network) -> None:
        super().check(network)
        check_layer(network, self.layer)

    def measure(self, trial: Trial) -> dict[str, Any]:
        response_fn = trial.network.response_fn(self.layer)
        keys = trial.keys("attack")
        found = synthesis.metamers(
            keys, response_fn, trial.images, rounds=self.rounds, steps=self.steps
        )
        made, clean = trial.judge(found.images[0]), trial.judge(trial.images)
        # The same draws as in ``synthesis.metamers``.
        noise, project = prng.stream(keys, "noise"), prng.stream(trial.root, "projection")
        place = trial.network.layers.index(self.layer)
        return {
            "metamers": found.images[0],
            "original": trial.images,
            "error": found.error[0],
            "decibel": found.decibel[0],
            "responses": reduced_responses(response_fn, noise, trial.images, project),
            "right": made["right"],
            "predicted": made["predicted"],
            "predicted clean": clean["predicted"],
            "place": np.full(len(trial.images), place, np.int32),
        }

    def summary(self, arrays: Mapping[str, np.ndarray]) -> Summary:
        # Of all images together, whatever the batches were.
        null = synthesis.null_decibel(arrays["responses"])
        same = arrays["predicted"] == arrays["predicted clean"]
        matched = arrays["decibel"] > null
        measured = {
            "matched": {"value": float(matched.mean())},
            "mean decibel": {"value": float(arrays["decibel"].mean())},
            "decibel of two images": {"value": null if np.isfinite(null) else None},
            "same decision": {"value": float(same.mean())},
            "matched and same decision": {"value": float((matched & same).mean())},
            "accuracy on metamers": dataclasses.asdict(results.accuracy(arrays["right"])),
        }
        return Summary(measured, {"place": int(arrays["place"][0])})
