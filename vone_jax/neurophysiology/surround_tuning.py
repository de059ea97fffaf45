"""Orientation tuning of the surround: one grating in the centre, another around it.

Reference: Cavanaugh, Bair, Movshon (2002), Selectivity and spatial distribution of signals from the
receptive field surround in macaque V1 neurons, J. Neurophysiology 88:2547-2556.
"""

import dataclasses

import numpy as np
from jaxtyping import Float

from vone_jax.neurophysiology import recording, stimuli, tuning
from vone_jax.neurophysiology.recording import OneKey, PerUnit, ResponseFn, Site

# Orientations of the surround relative to the centre, in degrees.
ANGLES = np.array([0.0, 30.0, 60.0, 90.0])
# Radii of the centre and of the surround, in degrees.
CENTRE_RADII = stimuli.RADII[[3, 5, 7]]
SURROUND_RADIUS = 3.0
_PHASES = stimuli.PHASES[::2]


@dataclasses.dataclass(frozen=True, eq=False)
class SurroundTuning:
    """Responses of units to their best small grating, alone and with another grating around it.

    Attributes:
      angles: orientation of the surround relative to the centre, in degrees.
      alone: response to the centre alone, the larger of F0 - grey and F1, in units of the layer.
      curves: the same with a surround, by angle.
    """

    angles: Float[np.ndarray, " angles"]
    alone: PerUnit
    curves: Float[np.ndarray, "angles units"]

    @property
    def suppression(self) -> Float[np.ndarray, "angles units"]:
        """The share of the response to the centre that a surround takes away.

        It is negative for facilitation and NaN for a unit that does not respond to the centre.
        """
        return 1.0 - tuning.ratio(self.curves, self.alone)


def surround_tuning(
    response_fn: ResponseFn, key: OneKey, site: Site, trials: int = 1
) -> SurroundTuning:
    """Record a centre of full contrast with and without a surround of full contrast.

    Centres have 3 radii (``CENTRE_RADII``), 4 frequencies, 6 orientations and 4 phases. Each unit
    has the condition with the largest response to the centre alone. The surround extends to
    ``SURROUND_RADIUS``, with the frequency and the phase of the centre; at an angle of 0 both are
    one large grating. The site comes from ``find_units``; each image is shown ``trials`` times.
    """
    factors = stimuli.COARSE | {"phase": _PHASES}
    centres = stimuli.grating_set("surround tuning", radius=CENTRE_RADII, **factors)
    around = np.stack([centres.table] * (1 + len(ANGLES)))
    orientation, radius = (stimuli.PARAMETERS.index(name) for name in ("orientation", "radius"))
    # The first has the centre below itself, which is the centre alone.
    around[1:, :, radius] = SURROUND_RADIUS
    around[1:, :, orientation] += ANGLES[:, None]
    gratings = stimuli.GratingSet(
        centres.name,
        (len(around), *centres.shape),
        np.tile(centres.table, (len(around), 1)),
        around.reshape(-1, around.shape[-1]),
    )
    flat = recording.record(response_fn, key, gratings, site, trials)
    responses = flat.reshape(*gratings.shape, len(site))
    blank = recording.record_blank(response_fn, key, site, trials)
    either = np.stack([tuning.f0(responses) - blank, tuning.f1(responses)])
    kind, *best = tuning.best_condition(either[:, 0])
    surround = np.zeros_like(kind)  # The factor to vary; its index is not used.
    curves = tuning.curve_along(either, 1, (kind, surround, *best)).astype(np.float64)
    return SurroundTuning(ANGLES, curves[0], curves[1:])
