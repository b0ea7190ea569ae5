"""What is known of lines before they are fitted."""

from dataclasses import dataclass

import numpy as np
from astropy import units as u

from specutils_blase.adapters import quantity_value
from specutils_blase.errors import explain

__all__ = ["LEARNED", "GaussianPrior", "L1Prior", "checked_priors"]

# Tail of the default prior: of lines that scatter like a Gaussian 0.3 % are affected.  One order of WASP-69 is fitted
# to 0.499 % instead of 0.506 %.  With 2.0 it is 0.488 %, but where the errors of the model are many times the noise
# (a wrong line spread function at S/N 2000), lines drift, and the velocity with them, by 0.5 km/s.
TAIL = 3.0
# The default to begin with, whose standard deviations are then learned from the lines.
LEARNED = "learned"


@dataclass(frozen=True)
class GaussianPrior:
    """
    Gaussian prior that holds lines near their template.

    Parameters
    ----------
    strength : float
        Standard deviation of ln(strength).
    fwhm : float
        Standard deviation of ln(fwhm), for both widths.
    x_0 : Quantity
        Standard deviation of the centres, a velocity.
    tail : float
        Beyond so many standard deviations the probability falls exponentially (Huber 1964, Ann. Math. Stat. 35, 73)
        for lines that are plainly wrong in the template. The default, ``inf``, is a Gaussian throughout, which holds
        lines whatever the data say; that of `fit_spectrum` has a tail.

    Examples
    --------
    The tighter the prior, the less the lines leave their template; here those of the star differ from it:

    >>> import numpy as np
    >>> from astropy import units as u
    >>> from specutils_blase import GaussianPrior, clone_spectrum, fit_spectrum
    >>> from specutils_blase.simulation import scatter_lines, simulate_order, simulate_star
    >>> star = simulate_star(1, n_lines=60, lower=10500 * u.AA, upper=10512 * u.AA)
    >>> template = clone_spectrum(star.spectrum, continuum_degree=2)
    >>> order = simulate_order(scatter_lines(star.model, 3, strength=0.3), seed=2, bad_pixels=0,
    ...                        lower=10502 * u.AA, upper=10510 * u.AA, n_pix=150)
    >>> for scale in (0.3, 0.03):
    ...     prior = GaussianPrior(strength=scale, tail=3)
    ...     fit = fit_spectrum(order.spectrum, template, vsini=3 * u.km / u.s, prior=prior)
    ...     change = np.log(fit.lines["strength"] / template.lines["strength"])
    ...     print(f"{scale}: {change.std():.2f}")
    0.3: 0.11
    0.03: 0.01
    """

    strength: float = 0.3
    fwhm: float = 0.3
    x_0: u.Quantity = 0.5 * u.km / u.s
    tail: float = np.inf

    quadratic = True

    def __post_init__(self):
        _check_scales(self.strength, self.fwhm, self.x_0)
        if not (np.isscalar(self.tail) and np.isreal(self.tail) and self.tail > 0):
            raise ValueError(explain("tail", "be a positive number or inf", repr(self.tail), "3 lets wrong lines go"))


@dataclass(frozen=True)
class L1Prior:
    """
    The prior of Gully-Santiago & Morley (2022): the sum of (absolute change)/scale over the free line parameters.

    Parameters
    ----------
    strength, fwhm : float
        Scales of the absolute changes of ln(strength) and ln(fwhm).
    x_0 : Quantity
        Scale of the change of the centres, a velocity.

    Examples
    --------
    Lines that the data do not move stay where they are, and the fit is the mode of the posterior:

    >>> import numpy as np
    >>> from astropy import units as u
    >>> from specutils_blase import L1Prior, clone_spectrum, fit_spectrum
    >>> from specutils_blase.simulation import scatter_lines, simulate_order, simulate_star
    >>> star = simulate_star(1, n_lines=60, lower=10500 * u.AA, upper=10512 * u.AA)
    >>> template = clone_spectrum(star.spectrum, continuum_degree=2)
    >>> order = simulate_order(scatter_lines(star.model, 3, strength=0.3), seed=2, bad_pixels=0,
    ...                        lower=10502 * u.AA, upper=10510 * u.AA, n_pix=150)
    >>> fit = fit_spectrum(order.spectrum, template, vsini=3 * u.km / u.s, prior=L1Prior(strength=0.3))
    >>> change = np.log(fit.lines["strength"] / template.lines["strength"])
    >>> print(fit.fit_info["estimate"], np.sum(abs(change) > 0.01), "of", len(change))
    mode 5 of 22
    """

    strength: float = 0.3
    fwhm: float = 0.3
    x_0: u.Quantity = 0.5 * u.km / u.s

    quadratic = False

    def __post_init__(self):
        _check_scales(self.strength, self.fwhm, self.x_0)


def _check_scales(strength, fwhm, x_0):
    for name, value in (("strength", strength), ("fwhm", fwhm)):
        if not (np.isscalar(value) and np.isreal(value) and value > 0 and np.isfinite(value)):
            raise ValueError(explain(name, "be a positive number", repr(value), "0.3 is the default"))
    quantity_value(x_0, u.km / u.s, "x_0", positive=True)


def checked_priors(prior, n_tellurics, jitter):
    """The priors of the star and of every telluric species, or an error."""
    if isinstance(prior, str) and prior == LEARNED and not jitter:
        raise ValueError(explain("prior", 'be "learned" beside a jitter', "jitter=False", "give jitter=True, or "
                                 "errors of the model pass for scatter of the lines"))  # fmt: skip
    if prior is None or (isinstance(prior, str) and prior == LEARNED):
        prior = GaussianPrior(tail=TAIL)
    if not hasattr(prior, "keys"):
        return [_checked(prior, "prior")] * (1 + n_tellurics)
    given = dict(prior)
    if not set(given) <= {"star", "telluric"}:
        raise ValueError(explain("prior", 'have the keys "star" and "telluric"', list(given), "drop the others"))
    star, tellurics = given.get("star"), given.get("telluric")
    if isinstance(tellurics, list | tuple):
        if len(tellurics) != n_tellurics:
            raise ValueError(explain('prior["telluric"]', f"hold a prior for each of the {n_tellurics} species",
                                     len(tellurics), "give one for each, or one for all"))  # fmt: skip
    else:
        tellurics = [tellurics] * n_tellurics
    names = ["star", *(f"telluric[{k}]" for k in range(n_tellurics))]
    each = {name: item for name, item in zip(names, [star, *tellurics], strict=True) if item is not None}
    kinds = {type(_checked(item, f"prior[{name}]")) for name, item in each.items()}
    if len(kinds) > 1:
        raise ValueError(explain("prior", "be of one kind for star and tellurics", sorted(k.__name__ for k in kinds),
                                 "give GaussianPrior or L1Prior throughout"))  # fmt: skip
    default = L1Prior() if kinds == {L1Prior} else GaussianPrior(tail=TAIL)
    return [each.get(name, default) for name in names]


def _checked(prior, name):
    if not isinstance(prior, GaussianPrior | L1Prior):
        raise TypeError(explain(name, 'be a GaussianPrior, an L1Prior, "learned" or None', repr(prior),
                                "write e.g. GaussianPrior(strength=0.5)"))  # fmt: skip
    return prior
