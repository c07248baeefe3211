"""NumPy's functions on traced values: NumPy's values for all operands, right derivatives, no silent surprise."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy_functions import dispatched

import ckad
from ckad.errors import CkadError, DTypeError

_rng = np.random.default_rng(7)


def spread(low: float, high: float, *shape: int) -> Any:
    """Random values, well apart: no finite difference changes their order."""
    return _rng.permutation(np.linspace(low, high, int(np.prod(shape)))).reshape(shape)


def evaluated(f: Callable[..., Any], *args: Any) -> Any:
    """What f computes on traced arguments: floats differentiated, other arrays traced as constants."""
    floats = {k: x for k, x in enumerate(args) if np.asarray(x).dtype.kind == "f"}
    others = {k: x for k, x in enumerate(args) if k not in floats}

    def recorded(floats: Any, others: Any) -> Any:
        return 0.0, f(*({**floats, **others}[k] for k in range(len(args))))

    return ckad.value_and_grad(recorded, has_aux=True)({**floats, "nothing": 1.0}, others)[0][1]


def assert_same(found: Any, expected: Any, ulps: float = 8) -> None:
    if isinstance(expected, (tuple, list)):
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            assert_same(a, b, ulps)
        return
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    if expected.dtype.kind == "f":
        largest = np.max(np.abs(expected), initial=0.0, where=np.isfinite(expected))
        tolerance = ulps * np.finfo(expected.dtype).eps
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * largest)
    else:
        np.testing.assert_array_equal(found, expected)


def assert_derivatives(f: Callable[..., Any], *args: Any) -> None:
    ckad.check_grads(f, args, order=2, rtol=1e-6, atol=1e-6)


# Universal functions ------------------------------------------------------------------------------------------------

# Where a function is to be differentiated; elsewhere: (0.3, 0.9), inside every domain that is not listed.
DOMAINS: dict[str, tuple[float, float]] = {"arccosh": (1.3, 3.0)}
UNSUPPORTED_UFUNCS = {"isnat"}
NO_DERIVATIVE = {"floor_divide", "nextafter", "spacing"}

UFUNCS: dict[str, np.ufunc] = {
    name: ufunc for name, ufunc in vars(np).items() if isinstance(ufunc, np.ufunc) and ufunc.__name__ == name
}
SUPPORTED = {name: u for name, u in UFUNCS.items() if name not in UNSUPPORTED_UFUNCS and u.signature is None}

INTERESTING = np.array(
    [0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.0, 709.0, -745.0, 1e-300, -1e300, 5e-324, np.inf, -np.inf, np.nan]
)


def operands_of(ufunc: np.ufunc, dtype: Any, shapes: list[tuple[int, ...]]) -> list[Any] | None:
    """Operands of one dtype in the function's domain, or None where NumPy has no loop for that dtype."""
    low, high = DOMAINS.get(ufunc.__name__, (0.3, 0.9))
    scale = 1 if np.dtype(dtype).kind == "f" else 12
    operands = [np.asarray(scale * spread(low, high, *shape)).astype(dtype) for shape in shapes[: ufunc.nin]]
    if ufunc is np.ldexp:
        operands[1] = np.asarray(_rng.integers(-3, 4, shapes[1]))
    try:
        with np.errstate(all="ignore"):
            result = ufunc(*operands)
    except TypeError:
        return None
    results = result if isinstance(result, tuple) else (result,)
    return operands if all(r.dtype != np.float16 and r.dtype.kind in "fiub" for r in results) else None


SHAPES = {
    "same": [(3, 4), (3, 4)],
    "broadcast": [(3, 1), (2, 1, 4)],
    "scalar": [(), (5,)],
    "both 0-d": [(), ()],
    "zero-size": [(0, 3), (1, 3)],
}


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "int32", "uint8", "bool"])
@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("name", SUPPORTED)
def test_ufunc_value(name: str, shapes: list[tuple[int, ...]], dtype: str) -> None:
    ufunc = SUPPORTED[name]
    operands = operands_of(ufunc, dtype, shapes)
    if operands is None:
        with pytest.raises((TypeError, CkadError)):
            evaluated(ufunc, *[np.ones(2, dtype)] * ufunc.nin)
        return
    with np.errstate(all="ignore"):
        expected = ufunc(*operands)
    try:
        with np.errstate(all="ignore"):
            found = evaluated(ufunc, *operands)
    except DTypeError as error:
        # Integers and bools may be refused, saying so; they are never answered otherwise than by NumPy.
        assert np.dtype(dtype).kind != "f"
        assert "Hint" in str(error)  # noqa: PT017
        return
    assert_same(found, expected)


