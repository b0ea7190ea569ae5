"""A fit as one page of HTML that needs nothing but itself: no network, no script, no other file."""

import base64
import datetime
import platform
from html import escape
from importlib.metadata import version

import numpy as np
from astropy import units as u

from specutils_blase import __version__
from specutils_blase.drawing import lit_continuum, order_name, parameter
from specutils_blase.errors import explain
from specutils_blase.flags import AT_BOUND, BLENDED, OUTSIDE_WINDOW, PRIOR_DOMINATED
from specutils_blase.io.whole import as_path, free_path, written_whole
from specutils_blase.plotting import drawn_fit
from specutils_blase.quality import noise_of, order_parts, vacuum_wavelengths
from specutils_blase.report import fit_pairs, with_error
from specutils_blase.solvers.scene import relativistic_factor

__all__ = ["write_page"]

# Orders that have a figure of their own: those with the largest ratio of rms to noise.
ORDER_FIGURES = 4
# Rows of the lists of worst residuals, of lines with a flag, of new lines.
WORST, FLAGGED, NEW = 12, 6, 40
# A place with a residual of so many sigma goes on while pixels have the same sign and are beyond half of its peak,
# and the next one is as far away [pixels].
PLACE_PIXELS = 5
# Chi-square per degree of freedom above which the summary says what it means; multiple correlation of the veiling.
LARGE_CHI2, DEGENERATE = 1.5, 0.95
FLAGS = {"at_bound": (AT_BOUND, "a parameter ended at its limit"),
         "blended": (BLENDED, "the strength correlates by more than 0.7 with that of another line"),
         "prior_dominated": (PRIOR_DOMINATED, "the data improved the strength's prior variance by less than half"),
         "outside_window": (OUTSIDE_WINDOW, "no usable pixel lies within the line's width")}  # fmt: skip
# What metadata may call the object, and other entries worth a line.
OBJECT = ("object", "OBJECT", "target", "TARGNAME")
ENTRIES = ("file", "instrument", "INSTRUME", "TELESCOP", "DATE-OBS", "EXPTIME", "fiber", "frame",
           "barycentric_velocity")  # fmt: skip
PACKAGES = ("numpy", "scipy", "torch", "astropy", "specutils")
CITE = ("specutils_blase: CITATION.cff of the package",
        "Gully-Santiago & Morley 2022, The Astrophysical Journal 941, 200, doi:10.3847/1538-4357/aca0a2",
        'Shankar, Gully-Santiago & Morley 2024, "A New Hybrid Machine Learning Method for Stellar Parameter Inference"')
STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --back: #ffffff; --soft: #5b6470; --line: #d5dae0; --bad: #a8320a;
        --box: #f5f7f9; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e8ec; --back: #14181d; --soft: #a0a9b4; --line: #38414b; --bad: #ff9a6b; --box: #1d232a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 80rem; color: var(--text); background: var(--back);
       font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0.5rem 0; }
h2 { font-size: 1.2rem; margin: 2rem 0 0.6rem; border-bottom: 1px solid var(--line); }
p { margin: 0.4rem 0; }
.soft, figcaption { color: var(--soft); font-size: 0.9rem; }
.bad { color: var(--bad); font-weight: 600; }
.scroll { overflow-x: auto; }
.scroll:focus-visible { outline: 2px solid var(--soft); }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { padding: 0.2rem 0.9rem 0.2rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line);
         white-space: nowrap; }
