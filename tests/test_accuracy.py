"""Elementwise kernels against multi-precision arithmetic, and docs/accuracy.md, which has the greatest errors."""

from __future__ import annotations

import re
from typing import Any

import accuracy
import numpy as np
import pytest

ROWS = accuracy.float_rows()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
@pytest.mark.parametrize("dtype", accuracy.DTYPES, ids=str)
def test_a_kernel_is_within_two_ulp(row: dict[str, Any], dtype: np.dtype[Any]) -> None:
    worst = accuracy.worst_of(row, dtype, count=400, suspects=3_000)
    assert worst.error <= accuracy.LIMIT, str(worst)


def test_what_rows_mean_is_said_of_rows() -> None:
    names = {row["name"] for row in ROWS}
    assert accuracy.EXACT.keys() | accuracy.NUMPY.keys() | accuracy.ANY_ZERO <= names


def test_errors_are_measured_in_the_last_place() -> None:
    single, double = accuracy.DTYPES
    third = float(np.float32(1) / np.float32(3))
    assert accuracy.error("divide", single, (1.0, 3.0), third, third)[0] == pytest.approx(1 / 3)
    assert accuracy.error("divide", single, (1.0, 3.0), third - 2.0**-25, third)[0] == pytest.approx(2 / 3)
    # The greatest float is half a unit away from what rounds to infinity; infinity itself is the float after it.
    most = float(np.finfo(np.float64).max)
    assert accuracy.error("multiply", double, (most, 2.0), np.inf, np.inf)[0] == 0
    assert accuracy.error("multiply", double, (most, 2.0), most, np.inf)[0] == 1
    assert accuracy.error("multiply", double, (most, 1.0), np.inf, most)[0] == 1
    # Signs, NaN, and results that are no numbers.
    assert accuracy.error("multiply", double, (5e-324, -0.25), 0.0, -0.0)[0] == np.inf
    assert accuracy.error("multiply", double, (0.0, -1.0), 0.0, -0.0)[0] == np.inf
    assert accuracy.error("log", double, (-1.0,), 0.0, np.nan)[0] == np.inf
    assert accuracy.error("sin", double, (1.0,), np.nan, 0.5)[0] == np.inf
    assert accuracy.error("arctan", double, (np.inf,), np.pi / 2, np.pi / 2)[0] < 0.5
    assert accuracy.error("negative", double, (1.0,), -1.0 - 2.0**-52, -1.0)[0] == np.inf


def test_the_page_has_every_row_within_two_ulp() -> None:
    found = re.findall(r"^\| `(\w+)` \| ([\d.]+) \| .*? \| ([\d.]+) \|", accuracy.PAGE.read_text(), re.MULTILINE)
    assert [name for name, *_ in found] == [row["name"] for row in ROWS]
    for name, *errors in found:
        assert all(float(error) <= accuracy.LIMIT for error in errors), name


@pytest.mark.parametrize("dtype", accuracy.DTYPES, ids=str)
def test_a_power_that_is_a_float_is_that_float(dtype: np.dtype[Any]) -> None:
    largest = 200 if dtype == np.float32 else 90_000
    base = np.arange(-largest, largest + 1).astype(dtype)
    power = accuracy.ckad.jit(np.power)
    for exponent in (1.0, 2.0, 3.0):
        assert np.array_equal(power(base, np.full_like(base, exponent)), base.astype(object) ** int(exponent))
    whole = np.arange(-20, 21).astype(dtype)
    assert np.array_equal(power(np.full_like(whole, 2), whole), np.ldexp(dtype.type(1), whole.astype(int)))
    assert np.array_equal(power(np.square(base), np.full_like(base, 0.5)), np.abs(base))
