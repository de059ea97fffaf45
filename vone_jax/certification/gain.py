"""How far a perturbation can move V1 behind gain control, near one image.

Let r be the responses of the n cells of one pool without gain control, and

    z = g r / sqrt(d),   d = c^2 + ||r||^2 / n,

with the semisaturation c and the gain g. The Jacobian of z is g d^(-1/2) (I - S) with
S = r r^T / (n d). S is symmetric with the eigenvalues 0 and ||r||^2 / (n d) < 1, so 0 <= S < I, and
the norm of the Jacobian is at most g / sqrt(d). Let r' be the responses to another image, and
D = ||r' - r||. On the straight line from r to r', at the distance s from r, ||r|| has fallen by at
most s. With the root mean square response m = ||r|| / sqrt(n) it follows that

    ||z' - z|| <= int_0^D g ds / sqrt(c^2 + max(m - s / sqrt(n), 0)^2)
                = g sqrt(n) (asinh(m / c) - asinh((m - D / sqrt(n)) / c))     if D <= sqrt(n) m,

and beyond sqrt(n) m the integrand is g / c. The bound f(D) is convex, and falls with m.

All pools together: pool j moves by D_j <= min(L_j, L) R for perturbations of norm R, where L_j is
the sensitivity of its cells, and D_1^2 + D_2^2 + ... <= (L R)^2. Since f is convex with f(0) = 0,
f(D_j) <= D_j f(b) / b with b = min(L_j, L) R. So V1 moves by at most L R f(b) / b, with the f of
the pool that responds least. For one pool this is f(L R).

One cell: since sqrt(d) moves by at most D / sqrt(n),

    |z_i' - z_i| <= (g |r_i' - r_i| + z_i D / sqrt(n)) / sqrt(c^2 + max(m - D / sqrt(n), 0)^2).

The pools must not overlap, and all cells of a pool must weigh alike. With other weights S is not
symmetric, and with pools that overlap d differs between the cells of a pool.
"""

import dataclasses
import math

import numpy as np

from vone_jax.v1 import GainControl

Real = np.ndarray | np.floating | float


@dataclasses.dataclass(frozen=True, eq=False)
class Pools:
    """The pools of one image.

    Attributes:
      control: the constants of gain control.
      cells: number n of cells in a pool.
      mean: root mean square response m of each pool without gain control, (pools,).
      peak: largest response z of each pool with gain control, (pools,).
    """

    control: GainControl
    cells: int
    mean: np.ndarray
    peak: np.ndarray

    @classmethod
    def of(cls, control: GainControl, responses: np.ndarray) -> "Pools":
        """Return the pools of responses (h, w, cells) of one image without gain control."""
        pools = by_pool(control, responses)
        mean = np.sqrt(np.mean(pools**2, axis=1))
        peak = control.gain * pools.max(axis=1) / np.hypot(control.semisaturation, mean)
        return cls(control, pools.shape[1], mean, peak)

    def moved(self, change: Real) -> np.ndarray:
        """Return f(D) of each pool, for one D or one of each pool."""
        # In units of c sqrt(n), by a form of the difference that does not cancel.
        unit = self.control.semisaturation * math.sqrt(self.cells)
        start, change = self.mean / self.control.semisaturation, np.asarray(change) / unit
        fall = np.minimum(change, start)
        end = start - fall
        one, other = np.hypot(1.0, start), np.hypot(1.0, end)
        curved = np.log1p(fall * (1.0 + (start + end) / (one + other)) / (end + other))
        return self.control.gain * math.sqrt(self.cells) * (curved + change - fall)

    def cell_moved(self, change: Real, of_cell: Real, response: Real) -> np.ndarray:
        """Return the bound of one cell in each pool.

        Args:
          change: D of the pools.
          of_cell: |r_i' - r_i| of the cell.
          response: z_i of the cell.
        """
        fall = np.asarray(change) / math.sqrt(self.cells)
        least = np.hypot(self.control.semisaturation, np.maximum(self.mean - fall, 0.0))
        return (self.control.gain * np.asarray(of_cell) + response * fall) / least

    def rates(
        self, radius: float, everything: float, of_pool: float, of_cell: float
    ) -> tuple[float, float]:
        """Return bounds of ||z' - z|| / R and of |z_i' - z_i| / R for perturbations up to R.

        Args:
          radius: R.
          everything: sensitivity L of all cells without gain control, in the norm of R.
          of_pool: sensitivity of the cells of one pool.
          of_cell: sensitivity of one cell.
        """
        # The rates have a limit at 0, which a tiny radius gives up to rounding.
        radius = max(radius, 1e-12)
        change = min(of_pool, everything) * radius
        steepest = float(self.moved(change).max()) / change
        of_cells = self.cell_moved(change, of_cell * radius, self.peak)
        return everything * steepest, float(of_cells.max()) / radius


def by_pool(control: GainControl, values: np.ndarray) -> np.ndarray:
    """Return values (h, w, cells) of the cells of one image as (pools, cells of a pool)."""
    values = np.asarray(values, np.float64)
    return values.reshape((1, -1) if control.pool == "image" else (-1, values.shape[-1]))
