"""Numbers that many lines share: factors on strengths and widths, velocities."""

from dataclasses import dataclass

import numpy as np

from ..functional.compiled import kernels
from ..functional.constants import SPEED_OF_LIGHT
from .lines import CENTER, GAMMA, SIGMA, STRENGTH, Lines

__all__ = ["Ties"]

# Longest steps of one iteration: a factor e; 1 km/s.
LONGEST = 1.0


@dataclass(frozen=True)
class Ties:
    """
    Global parameters each of which moves one parameter of many lines.

    They are logarithms of a factor on strengths or widths, and velocities [km/s] for the centres; 0 changes nothing.

    Attributes
    ----------
    member : ndarray of int, shape (n_lines, 4)
        Which of them acts on ln |strength|, ln sigma, ln gamma and the centre of a line; -1: none.
    """

    member: np.ndarray

    def __len__(self):
        return int(self.member.max(initial=-1)) + 1

    @property
    def rows(self):
        """The line parameters that are tied in any line, among STRENGTH, SIGMA, GAMMA, CENTER."""
        return tuple(row for row in (STRENGTH, SIGMA, GAMMA, CENTER) if (self.member[:, row] >= 0).any())

    def apply(self, lines, values):
        """The lines after `values` (n,)."""
        moves = np.where(self.member >= 0, np.append(values, 0.0)[self.member], 0.0)
        factor = np.exp(moves)
        return Lines(
            lines.center * (1.0 + moves[:, CENTER] / SPEED_OF_LIGHT), lines.strength * factor[:, STRENGTH],
            lines.sigma * factor[:, SIGMA], lines.gamma * factor[:, GAMMA],
        )  # fmt: skip

    def units(self, center):
        """Derivatives of the four parameters of every line with respect to its tie, shape (n_lines, 4)."""
        units = np.ones((len(center), 4))
        units[:, CENTER] = center / SPEED_OF_LIGHT
        return units

    def columns(self, terms, offset, lo, hi, n_pix):
        """Columns of the Jacobian, shape (n, n_pix): sums of the terms of `rows` (len(rows), n_pairs) over members."""
        out = np.zeros((len(self), n_pix))
        for row, term in zip(self.rows, terms, strict=True):
            kernels.add_members(term, offset, lo, hi, np.ascontiguousarray(self.member[:, row]), out)
        return out

    @staticmethod
    def move(values, step):
        """values + step, with long steps shortened."""
        return values + np.clip(step, -LONGEST, LONGEST)
