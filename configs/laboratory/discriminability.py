"""Does the order of defences change if attacks are bounded by d' and not by pixels?

A base network, two VOneNets, and base networks that learned with adversarial images and with noise,
all under PGD within radii in d' of the same observer: the V1 of vone-gaussian-2 with Gaussian noise
of 2. For that network, the certified accuracy is a proven floor.

Paper row: none; docs/certificates.md has the theory.
Expected: not measured yet.
Hardware: 2 CPU cores. Wall time: about 20 minutes of one core for each of the five networks.
Command: python sweep.py laboratory/discriminability
"""

from configs.laboratory.gain_control import members as controlled
from configs.laboratory.networks import SUITES, members
from vone_jax.sweep import Member, Sweep

_D_PRIME = ("--suite", f"{SUITES}:in_d_prime", "--examples", "100")

sweep = Sweep(
    "discriminability",
    "laboratory",
    {
        **members(["base-0", "vone-0", "base-adversarial-8", "base-gaussian"]),
        "vone-gaussian-2": Member(controlled["vone-gaussian-2"].network),
    },
    [("--suite", "clean"), _D_PRIME],
)
