"""
The command line: ``specutils-blase demo | clone | fit | galaxy | info``.

Everything heavy is imported by the command that needs it, so that ``--help`` is immediate.
"""

import argparse
import contextlib
import os
import sys
import time
import traceback
import warnings
from pathlib import Path

from specutils_blase.cli_galaxy import add_galaxy

__all__ = ["main"]

PROGRAM = "specutils-blase"
FREE = ("strength", "fwhm", "x_0")
WINDOW = "part to use, in the unit of the file"
DEMO_FILES = {"template": "template.asdf", "lines": "lines.ecsv", "fit": "fit.asdf", "figure": "fit.png"}


def main(argv=None):
    """
    Run one command.

    Parameters
    ----------
    argv : list of str, optional
        Arguments; those of the process by default.

    Returns
    -------
    int
        Exit code: 0, 2 after an error, 130 after Ctrl-C.
    """
    options = _parser().parse_args(argv)
    try:
        with _short_warnings():
            options.run(options)
            sys.stdout.flush()
    except BrokenPipeError:  # who reads what is printed has seen enough, as head does; the files are written
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        _complain("interrupted; every file is either complete or not written")
        return 130
    except Exception as error:
        _complain(f"error: {_one_line(error)}")
        if options.debug:
            traceback.print_exc()
            raise SystemExit(2) from error
        return 2
    return 0


# ------------------------------------------------------------------------------------------------------------ commands


def _demo(options):
    folder = Path(options.output).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    _check_outputs(options.overwrite, *(folder / name for name in DEMO_FILES.values()))
    started = time.perf_counter()
    from specutils_blase import demo, report

    print(f"A star and its sky, made up from seed {options.seed} and cloned:")
    star, sky = demo.clone_sources(options.seed)
    print(report.format_pairs(demo.describe_clones(star, sky)))
    results = []
    for draw in range(options.draws):
        results.append(demo.recover(star.template, sky.template, [options.seed, 3, draw]))
        if draw == 0:
            _write_demo(folder, star.template, results[0].fit)
            print("\nAn echelle order of such a star, fitted:")
            print(report.describe_info(results[0].fit.fit_info))
            print("\nWhat went into it, and what came out:")
            print(report.format_table(demo.parameter_rows(results[0])))
            print("\nEquivalent widths [mA] of the deepest lines that are not blended:")
            print(report.format_table(demo.line_rows(results[0])))
    converged = sum(result.fit.fit_info["status"] == "converged" for result in results)
    print(f"\nPulls, (recovered - injected) / error, of {options.draws} such fits ({converged} converged):")
    print(report.format_table(demo.pull_rows(results)))
    print(f"\n{time.perf_counter() - started:.0f} s")
    _wrote(*(folder / name for name in DEMO_FILES.values()))


def _write_demo(folder, template, fit):
    template.write(folder / DEMO_FILES["template"], overwrite=True)
    fit.write(folder / DEMO_FILES["fit"], overwrite=True)
    _write_lines(fit.lines, folder / DEMO_FILES["lines"])
    _draw(fit, folder / DEMO_FILES["figure"])


def _clone(options):
    from astropy import units as u

    from specutils_blase import report

    _check_outputs(options.overwrite, options.output, options.lines, plot=options.plot)
    from specutils_blase import clone_spectrum

    spectrum = _read_with(options, options.star)
    template = clone_spectrum(
        spectrum,
        prominence=options.prominence,
        teff=None if options.teff is None else options.teff * u.K,
        continuum_degree=options.continuum_degree,
        passes=options.passes,
        window=_window(options, spectrum),
    )
    template.write(options.output, overwrite=options.overwrite)
    if options.lines:
        _write_lines(template.lines, options.lines)
    if options.plot:
        _draw(template, options.plot)
    print(report.describe_template(template))
    print(report.deepest_lines(template.lines))
    _wrote(options.output, options.lines, options.plot)


