"""Writing and reading ASDF files: all or nothing on the way out, checked and inert on the way in."""

import io
import re
import struct
import warnings
from collections import UserList
from collections.abc import Mapping

import asdf
from asdf.exceptions import ValidationError
from asdf.extension import Extension

from specutils_blase import __version__
from specutils_blase.errors import BlaseWarning, explain
from specutils_blase.io.asdf.converters import FiledCovariance
from specutils_blase.io.asdf.extension import get_extensions
from specutils_blase.io.asdf.tags import TAG_BASE, VERSIONS
from specutils_blase.io.whole import as_path, written_whole

__all__ = ["read_asdf", "write_asdf"]

# What a file may hold, by the name in its tag, and what that is called in Python.
KINDS = {"line_template": "LineTemplate", "spectrum_fit": "SpectrumFit",
         "emission_line_predictor": "EmissionLinePredictor", "spectrum_autoencoder": "SpectrumAutoencoder"}  # fmt: skip
KEYS = {"line_template": "template", "spectrum_fit": "fit", "emission_line_predictor": "predictor",
        "spectrum_autoencoder": "autoencoder"}  # fmt: skip

# Version of the ASDF standard to write: the one that every asdf that this package works with reads.
ASDF_STANDARD = "1.5.0"

# Of the compression: twice as fast as zlib's own choice, in files that are 4 % larger.
ZLIB_LEVEL = 1

# Names that promise something else.
FOREIGN = (".pkl", ".pickle", ".fits", ".fit", ".gz", ".ecsv", ".csv", ".txt", ".json", ".h5", ".hdf5", ".npz", ".pt",
           ".png")  # fmt: skip

MAGIC = b"#ASDF"
TREE_END = re.compile(rb"\r?\n\.\.\.\r?\n")
BLOCK_MAGIC, BLOCK_INDEX = b"\xd3BLK", b"#ASDF BLOCK INDEX"
BLOCK_HEADER = struct.Struct(">I4sQ")  # flags, compression, allocated size; follows the size of the header

# Tags that a file of this package may hold; asdf itself would convert whatever any installed package has a tag for.
ALLOWED_TAGS = (
    TAG_BASE,
    "tag:stsci.edu:asdf/core/",
    "tag:stsci.edu:asdf/table/",
    "tag:stsci.edu:asdf/transform/",
    "tag:stsci.edu:asdf/unit/",
    "tag:astropy.org:astropy/table/",
    "tag:astropy.org:astropy/units/",
)


def write_asdf(path, content, overwrite=False):
    """
    Write a file that is either complete or not there.

    Parameters
    ----------
    path : str or path-like
        Name of the file. What it held before stays until the new content is on disk.
    content : LineTemplate, SpectrumFit, EmissionLinePredictor, SpectrumAutoencoder or dict
        The object, which gets the key "template", "fit" or "predictor", or the keys of the file and their objects.
    overwrite : bool
        Whether an existing file is replaced.

    Raises
    ------
    FileExistsError
        If the file exists and `overwrite` is false.
    ValueError
        If the content cannot be stored, or the name ends like that of another kind of file.
    """
    if (suffix := as_path(path).suffix.lower()) in FOREIGN:
        raise ValueError(explain("path", "not end like the name of another kind of file", repr(suffix),
                                 "end it in .asdf, which is what is written"))  # fmt: skip
    tree = content if isinstance(content, dict) else _tree(content)
    with written_whole(path, overwrite) as temporary, open(temporary, "xb") as stream:
        _dump(stream, tree, path)


def read_asdf(path, kind=None):
    """
    Read what `write_asdf` wrote.

    The content is checked against its schema. Only numbers, strings, arrays, units, tables and the models of astropy
    and this package are made from it; other tags and references to other files are refused. What a format with a newer
    minor version has added is ignored, with a warning.

    Parameters
    ----------
    path : str or path-like
        Name of the file.
    kind : {"line_template", "spectrum_fit", "emission_line_predictor", "spectrum_autoencoder"} or class, optional
        What the file must hold; None takes any of them.

    Returns
    -------
    LineTemplate, SpectrumFit, EmissionLinePredictor or SpectrumAutoencoder

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, of another kind, or in a format with a newer major version.
    """
    wanted = _wanted(kind)
    path = as_path(path)
    content = _content(path)
    tree = _tagged_tree(path, content)
    tags = set(_tags(path, tree))
    newer = _newer_tags(path, tags)
    key = _key(path, tree, wanted)
    _check_tags(path, content, tags - newer)
    return _objects(path, content, newer)[key]


