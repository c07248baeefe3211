"""The programs that are measured.

A workload makes its inputs and says what is differentiated; `run` is built by a library (see libraries.py). Programs
take the namespace `xp` as argument: it has NumPy's names whatever the library, so each program is written once.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from benches.libraries import Library

Run = Callable[[], list[Any]]
"""One measured call; returns the arrays from which the checksum is made."""


def deepmlp(library: Library, depth: int = 128, width: int = 256, batch: int = 4096) -> Run:
    """Gradient of a deep net of tanh layers, float32: GEMMs and memory. Variant 'sqrt' recomputes."""
    rng = np.random.default_rng(0)
    weights = [(rng.standard_normal((width, width)) / np.sqrt(width)).astype(np.float32) for _ in range(depth)]
    params = [(w, np.zeros(width, np.float32)) for w in weights]
    x = rng.standard_normal((batch, width)).astype(np.float32)
    target = rng.standard_normal((batch, width)).astype(np.float32)

    def block(xp: Any, h: Any, layers: Any) -> Any:
        for w, b in layers:
            h = xp.tanh(h @ w + b)
        return h

    def loss(xp: Any, params: Any, x: Any, target: Any) -> Any:
        h = library.in_segments(block, x, params, segment=round(depth**0.5))
        return xp.mean((h - target) ** 2)

    value_and_grad = library.value_and_grad(loss, params, x, target)

    def run() -> list[Any]:
        value, grads = value_and_grad()
        return [value, grads[0][0], grads[-1][0]]

    return run


def gelunet(library: Library, depth: int = 128, width: int = 256, batch: int = 4096) -> Run:
    """Gradient of a deep net of gelu and layer norm, float32: what 'auto' rebuilds where products are not all."""
    rng = np.random.default_rng(0)
    # Near the identity: through so many layers of noise gradients would be that of rounding.
    weights = [np.eye(width) + 0.02 * rng.standard_normal((width, width)) for _ in range(depth)]
    params = [(w.astype(np.float32), np.zeros(width, np.float32)) for w in weights]
    x = rng.standard_normal((batch, width)).astype(np.float32)

    def normalised(xp: Any, x: Any) -> Any:
        centred = x - xp.mean(x, axis=1, keepdims=True)
        return centred / xp.sqrt(xp.mean(centred * centred, axis=1, keepdims=True) + 1e-5)

    def loss(xp: Any, params: Any, h: Any) -> Any:
        for w, b in params:
            u = h @ w + b
            h = normalised(xp, 0.5 * u * (1.0 + xp.tanh(0.7978845608 * (u + 0.044715 * u * u * u))))
        return xp.mean(h * h * h)

    value_and_grad = library.value_and_grad(loss, params, x)

    def run() -> list[Any]:
        value, grads = value_and_grad()
        return [value, grads[0][0], grads[-1][0]]

    return run


def oploop(library: Library, steps: int = 10_000, n: int = 8) -> Run:
    """Gradient of a simulation of 7 tiny operations a step: what one operation costs."""
    x0 = np.linspace(0.1, 0.9, n)

    def simulate(xp: Any, rate: Any, x: Any) -> Any:
        for _ in range(steps):
            x = x + 0.01 * (rate * x * (1.0 - x) - 0.1 * xp.sin(x))
        return xp.sum(x)

    return _values(library.value_and_grad(simulate, 3.2, x0))


def chain(library: Library, ops: int = 1_000_000) -> Run:
    """Gradient of a million scalar operations in a row: length of the tape."""

    def f(xp: Any, x: Any) -> Any:
        for _ in range(ops // 2):
            x = x * 1.0000001 + 1e-9
        return x

    return _values(library.value_and_grad(f, 1.0))


def record(library: Library, ops: int = 1_000_000) -> Run:
    """Recording alone, of the same million operations; divide by `ops`."""

    def f(x: Any) -> Any:
        for _ in range(ops // 2):
            x = x * 1.0000001 + 1e-9
        return x

    return library.trace(f, 1.0)


def elementwise(library: Library, n: int = 10_000_000) -> Run:
    """Gradient of an element-wise expression over 10⁷ float32: fusion and transcendental functions."""
    x = np.random.default_rng(0).standard_normal(n).astype(np.float32)

    def f(xp: Any, x: Any) -> Any:
        return xp.sum(xp.tanh(x) * xp.exp(-x * x) + xp.log1p(x * x) / (1.0 + xp.abs(x)))

    return _values(library.value_and_grad(f, x))


def matmul(library: Library, n: int = 2048) -> Run:
    """Gradient through one product of square float32 matrices: two GEMMs."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((n, n)).astype(np.float32) for _ in range(2))
    return _values(library.value_and_grad(lambda xp, a, b: xp.mean((a @ b) ** 2), a, b))


