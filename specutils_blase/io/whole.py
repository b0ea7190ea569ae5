"""Files that are written whole or not at all."""

import os
import secrets
from contextlib import contextmanager
from pathlib import Path

from specutils_blase.errors import explain

__all__ = ["as_path", "free_path", "written_whole"]


def as_path(path, name="path"):
    """The name of a file as a Path, with ~ expanded; TypeError if it is none."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(explain(name, "be the name of a file", repr(path), "give a str or a Path"))
    return Path(path).expanduser()


def free_path(path, overwrite=False, name="path", remedy="give overwrite=True or another name"):
    """
    Where a file may be written, with links followed: a link stays a link to the new content.

    Parameters
    ----------
    path : str or path-like
    overwrite : bool
        Whether an existing file may be replaced.
    name : str
        What the errors call it.
    remedy : str
        What helps if the file exists.

    Returns
    -------
    Path
    """
    path = as_path(path, name)
    if path.is_dir():
        raise IsADirectoryError(explain(name, "name a file", f"the directory {path}", "add a file name to it"))
    if path.exists() and not overwrite:
        raise FileExistsError(explain(name, "name a new file", f"{path}, which exists", remedy))
    path = Path(os.path.realpath(path))
    if not path.parent.is_dir():
        raise FileNotFoundError(
            explain(name, "lie in a directory that exists", str(path), f"create {path.parent} first")
        )
    return path


@contextmanager
def written_whole(path, overwrite=False):
    """
    The path of a new file beside `path`, which takes its place when the block ends without an error.

    Parameters
    ----------
    path : str or path-like
        What it held before stays until the new content is on disk.
    overwrite : bool
        Whether an existing file is replaced.
    """
    target = free_path(path, overwrite)
    temporary = target.with_name(f".specutils-blase-{secrets.token_hex(8)}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