def _tree(content):
    for name, class_name in KINDS.items():
        if class_name == type(content).__name__:
            return {KEYS[name]: content}
    raise TypeError(explain("content", f"be {', '.join(map(_a, KINDS.values()))} or a dict", _a(type(content).__name__),
                            "use asdf.AsdfFile for anything else"))  # fmt: skip


def _dump(stream, tree, path):
    # What asdf has not loaded before a context it loads for that alone, and again for every file.
    installed = asdf.get_config()
    _ = installed.extensions, installed.resource_manager
    try:
        with asdf.config_context() as config:
            config.array_inline_threshold = None  # a setting of the user's that would write arrays as text
            file = asdf.AsdfFile(tree, version=ASDF_STANDARD)
            file.write_to(stream, all_array_storage="internal", all_array_compression="zlib",
                          compression_kwargs={"level": ZLIB_LEVEL})  # fmt: skip
    except ValidationError as error:
        raise ValueError(f"{path} was not written: {_schema_message(error)}") from error


def _content(path):
    if not path.exists():
        raise FileNotFoundError(explain("path", "name a file that exists", str(path), "check its folder and its name"))
    if path.is_dir():
        raise IsADirectoryError(explain("path", "name a file", f"the directory {path}", "add the name of the file"))
    with open(path, "rb") as stream:
        start = stream.read(len(MAGIC))
        if start != MAGIC:
            raise ValueError(
                explain("path", "name an ASDF file", f"{path}, which {_nature(start)}",
                        "files of this package are written by write() methods; spectra are read by Spectrum.read")
            )  # fmt: skip
        content = start + stream.read()
    _check_blocks(path, content)
    return content


def _check_blocks(path, content):
    """
    Raise if the file ends inside a block or the index, which some versions of asdf do not notice.

    The checksums are left alone, because versions of asdf disagree on whether they are of the compressed data; the
    compressed data carry their own.
    """
    tree_end = TREE_END.search(content)
    position = tree_end.end() if tree_end else len(content)
    position = max(content.find(BLOCK_MAGIC, position), position)
    while content.startswith(BLOCK_MAGIC, position):
        header = content[position + 4 : position + 6 + BLOCK_HEADER.size]
        if len(header) < 2 + BLOCK_HEADER.size:
            raise _damaged(path, "its end is missing")
        (size,) = struct.unpack_from(">H", header)
        _, _, allocated = BLOCK_HEADER.unpack_from(header, 2)
        position += 6 + size + allocated
    rest = content[position:].rstrip()
    if position > len(content) or (rest and not (rest.startswith(BLOCK_INDEX) and rest.endswith(b"..."))):
        raise _damaged(path, "its end is missing")


def _nature(start):
    if not start:
        return "is empty"
    return "is a FITS file" if start == b"SIMPL" else f"begins with {start!r}"


def _damaged(path, reason):
    return ValueError(f"{path} is truncated or damaged ({reason}); write it again or fetch another copy")


def _tagged_tree(path, content):
    """The tree with its tags, nothing converted."""
    try:
        tree = asdf.util.load_yaml(io.BytesIO(content), tagged=True)
    except Exception as error:  # whatever the parser stumbles over
        raise _damaged(path, _first_line(error)) from error
    if not isinstance(tree, Mapping):
        raise _damaged(path, "it has no tree")
    return tree


def _tags(path, tree):
    """Every tag in the tree, root included."""
    queue, seen = [tree], set()
    while queue:
        node = queue.pop()
        if id(node) in seen:  # YAML can refer to one node from several places
            continue
        seen.add(id(node))
        tag = getattr(node, "_tag", None)
        if tag is not None:
            yield tag
        if isinstance(node, Mapping):
            if "ndarray" in str(tag) and isinstance(node.get("source"), str):
                raise ValueError(f"{path} refers to arrays in another file, {node['source']!r}; that is not supported")
            queue.extend(node.values())
        elif isinstance(node, list | UserList):
            queue.extend(node)


class _NewerVersions(Extension):
    """Converts tags with newer minor versions as the last known one; what was added since is ignored."""

    extension_uri, tags, converters = None, (), ()

    def __init__(self, tags):
        self.tags = sorted(tags)
        self.converters = [
            type("Newer", (type(converter),), {"tags": mine})()
            for extension in get_extensions()
            for converter in extension.converters
            if (mine := [tag for tag in self.tags if _name(tag) in map(_name, converter.tags)])
        ]


def _name(tag):
    return tag.removeprefix(TAG_BASE).rpartition("-")[0]


