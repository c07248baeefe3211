"""What to write in place of a keyword that a traced implementation refuses: the hints of `registry.refuse`.

In them x is an array and mask one of bools; tests/test_refusals.py runs each program against NumPy's keyword.
"""

from __future__ import annotations

from typing import Final

_REDUCED = "np.{}.reduce(x, axis=None, where=mask{})"

WHERE: Final[dict[str, str]] = {
    "sum": _REDUCED.format("add", ""),
    "prod": _REDUCED.format("multiply", ""),
    "max": _REDUCED.format("maximum", ", initial=-np.inf"),
    "min": _REDUCED.format("minimum", ", initial=np.inf"),
    "any": _REDUCED.format("logical_or", ""),
    "all": _REDUCED.format("logical_and", ""),
    "mean": "np.add.reduce(x, axis=None, where=mask) / np.sum(mask)",
    "var": "np.var(x[mask])",
    "std": "np.std(x[mask])",
}

CASTING: Final[dict[str, str]] = {
    "concatenate": "np.concatenate([x.astype(np.float32), …])",
    "stack": "np.stack([x.astype(np.float32), …])",
}

KEYWORDS: Final[dict[str, str]] = {
    "append": "np.diff(np.concatenate([x, [1.0]]))",
    "dtype": "np.{function}(…).astype(dtype)",
    "equal_nan": "np.allclose(x, y, 0, 0, equal_nan=True)",
    "ndmin": "np.array(x, like=x)[None]",
    "out": "y = np.{function}(…), and y[...] = np.{function}(…) into an array made with np.zeros(shape, like=x)",
    "prepend": "np.diff(np.concatenate([[1.0], x]))",
}

LEFT_OUT: Final[dict[str, str]] = {
    "casting": "operands are converted as 'same_kind' allows, and x.astype(dtype) converts one beforehand",
    "copy": "write x.copy().reshape(…) where the result must not share memory with x",
    "device": "there is one device, the CPU",
    "order": "it is for structured arrays, or a layout: .copy(order='F') of the result",
    "subok": "there are no subclasses of traced arrays",
}


def keyword_hint(function: str, keyword: str) -> str:
    """What to do instead of giving that keyword to that function of NumPy's."""
    of_function = {"where": WHERE, "casting": CASTING}.get(keyword, {})
    if function in of_function:
        return f"write {of_function[function]}"
    if keyword in LEFT_OUT:
        return f"leave {keyword}= out: {LEFT_OUT[keyword]}"
    if keyword in KEYWORDS:
        return f"write {KEYWORDS[keyword].format(function=function)}"
    return f"leave {keyword}= out, or call it on np.asarray(ckad.stop_gradient(x)) where no gradient should flow"