def _fit(options):
    from astropy import units as u

    from specutils_blase import report

    _check_outputs(options.overwrite, options.output, options.lines, options.report, plot=options.plot)
    if options.template is None and not options.telluric:
        raise ValueError("TEMPLATE or --telluric must be given, got neither; make one with `specutils-blase clone`")
    from specutils_blase import LineTemplate, ResolvingPower, fit_spectrum

    speed = u.km / u.s
    telluric = [LineTemplate.read(path) for path in options.telluric or ()]
    template = None if options.template is None else LineTemplate.read(options.template)
    if options.free_lsf and options.lsf is None:
        raise ValueError("--lsf must be a number to be free, got none; give --lsf a number or drop --free-lsf")
    spectrum = _read_orders(options)
    fit = fit_spectrum(
        spectrum,
        template,
        telluric=telluric[0] if len(telluric) == 1 else telluric or None,
        lsf=ResolvingPower(options.lsf, free=True) if options.free_lsf else options.lsf,
        radial_velocity=None if options.rv is None else options.rv * speed,
        vsini=None if options.vsini is None else options.vsini * speed,
        limb_darkening=options.limb_darkening,
        continuum_degree=options.continuum_degree,
        free=options.free,
        window=_window(options, spectrum[0] if isinstance(spectrum, list) else spectrum),
        wavelength_degree=options.wavelength_degree,
        robust=options.robust,
        jitter=options.jitter,
        on_missing=options.on_missing,
        continuum="spline" if options.spline else "polynomial",
        barycentric_velocity=None if options.barycentric_velocity is None else options.barycentric_velocity * speed,
    )
    fit.write(options.output, overwrite=options.overwrite)
    if options.lines:
        _write_lines(fit.lines, options.lines)
    if options.plot:
        _draw(fit, options.plot)
    if options.report:
        _write_report(fit, options.report, options.overwrite)
    print(report.describe_fit(fit))
    print(report.deepest_lines(fit.lines))
    _wrote(options.output, options.lines, options.plot, options.report)


def _info(options):
    from specutils_blase import report

    path = Path(options.file).expanduser()
    if path.is_file() and path.read_bytes()[:5] == b"#ASDF":
        from specutils_blase.io.files import read_asdf

        content = read_asdf(path)
        kind, describe = {
            "LineTemplate": ("template", report.describe_template),
            "SpectrumFit": ("fit", report.describe_fit),
            "SpectrumAutoencoder": ("autoencoder of galaxies", report.describe_autoencoder),
            "EmissionLinePredictor": ("predictor of emission lines", report.describe_predictor),
        }[type(content).__name__]
        text = describe(content)
    elif path.is_file() and (lines := _read_lines(path)) is not None:
        kind, text = "line table", report.describe_lines(lines)
    elif path.suffix.lower() == ".pt":
        from specutils_blase.io import read_blase_state

        kind, text = "state of blase", report.describe_blase_state(read_blase_state(path))
    elif (orders := _read_echelle(options, path)) is not None:
        kind, text = f"file of {orders[0].meta['instrument']}", report.describe_echelle(orders)
    else:
        from specutils_blase.adapters import read_spectrum

        kind, text = "spectrum", report.describe_arrays(read_spectrum(_read_with(options, path), name="FILE"))
    print(f"{path}: {'an' if kind[0] in 'aeiou' else 'a'} {kind}\n{text}")


def _read_lines(path):
    """A line table that this package wrote, or None."""
    from astropy.table import QTable

    if path.suffix.lower() != ".ecsv":
        return None
    table = QTable.read(path)
    return table if {"line_center", "depth", "equivalent_width", "component"} <= set(table.colnames) else None


def _window(options, spectrum):
    if options.window is None:
        return None
    return tuple(bound * spectrum.spectral_axis.unit for bound in options.window)


