"""The model card of a saved network."""

from collections.abc import Mapping, Sequence
from typing import Any


def model_card(
    description: Mapping[str, Any],
    parameters: int,
    results: Sequence[Mapping[str, Any]],
    licence: str,
    source: str,
) -> str:
    """Markdown with the hub's metadata in front.

    Args:
      description: of the network, see ``description.describe``.
      parameters: number of trained parameters.
      results: parsed result files; see the keys used below.
      licence: identifier of the licence of the weights.
      source: where the weights come from, in words.
    """
    name = description["name"]
    lines = [
        "---",
        "library_name: vone_jax",
        "pipeline_tag: image-classification",
        f"license: {licence}",
        "tags: [jax, flax, image-classification" + (", v1]" if "v1" in description else "]"),
        "---",
        "",
        f"# {name}",
        "",
        f"{parameters:,} trained parameters, {description['num_classes']} classes, images of "
        f"{description['image_size']}x{description['image_size']} pixels and "
        f"{description['in_channels']} channels in [0, 1].",
    ]
    if source:
        lines += ["", f"Weights: {source}"]
    if "v1" in description:
        v1 = description["v1"]
        lines += [
            "",
            f"Front end: fixed Gabor filters of {v1['simple_channels']} simple and "
            f"{v1['complex_channels']} complex cells at stride {v1['stride']}; noise: "
            f"{_noise(v1['noise'])}. The noise is on in training and in evaluation.",
        ]
    lines += ["", "## Measured", ""]
    rows = [_row(result) for result in results if result.get("kind") != "gallery"]
    rows = [row for row in rows if row]
    if rows:
        lines += [
            "| condition | data | examples | accuracy | interval |",
            "| --- | --- | ---: | ---: | --- |",
            *rows,
        ]
    else:
        lines.append("Nothing was measured with these weights.")
    lines += [
        "",
        "## Use",
        "",
        "```python",
        "import jax",
        "from vone_jax import convert, models",
        "",
        'model, variables = convert.load_folder("path/to/this/folder")',
        "logits = models.logits_fn(model, variables)(jax.random.key(0), images)",
        "```",
        "",
    ]
    return "\n".join(lines)


def _noise(noise: Mapping[str, Any] | None) -> str:
    if noise is None:
        return "none"
    values = ", ".join(f"{key} {value}" for key, value in noise.items() if key != "kind")
    return f"{noise['kind']} ({values})"


def _row(result: Mapping[str, Any]) -> str | None:
    """One table row, for results that have an accuracy."""
    if "accuracy" not in result:
        return None
    condition = result.get("condition") or {}
    if "eps" in condition:
        label = condition.get("eps_label", condition["eps"])
        words = f"{condition.get('attack', 'attack')}, {condition.get('norm', '')} {label}"
    elif "corruption" in condition:
        words = f"{condition['corruption']}, severity {condition.get('severity')}"
    else:
        words = "clean"
    data = result.get("dataset", {})
    low, high = result.get("interval", (None, None))
    interval = "" if low is None else f"{low:.4f} to {high:.4f}"
    return (
        f"| {words} | {data.get('name', '')} {data.get('split', '')} | {data.get('examples', '')} "
        f"| {result['accuracy']:.4f} | {interval} |"
    )
