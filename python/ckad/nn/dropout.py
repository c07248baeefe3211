"""Dropout: elements set to zero at random, drawn from a key."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckad import random
from ckad.errors import CkadTypeError, CkadValueError
from ckad.nn.layer import layer


@layer()
class Dropout:
    """Sets each element to zero with probability `rate`, and scales the others so that the mean stays.

    The mask is drawn from the key again wherever a plan recomputes, so it costs no memory between the forward and the
    backward part, and is the same bit for bit under every `checkpoint=`.

    Args:
        rate: the probability, in [0, 1).

    Raises:
        ValueError: a rate that is no such number.

    Source: Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov, Dropout (2014).

    >>> import numpy as np, ckad
    >>> f = Dropout(0.5)
    >>> f(np.ones(4)), f(np.ones(4), train=True, key=ckad.random.key(0))
    (array([1., 1., 1., 1.]), array([0., 0., 2., 2.]))
    """

    rate: float

    def __init__(self, rate: float) -> None:
        if not isinstance(rate, (int, float, np.number)) or isinstance(rate, bool) or not 0 <= rate < 1:
            hint = "give the share of elements that are dropped, such as Dropout(0.1)"
            raise CkadValueError.of("Dropout", f"rate={rate!r} is no number in [0, 1)", hint)
        self.rate = float(rate)

    def __call__(self, x: NDArray[Any], *, train: bool = False, key: Any = None) -> NDArray[Any]:
        """Applies the layer.

        Args:
            x: array of floats.
            train: whether anything is dropped; else the result is x.
            key: the key of the mask, needed in training.

        Returns:
            An array like x.

        Raises:
            TypeError: there is no key in training.
        """
        if not train or self.rate == 0.0:
            return x
        if key is None:
            hint = "call the model with key=, one of ckad.random.split(key), or with train=False"
            raise CkadTypeError.of("Dropout", "a key is needed in training", hint)
        # In float32, which takes half the bits; the rate is rounded to 2⁻²⁴.
        kept = random.bernoulli(key, np.float32(1.0 - self.rate), np.shape(x))
        return np.where(kept, x, 0) * (1.0 / (1.0 - self.rate))

    def __repr__(self) -> str:
        return f"Dropout({self.rate:g})"
