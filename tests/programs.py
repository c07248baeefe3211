"""Plain NumPy programs that many tests differentiate: name → (function to a scalar, arguments)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

_rng = np.random.default_rng(1)


def mlp(params: Any, x: Any, y: Any) -> Any:
    for w, b in params[:-1]:
        x = np.tanh(x @ w + b)
    w, b = params[-1]
    return np.mean((x @ w + b - y) ** 2)


def softmax_net(w1: Any, w2: Any, x: Any) -> Any:
    h = 1.0 / (1.0 + np.exp(-(x @ w1)))
    u = h @ w2
    m = np.max(u, axis=1, keepdims=True)
    log_p = u - m - np.log(np.sum(np.exp(u - m), axis=1, keepdims=True))
    return -np.mean(log_p[np.arange(x.shape[0]), np.arange(x.shape[0]) % w2.shape[1]])


def layer_norm(x: Any, w: Any) -> Any:
    d = x - np.mean(x, axis=1, keepdims=True)
    return np.sum(np.tanh(d / np.sqrt(np.mean(d * d, axis=1, keepdims=True) + 1e-5) * w))


def trajectory(r: Any, x0: Any) -> Any:
    # An array that holds traced values, whichever argument is differentiated.
    u = np.zeros((20, x0.shape[0])) + 0.0 * r + 0.0 * x0
    u[0] = x0
    for t in range(19):
        u[t + 1] = u[t] + 0.1 * r * u[t] * (1.0 - u[t])
    return np.sum(u[-1] * u[10]) + np.mean(u)


def heat(x: Any) -> Any:
    u = x.copy()
    for _ in range(12):
        u[1:-1] += 0.2 * (u[2:] - 2 * u[1:-1] + u[:-2])
    return np.sum(u**2)


def rolled(x: Any) -> Any:
    p = np.zeros_like(x)
    for _ in range(4):
        p = (x + np.roll(p, 1, axis=0) + np.roll(p, -1, axis=1)) / 3.0
    return np.sum(p * np.sin(p))


def while_loop(x: Any) -> Any:
    while np.sum(x * x) > 1.0:
        x = 0.7 * x + 0.1 * np.sin(x)
    return np.sum(np.exp(x))


def matrix_products(a: Any, b: Any) -> Any:
    return np.einsum("ij,jk,kl->", a, b, a[:, :3]) + np.sum(np.tensordot(a, b, 1) ** 2) + np.vdot(a.T, b)


def gathers(x: Any) -> Any:
    index = np.array([[0, 2], [1, 1], [3, 0]])
    y = x[index] * x[::-1][:3, None] ** 2
    y[0, 1] = x[4] * x[0]
    return np.sum(np.sort(y.ravel()) * np.arange(6.0)) + np.prod(x[1:]) + np.cumsum(x)[2]


def scaling(points: Any, distances: Any) -> Any:
    """Multidimensional scaling's stress."""
    difference = points[:, None, :] - points[None, :, :]
    found = np.sqrt(np.sum(difference**2, axis=2) + np.eye(points.shape[0]))
    return np.sum((found - distances) ** 2)


def _normal(*shape: int) -> Any:
    return _rng.standard_normal(shape)


PROGRAMS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "mlp": (
        mlp,
        (
            [(_normal(4, 5) / 2, _normal(5)) for _ in range(1)]
            + [(_normal(5, 5) / 2, _normal(5)) for _ in range(6)]
            + [(_normal(5, 2), _normal(2))],
            _normal(7, 4),
            _normal(7, 2),
        ),
    ),
    "softmax_net": (softmax_net, (_normal(3, 6), _normal(6, 3), _normal(8, 3))),
    "layer_norm": (layer_norm, (_normal(6, 9), _normal(9))),
    "trajectory": (trajectory, (1.3, np.linspace(0.1, 0.9, 5))),
    "heat": (heat, (_normal(16),)),
    "rolled": (rolled, (_normal(5, 6),)),
    "while_loop": (while_loop, (_normal(6) * 2,)),
    "matrix_products": (matrix_products, (_normal(3, 3), _normal(3, 3))),
    "gathers": (gathers, (np.linspace(0.5, 2.0, 5),)),
    "scaling": (scaling, (_normal(6, 2), np.abs(_normal(6, 6)))),
}
