"""How each library does what the workloads ask for.

An adapter supplies `xp` (NumPy's names), gradients, and a few things that have no NumPy spelling. The variant chooses
among the library's own ways: a checkpoint policy of ckad, `sqrt` segments, `compile` of PyTorch, `eager` of JAX.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np


class Library:
    """The interface, with what NumPy-like libraries share."""

    variants: tuple[str, ...] = ("",)
    xp: Any = np

    def __init__(self, variant: str = "") -> None:
        # Some variants have a number behind them.
        name = re.sub(r"-\d+$", "-N", variant)
        if name not in self.variants:
            raise SystemExit(f"{type(self).__name__.lower()} has the variants {self.variants}, not {variant!r}")
        self.variant = variant

    def call(self, f: Callable[..., Any], *args: Any) -> Callable[[], list[Any]]:
        """A call that returns [`f(xp, *args)`], finished."""
        raise SystemExit(f"{type(self).__name__} is not measured with this workload")

    def value_and_grad(self, f: Callable[..., Any], params: Any, *data: Any) -> Callable[[], tuple[Any, Any]]:
        """A call that returns `f(xp, params, *data)` and its gradient in `params`, both finished."""
        raise NotImplementedError

    def jacobian(self, f: Callable[..., Any], x: Any, *data: Any) -> Callable[[], list[Any]]:
        """A call that returns [the Jacobian of `f(xp, x, *data)` in x]."""
        raise SystemExit(f"{type(self).__name__} is not measured with this workload")

    def trace(self, f: Callable[..., Any], x: Any) -> Callable[[], list[Any]]:
        """A call that records `f` and nothing else."""
        raise SystemExit(f"{type(self).__name__} is not measured with this workload")

    def adam_step(self, loss: Callable[..., Any], params: Any, *data: Any) -> Callable[[], list[Any]]:
        """A call that does one more step of Adam with rate 1e-3 and returns [the loss]."""
        raise SystemExit(f"{type(self).__name__} is not measured with this workload")

    def in_segments(self, block: Callable[..., Any], h: Any, layers: Any, segment: int) -> Any:
        """`block(xp, h, layers)`, for a library that needs to be told where to recompute: in segments."""
        return block(self.xp, h, layers)

    def steps(self, step: Callable[[Any], Any], state: Any, count: int) -> Any:
        """`state` after so many steps, as the library's users write a long loop."""
        for _ in range(count):
            state = step(state)
        return state

    def relu(self, x: Any) -> Any:
        """max(x, 0)."""
        return self.xp.maximum(x, 0)

    def floor_to_int(self, x: Any) -> Any:
        """⌊x⌋ as integers that can index."""
        return self.xp.floor(x).astype(int)


