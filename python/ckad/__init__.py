"""Automatic differentiation of plain NumPy programs, the peak of memory known before the run.

>>> import numpy as np, ckad
>>> gradient = ckad.grad(lambda x: np.sum(np.tanh(x) ** 2), checkpoint="sqrt")
>>> gradient(np.zeros(3))
array([0., 0., 0.])
"""

import importlib
from typing import TYPE_CHECKING, Any

from ckad import errors, memory, numpy, tree
from ckad._core import Tracer, __version__
from ckad.errors import CkadError
from ckad.transforms import (
    Clusters,
    Graph,
    Mixed,
    Offload,
    Plan,
    Policy,
    Revolve,
    check_grads,
    checkpoint,
    cond,
    custom_jvp,
    custom_vjp,
    debug_nans,
    fori_loop,
    grad,
    hvp,
    jacobian,
    jacobian_mode,
    jit,
    jvp,
    linearize,
    memory_frontier,
    plan,
    save,
    scan,
    stop_gradient,
    trace,
    value_and_grad,
    vjp,
    while_loop,
)

if TYPE_CHECKING:
    from ckad import nn, optim, random

__all__ = [
    "CkadError",
    "Clusters",
    "Graph",
    "Mixed",
    "Offload",
    "Plan",
    "Policy",
    "Revolve",
    "Tracer",
    "__version__",
    "check_grads",
    "checkpoint",
    "cond",
    "custom_jvp",
    "custom_vjp",
    "debug_nans",
    "errors",
    "fori_loop",
    "grad",
    "hvp",
    "jacobian",
    "jacobian_mode",
    "jit",
    "jvp",
    "linearize",
    "memory",
    "memory_frontier",
    "nn",
    "numpy",
    "optim",
    "plan",
    "random",
    "save",
    "scan",
    "stop_gradient",
    "trace",
    "tree",
    "value_and_grad",
    "vjp",
    "while_loop",
]


def __getattr__(name: str) -> Any:
    # Layers, optimisers and random numbers are imported by those who use them.
    if name in ("nn", "optim", "random"):
        return importlib.import_module(f"ckad.{name}")
    raise AttributeError(f"[ckad] module 'ckad' has no attribute {name!r}. Hint: ckad.__all__ lists what it has")