def _read_echelle(options, path):
    """All orders of a file of an echelle spectrograph, None of another file or if the user says how to read it."""
    from specutils_blase.io.echelle import reader_of

    given = (options.format, options.hdu, options.columns)
    reader = reader_of(path) if given == (None,) * len(given) else None
    return None if reader is None else reader(path)


def _read_orders(options):
    """One spectrum, or the orders that are wanted of a file of an echelle spectrograph."""
    orders = _read_echelle(options, options.order)
    if orders is None:
        if options.orders is not None:
            raise ValueError(f"--orders must be left out for {options.order}, no file of HPF or IGRINS; remove it")
        return _read_with(options, options.order)
    numbers = [order.meta["order"] for order in orders]
    if missing := sorted(set(options.orders or ()) - set(numbers)):
        raise ValueError(f"--orders must be among {numbers[0]} to {numbers[-1]}, got {missing[0]}; correct it")
    return [order for order in orders if options.orders is None or order.meta["order"] in options.orders]


def _read_with(options, path):
    from specutils_blase.reading import read_input

    return read_input(
        path,
        wavelength_unit=options.wavelength_unit,
        flux_unit=options.flux_unit,
        medium=options.medium,
        format=options.format,
        hdu=options.hdu,
        columns=options.columns,
    )


# -------------------------------------------------------------------------------------------------------------- output


def _check_outputs(overwrite, *paths, plot=None):
    """Refuse, before any work, outputs that could not be written."""
    from specutils_blase.io.whole import free_path

    for path in (*paths, plot):
        if path is not None:
            free_path(path, overwrite, "output", remedy="give --overwrite or another name")
    if plot is not None:
        from matplotlib.backend_bases import FigureCanvasBase

        known = FigureCanvasBase.get_supported_filetypes()
        if Path(plot).suffix[1:].lower() not in known:
            known = ", ".join(sorted(known))
            raise ValueError(f"a picture must end in one of {known}, got {plot}; .png is a good choice")


def _write_lines(lines, path):
    """Write a line table as ECSV, all of it or nothing."""
    from specutils_blase.io.whole import written_whole

    with written_whole(path, overwrite=True) as part:  # that it may be was checked before any work
        lines.write(part, format="ascii.ecsv", serialize_method="data_mask")


def _write_report(fit, path, overwrite):
    """Write the page of a fit."""
    import matplotlib

    matplotlib.use("agg")  # its figures need no display
    fit.report(path, overwrite)


def _draw(result, path):
    """Plot a template or a fit into a file."""
    import matplotlib
    from matplotlib import pyplot as plt
    from numpy import ravel

    from specutils_blase.plotting import save_figure

    matplotlib.use("agg")  # a file needs no display
    figure = ravel(result.plot())[0].figure
    save_figure(figure, Path(path).expanduser(), overwrite=True)  # whether it may was checked before the work
    plt.close(figure)


def _wrote(*paths):
    for path in (Path(path) for path in paths if path is not None):
        print(f"wrote {path} ({path.expanduser().stat().st_size / 1e3:.0f} kB)")


def _complain(text):
    sys.stdout.flush()
    print(f"{PROGRAM}: {text}", file=sys.stderr)


def _one_line(error):
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror and error.filename:
        text = f"{error.filename}: {error.strerror}"
    return text or type(error).__name__


@contextlib.contextmanager
def _short_warnings():
    """Warnings as one line each."""
    # its logger takes the display of warnings over when it is imported, which must be before ours
    import astropy  # noqa: F401

    from specutils_blase.errors import BlaseWarning

    with warnings.catch_warnings():
        warnings.filterwarnings("default", category=BlaseWarning)
        warnings.showwarning = lambda message, *rest, **named: _complain(f"warning: {_one_line(message)}")
        yield


# ------------------------------------------------------------------------------------------------------------- options


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message):
        self.exit(2, f"{PROGRAM}: error: {message}; see `{self.prog} --help`\n")


