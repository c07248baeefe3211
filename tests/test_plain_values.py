"""What depends on nothing differentiated is NumPy's own: functions without a traced implementation run on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ckad
from ckad.errors import CkadError

D = np.array([0.5, 2.0, 1.5, -1.0])
WRITTEN: dict[str, Callable[[Any], Any]] = {
    "median": lambda d: np.median(d),
    "percentile": lambda d: np.percentile(d, 30),
    "fft": lambda d: np.fft.fft(d),
    "fft and back": lambda d: np.fft.ifft(np.fft.fft(d) * 2.0).real,
    "histogram": lambda d: np.histogram(d, bins=3),
    "searchsorted": lambda d: np.searchsorted(np.sort(d), d),
    "a comparison": lambda d: np.argwhere(d > 1),
    "solve": lambda d: np.linalg.solve(np.eye(4) + np.outer(d, d), d),
    "linspace": lambda d: np.linspace(0, d[1], 5),
    "nested lists": lambda d: np.block([[d, d], [d, d]]),
    "split": lambda d: np.split(d, 2),
    "accumulate": lambda d: np.add.accumulate(d),
    "reduceat": lambda d: np.add.reduceat(d, [0, 2]),
    "a ufunc unknown to the table": lambda d: np.frompyfunc(lambda a: a + 1.0, 1, 1)(d).astype(float),
    "text": lambda d: np.array2string(d),
    "a scalar": lambda d: np.isclose(d[0], 0.5) and np.unwrap(d[:1] + 9.0),
}


def flat(value: Any) -> list[Any]:
    return [part for item in value for part in flat(item)] if isinstance(value, (list, tuple)) else [value]


@pytest.mark.parametrize("name", WRITTEN)
def test_functions_run_as_numpys(name: str) -> None:
    f, seen = WRITTEN[name], []

    def g(w: Any, d: Any) -> Any:
        seen.extend(flat(f(d)))
        seen.extend(flat(f(ckad.stop_gradient(w * d))))
        return w

    ckad.grad(g)(1.0, D)
    expected = flat(f(D))
    assert len(seen) == 2 * len(expected)
    for found, wanted in zip(seen, [*expected, *expected], strict=True):
        assert type(found) is type(wanted)
        np.testing.assert_array_equal(found, wanted)
        assert getattr(found, "dtype", None) == getattr(wanted, "dtype", None)


def test_the_result_is_a_constant() -> None:
    f = lambda w, d: np.sum(w * np.median(d)) ** 2
    assert ckad.grad(f)(1.5, D) == pytest.approx(2 * 1.5 * np.median(D) ** 2)
    assert ckad.hvp(lambda w: f(w, D), 1.5, 1.0) == pytest.approx(2 * np.median(D) ** 2)
    assert ckad.grad(f, argnums=0)(np.float32(1.5), D) == pytest.approx(2 * 1.5 * np.median(D) ** 2)


def test_a_library_of_ufuncs() -> None:
    special = pytest.importorskip("scipy.special")
    f = lambda w, d: np.sum(w * special.erf(d))
    assert ckad.grad(f)(1.0, D) == pytest.approx(np.sum(special.erf(D)))


def test_ordinary_arrays_are_written_into() -> None:
    def f(w: Any, d: Any, i: Any) -> Any:
        counts, total, sines = np.zeros(3), np.zeros(4), np.zeros(4)
        np.add.at(counts, i, d)
        total += d
        np.sin(d, out=sines)
        np.copyto(total, d * 2, where=d > 0)
        return w * (np.sum(counts) + np.sum(total * sines) + counts[0])

    i = np.array([0, 1, 0, 2])
    assert ckad.grad(f)(1.0, D, i) == pytest.approx(f(1.0, D, i))


@pytest.mark.parametrize(
    "f",
    [
        lambda x, d: np.interp(x, np.sort(d), d),
        lambda x, d: np.median(d * x),
        lambda x, d: np.copyto(d, 2.0),
        lambda x, d: np.put(d, [0], 2.0),
        lambda x, d: np.add.at(d, [0], 1.0),
        lambda x, d: np.median(d, axis=0, keepdims=True, out=ckad.stop_gradient(x * d[:1])),
        lambda x, d: np.shares_memory(d, d),
        lambda x, d: np.multiply(d, x, out=np.zeros(4)),
        lambda x, d: ckad.grad(lambda y, e: y * np.median(e))(1.0, d * x),
        lambda x, d: ckad.grad(lambda y: y * np.median(d * x))(1.0),
        lambda x, d: ckad.jvp(lambda y: y * np.add.accumulate(d * x), (1.0,), (1.0,))[1],
    ],
)
def test_what_would_lose_a_gradient_or_a_write_is_refused(f: Callable[..., Any]) -> None:
    before = D.copy()
    with pytest.raises(CkadError):
        ckad.grad(lambda x, d: np.sum(f(x, d)))(1.0, D)
    np.testing.assert_array_equal(D, before)


def test_what_is_returned_does_not_open_the_callers_array() -> None:
    def f(w: Any, d: Any) -> Any:
        parts = np.split(d, 2)
        parts[0][0] = 7.0
        return w

    before = D.copy()
    with pytest.raises(ValueError, match="read-only"):
        ckad.grad(f)(1.0, D)
    np.testing.assert_array_equal(D, before)
    assert D.flags.writeable


def test_arguments_of_other_dtypes_are_the_callers() -> None:
    for other in (np.array(["a", "b"]), D * 1j, np.array(["2020-01-01"], "M8[D]"), np.array([None]), np.ones(2, "f2")):
        seen: list[Any] = []

        def f(w: Any, other: Any, tree: Any, seen: list[Any] = seen) -> Any:
            seen.extend([other, tree["a"]])
            return w * other.size * tree["b"][0]

        assert ckad.grad(f)(2.0, other, {"a": other, "b": np.full(1, 3.0)}) == 3.0 * other.size
        assert seen[0] is other
        assert seen[1] is other
