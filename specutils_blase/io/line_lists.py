"""Line lists in the native formats of VALD, MOOG and HITRAN, and what relative strengths they imply."""

import csv
import re
import warnings

import numpy as np
from astropy import constants
from astropy import units as u
from astropy.table import QTable

from specutils_blase.adapters import quantity_value, wavelength_values
from specutils_blase.errors import BlaseWarning, explain
from specutils_blase.io.native_text import (
    check_not_empty,
    check_positive,
    float_or_nan,
    read_lines,
    read_numbers,
    shown,
)
from specutils_blase.io.species import VALD_SPECIES, hitran_species, moog_species, vald_species

__all__ = ["read_hitran", "read_moog", "read_vald", "relative_strength"]

# Up to this wavelength [Angstrom] the lists that are otherwise in air give vacuum wavelengths.
VACUUM_UP_TO = 2000.0

# Columns of VALD by what their header says; the numbers of the others are checked and left out.
VALD_LABELS = {
    "species": r"(?:Elm|Spec) Ion|Species",
    "wavelength": r"WL(?:_(?P<medium>air|vac))?\((?P<unit>A|nm|cm\^-1)\)\+?",
    "log_gf": r"log ?(?:\(gf\)|gf)\*?",
    "excitation_potential": r"(?:Excit|E_low)\((?P<unit>eV|cm\^-1)\)",
    "upper energy": r"E_up\((?P<unit>eV|cm\^-1)\)",
    "lower J": "J lo",
    "upper J": "J up",
    "microturbulence": "Vmic",
    "lower Lande factor": "lower",
    "upper Lande factor": "upper",
    "mean Lande factor": "mean|factor",
    "log_gamma_rad": r"Rad\.?",
    "log_gamma_stark": "Stark",
    "log_gamma_vdw": "Waals",
    "central_depth": "depth",
    "reference": "References?",
}
VALD_UNITS = {"A": u.AA, "nm": u.nm, "cm^-1": u.cm**-1, "eV": u.eV}
# Notes, the list of references, and in stellar extracts the name of the model and the abundances.
VALD_FOOTER = re.compile(r"\s*(?:\*|References?\s*:|'[^',]*',?\s*$|'[A-Z][a-z]?\s*:)")
VALD_COUNT = re.compile(r"[^,]+,[^,]+,\s*(\d+)\s*,[^,]+,.*Wavelength region")

MOOG_FIELDS = ("wavelength", "species", "excitation_potential", "log_gf", "damping", "dissociation_energy",
               "equivalent_width")  # fmt: skip
# Energies above this are no eV: MOOG takes all of a list that has one for wavenumbers.
MOOG_HIGHEST_EV = 50.0
# Damping values of MOOG below the first are C6, from the second on factors; those between are broadening rates.
MOOG_DAMPING = (1e-15, 1e-4)

HITRAN_LENGTH = 160
HITRAN_ISOTOPOLOGUES = "1234567890ABCDEFGHIJKLMNOPQRSTUVWXYZ"  # one character for each
HITRAN_TEMPERATURE = 296.0  # [K]
HITRAN_FIELDS = {
    "wavenumber": (3, 15),
    "intensity": (15, 25),
    "einstein_a": (25, 35),
    "gamma_air": (35, 40),
    "gamma_self": (40, 45),
    "lower_energy": (45, 55),
    "temperature_exponent": (55, 59),
    "pressure_shift": (59, 67),
}
BAR_PER_ATM = 1.01325

