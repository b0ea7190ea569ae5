"""Results as short texts for a terminal: numbers with errors, aligned columns, what a template or a fit holds."""

import numpy as np
from astropy import units as u
from specutils import Spectrum

from specutils_blase.flags import OUTSIDE_WINDOW
from specutils_blase.quality import standard_deviation

__all__ = [
    "describe_arrays",
    "describe_blase_state",
    "describe_echelle",
    "describe_fit",
    "describe_info",
    "describe_lines",
    "describe_orders",
    "describe_predictor",
    "describe_template",
    "fit_pairs",
    "format_pairs",
    "format_table",
    "predicted_rows",
    "with_error",
]


def with_error(value, error, unit=""):
    """
    A number with its standard deviation, rounded to two digits of the latter.

    Parameters
    ----------
    value, error : float
        An error that is not finite and positive is left out.
    unit : str

    Returns
    -------
    str

    Examples
    --------
    >>> with_error(-9.25371, 0.0123, "km / s")
    '-9.254 ± 0.012 km / s'
    >>> with_error(90512.3, 41.7)
    '90512 ± 42'
    >>> with_error(1.65023e-14, 2.1e-17)
    '(1.6502 ± 0.0021)e-14'
    """
    if not (np.isfinite(error) and error > 0):
        return f"{value:.6g} {unit}".rstrip()
    power = int(np.floor(np.log10(max(abs(value), error))))
    power = power if power > 6 or power < -3 else 0
    scaled, scaled_error = value / 10.0**power, error / 10.0**power
    digits = int(np.clip(1 - np.floor(np.log10(scaled_error)), 0, 12))
    text = f"{scaled:.{digits}f} ± {scaled_error:.{digits}f}"
    return f"{f'({text})e{power}' if power else text} {unit}".rstrip()


def format_pairs(pairs):
    """
    Names and values in two aligned columns.

    Parameters
    ----------
    pairs : dict

    Returns
    -------
    str
    """
    width = max(map(len, pairs)) + 2
    return "\n".join(f"  {name:<{width}}{value}" for name, value in pairs.items())


