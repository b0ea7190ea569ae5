"""Pixel means of a finely sampled spectrum, in the form in which specutils takes resamplers."""

import numpy as np
from astropy import units as u
from astropy.nddata import VarianceUncertainty
from scipy.sparse import csr_array
from specutils import SpectralAxis, Spectrum
from specutils.manipulation import ResamplerBase

from specutils_blase.errors import explain
from specutils_blase.solvers.response import pixel_means

__all__ = ["ExactOverlapResampler"]


class ExactOverlapResampler(ResamplerBase):
    """
    Mean over each new pixel of the straight lines between the samples of a spectrum, exact to rounding.

    For spectra that are sampled more finely than the new pixels, such as models. (Pixels that are means themselves are
    shared out by `~specutils.manipulation.FluxConservingResampler`.) The flux is a density: its mean over a pixel is
    taken in the unit of the new axis.

    Parameters
    ----------
    extrapolation_treatment : {"nan_fill", "zero_fill", "truncate"}
        What becomes of pixels that reach beyond the samples.

    Examples
    --------
    >>> import numpy as np, astropy.units as u
    >>> from specutils import Spectrum
    >>> from specutils_blase import ExactOverlapResampler
    >>> fine = Spectrum(flux=np.arange(101.0) * u.Jy, spectral_axis=np.linspace(5000, 5001, 101) * u.AA)
    >>> pixels = np.array([5000.2, 5000.4, 5000.6, 5000.95]) * u.AA
    >>> ExactOverlapResampler()(fine, pixels).flux  # doctest: +FLOAT_CMP
    <Quantity [20. , 40. , 63.75,   nan] Jy>
    """

    def resample1d(self, orig_spectrum, fin_spec_axis):
        """
        Resample the last axis of a spectrum.

        Parameters
        ----------
        orig_spectrum : Spectrum
            Any number of dimensions, any direction of the axis. Samples that are masked or not finite make the pixels
            that they touch NaN.
        fin_spec_axis : Quantity or SpectralAxis, shape (n_pix,)
            Centres of the new pixels, in any spectral unit; a SpectralAxis with bin edges keeps them.

        Returns
        -------
        Spectrum
            With the uncertainty of the same type, neighbours taken to be independent in the input (in the output they
            no longer are), the mask where there was one, and the meta of the input.
        """
        axis = fin_spec_axis if isinstance(fin_spec_axis, SpectralAxis) else SpectralAxis(fin_spec_axis)
        if axis.size < 2:
            raise ValueError(explain("fin_spec_axis", "have at least two pixels", str(axis.size), "add one"))
        points = orig_spectrum.spectral_axis.to_value(axis.unit, u.spectral())
        order, edges = np.argsort(points), np.asarray(axis.bin_edges.to_value(axis.unit))
        edges = np.sort(np.stack([edges[:-1], edges[1:]], axis=1), axis=1)
        points = points[order]
        inside = (edges[:, 0] >= points[0]) & (edges[:, 1] <= points[-1])
        weights = pixel_means(points, edges, inside)
        good = np.isfinite(orig_spectrum.flux.value)
        if orig_spectrum.mask is not None:
            good &= ~np.asarray(orig_spectrum.mask, dtype=bool)
        good = good[..., order]
        spoiled = _apply(weights, (~good).astype(float)) > 0
        fill = 0.0 if self.extrapolation_treatment == "zero_fill" else np.nan

        def resampled(values, matrix):
            out = _apply(matrix, np.where(good, values[..., order], 0.0))
            out[spoiled] = np.nan
            out[..., ~inside] = fill
            return out

        keep = inside if self.extrapolation_treatment == "truncate" else np.ones(axis.size, dtype=bool)
        options = {"meta": dict(orig_spectrum.meta)}
        if orig_spectrum.mask is not None:
            options["mask"] = spoiled[..., keep]
        if (uncertainty := orig_spectrum.uncertainty) is not None:
            variance = np.asarray(uncertainty.represent_as(VarianceUncertainty).array, dtype=float)
            squares = csr_array((weights.data**2, weights.indices, weights.indptr), shape=weights.shape)
            options["uncertainty"] = VarianceUncertainty(resampled(variance, squares)[..., keep],
                                                         unit=orig_spectrum.flux.unit**2)  # fmt: skip
            with np.errstate(divide="ignore"):  # what is filled with zeros has no variance
                options["uncertainty"] = options["uncertainty"].represent_as(type(uncertainty))
        flux = resampled(orig_spectrum.flux.value, weights)[..., keep] * orig_spectrum.flux.unit
        return Spectrum(flux=flux, spectral_axis=axis if keep.all() else axis[keep], **options)


def _apply(matrix, values):
    """The matrix (n, m) times the last axis of values (..., m)."""
    flat = values.reshape(-1, values.shape[-1])
    return (matrix @ flat.T).T.reshape(*values.shape[:-1], matrix.shape[0])
