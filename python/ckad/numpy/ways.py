"""What to write in place of a NumPy function that has no traced implementation: the hints of such refusals.

`Tracer.__array_function__` asks `function_hint` and `Tracer.__getattr__` asks `attribute_hint`, after the lookup in the
core's tables (see registry.py) has failed. Each program here is run by tests/test_refusals.py against NumPy's
function, in value and derivatives. In them x, y, w, z (which has a NaN) and u, v (of length 3) are vectors, A and B
square matrices, T has three axes, a and b are numbers, i and j integers; m is a mask and g an increasing grid, neither
of them traced. No way is given that is wrong in its second derivative.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import Any, Final

import numpy as np

from ckad import _core
from ckad.numpy.registry import SUPPORTED

_CROSS = "u[[1, 2, 0]] * v[[2, 0, 1]] - u[[2, 0, 1]] * v[[1, 2, 0]]"
_QUANTILE = "k, r = divmod(0.3 * (s.size - 1), 1.0); s[int(k)] + r * (s[min(int(k) + 1, s.size - 1)] - s[int(k)])"
_MEDIAN = "(s[(s.size - 1) // 2] + s[s.size // 2]) / 2"
_PRODUCT = "sum(np.pad(x * c, (k, u.size - 1 - k)) for k, c in enumerate(u))"
# The constant inverse at the point, and two steps of Newton's iteration that change nothing but derivatives: what is
# left of the inverse is of fourth order in A − C. Of the logarithm of a determinant, the series up to third order.
_AT = "C = np.asarray(ckad.stop_gradient(A)); X = np.linalg.inv(C)"
_STEP = "X = X @ (2 * np.eye(len(C)) - A @ X)"
_INVERSE = f"{_AT}; {_STEP}; {_STEP}"
_RELATIVE = f"{_AT}; M = X @ (A - C)"
_LOGARITHM = "(np.trace(M) - np.trace(M @ M) / 2 + np.trace(M @ M @ M) / 3)"
_WAVES = "t = 2 * np.pi * np.outer(np.arange({rows}), np.arange(x.size)) / x.size; (np.cos(t) @ x, -np.sin(t) @ x)"

WAYS: Final[dict[str, tuple[str, str]]] = {
    # name: (a call of it, what computes the same)
    "angle": ("np.angle(x)", "np.where(x < 0, np.pi, 0.0)"),
    "apply_along_axis": ("np.apply_along_axis(np.prod, 1, A)", "np.stack([np.prod(row) for row in A])"),
    "apply_over_axes": ("np.apply_over_axes(np.sum, T, [0, 1])", "np.sum(T, axis=(0, 1), keepdims=True)"),
    "argpartition": ("np.argpartition(x, 2)[2]", "np.argsort(x)[2]"),
    "argwhere": ("np.argwhere(x)", "np.stack(np.nonzero(x), axis=1)"),
    "array_equiv": ("np.array_equiv(x, y)", "bool(np.all(x == y))"),
    "array_split": ("np.array_split(x, [1, 3])", "[x[:1], x[1:3], x[3:]]"),
    "astype": ("np.astype(x, np.float32)", "x.astype(np.float32)"),
    "average": ("np.average(x, weights=w)", "np.sum(x * w) / np.sum(w)"),
    "bincount": ("np.bincount(i, weights=x)", "np.eye(np.max(i) + 1)[i].T @ x"),
    "block": ("np.block([[A, B], [B, A]])", "np.vstack([np.hstack([A, B]), np.hstack([B, A])])"),
    "choose": ("np.choose(i % 2, [x, y])", "np.stack([x, y])[i % 2, np.arange(x.size)]"),
    "compress": ("np.compress(m, x)", "x[m]"),
    "convolve": ("np.convolve(x, u)", _PRODUCT),
    "copyto": ("np.copyto(x, y)", "x[...] = y"),
    "corrcoef": (
        "np.corrcoef(x, y)[0, 1]",
        "d = x - np.mean(x); e = y - np.mean(y); d @ e / np.sqrt((d @ d) * (e @ e))",
    ),
    "correlate": ("np.correlate(x, u)", "np.stack([x[k : k + u.size] @ u for k in range(x.size - u.size + 1)])"),
    "count_nonzero": ("np.count_nonzero(x)", "np.sum(x != 0)"),
    "cov": ("np.cov(A)", "D = A - np.mean(A, axis=1, keepdims=True); D @ D.T / (A.shape[1] - 1)"),
    "cross": ("np.cross(u, v)", _CROSS),
    "cumulative_prod": ("np.cumulative_prod(x)", "np.cumprod(x)"),
    "cumulative_sum": ("np.cumulative_sum(x)", "np.cumsum(x)"),
    "delete": ("np.delete(x, 1)", "np.concatenate([x[:1], x[2:]])"),
    "diag_indices_from": ("np.diag_indices_from(A)", "np.diag_indices(A.shape[0])"),
    "diagflat": ("np.diagflat(A)", "np.diag(A.ravel())"),
    "dsplit": ("np.dsplit(T, [1])", "[T[:, :, :1], T[:, :, 1:]]"),
    "ediff1d": ("np.ediff1d(x)", "np.diff(x.ravel())"),
    "extract": ("np.extract(x > 1, x)", "x[x > 1]"),
    "fft.fft": ("(np.fft.fft(x).real, np.fft.fft(x).imag)", _WAVES.format(rows="x.size")),
    "fft.fftshift": ("np.fft.fftshift(x)", "np.roll(x, x.size // 2)"),
    "fft.ifftshift": ("np.fft.ifftshift(x)", "np.roll(x, -(x.size // 2))"),
    "fft.rfft": ("(np.fft.rfft(x).real, np.fft.rfft(x).imag)", _WAVES.format(rows="x.size // 2 + 1")),
    "fill_diagonal": ("np.fill_diagonal(A, 5.0)", "k = np.arange(A.shape[0]); A[k, k] = 5.0"),
    "fix": ("np.fix(x)", "np.trunc(x)"),
    "flatnonzero": ("np.flatnonzero(x)", "np.nonzero(x.ravel())[0]"),
    "geomspace": ("np.geomspace(a, b, 5)", "a * (b / a) ** (np.arange(5) / 4)"),
    "gradient": (
        "np.gradient(x)",
        "np.concatenate([x[1:2] - x[:1], (x[2:] - x[:-2]) / 2, x[-1:] - x[-2:-1]])",
    ),
    "hsplit": ("np.hsplit(A, [1])", "[A[:, :1], A[:, 1:]]"),
    "insert": ("np.insert(x, 1, 5.0)", "np.concatenate([x[:1], [5.0], x[1:]])"),
    "interp": (
        "np.interp(a, g, x)",
        "G = np.asarray(ckad.stop_gradient(g)); "
        "k = np.clip(np.searchsorted(G, np.asarray(ckad.stop_gradient(a))) - 1, 0, G.size - 2); "
        "t = (np.clip(a, g[0], g[-1]) - g[k]) / (g[k + 1] - g[k]); x[k] * (1 - t) + x[k + 1] * t",
    ),
    "isneginf": ("np.isneginf(x)", "np.isinf(x) & (x < 0)"),
    "isposinf": ("np.isposinf(x)", "np.isinf(x) & (x > 0)"),
    "linalg.cross": ("np.linalg.cross(u, v)", _CROSS),
    "linalg.det": ("np.linalg.det(A)", f"{_RELATIVE}; np.linalg.det(C) * np.exp({_LOGARITHM})"),
    "linalg.diagonal": ("np.linalg.diagonal(A)", "np.diagonal(A)"),
    "linalg.inv": ("np.linalg.inv(A)", f"{_INVERSE}; X"),
    "linalg.lstsq": ("np.linalg.lstsq(np.vander(g, 2), x)[0]", "np.linalg.pinv(np.vander(g, 2)) @ x"),
    "linalg.matmul": ("np.linalg.matmul(A, B)", "A @ B"),
    "linalg.matrix_norm": ("np.linalg.matrix_norm(A)", "np.linalg.norm(A)"),
    "linalg.matrix_power": ("np.linalg.matrix_power(A, 3)", "A @ A @ A"),
    "linalg.matrix_transpose": ("np.linalg.matrix_transpose(T)", "T.mT"),
    "linalg.multi_dot": ("np.linalg.multi_dot([A, B, x])", "A @ (B @ x)"),
    "linalg.outer": ("np.linalg.outer(x, y)", "np.outer(x, y)"),
    "linalg.slogdet": ("np.linalg.slogdet(A)[1]", f"{_RELATIVE}; np.linalg.slogdet(C)[1] + {_LOGARITHM}"),
    "linalg.solve": ("np.linalg.solve(A, x)", f"{_INVERSE}; X @ x"),
    "linalg.tensordot": ("np.linalg.tensordot(T, A, axes=1)", "np.tensordot(T, A, axes=1)"),
    "linalg.trace": ("np.linalg.trace(A)", "np.trace(A)"),
    "linalg.vecdot": ("np.linalg.vecdot(A, B)", "np.vecdot(A, B)"),
    "linalg.vector_norm": ("np.linalg.vector_norm(x)", "np.linalg.norm(x)"),
    "lib.stride_tricks.sliding_window_view": (
        "np.lib.stride_tricks.sliding_window_view(x, 2)",
        "np.stack([x[k : x.size - 1 + k] for k in range(2)], axis=1)",
    ),
    "linspace": ("np.linspace(a, b, 5)", "a + (b - a) * np.arange(5) / 4"),
    "logspace": ("np.logspace(a, b, 5)", "10.0 ** (a + (b - a) * np.arange(5) / 4)"),
    "matrix_transpose": ("np.matrix_transpose(T)", "T.mT"),
    "median": ("np.median(x)", f"s = np.sort(x, axis=None); {_MEDIAN}"),
    "meshgrid": (
        "np.meshgrid(x, y)",
        "[np.broadcast_to(x, (y.size, x.size)), np.broadcast_to(y[:, None], (y.size, x.size))]",
    ),
    "nan_to_num": (
        "np.nan_to_num(z)",
        "np.clip(np.where(np.isnan(z), 0.0, z), np.finfo(z.dtype).min, np.finfo(z.dtype).max)",
    ),
    "nanargmax": ("np.nanargmax(z)", "np.argmax(np.where(np.isnan(z), -np.inf, z))"),
    "nanargmin": ("np.nanargmin(z)", "np.argmin(np.where(np.isnan(z), np.inf, z))"),
    "nancumprod": ("np.nancumprod(z)", "np.cumprod(np.where(np.isnan(z), 1.0, z))"),
    "nancumsum": ("np.nancumsum(z)", "np.cumsum(np.where(np.isnan(z), 0.0, z))"),
    "nanmax": ("np.nanmax(z)", "np.fmax.reduce(z, axis=None)"),
    "nanmean": ("np.nanmean(z)", "np.mean(z[~np.isnan(z)])"),
    "nanmedian": ("np.nanmedian(z)", f"s = np.sort(z[~np.isnan(z)]); {_MEDIAN}"),
    "nanmin": ("np.nanmin(z)", "np.fmin.reduce(z, axis=None)"),
    "nanpercentile": ("np.nanpercentile(z, 30)", f"s = np.sort(z[~np.isnan(z)]); {_QUANTILE}"),
    "nanprod": ("np.nanprod(z)", "np.prod(np.where(np.isnan(z), 1.0, z))"),
    "nanquantile": ("np.nanquantile(z, 0.3)", f"s = np.sort(z[~np.isnan(z)]); {_QUANTILE}"),
    "nanstd": ("np.nanstd(z)", "np.std(z[~np.isnan(z)])"),
    "nansum": ("np.nansum(z)", "np.sum(np.where(np.isnan(z), 0.0, z))"),
    "nanvar": ("np.nanvar(z)", "np.var(z[~np.isnan(z)])"),
    "partition": ("np.partition(x, 2)[2]", "np.sort(x)[2]"),
    "percentile": ("np.percentile(x, 30)", f"s = np.sort(x, axis=None); {_QUANTILE}"),
    "piecewise": ("np.piecewise(x, [x < 1], [np.sin, np.cos])", "np.where(x < 1, np.sin(x), np.cos(x))"),
    "place": ("np.place(x, x > 1, 0.0)", "x[x > 1] = 0.0"),
    "poly": ("np.polyval(np.poly(x), a)", "np.prod(a - x)"),
    "polyadd": ("np.polyadd(x, y)", "x + y"),
    "polyder": ("np.polyder(x)", "x[:-1] * np.arange(x.size - 1, 0, -1)"),
    "polyfit": ("np.polyfit(g, x, 2)", "np.linalg.pinv(np.vander(g, 3)) @ x"),
    "polyint": ("np.polyint(x)", "np.concatenate([x / np.arange(x.size, 0, -1), [0.0]])"),
    "polymul": ("np.polymul(x, u)", _PRODUCT),
    "polysub": ("np.polysub(x, y)", "x - y"),
    "polyval": ("np.polyval(x, a)", "np.sum(x * a ** np.arange(x.size - 1, -1, -1))"),
    "ptp": ("np.ptp(x)", "np.max(x) - np.min(x)"),
    "put": ("np.put(x, i, 0.0)", "x[i] = 0.0"),
    "put_along_axis": ("np.put_along_axis(A, j, 0.0, 1)", "A[np.arange(A.shape[0])[:, None], j] = 0.0"),
    "putmask": ("np.putmask(x, x > 1, 0.0)", "x[x > 1] = 0.0"),
    "quantile": ("np.quantile(x, 0.3)", f"s = np.sort(x, axis=None); {_QUANTILE}"),
    "resize": ("np.resize(x, 6)", "x[np.arange(6) % x.size]"),
    "rollaxis": ("np.rollaxis(T, 2)", "np.moveaxis(T, 2, 0)"),
    "rot90": ("np.rot90(A)", "A.T[::-1]"),
    "select": ("np.select([x > 1, x > 0], [x, -x])", "np.where(x > 1, x, np.where(x > 0, -x, 0.0))"),
    "sinc": (
        "np.sinc(x)",
        "s = np.pi * x; q = s * s; t = np.sqrt(np.where(q < 0.04, 1.0, q)); "
        "np.where(q < 0.04, 1 - q / 6 * (1 - q / 20 * (1 - q / 42 * (1 - q / 72))), np.sin(t) / t)",
    ),
    "sort_complex": ("np.sort_complex(x).real", "np.sort(x)"),
    "split": ("np.split(x, [1, 3])", "[x[:1], x[1:3], x[3:]]"),
    "trapezoid": ("np.trapezoid(x)", "np.sum(x[1:] + x[:-1]) / 2"),
    "tril_indices_from": ("np.tril_indices_from(A)", "np.tril_indices(A.shape[0], m=A.shape[1])"),
    "trim_zeros": ("np.trim_zeros(x)", "k = np.nonzero(x)[0]; x[k[0] : k[-1] + 1]"),
    "triu_indices_from": ("np.triu_indices_from(A)", "np.triu_indices(A.shape[0], m=A.shape[1])"),
    "union1d": (
        "np.union1d(x, y)",
        "s = np.concatenate([x, y]); s[np.unique(np.asarray(ckad.stop_gradient(s)), return_index=True)[1]]",
    ),
    "unique": ("np.unique(x)", "x[np.unique(np.asarray(ckad.stop_gradient(x)), return_index=True)[1]]"),
    "unique_values": ("np.unique_values(x)", "x[np.unique(np.asarray(ckad.stop_gradient(x)), return_index=True)[1]]"),
    "unstack": ("np.unstack(A)", "tuple(A)"),
    "unwrap": ("np.unwrap(x)", "c = ckad.stop_gradient(x); x + (np.unwrap(np.asarray(c)) - c)"),
    "vander": ("np.vander(x)", "x[:, None] ** np.arange(x.size - 1, -1, -1)"),
    "vsplit": ("np.vsplit(A, [1])", "[A[:1], A[1:]]"),
}

THIRD_ORDER: Final = frozenset({"linalg.det", "linalg.inv", "linalg.slogdet", "linalg.solve"})
"""Their ways are right up to the third derivative; the fourth would need that of the constant inverse, too."""

WITHOUT_DERIVATIVE: Final = frozenset({
    "array2string", "array_repr", "array_str", "busday_count", "busday_offset", "can_cast", "common_type",
    "datetime_as_string", "digitize", "einsum_path", "histogram", "histogram2d", "histogram_bin_edges",
    "histogramdd", "is_busday", "isin", "ix_", "lexsort", "linalg.matrix_rank", "may_share_memory", "min_scalar_type",
    "packbits", "ravel_multi_index", "result_type", "save", "savetxt", "savez", "savez_compressed", "searchsorted",
    "shares_memory", "unique_all", "unique_counts", "unique_inverse", "unpackbits", "unravel_index",
})  # fmt: skip
"""Text, files, dtypes, positions and counts: nothing is lost where they get an ordinary array."""

_CONVERT = "np.asarray(ckad.stop_gradient(x))"
_METHODS = {"flat": "x.ravel()", "view": "x[...]", "setflags": "x.copy()", "newbyteorder": "x", "to_device": "x"}


_KINDS = (
    ("xywzuv", "a vector", "vectors"),
    ("AB", "a square matrix", "square matrices"),
    ("T", "an array of three axes", "arrays of three axes"),
    ("ab", "a number", "numbers"),
    ("ij", "an array of integers", "arrays of integers"),
    ("m", "a mask", "masks"),
    ("g", "an increasing grid", "increasing grids"),
)


def _legend(call: str) -> str:
    """What the names in a call stand for: a way is written for one use of its function, not for every one."""
    found = [([name for name in names if re.search(rf"\b{name}\b", call)], *kinds) for names, *kinds in _KINDS]
    return ", ".join(
        f"{' and '.join(names)} are {many}" if len(names) > 1 else f"{names[0]} is {one}"
        for names, one, many in found
        if names
    )


def function_hint(function: Any) -> str:
    """What to do instead of calling that function of NumPy's on a traced value."""
    module = getattr(function, "__module__", "") or ""
    place = module.removeprefix("numpy").removeprefix(".")
    name = f"{place}.{function.__name__}" if place else function.__name__
    if name in WAYS:
        call, program = WAYS[name]
        note = " (right up to the third derivative)" if name in THIRD_ORDER else ""
        if name == "linalg.solve":
            note = f"{note}, or `np.linalg.inv(A) @ x` where A is not differentiated"
        way = f"write `{program}` in place of `{call}`{note}; there {_legend(call)}"
        if name == "copyto":
            way = f"in place of np.full_like(y, x) write `x * np.ones_like(y)`; of a call of np.copyto: {way}"
        return f"{way}. Or call it on {_CONVERT} where no gradient should flow"
    if name in WITHOUT_DERIVATIVE:
        return f"no gradient flows through it: call it on {_CONVERT}"
    reason = "complex dtypes are not supported" if place == "fft" else "its derivative is not supported yet"
    return f"{reason}; call it on {_CONVERT} where no gradient should flow{_alike(name)}"


def _near(name: str, names: Iterable[str]) -> list[str]:
    import difflib  # as slow to import as ckad itself

    return difflib.get_close_matches(name, sorted(names), n=3, cutoff=0.75)


def _alike(name: str) -> str:
    found = _near(name, SUPPORTED)
    return f"; supported and alike in name: {', '.join(f'np.{other}' for other in found)}" if found else ""


@functools.lru_cache(maxsize=1024)  # `hasattr` throws the error away, and may ask again and again
def attribute_hint(name: str) -> str:
    """What to do instead of looking up that attribute of a traced value."""
    if name in SUPPORTED or isinstance(getattr(np, name, None), np.ufunc):
        return f"use np.{name}(x)"
    if name in _METHODS:
        return f"use {_METHODS[name]}"
    if name in WAYS:
        call, program = WAYS[name]
        return f"write `{program}` in place of `{call}`"
    if hasattr(np.ndarray, name):
        return f"no gradient flows through it: write {_CONVERT}.{name}"
    found = _near(name, {other for other in dir(np.ndarray) if not other.startswith("_")})
    return f"alike in name: {', '.join(f'x.{other}' for other in found)}" if found else "ndarray has none either"


_core.register_hints(function_hint, attribute_hint)
