"""The state of a run in a file, from which the run goes on as if it had not been interrupted."""

import io
import os
import secrets
from collections import Counter, OrderedDict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["read_checkpoint", "read_tensors", "write_checkpoint"]

# What torch reads back without running code from the file.
CONTAINERS = {dict, OrderedDict, Counter, list, tuple}
PLAIN = {Tensor, nn.Parameter, int, float, bool, str, type(None)}
# Of more differences than this the first ones are named.
MAX_NAMED = 4


def write_checkpoint(path: Path, state: dict) -> None:
    """
    Write the state of a run; what `path` held stays until the new file is complete.

    Parameters
    ----------
    path : Path
    state : dict
        Tensors, numbers, strings, None, and lists, tuples and dictionaries of those.

    Raises
    ------
    TypeError
        The state holds something else, which could not be read back without running code from the file.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "run.pt"
    >>> write_checkpoint(path, {"identity": {"seed": "0"}, "step": 3})
    >>> read_checkpoint(path, {"seed": "0"})["step"]
    3
    """
    for name, value in _foreign(state, ""):
        raise TypeError(
            f"a checkpoint must hold tensors, numbers and strings only, got {name} = {value!r}; use a module, an "
            "optimizer or a schedule whose state_dict holds nothing else"
        )
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "wb") as stream:
            torch.save(state, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_checkpoint(path: Path, identity: dict[str, str]) -> dict:
    """
    Read the state of the run that `identity` describes.

    Parameters
    ----------
    path : Path
    identity : dict of str to str
        Must equal the entry "identity" of the state.

    Returns
    -------
    dict
        What was written, with its tensors on the CPU.

    Raises
    ------
    ValueError
        The file is not a checkpoint, or is one of another run; the message names what differs.
    """
    content = io.BytesIO(path.read_bytes())
    try:
        state = torch.load(content, map_location="cpu", weights_only=True)
        found = state["identity"]
    except Exception as problem:  # a file that torch did not write fails in as many ways as there are files
        raise ValueError(f"checkpoint must be a file that such a run wrote, got {path}; give another path") from problem
    differences = [
        f"{name} ({found.get(name, 'absent')} in the file, {identity.get(name, 'absent')} now)"
        for name in dict.fromkeys([*identity, *found])
        if found.get(name) != identity.get(name)
    ]
    if differences:
        more = f" and {len(differences) - MAX_NAMED} more" if len(differences) > MAX_NAMED else ""
        raise ValueError(
            f"checkpoint must belong to this run, got {path}, which differs in {', '.join(differences[:MAX_NAMED])}"
            f"{more}; repeat the call that wrote it, give another path, or delete it to start afresh"
        )
    return state


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """
    Read the ``state_dict()`` of a module that ``torch.save`` wrote, on whatever device, running no code from the file.

    Parameters
    ----------
    path : Path

    Returns
    -------
    dict of str to ndarray of float64

    Raises
    ------
    ValueError
        The file is not one of torch, or holds anything but real tensors by name.
    """
    expected, remedy = "path must name a file with the state_dict of a module", (
        "save model.state_dict() with torch.save where the model is known")  # fmt: skip
    content = io.BytesIO(path.read_bytes())
    try:
        state = torch.load(content, map_location="cpu", weights_only=True)
    except Exception as problem:  # a file that torch did not write fails in as many ways as there are files
        raise ValueError(
            f"{expected}, got {path}, which torch did not write, which is damaged, or which holds objects that are not "
            f"read because they could run code; {remedy}"
        ) from problem
    if not isinstance(state, dict) or not state:
        raise ValueError(f"{expected}, got {path} with a {type(state).__name__}; {remedy}")
    for name, value in state.items():
        if not (isinstance(value, Tensor) and value.is_floating_point()):
            raise ValueError(f"{expected}, got {path}, in which {name!r} is no tensor of real numbers; {remedy}")
    return {str(name): value.detach().to(torch.float64).numpy() for name, value in state.items()}


def _foreign(value: object, name: str) -> Iterator[tuple[str, object]]:
    """Name and value of all that is not plain in a nested state."""
    if type(value) in CONTAINERS:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from _foreign(item, f"{name}.{key}" if name else str(key))
    elif type(value) not in PLAIN:
        yield name, value