@pytest.mark.parametrize("name", SUPPORTED)
def test_ufunc_at_interesting_values(name: str) -> None:
    ufunc = SUPPORTED[name]
    x, y = np.meshgrid(INTERESTING, INTERESTING)
    operands = [x, y][: ufunc.nin]
    if operands_of(ufunc, "float64", [(1,), (1,)]) is None or ufunc is np.ldexp:
        return  # no function of floats alone
    with np.errstate(all="ignore"):
        expected = ufunc(*operands)
    found = evaluated(ufunc, *operands)
    pairs = zip(found, expected, strict=True) if isinstance(expected, tuple) else [(found, expected)]
    for a, b in pairs:
        if b.dtype == bool:
            np.testing.assert_array_equal(a, b)
        else:
            with np.errstate(all="ignore"):
                near = np.abs(a - b) <= 8 * np.spacing(np.abs(b))
            wrong = ~((a == b) | (np.isnan(a) & np.isnan(b)) | near)
            assert not np.any(wrong), [(*(operand[wrong] for operand in operands), a[wrong], b[wrong])]
            if name not in ("fmax", "fmin"):  # of two zeros, NumPy gives either
                np.testing.assert_array_equal(np.signbit(a[b == 0]), np.signbit(b[b == 0]))


@pytest.mark.parametrize("name", SUPPORTED)
def test_ufunc_derivative(name: str) -> None:
    ufunc = SUPPORTED[name]
    # No two are near a tie, no quotient is near an integer.
    operands = [np.array([[0.31], [0.52], [0.73]]), np.array([0.40, 0.45, 0.61, 0.89])][: ufunc.nin]
    if operands_of(ufunc, "float64", [(1,), (1,)]) is None or name in NO_DERIVATIVE:
        return
    if ufunc is np.ldexp:
        assert_derivatives(lambda x: np.ldexp(x, np.array([-1, 0, 3, 2])), operands[0])
    elif ufunc is np.arccosh:
        assert_derivatives(lambda x: np.arccosh(1.0 + x), *operands)
    elif ufunc.nout == 2:
        assert_derivatives(lambda *x: ufunc(*x)[ufunc is np.divmod], *operands)
    elif ufunc(*operands).dtype.kind != "f":
        return
    else:
        assert_derivatives(ufunc, *operands)


@pytest.mark.parametrize("name", sorted(UNSUPPORTED_UFUNCS))
def test_unsupported_ufunc_names_itself(name: str) -> None:
    if name in UFUNCS:
        with pytest.raises((CkadError, TypeError), match=name):
            ckad.grad(lambda x: np.sum(UFUNCS[name](x)))(np.ones(3))


REDUCIBLE = {name: ufunc for name, ufunc in SUPPORTED.items() if ufunc.nin == 2 and ufunc.nout == 1}
REDUCTIONS: list[dict[str, Any]] = [
    {},
    {"axis": 1},
    {"axis": None},
    {"axis": (0, 2)},
    {"axis": -1, "keepdims": True},
    {"initial": 2},
    {"initial": None},
    {"axis": 2, "where": _rng.random((2, 3, 4)) > 0.4},
    {"axis": 1, "where": np.array([True, False, True, False]), "initial": 1},
    {"axis": 3},
]


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "uint8", "bool"])
@pytest.mark.parametrize("name", REDUCIBLE)
def test_ufunc_reduce(name: str, dtype: str) -> None:
    """NumPy's values, dtypes and errors, for every binary ufunc."""
    reduce = REDUCIBLE[name].reduce
    values = np.where(_rng.random((2, 3, 4)) > 0.8, 1.0, spread(1, 12, 2, 3, 4))
    for x in (values.astype(dtype), np.zeros((2, 0, 4), dtype), np.asfortranarray(values[:, :1].astype(dtype))):
        for given in REDUCTIONS:
            keywords = dict(given)
            if not isinstance(keywords.get("where", True), bool):
                keywords["where"] = np.broadcast_to(keywords["where"], (2, 3, 4))[:, : x.shape[1]]
            call = lambda x, keywords=keywords: reduce(x, **keywords)
            try:
                with np.errstate(all="ignore"):
                    expected = call(x)
            except (TypeError, ValueError) as error:
                with pytest.raises((TypeError, ValueError, CkadError)):
                    evaluated(call, x)
                assert str(error)  # noqa: PT017
                continue
            if name in ("power", "arctan2") and expected.dtype.kind == "f":
                # NumPy's own kernels of these two return the last step alone where the axis is the innermost one.
                with np.errstate(all="ignore"):
                    expected = np.asarray(call(x.astype(np.longdouble))).astype(expected.dtype)[()]
            if expected.dtype == np.float16:
                with pytest.raises((DTypeError, TypeError)):
                    evaluated(call, x)
                continue
            assert_same(evaluated(call, x), expected, ulps=32)


