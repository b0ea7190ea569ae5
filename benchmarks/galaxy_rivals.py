"""Other ways to describe galaxies by a few numbers, for galaxies.py: two PCAs in the rest frame, and spender.

They share no code with the package. spender (Melchior et al. 2023, AJ 166, 74) is used where it is installed::

    pip install spender

or, beside an installation that should stay as it is, ``pip install --no-deps --target FOLDER spender nflows GPUtil
humanize psutil`` with FOLDER in PYTHONPATH.
"""

import time

import numpy as np
import torch
from sklearn.decomposition import PCA

try:
    import spender
except ImportError:
    spender = None

__all__ = ["plain_pca", "spender", "spender_prediction", "to_rest_frame", "train_spender", "weighted_pca"]

# Pixels of the rest frame [km/s], those of SDSS.
PIXEL, LIGHT = 69.0, 299792.458
# Rest wavelengths of which the median flux scales a spectrum [Angstrom], as in spender: observed at any redshift.
FLAT = (5300.0, 5850.0)
# Alternating least squares.
ITERATIONS = 12
# spender's training script for SDSS.
BATCH, RATE = 128, 1e-3


def to_rest_frame(wave, flux, ivar, redshift, first, last):
    """Scaled spectra interpolated to the rest frame: wavelengths (p,), flux and ivar (n, p), scales (n,)."""
    rest = first * np.exp(np.arange(int(np.log(last / first) / PIXEL * LIGHT)) * (PIXEL / LIGHT))
    out, weight = np.zeros((2, len(flux), len(rest)), dtype=np.float32)
    scale = np.empty(len(flux))
    for k, z in enumerate(redshift):
        good, place = ivar[k] > 0, rest * (1 + z)
        scale[k] = np.median(flux[k][good & (wave > FLAT[0] * (1 + z)) & (wave < FLAT[1] * (1 + z))])
        right = np.clip(np.searchsorted(wave, place), 1, len(wave) - 1)
        a, b = ivar[k][right - 1], ivar[k][right]
        inside = (place > wave[0]) & (place < wave[-1]) & (a > 0) & (b > 0)
        weight[k][inside] = (0.5 * (a + b) * scale[k] ** 2)[inside]
        out[k] = np.interp(place, wave[good], flux[k][good]) / scale[k]
    return rest, out, weight, scale


def _to_pixels(wave, redshift, rest, model):
    """Spectra of the rest frame in pixels, (n, n_pix), NaN beyond them."""
    return np.array([np.interp(wave / (1 + z), rest, row, left=np.nan, right=np.nan)
                     for z, row in zip(redshift, model, strict=True)])  # fmt: skip


def plain_pca(train, test, n_components):
    """
    PCA of scikit-learn, gaps filled with the mean spectrum.

    Parameters
    ----------
    train, test : tuple
        (wave, redshift) and what `to_rest_frame` returned.
    n_components : int

    Returns
    -------
    ndarray, shape (n, n_pix)
        The test spectra.
    ndarray, shape (1 + n_components, p)
        Mean and components.
    """
    _, _, (_, flux, ivar, _) = train
    mean = (flux * (ivar > 0)).sum(axis=0) / np.maximum((ivar > 0).sum(axis=0), 1)
    pca = PCA(n_components, svd_solver="randomized", random_state=0).fit(np.where(ivar > 0, flux, mean))
    wave, redshift, (rest, flux, ivar, scale) = test
    model = pca.inverse_transform(pca.transform(np.where(ivar > 0, flux, mean))) * scale[:, None]
    return _to_pixels(wave, redshift, rest, model), np.vstack([pca.mean_, pca.components_])


def weighted_pca(train, test, start):
    """
    Components by alternating least squares with inverse variances (as Bailey 2012, PASP 124, 1015), zero in gaps.

    Parameters
    ----------
    train, test : tuple
        As for `plain_pca`.
    start : ndarray, shape (k, p)
        First guess of the mean and the components; each galaxy has a coefficient of each.

    Returns
    -------
    ndarray, shape (n, n_pix)
        The test spectra.
    """
    flux, ivar = (torch.from_numpy(array) for array in train[2][1:3])
    basis = torch.linalg.qr(torch.from_numpy(start).float().T)[0].T
    for _ in range(ITERATIONS):
        some = _solved(basis, flux, ivar)
        basis = torch.linalg.qr(_solved(some.T, flux.T, ivar.T))[0].T
    wave, redshift, (rest, flux, ivar, scale) = test
    some = _solved(basis, torch.from_numpy(flux), torch.from_numpy(ivar))
    return _to_pixels(wave, redshift, rest, (some @ basis).numpy() * scale[:, None])


