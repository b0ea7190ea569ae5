"""
The part of the command line that is about galaxies: ``specutils-blase galaxy lines``.

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
    galaxies = galaxy.add_subparsers(required=True, metavar="lines", dest="galaxy_command")
    text = "predict the emission lines of galaxies from their continua"
    lines = galaxies.add_parser("lines", help=text, description=text.capitalize() + ".", parents=[writing, reading])
    lines.add_argument("spectra", metavar="SPECTRUM", nargs="+", help="of a galaxy, as observed")
    lines.add_argument("--predictor", required=True, metavar="ASDF", help="what EmissionLinePredictor.write wrote")
    lines.add_argument("--redshift", required=True, type=float, nargs="+", metavar="Z",
                       help="of all spectra, or one for each")  # fmt: skip
    lines.add_argument("-o", "--output", metavar="ECSV", help="write the table here")
    lines.set_defaults(run=_lines)


def _lines(options):
    from astropy.table import QTable, hstack

    from specutils_blase import cli, report

    cli._check_outputs(options.overwrite, options.output)
    if len(options.redshift) not in (1, len(options.spectra)):
        raise ValueError(f"--redshift must be one number, or one for each of {len(options.spectra)} spectra, got "
                         f"{len(options.redshift)}; give them in the order of the spectra")  # fmt: skip
    from specutils_blase.galaxy import EmissionLinePredictor

    predictor = EmissionLinePredictor.read(options.predictor)
    spectra = [cli._read_with(options, path) for path in options.spectra]
    redshift = options.redshift if len(options.redshift) > 1 else options.redshift * len(spectra)
    table = predictor.predict(spectra, redshift)
    table = hstack([QTable({"file": options.spectra, "redshift": redshift}), table])
    if options.output:
        cli._write_lines(table, options.output)
    for row in table:
        print(f"{row['file']}, redshift {row['redshift']:g}: equivalent widths in the rest frame [Angstrom]")
        print(report.format_table(report.predicted_rows(row, predictor.lines)))
    cli._wrote(options.output)
