"""Reconstruction of a Gabor bank from the weights of a checkpoint.

A quadrature pair determines its parameters without a search. With the in-phase kernel
q0 = E cos(c) and its partner q1 = E cos(c + 90 degrees),

    z = q0 - i q1 = E exp(i c),    c = 2 pi f (x cos(theta) + y sin(theta)) + phase:

the angle between neighbouring pixels of z gives the frequency along rows and columns, and the angle
at the centre gives the phase. log |z| is quadratic in (x, y); its coefficients give the envelope.
"""

import numpy as np

from vone_jax.v1 import GaborParameters, ImportedBank, gabor_kernels

# Largest deviation of a kernel from its fitted Gabor, relative to the peak of the pair. Kernels
# computed in float32 stay below 1e-5, those stored in half precision below 1e-3.
_TOLERANCE = 2e-3


def read_bank(
    in_phase: np.ndarray, quadrature: np.ndarray, pixels_per_degree: float, problems: list[str]
) -> tuple[ImportedBank, np.ndarray] | None:
    """Read a bank from its convolution weights: the exact kernels with the fitted parameters.

    The weights (n, C, k, k) of each phase are floating point. Every filter must read exactly one
    of C channels; the channels of the two phases may differ. Parameters follow
    ``GaborParameters``: sf in cycles per degree, theta and phase in degrees in [0, 360).

    Returns:
      The bank, and the largest deviation (n,) of each pair from its fitted Gabor, relative to the
      peak of the pair. None if lines were added to ``problems``: one for a wrong shape, or one for
      each filter that is not a Gabor of one input channel.
    """
    shape, known = in_phase.shape, len(problems)
    if len(shape) != 4 or shape != quadrature.shape or shape[2] != shape[3]:
        problems.append(
            f"shape: the weights of the two phases must both be (n, C, k, k), got {shape} and "
            f"{quadrature.shape}"
        )
    elif shape[0] < 1 or shape[1] < 1 or shape[2] % 2 == 0 or shape[2] < 3:
        problems.append(f"shape: Gabor kernels must have an odd side of at least 3, got {shape}")
    if len(problems) > known:
        return None

    kernels, channels = [], []
    for weights, phase in ((in_phase, "in phase"), (quadrature, "in quadrature")):
        weights = weights.astype(np.float32)
        strength = np.abs(weights).sum(axis=(2, 3), dtype=np.float64)
        channel = strength.argmax(axis=1)
        # A NaN counts as non-zero, and is no strength.
        single = (np.count_nonzero(strength, axis=1) == 1) & np.isfinite(strength).all(axis=1)
        problems += [
            f"filter {i} ({phase}) must be finite and read exactly one channel"
            for i in np.flatnonzero(~single)
        ]
        kernels.append(weights[np.arange(len(weights)), channel])
        channels.append(channel)
    if len(problems) > known:
        return None

    values = _fit(kernels[0].astype(np.float64), kernels[1].astype(np.float64), pixels_per_degree)
    positive = [values[name] > 0 for name in ("sf", "nx", "ny")]
    usable = np.all([*positive, *(np.isfinite(value) for value in values.values())], axis=0)
    values = {name: np.where(usable, value, 1.0) for name, value in values.items()}
    parameters = GaborParameters(**values, channel=channels[0], channel_quadrature=channels[1])
    # The network was trained on these kernels, aliased or not.
    fitted = gabor_kernels(parameters, shape[2], pixels_per_degree, allow_aliasing=True)
    deviation = np.max(np.abs(np.subtract(fitted, kernels)), axis=(0, 2, 3))
    peak = np.hypot(kernels[0], kernels[1]).max(axis=(1, 2))
    residual = np.where(usable, deviation.astype(np.float64) / peak, np.inf)
    problems += [
        f"filter {i} is not a Gabor pair: it deviates by {residual[i]:.2g} of its peak from the "
        f"nearest fit"
        for i in np.flatnonzero(residual > _TOLERANCE)
    ]
    if len(problems) > known:
        return None
    bank = ImportedBank(kernels[0], kernels[1], parameters, float(pixels_per_degree))
    return bank, residual


def _fit(q0: np.ndarray, q1: np.ndarray, pixels_per_degree: float) -> dict[str, np.ndarray]:
    """The parameters (n,) of kernels (n, k, k); not finite where a pair is no Gabor."""
    z = q0 - 1j * q1
    size = np.abs(z)
    peak = size.max(axis=(1, 2), keepdims=True)
    z, size = z / peak, size / peak
    half = z.shape[1] // 2
    offset = np.arange(z.shape[1], dtype=np.float64) - half

    with np.errstate(all="ignore"):
        # Cycles per pixel: the mean phase step to the next row (column), weighted by the size.
        down = np.angle((z[:, 1:] * z[:, :-1].conj()).sum(axis=(1, 2))) / (2 * np.pi)
        right = np.angle((z[:, :, 1:] * z[:, :, :-1].conj()).sum(axis=(1, 2))) / (2 * np.pi)
        frequency = np.hypot(down, right)
        cos, sin = down / frequency, right / frequency
        phase = np.angle(z[:, half, half])

        # log E = a - (m_xx x^2 + 2 m_xy x y + m_yy y^2) / 2, weighted by E^2: the error of log E is
        # the relative error of E, so the far tails carry no information.
        x, y = np.meshgrid(offset, offset, indexing="ij")
        terms = np.stack([np.ones_like(x), -x * x / 2, -x * y, -y * y / 2], axis=-1)
        weight = np.where(size > 1e-6, size, 0.0)[..., None]
        design = (weight * terms).reshape(len(z), -1, 4)
        target = (weight[..., 0] * np.log(np.maximum(size, 1e-6))).reshape(len(z), -1, 1)
        moments = design.transpose(0, 2, 1) @ design
        # Scaled to a unit diagonal: the moments span six orders of magnitude.
        scale = np.einsum("nii->ni", moments)
        moments = moments / np.sqrt(scale[:, :, None] * scale[:, None, :])
        right_side = (design.transpose(0, 2, 1) @ target) / np.sqrt(scale)[..., None]
        solvable = np.isfinite(moments).all(axis=(1, 2)) & np.isfinite(right_side).all(axis=(1, 2))
        moments[~solvable] = np.eye(4)
        solution = (np.linalg.pinv(moments, hermitian=True) @ right_side)[..., 0] / np.sqrt(scale)
        _, xx, xy, yy = solution.T
        # Curvatures along and across the carrier. A bank may hold envelopes much wider than its
        # kernels, whose curvature is all but zero.
        along = np.maximum(xx * cos**2 + 2 * xy * cos * sin + yy * sin**2, 1e-12)
        across = np.maximum(xx * sin**2 - 2 * xy * cos * sin + yy * cos**2, 1e-12)
        usable = np.where(solvable, 1.0, np.nan)
        return {
            "sf": frequency * pixels_per_degree,
            "theta": np.rad2deg(np.arctan2(sin, cos)) % 360.0,
            "phase": np.rad2deg(phase) % 360.0,
            "nx": usable * frequency / np.sqrt(along),
            "ny": usable * frequency / np.sqrt(across),
        }