@pytest.mark.parametrize("name", REDUCIBLE)
def test_ufunc_reduce_derivative(name: str) -> None:
    reduce = REDUCIBLE[name].reduce
    x = np.array([[5.3, 4.7, 6.1], [2.2, 1.9, 2.6], [0.93, 0.8, 1.1]])  # no remainder is near a jump
    if name in NO_DERIVATIVE or name == "ldexp" or operands_of(REDUCIBLE[name], "float64", [(1,), (1,)]) is None:
        return
    try:
        if reduce(x).dtype.kind != "f":
            return
    except TypeError:
        return
    assert_derivatives(lambda x: reduce(x, axis=0), x)
    mask = np.array([[True], [False], [True]])
    assert_derivatives(lambda x, initial: reduce(x, initial=initial, where=mask), x, np.float64(0.77))


def test_reductions_share_ties_and_skip_nan() -> None:
    x = np.array([[1.0, 2.0, np.nan], [1.0, 0.5, np.nan]])
    assert_same(evaluated(np.fmax.reduce, x), np.fmax.reduce(x))
    gradient = ckad.grad(lambda x: np.sum(np.fmax.reduce(x)[:2]))(x)
    np.testing.assert_array_equal(gradient, [[0.5, 1, 0], [0.5, 0, 0]])


def test_frexp_of_every_kind_of_number() -> None:
    for dtype in (np.float64, np.float32):
        info = np.finfo(dtype)
        x = np.array(
            [0, -0.0, np.inf, -np.inf, np.nan, 1, -3, 0.5, info.max, info.tiny, info.smallest_subnormal], dtype
        )
        assert_same(evaluated(np.frexp, x), np.frexp(x), ulps=0)
    value, gradient = ckad.value_and_grad(lambda x: np.sum(np.frexp(x)[0]))(np.array([3.0, 0.1]))
    np.testing.assert_array_equal(gradient, [0.25, 8.0])
    assert value == 0.75 + 0.8


def test_bitwise_count_and_ldexp_of_all_integers() -> None:
    for dtype in ("int8", "uint8", "int32", "uint64", "int64", "bool"):
        x = np.array([-128, -1, 0, 1, 100]).astype(dtype)
        assert_same(evaluated(np.bitwise_count, x), np.bitwise_count(x))
    x = np.array([1.5, -2.5, 3.5, 1.0, 0.0], np.float32)
    for dtype in ("int8", "uint8", "uint16", "int32", "uint32", "int64"):
        e = np.array([0, 1, 2, 100, 127]).astype(dtype)
        assert_same(evaluated(np.ldexp, x, e), np.ldexp(x, e))
    e = np.array([2**40, -(2**40), 200, -149, -160])
    with np.errstate(all="ignore"):
        assert_same(evaluated(np.ldexp, x, e), np.ldexp(x, e))
    with pytest.raises(DTypeError, match="uint64"):
        evaluated(np.ldexp, x, e.astype(np.uint64))


def test_ufunc_outer() -> None:
    a, b = spread(-2.0, 2.0, 2, 3), spread(-1.7, 1.8, 4)
    for name in ("add", "multiply", "maximum", "hypot"):
        assert_same(evaluated(UFUNCS[name].outer, a, b), UFUNCS[name].outer(a, b))
        assert_derivatives(UFUNCS[name].outer, a, b)


def test_mixed_dtypes_are_promoted_as_numpy_does() -> None:
    kinds = [np.float64, np.float32, np.int64, np.int32, np.int8, np.uint8, np.uint16, np.bool_]
    for a in kinds:
        for b in kinds:
            x, y = np.array([1, 0, 1]).astype(a), np.array([1, 1, 1]).astype(b)
            for ufunc in (np.add, np.divide, np.maximum, np.equal):
                assert_same(evaluated(ufunc, x, y), ufunc(x, y))
        for weak in (2, 0.5, True, np.float64(0.5), np.float32(0.5), np.int64(2)):
            x = np.array([1, 0, 1]).astype(a)
            assert_same(evaluated(lambda x, weak=weak: x * weak, x), x * weak)
            assert_same(evaluated(lambda x, weak=weak: weak + x, x), weak + x)


# Functions ----------------------------------------------------------------------------------------------------------

VARIABLES: dict[str, Any] = {
    "x": spread(0.41, 1.63, 3, 4),
    "y": spread(0.44, 1.57, 3, 4),
    "q": spread(0.41, 1.63, 4, 4),
    "t": spread(0.41, 1.63, 2, 3, 4),
    "u": spread(0.41, 1.63, 2, 4, 3),
    "v": spread(0.41, 1.63, 4),
    "w": spread(0.44, 1.57, 4),
    "s": np.array(0.7),
    "e": np.zeros((0, 3)),
}