DESCRIPTIONS = {
    "line_center": "vacuum wavelength",
    "species": "ion or molecule",
    "isotopologue": "mass numbers (VALD, MOOG) or the number of the isotopologue (HITRAN)",
    "log_gf": "log10 of the oscillator strength times the statistical weight of the lower level",
    "excitation_potential": "energy of the lower level",
    "log_gamma_rad": "log10 of the radiative damping constant [rad/s]",
    "log_gamma_stark": "log10 of the Stark damping constant per electron at 10000 K [rad/s cm3]",
    "log_gamma_vdw": "log10 of the van der Waals damping constant per hydrogen atom at 10000 K [rad/s cm3]",
    "abo_sigma": "cross section of collisions with hydrogen at 10 km/s, in squared Bohr radii",
    "abo_alpha": "the cross section falls with the velocity to this power",
    "log_c6": "log10 of the van der Waals interaction constant C6 [cm6/s]",
    "unsold_factor": "factor on the van der Waals C6 of Unsold's approximation",
    "central_depth": "depth of the line in the model spectrum of VALD",
    "dissociation_energy": "energy at which the molecule dissociates",
    "equivalent_width": "measured equivalent width",
    "intensity": "intensity at 296 K [cm/molecule], times the terrestrial abundance of the isotopologue",
    "einstein_a": "Einstein A coefficient",
    "gamma_air": "half width at half maximum per pressure of air at 296 K",
    "gamma_self": "half width at half maximum per pressure of the gas itself at 296 K",
    "lower_energy": "energy of the lower level",
    "temperature_exponent": "exponent of temperature of gamma_air",
    "pressure_shift": "shift per pressure of air at 296 K",
}


def read_vald(path, wavelength_medium=None):
    """
    Lines that were extracted from VALD.

    "Extract all", "extract element" and "extract stellar" are understood, each in the short and in the long format.
    Columns, units and the medium of the wavelengths are those that the header of the file names. The notes, model
    abundances and references that follow the lines are left out.

    Parameters
    ----------
    path : str or path-like
        Text file, which may be compressed as VALD sends it.
    wavelength_medium : {"air", "vacuum"}, optional
        What the wavelengths are; by default what the header says. Needed only for old files, whose header says "WL(A)".
        Wavelengths up to 2000 Angstrom are always in vacuum.

    Returns
    -------
    QTable
        By increasing ``line_center`` (vacuum): ``species``, ``isotopologue`` where the file names isotopes, ``log_gf``,
        ``excitation_potential``, ``log_gamma_rad``, ``log_gamma_stark``, ``log_gamma_vdw``, and ``central_depth`` of
        stellar extracts. Damping that VALD packs as a cross section and an exponent (Barklem, Anstee and O'Mara 1998,
        PASA 15, 336) is in ``abo_sigma`` and ``abo_alpha``. Where VALD has no damping the value is NaN; a
        column without any value is left out.

    Raises
    ------
    ValueError
        If the file is no VALD extract, or a line of it is damaged; the message names it.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from specutils_blase.io import read_vald
    >>> extract = '''Elm Ion       WL_air(A) Excit(eV) log gf*   Rad.  Stark    Waals  factor   References
    ... 'Na 1',      5895.92420,   0.0000, -0.194, 7.790,-5.640,407.273,  1.333,'NIST'
    ... 'Fe 1',      5883.81660,   3.9597, -1.260, 8.210,-5.220,-7.820,  1.000,'BKK'
    ... '''
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "iron_and_sodium.lin"
    ...     size = path.write_text(extract)
    ...     lines = read_vald(path)
    >>> lines["line_center"].info.format = lines["abo_alpha"].info.format = ".3f"
    >>> print(lines["line_center", "species", "log_gf", "log_gamma_vdw", "abo_sigma", "abo_alpha"])
    line_center species log_gf log_gamma_vdw abo_sigma abo_alpha
      Angstrom
    ----------- ------- ------ ------------- --------- ---------
       5885.447    Fe I  -1.26         -7.82       nan       nan
       5897.558    Na I -0.194           nan     407.0     0.273
    >>> lines.meta["source_medium"], lines.meta["wavelength_medium"]
    ('air', 'vacuum')
    """
    path, lines = read_lines(path)
    start, labels = _vald_header(path, lines)
    declared = {"air": "air", "vac": "vacuum"}.get(labels["wavelength"].get("medium"))
    if labels["wavelength"]["unit"] == "cm^-1":
        declared = "vacuum"
        if wavelength_medium == "air":
            remedy = "leave it out"
            raise ValueError(explain("wavelength_medium", 'be "vacuum" for a list of wavenumbers', "'air'", remedy))
    medium = _medium(wavelength_medium, declared, f"the header of {path} does not say in which medium the lines are")
    is_long = "lower J" in labels
    records = _vald_records(path, lines, start, labels, is_long)
    columns = dict(zip(labels, zip(*(fields for _, fields in records), strict=True), strict=True))
    numbers = {name: read_numbers(path, [n for n, _ in records], texts, name)
               for name, texts in columns.items() if name not in ("species", "reference")}  # fmt: skip
    species = [vald_species(text) for text in columns["species"]]
    energy = VALD_UNITS[labels["excitation_potential"]["unit"]]
    table = {
        "species": [name for name, _ in species],
        "isotopologue": [isotopes for _, isotopes in species],
        "log_gf": numbers["log_gf"],
        "excitation_potential": (numbers["excitation_potential"] * energy).to(u.eV, u.spectral()),
        **{name: _known(numbers[name]) for name in ("log_gamma_rad", "log_gamma_stark")},
        **_vald_vdw(numbers["log_gamma_vdw"]),
    }
    if "central_depth" in numbers:
        table["central_depth"] = numbers["central_depth"]
    wave = numbers["wavelength"] * VALD_UNITS[labels["wavelength"]["unit"]]
    check_positive(path, [n for n, _ in records], wave.value, "wavelength")
    return _line_table(wave, medium, table, path, f"VALD {'long' if is_long else 'short'}")


