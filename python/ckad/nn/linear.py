"""The affine layer."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ckad.errors import CkadValueError
from ckad.nn.layer import layer
from ckad.numpy.dtypes import float_dtype


@layer("weight", "bias")
class Linear:
    """x ↦ x @ weight + bias.

    Args:
        n_in: size of the last axis of the input.
        n_out: size of the last axis of the output.
        rng: a NumPy generator, or a seed; by default a fresh generator.
        dtype: float64 (the default) or float32.

    Attributes:
        weight: array of shape (n_in, n_out), at first normal with variance 1 / n_in, which keeps the variance of the
            signal from layer to layer.
        bias: array of shape (n_out,), at first zero.

    Raises:
        ValueError: a size that is not a positive integer.
        TypeError: a dtype that cannot be differentiated.

    Source: LeCun, Bottou, Orr and Müller, Efficient BackProp (1998), section 4.6.

    >>> f = Linear(2, 3, rng=0)
    >>> f(np.ones((5, 2))).shape
    (5, 3)
    """

    weight: NDArray[Any]
    bias: NDArray[Any]

    def __init__(
        self, n_in: int, n_out: int, *, rng: np.random.Generator | int | None = None, dtype: DTypeLike = np.float64
    ) -> None:
        for name, size in (("n_in", n_in), ("n_out", n_out)):
            if not isinstance(size, (int, np.integer)) or isinstance(size, bool) or size < 1:
                what = f"{name}={size!r} is not a positive integer"
                raise CkadValueError.of("Linear", what, "the order is Linear(n_in, n_out), as in Linear(3, 16)")
        found = float_dtype("Linear", dtype)
        normal = np.random.default_rng(rng).standard_normal((int(n_in), int(n_out)))
        self.weight = (normal / np.sqrt(n_in)).astype(found)
        self.bias = np.zeros(int(n_out), found)

    def __call__(self, x: NDArray[Any]) -> NDArray[Any]:
        """Applies the layer.

        Args:
            x: array of shape (..., n_in).

        Returns:
            An array of shape (..., n_out).
        """
        return x @ self.weight + self.bias

    def __repr__(self) -> str:
        n_in, n_out = np.shape(self.weight)
        return f"Linear({n_in}, {n_out}, dtype={self.weight.dtype})"
