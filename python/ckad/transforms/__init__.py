"""The transforms: each takes a function and returns one, or a derivative at a point."""

from ckad.transforms.checking import check_grads
from ckad.transforms.custom import custom_jvp, custom_vjp
from ckad.transforms.debugging import debug_nans
from ckad.transforms.gradient import grad, value_and_grad
from ckad.transforms.inspection import Graph, Plan, memory_frontier, plan, trace
from ckad.transforms.jacobian import jacobian, jacobian_mode
from ckad.transforms.jit import jit
from ckad.transforms.linear import hvp, jvp, linearize, stop_gradient, vjp
from ckad.transforms.loops import cond, fori_loop, scan, while_loop
from ckad.transforms.offload import Offload
from ckad.transforms.region import checkpoint, save
from ckad.transforms.slots import Mixed, Revolve
from ckad.transforms.user_policy import Clusters, Policy

__all__ = [
    "Clusters",
    "Graph",
    "Mixed",
    "Offload",
    "Plan",
    "Policy",
    "Revolve",
    "check_grads",
    "checkpoint",
    "cond",
    "custom_jvp",
    "custom_vjp",
    "debug_nans",
    "fori_loop",
    "grad",
    "hvp",
    "jacobian",
    "jacobian_mode",
    "jit",
    "jvp",
    "linearize",
    "memory_frontier",
    "plan",
    "save",
    "scan",
    "stop_gradient",
    "trace",
    "value_and_grad",
    "vjp",
    "while_loop",
]