td.long { white-space: normal; min-width: 18rem; }
th { font-weight: 600; }
dl { display: grid; grid-template-columns: minmax(7rem, max-content) 1fr; gap: 0.15rem 1.2rem; margin: 0.5rem 0; }
dt { color: var(--soft); }
dd { margin: 0; min-width: 0; }
figure { margin: 1rem 0; }
img { display: block; width: 100%; min-width: 44rem; background: #ffffff; border-radius: 4px; }
details { background: var(--box); padding: 0.4rem 0.8rem; border-radius: 4px; margin: 0.6rem 0; }
summary { cursor: pointer; }
"""


def write_page(fit, path, overwrite=False):
    """
    Write the report of a fit, all of it or nothing.

    Parameters
    ----------
    fit : SpectrumFit
    path : str or path-like
    overwrite : bool
        Whether an existing file is replaced.
    """
    free_path(path, overwrite)  # before the work
    if (suffix := as_path(path).suffix.lower()) not in ("", ".html", ".htm"):
        raise ValueError(explain("path", "end like the name of a page", repr(suffix), "end it in .html"))
    text = _page(fit)
    with written_whole(path, overwrite) as part:
        part.write_text(text, encoding="utf-8")


def _page(fit):
    parts = [(k, part) for k, part in order_parts(fit) if np.isfinite(part.residual.flux.value).any()]
    orders = fit.orders
    name = _entry(parts[0][1].observed.meta, OBJECT) or "Fit of a spectrum"
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    subtitle = f"Report of a fit by specutils_blase {__version__}, written {now}"
    sections = [("Summary", _summary(fit, parts, orders)), ("Parameters", _parameters(fit)),
                ("Figures", _figures(fit, parts, orders)), ("Orders", _orders(orders, parts)),
                ("Worst residuals", _residuals(fit, parts)), ("Flagged lines", _flagged(fit)),
                ("New lines", _new_lines(fit)), ("Provenance", _provenance(fit, parts)),
                ("How to cite", "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in CITE) + "</ul>")]  # fmt: skip
    body = "".join(f"<section><h2>{title}</h2>{content}</section>\n" for title, content in sections if content)
    # the policy forbids what the page does not need: scripts, and anything from elsewhere
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{escape(name)}</title>
<style>{STYLE}</style>
</head>
<body>
<header><h1>{escape(name)}</h1><p class="soft">{escape(subtitle)}</p></header>
<main>
{body}</main>
</body>
</html>
"""


# ------------------------------------------------------------------------------------------------------------ sections


def _summary(fit, parts, orders):
    low, high = orders["wavelength_min"].min(), orders["wavelength_max"].max()
    pairs = fit_pairs(fit)
    pairs["wavelengths"] = f"{low.to_value(u.AA):.2f} to {high.to_value(u.AA):.2f} Angstrom, vacuum"
    if len(parts) > 1:
        pairs["orders"] = f"{len(parts)} fitted, {len(order_parts(fit)) - len(parts)} skipped"
    ratios = [part.observed.flux.value / noise for _, part in parts if (noise := noise_of(part)) is not None]
    used = [np.isfinite(part.residual.flux.value) for _, part in parts]
    if ratios:
        values = np.concatenate([ratio[mine] for ratio, mine in zip(ratios, used, strict=True)])
        pairs["signal to noise"] = f"{np.median(values):.4g} (median)"
    for key, text in (("frame", "wavelengths are"), ("estimate", "values are"), ("device", "device")):
        if key in fit.fit_info:
            pairs[text] = {"mean": "the mean of the posterior", "mode": "the mode of the posterior"}.get(
                fit.fit_info[key], fit.fit_info[key])  # fmt: skip
    remarks = "".join(f"<li>{escape(text)}</li>" for text in _remarks(fit, orders))
    return _pairs(pairs) + (f'<p class="bad">Look at this:</p><ul>{remarks}</ul>' if remarks else "")


def _remarks(fit, orders):
    """What a reader must know before using the numbers."""
    info, meta = fit.fit_info, fit.parameters.meta
    if info.get("status") != "converged":
        yield f"the fit did not converge ({info.get('message', 'no reason is given')}): do not use its numbers"
    if info.get("dof") and info["chi2"] > LARGE_CHI2 * info["dof"]:
        yield (f"chi2 is {info['chi2'] / info['dof']:.3g} times the degrees of freedom: errors of the model are larger "
               "than those of the data, and the standard deviations too small")  # fmt: skip
    for name in meta.get("at_bound", ()):
        yield f"{name} ended at its limit and has no standard deviation"
    if meta.get("veiling_correlation", 0.0) > DEGENERATE:
        yield "veiling and the lines can hardly be told apart: both follow the prior"
    if lost := len(info.get("down_weighted", {}).get("pixel", ())):
        yield f"{lost} pixels were down-weighted as outliers"
    for row in orders:
        if row["remark"]:
            yield (f"order {row['order']}: " if len(orders) > 1 else "") + row["remark"]


def _parameters(fit):
    at_bound, shown, own = fit.parameters.meta.get("at_bound", ()), [], []
    for name, value, std, unit, fixed in fit.parameters.iterrows("name", "value", "std", "unit", "fixed"):
        remark = "fixed" if fixed else "at its limit" if name in at_bound else ""
        row = (name, with_error(value, 0.0 if fixed else std), unit, remark)
        (own if name.startswith("order_") else shown).append(row)
    heading = ("parameter", "value ± standard deviation", "unit", "")
    text = _table(heading, shown, fit.parameters.meta.get("errors", ""))
    if own:
        text += f"<details><summary>{len(own)} of single orders</summary>{_table(heading, own)}</details>"
    return text


def _figures(fit, parts, orders):
    text = _figure(drawn_fit(fit), "Data, model and residual" + (" of all orders" if len(parts) > 1 else ""))
    if len(order_parts(fit)) > 1:
        badness = np.where(np.isfinite(orders["ratio"]), orders["ratio"], orders["rms"])
        chosen = orders[np.argsort(-badness, kind="stable")[:ORDER_FIGURES]]
        fitted = dict(parts)
        for row in chosen:
            text += _figure(drawn_fit(fit, row["order"]), f"{order_name(fitted[row['order']], row).capitalize()}, "
                            "among those with the largest ratio of rms to noise")  # fmt: skip
    return text


def _orders(orders, parts):
    own, rows = dict(parts), []
    for row in orders:
        low, high = (row[f"wavelength_{end}"].to_value(u.AA) for end in ("min", "max"))
        rows.append((order_name(own[row["order"]], row), f"{low:.2f} to {high:.2f}", row["n_pixels"],
                     f"{100 * row['rms']:.3f}", _known(100 * row["noise"], 3), _known(row["ratio"], 2),
                     _known(row["chi2"], 2), _known(row["autocorrelation"], 2), row["remark"]))  # fmt: skip
    heading = ("order", "vacuum wavelengths [Å]", "pixels", "rms [%]", "noise [%]", "ratio", "chi2 per pixel",
               "autocorrelation", "remark")  # fmt: skip
    return _table(heading, rows, "Numbers relative to the continuum; ratio is rms over noise")


def _residuals(fit, parts):
    places = []
    for number, part in parts:
        noise = noise_of(part)
        if noise is not None:
            places += [(number, part, *place) for place in _places(part.residual.flux.value / noise)]
    if not places:
        return "<p>Noise is not known, so no residual stands out.</p>"
    places.sort(key=lambda place: -abs(place[4]))
    seen, rows = _seen_lines(fit), []
    for number, part, first, last, peak in places[:WORST]:
        wave = vacuum_wavelengths(part, fit.fit_info.get("wavelength_medium", "vacuum"))[[first, last]]
        share = (part.residual.flux.value / lit_continuum(part))[first : last + 1]
        level = f"{100 * share[np.nanargmax(np.abs(share))]:+.2f}" if np.isfinite(share).any() else ""
        ends = f"{wave.min():.3f}" + (f" to {wave.max():.3f}" if last > first else "")
        rows.append((ends, number, last + 1 - first, f"{peak:+.1f}", level,
                     _nearest(seen, wave.mean())))  # fmt: skip
    heading = ("vacuum wavelengths [Å]", "order", "pixels", "largest [σ]", "largest [%]", "nearest lines")
    return _table(heading, rows, "Where data minus model is largest in units of the noise; nearest lines with their "
                  "distance and depth")  # fmt: skip


def _places(scaled):
    """(first, last, peak) of the pixels with the largest residuals in units of noise (n_pix,), the largest first."""
    size, places = np.where(np.isfinite(scaled), np.abs(scaled), 0.0), []
    for _ in range(WORST):
        middle = int(np.argmax(size))
        if size[middle] == 0.0:
            break
        alike = np.sign(scaled) * np.sign(scaled[middle]) * np.abs(scaled) > 0.5 * abs(scaled[middle])  # NaN is not
        first = last = middle
        while first > 0 and alike[first - 1]:
            first -= 1
        while last < scaled.size - 1 and alike[last + 1]:
            last += 1
        places.append((first, last, float(scaled[middle])))
        size[max(first - PLACE_PIXELS, 0) : last + PLACE_PIXELS + 1] = 0.0
    return places


def _seen_lines(fit):
    """(wavelengths on the axis of the data, in vacuum [Angstrom], names, depths) of all lines of a fit."""
    lines, velocity = fit.lines, dict.fromkeys(("star", "telluric"), 0.0)
    if (found := parameter(fit, "radial_velocity")) is not None:
        velocity["star"] = found[0]
    if fit.fit_info.get("frame") == "barycentric" and (found := parameter(fit, "barycentric_velocity")) is not None:
        velocity["telluric"] = found[0]
    factor = np.array([float(relativistic_factor(velocity.get(name, 0.0))) for name in lines["component"]])
    return lines["line_center"].to_value(u.AA) * factor, np.asarray(lines["component"]), _depths(lines)


def _nearest(seen, wave):
    """The two lines that are nearest to a wavelength, as text."""
    center, component, depth = seen
    rows = np.argsort(np.abs(center - wave), kind="stable")[:2]
    return "; ".join(f"{component[k]} {center[k]:.3f} ({center[k] - wave:+.3f} Å, depth {depth[k]:.3f})" for k in rows)


def _flagged(fit):
    lines, text = fit.lines, ""
    if "flags" not in lines.colnames:
        return ""
    flags, depth = np.asarray(lines["flags"]), np.abs(_depths(lines))
    counts = [(name, np.count_nonzero(flags & bit), meaning) for name, (bit, meaning) in FLAGS.items()]
    text = _table(("flag", "lines", "meaning"), counts, f"Of {len(lines)} lines; a line may have several", long=2)
    for name, (bit, _) in FLAGS.items():
        mine = np.flatnonzero(flags & bit)
        if bit != OUTSIDE_WINDOW and mine.size:  # nothing is known of those
            worst = mine[np.argsort(-depth[mine], kind="stable")[:FLAGGED]]
            text += f"<details><summary>the deepest that are {name}</summary>{_lines(lines[worst])}</details>"
    return text


def _new_lines(fit):
    if "new" not in fit.lines.colnames or not len(fit.new_lines):
        return ""
    lines = fit.new_lines
    deepest = np.sort(np.argsort(-np.abs(_depths(lines)), kind="stable")[:NEW])
    more = f"The deepest {NEW} of {len(lines)}" if len(lines) > NEW else f"{len(lines)}"
    return f"<p>{more} lines that the templates did not have.</p>{_lines(lines[deepest])}"


def _lines(lines):
    rows = []
    for row in lines:
        width, error = (row[name].to_value(u.AA) * 1e3 for name in ("equivalent_width", "equivalent_width_err"))
        names = [name for name, (bit, _) in FLAGS.items() if row["flags"] & bit]
        depth = f"{u.Quantity(row['depth']).value:.3f}"
        rows.append((f"{row['line_center'].to_value(u.AA):.4f}", row["component"], depth, with_error(width, error),
                     ", ".join(names)))  # fmt: skip
    return _table(("rest wavelength, vacuum [Å]", "component", "depth", "equivalent width [mÅ]", "flags"), rows)


def _provenance(fit, parts):
    meta = parts[0][1].observed.meta
    spectrum = {name: _entry(meta, (name,)) for name in ENTRIES}
    spectrum = {name: text for name, text in spectrum.items() if text}
    spectrum["flux unit"] = str(parts[0][1].observed.flux.unit) or "dimensionless"
    spectrum["wavelengths"] = f"in {fit.fit_info.get('wavelength_medium', 'vacuum')}"
    text = f"<h3>Spectrum</h3>{_pairs(spectrum)}"
    tellurics = fit.telluric if isinstance(fit.telluric, list | tuple) else [fit.telluric]
    templates = [("Template of the star", fit.template), *(("Telluric template", item) for item in tellurics)]
    for title, item in templates:
        if item is not None:
            coverage = "{:.2f} to {:.2f} Angstrom".format(*item.meta["coverage"])
            entries = {"lines": len(item.lines), "form": item.model.form, **item.meta, "coverage": coverage}
            if "learned_from" in entries:
                entries["learned_from"] = f"{', '.join(entries['learned_from'])} (fingerprints of the fluxes)"
            text += f"<h3>{title}, as fitted</h3>{_pairs({key: _short(value) for key, value in entries.items()})}"
    if fit.origin is not None:
        given = {name: _short(value) for name, value in fit.origin.arguments.items()
                 if name not in ("observed", "template", "telluric", "progress") and value is not None}  # fmt: skip
        text += f"<details><summary>Arguments of fit_spectrum</summary>{_pairs(given)}</details>"
    packages = {"specutils_blase": __version__, "python": platform.python_version()}
    packages.update({name: version(name) for name in PACKAGES})
    return text + f"<h3>Versions that wrote this page</h3>{_pairs(packages)}"


# ---------------------------------------------------------------------------------------------------------------- HTML


def _table(heading, rows, caption="", long=None):
    """A table in a box that scrolls by itself; column `long` (by default the last of many) may have several lines."""
    long = len(heading) - 1 if long is None and len(heading) > 6 else long
    head = "".join(f'<th scope="col">{escape(str(cell))}</th>' for cell in heading)
    body = []
    for first, *others in rows:
        kinds = ['<td class="long">' if k == long else "<td>" for k in range(1, len(heading))]
        cells = "".join(f"{kind}{escape(str(cell))}</td>" for kind, cell in zip(kinds, others, strict=True))
        body.append(f'<tr><th scope="row">{escape(str(first))}</th>{cells}</tr>')
    caption = f'<p class="soft">{escape(caption)}</p>' if caption else ""  # a <caption> would scroll with the table
    return (f'{caption}<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead>'
            f"<tbody>{''.join(body)}</tbody></table></div>")  # fmt: skip


def _pairs(pairs):
    items = "".join(f"<dt>{escape(str(name))}</dt><dd>{escape(str(value))}</dd>" for name, value in pairs.items())
    return f"<dl>{items}</dl>"


def _figure(png, caption):
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return (f'<figure><div class="scroll" tabindex="0"><img src="{source}" alt="{escape(caption)}"></div>'
            f"<figcaption>{escape(caption)}</figcaption></figure>\n")  # fmt: skip


def _entry(meta, names):
    """The first of some entries of metadata or of the FITS header in them, as text; empty if there is none."""
    header = (meta or {}).get("header")
    for source in (meta or {}, header if hasattr(header, "get") else {}):
        for name in names:
            if source.get(name) is not None and str(source[name]).strip():
                return _short(source[name])
    return ""


def _short(value, most=300):
    """Something as text that is not too long."""
    text = str(value)
    return text if len(text) <= most else f"{text[:most]} ..."


def _known(value, digits):
    return f"{value:.{digits}f}" if np.isfinite(value) else ""


def _depths(lines):
    return u.Quantity(lines["depth"]).value
