"""The condition ``Metamers``: other images to which a layer responds as to the originals."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np

from vone_jax import arguments, prng, results, synthesis
from vone_jax import mesh as meshes
from vone_jax.arguments import Range
from vone_jax.attacks import classifier
from vone_jax.evaluation import judging
from vone_jax.evaluation.conditions import Condition, Numbers, number, settings
from vone_jax.evaluation.geometry import check_layer, reduced_responses
from vone_jax.evaluation.judging import Batch, Protocol
from vone_jax.network import Network


@dataclasses.dataclass(frozen=True)
class Metamers(Condition):
    """Metamers of a layer, see ``synthesis.metamers``, and what networks take them for.

    The network's noise is frozen while a metamer is made, and fresh when it is judged. The other
    networks of the evaluation are asked as well, each with the noise that it was trained with. One
    with noise decides ten times about an image. A metamer
    shows what the layer keeps: if a human does not recognise it, the layer's invariances are not
    those of humans. If another network does not recognise it, they are not shared by that one.

    Attributes:
      layer: a name of ``Network.layers``.
      rounds, steps: rounds of gradient steps, and steps in each; the step is halved after a round.
        The authors take 8 rounds of 3000. Fewer steps match less well, which the numbers say.
      images: number of images.
      null_images: number of images of the data set between which the null is taken, the largest
        decibel of two different ones; all of a smaller set. 1,000 have about as many pairs as the
        authors' null.

    Raises:
      ValueError: if a field is out of range.
    """

    judged: ClassVar[bool] = True
    long: ClassVar[bool] = True
    asks_others: ClassVar[bool] = True

    layer: str
    rounds: Annotated[int, Range(1)] = 8
    steps: Annotated[int, Range(1)] = 250
    images: Annotated[int, Range(1)] = 8
    null_images: Annotated[int, Range(2)] = 1000

    def __post_init__(self):
        arguments.fields(self)

    @property
    def examples(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The number of images."""
        return self.images

    @property
    def row(self) -> dict[str, Any]:
        return {"condition": "metamers", "layer": self.layer, **settings(self, "layer")}

    def check(self, network: Network) -> None:
        super().check(network)
        check_layer(network, self.layer)

    def make(self, batch: Batch) -> dict[str, Any]:
        response_fn = batch.response_fn(self.layer)
        keys = batch.keys("attack")
        found = synthesis.metamers(
            keys, response_fn, batch.images, rounds=self.rounds, steps=self.steps
        )
        made, clean = batch.judge(found.images[0]), batch.judge(batch.images)
        asked: dict[str, Any] = {}
        for name, logits_fn in batch.others.items():
            noisy = classifier.has_noise(logits_fn, keys, batch.images)
            protocol = Protocol() if noisy else Protocol("none", 1)
            for kind, images in (("metamers", found.images[0]), ("originals", batch.images)):
                judged = judging.judge(
                    logits_fn, batch.keys("judge"), images, batch.labels, protocol
                )
                asked[f"right on {kind}, {name}"] = judged["right"]
                asked[f"loss on {kind}, {name}"] = judged["loss"]
        if self not in batch.kept:
            batch.kept[self] = self._null(batch)
        null, count = batch.kept[self]
        place = batch.network.layers.index(self.layer)
        return {
            "metamers": found.images[0],
            "original": batch.images,
            "error": found.error[0],
            "decibel": found.decibel[0],
            "null": np.full(len(batch.images), null),
            "null images": np.full(len(batch.images), count, np.int32),
            "right": made["right"],
            "right clean": clean["right"],
            "loss": made["loss"],
            "loss clean": clean["loss"],
            "predicted": made["predicted"],
            "predicted clean": clean["predicted"],
            "place": np.full(len(batch.images), place, np.int32),
            **asked,
        }

    def _null(self, batch: Batch) -> tuple[float, int]:
        """The null, and the number of images between which it is taken."""
        assert batch.sample is not None
        responses, project = [], prng.stream(batch.root, "projection")
        for keys, images, mask in batch.sample(self.null_images):
            layer = prng.as_pytree(batch.network.response_fn(self.layer), keys, images)
            found = reduced_responses(layer, prng.stream(keys, "null"), images, project)
            found, rows = meshes.fetch((found, mask))
            responses.append(found[rows])
        together = np.concatenate(responses)
        return synthesis.null_decibel(together), len(together)

    def numbers(self, arrays: Mapping[str, np.ndarray]) -> Numbers:
        null = float(arrays["null"][0])
        same = arrays["predicted"] == arrays["predicted clean"]
        matched = arrays["decibel"] > null
        measured = [
            number("matched", float(matched.mean())),
            number("mean decibel", float(arrays["decibel"].mean())),
            number("decibel of two images", null),
            number("images of the null", int(arrays["null images"][0])),
            number("same decision", float(same.mean())),
            number("matched and same decision", float((matched & same).mean())),
            number("accuracy on metamers", results.accuracy(arrays["right"])),
            number("accuracy on originals", results.accuracy(arrays["right clean"])),
        ]
        measured += [
            number(f"accuracy{name.removeprefix('right')}", results.accuracy(arrays[name]))
            for name in arrays
            if name.startswith("right on ")
        ]
        return Numbers(measured, {"place": int(arrays["place"][0])})
