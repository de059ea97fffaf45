"""How networks and radii are called in results."""

_NETWORKS = {
    "resnet18": "ResNet-18",
    "resnet50": "ResNet-50",
    "alexnet": "AlexNet",
    "cornet_s": "CORnet-S",
}


def network(name: str) -> str:
    """The name of a network as papers write it: ``vone_resnet18`` is VOneResNet-18."""
    base = name.removeprefix("vone_")
    label = _NETWORKS.get(base, base)
    return label if base == name else f"VOne{label}"


def eps(norm: str, value: float) -> str:
    """A radius as papers write it: in 255ths for L-infinity, else the number."""
    if norm == "linf" and value > 0:
        levels = 255 * value
        if levels >= 1 and abs(levels - round(levels)) < 1e-6 * levels:
            return f"{round(levels)}/255"
        share = 1 / value
        if levels < 1 and abs(share - round(share)) < 1e-6 * share:
            return f"1/{round(share)}"
    return f"{value:.4g}"
