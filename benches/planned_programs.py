"""The programs of the planner's goals, and a library that plans a program in place of running it (`frontiers.py`,
`against_torch.py`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benches import workloads
from benches.libraries import Library


class Planned(Library):
    """Plans what a workload would run: `plan` under any policy, `planned` where everything is kept, `points` of the
    frontier."""

    def value_and_grad(self, f: Callable[..., Any], params: Any, *data: Any) -> Callable[[], tuple[Any, Any]]:
        import ckad

        def loss(params: Any, *data: Any) -> Any:
            return f(np, params, *data)

        def plan(**options: Any) -> ckad.Plan:
            return ckad.plan(ckad.value_and_grad(loss, **options))(params, *data)

        self.plan = plan
        self.planned = plan(checkpoint="none")
        self.points = ckad.memory_frontier(ckad.value_and_grad(loss))(params, *data)
        return lambda: (None, None)


def _weights(rng: np.random.Generator, count: int, width: int) -> list[Any]:
    return [(rng.standard_normal((width, width)) / np.sqrt(width)).astype(np.float32) for _ in range(count)]


def silu(xp: Any, z: Any) -> Any:
    """z·σ(z), an activation that keeps more than its result where nothing is rebuilt."""
    return z / (1.0 + xp.exp(-z))


def residual(library: Library, blocks: int = 40, width: int = 128, batch: int = 4096) -> None:
    """Blocks x + silu(x W + b)."""
    rng = np.random.default_rng(0)
    params = [(w, np.zeros(width, np.float32)) for w in _weights(rng, blocks, width)]

    def loss(xp: Any, params: Any, x: Any) -> Any:
        for w, b in params:
            x = x + silu(xp, x @ w + b)
        return xp.mean(x * x)

    library.value_and_grad(loss, params, np.ones((batch, width), np.float32))


def equal_unet(library: Library, levels: int = 5, width: int = 128, batch: int = 4096) -> None:
    """Two layers a level, a skip from each level down to the one up, all of one width."""
    weights = _weights(np.random.default_rng(0), 4 * levels + 2, width)

    def loss(xp: Any, weights: Any, x: Any) -> Any:
        layers = iter(weights)
        skips = []
        for _ in range(levels):
            x = silu(xp, silu(xp, x @ next(layers)) @ next(layers))
            skips.append(x)
        x = silu(xp, silu(xp, x @ next(layers)) @ next(layers))
        for _ in range(levels):
            x = silu(xp, silu(xp, (x + skips.pop()) @ next(layers)) @ next(layers))
        return xp.mean(x * x)

    library.value_and_grad(loss, weights, np.ones((batch, width), np.float32))


def pyramid_unet(library: Library, levels: int = 4, side: int = 256, channels: int = 16) -> None:
    """The same on an image: each level down has a fourth of the pixels and twice the channels."""
    rng = np.random.default_rng(0)

    def matrix(rows: int, columns: int) -> Any:
        return (rng.standard_normal((rows, columns)) / np.sqrt(rows)).astype(np.float32)

    widths = [channels * 2**level for level in range(levels + 1)]
    down = [(matrix(c, c), matrix(c, c), matrix(c, 2 * c)) for c in widths[:-1]]
    middle = matrix(widths[-1], widths[-1])
    up = [(matrix(2 * c, c), matrix(c, c), matrix(c, c)) for c in reversed(widths[:-1])]

    def loss(xp: Any, params: Any, x: Any) -> Any:
        down, middle, up = params
        skips = []
        for first, second, wider in down:
            x = silu(xp, silu(xp, x @ first) @ second)
            skips.append(x)
            h, w, c = x.shape
            x = xp.mean(xp.reshape(x, (h // 2, 2, w // 2, 2, c)), axis=(1, 3)) @ wider
        x = silu(xp, x @ middle)
        for narrower, first, second in up:
            x = xp.repeat(xp.repeat(x @ narrower, 2, axis=0), 2, axis=1) + skips.pop()
            x = silu(xp, silu(xp, x @ first) @ second)
        return xp.mean(x * x)

    library.value_and_grad(loss, (down, middle, up), np.ones((side, side, channels), np.float32))


def lstm(library: Library, steps: int = 60, width: int = 64, batch: int = 256) -> None:
    """A recurrent net with gates."""
    rng = np.random.default_rng(0)
    w = (rng.standard_normal((2 * width, 4 * width)) / np.sqrt(2 * width)).astype(np.float32)
    inputs = rng.standard_normal((steps, batch, width)).astype(np.float32)

    def loss(xp: Any, w: Any, inputs: Any) -> Any:
        h = c = xp.zeros((batch, width), np.float32)
        for t in range(steps):
            z = xp.concatenate([inputs[t], h], axis=1) @ w
            i, f, o = (1.0 / (1.0 + xp.exp(-z[:, k * width : (k + 1) * width])) for k in range(3))
            c = f * c + i * xp.tanh(z[:, 3 * width :])
            h = o * xp.tanh(c)
        return xp.mean(h * h)

    library.value_and_grad(loss, w, inputs)


def heat(library: Library, steps: int = 400, n: int = 20_000) -> None:
    """Diffusion with a conductivity that depends on the state, in place."""

    def loss(xp: Any, u: Any) -> Any:
        u = xp.copy(u)
        for _ in range(steps):
            u[1:-1] += 0.1 * (1.0 + u[1:-1] ** 2) * (u[2:] - 2.0 * u[1:-1] + u[:-2])
        return xp.mean(u * u)

    library.value_and_grad(loss, np.linspace(0.0, 1.0, n))


PROGRAMS: dict[str, Callable[..., Any]] = {
    "deepmlp": workloads.deepmlp,
    "residual": residual,
    "pyramid_unet": pyramid_unet,
    "equal_unet": equal_unet,
    "lstm": lstm,
    "heat": heat,
    "fluid": workloads.fluid,
    "stencil": workloads.stencil,
}


def planned(name: str, **sizes: int) -> Planned:
    """A program, planned."""
    library = Planned()
    PROGRAMS[name](library, **sizes)
    return library