def _solved(basis, flux, ivar):
    """Weighted least squares for the coefficients (n, k) of the rows of a basis (k, p) in spectra (n, p)."""
    k = len(basis)
    upper = torch.triu_indices(k, k)
    sums = (ivar @ (basis[upper[0]] * basis[upper[1]]).T).double()
    matrix = sums.new_zeros(len(flux), k, k)
    matrix[:, upper[0], upper[1]] = matrix[:, upper[1], upper[0]] = sums
    tiny = 1e-9 * matrix.diagonal(dim1=1, dim2=2).mean(dim=1).clamp_min(1e-30)
    right = ((ivar * flux) @ basis.T).double()
    return torch.linalg.solve(matrix + tiny[:, None, None] * torch.eye(k).double(), right[..., None])[..., 0].float()


def _tensors(wave, flux, ivar, redshift):
    """Scaled spectra, weights and scales as spender's loader of SDSS makes them."""
    good = ivar > 0
    window = good & (wave > FLAT[0] * (1 + redshift[:, None])) & (wave < FLAT[1] * (1 + redshift[:, None]))
    scale = np.nanmedian(np.where(window, flux, np.nan), axis=1)[:, None]
    made = (np.where(good, flux, 0.0) / scale, ivar * scale**2, redshift)
    return *(torch.from_numpy(array.astype("f4")) for array in made), scale


def train_spender(wave, flux, ivar, redshift, n_latents, seconds, seed=0):
    """
    Train spender's autoencoder for some time, with the loss, the rest wavelengths and the rates of its own script.

    Parameters
    ----------
    wave : ndarray, shape (n_pix,) [Angstrom]
    flux, ivar : ndarray, shape (n, n_pix)
    redshift : ndarray, shape (n,)
    n_latents : int
    seconds : float
        The number of steps is what takes this long by the measured time of the first ones.
    seed : int

    Returns
    -------
    model, dict
        The model; ``step``, seconds a step and galaxy, and ``seconds``, both of the clock and of the processors;
        ``epochs``, ``parameters``.
    """

    class Survey(spender.Instrument):
        pass

    torch.manual_seed(seed)
    highest = float(redshift.max())
    rest = torch.linspace(wave[0] / (1 + highest), wave[-1], int(len(wave) * (1 + highest)))
    model = spender.SpectrumAutoencoder(Survey(torch.from_numpy(wave.astype("f4"))), rest, n_latent=n_latents)
    y, w, z, _ = _tensors(wave, flux, ivar, redshift)
    batch, optimizer = min(BATCH, len(y)), torch.optim.Adam(model.parameters(), lr=RATE)
    model.train()

    def step(some):
        loss = model.loss(y[some], w[some], z=z[some])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    # The first step has the cost of a first call in it, the next two tell how many there is time for.
    times = [_clocks()]
    for _ in range(3):
        step(torch.randperm(len(y))[:batch])
        times.append(_clocks())
    spent, each = times[3] - times[0], (times[3] - times[1]) / 2
    total = max(int((seconds - spent[0]) / each[0]), 10)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=total)
    in_epoch = len(y) // batch
    for k in range(total):
        if k % in_epoch == 0:
            order = torch.randperm(len(y))
        step(order[batch * (k % in_epoch) :][:batch])
        schedule.step()
    end = _clocks()
    return model, {"step": (end - times[3]) / total / batch, "epochs": (total + 3) * batch / len(y),
                   "seconds": end - times[0], "parameters": model.n_parameter}  # fmt: skip


def _clocks():
    """Seconds of the clock and of the processors."""
    return np.array([time.perf_counter(), time.process_time()])


def spender_prediction(model, wave, flux, ivar, redshift):
    """Reconstructions with the factor that fits best, (n, n_pix), NaN where its table ends."""
    y, w, z, scale = _tensors(wave, flux, ivar, redshift)
    out = []
    model.eval()
    with torch.no_grad():
        for start in range(0, len(y), BATCH):
            some = slice(start, start + BATCH)
            _, _, seen, valid = model._forward(y[some], z=z[some])
            weight = w[some] * valid
            factor = (weight * seen * y[some]).sum(1) / (weight * seen**2).sum(1).clamp_min(1e-30)
            out.append(torch.where(valid, seen * factor[:, None], torch.nan))
    return torch.cat(out).numpy() * scale
