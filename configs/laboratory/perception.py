"""What do the layers of a base network and a VOneNet keep? Metamers, and clouds of noise.

Does V1's noise make the responses to attacked images overlap with those to clean ones? And are the
metamers of the front end and of the logits recognised by another seed, and by the other kind of
network? The networks that are asked must be trained before, hence two commands.

Paper row: none of the VOneNet paper; Dapello, Feather et al. 2021 and Feather et al. 2023, whose
networks are for photographs. docs/perception.md has the definitions.
Expected: docs/results/layers.md.
Hardware: 2 CPU cores. Wall time: not measured as a whole.
Command: python sweep.py laboratory/perception --only train
Command: python sweep.py laboratory/perception
"""

from configs.laboratory.networks import NETWORKS, SEEDS, SUITES
from vone_jax.sweep import Member, Sweep

_OTHER = {"base": "vone", "vone": "base"}


def _asked(kind: str, seed: int) -> Member:
    others = (f"{_OTHER[kind]}-{seed}", f"{kind}-{(seed + 1) % len(SEEDS)}")
    paths = (f"runs/laboratory/{label}" for label in others)
    words = ("--suite", f"{SUITES}:metamers", "--others", *paths)
    return Member(NETWORKS[f"{kind}-{seed}"], [words])


sweep = Sweep(
    name="perception",
    group="laboratory",
    members={f"{kind}-{seed}": _asked(kind, seed) for seed in SEEDS for kind in _OTHER},
    evaluations=[("--suite", f"{SUITES}:overlap")],
)