# Function, and expressions in the variables above, separated by two spaces. Each is evaluated in four dtypes and
# differentiated twice.
CASES_TEXT = """
sum:  np.sum(x)  np.sum(x, 0)  np.sum(x, axis=-1, keepdims=True)  np.sum(t, axis=(0, 2))  np.sum(e)  np.sum(e, axis=0)
    np.sum(e, axis=1)  np.sum(s)  np.sum(x, axis=())  np.sum(x, initial=2)  np.sum(x, dtype=np.float32)  x.sum(1)
    x.sum(axis=0, keepdims=True)
mean:  np.mean(x)  np.mean(t, axis=(1, -1))  np.mean(x, axis=1, keepdims=True)  np.mean(s)  x.mean(0)
    np.mean(x, dtype=np.float64)
var:  np.var(x)  np.var(x, axis=0)  np.var(x, axis=1, ddof=1)  np.var(t, axis=(0, 1), keepdims=True)  x.var()
    np.var(x, correction=1)
std:  np.std(x)  np.std(x, axis=1, keepdims=True)  np.std(x, axis=0, ddof=1)  x.std(axis=1)
prod:  np.prod(x)  np.prod(x, axis=0)  np.prod(t, axis=(0, 2), keepdims=True)  np.prod(e)  np.prod(e, axis=0)
    np.prod(x, initial=2)  x.prod(1)  np.prod(s)
max:  np.max(x)  np.max(x, axis=1)  np.max(t, axis=(0, 2), keepdims=True)  np.max(x, initial=1)  np.max(e, axis=1)
    x.max(0)  np.max(s)
min:  np.min(x)  np.min(x, axis=1)  np.min(t, axis=(0, 2), keepdims=True)  np.min(x, axis=0, initial=1)
    np.min(e, axis=-1)  x.min(axis=0)
amax:  np.amax(x, 1)
amin:  np.amin(x, 1)
argmax:  np.argmax(x)  np.argmax(x, axis=0)  np.argmax(x, axis=-1, keepdims=True)  x.argmax(1)
    np.argmax(x, keepdims=True)
argmin:  np.argmin(x)  np.argmin(x, axis=0)  x.argmin(axis=1)
any:  np.any(x > 1)  np.any(x, axis=0)  np.any(e)  np.any(x > 1.5, axis=1, keepdims=True)  x.any(0)
all:  np.all(x > 1)  np.all(x, axis=0)  np.all(e)  (x > 0.5).all(axis=1)
cumsum:  np.cumsum(x)  np.cumsum(x, axis=0)  np.cumsum(t, axis=-2)  x.cumsum(1)  np.cumsum(e, axis=0)  np.cumsum(s)
cumprod:  np.cumprod(x)  np.cumprod(x, axis=0)  np.cumprod(t, axis=-2)  x.cumprod(1)  np.cumprod(e, axis=0)
dot:  np.dot(x, v)  np.dot(v, w)  np.dot(x, q)  np.dot(t, q)  np.dot(t, u)  np.dot(x, 2)  np.dot(s, x)  x.dot(q)
    np.dot(v, q)
vdot:  np.vdot(x, y)  np.vdot(v, w)  np.vdot(s, s)
inner:  np.inner(v, w)  np.inner(x, y)  np.inner(t, x)  np.inner(s, v)
outer:  np.outer(v, w)  np.outer(x, v)  np.outer(s, v)
matmul:  x @ q  v @ w  x @ v  v @ q  t @ u  t @ q  x @ u  np.matmul(x, y.T)  e @ e.T  e.T @ e  np.vecdot(x, y)
    np.matvec(x, v)  np.vecmat(v, q)
tensordot:  np.tensordot(x, y)  np.tensordot(x, q, 1)  np.tensordot(v, w, 0)  np.tensordot(t, u, ([2, 1], [1, 2]))
    np.tensordot(x, y, axes=(0, 0))
einsum:  np.einsum('ij,jk', x, q)  np.einsum('ij->ji', x)  np.einsum('ii', q)  np.einsum('ii->i', q)
    np.einsum('ij,kj->ik', x, y)  np.einsum('...j,j->...', t, v)  np.einsum('ij,ij,ij->i', x, y, x)
    np.einsum('i,j->ij', v, w)  np.einsum('ij->', x)  np.einsum('bij,bjk->bik', t, u)  np.einsum('i,ij,j', v, q, w)
    np.einsum('ij->j', x)  np.einsum(',i->i', s, v)
where:  np.where(x > 1, x, y)  np.where(x > 1, 0, y)  np.where(v > 1, x, s)
    np.where(np.array([True, False, True, True]), v, w)  np.where(x > 1)  np.where(e > 0, e, 1)
clip:  np.clip(x, 0.5, 1.2)  np.clip(x, None, 1.2)  np.clip(x, v * 1.013, None)  x.clip(0.5, 1.2)  np.clip(x, min=0.7)
    x.clip(max=1)
concatenate:  np.concatenate([x, y])  np.concatenate((x, q), axis=0)  np.concatenate([x, y, x], axis=-1)
    np.concatenate([x, q], axis=None)  np.concatenate([e, e])  np.concatenate([x, np.ones((1, 4))])
stack:  np.stack([x, y])  np.stack([v, w], axis=1)  np.stack([s, s, s])  np.stack([x, y], -1)  np.stack([v[0], v[1]])
vstack:  np.vstack([x, q])  np.vstack([v, w])
hstack:  np.hstack([x, y])  np.hstack([v, w])
reshape:  np.reshape(x, (4, 3))  np.reshape(x, -1)  x.reshape(2, 6)  x.reshape((2, -1))  np.reshape(s, (1, 1))
    np.reshape(x, (4, 3), order='F')  x.T.reshape(3, 4)  np.reshape(e, (3, 0))
ravel:  np.ravel(x)  x.ravel()  np.ravel(x, 'F')  x.flatten()  np.ravel(s)
transpose:  np.transpose(x)  np.transpose(t, (2, 0, 1))  t.transpose(1, 0, 2)  x.T  v.T  t.transpose((2, 1, 0))
swapaxes:  np.swapaxes(t, 0, -1)  t.swapaxes(1, 2)
moveaxis:  np.moveaxis(t, 0, -1)  np.moveaxis(t, [0, 1], [-1, 0])
expand_dims:  np.expand_dims(x, 1)  np.expand_dims(x, (0, -1))  np.expand_dims(s, 0)
squeeze:  np.squeeze(x[None, :, None])  np.squeeze(x[None], axis=0)  x[:, None].squeeze(1)  np.squeeze(v)
broadcast_to:  np.broadcast_to(v, (3, 4))  np.broadcast_to(s, (2,))  np.broadcast_to(x[:, :1], (2, 3, 4))
broadcast_arrays:  np.broadcast_arrays(x, v)[1]
flip:  np.flip(x)  np.flip(t, 1)  np.flip(t, (0, -1))
flipud:  np.flipud(x)
fliplr:  np.fliplr(x)
roll:  np.roll(x, 1)  np.roll(x, -2, axis=1)  np.roll(t, (1, 5), axis=(0, 2))  np.roll(x, 1, axis=(0, 1))
    np.roll(e, 1, 0)
take:  np.take(x, [0, 5, -1])  np.take(x, [2, 0, 2], axis=1)  x.take(np.array([[0, 1], [2, 2]]), axis=0)  np.take(v, 2)
    np.take(v, [7, -9], mode='wrap')  np.take(v, [7, -9], mode='clip')
take_along_axis:  np.take_along_axis(x, np.array([[0, 3], [1, 1], [2, 0]]), 1)
sort:  np.sort(x)  np.sort(x, axis=0)  np.sort(x, axis=None)  np.sort(t, axis=1)  np.sort(e)
argsort:  np.argsort(x)  np.argsort(x, axis=0)  x.argsort(axis=None)  np.argsort(v)
diag:  np.diag(v)  np.diag(v, 1)  np.diag(v, k=-2)  np.diag(q)  np.diag(x, -1)
diagonal:  np.diagonal(x)  np.diagonal(t, 1, 1, 2)  q.diagonal(-1)
trace:  np.trace(q)  np.trace(x, 1)  np.trace(t, axis1=1, axis2=2)  q.trace()
diff:  np.diff(v)  np.diff(x, axis=0)  np.diff(v, 2)
repeat:  np.repeat(v, 2)  np.repeat(x, [1, 0, 2], axis=0)  x.repeat(2, axis=1)
zeros_like:  np.zeros_like(x) + x  np.zeros_like(x, dtype=np.float32)  np.zeros_like(x, shape=(2,))
ones_like:  np.ones_like(x) * x  np.ones_like(x, dtype=int)
empty_like:  np.empty_like(x).shape
full_like:  np.full_like(x, 2) * x  np.full_like(x, x[0, 0])
shape:  np.shape(x)
ndim:  np.ndim(x)
size:  np.size(x)  np.size(x, 1)
copy:  np.copy(x)  x.copy()
linalg.norm:  np.linalg.norm(x)  np.linalg.norm(v)  np.linalg.norm(x, axis=1)  np.linalg.norm(x, axis=0, keepdims=True)
    np.linalg.norm(v, 1)  np.linalg.norm(v, np.inf)  np.linalg.norm(v, -np.inf)  np.linalg.norm(v, 3)
    np.linalg.norm(x, 'fro')  np.linalg.norm(x, 1)  np.linalg.norm(x, np.inf)  np.linalg.norm(t, axis=(1, 2))
    np.linalg.norm(v, 0)  np.linalg.norm(x, ord=-1)  np.linalg.norm(x, keepdims=True)
round:  np.round(x)  np.round(x, 1)  x.round(2)  np.round(x * 100, -1)
around:  np.around(x, 1)
isclose:  np.isclose(x, y)  np.isclose(x, x + 1e-9)
allclose:  np.allclose(x, y)
array_equal:  np.array_equal(x, y)  np.array_equal(x, v)
nonzero:  np.nonzero(x > 1)  x.nonzero()
append:  np.append(x, v)  np.append(x, q, axis=0)  np.append(v, 2.0)
column_stack:  np.column_stack([v, w])  np.column_stack([q, v])
dstack:  np.dstack([x, y])  np.dstack([v, w])
atleast_3d:  np.atleast_3d(s)  np.atleast_3d(v)  np.atleast_3d(x)  np.atleast_3d(t, v)[1]
tile:  np.tile(x, 2)  np.tile(v, (2, 3))  np.tile(t, (2, 1))  np.tile(x, 1)  np.tile(v, (1, 1))  np.tile(x, (0, 2))
    np.tile(s, 3)  np.tile(e, 2)
kron:  np.kron(x, q)  np.kron(v, w)  np.kron(v, x)  np.kron(t, x)  np.kron(s, x)
tril:  np.tril(x)  np.tril(q, 1)  np.tril(t, -1)  np.tril(v)
triu:  np.triu(x)  np.triu(q, k=1)  np.triu(t, -1)  np.triu(v)
pad:  np.pad(x, 1)  np.pad(v, (2, 0))  np.pad(x, ((1, 0), (0, 2)))  np.pad(x, 1, constant_values=2.5)
    np.pad(x, [[1], [2]], constant_values=[[1, 2], [3, 4]])  np.pad(t, {-1: 2, 0: (1, 0)})  np.pad(x, 0)  np.pad(s, 3)
    np.pad(v, 1, constant_values=s)  np.pad(x, 2, constant_values=(s, v[1]))  np.pad(e, 1)  np.pad(x, 1, 'constant')
real:  np.real(x)  x.real  np.real(s)
imag:  np.imag(x) + x  x.imag * y  np.imag(s)
isreal:  np.isreal(x)  np.isreal(s)
iscomplex:  np.iscomplex(x)  np.iscomplex(s)
isrealobj:  np.isrealobj(x)
iscomplexobj:  np.iscomplexobj(x)
real_if_close:  np.real_if_close(x)
atleast_1d:  np.atleast_1d(s)  np.atleast_1d(v)
atleast_2d:  np.atleast_2d(v)  np.atleast_2d(s)
zeros:  np.zeros((2, 3), like=x)  np.zeros(3, dtype=int, like=x)
ones:  np.ones(3, like=x) * x[:, 0]
empty:  np.empty((2, 2), like=x).shape
full:  np.full((2, 2), 3.0, like=x)  np.full(2, 3, like=x)
array:  np.array([x[0, 0], 1.0], like=x)  np.array([[s, s], [1, x[1, 1]]], like=x)  np.array(x, like=x)
asarray:  np.asarray([1.0, v[0]], like=v)  np.asarray(x, like=x)
arange:  np.arange(4.0, like=v) * v
eye:  np.eye(4, like=q) * q  np.eye(2, 3, like=q)
identity:  np.identity(4, like=q) @ q
indexing:  x[1]  x[1, -1]  x[::2, ::-1]  x[..., None]  x[[2, 0]]  x[[0, 1], [1, 2]]  x[np.array([True, False, True])]
    t[:, [0, 2]]  t[0, ..., 1]  t[[0, 1], :, [2, 0]]  x[x > 1]  v[1:][::-1]  list(v)  s[()]  s[...]
methods:  x.astype(np.float32)  x.astype(int)  x.size  x.shape  x.ndim  len(x)  -x  abs(x - 1)  x // 0.3  x % 0.3
    2 ** x  divmod(x, 0.3)
"""