def read_moog(path, wavelength_medium=None, *, freeform=False):
    """
    Lines of a list for MOOG, for example one from linemake.

    The first line of the file is its title, unless it holds a line itself. The others have seven columns of ten
    characters: wavelength [Angstrom], species, excitation potential [eV], log gf, van der Waals damping, dissociation
    energy [eV] and equivalent width [milli-Angstrom]. The last three may be blank or zero, which means "not given";
    what follows them is a comment. As in MOOG,

    - a negative wavelength marks a component of the feature before it: its absolute value is taken;
    - if one excitation potential exceeds 50, all of them are wavenumbers [1/cm];
    - a negative damping is a logarithm; up to 1e-15 it means C6, up to 1e-4 a broadening rate, above it a factor on
      the C6 of Unsold's approximation.

    A negative equivalent width, with which MOOG passes over a line, is taken for "not given". Values of gf instead of
    log gf (``gfstyle 1``) are not understood.

    Parameters
    ----------
    path : str or path-like
        Text file.
    wavelength_medium : {"air", "vacuum"}, optional
        What the wavelengths above 2000 Angstrom are; the default is air, which is the convention. Shorter ones are
        always in vacuum.
    freeform : bool
        Whether columns are separated by blanks instead of ten characters wide, as for ``freeform 1`` in MOOG; values
        that are not given have to be zero there, or missing at the end.

    Returns
    -------
    QTable
        By increasing ``line_center`` (vacuum): ``species``, ``isotopologue`` where the species names isotopes,
        ``log_gf``, ``excitation_potential``, and, where given, ``log_gamma_vdw``, ``log_c6``, ``unsold_factor``,
        ``dissociation_energy`` and ``equivalent_width``, NaN in lines without them. The title is in ``meta``.

    Raises
    ------
    ValueError
        If a line of the file is damaged; the message names it.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from specutils_blase.io import read_moog
    >>> text = '''two lines of iron, one of CN
    ...  6301.4997      26.0    3.6537    -0.718    -7.540
    ...  6302.4932      26.0    3.6864    -0.973    -7.540                52.100
    ...  3883.4440 607.01214    0.5000    -1.300               7.760
    ... '''
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "lines.moog"
    ...     size = path.write_text(text)
    ...     lines = read_moog(path)
    >>> lines["line_center"].info.format = ".3f"
    >>> print(lines["line_center", "species", "isotopologue", "log_gf", "dissociation_energy"])
    line_center species isotopologue log_gf dissociation_energy
      Angstrom                                       eV
    ----------- ------- ------------ ------ -------------------
       3884.545      CN       12C14N   -1.3                7.76
       6303.242    Fe I              -0.718                 nan
       6304.236    Fe I              -0.973                 nan
    >>> print(lines["equivalent_width"].to("mAA"))
    [ nan  nan 52.1] mAngstrom
    >>> lines.meta["title"]
    'two lines of iron, one of CN'
    """
    path, lines = read_lines(path)
    medium = _medium(wavelength_medium, "air", "")
    title = "" if _looks_like_moog(lines[0], freeform) else lines[0].strip()
    rows = [(n, text) for n, text in enumerate(lines, 1) if text.strip() and not (n == 1 and title)]
    check_not_empty(path, rows, "with a line list for MOOG")
    where = [n for n, _ in rows]
    columns = dict(zip(MOOG_FIELDS, zip(*(_moog_fields(text, freeform) for _, text in rows), strict=True), strict=True))
    remedy = "correct it" if freeform else "columns are ten characters wide; give freeform=True for blanks between them"
    numbers = {name: read_numbers(path, where, texts, name, blank=None if k < 4 else 0.0, remedy=remedy)
               for k, (name, texts) in enumerate(columns.items()) if name != "species"}  # fmt: skip
    codes = {code.strip(): n for n, code in reversed(list(zip(where, columns["species"], strict=True)))}
    species = {code: moog_species(path, n, code) for code, n in codes.items()}
    energy = numbers["excitation_potential"]
    unit = u.cm**-1 if energy.max() > MOOG_HIGHEST_EV else u.eV
    wave = np.abs(numbers["wavelength"])
    check_positive(path, where, wave, "wavelength")
    table = {
        "species": [species[code.strip()][0] for code in columns["species"]],
        "isotopologue": [species[code.strip()][1] for code in columns["species"]],
        "log_gf": numbers["log_gf"],
        "excitation_potential": (energy * unit).to(u.eV, u.spectral()),
        **_moog_damping(numbers["damping"]),
        "dissociation_energy": _known(numbers["dissociation_energy"]) * u.eV,
        "equivalent_width": (_known(np.maximum(numbers["equivalent_width"], 0.0)) * u.mAA).to(u.AA),
    }
    return _line_table(wave * u.AA, medium, table, path, "MOOG", **({"title": title} if title else {}))


