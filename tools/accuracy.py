"""How far the elementwise kernels are from the exact results, by multi-precision arithmetic (mpmath).

`python tools/accuracy.py` measures every row of the table of primitives that takes floats, and writes
docs/accuracy.md; `tests/test_accuracy.py` does the same with fewer points. Rows and their NumPy names are the table's.
What a row means is said here in mpmath, where rounding is involved; a row that is not said here picks, compares or
moves bits, and must be NumPy's to the bit. At infinities, NaN and poles, and for the signs of zeros, which mpmath does
not have, a kernel must be NumPy's, too.
"""

from __future__ import annotations

import argparse
import fractions
import itertools
import math
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import mpmath
import numpy as np

import ckad
from ckad import _core

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "accuracy.md"

LIMIT = 2.0
"""Units in the last place that no kernel may exceed."""

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))

mp: Any = mpmath.MPContext()
# Sums of two exponentials near 1 cancel up to about 110 bits of two floats' 53.
mp.prec = 260

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


# What rows mean ------------------------------------------------------------------------------------------------------


class Undefined(ValueError):
    """No number, or one that depends on the sign of a zero."""


def _power(x: Any, y: Any) -> Any:
    if x == 0:
        raise Undefined
    exponent = y * mp.log(abs(x), 2)
    if abs(exponent) > 4000:
        # Beyond every float; only the sign of an odd power matters.
        sign = -1 if x < 0 and y % 2 == 1 else 1
        if x < 0 and y != mp.floor(y):
            raise Undefined
        return sign * mp.mpf(2) ** (4000 if exponent > 0 else -4000)
    return mp.power(x, y)


def _arctan2(y: Any, x: Any) -> Any:
    if x == 0 or y == 0:
        raise Undefined
    return mp.atan2(y, x)


