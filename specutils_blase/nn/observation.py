"""Tabulated rest-frame spectra as an instrument sees them at any redshift, many at a time."""

import math
import warnings

import torch
from torch import Tensor, nn

from specutils_blase import functional
from specutils_blase.functional import interpolation
from specutils_blase.nn.instrument import Instrument

__all__ = ["Observation"]


class Observation(nn.Module):
    """
    Redshift, line spread function and pixels: a `Instrument` whose response stays, for spectra that are tabulated.

    Parameters
    ----------
    instrument : Instrument
        Its ``step`` is that of the table.
    first : float
        First wavelength of the table in the rest frame [Angstrom].
    dtype : torch.dtype
        Of the matrix; coordinates are float64.

    Examples
    --------
    Where a line is seen, and how that changes with the redshift:

    >>> from specutils_blase import functional, nn
    >>> edges = functional.pixel_edges(torch.arange(5000.0, 5200.0, 1.5, dtype=torch.float64))
    >>> instrument = nn.Instrument(edges, resolving_power=1800.0, step=60.0, margin=1500.0)
    >>> observation = nn.Observation(instrument, first=4000.0)
    >>> wave = 4000.0 * torch.exp(torch.arange(1500) * (60.0 / 299792.458))
    >>> z = torch.tensor([0.08], dtype=torch.float64, requires_grad=True)
    >>> line = observation(torch.exp(-0.5 * ((wave - 4700.0) / 5.0) ** 2), z)[0]
    >>> center = (line * instrument.centers).sum() / line.sum()
    >>> print(f"{center.item():.0f} {torch.autograd.grad(center, z)[0].item():.0f}")
    5076 4700
    """

    def __init__(self, instrument: Instrument, first: float, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.n_pix, self.n_grid = len(instrument.edges), len(instrument.wave)
        # Samples from the beginning of the table to that of the grid, at redshift zero.
        self.spacing = instrument.step / functional.SPEED_OF_LIGHT
        self.start = math.log(float(instrument.wave[0]) / first) / self.spacing
        with torch.no_grad():
            rows, cols, values = instrument.response()
        # Middle of each pixel on the grid, and how far its light comes from at most, in samples.
        place = torch.log(instrument.centers / instrument.wave[0]) / self.spacing
        self.margin = float((cols - place.index_select(0, rows)).abs().max())
        self.register_buffer("place", place, False)
        # Standard deviation of a pixel's response, in samples, on average.
        away = cols - place.index_select(0, rows)
        self.blur = math.sqrt(float((values * away**2).sum()) / self.n_pix)
        self.register_buffer("matrix", _compressed(rows, cols, values.to(dtype), self.n_pix, self.n_grid), False)
        self.register_buffer("transposed", _compressed(cols, rows, values.to(dtype), self.n_grid, self.n_pix), False)

    def forward(self, flux: Tensor, redshift: Tensor, bands: Tensor | None = None) -> Tensor:
        """
        Observe spectra.

        Parameters
        ----------
        flux : Tensor, shape (m, n_table) or (n_table,)
            On the table. Differentiable.
        redshift : Tensor, shape (m,)
            Float64. Differentiable.
        bands : Tensor, shape (m, n_diag, n_pix) or (n_diag, n_pix), optional
            Resolution matrices as DESI has them, applied to the pixels.

        Returns
        -------
        Tensor, shape (m, n_pix)
        """
        grid = interpolation.shifted(flux, self.start - torch.log1p(redshift) / self.spacing, self.n_grid)
        pixels = _Product.apply(grid, self.matrix, self.transposed)
        return pixels if bands is None else _banded(bands.to(pixels.dtype), pixels)

    def covered(self, redshift: Tensor, n_table: int, n_diag: int = 1) -> Tensor:
        """Which pixels get light from within the table only, shape (m, n_pix)."""
        place = self.place + (self.start - torch.log1p(redshift) / self.spacing)[:, None]
        # A sample between those of the table is made from two on either side.
        margin = self.margin + 1.0 + (n_diag // 2) * float(self.place.diff().max())
        return (place >= margin) & (place <= n_table - 1 - margin)


class _Product(torch.autograd.Function):
    """Product with a fixed matrix, which no gradient is wanted of: the transposed one is at hand."""

    @staticmethod
    def forward(flux: Tensor, matrix: Tensor, transposed: Tensor) -> Tensor:
        return (matrix @ flux.T).T

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.matrices = inputs[1:]

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        return _Product.apply(grad, *ctx.matrices[::-1]), None, None


def _compressed(rows, cols, values, n_rows, n_cols):
    """The matrix in compressed rows; torch warns once in a session that these are new."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, message="Sparse")
        matrix = torch.sparse_coo_tensor(torch.stack([rows, cols]), values, (n_rows, n_cols))
        return matrix.coalesce().to_sparse_csr()


def _banded(bands: Tensor, pixels: Tensor) -> Tensor:
    """Product with matrices whose diagonals are given: ``bands[k, j]`` is the element (j - half + k, j)."""
    n_diag = bands.shape[-2]
    half = n_diag // 2
    spread = nn.functional.pad(bands * pixels[..., None, :], (half, half))
    n_pix = pixels.shape[-1]
    # Element k of column j lies in row j - half + k: what reaches row i comes from column i + half - k.
    return sum(spread[..., k, 2 * half - k : 2 * half - k + n_pix] for k in range(n_diag))