def read_hitran(path, isotopologue=None):
    r"""
    Lines of a HITRAN file (".par") in the format of 160 characters a line.

    The format is the one of HITRAN 2004 (Rothman et al. 2005, JQSRT 96, 139) and later.

    Parameters
    ----------
    path : str or path-like
        Text file, which may be compressed.
    isotopologue : int, optional
        Read only the lines of this isotopologue in HITRAN's own numbering, 1 for the most abundant one.

    Returns
    -------
    QTable
        By increasing ``line_center`` (vacuum; one over the wavenumber): ``species`` (the molecule), ``isotopologue``
        (its number), ``intensity`` in cm, per molecule, at 296 K and times the terrestrial abundance of the
        isotopologue, ``einstein_a``, ``gamma_air``, ``gamma_self``, ``lower_energy``, ``temperature_exponent`` and
        ``pressure_shift``. Values that are blank, and lower energies that HITRAN marks as unknown by -1, are NaN; a
        column without any value is left out. Pressures are in bar instead of HITRAN's atm, which is no astropy unit.

    Raises
    ------
    ValueError
        If a line of the file is damaged, or there are none of the isotopologue.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from specutils_blase.io import read_hitran
    >>> records = [" 51 2147.081134 9.473E-20 1.193E+01.07970.087    0.00000.76-.002800",  # carbon monoxide
    ...            " 52 2099.709900 1.030E-21 1.090E+01.07970.087    0.00000.76-.002800"]  # with carbon 13
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "co.par"
    ...     size = path.write_text("\n".join(f"{record:160}" for record in records))  # quantum numbers are not read
    ...     both, common = read_hitran(path), read_hitran(path, isotopologue=1)
    >>> both["line_center"].info.format = ".3f"
    >>> print(both["line_center", "species", "isotopologue", "intensity"])
    line_center species isotopologue intensity
      Angstrom                           cm
    ----------- ------- ------------ ---------
      46574.877      CO            1 9.473e-20
      47625.627      CO            2  1.03e-21
    >>> len(common)
    1
    """
    path, lines = read_lines(path)
    rows = [(n, text) for n, text in enumerate(lines, 1) if text.strip()]
    where, ids = [n for n, _ in rows], []
    for n, text in rows:
        if len(text) < HITRAN_LENGTH or text[HITRAN_LENGTH:].strip():
            got = f"{len(text.rstrip())}: {shown(text)}"
            remedy = "use the 160-character format of HITRAN 2004 and later, not the 100-character one or a custom one"
            raise ValueError(explain(f"{path}, line {n}", f"have {HITRAN_LENGTH} characters", got, remedy))
        if not re.fullmatch(r"[ \d][1-9][0-9A-Z]|[1-9]0[0-9A-Z]", text[:3]):
            expected = "begin with the numbers of the molecule (two characters) and the isotopologue (one)"
            raise ValueError(explain(f"{path}, line {n}", expected, repr(text[:3]), "correct or remove the line"))
        ids.append((int(text[:2]), HITRAN_ISOTOPOLOGUES.index(text[2]) + 1))
    numbers = {}
    for name, (first, last) in HITRAN_FIELDS.items():
        blank = None if name in ("wavenumber", "intensity") else np.nan
        numbers[name] = read_numbers(path, where, [text[first:last] for _, text in rows], name, blank=blank)
    for name in ("wavenumber", "intensity"):
        check_positive(path, where, numbers[name], name)
    molecule, number = np.array(ids).T
    lower = numbers["lower_energy"]
    per_pressure = 1 / (u.cm * u.bar)
    table = {
        "species": np.array([hitran_species(m) for m in molecule]),
        "isotopologue": number,
        "intensity": numbers["intensity"] * u.cm,
        "einstein_a": numbers["einstein_a"] / u.s,
        "gamma_air": numbers["gamma_air"] / BAR_PER_ATM * per_pressure,
        "gamma_self": numbers["gamma_self"] / BAR_PER_ATM * per_pressure,
        "lower_energy": np.where(lower < 0, np.nan, lower) / u.cm,
        "temperature_exponent": numbers["temperature_exponent"],
        "pressure_shift": numbers["pressure_shift"] / BAR_PER_ATM * per_pressure,
    }
    keep = np.full(number.shape, True) if isotopologue is None else number == isotopologue
    if not keep.any():
        expected = f"be an isotopologue in {path} ({', '.join(map(str, np.unique(number)))})"
        raise ValueError(explain("isotopologue", expected, repr(isotopologue), "choose one of them"))
    wave = (numbers["wavenumber"] / u.cm)[keep]
    return _line_table(wave, "vacuum", {k: v[keep] for k, v in table.items()}, path, "HITRAN 160-character")


