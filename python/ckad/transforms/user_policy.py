"""Policies of the user's own: an object that is shown the clusters of a program and answers what to keep."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np

from ckad import _core
from ckad.errors import CkadTypeError, CkadValueError

KEYS: Final = ("borders", "keep", "compute")

_FORM: Final = "return {'borders': positions}, {'keep': values} or {'compute': clusters}"


@dataclass(frozen=True, eq=False)
class Clusters:
    """What a policy is shown: the clusters of a program in their order, and the values between them.

    A *cluster* is what runs as one kernel; clusters are numbered from 0. A *value* is an array that one cluster makes
    and others need, or that is returned; values are numbered from 0, too. Arguments and captured arrays are none.

    >>> import numpy as np, ckad
    >>> class Look:
    ...     def choose(self, clusters):
    ...         self.seen = clusters
    ...         return {"keep": range(len(clusters.bytes))}
    >>> look = Look()
    >>> f = lambda w, x: np.sum(np.tanh(x @ w))
    >>> gradient = ckad.grad(f, checkpoint=look)(np.ones((2, 2)), np.ones((3, 2)))
    >>> look.seen.passes.tolist() == sorted(look.seen.passes.tolist())
    True
    >>> bool(np.all(look.seen.flops >= 0)), len(look.seen.line) == len(look.seen.flops)
    (True, True)
    """

    flops: np.ndarray[Any, Any]
    """For each cluster, the operations of one run."""
    passes: np.ndarray[Any, Any]
    """For each cluster, its pass: 0 for the function itself, 1 for its backward part; more under nested transforms."""
    position: np.ndarray[Any, Any]
    """For each cluster, its place on the tape, from 0 up to `positions`. The backward part of an operation has the
    operation's own, so even passes run up the tape and odd ones down."""
    line: tuple[str, ...]
    """For each cluster, the source line, as in 'model.py:12'."""
    operands: tuple[tuple[int, ...], ...]
    """For each cluster, the values that it needs."""
    results: tuple[tuple[int, ...], ...]
    """For each cluster, the values that it makes."""
    bytes: np.ndarray[Any, Any]
    """For each value, its bytes."""
    producer: np.ndarray[Any, Any]
    """For each value, the cluster that makes it."""
    users: tuple[tuple[int, ...], ...]
    """For each value, the clusters that need it, ascending."""
    output: np.ndarray[Any, Any]
    """For each value, whether it is returned: such a value stays."""
    pinned: np.ndarray[Any, Any]
    """For each value, whether it stays whatever the policy: `ckad.save`, and storages that a loop writes bit by bit."""
    positions: int
    """The number of places on the tape."""


@runtime_checkable
class Policy(Protocol):
    """What `checkpoint=` takes beside the policies of ckad: an object with this method.

    The answer is checked, and refused with what is wrong in it; the schedule that comes of it is played by the
    simulator like any other. Where it would need more memory than keeping everything, everything is kept, and
    `plan.note` says so. Results are the same bits under any answer.

    Programs are cached, so the answer should depend on the object and on what it is shown alone. Equal objects
    (`==` and `hash`, as a frozen dataclass has them) share programs; other objects are told apart by identity. Each
    different object lives as long as the process.

    >>> import numpy as np, ckad
    >>> class KeepNothing:
    ...     def choose(self, clusters):
    ...         return {"keep": []}
    >>> isinstance(KeepNothing(), ckad.Policy)
    True
    >>> f = lambda x: np.sum(np.sin(np.sin(x)))
    >>> one, other = (ckad.grad(f, checkpoint=policy)(np.ones(3)) for policy in ("none", KeepNothing()))
    >>> bool(np.all(one == other))
    True
    """

    def choose(self, clusters: Clusters) -> Mapping[str, Iterable[int]]:
        """What to keep, or what to compute.

        Args:
            clusters: the program, as plain data.

        Returns:
            One of three answers, as a dict with one key:

            * `{'borders': positions}`: where segments of the tape begin. What is used in another segment than it was
              made in is kept; the rest is recomputed, a segment at a time.
            * `{'keep': values}`: what is kept from its computation to its last use. Other values are forgotten at the
              end of each pass and computed again where the next one needs them, at most once in it.
            * `{'compute': clusters}`: the clusters in the order in which they run, again where they stand there again.
              Values are freed after their last use before they are made again.
        """
        ...


