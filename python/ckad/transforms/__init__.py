"""The transforms: each takes a function and returns one, or a derivative at a point."""

from ckad.transforms.checking import check_grads
from ckad.transforms.debugging import debug_nans
from ckad.transforms.gradient import grad, value_and_grad
from ckad.transforms.inspection import Graph, Plan, memory_frontier, plan, trace
from ckad.transforms.jacobian import jacobian, jacobian_mode
from ckad.transforms.jit import jit
from ckad.transforms.linear import hvp, jvp, linearize, stop_gradient, vjp
from ckad.transforms.loops import scan
from ckad.transforms.offload import Offload
from ckad.transforms.region import checkpoint
from ckad.transforms.slots import Mixed, Revolve

__all__ = [
    "Graph",
    "Mixed",
    "Offload",
    "Plan",
    "Revolve",
    "check_grads",
    "checkpoint",
    "debug_nans",
    "grad",
    "hvp",
    "jacobian",
    "jacobian_mode",
    "jit",
    "jvp",
    "linearize",
    "memory_frontier",
    "plan",
    "scan",
    "stop_gradient",
    "trace",
    "value_and_grad",
    "vjp",
]