def _exponential(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function that is beyond every float, or as near to its limit, long before ±9999."""
    return lambda x: f(min(max(x, -9999), 9999))


def _logaddexp(x: Any, y: Any) -> Any:
    return max(x, y) + mp.log1p(mp.exp(-min(abs(x - y), 9999)))


def _logaddexp2(x: Any, y: Any) -> Any:
    return max(x, y) + mp.log1p(mp.power(2, -min(abs(x - y), 9999))) / mp.ln2


def _rational(f: Callable[[fractions.Fraction, fractions.Fraction], fractions.Fraction | int]) -> Callable[..., Any]:
    """A function of rational numbers, for quotients and remainders of which every digit counts."""

    def exact(x: Any, y: Any) -> Any:
        result = fractions.Fraction(f(fractions.Fraction(float(x)), fractions.Fraction(float(y))))
        return mp.mpf(result.numerator) / result.denominator

    return exact


EXACT: dict[str, Callable[..., Any]] = {
    "add": lambda x, y: x + y,
    "subtract": lambda x, y: x - y,
    "multiply": lambda x, y: x * y,
    "lmul": lambda x, y: x * y,
    "divide": lambda x, y: x / y,
    "reciprocal": lambda x: 1 / x,
    "square": lambda x: x * x,
    "sqrt": mp.sqrt,
    "cbrt": lambda x: mp.sign(x) * mp.cbrt(abs(x)),
    "power": _power,
    "floor_divide": _rational(lambda x, y: math.floor(x / y)),
    "remainder": _rational(lambda x, y: x - y * math.floor(x / y)),
    "fmod": _rational(lambda x, y: x - y * math.trunc(x / y)),
    "hypot": lambda x, y: mp.sqrt(x * x + y * y),
    "arctan2": _arctan2,
    "ldexp": lambda x, e: mp.ldexp(x, int(min(max(e, -9999), 9999))),
    "exp": _exponential(mp.exp),
    "exp2": _exponential(lambda x: mp.power(2, x)),
    "expm1": _exponential(mp.expm1),
    "log": mp.log,
    "log2": lambda x: mp.log(x) / mp.ln2,
    "log10": mp.log10,
    "log1p": mp.log1p,
    "logaddexp": _logaddexp,
    "logaddexp2": _logaddexp2,
    "sin": mp.sin,
    "cos": mp.cos,
    "tan": mp.tan,
    "arcsin": mp.asin,
    "arccos": mp.acos,
    "arctan": mp.atan,
    "sinh": _exponential(mp.sinh),
    "cosh": _exponential(mp.cosh),
    "tanh": _exponential(mp.tanh),
    "arcsinh": mp.asinh,
    "arccosh": mp.acosh,
    "arctanh": mp.atanh,
    "deg2rad": lambda x: x * mp.pi / 180,
    "rad2deg": lambda x: x * 180 / mp.pi,
}
"""Row → its value for finite operands, as a function of mpmath's numbers."""

NUMPY: dict[str, Callable[..., Any]] = {
    "lmul": lambda c, t: np.where((c == 0) | (t == 0), c.dtype.type(0), c * t),
    "ldexp": lambda x, e: np.ldexp(x, _whole(e)),
    "exponent": lambda x: np.frexp(x)[1].astype(x.dtype),
    "select": lambda condition, x, y: np.where(condition != 0, x, y),
}
"""Rows that are not just the function that the table names."""


def _whole(x: Array) -> Array:
    """NumPy's `ldexp` takes integers."""
    return np.clip(np.nan_to_num(x), -9999, 9999).astype(np.int32)


ANY_ZERO = {"maximum", "minimum", "fmax", "fmin"}
"""Of +0 and −0 NumPy itself gives one or the other, by position in the array."""


def numpy_of(row: dict[str, Any]) -> Callable[..., Any]:
    """The row by NumPy."""
    return NUMPY.get(row["name"]) or getattr(np, row["numpy"])


def float_rows() -> list[dict[str, Any]]:
    """The rows of the table that take floats."""
    return [row for row in _core.elementwise_table() if "float64" in row["dtypes"]]


def kernel(row: dict[str, Any], operands: Sequence[Array]) -> Array:
    """What ckad computes."""
    name = row["name"]

    def f(*values: Any) -> Any:
        inputs = list(values)
        if name == "select":
            inputs[0] = operands[0] != 0
        elif name == "ldexp":
            inputs[1] = _whole(operands[1])
        return np.sum(values[0]), _core.apply(name, *inputs)

    every = tuple(range(len(operands)))
    (_, result), _ = ckad.value_and_grad(f, argnums=every, has_aux=True)(*operands)
    return result


# Points --------------------------------------------------------------------------------------------------------------


def special(dtype: np.dtype[Any]) -> Array:
    """Zeros, infinities, NaN, the ends of subnormal and normal numbers, small whole numbers and halves."""
    info = np.finfo(dtype)
    ends = [info.smallest_subnormal, 3 * info.smallest_subnormal, info.tiny, info.max, info.eps, np.inf]
    ends.append(np.nextafter(info.tiny, dtype.type(0)))
    positive = np.array([0.0, *ends, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 7.0, 1e10], dtype)
    return np.concatenate([positive, -positive, np.array([np.nan], dtype)])


def hard(dtype: np.dtype[Any], rng: np.random.Generator, count: int) -> Array:
    """Where functions have zeros, poles, over- and underflow, or where kernels change from one formula to another, each
    with what lies near it; and multiples of π/2.
    """
    places = [0.25, 0.4375, 0.5, 0.5625, 0.6875, 0.75, 1.0, 1.1875, 1.25, 1.5, 2.0, 2.4375, 10.0, 20.0, 22.0, 40.0]
    places += [math.sqrt(0.5), math.sqrt(2), math.log(2), math.log(2) / 2, math.e, 1e9, 1e-8, 1e-4, 3e-4, 2.0**28]
    places += [709.782712893384, 710.4758600739439, 708.3964185322641, 744.4400719213812, 745.1332191019411, 720.0]
    places += [1022.0, 1024.0, 1074.0, 1075.0, 1e-300, 1e-150, 2.0**-27, 2.0**-54, 2.0**-12, 2.0**-24]
    places += [88.72283905206835, 89.41598629223294, 87.33654475055310, 103.27892990343184, 103.97207708399179]
    places += [126.0, 128.0, 149.0, 150.0, 131072.0, 1048576.0]
    near = np.array(places).astype(dtype)
    near = near[near > 0]
    # Halves of the count: a few units away, and away by a share that is anything.
    chosen = rng.choice(near, count // 2)
    few = (_bits(chosen) + rng.integers(-20, 21, chosen.size).astype(_integer(dtype))).view(dtype)
    share = 1 + rng.choice([-1.0, 1.0], count // 4) * 2.0 ** rng.uniform(-dtype.itemsize * 6, -1, count // 4)
    around = rng.choice(near, count // 4) * share.astype(dtype)
    turns = np.floor(2.0 ** rng.uniform(0, 21, count // 4))
    points = np.concatenate([near, few, around, (turns * (math.pi / 2)).astype(dtype)])
    return points * rng.choice(np.array([-1, 1], dtype), points.size)


def dense(row: dict[str, Any], dtype: np.dtype[Any], rng: np.random.Generator, count: int) -> list[Array]:
    """For each operand: patterns of bits from the whole range, moderate exponents, and the row's own interval."""
    third = count // 3
    integer = _integer(dtype)
    operands = []
    for low, high in row["sample"]:
        info = np.iinfo(integer)
        patterns = rng.integers(info.min, info.max, count - 2 * third, dtype=integer, endpoint=True).view(dtype)
        moderate = 2.0 ** rng.uniform(-30, 12, third) * rng.choice([-1.0, 1.0], third)
        operands.append(np.concatenate([patterns, moderate.astype(dtype), rng.uniform(low, high, third).astype(dtype)]))
    return operands


def pairs(row: dict[str, Any], dtype: np.dtype[Any], rng: np.random.Generator, count: int) -> Iterator[list[Array]]:
    """Operands that have to do with each other."""
    x, y = dense(row, dtype, rng, count)
    yield [x, x]
    yield [x, -x]
    scales = np.array([-1.0, 0.5, 1.0, 1.0, 2.0, 3.0], dtype)
    close = 1 + rng.choice([-1.0, 1.0], x.size) * 2.0 ** rng.uniform(-54, 3, x.size)
    yield [x, (x * close).astype(dtype) * rng.choice(scales, x.size)]
    yield [(y * close).astype(dtype), y]
    yield [x, np.round(8 * rng.standard_normal(x.size)).astype(dtype)]
    limits = (-745.2, 709.8) if dtype == np.float64 else (-104.0, 88.8)
    if row["name"] == "power":
        # Powers from the least to the greatest float, of every base.
        base = np.abs(np.concatenate([x[: x.size // 2], (1 + 0.01 * close[x.size // 2 :]).astype(dtype)]))
        yield [base, (rng.uniform(*limits, base.size) / np.log(base.astype(np.float64))).astype(dtype)]
    if row["name"].startswith("logaddexp"):
        exponential, logarithm = (np.exp2, np.log2) if row["name"] == "logaddexp2" else (np.exp, np.log)
        x = np.concatenate([-(2.0 ** rng.uniform(-30, 0, count // 2)), rng.uniform(-3.0, 0.0, count // 2)]).astype(
            dtype
        )
        yield [x, rng.uniform(-3.0, 0.5, x.size).astype(dtype)]
        # The sum of the exponentials is nearly 1.
        yield [x, logarithm(1 - exponential(x.astype(np.float64))).astype(dtype)]


def points(row: dict[str, Any], dtype: np.dtype[Any], rng: np.random.Generator, count: int) -> list[Array]:
    """Operands for a row: about `count` points, and all special values with each other."""
    arity = row["arity"]
    if arity == 1:
        sets = [[special(dtype)], [hard(dtype, rng, count // 2)], dense(row, dtype, rng, count // 2)]
    else:
        grid = [np.array(column, dtype) for column in zip(*itertools.product(special(dtype), repeat=2), strict=True)]
        if arity == 2:
            sets = [grid, dense(row, dtype, rng, count // 2), *pairs(row, dtype, rng, count // 8)]
            sets.append([hard(dtype, rng, count // 4), hard(dtype, rng, count // 4)])
        else:
            sets = [[np.tile(np.array([0, 1], dtype), grid[0].size), *(np.repeat(column, 2) for column in grid)]]
    return [np.concatenate([operands[index] for operands in sets]) for index in range(arity)]


def _integer(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(f"i{dtype.itemsize}")


def _bits(x: Array) -> Array:
    return x.view(_integer(x.dtype))


# Errors --------------------------------------------------------------------------------------------------------------


@dataclass
class Worst:
    """The greatest error of a row, in units of the exact result's last place, and where it is."""

    row: str
    dtype: str
    points: int
    error: float
    operands: tuple[float, ...]
    computed: float
    exact: str

    def __str__(self) -> str:
        where = ", ".join(repr(operand) for operand in self.operands)
        return f"{self.row}({where}) in {self.dtype}: {self.computed!r}, not {self.exact}: {self.error:.3g} ulp"


def error(
    name: str, dtype: np.dtype[Any], operands: Sequence[float], computed: float, numpy: float
) -> tuple[float, str]:
    """Distance from the exact result in units of its last place, and that result. Infinite where a sign, an infinity or
    a NaN is wrong.
    """
    exact = _exact(name, operands)
    if exact is None or exact == 0:
        if computed == numpy or (math.isnan(computed) and math.isnan(numpy)):
            same_sign = math.copysign(1, computed) == math.copysign(1, numpy)
            return (0.0 if same_sign or computed or name in ANY_ZERO else math.inf), repr(numpy)
        if name not in EXACT or not (math.isfinite(computed) and math.isfinite(numpy)):
            return math.inf, repr(numpy)
        exact = mp.mpf(numpy)
    if math.isnan(computed) or math.copysign(1, computed) != mp.sign(exact):
        return math.inf, str(mp.nstr(exact, 20))
    info = np.finfo(dtype)
    beyond = mp.mpf(2) ** int(info.maxexp)
    # An infinity is the float after the greatest.
    found = mp.mpf(computed) if math.isfinite(computed) else mp.sign(computed) * beyond
    clamped = min(max(exact, -beyond), beyond)
    exponent = min(max(mp.frexp(clamped)[1] - 1, int(info.minexp)), int(info.maxexp) - 1)
    unit = mp.ldexp(1, exponent - int(info.nmant))
    return float(abs(found - clamped) / unit), str(mp.nstr(exact, 20))


def _exact(name: str, operands: Sequence[float]) -> Any:
    if name not in EXACT or not all(map(math.isfinite, operands)):
        return None
    try:
        exact = EXACT[name](*map(mp.mpf, operands))
    except (ValueError, ZeroDivisionError):
        return None
    return exact if isinstance(exact, mp.mpf) and mp.isfinite(exact) else None


def worst_of(row: dict[str, Any], dtype: np.dtype[Any], count: int, suspects: int) -> Worst:
    """The worst of about `count` points, and of those that wider floats single out among `suspects` more."""
    name = row["name"]
    rng = np.random.default_rng([ord(letter) for letter in name])
    with np.errstate(all="ignore"):
        operands = points(row, dtype, rng, count)
        if suspects and name in EXACT:
            more = suspicious(row, points(row, dtype, rng, suspects))
            operands = [np.concatenate(both) for both in zip(operands, more, strict=True)]
        computed, numpy = kernel(row, operands), numpy_of(row)(*operands)
    assert computed.dtype == numpy.dtype, f"{name}: {computed.dtype}, and {numpy.dtype} in NumPy"
    worst = Worst(name, str(dtype), computed.size, -1.0, (), 0.0, "")
    columns = zip(*(operand.tolist() for operand in operands), strict=True)
    for values, found, other in zip(columns, computed.tolist(), numpy.tolist(), strict=True):
        distance, exact = error(name, dtype, values, found, other)
        if distance > worst.error:
            worst.error, worst.operands, worst.computed, worst.exact = distance, values, found, exact
    return worst


def suspicious(row: dict[str, Any], operands: list[Array], most: int = 200) -> list[Array]:
    """The points where the kernel is farthest from NumPy's function in wider floats, which is nearly exact."""
    wider = np.float64 if operands[0].dtype == np.float32 else np.longdouble
    computed = kernel(row, operands)
    guess = numpy_of(row)(*(operand.astype(wider) for operand in operands))
    unit = np.abs(np.spacing(guess.astype(computed.dtype)))
    distance = np.abs(computed.astype(wider) - guess) / unit
    distance[~np.isfinite(distance)] = 0
    chosen = np.argsort(distance)[-most:]
    return [operand[chosen] for operand in operands]


# The page ------------------------------------------------------------------------------------------------------------


def _job(job: tuple[dict[str, Any], np.dtype[Any], int, int]) -> Worst:
    return worst_of(*job)


def measured(isa: str, count: int, suspects: int, processes: int) -> list[Worst]:
    """Every row and dtype on an instruction set."""
    # Of float32 so many points are quickly singled out by float64.
    jobs = [
        (row, dtype, count, suspects * (10 if dtype == np.float32 else 1)) for row in float_rows() for dtype in DTYPES
    ]
    os.environ["CKAD_ISA"] = isa
    found = []
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for job, worst in zip(jobs, pool.imap(_job, jobs), strict=True):
            print(f"\r\033[K{isa or 'widest'}: {job[0]['name']}", end="", file=sys.stderr, flush=True)
            if worst.error > LIMIT:
                print(f"\r\033[K{worst}", file=sys.stderr)
            found.append(worst)
    print("\r\033[K", end="", file=sys.stderr)
    return found


HEADER = """\
# Accuracy of the elementwise kernels

No kernel is farther than 2 ulp from the exact result, in float32 and float64, over the whole range: subnormal numbers,
arguments near poles and near over- and underflow, and sines of the greatest floats among them. An ulp is the distance
from the exact result to the next float away from zero; where that float would be infinite, or the result is subnormal,
it is the distance between the floats there. An error of 0.5 is that of a correctly rounded result.

`make accuracy` measures this table against multi-precision arithmetic (mpmath), and `tests/test_accuracy.py` holds
every kernel to it on fewer points. The points of a row are all pairs of special values; patterns of bits from the whole
range; the neighbourhoods of zeros, poles, limits and of the places where a kernel changes its formula; operands that
are nearly equal or otherwise cancel; and those of many more for which NumPy, in a wider float, singles this kernel out.
The table has the greatest error that was found, with AVX-512 or AVX2 (which agree by bits) and with plain code, and
where. A row with 0 is exact everywhere: it chooses, compares or moves bits. Signs of zeros, infinities and NaN are
NumPy's throughout, but that of a zero which `maximum`, `minimum`, `fmax` or `fmin` chose among two.

`floor_divide` takes the steps of NumPy's, so that a quotient of which the float has at most one binary place left
(from 2²² on in float32, from 2⁵¹ on in float64) may be one too small.
"""


def page(found: list[Worst]) -> str:
    """docs/accuracy.md."""
    by_row: dict[str, dict[str, Worst]] = {}
    for worst in found:
        dtypes = by_row.setdefault(worst.row, {})
        if worst.dtype not in dtypes or worst.error > dtypes[worst.dtype].error:
            dtypes[worst.dtype] = worst
    points = sum(worst.points for worst in found)
    lines = [HEADER, f"Compared with mpmath {mpmath.__version__}: {points:,} results.", ""]
    lines += ["| primitive | float32, ulp | at | float64, ulp | at |", "|---|--:|---|--:|---|"]
    for row, dtypes in by_row.items():
        cells = [cell for dtype in DTYPES for cell in _cells(dtypes[str(dtype)])]
        lines.append(f"| `{row}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cells(worst: Worst) -> tuple[str, str]:
    if worst.error == 0:
        return "0", ""
    # Rounded up: the table must not promise more than was found.
    error = math.ceil(1000 * worst.error - 1e-6) / 1000
    numbers = (np.dtype(worst.dtype).type(operand) for operand in worst.operands)
    return f"{error:.3f}", ", ".join(f"`{number!s}`" for number in numbers)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--points", type=int, default=20_000, help="points of a row and dtype, about")
    parser.add_argument("--suspects", type=int, default=100_000, help="points that wider floats choose from")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--isa", nargs="*", default=["", "scalar"], help="values of CKAD_ISA; '' is the widest")
    options = parser.parse_args()
    found = [
        worst for isa in options.isa for worst in measured(isa, options.points, options.suspects, options.processes)
    ]
    if any(worst.error > LIMIT for worst in found):
        raise SystemExit(f"more than {LIMIT:.0f} ulp: docs/accuracy.md is left as it was")
    PAGE.write_text(page(found))


if __name__ == "__main__":
    main()
