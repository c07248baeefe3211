"""Bugs that were found by hand, one test each: a minimal program and what it must do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ckad
from ckad.errors import ShapeError, TracerError


def test_a_refilled_buffer_behind_a_captured_view_raises() -> None:
    """A large captured array is read in place; a write through another view of it gave wrong values silently."""
    buffer = np.ones(100_000)
    view = buffer[:]

    def f(x: Any) -> Any:
        y = np.sum(x * buffer)
        view[:] = 100.0
        return y

    with pytest.raises(ValueError, match=r"changed while it was traced.*Hint.*copy"):
        ckad.grad(f)(np.ones(100_000))
    assert buffer.flags.writeable


def test_a_refilled_buffer_behind_an_argument_raises() -> None:
    """As above, where the array is the differentiated argument."""
    buffer = np.ones(100_000)
    view = buffer[:]

    def f(x: Any) -> Any:
        y = np.sum(x * x)
        view[-1] = 100.0
        return y

    with pytest.raises(ValueError, match="changed while it was traced"):
        ckad.grad(f)(buffer)
    assert buffer.flags.writeable


def test_a_refilled_buffer_captured_by_a_nested_transform_raises() -> None:
    """The enclosing trace still reads what a nested one captured."""
    buffer = np.ones(100_000)
    view = buffer[:]

    def f(x: Any) -> Any:
        inner = ckad.grad(lambda z: np.sum(z * z * buffer))(x)
        view[0] = 7.0
        return np.sum(inner)

    with pytest.raises(ValueError, match="changed while it was traced"):
        ckad.grad(f)(np.ones(100_000))


def test_forced_values_are_gone_before_the_final_run(tmp_path: Any) -> None:
    """Values that a force had kept were held, uncounted, beside the final run: its peak was twice the planned one."""
    memray = pytest.importorskip("memray")

    def f(x: Any) -> Any:
        parts = [np.sin(x * k) for k in range(10)]
        total = 0.0
        if np.sum(parts[0]) > -1e9:
            for part in parts:
                total = total + np.sum(part)
        return total

    x = np.ones(1_000_000)
    gradient = ckad.grad(f, checkpoint="sqrt")
    planned = ckad.plan(gradient)(x).peak_bytes
    gradient(x)
    ckad.memory.release()
    with memray.Tracker(tmp_path / "capture.bin"):
        gradient(x)
    with memray.FileReader(tmp_path / "capture.bin") as reader:
        assert reader.metadata.peak_memory < planned + 1_000_000


def test_profile_of_several_runs(policy: str | int) -> None:
    """The results of an earlier run were counted in the measured peak of a later one."""
    data = [np.full((64, 64), 0.1) for _ in range(3)]

    def loss(weights: Any) -> Any:
        h = np.ones((8, 64))
        for w in weights:
            h = np.tanh(h @ w)
        return np.sum(h)

    def trained(weights: Any) -> Any:
        for _ in range(3):
            slopes = ckad.grad(loss, checkpoint=policy)(weights)
            weights = [w - 0.1 * slope for w, slope in zip(weights, slopes, strict=True)]
        return weights

    report = ckad.memory.profile(trained, data)
    assert report.executor_bytes == report.planned_bytes


def test_profile_counts_forced_runs() -> None:
    """Runs that control flow forced were left out of the profile."""

    def f(x: Any) -> Any:
        parts = [np.sin(x * k) for k in range(1, 11)]
        if np.sum(parts[0]) > 1e9:
            return np.sum(parts[1])
        for part in parts[1:]:
            x = x * part
        return np.sum(parts[0])

    gradient = ckad.grad(f)
    x = np.ones(10_000)
    report = ckad.memory.profile(gradient, x)
    assert report.executor_bytes == report.planned_bytes == ckad.plan(gradient)(x).live_bytes
    assert report.executor_bytes > 10 * x.nbytes


def test_a_tuple_returned_without_has_aux_is_named() -> None:
    """The error spoke of an ordinary array that is wanted."""
    with pytest.raises(ShapeError, match=r"returned a tuple.*has_aux"):
        ckad.grad(lambda x: (np.sum(x), x))(np.ones(3))


@pytest.mark.parametrize(
    "use",
    [lambda t: t + 1.0, lambda t: 1.0 - t, lambda t: -t, np.sin, lambda t: t[0], lambda t: f"{t}", np.stack],
    ids=["add", "rsub", "neg", "sin", "index", "format", "stack"],
)
def test_a_surviving_value_names_the_line_that_made_it(use: Any) -> None:
    """The error did not say where the surviving value was made."""
    kept: list[Any] = []

    def f(x: Any) -> Any:
        kept.append(x * 2.0)
        return np.sum(kept[0])

    ckad.grad(f)(np.ones(3))
    line = f.__code__.co_firstlineno + 1
    with pytest.raises(TracerError, match=rf"has_aux.*test_regressions\.py:{line}\)"):
        use(kept[0])
