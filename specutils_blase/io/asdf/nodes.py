"""The parts that ASDF nodes of this package are made of: arrays, metadata and line tables."""

import hashlib
import warnings
import weakref
from functools import lru_cache

import numpy as np
from asdf.tags.core.ndarray import NDArrayType

__all__ = [
    "array_node",
    "check_unit",
    "meta_from_node",
    "meta_node",
    "own_array",
    "shared_meta",
    "table_from_node",
    "table_node",
]

# Arrays of the file being written, by content. Equal arrays (line centres in the model and in the table, one axis for
# seven spectra) become one block of the file.
_SHARED = weakref.WeakKeyDictionary()

# What astropy keeps about a column outside its data, and ASDF's QTable does not.
_COLUMN_INFO = ("description", "format")


def array_node(values, ctx):
    """
    An array for the tree, stored once however often equal values occur in the file.

    Parameters
    ----------
    values : ndarray or Quantity, any shape
        Any byte order and strides.
    ctx : asdf.extension.SerializationContext
        Of the file being written.

    Returns
    -------
    ndarray or Quantity
        Native byte order, contiguous.
    """
    from astropy import units as u

    if not isinstance(values, u.Quantity):
        return _shared(np.asarray(values), ctx)
    check_unit(values.unit)
    numbers = values.value if values.isscalar else _shared(values.value, ctx)
    return u.Quantity(numbers, values.unit, copy=None, dtype=None)


def own_array(values):
    """
    A writable copy, in native byte order, of an array or Quantity that was read; numbers pass through.

    Parameters
    ----------
    values : ndarray, asdf array, Quantity or number

    Returns
    -------
    ndarray, Quantity or number
    """
    from astropy import units as u

    if isinstance(values, u.Quantity):
        return values if values.isscalar else u.Quantity(own_array(values.value), values.unit, copy=None, dtype=None)
    if isinstance(values, np.ndarray | NDArrayType):
        array = np.asarray(values)
        return np.array(array, dtype=array.dtype.newbyteorder("="))
    return values


@lru_cache(maxsize=256)
def check_unit(unit):
    """
    Raise ValueError if a unit would come back different: ASDF rounds scale factors and does not know private names.

    Parameters
    ----------
    unit : Unit
    """
    from astropy import units as u

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", u.UnitsWarning)  # about names that VOUnit calls deprecated
        try:
            restored = u.Unit(unit.to_string("vounit"), format="vounit", parse_strict="silent")
        except (u.UnitsError, ValueError):
            restored = u.Unit(unit.to_string(), parse_strict="silent")
    if restored != unit:
        raise ValueError(
            f"the unit {str(unit)!r} cannot be written to a file exactly, it would come back as {str(restored)!r}; "
            "convert to a unit that has a standard name and a short scale factor"
        )


def meta_node(meta):
    """
    Metadata as a node: what can be stored exactly, FITS headers as their cards, and the names of the rest.

    Parameters
    ----------
    meta : mapping

    Returns
    -------
    dict
        ``values``, and where there are any ``fits_headers`` (lists of cards) and ``not_stored`` (names).
    """
    from astropy.io.fits import Header

    node, headers, left_out = {"values": {}}, {}, []
    for name, value in meta.items():
        try:
            if isinstance(value, Header):
                headers[str(name)] = _cards(value)
            else:
                node["values"][_key(name)] = _plain(value)
        except (_NotStorable, RecursionError):  # also something that holds itself
            left_out.append(str(name))
    if headers:
        node["fits_headers"] = headers
    if left_out:
        node["not_stored"] = left_out
    return node


def shared_meta(meta, ctx):
    """
    As `meta_node`, but equal metadata of several owners is one node, which YAML writes once and refers to.

    Parameters
    ----------
    meta : mapping
    ctx : asdf.extension.SerializationContext

    Returns
    -------
    dict
    """
    node = meta_node(meta)
    written = _SHARED.setdefault(ctx, {}).setdefault("meta", [])
    for other in written:
        if _equal(node, other):
            return other
    written.append(node)
    return node


def meta_from_node(node):
    """
    Metadata from what `meta_node` made.

    Parameters
    ----------
    node : dict or None

    Returns
    -------
    dict
    """
    if not node:
        return {}
    meta = _own(node["values"])
    for name, cards in node.get("fits_headers", {}).items():
        meta[name] = _header(cards)
    return meta