class Ckad(Library):
    """ckad; the variant is the checkpoint policy, or the mode of a Jacobian; with 'jit', all of it under `ckad.jit`;
    'limit-50' is a limit of half the memory that keeping everything takes, or the least that can be kept; 'revolve-50'
    keeps so many states of a Python loop, 'scan-50' of `ckad.scan`."""

    variants = ("", "none", "auto", "sqrt", "forward", "reverse", "jit", "jit-sqrt", "limit-N", "revolve-N", "scan-N")

    def __init__(self, variant: str = "") -> None:
        super().__init__(variant)
        import ckad

        self.ckad = ckad
        policy = variant.removeprefix("jit-")
        self.policy: Any = policy if policy in ("none", "auto", "sqrt") else "auto"
        if variant.startswith(("revolve-", "scan-")):
            self.policy = ckad.Revolve(int(variant.rpartition("-")[2]))

    def call(self, f: Callable[..., Any], *args: Any) -> Callable[[], list[Any]]:
        jitted = self.ckad.jit(lambda *args: f(np, *args))
        return lambda: [jitted(*args)]

    def value_and_grad(self, f: Callable[..., Any], params: Any, *data: Any) -> Callable[[], tuple[Any, Any]]:
        def program(*args: Any) -> Any:
            return f(np, *args)

        gradient = self.ckad.value_and_grad(program, checkpoint=self.policy)
        if self.variant.startswith("jit"):
            gradient = self.ckad.jit(gradient)
        if self.variant.startswith("limit-"):
            everything = self.ckad.plan(program, checkpoint="none")(params, *data).peak_bytes
            limit = everything * int(self.variant.removeprefix("limit-")) // 100
            try:
                self.ckad.plan(program, memory_limit=limit)(params, *data)
            except self.ckad.errors.MemoryLimitError as error:
                limit = error.minimum
            gradient = self.ckad.value_and_grad(program, memory_limit=limit)
        return lambda: gradient(params, *data)

    def steps(self, step: Callable[[Any], Any], state: Any, count: int) -> Any:
        if not self.variant.startswith("scan-"):
            return super().steps(step, state, count)
        return self.ckad.scan(lambda state, _: (step(state), None), state, None, count)[0]

    def jacobian(self, f: Callable[..., Any], x: Any, *data: Any) -> Callable[[], list[Any]]:
        mode: Any = self.variant or "auto"
        derivative = self.ckad.jacobian(lambda x: f(np, x, *data), mode=mode)
        return lambda: [derivative(x)]

    def trace(self, f: Callable[..., Any], x: Any) -> Callable[[], list[Any]]:
        def run() -> list[Any]:
            self.ckad.trace(f)(x)
            return []

        return run

    def adam_step(self, loss: Callable[..., Any], params: Any, *data: Any) -> Callable[[], list[Any]]:
        init, update = self.ckad.optim.adam(1e-3)
        gradient = self.ckad.value_and_grad(lambda *args: loss(np, *args), checkpoint=self.policy)
        params, state = self.ckad.tree.map_leaves(np.copy, params), init(params)

        def step(params: Any, state: Any, *data: Any) -> Any:
            value, grads = gradient(params, *data)
            return value, *update(grads, state, params)

        if self.variant.startswith("jit"):
            step = self.ckad.jit(step, donate_argnums=(0, 1))

        def run() -> list[Any]:
            nonlocal params, state
            value, params, state = step(params, state, *data)
            return [value]

        return run


class Numpy(Library):
    """NumPy itself."""

    def call(self, f: Callable[..., Any], *args: Any) -> Callable[[], list[Any]]:
        return lambda: [f(np, *args)]


class Autograd(Library):
    """HIPS autograd."""

    def __init__(self, variant: str = "") -> None:
        super().__init__(variant)
        import autograd
        import autograd.numpy

        self.autograd = autograd
        self.xp = autograd.numpy

    def value_and_grad(self, f: Callable[..., Any], params: Any, *data: Any) -> Callable[[], tuple[Any, Any]]:
        gradient = self.autograd.value_and_grad(lambda params: f(self.xp, params, *data))
        return lambda: gradient(params)

    def jacobian(self, f: Callable[..., Any], x: Any, *data: Any) -> Callable[[], list[Any]]:
        derivative = self.autograd.jacobian(lambda x: f(self.xp, x, *data))
        return lambda: [derivative(x)]


