"""A norm of perturbations in units of d', in which attacks and certificates meet.

    N(delta) = w ||A delta||

A is the matrix of ``certification.bounds``, and w the factor of a silent cell: 1 / scale for
``GaussianNoise`` and scale / sqrt(level) for ``StabilisedNoise``. For every image x, the d' of an
ideal observer of V1 for x against x + delta is at most N(delta). A certificate of such a V1 is the
ball N(delta) < Phi^-1(p). So the accuracy under an attack in this norm has a floor that is proven,
at the same radii.

The ball is an ellipsoid. It is narrow along what V1 is sensitive to, and wide along what it
ignores. Projection onto it and the steepest step are functions of M = A^T A:

    steepest step     (M + t I)^-1 gradient, scaled to N = 1
    projection        ((1 + m) M + t I)^-1 (M + t I) delta, where N is eps

with the Lagrange multiplier m >= 0. It is the nearest point of the ball in the metric M + t I. Step
and projection have the same metric, so that the ascent ends where it should: at M^-1 gradient, for
a linear loss. The damping t keeps the step from what V1 ignores altogether, which would leave
[0, 1] at once.

Both are computed in the Krylov space of M from the vector, as conjugate gradients do. One space
serves all multipliers m. For small images M is a dense matrix, which is 30 times as fast on a CPU
as V1 and its transpose.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key, Num

from vone_jax import arguments, fast
from vone_jax.arguments import Positive
from vone_jax.certification.bounds import check_config, linear_responses, sensitivities
from vone_jax.certification.observer import weights
from vone_jax.v1 import GaussianNoise, StabilisedNoise, VOneBlockConfig

Images = Float[Array, "n h w c"]
Values = Float[Array, " n"]
Scalar = Array | np.ndarray | float

_HALVINGS = 60
# Values of an image up to which M is a dense matrix: 4 MiB.
_DENSE = 1024


@dataclasses.dataclass(frozen=True)
class Discriminability:
    """The norm N of an observer of V1. ``attacks.PGD`` and ``attacks.APGD`` take it as ``norm``.

    Attributes:
      config: V1 of the observer, without normalization, with ``GaussianNoise`` or
        ``StabilisedNoise``. It need not be the V1 of the network that is attacked.
      damping: t, as a share of the largest eigenvalue of M, > 0.
      iterations: dimensions of the Krylov space. The projection is the nearest point of the ball
        among those of this space.

    Raises:
      ValueError: for other noise, a normalization or a bank that is trained.
    """

    config: VOneBlockConfig
    damping: Positive = 0.01
    iterations: int = 12

    def __post_init__(self):
        arguments.fields(self)
        check_config(self.config)
        if not isinstance(self.config.noise, (GaussianNoise, StabilisedNoise)):
            raise ValueError(
                "discriminability needs GaussianNoise or StabilisedNoise in V1, whose observer has "
                f"a d', got {self.config.noise}"
            )

    def size(self, delta: Num[Array, "n h w c"]) -> Values:
        """Return N of each perturbation; its gradient at 0 is 0.

        Raises:
          TypeError: if perturbations are integers: those of eight bits have no negative values.
        """
        if not jnp.issubdtype(delta.dtype, jnp.floating):
            raise TypeError(
                f"perturbations must be float32 or float64, got {delta.dtype}; subtract images in "
                "[0, 1]"
            )
        linear = linear_responses(self.config, delta)
        squares = jnp.sum(jnp.square(linear), axis=(1, 2, 3))
        none = squares == 0
        length = jnp.where(none, 0.0, jnp.sqrt(jnp.where(none, 1.0, squares)))
        return (self._factor * length).astype(delta.dtype)

    def project(self, delta: Images, eps: Scalar) -> Images:
        """Return the nearest perturbation of N at most ``eps``, see above."""
        eps = jnp.asarray(eps, jnp.float32)
        size = self.size(delta).astype(jnp.float32)
        space = _Krylov.of(self._normal(delta), delta, self.iterations)
        largest = self._largest(delta)

        def shrunk(multiplier: Values) -> Callable[[Array], Array]:
            # Eigenvalues come as (iterations, n).
            return lambda value: (
                (value + self.damping) / ((1 + multiplier[None]) * value + self.damping)
            )

        def halve(_: Array, bracket: tuple[Values, Values]) -> tuple[Values, Values]:
            low, high = bracket
            middle = 0.5 * (low + high)
            length = space.norm(lambda value: jnp.sqrt(value) * shrunk(middle)(value))
            outside = largest * length > eps
            return jnp.where(outside, middle, low), jnp.where(outside, high, middle)

        # sqrt(v) (v + t) / ((1 + m) v + t) is at most (1 + t) / (2 sqrt((1 + m) t)) for v <= 1.
        farthest = largest * space.length * (1 + self.damping) / jnp.maximum(eps, 1e-6)
        high = jnp.square(farthest / 2) / self.damping
        _, multiplier = jax.lax.fori_loop(0, _HALVINGS, halve, (jnp.zeros_like(high), high))
        nearest = space.apply(shrunk(multiplier)).astype(delta.dtype)
        return jnp.where((size > eps)[:, None, None, None], self._shrunk(nearest, eps), delta)

    def _shrunk(self, delta: Images, eps: Array) -> Images:
        """Return perturbations scaled so that N is at most ``eps``."""
        size = self.size(delta).astype(jnp.float32)
        scale = jnp.where(size > eps, eps / jnp.where(size > eps, size, 1.0), 1.0)
        return delta * scale[:, None, None, None].astype(delta.dtype)

    def direction(self, gradient: Images) -> Images:
        """Return the damped direction of steepest ascent, of N = 1; a gradient of zero gives zero.

        Values that are not finite make the result not finite.
        """
        return self._filtered(gradient, lambda value: 1 / (value + self.damping))

    def sample(
        self, keys: Key[Array, " n"], shape: tuple[int, ...], eps: Scalar, dtype: DTypeLike
    ) -> Images:
        """Return random perturbations (n, *shape) of N = ``eps``.

        They are normal draws times (M + t I)^-1/2, which without damping have all directions of the
        ellipsoid alike.
        """
        drawn = jax.vmap(lambda key: jax.random.normal(key, shape, dtype))(keys)
        unit = self._filtered(drawn, lambda value: 1 / jnp.sqrt(value + self.damping))
        return unit * (eps if jnp.ndim(eps) == 0 else jnp.reshape(eps, (-1, 1, 1, 1)))

    @property
    def _factor(self) -> float:
        return float(weights(self.config.noise, 0.0, 0.0, 2.0))

    def _largest(self, delta: Images) -> float:
        """The bound of N(delta) / ||delta||, whose square is the unit of the eigenvalues of M."""
        return self._factor * sensitivities(self.config, delta.shape[1:3]).l2

    def _normal(self, delta: Images) -> Callable[[Images], Images]:
        """Return M as a function, divided by a bound of its largest eigenvalue."""
        scale = (self._factor / self._largest(delta)) ** 2
        shape = delta.shape[1:]
        if math.prod(shape) <= _DENSE:
            matrix = scale * _gram_matrix(self.config, shape)
            return lambda delta: jnp.matmul(
                delta.reshape(len(delta), -1), matrix, precision="highest"
            ).reshape(delta.shape)

        def linear(delta: Images) -> Array:
            return linear_responses(self.config, delta)

        transposed = jax.linear_transpose(linear, jax.ShapeDtypeStruct(delta.shape, jnp.float32))
        return lambda delta: scale * transposed(linear(delta))[0]

    def _filtered(self, vector: Images, function: Callable[[Array], Array]) -> Images:
        largest = fast.largest(jnp.abs(vector), axis=(1, 2, 3))[:, None, None, None]
        # Squares of tiny gradients would underflow.
        scaled = vector / jnp.where(largest == 0, 1.0, largest)
        space = _Krylov.of(self._normal(vector), scaled, self.iterations)
        found = space.apply(function)
        size = self.size(found)
        size = jnp.where(size == 0, 1.0, size)
        return (found / size[:, None, None, None]).astype(vector.dtype)


@functools.lru_cache(maxsize=8)
def _gram_matrix(config: VOneBlockConfig, shape: tuple[int, ...]) -> np.ndarray:
    """Return A^T A for images of a shape (h, w, c), float32, (h w c, h w c)."""
    number = math.prod(shape)
    with jax.ensure_compile_time_eval():
        rows = linear_responses(config, np.eye(number, dtype=np.float32).reshape(-1, *shape))
    rows = np.asarray(rows).reshape(number, -1)
    return rows @ rows.T


@dataclasses.dataclass(frozen=True)
class _Krylov:
    """A batch of Krylov spaces of a symmetric matrix with eigenvalues from 0 to 1.

    Attributes:
      length: of the vectors that the spaces begin with.
      basis: orthonormal, (iterations, n, h, w, c).
      values: eigenvalues of the matrix in the basis, (iterations, n).
      vectors: their eigenvectors, (n, iterations, iterations).
    """

    length: Values
    basis: Array
    values: Array
    vectors: Array

    @classmethod
    def of(cls, matrix: Callable[[Images], Images], start: Images, iterations: int) -> "_Krylov":
        start = jnp.asarray(start, jnp.float32)
        iterations = min(iterations, math.prod(start.shape[1:]))
        length = _norm(start)

        def step(i: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
            basis, projected = state
            image = matrix(basis[i])
            products = jnp.einsum("knhwc,nhwc->nk", basis, image, precision="highest")
            projected = projected.at[:, i].set(products)
            rest = image
            for _ in range(2):  # Once is not enough in float32.
                parts = jnp.einsum("knhwc,nhwc->kn", basis, rest, precision="highest")
                rest = rest - jnp.einsum("kn,knhwc->nhwc", parts, basis, precision="highest")
            # Nothing but rounding is left where the Krylov space has an end.
            left = jnp.where(_norm(rest) > 1e-6 * _norm(image), _norm(rest), jnp.inf)
            return basis.at[i + 1].set(_over(rest, left), mode="drop"), projected

        basis = jnp.zeros((iterations, *start.shape)).at[0].set(_over(start, length))
        state = basis, jnp.zeros((start.shape[0], iterations, iterations))
        basis, projected = jax.lax.fori_loop(0, iterations, step, state)
        # Only the parts along the basis so far are known; the others follow from symmetry.
        projected = jnp.nan_to_num(jnp.tril(projected))  # The basis keeps what is not finite.
        projected += jnp.tril(projected, -1).swapaxes(1, 2)
        values, vectors = jnp.linalg.eigh(projected)
        return cls(length, basis, fast.relu(values).T, vectors)

    def norm(self, function: Callable[[Array], Array]) -> Values:
        """Return the norm of a function of the matrix times the first vector."""
        parts = function(self.values) * self.vectors[:, 0].T
        return self.length * jnp.sqrt(jnp.sum(jnp.square(parts), axis=0))

    def apply(self, function: Callable[[Array], Array]) -> Images:
        """Return a function of the matrix times the first vector.

        The function takes eigenvalues (iterations, n).
        """
        parts = function(self.values).T * self.vectors[:, 0]
        along = jnp.einsum("nkj,nj->nk", self.vectors, parts, precision="highest")
        along = along * self.length[:, None]
        return jnp.einsum("nk,knhwc->nhwc", along, self.basis, precision="highest")


def _norm(images: Images) -> Values:
    return jnp.sqrt(jnp.sum(jnp.square(images), axis=(1, 2, 3)))


def _over(images: Images, length: Values) -> Images:
    return images / jnp.where(length == 0, 1.0, length)[:, None, None, None]