def parsed(text: str) -> dict[str, list[str]]:
    """Name → expressions; an indented line goes on with the line before."""
    cases: dict[str, list[str]] = {}
    for line in re.sub(r"\n {2,}", "  ", text).strip().splitlines():
        name, _, expressions = line.partition(":  ")
        cases[name] = re.split(r" {2,}", expressions)
    return cases


CASES = parsed(CASES_TEXT)


def names_in(expression: str) -> list[str]:
    return [name for name in VARIABLES if re.search(rf"\b{name}\b", expression)]


def function_of(expression: str) -> Callable[..., Any]:
    return eval(f"lambda {', '.join(names_in(expression))}: {expression}", {"np": np})


EVERY = [pytest.param(expression, id=expression) for expressions in CASES.values() for expression in expressions]
# NumPy accumulates sums of float32 in float32, in another order than ours.
ULPS = 32


@pytest.mark.parametrize("dtype", ["float64", "float32", "int32", "bool"])
@pytest.mark.parametrize("expression", EVERY)
def test_value(expression: str, dtype: str) -> None:
    f = function_of(expression)
    scale = {"int32": 8, "bool": 1}.get(dtype, 1)
    convert = (lambda a: a > 1) if dtype == "bool" else (lambda a: (a * scale).astype(dtype))
    args = [np.asarray(convert(VARIABLES[name])) for name in names_in(expression)]
    try:
        with np.errstate(all="ignore"):
            expected = f(*args)
    except (TypeError, ValueError):
        with pytest.raises((TypeError, ValueError, CkadError)):
            evaluated(f, *args)
        return
    if isinstance(expected, np.ndarray | np.generic) and expected.dtype == np.float16:
        return  # NumPy's float results of bools are half precision, which ckad has not.
    try:
        found = evaluated(f, *args)
    except DTypeError as error:
        # An exotic dtype may be refused, saying so; it is never answered otherwise than by NumPy.
        assert dtype == "bool"
        assert "Hint" in str(error)  # noqa: PT017
        return
    assert_same(found, expected, ULPS)