class _Version(argparse.Action):
    """Looks the version up only if it is asked for."""

    def __call__(self, parser, *args):
        from specutils_blase import __version__

        print(f"{PROGRAM} {__version__}")
        parser.exit()


def _parser():
    parser = _Parser(prog=PROGRAM, description="Spectra as ledgers of Voigt lines.")
    commands = parser.add_subparsers(required=True, metavar="demo | clone | fit | galaxy | info", dest="command")
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show where an error comes from")
    writing = argparse.ArgumentParser(add_help=False, parents=[common])
    writing.add_argument("--overwrite", action="store_true", help="replace files that exist")
    reading = _reading_options()
    _add_demo(commands, writing)
    _add_clone(commands, [writing, reading])
    _add_fit(commands, [writing, reading])
    add_galaxy(commands, writing, reading)
    text = "say what a file holds"
    info = commands.add_parser("info", help=text, description=text.capitalize() + ".", parents=[common, reading])
    text = "a template, a fit, a predictor, a spectrum, a file of HPF or IGRINS, or a state of blase"
    info.add_argument("file", metavar="FILE", help=text)
    info.set_defaults(run=_info)
    return parser


def _reading_options():
    reading = argparse.ArgumentParser(add_help=False)
    group = reading.add_argument_group("how to read the spectrum, when its file does not say")
    group.add_argument("--wavelength-unit", metavar="UNIT", help="e.g. Angstrom, nm, um, GHz")
    group.add_argument("--flux-unit", metavar="UNIT", help="e.g. 'erg / (s cm2 AA)' (default: dimensionless)")
    group.add_argument("--medium", choices=("vacuum", "air"), help="of the wavelengths (default: vacuum)")
    group.add_argument("--format", metavar="NAME", help="of specutils or of astropy tables")
    group.add_argument("--hdu", metavar="N", help="number or name of the HDU of a FITS file")
    group.add_argument("--columns", nargs="+", metavar="NAME", help="names of wavelength, flux and uncertainty column")
    return reading


def _add_demo(commands, writing):
    text = "simulate a star, a sky and an echelle order, clone, fit, compare with the truth"
    demo = commands.add_parser("demo", help=text, description=text.capitalize() + ".", parents=[writing])
    demo.add_argument("--output", metavar="DIR", default="specutils-blase-demo", help="default: %(default)s")
    demo.add_argument("--seed", type=_count(0), default=4, help="default: %(default)s")
    demo.add_argument("--draws", type=_count(1), default=1, help="how many orders to simulate and fit")
    demo.set_defaults(run=_demo)


def _add_clone(commands, parents):
    text = "turn a synthetic spectrum into a template of lines"
    clone = commands.add_parser("clone", help=text, description=text.capitalize() + ".", parents=parents)
    clone.add_argument("star", metavar="STAR", help="a noise-free spectrum of a star, or a transmission")
    clone.add_argument("-o", "--output", required=True, metavar="ASDF", help="the template")
    clone.add_argument("--teff", type=float, metavar="K", help="temperature of a blackbody continuum (default: none)")
    clone.add_argument(
        "--prominence", type=float, default=0.01, metavar="P", help="of the faintest line (default: 0.01)"
    )
    clone.add_argument("--continuum-degree", type=_count(0), default=5, metavar="N", help="default: 5")
    clone.add_argument("--passes", type=_count(1), default=4, metavar="N", help="default: 4")
    clone.add_argument("--window", type=float, nargs=2, metavar=("LO", "HI"), help=WINDOW)
    clone.add_argument("--lines", metavar="ECSV", help="write the line table here, too")
    clone.add_argument("--plot", metavar="PNG", help="draw the template")
    clone.set_defaults(run=_clone)