def relative_strength(table, temperature):
    r"""
    Relative strengths of the lines of each species in thermal equilibrium, to start a fit from.

    The optical depth of a line integrated over wavelength is proportional to

    .. math::

        a \propto \lambda^2\, gf\, e^{-\chi / kT}\, \left(1 - e^{-hc / \lambda kT}\right)

    for the lines of one species (for example Gray 2005, *The Observation and Analysis of Stellar Photospheres*,
    chapter 11), and in HITRAN, where intensities :math:`S` hold at :math:`T_0` = 296 K, to

    .. math::

        a \propto \lambda^2\, S\, \frac{e^{-E''/kT}}{e^{-E''/kT_0}}\,
        \frac{1 - e^{-hc / \lambda kT}}{1 - e^{-hc / \lambda kT_0}}

    (Rothman et al. 1998, JQSRT 60, 665, equation A11, in wavelength). Abundances, ionization and column
    densities are not in them. Nor are the partition functions: their ratio is one factor for each isotopologue, so
    that isotopologues of one species are to be compared at 296 K only. For that reason the strongest line of each
    species is set to 1 milli-Angstrom.

    Parameters
    ----------
    table : QTable
        With ``line_center``, ``species`` and either ``log_gf`` and ``excitation_potential``, or ``intensity`` and
        ``lower_energy``; for example from `read_vald`, `read_moog` or `read_hitran`.
    temperature : Quantity [temperature]
        Excitation temperature.

    Returns
    -------
    Quantity, shape (n_lines,) [Angstrom]
        What may become the column ``strength`` of the table.

    Examples
    --------
    >>> from astropy import units as u
    >>> from astropy.table import QTable
    >>> from specutils_blase.io import relative_strength
    >>> lines = QTable({"line_center": [6303.242, 6304.236, 6304.500] * u.AA, "species": ["Fe I", "Fe I", "Ti I"],
    ...                 "log_gf": [-0.718, -0.973, -1.0], "excitation_potential": [3.6537, 3.6864, 0.8] * u.eV})
    >>> lines["strength"] = relative_strength(lines, 5000 * u.K)  # comparable within a species
    >>> print(lines["strength"].to("mAA").round(2))
    [1.   0.52 1.  ] mAngstrom
    """
    kelvin = quantity_value(temperature, u.K, "temperature", positive=True)
    log = log_strength(table, kelvin)
    # in logarithms, because at low temperatures the factors themselves are too small for a float
    _, group = np.unique(np.asarray(table["species"]), return_inverse=True)
    strongest = np.full(group.max(initial=-1) + 1, -np.inf)
    np.maximum.at(strongest, group, log)
    return 1e-3 * np.exp(log - strongest[group]) * u.AA


