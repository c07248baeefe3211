"""Adam: steps scaled by running moments of the gradient."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ckad import tree
from ckad.optim.optimizer import (
    Optimizer,
    Schedule,
    State,
    cast_like,
    check_number,
    check_params,
    check_rate,
    check_update,
    in_one_pass,
    rate_at,
    zero_like,
)


def adam(lr: float | Schedule, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Optimizer:
    """Adam.

    Args:
        lr: the learning rate, or a function of the number of updates done so far.
        b1: decay of the mean of the gradient, in [0, 1).
        b2: decay of the mean of its square, in [0, 1).
        eps: added to the root of the mean square, in units of the gradient.

    Returns:
        `(init, update)`: `state = init(params)`; `params, state = update(grads, state, params)`.

    Raises:
        ValueError: a number out of its range; from `update`, gradients or a state that do not fit the parameters, or a
            schedule's rate out of range.
        TypeError: from `init`, a parameter that is not a float.

    Source: Kingma and Ba, Adam: a method for stochastic optimization (2015), algorithm 1.

    >>> init, update = adam(0.1)
    >>> params = {"w": np.array([1.0, 2.0])}
    >>> params, state = update({"w": np.array([3.0, -0.5])}, init(params), params)
    >>> params["w"].round(6), state["step"]  # the first step is lr · sign(g)
    (array([0.9, 2.1]), 1)
    """
    check_rate("adam", lr)
    check_number("adam", "b1", b1, below=1.0)
    check_number("adam", "b2", b2, below=1.0)
    check_number("adam", "eps", eps, below=math.inf)
    # Python floats, which are weak: a NumPy scalar would widen float32.
    b1, b2, eps = float(b1), float(b2), float(eps)

    def init(params: Any) -> State:
        check_params("adam", params)
        return {
            "step": 0,
            "mean": tree.map_leaves(zero_like, params),
            "square": tree.map_leaves(zero_like, params),
        }

    @in_one_pass
    def advance(numbers: tuple[Any, Any], grads: Any, mean: Any, square: Any, params: Any) -> tuple[Any, Any, Any]:
        length, shrink = numbers
        grads = tree.map_leaves(cast_like, grads, params)
        mean = tree.map_leaves(lambda m, g: cast_like(b1 * m + (1.0 - b1) * g, g), mean, grads)
        square = tree.map_leaves(lambda v, g: cast_like(b2 * v + (1.0 - b2) * (g * g), g), square, grads)

        def descend(p: Any, m: Any, v: Any) -> Any:
            return cast_like(p - length * (m / (np.sqrt(v) * shrink + eps)), p)

        return tree.map_leaves(descend, params, mean, square), mean, square

    def update(grads: Any, state: State, params: Any) -> tuple[Any, State]:
        check_update("adam", grads, state, params, ("mean", "square"))
        rate = rate_at("adam", lr, state["step"])
        step = state["step"] + 1
        # The means' bias, taken out of numbers instead of arrays; a power is as weak as its base.
        numbers = rate / (1.0 - b1**step), (1.0 - b2**step) ** -0.5
        params, mean, square = advance(numbers, grads, state["mean"], state["square"], params)
        return params, {"step": step, "mean": mean, "square": square}

    return Optimizer(init, update)