def _add_fit(commands, parents):
    text = "fit templates to an observed order, or to all those of a file of HPF or IGRINS"
    fit = commands.add_parser("fit", help=text, description=f"F{text[1:]}.", parents=parents)
    fit.add_argument("order", metavar="ORDER", help="the observed spectrum")
    fit.add_argument("template", metavar="TEMPLATE", nargs="?", help="of the star; none: tellurics alone")
    fit.add_argument("-o", "--output", required=True, metavar="ASDF", help="the fit")
    fit.add_argument("--telluric", action="append", metavar="T", help="template of the sky; once per species")
    fit.add_argument("--lsf", type=_resolving_power, default=55_000.0, metavar="R", help="or none (default: 55000)")
    fit.add_argument("--free-lsf", action="store_true", help="fit the resolving power")
    fit.add_argument("--rv", type=float, metavar="KM/S", help="where to start (default: cross-correlation)")
    fit.add_argument("--vsini", type=float, metavar="KM/S", help="where to start (default: a scan)")
    fit.add_argument("--barycentric-velocity", type=float, metavar="KM/S",
                     help="that barycentric wavelengths were corrected by, for tellurics (default: that of the file)")
    fit.add_argument("--limb-darkening", type=float, default=0.6, metavar="E", help="linear (default: 0.6)")
    fit.add_argument("--free", type=_names, default=("strength",), metavar="NAMES",
                     help=f"of every line: {','.join(FREE)}, some of them or none (default: strength)")  # fmt: skip
    fit.add_argument("--continuum-degree", type=_count(0), default=3, metavar="N", help="default: 3")
    fit.add_argument("--spline", action="store_true", help="a spline continuum, as smooth as the data say")
    fit.add_argument("--wavelength-degree", type=_count(0), metavar="N", help="correct the wavelengths of each order")
    fit.add_argument("--robust", action="store_true", help="let cosmic rays and hot pixels pull with bounded force")
    fit.add_argument("--jitter", action="store_true", help="find an error of the model for every order")
    fit.add_argument("--on-missing", choices=("skip", "raise", "telluric"),
                     help="pixels that a template does not cover (default: skip, of one order raise)")  # fmt: skip
    fit.add_argument("--orders", type=_numbers, metavar="K", help="which of a file of HPF or IGRINS, as 0-6,9")
    fit.add_argument("--window", type=float, nargs=2, metavar=("LO", "HI"), help=WINDOW)
    fit.add_argument("--lines", metavar="ECSV", help="write the line table here, too")
    fit.add_argument("--plot", metavar="PNG", help="draw the fit")
    fit.add_argument("--report", metavar="HTML", help="write a page about the fit, to read in a browser")
    fit.set_defaults(run=_fit)


def _numbers(text):
    """The numbers in a text like 0-6,9."""
    with contextlib.suppress(ValueError):
        pairs = [[int(number) for number in part.split("-")] for part in text.split(",")]
        if all(len(pair) in (1, 2) and 0 <= pair[0] <= pair[-1] for pair in pairs):
            return sorted({number for pair in pairs for number in range(pair[0], pair[-1] + 1)})
    raise argparse.ArgumentTypeError(f"must be numbers and ranges like 0-6,9, got {text!r}")


def _resolving_power(text):
    with contextlib.suppress(ValueError):
        value = None if text == "none" else float(text)
        if value is None or 0 < value < float("inf"):
            return value
    raise argparse.ArgumentTypeError(f"must be a resolving power, a positive number like 55000, or none, got {text!r}")


def _names(text):
    names = () if text == "none" else tuple(text.split(","))
    if unknown := [name for name in names if name not in FREE]:
        raise argparse.ArgumentTypeError(f"must be names among {', '.join(FREE)} joined by commas, or none, got "
                                         f"{unknown[0]!r}")  # fmt: skip
    return names


def _count(smallest):
    """A converter to whole numbers that are not below `smallest`."""

    def convert(text):
        value = int(text)
        if value < smallest:
            raise ValueError(text)
        return value

    convert.__name__ = f"whole number >= {smallest}"
    return convert


if __name__ == "__main__":
    raise SystemExit(main())
