"""Products of sparse matrices in coordinate form with spectra; compiled on the CPU, torch's own elsewhere."""

import torch
from torch import Tensor

from specutils_blase.functional.compiled import sparse_product

__all__ = ["apply"]


def apply(rows: Tensor, cols: Tensor, values: Tensor, flux: Tensor, n_pix: int) -> Tensor:
    """
    Product of the sparse matrix ``(rows, cols, values)`` with spectra.

    Parameters
    ----------
    rows, cols, values : Tensor, shape (n_weights,)
        Matrix in coordinate form, see :func:`pixel_response`.
    flux : Tensor, shape (..., n_grid)
        Spectra on the grid.
    n_pix : int
        Number of rows of the matrix.

    Returns
    -------
    Tensor, shape (..., n_pix)

    Examples
    --------
    >>> rows, cols, values = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 2]), torch.tensor([0.5, 0.5, 1.0])
    >>> apply(rows, cols, values, torch.tensor([1.0, 3.0, 5.0]), n_pix=2)
    tensor([2., 5.])
    """
    doubles = values.dtype == flux.dtype == torch.float64
    if doubles and values.device.type == "cpu" and not torch.compiler.is_compiling():
        return _SparseProduct.apply(rows, cols, values, flux, n_pix)
    return _gather_and_add(rows, cols, values.to(flux.dtype), flux, n_pix)


class _SparseProduct(torch.autograd.Function):
    """The compiled product; linear in the values and in the flux, so that its derivatives are products again."""

    @staticmethod
    def forward(rows: Tensor, cols: Tensor, values: Tensor, flux: Tensor, n_rows: int) -> Tensor:
        arrays = [tensor.numpy(force=True) for tensor in (rows, cols, values, flux.reshape(-1, flux.shape[-1]))]
        return torch.from_numpy(sparse_product(*arrays, n_rows)).reshape(*flux.shape[:-1], n_rows)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        *tensors, ctx.n_rows = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[None, None, Tensor | None, Tensor | None, None]:
        rows, cols, values, flux = ctx.saved_tensors
        for_values = for_flux = None
        if ctx.needs_input_grad[2]:
            both = grad.index_select(-1, rows) * flux.index_select(-1, cols)
            for_values = both.reshape(-1, len(rows)).sum(0)
        if ctx.needs_input_grad[3]:
            for_flux = apply(cols, rows, values, grad, flux.shape[-1])
        return None, None, for_values, for_flux, None

    @staticmethod
    def jvp(ctx, _rows, _cols, values_tangent: Tensor, flux_tangent: Tensor, _n_rows) -> Tensor:
        rows, cols, values, flux = ctx.saved_tensors
        parts = []
        if values_tangent is not None:
            parts.append(apply(rows, cols, values_tangent, flux, ctx.n_rows))
        if flux_tangent is not None:
            parts.append(apply(rows, cols, values, flux_tangent, ctx.n_rows))
        return sum(parts)

    @staticmethod
    def vmap(info, in_dims, rows: Tensor, cols: Tensor, values: Tensor, flux: Tensor, n_rows: int):
        _, _, of_values, of_flux, _ = in_dims
        if of_flux is not None:
            flux = flux.movedim(of_flux, 0)
        if of_values is None:
            return apply(rows, cols, values, flux, n_rows), 0
        values, flux = values.movedim(of_values, 0), flux if of_flux is not None else flux.unsqueeze(0)
        values = values.reshape(len(values), *[1] * (flux.ndim - 2), -1)
        return _gather_and_add(rows, cols, values, flux, n_rows), 0


def _gather_and_add(rows: Tensor, cols: Tensor, values: Tensor, flux: Tensor, n_rows: int) -> Tensor:
    """The product by torch alone, wherever it runs; the reference of the compiled one."""
    # index_select is three times faster than indexing with a tensor, and twice as fast again with int32; scatter_add_
    # takes half the time of index_add.
    narrow = cols.int() if flux.shape[-1] < 2**31 else cols
    weighted = values * flux.index_select(-1, narrow)
    return weighted.new_zeros(*weighted.shape[:-1], n_rows).scatter_add_(-1, rows.expand_as(weighted), weighted)