def log_strength(table, kelvin):
    """Natural logarithm of the formulae of `relative_strength` at a temperature [K], shape (n_lines,)."""
    names = {"line_center", "species"} | ({"log_gf", "excitation_potential"} if "log_gf" in table.colnames
                                          else {"intensity", "lower_energy"})  # fmt: skip
    if missing := sorted(names - set(table.colnames)):
        expected = "have line_center, species, and log_gf with excitation_potential or intensity with lower_energy"
        raise ValueError(explain("table", expected, f"none of {', '.join(missing)}", "read it with specutils_blase.io"))
    for name in sorted(names - {"species"}):
        bad = np.flatnonzero(~np.isfinite(np.asarray(table[name], dtype=np.float64)))
        if bad.size:
            got = f"{bad.size} without, the first in row {bad[0]}"
            raise ValueError(explain("table", f"have {name} in every row", got, "remove these rows"))
    wave, photon = table["line_center"], constants.h * constants.c / constants.k_B
    quantum = (photon / table["line_center"]).to_value(u.K)
    if "log_gf" in names:
        level = (table["excitation_potential"] / constants.k_B).to_value(u.K)
        log = np.log(10.0) * np.asarray(table["log_gf"]) - level / kelvin + np.log(-np.expm1(-quantum / kelvin))
    else:
        level = (photon * table["lower_energy"]).to_value(u.K)
        log = np.log(table["intensity"].to_value(u.cm)) - level * (1 / kelvin - 1 / HITRAN_TEMPERATURE)
        log += np.log(np.expm1(-quantum / kelvin) / np.expm1(-quantum / HITRAN_TEMPERATURE))
    return log + 2 * np.log(wave.to_value(u.AA))


def _medium(wanted, default, unknown):
    if wanted not in (None, "air", "vacuum"):
        remedy = "correct it, or leave it out for what the file says"
        raise ValueError(explain("wavelength_medium", 'be "air" or "vacuum"', repr(wanted), remedy))
    if wanted is None and default is None:
        raise ValueError(explain("wavelength_medium", "be given", "None", unknown))
    return wanted or default


def _known(values):
    """Zero means that there is no value."""
    return np.where(values == 0, np.nan, values)


def _line_table(wave, medium, columns, path, format, **meta):
    """The table of a list whose wavelengths or wavenumbers ``wave`` are in ``medium``."""
    center = wave.to_value(u.AA, u.spectral())
    air = (center > VACUUM_UP_TO) & (medium == "air")
    if air.any():
        center[air] = wavelength_values(center[air] * u.AA, wavelength_medium="air")
    meta = {"wavelength_medium": "vacuum", "source_medium": medium, "format": format, "source": path.name, **meta}
    table = QTable({"line_center": center * u.AA}, meta=meta)
    for name, values in columns.items():
        values = values if isinstance(values, u.Quantity) else np.asarray(values)
        is_given = values != "" if values.dtype.kind == "U" else np.isfinite(values)
        if is_given.any():
            table[name] = values
    for name in table.colnames:
        table[name].info.description = DESCRIPTIONS[name]
    return table[np.argsort(center, kind="stable")]