def test_the_method_sort_sorts_in_place() -> None:
    def f(x: Any) -> Any:
        y = x.copy()
        assert y.T[::-1].sort(axis=0) is None  # a view: y itself changes
        return y * 1.0

    assert_same(evaluated(f, VARIABLES["x"]), f(VARIABLES["x"]))
    assert_derivatives(f, VARIABLES["x"])


@pytest.mark.parametrize("expression", EVERY)
def test_derivative(expression: str) -> None:
    f = function_of(expression)
    args = [VARIABLES[name] for name in names_in(expression)]
    value = f(*args)
    leaves = value if isinstance(value, (list, tuple)) else [value]
    floats = all(isinstance(leaf, np.ndarray | np.generic) and leaf.dtype == np.float64 for leaf in leaves)
    if "round" in expression or not floats:
        return  # a step function, or no float64 array comes out: nothing to differentiate
    assert_derivatives(f, *args)


def strided_copy(x: Any) -> Any:
    """The same values with gaps between them and the last axis backwards in memory."""
    return np.repeat(x, 2, -1)[..., ::-1].copy()[..., ::-2] if x.ndim else x


@pytest.mark.parametrize("expression", EVERY)
def test_fortran_and_strided_operands(expression: str) -> None:
    f = function_of(expression)
    names = names_in(expression)
    fortran = [np.array(VARIABLES[name], order="F") for name in names]
    strided = [strided_copy(VARIABLES[name]) for name in names]
    for args in (fortran, strided):
        assert_same(evaluated(f, *args), f(*args), ULPS)


