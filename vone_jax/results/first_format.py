"""Result files of format 1, brought into the present format.

Format 1 stored attacks and noise as Python code, such as ``"PGD(norm='linf', eps=0.0157, ...)"``.
Nothing writes it any more.
"""

import ast
import dataclasses
from typing import Any

from vone_jax.results.measured import SCORED, LayerScores

FORMAT = 1

_PROVENANCE = ("versions", "command", "device", "matmul_precision", "started", "wall_seconds")
_WITH_ATTACK = ("attack", "gallery", "masking", "minimal")
_ON_OTHER_NOISE = " on the network "


def upgrade(old: dict[str, Any]) -> dict[str, Any]:
    """Convert the JSON values of a result from format 1 to format 2.

    Raises:
      KeyError, TypeError, ValueError, SyntaxError: if a field is missing or cannot be understood.
    """
    kind = old["kind"]
    protocol = {name: value for name, value in old["protocol"].items() if name != "name"}
    frozen_attack = protocol["noise"] == "frozen_attack"
    if frozen_attack:
        protocol["noise"] = "fresh"
    return {
        "format": 2,
        "name": old["name"],
        "run": old["run"],
        "network": _network(old),
        "dataset": old["dataset"],
        "condition": {"kind": kind} | _condition(kind, old.get("condition", {}), frozen_attack),
        "protocol": protocol,
        "key": old["key"],
        "provenance": {name: old[name] for name in _PROVENANCE if name in old},
        "measured": _measured(kind, old),
    }


def _network(old: dict[str, Any]) -> dict[str, Any]:
    model = old["model"]
    config = old.get("config") or {}
    settings = config.get("model") or {}
    trained = (settings.get("v1") or {}).get("noise") or settings.get("stem_noise")
    test = trained = trained and _noise(trained.get("kind"), trained)
    if "noise_at_test" in model:
        trained, test = (
            _noise_of_code(model["noise_at_test"][name]) for name in ("trained", "given")
        )
    return {
        "name": model["name"],
        "label": model["label"],
        "stochastic": model["stochastic"],
        "parameters": model["parameters"],
        "weights": old["weights"],
        "checkpoint_step": old["checkpoint_step"],
        "trained_noise": trained,
        "test_noise": test,
        "config": config,
    }


def _condition(kind: str, old: dict[str, Any], frozen_attack: bool) -> dict[str, Any]:
    if kind not in _WITH_ATTACK:
        return old
    averaging = {name: old[name] for name in ("eot_samples", "estimator") if name in old}
    if kind == "masking":
        attacks = {name: _attack(code) for name, code in old["attacks"].items()}
        transfer = {"transfer": old["transfer"]} if "transfer" in old else {}
        return {"attack": _attack(old["attack"]), "attacks": attacks, **transfer, **averaging}
    if kind == "minimal":
        return {"attack": _attack(old["attack"]), "radii": old["radii"], **averaging}
    noise: Any = "frozen" if frozen_attack else "same"
    if old.get("noise_free_gradients"):
        noise = "none"
    elif "attack_noise" in old:
        noise = _noise_of_code(old["attack_noise"])
    code = old["attack"].partition(_ON_OTHER_NOISE)[0]
    if kind == "gallery":
        return {
            "attack": _attack(code),
            "images": old["images"],
            "attack_noise": noise,
            "selection": "first",
        }
    return {"attacks": _attacks(code), "attack_noise": noise, **averaging}


def _measured(kind: str, old: dict[str, Any]) -> dict[str, Any] | None:
    if kind in ("clean", "attack", "corruption"):
        statistics = old.get("statistics") or {}
        return {
            "kind": "accuracy",
            "accuracy": old["accuracy"],
            "interval": old["interval"],
            **old["sums"],
            "between_draws": old.get("between_draws"),
            "right_in_every_draw": statistics.get("right_in_every_draw"),
            "won": list(old["won"].values()) if old.get("won") else None,
        }
    if kind == "minimal":
        for rung in old["ladder"]:
            rung.pop("eps_label", None)
        same = {name: old[name] for name in ("seen", "median_distance", "ladder")}
        return {"kind": "distances", "broken": old["found"], **same}
    if kind == "masking":
        return {"kind": "checks", "checks": old["checks"], "seen": old["seen"]}
    if kind == "corruption_means":
        return {"kind": "means", **old["means"]}
    if kind == "physiology":
        names = [field.name for field in dataclasses.fields(LayerScores) if field.name in old]
        scores = {name: old[name] for name in names} if old["status"] == SCORED else None
        return {"kind": "physiology", "status": old["status"], "scores": scores}
    return None


def _call(code: str) -> tuple[ast.Call, dict[str, Any]]:
    """Parse Python code that is one call: the call and its fields. Nothing is run."""
    node = ast.parse(code, mode="eval").body
    fields = _value(node)
    if not isinstance(node, ast.Call) or not isinstance(fields, dict):
        raise ValueError(f"{code!r:.80} is not the name of a class with its fields")
    return node, fields


def _value(node: ast.expr) -> Any:
    """A literal, an attack as an object, or the code itself of anything else."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        fields = {str(each.arg): _value(each.value) for each in node.keywords}
        return {"name": node.func.id, **fields}
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)
    return list(value) if isinstance(value, tuple) else value


def _attack(code: str) -> dict[str, Any]:
    _, fields = _call(code)
    name, norm, eps = fields.pop("name"), fields.pop("norm", None), fields.pop("eps", None)
    if norm is None:
        # An attack that wraps another one has the norm and the radius of the inner one.
        inner = next((value for value in fields.values() if isinstance(value, dict)), None)
        if inner is None:
            raise ValueError(f"{code!r:.80} has no norm")
        norm, eps = inner["norm"], inner["eps"]
    return {"name": name, "norm": norm, "eps": float(eps), "fields": fields}


def _attacks(code: str) -> list[dict[str, Any]]:
    call, fields = _call(code)
    if fields["name"] == "WorstOf":
        return [_attack(ast.unparse(each)) for each in call.args]
    return [_attack(code)]


def _noise(kind: str | None, fields: dict[str, Any]) -> dict[str, Any]:
    short = {"NeuronalNoise": "neuronal", "GaussianNoise": "gaussian"}
    if kind not in short:
        raise ValueError(f"{kind!r} is no kind of noise")
    numbers = {name: float(value) for name, value in fields.items() if name != "kind"}
    return {"kind": short[kind], **numbers}


def _noise_of_code(code: str) -> dict[str, Any] | None:
    if code == "none":
        return None
    _, fields = _call(code)
    return _noise(fields.pop("name"), fields)
