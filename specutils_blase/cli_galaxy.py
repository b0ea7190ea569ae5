"""
The part of the command line that is about galaxies: ``specutils-blase galaxy train | reconstruct | lines``.

It is imported for ``--help`` too; everything heavy is imported by the command that needs it.
"""

__all__ = ["add_galaxy"]


def add_galaxy(commands, writing, reading):
    """
    Add the command ``galaxy``.

    Parameters
    ----------
    commands : argparse action
        What ``add_subparsers`` returned.
    writing, reading : argparse.ArgumentParser
        With the options that are common to commands that write files, and read spectra.
    """
    text = "what galaxies are made of"
    galaxy = commands.add_parser("galaxy", help=text, description=text.capitalize() + ".")
    galaxies = galaxy.add_subparsers(required=True, metavar="train | reconstruct | lines", dest="galaxy_command")
    _add_train(galaxies, [writing, reading])
    _add_reconstruct(galaxies, [writing, reading])
    text = "predict the emission lines of galaxies from their continua"
    lines = galaxies.add_parser("lines", help=text, description=text.capitalize() + ".", parents=[writing, reading])
    lines.add_argument("spectra", metavar="SPECTRUM", nargs="+", help="of a galaxy or of many, as observed")
    lines.add_argument("--predictor", required=True, metavar="ASDF", help="what EmissionLinePredictor.write wrote")
    _add_redshift(lines, "", required=True)
    lines.add_argument("-o", "--output", metavar="ECSV", help="write the table here")
    lines.set_defaults(run=_lines)


def _add_train(galaxies, parents):
    text = "learn galaxy spectra as rest-frame spectra of few latents"
    train = galaxies.add_parser("train", help=text, description=text.capitalize() + ".", parents=parents)
    train.add_argument("spectra", metavar="SPECTRUM", nargs="+", help="files of galaxies of one survey")
    _add_redshift(train, "", required=True)
    train.add_argument("-o", "--output", required=True, metavar="ASDF", help="the autoencoder")
    _add_lsf(train)
    train.add_argument("--latents", type=int, default=8, metavar="N", help="default: %(default)s")
    train.add_argument("--components", type=int, default=48, metavar="N", help="default: %(default)s")
    train.add_argument("--epochs", type=int, default=100, metavar="N", help="at most (default: %(default)s)")
    train.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
    train.add_argument("--checkpoint", metavar="FILE", help="from which an interrupted training goes on")
    train.set_defaults(run=_train)


def _add_reconstruct(galaxies, parents):
    text = "show galaxies as an autoencoder knows them: redshifts, latents, chi2"
    add = galaxies.add_parser("reconstruct", help=text, description=text.capitalize() + ".", parents=parents)
    add.add_argument("spectra", metavar="SPECTRUM", nargs="+", help="of a galaxy or of many, as observed")
    add.add_argument("--model", required=True, metavar="ASDF", help="what SpectrumAutoencoder.write wrote")
    _add_redshift(add, " (default: they are found)")
    _add_lsf(add)
    add.add_argument("-o", "--output", metavar="ECSV", help="write redshifts and latents here")
    add.add_argument("--spectra", metavar="ASDF", dest="made", help="write the reconstructed spectra here")
    add.add_argument("--figure", metavar="PNG", help="draw the spectra and their reconstructions")
    add.set_defaults(run=_reconstruct)


def _add_redshift(parser, default, **options):
    parser.add_argument("--redshift", metavar="Z[,Z...]", **options,
                        help=f"one for all galaxies, or for each, or a table with a column redshift{default}")


def _add_lsf(parser):
    parser.add_argument("--lsf", type=float, metavar="R",
                        help="resolving power (default: the resolution matrices in the files, or none)")  # fmt: skip


def _train(options):
    from specutils_blase import cli, report

    cli._check_outputs(options.overwrite, options.output)
    from specutils_blase.galaxy import train_autoencoder

    spectra = _read(options)
    autoencoder = train_autoencoder(
        spectra, _redshifts(options.redshift), lsf=options.lsf, n_latents=options.latents, epochs=options.epochs,
        n_components=options.components, seed=options.seed, checkpoint=options.checkpoint,
    )  # fmt: skip
    autoencoder.write(options.output, overwrite=options.overwrite)
    print(report.describe_autoencoder(autoencoder))
    cli._wrote(options.output)