def registered(decorators: str = "implements|creates") -> set[str]:
    """The NumPy functions that the Python layer says it implements, without `np.`."""
    sources = [file.read_text(encoding="utf-8") for file in (Path(ckad.__file__).parent / "numpy").glob("*.py")]
    decorated = re.findall(rf"^@(?:{decorators})\((.*)\)$", "\n".join(sources), re.MULTILINE)
    return {name for arguments in decorated for name in re.findall(r"\bnp\.([\w.]+)", arguments)}


def test_every_function_has_cases() -> None:
    assert len(registered()) > 60
    assert sorted(registered() - set(CASES)) == []


# What is not supported ----------------------------------------------------------------------------------------------


REFUSED = """
np.sum(x, where=x > 1)  np.sum(x, out=np.zeros(4), axis=0)  x.sum(out=np.zeros(()))  np.mean(x, where=x > 1)
np.var(x, where=x > 1)  np.max(x, where=x > 1, initial=0)  np.any(x, where=x > 1)  np.argmax(x, out=np.zeros((), int))
np.cumsum(x, out=np.zeros(12))  np.prod(x, where=x > 1)  np.clip(x, 0, 1, out=np.zeros((3, 4)))
np.take(x, [0], out=np.zeros(1))  np.concatenate([x, y], out=np.zeros((6, 4)))
np.stack([x, y], out=np.zeros((2, 3, 4)))  np.dot(x, v, out=np.zeros(3))  np.outer(v, w, out=np.zeros((4, 4)))
np.einsum('ij->i', x, out=np.zeros(3))  np.einsum('ij->i', x, dtype=np.float32)  np.trace(q, out=np.zeros(()))
np.diff(v, prepend=0)  np.argsort(x, order='f')  np.sort(x, order='f')  np.round(x, out=np.zeros((3, 4)))
np.zeros_like(x, subok=False)  np.sin(x, where=x > 1)  np.sin(x, out=np.zeros((3, 4)))  np.add.at(x, [0], 1.0)
np.add.accumulate(v)  np.add.reduceat(v, [0, 2])  np.add.reduce(v, out=np.zeros(()))
np.zeros(3, device='cpu', like=x)  np.linalg.norm(x, 2)  np.linalg.norm(x, 'nuc')
np.copyto(np.zeros(4), v)
"""


