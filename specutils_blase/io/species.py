"""Names of ions and molecules, and of their isotopologues, from the codes that line lists have for them."""

import re

from specutils_blase.errors import explain

__all__ = ["VALD_SPECIES", "hitran_species", "moog_code", "moog_species", "ion_stage", "vald_species"]

ELEMENTS = (
    "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr Nb "
    "Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au "
    "Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es"
).split()
# Formulae are written in this order, after the metals; where it is not the usual one, the whole formula is given.
LATE_IN_FORMULAE = ["B", "Si", "C", "P", "N", "S", "O", "H", "I", "Br", "Cl", "F"]
UNUSUAL_FORMULAE = {"OH2": "H2O", "CNH": "HCN"}
# By the number that HITRAN gives the molecule.
HITRAN_MOLECULES = (
    "H2O CO2 O3 N2O CO CH4 O2 NO SO2 NO2 NH3 HNO3 OH HF HCl HBr HI ClO OCS H2CO HOCl N2 HCN CH3Cl H2O2 C2H2 C2H6 PH3 "
    "COF2 SF6 H2S HCOOH HO2 O ClONO2 NO+ HOBr C2H4 CH3OH CH3Br CH3CN CF4 C4H2 HC3N H2 CS SO3 C2N2 COCl2 SO CH3F GeH4 "
    "CS2 CH3I NF3"
).split()
VALD_SPECIES = re.compile(r"\s*'\s*(?P<name>(?:(?:\(\d+\))?[A-Z][a-z]?\d*)+)\s+(?P<ion>[1-9]\d*)\s*'")


def vald_species(text):
    """Name and, if there are any, masses: "Fe I" and "" of "Fe 1"."""
    match = VALD_SPECIES.match(f"'{text}'")
    name, ion = re.sub(r"\(\d+\)", "", match["name"]), int(match["ion"])
    isotopes = re.sub(r"\((\d+)\)", r"\1", match["name"]) if "(" in match["name"] else ""
    return _species_name(name, ion - 1), isotopes


def _species_name(name, charge):
    if name not in ELEMENTS:
        return name + "+" * charge
    tens, units = divmod(charge + 1, 10)
    return f"{name} {'X' * tens}{['', 'I', 'II', 'III', 'IV', 'V', 'VI', 'VII', 'VIII', 'IX'][units]}"


def moog_species(path, number, code):
    """Name and, if there are any, masses: "CN" and "12C14N" of "607.01214", "Fe II" and "" of "26.1"."""
    place, remedy = f"{path}, line {number}", "write Fe II as 26.1, CN as 607.0 and its isotopologue as 607.01214"
    match = re.fullmatch(r"(\d+)(?:\.(\d?)(\d*))?", code)
    z = _atomic_numbers(match[1]) if match else []
    if not z or not all(0 < k <= len(ELEMENTS) for k in z):
        raise ValueError(explain(place, "have the code of a species", repr(code), remedy))
    digits, width = match[3] or "", 3 if len(z) == 1 else 2
    is_too_short = len(digits) == 1 and digits != "0"  # the Kurucz code 26.01 of Fe II, not a mass
    # a number that was written without the zeros at its end lacks some of the last mass
    digits = digits.rstrip("0") and digits.rstrip("0").ljust(width * len(z), "0")
    masses = [int(digits[k : k + width]) for k in range(0, len(digits), width)] or [0] * len(z)
    if is_too_short or len(masses) != len(z) or not all(map(_is_nucleus, z, masses)):
        raise ValueError(explain(place, "have mass numbers that fit the atomic numbers", repr(code), remedy))
    atoms = [(ELEMENTS[k - 1], mass) for k, mass in zip(z, masses, strict=True)]
    late = LATE_IN_FORMULAE
    atoms.sort(key=lambda atom: late.index(atom[0]) if atom[0] in late else -1)
    symbols = [symbol for symbol, _ in atoms]
    counts = {symbol: symbols.count(symbol) for symbol in symbols}
    formula = "".join(symbol + (str(n) if n > 1 else "") for symbol, n in counts.items())
    name = _species_name(UNUSUAL_FORMULAE.get(formula, formula), int(match[2] or 0))
    return name, "".join(f"{mass or ''}{symbol}" for symbol, mass in atoms) if any(masses) else ""


def ion_stage(name):
    """Element and number of the ion of an atom: ("Fe", 2) of "Fe II"; None of what is no atom."""
    symbol, _, numeral = name.partition(" ")
    match = re.fullmatch(r"(X*)(IX|IV|V?I{0,3})", numeral)
    if symbol not in ELEMENTS or not numeral or match is None:
        return None
    return symbol, 10 * len(match[1]) + ["", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX"].index(match[2])


def moog_code(name, isotopes=""):
    """Inverse of `moog_species` for atoms and for molecules of two atoms; None of what has no code."""
    atom = ion_stage(name)
    if atom is not None:
        symbols, charge = [atom[0]], atom[1] - 1
    else:
        symbols, charge = re.findall(r"[A-Z][a-z]?", name.rstrip("+")), name.count("+")
        symbols = symbols * 2 if name.rstrip("+") == f"{symbols[0] if symbols else ''}2" else symbols
        if len(symbols) != 2 or name.rstrip("+") not in ("".join(symbols), f"{symbols[0]}2"):
            return None
    found = re.findall(r"(\d*)([A-Z][a-z]?)", isotopes)
    if not set(symbols) <= set(ELEMENTS) or charge > 9 or (found and sorted(s for _, s in found) != sorted(symbols)):
        return None
    atoms = sorted((ELEMENTS.index(symbol) + 1, int(mass or 0)) for mass, symbol in found or [("", s) for s in symbols])
    number = str(atoms[0][0]) + "".join(f"{z:02d}" for z, _ in atoms[1:])
    masses = "".join(f"{mass:0{3 if len(atoms) == 1 else 2}d}" for _, mass in atoms)
    return f"{number}.{charge}{masses if any(mass for _, mass in atoms) else ''}"


def _is_nucleus(z, mass):
    """Whether there may be such a nucleus; the mass 0 stands for the natural mixture."""
    return mass == 0 or (1.7 * z if z > 2 else z) <= mass <= 3 * z + 1


def _atomic_numbers(digits):
    """Two digits for each atom of a molecule, counted from the right."""
    if len(digits) < 3:
        return [int(digits)]
    digits = digits.zfill(len(digits) + len(digits) % 2)
    return [int(digits[k : k + 2]) for k in range(0, len(digits), 2)]


def hitran_species(number):
    """The molecule of a HITRAN number; one that is newer than this list has no name."""
    return HITRAN_MOLECULES[number - 1] if number <= len(HITRAN_MOLECULES) else f"HITRAN {number}"
