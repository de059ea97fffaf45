"""R-Blur: the sight of a fixated image, blurred and grey with the distance from the fixation.

The eccentricity of a pixel is its distance from the fixated pixel along the longer axis, so that
regions of equal eccentricity are squares; d is the eccentricity as a share of the image's side W.

    cones   p(d) = q(d) / max(1, q(0)),  q = max(Laplace(b).pdf, Cauchy(2.5 b).pdf),  b = 0.12
    rods    p(d) = 0.12 (1 - p of the cones with b = 0.09)
    blur    sigma(d) = 0.05 W (1 - p(d))
    image   (p_cones coloured + p_rods grey) / (p_cones + p_rods)

The coloured copy has the blur of the cones and the grey one that of the rods. Gaussian noise of the
pixels comes first.

Reference:
  Shah and Raj, 2023, arXiv:2308.00854 (Training on foveated images improves robustness to
  adversarial attacks).
"""

import functools
import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from vone_jax import arguments, filters, prng
from vone_jax.arguments import Positive, Share
from vone_jax.v1 import FanoNoise, Noise, standard_normal

Images = Float[Array, "n h w c"]
# Shares of red, green and blue in grey (ITU-R BT.601).
_LUMA = (0.299, 0.587, 0.114)
FIVE = ((0.5, 0.5), (0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75))


def acuity(numpy: Any, distance: Any, width: float) -> Any:
    """Return the acuity p of cones, 1 at the fixation for widths below one half.

    Args:
      numpy: ``numpy`` or ``jax.numpy``.
      distance: d, eccentricities as shares of the image's side, an array of any shape.
      width: b, > 0.
    """
    laplace = numpy.exp(-distance / width) / (2 * width)
    cauchy = 1 / (math.pi * 2.5 * width * (1 + (distance / (2.5 * width)) ** 2))
    return numpy.maximum(laplace, cauchy) / max(1.0, 1 / (2 * width))


class Rings(NamedTuple):
    """Square rings around the fixation, each with one blur.

    Attributes:
      starts: the smallest eccentricity of each ring in pixels; the first is 0.
      deviations: the standard deviation of each ring's Gaussian in pixels.
    """

    starts: Int[np.ndarray, " rings"]
    deviations: Float[np.ndarray, " rings"]


def rings(side: int, acuities: Float[np.ndarray, " side"], blur: float = 0.05) -> Rings:
    """Cut the eccentricities 0 to side - 1 into rings of about the same acuity.

    A ring has the acuities of one bin of NumPy's "auto" histogram, and is joined to the next one
    as long as it is narrower than a fiftieth of the side. Its blur is the mean over its
    eccentricities.
    The published code takes the histogram over the pixels of one fixated image. Here it is over all
    eccentricities that an image can have, so that the rings are the same for all fixations.

    Args:
      side: W, pixels of the image's longer side.
      acuities: p of each eccentricity, which may only fall, or only rise.
      blur: sigma of an acuity of 0 as a share of the side, > 0.
    """
    edges = np.histogram_bin_edges(acuities, "auto")
    bins = np.digitize(acuities, edges[1:-1])
    starts = [0]
    for place in 1 + np.flatnonzero(np.diff(bins)):
        if place - starts[-1] >= side / 50:
            starts.append(int(place))
    deviations = [part.mean() for part in np.split(blur * side * (1 - acuities), starts[1:])]
    return Rings(np.asarray(starts), np.asarray(deviations))


