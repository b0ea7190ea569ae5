"""User settings, changed for a session through `specutils_blase.conf` or for good in astropy's configuration folder."""

from astropy.config import ConfigItem, ConfigNamespace

__all__ = ["Conf", "conf"]

# Named here because astropy would otherwise file the items under a section called after this module.
_PACKAGE = "specutils_blase"


class Conf(ConfigNamespace):
    """
    Settings of `specutils_blase`.

    Examples
    --------
    >>> import specutils_blase
    >>> with specutils_blase.conf.set_temp("progress", "off"):
    ...     pass
    """

    device = ConfigItem(
        "auto",
        'Where the numerics run when a function is called with ``device=None``: "auto" (the best device that the '
        'function supports), "cpu", or the name of a torch device.',
        module=_PACKAGE,
    )
    progress = ConfigItem(
        ["auto", "on", "off"],
        'Whether long work shows its progress when a function is called with ``progress=None``: "auto" means on in a '
        "terminal or a notebook and off elsewhere.",
        module=_PACKAGE,
    )
    populations = ConfigItem(
        "",
        "Path of the stellar populations that galaxies are simulated from (npz; wave_vac_AA, flux, mh, age_gyr) when "
        "``simulate_galaxies`` is called with ``populations=None``.",
        module=_PACKAGE,
    )


conf = Conf()