def _newer_tags(path, tags):
    """Tags of this package with a newer minor version, which are announced; newer major versions are an error."""
    newer = set()
    for tag in sorted(tags):
        name, version = _name(tag), tag.rpartition("-")[2]
        if not tag.startswith(TAG_BASE) or version in VERSIONS.get(name, ()):
            continue
        known = f"up to {VERSIONS[name][-1]}" if name in VERSIONS else "no version of it"
        text = (f"{path} holds {name} version {version} from a newer specutils_blase, this one ({__version__}) reads "
                f"{known}")  # fmt: skip
        if version.split(".")[0] not in (other.split(".")[0] for other in VERSIONS.get(name, ())):
            raise ValueError(f"{text}; update specutils_blase")
        warnings.warn(f"{text} and ignores what has been added since; update specutils_blase to have all of it",
                      BlaseWarning, stacklevel=4)  # fmt: skip
        newer.add(tag)
    return newer


def _wanted(kind):
    """The names of the kinds that will do."""
    if kind is None:
        return list(KINDS)
    wanted = [name for name in KINDS if kind == name or (isinstance(kind, type) and kind.__name__ == KINDS[name])]
    if not wanted:
        raise ValueError(explain("kind", f"be one of {', '.join(KINDS)}", repr(kind), "None takes any of them"))
    return wanted


def _key(path, tree, wanted):
    """The key of the first wanted kind in the tree."""
    held = {}
    for key, node in tree.items():
        tag = str(getattr(node, "_tag", ""))
        if tag.startswith(TAG_BASE):
            held[tag.removeprefix(TAG_BASE).rpartition("-")[0]] = key
    for name in wanted:
        if name in held:
            return held[name]
    expected = "name a file with " + " or ".join(_a(KINDS[name]) for name in wanted)
    if not held:
        raise ValueError(explain("path", expected, f"{path}, an ASDF file of another origin",
                                 "asdftool info shows what it holds"))  # fmt: skip
    name = next(iter(held))
    remedy = f"use {KINDS[name]}.read" if name in KINDS else "use asdf.open"
    raise ValueError(explain("path", expected, f"{path} with {_a(KINDS.get(name, name))}", remedy))


def _a(name):
    return f"{'an' if name[0] in 'AEIO' else 'a'} {name}"


def _check_tags(path, content, tags):
    strange = sorted(tag for tag in tags if not tag.startswith(ALLOWED_TAGS))
    if strange:
        raise ValueError(f"{path} holds {strange[0]}, which has no place in a file of this package; it was edited, "
                         "open it with asdf.open if you trust it")  # fmt: skip
    unknown = _unknown_tags(content, tags)
    if unknown:
        raise ValueError(f"{path} holds {unknown[0]}, which the installed asdf and asdf-astropy do not know in a file "
                         'of its ASDF standard; update them, or write it with version="1.5.0"')  # fmt: skip


def _unknown_tags(content, tags):
    """Tags, or the version of the standard, that the installed asdf cannot convert; asdf itself would only warn."""
    lines = content[:1000].split(b"\n")
    standard = next((line.split()[-1].decode() for line in lines if line.startswith(b"#ASDF_STANDARD ")), None)
    try:
        file = asdf.AsdfFile(version=standard)
    except ValueError:
        return [f"ASDF standard {standard}"]
    with file:
        return sorted(tag for tag in tags if not file.extension_manager.handles_tag(tag))


def _objects(path, content, newer):
    """The converted tree."""
    try:
        with asdf.config_context() as config:
            config.validate_on_read = True
            if newer:
                config.add_extension(_NewerVersions(newer))
            if hasattr(config, "warn_on_failed_conversion"):  # before asdf 5.1 failures were errors always
                config.warn_on_failed_conversion = False
            with asdf.open(io.BytesIO(content), lazy_load=False, lazy_tree=False, memmap=False,
                           ignore_missing_extensions=True) as file:  # fmt: skip
                for value in file.tree.values():  # nothing of what is returned may need the file later
                    if isinstance(lazy := getattr(value, "line_covariance", None), FiledCovariance):
                        value.line_covariance = lazy.loaded
                return file.tree
    except ValidationError as error:
        raise ValueError(f"{path} was edited or damaged: {_schema_message(error)}") from error
    except Exception as error:  # whatever damaged bytes lead to
        raise _damaged(path, _first_line(error)) from error


def _schema_message(error):
    where = ".".join(map(str, error.absolute_path)) or "its content"
    return f"{where} breaks the schema, {_first_line(error)}"


def _first_line(error):
    text = str(getattr(error, "message", error)).strip() or type(error).__name__
    return text.splitlines()[0][:200]
