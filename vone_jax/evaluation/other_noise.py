"""Noise in place of that which a network was trained with, as options and file names write it."""

from vone_jax import v1

TRAINED = "trained"
_FORMS = "none, neuronal, neuronal:SCALE,LEVEL[,STRENGTH] or gaussian:SCALE"


def parse(name: str, text: str, trained: v1.Noise, *also: str) -> v1.Noise:
    """The noise that a text stands for.

    ``"trained"`` is the network's own, ``"none"`` is none, ``"neuronal"`` that of the released
    models; numbers behind a colon are the fields of ``NeuronalNoise`` or ``GaussianNoise``, such as
    ``"neuronal:0.35,0.07"`` or ``"gaussian:4"``.

    Args:
      name: of the option, for errors.
      text: its value.
      trained: the noise that the network was trained with.
      also: values that the caller understands itself, for errors.

    Raises:
      ValueError: if the text is no such noise.
    """
    if text == TRAINED:
        return trained
    if text == "none":
        return None
    kind, colon, rest = text.partition(":")
    try:
        fields = [float(field) for field in rest.split(",")] if colon else []
        if kind == "neuronal" and len(fields) in (0, 2, 3):
            return v1.NeuronalNoise(*fields)
        if kind == "gaussian" and len(fields) == 1:
            return v1.GaussianNoise(*fields)
    except ValueError as error:
        raise ValueError(f"{name} {text!r}: {error}") from error
    raise ValueError(f"{name} must be {', '.join((*also, TRAINED))}, {_FORMS}; got {text!r}")


def label(noise: v1.Noise) -> str:
    """The noise in the name of a file, such as ``"neuronal-0.35-0.07-1"``."""
    if noise is None:
        return "none"
    if isinstance(noise, v1.GaussianNoise):
        return f"gaussian-{noise.scale:g}"
    return f"neuronal-{noise.scale:g}-{noise.level:g}-{noise.strength:g}"


def words(noise: v1.Noise) -> str:
    """The noise in a result file: ``"none"``, or as code."""
    return "none" if noise is None else repr(noise)
