"""Layers that normalise: each example by itself, or each feature over the examples."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ckad.errors import CkadValueError, ShapeError
from ckad.nn.layer import layer
from ckad.numpy.dtypes import float_dtype
from ckad.transforms.linear import stop_gradient


def _sizes(op: str, name: str, given: Any) -> tuple[int, ...]:
    sizes = given if isinstance(given, (tuple, list)) else (given,)
    if not sizes or not all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) and n > 0 for n in sizes):
        hint = f"give the size of the last axis, such as {op}(16)"
        raise CkadValueError.of(op, f"{name}={given!r} is not made of positive integers", hint)
    return tuple(int(n) for n in sizes)


def _check_eps(op: str, eps: Any) -> float:
    if not isinstance(eps, (int, float, np.number)) or not 0 <= eps < math.inf:
        hint = f"leave it at its default, or give {op}(…, eps=1e-5)"
        raise CkadValueError.of(op, f"eps={eps!r} must be finite and at least 0", hint)
    return float(eps)


@layer("weight", "bias")
class LayerNorm:
    """x ↦ (x − mean) / √(variance + eps) · weight + bias, mean and variance over the last axes of each example.

    Args:
        shape: size of the last axis, or sizes of the last axes.
        eps: added to the variance, in units of x².
        elementwise_affine: whether there are a weight and a bias; else both are None.
        dtype: float64 (the default) or float32.

    Attributes:
        weight: array of that shape, at first one.
        bias: array of that shape, at first zero.

    Raises:
        ValueError: sizes that are not positive, or a negative eps.
        TypeError: a dtype that cannot be differentiated.

    Source: Ba, Kiros and Hinton, Layer normalization (2016).

    >>> f = LayerNorm(4)
    >>> f(np.array([[1.0, 2.0, 3.0, 4.0]])).round(3)
    array([[-1.342, -0.447,  0.447,  1.342]])
    """

    weight: NDArray[Any] | None
    bias: NDArray[Any] | None

    def __init__(
        self,
        shape: int | tuple[int, ...],
        eps: float = 1e-5,
        *,
        elementwise_affine: bool = True,
        dtype: DTypeLike = np.float64,
    ) -> None:
        self.shape = _sizes("LayerNorm", "shape", shape)
        self.eps = _check_eps("LayerNorm", eps)
        found = float_dtype("LayerNorm", dtype)
        self.weight = np.ones(self.shape, found) if elementwise_affine else None
        self.bias = np.zeros(self.shape, found) if elementwise_affine else None

    def __call__(self, x: NDArray[Any]) -> NDArray[Any]:
        """Applies the layer.

        Args:
            x: array of shape (..., *shape).

        Returns:
            An array of the shape of x.

        Raises:
            ValueError: x does not end in that shape.
        """
        rank = len(self.shape)
        if np.shape(x)[-rank:] != self.shape:
            what = f"x of shape {np.shape(x)} does not end in {self.shape}"
            raise ShapeError.of("LayerNorm", what, "the features come last: move them there with np.moveaxis")
        axes = tuple(range(-rank, 0))
        centred = x - np.mean(x, axis=axes, keepdims=True)
        y = centred / np.sqrt(np.mean(centred * centred, axis=axes, keepdims=True) + self.eps)
        return y if self.weight is None else y * self.weight + self.bias

    def __repr__(self) -> str:
        shape = self.shape[0] if len(self.shape) == 1 else self.shape
        affine = "" if self.weight is not None else ", elementwise_affine=False"
        return f"LayerNorm({shape}, eps={self.eps:g}{affine})"


@layer("weight", "bias", state=("mean", "variance"))
class BatchNorm:
    """x ↦ (x − mean) / √(variance + eps) · weight + bias, mean and variance of each feature over all examples.

    In training those of the batch are used, and running ones kept; otherwise the running ones are used. As the layer
    changes, calling it returns `(y, layer)`: the layer as it is from then on.

    Args:
        features: size of the last axis.
        momentum: how much of the running statistics stays in each training step, in [0, 1). What PyTorch calls
            momentum is 1 less this.
        eps: added to the variance, in units of x².
        dtype: float64 (the default) or float32.

    Attributes:
        weight, bias: arrays of shape (features,), at first one and zero.
        mean, variance: the running statistics, at first zero and one. No derivative goes into them: their gradients are
            zero, with which the optimisers leave them as they are.

    Raises:
        ValueError: a size that is not positive, or a number out of its range.
        TypeError: a dtype that cannot be differentiated.

    Source: Ioffe and Szegedy, Batch normalization (2015).

    >>> f = BatchNorm(1, momentum=0.5)
    >>> y, f = f(np.array([[1.0], [3.0]]), train=True)
    >>> y.round(3).ravel(), f.mean, f.variance
    (array([-1.,  1.]), array([1.]), array([1.]))
    """

    weight: NDArray[Any]
    bias: NDArray[Any]
    mean: NDArray[Any]
    variance: NDArray[Any]

    def __init__(
        self, features: int, momentum: float = 0.9, eps: float = 1e-5, *, dtype: DTypeLike = np.float64
    ) -> None:
        sizes = _sizes("BatchNorm", "features", features)
        if not isinstance(momentum, (int, float, np.number)) or not 0 <= momentum < 1:
            what = f"momentum={momentum!r} must be at least 0 and below 1"
            raise CkadValueError.of("BatchNorm", what, "it is the share that stays, such as momentum=0.9")
        self.momentum, self.eps = float(momentum), _check_eps("BatchNorm", eps)
        found = float_dtype("BatchNorm", dtype)
        self.weight, self.bias = np.ones(sizes, found), np.zeros(sizes, found)
        self.mean, self.variance = np.zeros(sizes, found), np.ones(sizes, found)

    def __call__(self, x: NDArray[Any], *, train: bool = False) -> tuple[NDArray[Any], BatchNorm]:
        """Applies the layer.

        Args:
            x: array of shape (..., features); in training of two examples or more.
            train: whether the statistics are those of x.

        Returns:
            An array of the shape of x, and the layer with the statistics as they are now: itself where not in training.

        Raises:
            ValueError: x does not end in the features, or has fewer than two examples in training.
        """
        shape, sizes = np.shape(x), np.shape(self.weight)
        if shape[-1:] != sizes:
            what = f"x of shape {shape} does not end in {sizes}"
            raise ShapeError.of("BatchNorm", what, "the features come last: move them there with np.moveaxis")
        if not train:
            scale = self.weight / np.sqrt(stop_gradient(self.variance) + self.eps)
            return (x - stop_gradient(self.mean)) * scale + self.bias, self
        if math.prod(shape[:-1]) < 2:
            what = f"there is no variance of fewer than two examples: x has shape {shape}"
            raise ShapeError.of("BatchNorm", what, "train on larger batches, or call it with train=False")
        axes = tuple(range(len(shape) - 1))
        mean = np.mean(x, axis=axes)
        centred = x - mean
        variance = np.mean(centred * centred, axis=axes)
        layer = copy.copy(self)
        layer.mean = self._moved(self.mean, mean)
        layer.variance = self._moved(self.variance, variance)
        return centred / np.sqrt(variance + self.eps) * self.weight + self.bias, layer

    def _moved(self, running: Any, now: Any) -> Any:
        """The running statistic after a step, in its own dtype."""
        moved = self.momentum * stop_gradient(running) + (1.0 - self.momentum) * stop_gradient(now)
        return moved if moved.dtype == running.dtype else moved.astype(running.dtype)

    def __repr__(self) -> str:
        return f"BatchNorm({np.shape(self.weight)[0]}, momentum={self.momentum:g}, eps={self.eps:g})"