def table_node(table, ctx):
    """
    A QTable with the column descriptions and formats beside it.

    Parameters
    ----------
    table : QTable
    ctx : asdf.extension.SerializationContext

    Returns
    -------
    dict
        ``table``, ``columns`` and ``meta``.
    """
    from astropy.table import QTable

    columns = {name: _column(name, table[name], ctx) for name in table.colnames}
    infos = {}
    for name in table.colnames:
        info = {key: getattr(table[name].info, key) for key in _COLUMN_INFO}
        if info := {key: text for key, text in info.items() if isinstance(text, str)}:
            infos[name] = info
    return {"table": QTable(columns, copy=False), "columns": infos, "meta": meta_node(table.meta)}


def table_from_node(node):
    """
    A table from what `table_node` made.

    Parameters
    ----------
    node : dict

    Returns
    -------
    QTable
    """
    table = node["table"]
    for name in table.colnames:
        info = node["columns"].get(name, {})
        for key in _COLUMN_INFO:  # also the missing ones, which some versions of asdf fill with ""
            setattr(table[name].info, key, info.get(key))
    table.meta.update(meta_from_node(node["meta"]))
    return table


class _NotStorable(TypeError):
    """A value that no file can hold without changing it."""


def _integer(value):
    if not -(2**63) <= value < 2**63:  # more than ASDF has room for
        raise _NotStorable
    return int(value)


# Scalars of Python, numpy and their subclasses, and what YAML holds for them; bool before int, which it is a kind of.
_SCALARS = {
    bool | np.bool_: bool,
    int | np.integer: _integer,
    float | np.floating: float,
    str: str.__str__,
}


def _shared(array, ctx):
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")).reshape(array.shape)
    pool = _SHARED.setdefault(ctx, {})
    key = (array.dtype.str, array.shape, hashlib.blake2b(array.tobytes()).digest())
    if key not in pool:
        # A fresh array, because the base of a view may be far larger than the view.
        pool[key] = array.copy()
        ctx.set_array_save_base(pool[key], True)
    return pool[key]


def _equal(a, b):
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, np.ndarray):
        same_kind = a.dtype == b.dtype and getattr(a, "unit", None) == getattr(b, "unit", None)
        return same_kind and np.array_equal(a, b)
    return a == b


def _cards(header):
    from astropy.io.fits import VerifyError
    from astropy.io.fits.verify import VerifyWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VerifyWarning)  # about cards that break the standard, which it repairs
        try:
            cards = [card.image.rstrip() for card in header.cards]
            warnings.simplefilter("error")
            _header(cards)
        except (VerifyError, ValueError, Warning) as error:
            raise _NotStorable from error
    return cards


def _header(cards):
    from astropy.io.fits import Card, Header

    return Header([Card.fromstring(card) for card in cards])


def _key(name):
    if not isinstance(name, str | int) or isinstance(name, bool):
        raise _NotStorable
    return name


def _plain(value):
    """The value as YAML or ASDF holds it, or _NotStorable."""
    from astropy import units as u

    if value is None:
        return None
    for kind, plain in _SCALARS.items():
        if isinstance(value, kind):
            return plain(value)
    if isinstance(value, dict):
        return {_key(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, u.Quantity):
        return _plain_quantity(value)
    if type(value) is np.ndarray and value.dtype.kind in "biufUS":
        return np.array(value, dtype=value.dtype.newbyteorder("="))
    raise _NotStorable


def _plain_quantity(value):
    from astropy import units as u

    try:
        check_unit(value.unit)
    except ValueError as error:
        raise _NotStorable from error
    return u.Quantity(value, subok=False)


def _own(value):
    """A deep copy of what was read, lists and dicts included: YAML may have used one for several owners."""
    if isinstance(value, dict):
        return {name: _own(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_own(item) for item in value]
    return own_array(value)


def _column(name, column, ctx):
    from astropy import units as u
    from astropy.table import Column, MaskedColumn
    from astropy.utils.masked import Masked

    if isinstance(column, u.Quantity):
        if not isinstance(column, Masked):
            return array_node(column, ctx)
        check_unit(column.unit)
    elif type(column) is Column and column.dtype.kind != "O":
        data = array_node(np.asarray(column), ctx)
        meta = meta_node(column.meta)["values"]
        return Column(data, unit=column.unit, description=column.description, meta=meta, copy=False)
    elif not isinstance(column, MaskedColumn) or column.dtype.kind == "O":
        raise ValueError(
            f"column {name!r} of a table cannot be written: it holds {type(column).__name__} objects where numbers, "
            "strings or Quantities are needed; convert or remove it"
        )
    return column