def format_table(rows):
    """
    Rows in columns as wide as they need, the first one to the left, the others to the right.

    Parameters
    ----------
    rows : list of sequences
        The first is the heading.

    Returns
    -------
    str
    """
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = []
    for first, *others in texts:
        cells = [f"  {first:<{widths[0]}}", *(f"{cell:>{w}}" for cell, w in zip(others, widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def describe_template(template):
    """
    What a template is and how its clone went.

    Parameters
    ----------
    template : LineTemplate

    Returns
    -------
    str
    """
    meta, model = template.meta, template.model
    first, last = meta["coverage"]
    blackbody = f" times a blackbody of {model.teff:g} K" if model.teff else ""
    return format_pairs(
        {
            "lines": len(template.lines),
            "coverage": f"{first:.2f} to {last:.2f} Angstrom, vacuum, {meta['frame']} frame",
            "continuum": f"{model.continuum.size} Legendre coefficients{blackbody}",
            "flux unit": str(model.continuum.unit or "") or "dimensionless",
            **_info_pairs(template.fit_info),
            "errors": meta["error_scale"],
            "made by": f"specutils_blase {meta['package_version']}",
        }
    )


def describe_fit(fit):
    """
    The parameters of a fit and how it went.

    Parameters
    ----------
    fit : SpectrumFit

    Returns
    -------
    str
    """
    rows, n_own = [("parameter", "value", "unit", "")], 0
    for name, value, std, unit, fixed in fit.parameters.iterrows("name", "value", "std", "unit", "fixed"):
        if name.startswith("order_"):  # hundreds, which nobody reads here
            n_own += 1
            continue
        remark = "fixed" if fixed else "at its limit" if name in fit.parameters.meta.get("at_bound", ()) else ""
        rows.append((name, with_error(value, 0.0 if fixed else std), unit, remark))
    if n_own:
        rows.append((f"and {n_own} of single orders", "", "", "in the parameters of the file"))
    text = format_table(rows) + "\n" + format_pairs(fit_pairs(fit))
    if isinstance(fit.observed, Spectrum) and fit.observed.flux.ndim == 1:
        return text
    orders = fit.orders
    return f"{text}\n{describe_orders(orders, [fit.order(k).observed.meta.get('order', k) for k in orders['order']])}"


def fit_pairs(fit):
    """How a fit went: texts by what they are about."""
    return {**_info_pairs(fit.fit_info), "lines": _count_lines(fit.lines)}


def describe_orders(orders, numbers=None, n_shown=28):
    """
    How good the orders of a fit are.

    Parameters
    ----------
    orders : QTable
        ``SpectrumFit.orders``.
    numbers : sequence of int, optional
        Those that the orders have in their file, which are shown where they are others than in the fit.
    n_shown : int
        Of more orders those with the largest ratio of rms to noise.

    Returns
    -------
    str
    """
    width = max(len(remark) for remark in [*orders["remark"], "remark"])
    rows = [("order", "in the file", "wavelengths [Angstrom]", "pixels", "rms [%]", "noise [%]", "ratio",
             "remark".ljust(width))]  # fmt: skip
    badness = np.where(np.isfinite(orders["ratio"]), orders["ratio"], orders["rms"])
    for k in sorted(np.argsort(-badness, kind="stable")[:n_shown]):
        row = orders[int(k)]
        low, high = (row[f"wavelength_{end}"].to_value(u.AA) for end in ("min", "max"))
        rows.append((row["order"], row["order"] if numbers is None else numbers[k], f"{low:.1f} to {high:.1f}",
                     row["n_pixels"], f"{100 * row['rms']:.3f}", _known(100 * row["noise"], 3),
                     _known(row["ratio"], 2), row["remark"].ljust(width)))  # fmt: skip
    if all(row[0] == row[1] for row in rows[1:]):
        rows = [(first, *others) for first, _, *others in rows]
    more = len(orders) - n_shown
    return format_table(rows) + (f"\n  and {more} with smaller ratios" if more > 0 else "")


def _known(value, digits):
    """A number, or nothing where there is none."""
    return f"{value:.{digits}f}" if np.isfinite(value) else ""


def describe_lines(lines, n_shown=10):
    """
    How many lines a table has, and the deepest ones.

    Parameters
    ----------
    lines : QTable
        Of a template or a fit.
    n_shown : int

    Returns
    -------
    str
    """
    center = u.Quantity(lines["line_center"]).to_value(u.AA)
    pairs = {"lines": _count_lines(lines)}
    if len(lines):
        pairs["range"] = f"{center.min():.2f} to {center.max():.2f} Angstrom, vacuum"
    return format_pairs(pairs) + "\n" + deepest_lines(lines, n_shown)


def describe_blase_state(lines):
    """
    What the state of a clone made by blase holds.

    Parameters
    ----------
    lines : QTable
        What `read_blase_state` returned.

    Returns
    -------
    str
    """
    center, depth = lines["line_center"].to_value(u.AA), np.asarray(lines["depth"])
    pairs = {
        "lines": len(lines),
        "range": f"{center.min():.2f} to {center.max():.2f} Angstrom, vacuum",
        "deepest": f"{depth.max():.3f} at {center[depth.argmax()]:.2f} Angstrom",
        "velocity": f"{lines.meta['radial_velocity']:.4g}, of a state that was fitted to data",
    }
    if lines.meta["radial_velocity"] == 0:
        del pairs["velocity"]
    return format_pairs(pairs)


def deepest_lines(lines, n_shown=5):
    """
    The deepest lines of a table, by wavelength; of a fit, those that its pixels have seen.

    Parameters
    ----------
    lines : QTable
        Of a template or a fit.
    n_shown : int

    Returns
    -------
    str
    """
    center = u.Quantity(lines["line_center"]).to_value(u.AA)
    rows = [("line [Angstrom]", "depth", "equivalent width [mA]", "")]
    depth = np.abs(u.Quantity(lines["depth"]).value)
    flags = np.asarray(lines["flags"]) if "flags" in lines.colnames else np.zeros(len(lines), dtype=int)
    seen = (flags & OUTSIDE_WINDOW) == 0
    deepest = np.argsort(np.where(seen, -depth, 0.0), kind="stable")[: min(n_shown, np.count_nonzero(seen))]
    for k in deepest[np.argsort(center[deepest])]:
        row = lines[int(k)]
        width, error = (row[name].to_value(u.AA) * 1e3 for name in ("equivalent_width", "equivalent_width_err"))
        depth = u.Quantity(row["depth"]).value
        rows.append((f"{center[k]:.3f}", f"{depth:.3f}", with_error(width, error), row["component"]))
    return format_table(rows)


def describe_arrays(arrays):
    """
    Size, range and quality of a spectrum.

    Parameters
    ----------
    arrays : SpectrumArrays

    Returns
    -------
    str
    """
    wave, good = arrays.wave, arrays.good
    said = "medium" if "wavelength_medium" in arrays.source.meta else "medium not said, taken as"
    pairs = {
        "pixels": f"{wave.size}, {arrays.n_ignored} of them not usable",
        "range": f"{wave[0]:.2f} to {wave[-1]:.2f} Angstrom in vacuum ({said}: {arrays.medium})",
        "flux unit": str(arrays.flux_unit) or "dimensionless",
    }
    if arrays.sigma is not None:
        pairs["signal to noise"] = f"{np.median(arrays.flux[good] / arrays.sigma[good]):.4g} (median)"
    return format_pairs(pairs)


def describe_predictor(predictor):
    """
    What a predictor of emission lines was trained with.

    Parameters
    ----------
    predictor : EmissionLinePredictor

    Returns
    -------
    str
    """
    info, (lower, upper) = predictor.fit_info, predictor.limits
    said = {"epochs": "epochs", "seed": "seed", "-ln likelihood": "negative_log_likelihood"}
    factors = info.get("noise_factors", {})
    return format_pairs({
        "lines": ", ".join(predictor.lines),
        "galaxies": info["n_galaxies"],
        "redshifts": f"{lower[-1]:.4g} to {upper[-1]:.4g}",
        **{name: f"{info[key]:.6g}" for name, key in said.items() if key in info},
        **({"factors on the noise": ", ".join(f"{name} {factors[name]:.2f}" for name in predictor.lines)}
           if factors else {}),
    })  # fmt: skip


def describe_autoencoder(autoencoder):
    """
    What an autoencoder of galaxies was trained with.

    Parameters
    ----------
    autoencoder : SpectrumAutoencoder

    Returns
    -------
    str
    """
    info, wave = autoencoder.fit_info, autoencoder.spectral_axis.value
    lower, upper = info.get("redshifts", (float("nan"),) * 2)
    return format_pairs({
        "latents": autoencoder.n_latents,
        "rest frame": f"{wave[0]:.0f} to {wave[-1]:.0f} Angstrom, {len(wave)} samples",
        "galaxies": info["n_galaxies"],
        "redshifts": f"{lower:.4g} to {upper:.4g}",
        **{f"chi2 per pixel, {name}": f"{min(info[name]):.4f}" for name in ("training", "validation") if name in info},
        "epochs": info.get("epochs", "unknown"),
        "seed": info.get("seed", "unknown"),
    })  # fmt: skip


def reconstruction_quality(spectra):
    """
    Chi2 per pixel of every galaxy.

    Parameters
    ----------
    spectra : Spectrum or SpectrumList
        From `SpectrumAutoencoder.reconstruct`.

    Returns
    -------
    ndarray, shape (n,)
    """
    some = [spectra] if not isinstance(spectra, list) else spectra[:1] if spectra[0].flux.ndim == 2 else spectra
    return np.concatenate([np.atleast_1d(one.meta["chi2"] / one.meta["n_pixels"]) for one in some])


def latent_rows(table):
    """
    Redshift, quality and latents of galaxies, for `format_table`.

    Parameters
    ----------
    table : QTable
        As ``specutils-blase galaxy reconstruct`` writes it.

    Returns
    -------
    list of list
    """
    is_found = "second" in table.colnames
    rows = [["galaxy", "redshift", *["second"] * is_found, "chi2 / pixel", "least coverage", "ln p", "latents"]]
    for row in table:
        redshift = [f"{row['redshift']:.6f}"]
        if is_found:
            redshift = [f"{redshift[0]} +- {row['redshift_err']:.6f}", f"{row['second']:.0f}"]
        latents = " ".join(f"{value:.2f}" for value in row["latents"])
        rows.append([row["galaxy"], *redshift, f"{row['chi2_per_pixel']:.3f}", f"{row['coverage'].min():.2f}",
                     f"{row['log_probability']:.1f}", latents])  # fmt: skip
    return rows


def predicted_rows(row, lines):
    """
    The predicted lines of a galaxy, for `format_table`.

    Parameters
    ----------
    row : Row
        Of what `EmissionLinePredictor.predict` returned.
    lines : sequence of str
        Names of the lines.

    Returns
    -------
    list of list
    """
    columns = {"median": "", "16 %": "_p16", "84 %": "_p84"}
    rows = [[name, *(f"{row[name + end].to_value(u.AA):.3f}" for end in columns.values())] for name in lines]
    return [["line", *columns], *rows]


def describe_echelle(orders):
    """
    What the file of an echelle spectrograph holds, and every order of it.

    Parameters
    ----------
    orders : SpectrumList
        As `read_hpf` and `read_igrins` return them.

    Returns
    -------
    str
    """
    meta, ratios = orders[0].meta, [_signal_to_noise(order) for order in orders]
    ends = np.array([order.spectral_axis.to_value(u.AA)[[0, -1]] for order in orders])
    n_pixels, n_masked = [order.flux.size for order in orders], [np.count_nonzero(order.mask) for order in orders]
    pairs = {
        "instrument": meta["instrument"] + (f", {meta['fiber']} fibre" if "fiber" in meta else ""),
        "orders": len(orders),
        "pixels": f"{sum(n_pixels)}, {sum(n_masked)} of them masked",
        "range": f"{ends.min():.2f} to {ends.max():.2f} Angstrom in {meta['wavelength_medium']}",
        "frame": meta["frame"],
        "flux unit": str(orders[0].flux.unit),
    }
    if "barycentric_velocity" in meta:
        velocity = meta["barycentric_velocity"].to_value(u.km / u.s)
        pairs["frame"] += f"; {velocity:.3f} km / s are added for barycentric velocities"
    known = np.concatenate(ratios)
    pairs["signal to noise"] = f"{np.median(known):.4g} (median)" if known.size else "not known without uncertainties"
    rows = [("order", "wavelengths [Angstrom]", "pixels", "masked", "S/N")]
    for order, (low, high), n, bad, ratio in zip(orders, np.sort(ends), n_pixels, n_masked, ratios, strict=True):
        rows.append((order.meta["order"], f"{low:.1f} to {high:.1f}", n, bad,
                     f"{np.median(ratio):.4g}" if ratio.size else ""))  # fmt: skip
    return f"{format_pairs(pairs)}\n{format_table(rows)}"


def _signal_to_noise(spectrum):
    """Of the pixels that are not masked, (n,); empty without uncertainties."""
    sigma, good = standard_deviation(spectrum), ~spectrum.mask
    return np.zeros(0) if sigma is None else spectrum.flux.value[good] / sigma[good]


def _count_lines(lines):
    components, counts = np.unique(np.asarray(lines["component"]), return_counts=True)
    return ", ".join(f"{n} {name}" for name, n in zip(components, counts, strict=True)) or "none"


def describe_info(info):
    """
    How a clone or a fit went.

    Parameters
    ----------
    info : dict
        The ``fit_info`` of a template or a fit.

    Returns
    -------
    str
    """
    return format_pairs(_info_pairs(info))


def _info_pairs(info):
    """What clones and fits have in common."""
    pairs = {"status": f"{info['status']} ({info['message']})" if info.get("message") else info["status"]}
    if "rms" in info:
        pairs["rms residual"] = f"{100 * info['rms']:.3g} % of the continuum"
    if info.get("dof"):
        pairs["chi2 / dof"] = f"{info['chi2']:.1f} / {info['dof']:.0f} = {info['chi2'] / info['dof']:.3f}"
    if info.get("continuum_parameters"):
        numbers = info["continuum_parameters"]
        span = f"{min(numbers):.1f}" + f" to {max(numbers):.1f}" * (len(numbers) > 1)
        pairs["continuum"] = f"{info['continuum']}, worth {span} parameters" + " an order" * (len(numbers) > 1)
    if "n_pixels" in info:
        pairs["pixels"] = f"{info['n_pixels']} used, {info.get('n_ignored', 0)} ignored"
    if "wall_time" in info:
        pairs["time"] = f"{info['wall_time']:.1f} s, {info.get('n_iterations', '?')} iterations"
    return pairs
