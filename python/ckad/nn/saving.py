"""Pytrees in .npz files: models, optimiser states, anything whose leaves are numbers.

Each leaf is one array under its path, such as 'a/0/b'. Nothing is pickled, so a file cannot run code, and any program
that reads .npz can read it. The structure itself is not stored: `load` takes it from an example and insists that file
and example agree.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ckad import tree as pytree
from ckad.errors import CkadTypeError, CkadValueError, DTypeError, ShapeError

if TYPE_CHECKING:
    import zipfile

_ROOT = "value"
"""The name of the leaf of a tree that is itself a leaf."""

_WRITTEN = "give a file that ckad.nn.save has written, or save again"


def save(path: str | os.PathLike[str], tree: Any) -> None:
    """Writes a pytree of arrays and numbers to an .npz file, all of it or nothing.

    Args:
        path: where to; the name is taken as it is. A file of that name is replaced.
        tree: the pytree.

    Raises:
        TypeError: a leaf is neither an array nor a number.
        ValueError: two leaves have the same name, as with the keys 1 and '1' in one dict; a key with a null character.

    >>> import numpy as np, pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(pathlib.Path(folder, "model.npz"), {"a": [np.ones(2), 3]})
    ...     sorted(np.load(pathlib.Path(folder, "model.npz")))
    ['a/0', 'a/1']
    """
    import zipfile  # not needed by those who only import ckad

    arrays = {}
    for name, leaf in _named_leaves(tree, "save").items():
        array = _as_array(name, leaf, "save")
        arrays[name] = array.astype(array.dtype.newbyteorder("="), copy=False)
    path = Path(path)
    # Written beside and renamed: a crash leaves the old file, never half a new one.
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        with open(temporary, "xb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                for name, array in arrays.items():
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, array, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def load(path: str | os.PathLike[str], like: Any) -> Any:
    """Reads a pytree that `save` has written.

    Args:
        path: the file.
        like: a pytree with the structure, shapes and dtypes that are expected; its values are not used.

    Returns:
        A pytree like `like`: arrays where it has arrays, Python numbers where it has Python numbers.

    Raises:
        ValueError: leaves that are missing in the file or that it has beyond `like`, shapes that differ, or a file that
            is no .npz.
        TypeError: dtypes that differ.
        OSError: the file cannot be read.

    >>> import numpy as np, pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(pathlib.Path(folder, "state.npz"), {"step": 7, "mean": np.arange(2.0)})
    ...     load(pathlib.Path(folder, "state.npz"), like={"step": 0, "mean": np.zeros(2)})
    {'step': 7, 'mean': array([0., 1.])}
    """
    expected = _named_leaves(like, "load")
    found = _read(path)
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    if missing or extra:
        parts = [f"{what} {', '.join(names)}" for what, names in (("missing:", missing), ("extra:", extra)) if names]
        what = f"{path} does not have the leaves of `like`: {'; '.join(parts)}"
        raise CkadValueError.of(
            "load", what, "give a `like` of the structure that was saved; np.load(path).files lists it"
        )
    leaves = []
    for name, leaf in expected.items():
        array, model = found[name], _as_array(name, leaf, "load")
        if array.shape != model.shape:
            what = f"{name} in {path} has shape {array.shape}, expected {model.shape}"
            raise ShapeError.of("load", what, f"give a `like` whose leaf {name} has shape {array.shape}")
        if array.dtype != model.dtype.newbyteorder("="):
            what = f"{name} in {path} has dtype {array.dtype}, expected {model.dtype}"
            hint = f"give a `like` whose leaf {name} has dtype {array.dtype}, and convert what is loaded"
            raise DTypeError.of("load", what, hint)
        if isinstance(leaf, np.ndarray):
            leaves.append(array)
        else:
            leaves.append(array[()] if isinstance(leaf, np.generic) else array.item())
    return pytree.unflatten(pytree.flatten(like)[1], leaves)


def _named_leaves(tree: Any, op: str) -> dict[str, Any]:
    """The leaves by name, in the order of the tree."""
    named: dict[str, Any] = {}
    for name, leaf in zip(pytree.paths(tree), pytree.flatten(tree)[0], strict=True):
        name = name or _ROOT
        if "\0" in name:
            what = f"the name {name!r} has a null character, which ends a name in a file"
            raise CkadValueError.of(op, what, "rename the key")
        if name in named:
            raise CkadValueError.of(op, f"two leaves have the name {name!r}", "rename one of the keys")
        named[name] = leaf
    return named


def _as_array(name: str, leaf: Any, op: str) -> np.ndarray[Any, Any]:
    array = np.asarray(leaf) if isinstance(leaf, (np.ndarray, np.generic, bool, int, float, complex)) else None
    if array is None or array.dtype.kind not in "biufc":
        what = f"{name} is neither an array of numbers nor a number: {leaf!r:.80}"
        raise CkadTypeError.of(op, what, "leave it out of the tree, or put numbers in its place")
    return array


def _read(path: str | os.PathLike[str]) -> dict[str, np.ndarray[Any, Any]]:
    import zipfile
    import zlib

    try:
        # By the exact names of its members: np.load takes 'a.npy' for 'a' where the file has both.
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            return {member.filename.removesuffix(".npy"): _member(archive, member) for member in archive.infolist()}
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise CkadValueError.of("load", f"{path} is damaged or no .npz file: {error}", _WRITTEN) from error


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray[Any, Any]:
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)
