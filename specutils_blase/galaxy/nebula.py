"""The emission lines of simulated galaxies: how wide and how strong they are."""

import numpy as np

from specutils_blase.functional.constants import SPEED_OF_LIGHT

from .stars import stream

__all__ = ["COMPONENTS", "NAMES", "continuum_at", "draw_gas", "equivalent_widths"]

# Name, wavelength in vacuum [Angstrom] (as fastspecfit lists them: NIST, Chianti), share of the flux under that name.
COMPONENTS = (
    ("OII_DOUBLET", 3727.10, 0.426), ("OII_DOUBLET", 3729.86, 0.574),  # a ratio of 1.35, of thin gas
    ("NEIII_3869", 3869.86, 1.0), ("H6", 3890.166, 1.0), ("HEPSILON", 3971.198, 1.0), ("HDELTA", 4102.892, 1.0),
    ("HGAMMA", 4341.692, 1.0), ("OIII_4363", 4364.436, 1.0), ("HEI_4471", 4472.735, 1.0), ("HBETA", 4862.71, 1.0),
    ("OIII_4959", 4960.295, 1.0), ("OIII_5007", 5008.240, 1.0), ("HEI_5876", 5877.249, 1.0), ("OI_6300", 6302.046, 1.0),
    ("NII_6548", 6549.861, 1.0), ("HALPHA", 6564.60, 1.0), ("NII_6584", 6585.273, 1.0), ("SII_6716", 6718.294, 1.0),
    ("SII_6731", 6732.674, 1.0), ("ARIII_7135", 7137.77, 1.0), ("SIII_9069", 9071.1, 1.0), ("SIII_9532", 9533.2, 1.0),
)  # fmt: skip
NAMES = tuple(dict.fromkeys(name for name, _, _ in COMPONENTS))
WAVE = np.array([np.mean([wave for other, wave, _ in COMPONENTS if other == name]) for name in NAMES])
# Case B at 10,000 K, relative to H beta (Osterbrock & Ferland 2006, table 4.4), and helium of an abundance of 0.1.
CASE_B = {"HALPHA": 2.86, "HBETA": 1.0, "HGAMMA": 0.468, "HDELTA": 0.259, "HEPSILON": 0.159, "H6": 0.105,
          "HEI_4471": 0.048, "HEI_5876": 0.13}  # fmt: skip
# Ratios of transitions from one level (Storey & Zeippen 2000, MNRAS 312, 813; [S III]: atomic data in PyNeb).
OIII_RATIO, NII_RATIO, SIII_RATIO = 2.98, 2.96, 2.47
SII_RATIO = 1.35
# Luminosity in H alpha per rate of star formation [L_sun / (M_sun / yr)], 10**41.27 erg/s (Murphy et al. 2011).
HALPHA_PER_RATE = 10**41.27 / 3.828e33
# Part of the ionising light that gas takes: dust between stars and gas takes the rest (Inoue 2001, AJ 122, 1788).
IN_GAS = 0.75
# log10 of [O III] 5007 / H beta, [N II] 6584 / H alpha, [O II] / H beta, [S II] (both) / H alpha, [O I] 6300 / H alpha,
# of gas that old stars ionise and of a Seyfert nucleus: their places in the diagrams of Kewley et al. (2006).
LINER = {"R3": 0.25, "N2": -0.02, "R2": 0.65, "S2": 0.0, "O1": -0.75}
SEYFERT = {"R3": 0.90, "N2": -0.10, "R2": 0.45, "S2": -0.30, "O1": -1.0}
# The same of regions with young stars as polynomials in 12 + log(O/H) - 8.69 (Curti et al. 2020, MNRAS 491, 944).
CURTI = {"R3": (-0.277, -3.549, -3.593, -0.981), "N2": (-0.489, 1.513, -2.554, -5.293, -2.867),
         "R2": (0.435, -1.362, -5.655, -4.851, -0.478, 0.736),
         "S2": (-0.442, -0.360, -6.271, -8.339, -3.559)}  # fmt: skip
# How much they change with the ionisation, in dex per dex of [O III] / H beta.
WITH_IONISATION = {"R3": 1.0, "N2": -0.3, "R2": -0.3, "S2": -0.5, "O1": -0.5}
# Where the continuum of a line is taken, to either side [km/s].
NEAR, FAR = 1500.0, 4000.0


def continuum_at(wave):
    """Matrix that takes spectra on ``wave`` (n_wave,) to their means to either side of lines, (n_wave, n_lines)."""
    velocity = np.abs(np.log(wave[:, None] / WAVE)) * SPEED_OF_LIGHT
    beside = ((velocity > NEAR) & (velocity < FAR)).astype(float)
    return beside / np.maximum(beside.sum(axis=0), 1.0)