class Jax(Library):
    """JAX, jitted unless the variant is 'eager'. 'sqrt' recomputes segments, and a loop as scans within a scan."""

    variants = ("", "eager", "sqrt", "forward", "reverse")

    def __init__(self, variant: str = "") -> None:
        super().__init__(variant)
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        import jax

        jax.config.update("jax_enable_x64", True)
        self.jax = jax
        self.xp = jax.numpy

    def _jit(self, f: Callable[..., Any]) -> Callable[..., Any]:
        return f if self.variant == "eager" else self.jax.jit(f)

    def value_and_grad(self, f: Callable[..., Any], params: Any, *data: Any) -> Callable[[], tuple[Any, Any]]:
        gradient = self._jit(self.jax.value_and_grad(lambda *args: f(self.xp, *args)))
        args = self.jax.tree.map(self.xp.asarray, (params, *data))
        return lambda: self.jax.block_until_ready(gradient(*args))

    def call(self, f: Callable[..., Any], *args: Any) -> Callable[[], list[Any]]:
        function, arrays = self._jit(lambda *args: f(self.xp, *args)), self.jax.tree.map(self.xp.asarray, args)
        return lambda: [self.jax.block_until_ready(function(*arrays))]

    def jacobian(self, f: Callable[..., Any], x: Any, *data: Any) -> Callable[[], list[Any]]:
        transform = self.jax.jacfwd if self.variant == "forward" else self.jax.jacrev
        args = self.jax.tree.map(self.xp.asarray, (x, *data))
        derivative = self._jit(transform(lambda *args: f(self.xp, *args)))
        return lambda: [self.jax.block_until_ready(derivative(*args))]

    def adam_step(self, loss: Callable[..., Any], params: Any, *data: Any) -> Callable[[], list[Any]]:
        tree_map = self.jax.tree.map

        def step(params: Any, mean: Any, square: Any, count: Any, *data: Any) -> Any:
            value, grads = self.jax.value_and_grad(lambda params: loss(self.xp, params, *data))(params)
            count = count + 1
            mean = tree_map(lambda m, g: 0.9 * m + 0.1 * g, mean, grads)
            square = tree_map(lambda v, g: 0.999 * v + 0.001 * g * g, square, grads)
            bias1, bias2 = ((1 - b**count).astype(np.float32) for b in (0.9, 0.999))
            params = tree_map(
                lambda p, m, v: p - 1e-3 * (m / bias1) / (self.xp.sqrt(v / bias2) + 1e-8), params, mean, square
            )
            return value, params, mean, square, count

        step = self._jit(step)
        params, *data_ = tree_map(self.xp.asarray, (params, *data))
        zeros = tree_map(self.xp.zeros_like, params)
        state = [params, zeros, zeros, self.xp.zeros((), np.float64)]

        def run() -> list[Any]:
            value, *state[:] = self.jax.block_until_ready(step(*state, *data_))
            return [value]

        return run

    def steps(self, step: Callable[[Any], Any], state: Any, count: int) -> Any:
        def several(count: int) -> Callable[..., Any]:
            return lambda state, _: (self.jax.lax.scan(lambda u, _: (step(u), None), state, None, count)[0], None)

        if self.variant != "sqrt":
            return several(count)(state, None)[0]
        # The divisor nearest to the root: as many states outside as inside.
        inner = min((n for n in range(1, count + 1) if count % n == 0), key=lambda n: n + count // n)
        return self.jax.lax.scan(self.jax.checkpoint(several(inner)), state, None, count // inner)[0]

    def in_segments(self, block: Callable[..., Any], h: Any, layers: Any, segment: int) -> Any:
        if self.variant != "sqrt":
            return block(self.xp, h, layers)
        recomputed = self.jax.checkpoint(lambda h, layers: block(self.xp, h, layers))
        for start in range(0, len(layers), segment):
            h = recomputed(h, layers[start : start + segment])
        return h


class Torch(Library):
    """PyTorch on the CPU, eager unless the variant is 'compile' or 'budget-50', which is compiled with a memory budget
    of half of what the forward part would save. 'segments-16' recomputes that many segments, placed by hand."""

    variants = ("", "compile", "sqrt", "forward", "reverse", "segments-N", "budget-N")

    def __init__(self, variant: str = "") -> None:
        super().__init__(variant)
        import torch

        # What checkpoint and torch.func import at their first call (150 MiB, a second): imports are not measured.
        import torch._dynamo

        self.torch = torch

        def reduction(function: Callable[..., Any]) -> Callable[..., Any]:
            def reduce(x: Any, axis: int | None = None, keepdims: bool = False) -> Any:
                return function(x) if axis is None else function(x, dim=axis, keepdim=keepdims)

            return reduce

        self.xp = SimpleNamespace(
            tanh=torch.tanh,
            sin=torch.sin,
            exp=torch.exp,
            log=torch.log,
            log1p=torch.log1p,
            abs=torch.abs,
            sqrt=torch.sqrt,
            reshape=torch.reshape,
            roll=lambda x, shift, axis: torch.roll(x, shift, dims=axis),
            sum=reduction(torch.sum),
            mean=reduction(torch.mean),
            max=reduction(torch.amax),
        )

    def _tensors(self, tree: Any, requires_grad: bool = False) -> Any:
        if isinstance(tree, (list, tuple)):
            return type(tree)(self._tensors(branch, requires_grad) for branch in tree)
        array = np.asarray(tree)
        return self.torch.tensor(array, requires_grad=requires_grad and array.dtype.kind == "f")

    def _leaves(self, tree: Any) -> list[Any]:
        return [leaf for branch in tree for leaf in self._leaves(branch)] if isinstance(tree, (list, tuple)) else [tree]

    def value_and_grad(self, f: Callable[..., Any], params: Any, *data: Any) -> Callable[[], tuple[Any, Any]]:
        params, data_ = self._tensors(params, requires_grad=True), self._tensors(data)
        leaves = self._leaves(params)

        def loss() -> Any:
            return f(self.xp, params, *data_)

        if self.variant.startswith("budget-"):
            import torch._functorch.config

            torch._functorch.config.activation_memory_budget = int(self.variant.removeprefix("budget-")) / 100
        if self.variant.startswith(("compile", "budget-")):
            loss = self.torch.compile(loss)

        def grads(tree: Any) -> Any:
            return [grads(branch) for branch in tree] if isinstance(tree, (list, tuple)) else tree.grad.numpy()

        def run() -> tuple[Any, Any]:
            for leaf in leaves:
                leaf.grad = None
            value = loss()
            value.backward()
            return value.detach().numpy(), grads(params)

        return run

    def call(self, f: Callable[..., Any], *args: Any) -> Callable[[], list[Any]]:
        tensors = [self._tensors(arg) for arg in args]
        return lambda: [f(self.xp, *tensors).numpy()]

    def jacobian(self, f: Callable[..., Any], x: Any, *data: Any) -> Callable[[], list[Any]]:
        x, *data_ = self._tensors((x, *data))
        transform = self.torch.func.jacfwd if self.variant == "forward" else self.torch.func.jacrev
        derivative = transform(lambda x: f(self.xp, x, *data_))
        return lambda: [derivative(x).numpy()]

    def adam_step(self, loss: Callable[..., Any], params: Any, *data: Any) -> Callable[[], list[Any]]:
        params, data_ = self._tensors(params, requires_grad=True), self._tensors(data)
        optimizer = self.torch.optim.Adam(self._leaves(params), 1e-3)

        def run() -> list[Any]:
            optimizer.zero_grad()
            value = loss(self.xp, params, *data_)
            value.backward()
            optimizer.step()
            return [value.detach().numpy()]

        return run

    def in_segments(self, block: Callable[..., Any], h: Any, layers: Any, segment: int) -> Any:
        if self.variant.startswith("segments-"):
            segment = -(-len(layers) // int(self.variant.removeprefix("segments-")))
        elif self.variant != "sqrt":
            return block(self.xp, h, layers)
        from torch.utils.checkpoint import checkpoint

        for start in range(0, len(layers), segment):
            h = checkpoint(block, self.xp, h, layers[start : start + segment], use_reentrant=False)
        return h

    def relu(self, x: Any) -> Any:
        return self.torch.relu(x)

    def floor_to_int(self, x: Any) -> Any:
        return self.torch.floor(x).long()

    def cross_entropy(self, logits: Any, labels: Any) -> Any:
        """PyTorch's fused function."""
        return self.torch.nn.functional.cross_entropy(logits, labels)

    def layer_norm(self, x: Any) -> Any:
        """PyTorch's fused function."""
        return self.torch.nn.functional.layer_norm(x, x.shape[-1:])


LIBRARIES: dict[str, type[Library]] = {"ckad": Ckad, "torch": Torch, "jax": Jax, "autograd": Autograd, "numpy": Numpy}
