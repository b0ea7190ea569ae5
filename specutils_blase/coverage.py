"""Which orders and pixels the templates of a fit cover."""

import warnings
from dataclasses import replace

import numpy as np

from specutils_blase.errors import BlaseWarning, CoverageError, explain
from specutils_blase.orders import listed
from specutils_blase.solvers.scene import relativistic_factor

__all__ = ["covered"]

# An order of which less than this share is covered by the templates is skipped.
LEAST_COVERED = 0.25


def covered(orders, template, tellurics, velocity, on_missing, fewest, *, trim=True):
    """
    The orders that the templates cover, without the pixels that they do not, and that have enough pixels and light.

    Parameters
    ----------
    orders : Orders
    template, tellurics
        As in `Setup`.
    velocity : float [km/s]
        Of the star.
    on_missing : {"skip", "raise", "telluric"}
        "telluric": the star need not cover anything.  "raise": nothing is left out here.
    fewest : int
        Usable pixels that one of several orders must have; those with fewer are skipped, unless that is all of them.
    trim : bool
        Whether pixels are left out and a warning says how much; else only orders are.

    Returns
    -------
    Orders
    """
    if on_missing == "raise":
        return _usable(orders, fewest, trim)
    needed = [("telluric", item, 1.0) for item in tellurics]
    if template is not None and on_missing == "skip":
        needed.insert(0, ("template", template, float(relativistic_factor(velocity))))
    if not needed:
        return _usable(orders, fewest, trim)
    lower = max(item.meta["coverage"][0] * factor for _, item, factor in needed)
    upper = min(item.meta["coverage"][1] * factor for _, item, factor in needed)
    arrays, skipped, n_pixels, n_trimmed = list(orders.arrays), [], 0, 0
    for k, a in enumerate(orders.arrays):
        if a is None:
            continue
        seen = a.good & (a.edges[:, 0] >= lower) & (a.edges[:, 1] <= upper)
        count, total = np.count_nonzero(seen), np.count_nonzero(a.good)
        if count < LEAST_COVERED * total:
            arrays[k] = None
            skipped.append(k)
        elif count < total and trim:
            arrays[k] = replace(a, good=seen)
            n_pixels, n_trimmed = n_pixels + total - count, n_trimmed + 1
    ranges = " and ".join(f"{name} ({item.meta['coverage'][0]:.2f} to {item.meta['coverage'][1]:.2f} Angstrom)"
                          for name, item, _ in needed)  # fmt: skip
    if all(a is None for a in arrays):
        edges = np.concatenate([a.edges.ravel() for a in orders.arrays if a is not None])
        raise CoverageError(explain("observed", f"have an order that is covered by the {ranges}",
                                    f"{edges.min():.2f} to {edges.max():.2f} Angstrom", "clone a wider spectrum"))
    if trim and (skipped or n_pixels):
        text = [f"{len(skipped)} of {len(arrays)} orders are skipped (numbers {listed(skipped)})"] * bool(skipped)
        text += [f"{n_pixels} pixels of {n_trimmed} orders are ignored"] * bool(n_pixels)
        remedy = ', or on_missing="telluric" fits them without the star' * (tellurics != [] and on_missing == "skip")
        warnings.warn(f"observed: {', and '.join(text)}, because they are not covered by the {ranges}; wider templates "
                      f"use them{remedy}", BlaseWarning, stacklevel=3)  # fmt: skip
    return _usable(replace(orders, arrays=arrays), fewest, trim)


def _usable(orders, fewest, warn):
    """The orders with so many usable pixels or more and light in them; all of them if there are none."""
    small, dark, seen = [], [], {}
    for k, a in enumerate(orders.arrays):
        if a is not None and (first := seen.setdefault((a.wave.tobytes(), a.flux.tobytes()), k)) != k:
            raise ValueError(explain("observed", "hold every order once", f"the same pixels as orders {first} and {k}",
                                     "drop one of the two, whose noise would count twice"))  # fmt: skip
        if a is not None and np.count_nonzero(a.good) < fewest:
            small.append(k)
        elif a is not None and not np.median(a.flux[a.good]) > 0.0:
            dark.append(k)
    if len(small) + len(dark) == sum(a is not None for a in orders.arrays):
        return orders
    reasons = ((small, f"they have fewer usable pixels than their own parameters need ({fewest})"),
               (dark, "their median flux is not positive"))  # fmt: skip
    for numbers, reason in reasons:
        if numbers and warn:
            warnings.warn(f"observed: {len(numbers)} of {len(orders)} orders are skipped (numbers {listed(numbers)}), "
                          f"because {reason}", BlaseWarning, stacklevel=4)  # fmt: skip
    return replace(orders, arrays=[None if k in small + dark else a for k, a in enumerate(orders.arrays)])