def draw_gas(seed, history):
    """
    What the gas of galaxies is that have the given histories.

    Scatter and small shifts of the ratios are such that widths are distributed as those of bright galaxies of DESI.

    Returns
    -------
    dict of ndarray, shape (n,)
    """
    n = len(history["log_mass"])
    normal = {name: stream(seed, name).standard_normal(n) for name in (
        "abundance", "ionisation", "n2", "s2", "o2", "old", "seyfert", "gas_dispersion")}  # fmt: skip
    above = history["log_mass"] - 10.02
    # Mass and metallicity: Curti et al. (2020), eq. 2.
    abundance = 8.793 - 0.28 / 1.2 * np.log10(1.0 + 10 ** (-1.2 * above)) + 0.07 * normal["abundance"] - 0.05
    seyfert = (stream(seed, "is_seyfert").random(n) < 0.08) & (history["log_mass"] > 10.0)
    gas = {"oxygen_abundance": np.clip(abundance, 7.8, 8.85)}
    gas |= {"ionisation": 0.2 * normal["ionisation"] - 0.06, "n2": 0.1 * normal["n2"]}
    gas |= {"s2": 0.1 * normal["s2"] - 0.04, "o2": 0.15 * normal["o2"] - 0.04}
    # Equivalent widths of H alpha in the light of old stars (Cid Fernandes et al. 2011, MNRAS 413, 1687) [Angstrom].
    gas["old_width"] = 10 ** (-0.25 + 0.35 * normal["old"])
    gas["seyfert_width"] = np.where(seyfert, 10 ** (0.8 + 0.4 * normal["seyfert"]), 0.0)
    ratio = np.where(history["passive"], 0.0, -0.12) + 0.1 * seyfert + 0.1 * normal["gas_dispersion"]
    gas["gas_dispersion"] = np.clip(history["velocity_dispersion"] * 10**ratio, 30.0, 500.0)
    return gas


def equivalent_widths(history, gas, continuum, dust, rows=slice(None)):
    """
    Rest-frame equivalent widths of all lines.

    Parameters
    ----------
    history, gas : dict
        As `draw_histories` and `draw_gas` return them.
    continuum : ndarray, shape (n, n_lines) [L_sun / (M_sun Angstrom)]
        Starlight beside the lines, behind dust.
    dust : ndarray, shape (n_lines,)
        Extinction A / A(V) of the lines.
    rows : slice
        The galaxies of the continuum.

    Returns
    -------
    ndarray, shape (n, n_lines) [Angstrom]
        Positive.
    """
    history, gas = ({key: value[rows] for key, value in table.items()} for table in (history, gas))
    shift, alpha, oiii = gas["ionisation"], NAMES.index("HALPHA"), NAMES.index("OIII_5007")
    x = gas["oxygen_abundance"] - 8.69
    young = {key: np.polynomial.polynomial.polyval(x, values) for key, values in CURTI.items()}
    young["O1"] = young["S2"] - 0.85
    behind = 10 ** (-0.4 * history["a_v_gas"][:, None] * dust)
    # Fluxes of H alpha of the three sources of ionising light, the latter two so that they have their width.
    from_young = IN_GAS * HALPHA_PER_RATE * history["specific_rate"]
    from_old = gas["old_width"] * continuum[:, alpha] / behind[:, alpha]
    seyfert = _spectrum(SEYFERT, shift, gas)
    nucleus = gas["seyfert_width"] * continuum[:, oiii] / behind[:, oiii] / seyfert[:, oiii]
    flux = _spectrum(young, shift, gas) * (from_young / CASE_B["HALPHA"])[:, None]
    flux += _spectrum(LINER, 0.6 * shift, gas) * (from_old / CASE_B["HALPHA"])[:, None] + seyfert * nucleus[:, None]
    return flux * behind / continuum


def _spectrum(ratios, shift, gas):
    """Fluxes of all lines relative to H beta without dust, (n, n_lines)."""
    own = {"N2": gas["n2"], "S2": gas["s2"], "O1": gas["s2"], "R2": gas["o2"]}
    r3, n2, r2, s2, o1 = (10 ** (ratios[key] + WITH_IONISATION[key] * shift + own.get(key, 0.0))
                          for key in ("R3", "N2", "R2", "S2", "O1"))  # fmt: skip
    alpha = CASE_B["HALPHA"]
    sulphur = 0.25 * np.sqrt(r3)  # [S III] follows the ionisation more weakly than [O III]
    lines = {name: np.full(len(r3), value) for name, value in CASE_B.items()}
    lines |= {"OIII_5007": r3, "OIII_4959": r3 / OIII_RATIO, "OIII_4363": 0.006 * r3, "NEIII_3869": 0.08 * r3}
    lines |= {"NII_6584": alpha * n2, "NII_6548": alpha * n2 / NII_RATIO, "OII_DOUBLET": r2, "OI_6300": alpha * o1}
    lines |= {"SII_6716": alpha * s2 * SII_RATIO / (1 + SII_RATIO), "SII_6731": alpha * s2 / (1 + SII_RATIO)}
    lines |= {"SIII_9069": sulphur, "SIII_9532": SIII_RATIO * sulphur, "ARIII_7135": 0.09 * np.sqrt(r3)}
    return np.stack([lines[name] for name in NAMES], axis=1)