class _ByIdentity:
    """An object that has no hash, told apart by identity."""

    def __init__(self, held: Any) -> None:
        self._held = held

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByIdentity) and self._held is other._held

    def __hash__(self) -> int:
        return id(self._held)


_numbers: dict[Any, int] = {}
_lock = threading.Lock()


def is_policy(value: Any) -> bool:
    """Has it the method of a policy, and is it neither a class nor an array, which have methods of that name?"""
    other = isinstance(value, (type, np.ndarray, np.generic, _core.Tracer))
    return not other and callable(getattr(value, "choose", None))


def number(policy: Any) -> int:
    """The number under which the core knows the object."""
    try:
        hash(policy)
        key = policy
    except TypeError:
        key = _ByIdentity(policy)
    # A type beside it: objects of two classes may be equal.
    with _lock:
        found = _numbers.get((type(policy), key))
        if found is None:
            found = _core.register_policy(policy, type(policy).__name__)
            _numbers[type(policy), key] = found
        return found


def ask(policy: Any, data: dict[str, Any]) -> tuple[str, list[int]]:
    """Shows the clusters to the policy; the key and the numbers of its answer. Called by the core."""
    lists: dict[str, Any] = {name: tuple(map(tuple, data[name])) for name in ("operands", "results", "users")}
    arrays: dict[str, Any] = {
        name: _column(data[name], np.int64) for name in ("flops", "passes", "position", "bytes", "producer")
    }
    flags: dict[str, Any] = {name: _column(data[name], np.bool_) for name in ("output", "pinned")}
    clusters = Clusters(**lists, **arrays, **flags, line=tuple(data["line"]), positions=data["positions"])
    answer = policy.choose(clusters)
    name = type(policy).__name__
    if not isinstance(answer, Mapping):
        what = f"the policy {name} answered a value of type {type(answer).__name__}"
        raise CkadTypeError.of("checkpoint", what, _FORM)
    if len(answer) != 1 or next(iter(answer)) not in KEYS:
        what = f"the policy {name} answered a dict of the keys {sorted(map(str, answer))!r:.60}"
        raise CkadValueError.of("checkpoint", what, f"give one of three keys: {_FORM}")
    ((key, numbers),) = answer.items()
    return key, [_whole(name, key, item) for item in _items(name, key, numbers)]


def _column(values: list[Any], dtype: Any) -> np.ndarray[Any, Any]:
    column = np.array(values, dtype)
    column.flags.writeable = False
    return column


def _items(name: str, key: str, numbers: Any) -> Iterable[Any]:
    if isinstance(numbers, (str, bytes)) or not isinstance(numbers, Iterable):
        what = f"the policy {name} answered {{{key!r}: …}} with a value of type {type(numbers).__name__}"
        raise CkadTypeError.of("checkpoint", what, f"{_FORM}, each a list of ints")
    # A mask is not a list of numbers, though Python counts with it.
    if isinstance(numbers, np.ndarray) and numbers.dtype == np.bool_:
        what = f"the policy {name} answered {{{key!r}: …}} with a mask"
        raise CkadTypeError.of("checkpoint", what, "give the numbers: np.flatnonzero(mask)")
    return numbers


def _whole(name: str, key: str, item: Any) -> int:
    if isinstance(item, (bool, np.bool_)) or not isinstance(item, (int, np.integer)):
        given = repr(item) if isinstance(item, (int, float, str, np.generic)) else f"of type {type(item).__name__}"
        what = f"the policy {name} answered {{{key!r}: […, {given:.40}, …]}}, which is no int"
        raise CkadTypeError.of("checkpoint", what, f"{_FORM}, each a list of ints")
    if not -(2**63) <= item < 2**63:
        what = f"the policy {name} answered {{{key!r}: […]}} with a number beyond 64 bits"
        raise CkadValueError.of("checkpoint", what, f"{_FORM}, numbered from 0")
    return int(item)
