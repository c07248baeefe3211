"""Activation functions. Any function of an array can be one; these have the numerical traps taken care of."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def relu(x: NDArray[Any]) -> NDArray[Any]:
    """max(x, 0), with derivative 0 at 0 (`numpy.maximum` splits a tie evenly). NaN stays NaN.

    Args:
        x: array of floats, of any shape.

    Returns:
        An array of the same shape and dtype.

    >>> relu(np.array([-1.0, 0.0, 2.0]))
    array([0., 0., 2.])
    """
    return np.where(x <= 0, 0, x)


def tanh(x: NDArray[Any]) -> NDArray[Any]:
    """The hyperbolic tangent.

    Args:
        x: array of floats, of any shape.

    Returns:
        An array of the same shape and dtype.

    >>> tanh(np.array([0.0, np.inf]))
    array([0., 1.])
    """
    return np.tanh(x)


def sigmoid(x: NDArray[Any]) -> NDArray[Any]:
    """1 / (1 + e⁻ˣ), without overflow and with full relative accuracy at both ends.

    Args:
        x: array of floats, of any shape.

    Returns:
        An array of the same shape and dtype.

    >>> sigmoid(np.array([-1000.0, 0.0, 1000.0]))
    array([0. , 0.5, 1. ])
    """
    # e⁻ˣ overflows for x < −709. Through log(1 + e⁻ˣ) neither the value nor the derivative does.
    return np.exp(-np.logaddexp(0, -x))


def gelu(x: NDArray[Any]) -> NDArray[Any]:
    """The Gaussian error linear unit in its usual form with tanh, within 5e-4 of x Φ(x).

    Args:
        x: array of floats, of any shape.

    Returns:
        An array of the same shape and dtype.

    Source: Hendrycks and Gimpel, Gaussian Error Linear Units (2016), section 2.

    >>> gelu(np.array([-10.0, 0.0, 10.0]))
    array([-0.,  0., 10.])
    """
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x * x * x)))


def softplus(x: NDArray[Any]) -> NDArray[Any]:
    """log(1 + eˣ), without overflow.

    Args:
        x: array of floats, of any shape.

    Returns:
        An array of the same shape and dtype.

    >>> softplus(np.array([-1000.0, 1000.0]))
    array([   0., 1000.])
    """
    return np.logaddexp(x, 0)