def product(library: Library, n: int = 2048, bits: int = 32) -> Run:
    """One product of square matrices, without a gradient; of ckad under `jit`."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((n, n)).astype(f"float{bits}") for _ in range(2))
    return library.call(lambda xp, a, b: a @ b, a, b)


def jacobian(library: Library, n: int = 100, m: int = 1000) -> Run:
    """Jacobian of tanh(A x), n inputs, m outputs. Variants: 'forward', 'reverse', and 'auto' of ckad."""
    rng = np.random.default_rng(0)
    a, x = rng.standard_normal((m, n)), rng.standard_normal(n)
    return library.jacobian(lambda xp, x, a: xp.tanh(a @ x), x, a)


def fluid(library: Library, n: int = 64, steps: int = 60) -> Run:
    """Gradient of a smoke simulation (advection, pressure projection) with respect to the first velocities."""
    rng = np.random.default_rng(0)
    target, smoke = rng.random((n, n)), rng.random((n, n))
    velocity = 0.1 * rng.standard_normal(2 * n * n)
    rows, columns = (index.astype(float) for index in np.meshgrid(np.arange(n), np.arange(n)))

    def project(xp: Any, vx: Any, vy: Any) -> tuple[Any, Any]:
        h = 1.0 / n
        divergence = xp.roll(vx, -1, 0) - xp.roll(vx, 1, 0) + xp.roll(vy, -1, 1) - xp.roll(vy, 1, 1)
        divergence = -0.5 * h * divergence
        p = 0.0 * divergence
        for _ in range(10):
            p = (divergence + xp.roll(p, 1, 0) + xp.roll(p, -1, 0) + xp.roll(p, 1, 1) + xp.roll(p, -1, 1)) / 4.0
        vx = vx - 0.5 * (xp.roll(p, -1, 0) - xp.roll(p, 1, 0)) / h
        vy = vy - 0.5 * (xp.roll(p, -1, 1) - xp.roll(p, 1, 1)) / h
        return vx, vy

    def advect(xp: Any, f: Any, vx: Any, vy: Any, rows: Any, columns: Any) -> Any:
        x, y = xp.reshape(columns - vx, (-1,)), xp.reshape(rows - vy, (-1,))
        left, top = library.floor_to_int(x), library.floor_to_int(y)
        rw, bw = x - left, y - top
        left, top = left % n, top % n
        right, bottom = (left + 1) % n, (top + 1) % n
        out = (1 - rw) * ((1 - bw) * f[left, top] + bw * f[left, bottom])
        return xp.reshape(out + rw * ((1 - bw) * f[right, top] + bw * f[right, bottom]), (n, n))

    def objective(xp: Any, v: Any, smoke: Any, target: Any, rows: Any, columns: Any) -> Any:
        vx, vy = xp.reshape(v[: n * n], (n, n)), xp.reshape(v[n * n :], (n, n))
        for _ in range(steps):
            moved = [advect(xp, f, vx, vy, rows, columns) for f in (vx, vy)]
            vx, vy = project(xp, *moved)
            smoke = advect(xp, smoke, vx, vy, rows, columns)
        return xp.mean((target - smoke) ** 2)

    return _values(library.value_and_grad(objective, velocity, smoke, target, rows, columns))


def stencil(library: Library, n: int = 100_000, steps: int = 1000) -> Run:
    """Gradient through a long loop of a one-dimensional stencil, float64: how few of its states are kept."""
    u = np.linspace(0.0, 1.0, n)

    def energy(xp: Any, u: Any) -> Any:
        def step(u: Any) -> Any:
            inner = u[1:-1] + 0.1 * (u[2:] - 2.0 * u[1:-1] + u[:-2]) * u[1:-1]
            return xp.concatenate([u[:1], inner, u[-1:]])

        u = library.steps(step, u, steps)
        return xp.sum(u * u)

    return _values(library.value_and_grad(energy, u))


def smallnet(library: Library, batch: int = 32) -> Run:
    """A training step with Adam of a small classifier, float32: overhead of a whole step."""
    rng = np.random.default_rng(0)
    sizes = (784, 128, 10)
    params = [
        (rng.standard_normal(shape).astype(np.float32) / np.float32(shape[0] ** 0.5), np.zeros(shape[1], np.float32))
        for shape in itertools.pairwise(sizes)
    ]
    x = rng.random((batch, 784)).astype(np.float32)
    one_hot = np.eye(10, dtype=np.float32)[rng.integers(0, 10, batch)]

    def loss(xp: Any, params: Any, x: Any, one_hot: Any) -> Any:
        h = x
        for w, b in params[:-1]:
            h = library.relu(h @ w + b)
        w, b = params[-1]
        u = h @ w + b
        shifted = u - xp.max(u, axis=1, keepdims=True)
        log_likelihood = shifted - xp.log(xp.sum(xp.exp(shifted), axis=1, keepdims=True))
        return -xp.mean(xp.sum(one_hot * log_likelihood, axis=1))

    return library.adam_step(loss, params, x, one_hot)


def crossentropy(library: Library, n: int = 4096, classes: int = 1000) -> Run:
    """Gradient of softmax cross-entropy over rows of float32. PyTorch uses its own fused function."""
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((n, classes)).astype(np.float32), rng.integers(0, classes, n)

    def loss(xp: Any, u: Any, rows: Any, labels: Any) -> Any:
        native = getattr(library, "cross_entropy", None)
        if native:
            return native(u, labels)
        largest = xp.max(u, axis=1, keepdims=True)
        log_sum = xp.log(xp.sum(xp.exp(u - largest), axis=1)) + largest[:, 0]
        return -xp.mean(u[rows, labels] - log_sum)

    return _values(library.value_and_grad(loss, logits, np.arange(n), labels))


def layernorm(library: Library, n: int = 4096, width: int = 1024) -> Run:
    """Gradient through layer normalisation of rows of float32. PyTorch uses its own fused function."""
    rng = np.random.default_rng(0)
    x, weights = (rng.standard_normal((n, width)).astype(np.float32) for _ in range(2))

    def f(xp: Any, x: Any, weights: Any) -> Any:
        native = getattr(library, "layer_norm", None)
        if native:
            return xp.sum(native(x) * weights)
        centred = x - xp.mean(x, axis=1, keepdims=True)
        deviation = xp.sqrt(xp.mean(centred * centred, axis=1, keepdims=True) + np.float32(1e-5))
        return xp.sum(centred / deviation * weights)

    return _values(library.value_and_grad(f, x, weights))


def _values(value_and_grad: Callable[[], tuple[Any, Any]]) -> Run:
    return lambda: list(value_and_grad())


WORKLOADS: dict[str, Callable[..., Run]] = {
    function.__name__: function
    for function in (
        deepmlp,
        gelunet,
        oploop,
        chain,
        record,
        elementwise,
        matmul,
        product,
        jacobian,
        fluid,
        stencil,
        smallnet,
        crossentropy,
        layernorm,
    )
}