def _reconstruct(options):
    import numpy as np
    from astropy.table import QTable

    from specutils_blase import cli, report

    cli._check_outputs(options.overwrite, options.output, options.made, plot=options.figure)
    from specutils_blase.galaxy import SpectrumAutoencoder
    from specutils_blase.io.files import write_asdf
    from specutils_blase.plotting import save_figure

    autoencoder = SpectrumAutoencoder.read(options.model)
    spectra = _read(options)
    if options.redshift is not None:
        redshift, found = _redshifts(options.redshift), None
    else:
        found = autoencoder.fit_redshift(spectra, lsf=options.lsf)
        redshift = np.atleast_1d(found.redshift)
    latents = autoencoder.encode(spectra, redshift, lsf=options.lsf)
    made = autoencoder.reconstruct(spectra, redshift, lsf=options.lsf)
    table = QTable({"galaxy": _names(options.spectra, len(latents)), "redshift": latents.redshift})
    if found is not None:
        table["redshift_err"], table["second"] = np.atleast_1d(found.uncertainty), np.atleast_1d(found.second)
    table["latents"], table["coverage"] = np.asarray(latents), latents.coverage
    table["log_probability"] = autoencoder.log_probability(latents)
    table["chi2_per_pixel"] = report.reconstruction_quality(made)
    if options.output:
        cli._write_lines(table, options.output)
    if options.made:
        write_asdf(options.made, {"reconstruction": list(made) if isinstance(made, list) else made}, options.overwrite)
    if options.figure:
        from specutils_blase.galaxy import plot_reconstructions

        save_figure(plot_reconstructions(spectra, made)[0].figure, options.figure, overwrite=options.overwrite)
    print(report.format_table(report.latent_rows(table)))
    cli._wrote(options.output, options.made, options.figure)


def _names(files, n):
    """Of n galaxies: that of the file, or of the one file and a number."""
    return files if len(files) == n else [f"{files[0]}, {k}" for k in range(n)]


def _read(options):
    """Galaxies of all files: tables of them, cameras of them, or a list with one for each file."""
    from specutils import SpectrumList

    from specutils_blase import cli

    # Who says how a file is to be read means no file of a survey, which says it itself.
    is_told = any(value is not None for value in (options.wavelength_unit, options.flux_unit, options.hdu,
                                                  options.columns))  # fmt: skip
    read = []
    for path in options.spectra:
        spectra = None if is_told else _of_survey(path, options.format, options.medium)
        read.append(SpectrumList([cli._read_with(options, path)]) if spectra is None else spectra)
    if len(read) == 1:
        return read[0][0] if len(read[0]) == 1 else read[0]
    if any(spectrum.flux.ndim != 1 for spectra in read for spectrum in spectra):
        raise ValueError("SPECTRUM must be one file of many galaxies, or files with one galaxy each, got several of "
                         "many; run the command for each")  # fmt: skip
    return SpectrumList([spectrum for spectra in read for spectrum in spectra])


def _of_survey(path, format, medium):
    """What the loaders of specutils make of a file of one or of many galaxies, or None."""
    from specutils import SpectrumList

    from specutils_blase.reading import UNREADABLE

    try:
        spectra = SpectrumList.read(path, **({} if format is None else {"format": format}))
    except (*UNREADABLE, RuntimeError):
        return None
    for spectrum in spectra if medium is not None else ():
        spectrum.meta["wavelength_medium"] = medium
    return spectra


def _redshifts(given):
    """A number, numbers, or the column of a table."""
    from pathlib import Path

    if Path(given).is_file():
        from astropy.table import Table

        table = Table.read(given)
        if "redshift" not in table.colnames:
            raise ValueError(f"--redshift must be a table with a column redshift, got the columns "
                             f"{', '.join(table.colnames)}; rename one")  # fmt: skip
        return table["redshift"]
    try:
        values = [float(value) for value in given.split(",")]
    except ValueError as error:
        raise ValueError(f"--redshift must be a number, numbers with commas between them, or a table, got {given}; "
                         "correct it") from error  # fmt: skip
    return values if len(values) > 1 else values[0]


def _lines(options):
    import numpy as np
    from astropy.table import QTable, hstack

    from specutils_blase import cli, report

    cli._check_outputs(options.overwrite, options.output)
    from specutils_blase.galaxy import EmissionLinePredictor

    predictor = EmissionLinePredictor.read(options.predictor)
    redshift = _redshifts(options.redshift)
    table = predictor.predict(_read(options), redshift)
    names = _names(options.spectra, len(table))
    table = hstack([QTable({"galaxy": names, "redshift": np.broadcast_to(redshift, len(table))}), table])
    if options.output:
        cli._write_lines(table, options.output)
    for row in table:
        print(f"{row['galaxy']}, redshift {row['redshift']:g}: equivalent widths in the rest frame [Angstrom]")
        print(report.format_table(report.predicted_rows(row, predictor.lines)))
    cli._wrote(options.output)
