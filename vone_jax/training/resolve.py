"""Fills in the fields of an experiment that follow from its data, or from initial weights."""

import dataclasses
from typing import Any

from vone_jax import data, models, names
from vone_jax.data import Source
from vone_jax.training.experiment import DataConfig, Experiment, ModelConfig


def resolve(experiment: Experiment, source: Source, initial: Any = None) -> Experiment:
    """Return the experiment with every field filled in that is None and follows from others.

    An explicit value always stays. The number of classes and of channels are those of the images.
    The front end (V1 and the stage before it; mean and standard deviation of a base network) is
    that of the initial weights, if these are of a network of the same kind, at the same pixels per
    degree; else the default of ``models.create``.

    Args:
      experiment: as it is written in a config.
      source: the training images.
      initial: a network with weights, such as ``vone_jax.open_network`` returns; or None.

    Raises:
      ValueError: if the experiment does not fit its data; the message names the field.
    """
    config, model = experiment.data, experiment.model
    if config.eval_split is None:
        config = dataclasses.replace(config, eval_split=_evaluation_split(config))
    given = {name: value for name, value in vars(model).items() if value is not None}
    channels = given.setdefault("in_channels", source.image_shape[-1])
    classes = given.setdefault("num_classes", source.num_classes)
    where = f"the images of {source.name!r} {source.split!r}"
    for name, ours, theirs in (
        ("in_channels", channels, source.image_shape[-1]),
        ("num_classes", classes, source.num_classes),
    ):
        if ours != theirs:
            raise ValueError(
                f"model.{name} is {ours}, but {where} have {theirs}; leave it out to take it from "
                "the data"
            )
    given = _front_end(given, initial) | given
    try:
        v1, subcortical = models.front_end_configs(
            model.name, model.image_size, channels, given.get("v1"), given.get("subcortical")
        )
        defaults: dict[str, Any] = {"width": models.default_width(model.name)}
        if v1 is None:
            mean, std = models.default_normalisation(model.name, channels)
            defaults |= {"mean": mean, "std": std}
            if model.front_end is None:
                defaults["stem_size"] = model.image_size
        given = defaults | given | {"v1": v1, "subcortical": subcortical}
        resolved = ModelConfig(**given)
    except ValueError as error:
        raise ValueError(f"model.{error}") from error
    return dataclasses.replace(experiment, data=config, model=resolved)


def _evaluation_split(config: DataConfig) -> str:
    split = data.evaluation_split(config.source, data_dir=config.data_dir)
    # "." is all of a folder without splits, of which training keeps a part for validation.
    return "validation" if split == "." else split


def _stem_size(given: dict[str, Any], stem: Any) -> int:
    """Return the image size whose form a stem has: ours, if the stem is of another network."""

    def form(stem: Any) -> tuple[Any, ...]:
        return getattr(stem, "stride", None), getattr(stem, "pool", None)

    size = given["image_size"]
    for other in (size, 224, 32):
        made: Any = models.create(given["name"], 1, stem_size=other, width=given.get("width"))
        if form(made.stem) == form(stem):
            return other
    return size


def _front_end(given: dict[str, Any], initial: Any) -> dict[str, Any]:
    """Return the front end of initial weights as fields of the model, if it fits the model."""
    if given.get("front_end") is not None:
        return {}
    source = None if initial is None else initial.model
    kind = names.prefix(given["name"])
    channels, size = given["in_channels"], given["image_size"]
    if not kind and isinstance(source, models.BaseNetwork) and len(source.mean) == channels:
        return {"mean": source.mean, "std": source.std, "stem_size": _stem_size(given, source.stem)}
    if not isinstance(source, models.VOneNet) or source.in_channels != channels:
        return {}
    if kind != ("ev_" if source.subcortical is not None else "vone_"):
        return {}

    def at_size(stage: Any) -> Any:
        if stage is None or stage.image_size == size:
            return stage
        degrees = size / source.v1.pixels_per_degree
        return dataclasses.replace(stage, image_size=size, visual_degrees=degrees)

    return {"v1": at_size(source.v1), "subcortical": at_size(source.subcortical)}