def _vald_header(path, lines):
    """Index of the line after the header, and what the columns are: name to the groups of its pattern, in order."""
    for index, text in enumerate(lines):
        if VALD_SPECIES.match(text):
            break
        if not re.match(rf"\s*(?:{VALD_LABELS['species']})\s", text):
            continue
        labels, rest = {}, text.strip()
        while rest:
            found = ((name, re.match(rf"(?:{pattern})(?=\s|$)", rest)) for name, pattern in VALD_LABELS.items())
            name, match = next((pair for pair in found if pair[1]), (None, None))
            if match is None or name in labels:
                remedy = "extract the list again, or correct the header"
                raise ValueError(explain(f"{path}, line {index + 1}", "name the columns of VALD", repr(rest), remedy))
            labels[name], rest = match.groupdict(), rest[match.end() :].lstrip()
        needed = ("wavelength", "log_gf", "excitation_potential", "log_gamma_rad", "log_gamma_stark", "log_gamma_vdw")
        if missing := [name for name in needed if name not in labels]:
            expected, remedy = f"name columns of {', '.join(needed)}", f"add {', '.join(missing)}"
            raise ValueError(explain(f"{path}, line {index + 1}", expected, shown(text.strip()), remedy))
        return index + 1, labels
    expected = 'have a header that begins with "Elm Ion" or "Spec Ion" before its first line'
    raise ValueError(explain(str(path), expected, f"none; it begins with {shown(lines[0])}",
                             "give a file that was extracted from VALD, whole"))  # fmt: skip


def _vald_records(path, lines, start, labels, is_long):
    """Number of the line and its fields, for every transition."""
    records, index = [], start
    while index < len(lines):
        text, place = lines[index], f"{path}, line {index + 1}"
        if VALD_SPECIES.match(text):
            fields = next(csv.reader([text.strip().removesuffix(",")], quotechar="'", skipinitialspace=True))
            if len(fields) != len(labels):
                expected = f"have {len(labels)} values, separated by commas, as the header says"
                raise ValueError(explain(place, expected, len(fields), "correct or remove the line"))
            records.append((index + 1, fields))
            levels = lines[index + 1 : index + 4] if is_long else []
            if is_long and (len(levels) < 3 or any(map(VALD_SPECIES.match, levels)) or levels[2].lstrip()[:1] != "'"):
                expected = "be followed by two lines of levels and a quoted one of references"
                raise ValueError(explain(place, expected, [shown(x) for x in levels], "extract the list again"))
            index += len(levels)
        elif VALD_FOOTER.match(text):
            break
        elif text.strip():
            expected = "hold a transition that begins with its species in quotes, like 'Fe 1'"
            raise ValueError(explain(place, expected, shown(text), "correct or remove the line"))
        index += 1
    for later in range(index, len(lines)):
        if VALD_SPECIES.match(lines[later]):
            expected, remedy = "hold no transition after the notes", "read joined files one by one"
            raise ValueError(explain(f"{path}, line {later + 1}", expected, shown(lines[later]), remedy))
    check_not_empty(path, records, "with transitions in it")
    count = next((int(match[1]) for text in lines[:start] if (match := VALD_COUNT.match(text))), len(records))
    if count != len(records):
        text = f"{path} says that {count} lines were selected and holds {len(records)}; it was cut or edited"
        warnings.warn(text, BlaseWarning, stacklevel=3)
    return records


def _vald_vdw(values):
    """Positive values are a cross section, before the decimal point, and an exponent, after it."""
    packed = values > 0
    sigma = np.floor(values)
    return {
        "log_gamma_vdw": np.where(values < 0, values, np.nan),
        "abo_sigma": np.where(packed, sigma, np.nan),
        "abo_alpha": np.where(packed, values - sigma, np.nan),
    }


def _moog_fields(text, freeform):
    fields = text.split()[:7] if freeform else [text[10 * k : 10 * k + 10] for k in range(7)]
    return fields + [""] * (7 - len(fields))


def _looks_like_moog(text, freeform):
    return bool(np.isfinite([float_or_nan(field) for field in _moog_fields(text, freeform)[:4]]).all())


def _moog_damping(values):
    low, high = MOOG_DAMPING
    size = np.where(values < 0, 10.0 ** np.minimum(values, 0.0), values)
    with np.errstate(divide="ignore"):
        log = np.log10(size)
    # a logarithm stays as it was written
    log = np.where(values < 0, values, log)
    return {
        "log_gamma_vdw": np.where((size >= low) & (size < high), log, np.nan),
        "log_c6": np.where((size > 0) & (size < low), log, np.nan),
        "unsold_factor": np.where(size >= high, size, np.nan),
    }