@pytest.mark.parametrize("expression", re.split(r" {2,}|\n", REFUSED.strip()))
def test_unsupported_keywords_raise(expression: str) -> None:
    args = [VARIABLES[name] for name in names_in(expression)]
    with pytest.raises((CkadError, TypeError, ValueError)) as caught:
        evaluated(function_of(expression), *args)
    assert ". Hint: " in str(caught.value)


def test_unknown_functions_name_themselves() -> None:
    known = {eval(f"np.{name}", {"np": np}) for name in registered("implements")}
    checked = 0

    def f(x: Any) -> Any:
        nonlocal checked
        for module in (np, np.linalg, np.fft):
            for name, function in dispatched(module):
                if function in known:
                    continue
                with pytest.raises(CkadError, match=function.__name__) as caught:
                    x.__array_function__(function, (type(x),), (x,), {})
                assert "Hint" in str(caught.value), name
                checked += 1
        return np.sum(x)

    ckad.grad(f)(np.ones(3))
    assert checked > 100


def test_unknown_attributes_are_attribute_errors() -> None:
    def f(x: Any) -> Any:
        with pytest.raises(AttributeError):
            x.no_such_method  # noqa: B018
        assert not hasattr(x, "__array_interface__")
        return np.sum(x)

    ckad.grad(f)(np.ones(3))


MISFITS = """
np.sum(x, axis=2)  np.sum(x, axis=(0, 0))  x @ x  x + v[:3]  np.reshape(x, (5, 2))  np.concatenate([x, q], axis=1)
np.stack([x, v])  np.max(e)  np.argmin(e)  np.squeeze(x, 0)  np.transpose(x, (0, 0))  np.broadcast_to(x, (4, 3))
np.einsum('ij,jk', x, x)  x[3]  x[0, 0, 0]  np.take(v, 4)  np.swapaxes(x, 0, 2)  v[[4]]  np.einsum('ij->k', x)
"""


def test_wrong_axes_and_shapes_raise_as_numpy_does() -> None:
    for expression in re.split(r" {2,}|\n", MISFITS.strip()):
        f, args = function_of(expression), [VARIABLES[name] for name in names_in(expression)]
        with pytest.raises((ValueError, IndexError)) as numpys:
            f(*args)
        with pytest.raises((ValueError, IndexError)) as ours:
            evaluated(f, *args)
        is_axis_error = isinstance(numpys.value, np.exceptions.AxisError)  # both a ValueError and an IndexError
        assert is_axis_error or isinstance(ours.value, IndexError) == isinstance(numpys.value, IndexError), expression


# Signed zeros -------------------------------------------------------------------------------------------------------

SIGNED_ZEROS: dict[str, Callable[..., Any]] = {
    "sum": lambda x, y: np.sum(x),
    "sum of negative zeros": lambda x, y: np.sum(-np.abs(x)),
    "mean of negative zeros": lambda x, y: np.mean(-np.abs(x)),
    "cumsum": lambda x, y: np.cumsum(x),
    "cumprod": lambda x, y: np.cumprod(x),
    "prod": lambda x, y: np.prod(x),
    "maximum": np.maximum,
    "minimum": np.minimum,
    "rectifier": lambda x, y: np.maximum(x, 0) + np.minimum(-0.0, y),
    "clip": lambda x, y: np.clip(x, 0.0, 1.0),
    "clip to negative zero": lambda x, y: np.clip(x, -1.0, -0.0),
    "spacing": lambda x, y: np.spacing(x),
    "stable sort": lambda x, y: np.sort(x, kind="stable"),
    "stable argsort": lambda x, y: np.argsort(x, kind="stable"),
    "negative": lambda x, y: -x,
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", SIGNED_ZEROS)
def test_signed_zeros_are_numpys(name: str, dtype: str) -> None:
    rng = np.random.default_rng(3)
    for n in (2, 3, 5, 17, 64, 300):
        x, y = (np.where(rng.random(n) < 0.5, 0.0, -0.0).astype(dtype) for _ in range(2))
        found, expected = evaluated(SIGNED_ZEROS[name], x, y), SIGNED_ZEROS[name](x, y)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(np.signbit(found), np.signbit(expected))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ties_of_the_largest_numbers_sort(dtype: Any) -> None:
    x = np.full(3, np.finfo(dtype).max, dtype)
    value, gradient = ckad.value_and_grad(lambda x: np.sort(x)[0])(x)
    assert value == x[0]
    np.testing.assert_allclose(gradient, 1 / 3, rtol=1e-6)


def test_a_negative_number_alone_has_a_norm() -> None:
    value, gradient = ckad.value_and_grad(np.hypot.reduce)(np.array([-3.0]))
    assert value == np.hypot.reduce(np.array([-3.0])) == 3.0
    np.testing.assert_array_equal(gradient, [-1.0])