def foveate(
    images: Images,
    fixations: Int[Array, "n views 2"],
    cone_width: float = 0.12,
    rod_width: float = 0.09,
    rod_acuity: float = 0.12,
    blur: float = 0.05,
) -> Float[Array, "n views h w c"]:
    """Return what is seen of images from each fixation, without noise.

    Rows and columns are blurred by products with matrices, once for each ring, and masks by the
    distance from the fixation choose among the rings: so one program serves all fixations.

    Args:
      images: of any range; grey is the luma of 3 channels, else their mean.
      fixations: row and column of the pixel that is fixated.
      cone_width: b of cones.
      rod_width: b of the cones whose complement the rods are.
      rod_acuity: the largest acuity of rods.
      blur: sigma of an acuity of 0 as a share of the longer side.
    """
    height, width, channels = images.shape[1:]
    side = max(height, width)
    rows = jnp.arange(height)[None, None, :, None] - fixations[..., 0, None, None]
    columns = jnp.arange(width)[None, None, None] - fixations[..., 1, None, None]
    eccentricity = jnp.maximum(jnp.abs(rows), jnp.abs(columns))
    shares = _LUMA if channels == 3 else (1 / channels,) * channels
    grey = jnp.einsum("nhwc,c->nhw", images, jnp.asarray(shares), precision="highest")[..., None]

    def both(numpy: Any, distance: Any) -> tuple[Any, Any]:
        cones = acuity(numpy, distance, cone_width)
        return cones, rod_acuity * (1 - acuity(numpy, distance, rod_width))

    copies = []
    for copy, known in zip((images, grey), both(np, np.arange(side) / side), strict=True):
        cut = rings(side, known, blur)
        seen: Any = 0.0
        for start, end, deviation in zip(
            cut.starts, [*cut.starts[1:], side], cut.deviations, strict=True
        ):
            taps = filters.gaussian_taps(deviation, math.ceil(4 * deviation))
            down, across = (filters.filter_matrix(n, taps, "mirror") for n in (height, width))
            blurred = jnp.einsum("yh,nhwc,xw->nyxc", down, copy, across, precision="highest")
            ring = (eccentricity >= start) & (eccentricity < end)
            seen += jnp.where(ring[..., None], blurred[:, None], 0.0)
        copies.append(seen)
    cones, rods = (each[..., None] for each in both(jnp, eccentricity / side))
    return (cones * copies[0] + rods * copies[1]) / (cones + rods)


class RBlur(nn.Module):
    """Noise of the pixels, the blur of a fixation, and the stem of a network.

    In training an example's key draws its fixation, uniformly among the pixels. In evaluation an
    image is seen from ``fixations``, and the responses of all layers, logits too, are the means.
    So a gradient in evaluation is that of the expectation over these fixations.

    The noise is in units of the images as the network normalises them; with ``mean=(0.0,)`` and
    ``std=(1.0,)`` of the network these are pixels in [0, 1].

    Attributes:
      stem: a module ``(x, train)`` behind the blur, such as ``models.Spec("resnet18",
        image_size=28).complete().stem(jnp.float32)``. None leaves the back end to read the image.
      fixations: of evaluation, as shares of rows and columns in [0, 1]. The published evaluation
        has five; where they lie is this project's choice, the centre and those of the quarters.
      cone_width: b of the cones, as a share of the image's longer side.
      rod_width: b of the cones whose complement the rods are.
      rod_acuity: the largest acuity of rods, in (0, 1].
      blur: standard deviation of the blur at an acuity of 0, as a share of the longer side.
      noise: of the pixels. ``FanoNoise(0.0, 0.125**2)`` is Gaussian with a deviation of 0.125.
    """

    signed = True
    stem: nn.Module | None = None
    fixations: tuple[tuple[float, float], ...] = FIVE
    cone_width: Positive = 0.12
    rod_width: Positive = 0.09
    rod_acuity: Share = 0.12
    blur: Positive = 0.05
    noise: Noise = FanoNoise(0.0, 0.125**2)

    def __post_init__(self):
        arguments.fields(self)
        points = self.fixations
        valid = isinstance(points, tuple) and points and all(np.shape(p) == (2,) for p in points)
        if not valid or not all(0 <= share <= 1 for point in points for share in point):
            raise ValueError(
                "fixations must be points within the image, pairs of shares of rows and columns in "
                f"[0, 1], such as ((0.5, 0.5),), got {points!r:.80}"
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Images, train: bool, keys: Key[Array, " n"] | None) -> dict[str, Any]:
        """The layer ``blurred``, and those of the stem. ``keys`` has one key for each image."""
        count, height, width, _ = x.shape
        if keys is None and (train or self.noise is not None):
            raise ValueError("R-Blur draws fixations and noise: give noise_key, got None")
        streams = {} if keys is None else {n: prng.stream(keys, n) for n in ("fixation", "noise")}
        last = np.asarray((height - 1, width - 1))
        if train:
            draw = functools.partial(
                jax.random.randint, shape=(1, 2), minval=0, maxval=last[None] + 1
            )
            fixations = jax.vmap(draw)(streams["fixation"])
        else:
            points = np.rint(np.asarray(self.fixations) * last).astype(np.int32)
            fixations = jnp.broadcast_to(jnp.asarray(points), (count, *points.shape))
        images = x.astype(jnp.float32)
        if self.noise is not None:
            z = standard_normal(streams["noise"], images.shape[1:])
            images = self.noise(images, z)
        seen = foveate(
            images, fixations, self.cone_width, self.rod_width, self.rod_acuity, self.blur
        )
        blurred = seen.reshape(-1, *x.shape[1:]).astype(x.dtype)
        if self.stem is None:
            return {"blurred": blurred}
        found = self.stem(blurred, train)
        return {"blurred": blurred} | (found if isinstance(found, dict) else {"stem": found})
