"""Plans to be drawn, for the tests of pictures: with and without a browser."""

from __future__ import annotations

import linecache
from typing import Any

import numpy as np

import ckad

MARKUP = "<script>document.title='run'</script> </style></script><img src=x onerror=alert(1)>"
HOSTILE = f"x = np.cos(x)  # {MARKUP} & \"two\" 'one'"
HIDDEN = "x = np.exp(-x)  # \u202ereversed\u202c, \u200bzero width, ünï — 漢字 🌱"
LONG = "x = x * 1.01 + 0.1  # " + "<b>long</b> " * 20_000


def net(layers: int = 40, **options: Any) -> ckad.Plan:
    """Of the gradient of a deep net."""
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((32, 32)).astype(np.float32) / 6 for _ in range(layers)]

    def loss(x: Any) -> Any:
        for weight in weights:
            x = np.tanh(x @ weight)
        return np.mean(x**2)

    return ckad.plan(ckad.grad(loss, **options))(np.ones((256, 32), np.float32))


def hostile() -> ckad.Plan:
    """Of a program whose file and lines are full of markup."""
    name = "a \"dir/<script>document.title='run'</script>'&.py"
    body = "".join(f"        {line}\n" for line in (HOSTILE, HIDDEN, LONG))
    source = f"def f(x):\n    for _ in range(20):\n{body}    return np.sum(x)\n"
    scope: dict[str, Any] = {"np": np}
    exec(compile(source, name, "exec"), scope)
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    return ckad.plan(ckad.grad(scope["f"], checkpoint="sqrt"))(np.ones(1000))


def long(steps: int) -> ckad.Plan:
    """Of a program of about so many steps."""

    def f(x: Any) -> Any:
        for _ in range(steps // 3):
            x = np.cumsum(np.sin(x))
        return np.sum(x)

    return ckad.plan(ckad.grad(f, checkpoint="sqrt"))(np.linspace(0.1, 1.0, 50))
