"""Plans are known before the run, and the run keeps to them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from programs import PROGRAMS

import ckad
from ckad.transforms.recording import mark_transform


def deep(params: Any, x: Any) -> Any:
    for w, b in params:
        x = np.tanh(x @ w + b)
    return np.mean(x**2)


def deep_net(depth: int, width: int = 32, batch: int = 256) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    params = [(rng.standard_normal((width, width)) / np.sqrt(width), np.zeros(width)) for _ in range(depth)]
    return params, rng.standard_normal((batch, width))


@pytest.mark.parametrize(("f", "args"), [pytest.param(*case, id=name) for name, case in PROGRAMS.items()])
def test_planned_bytes_are_what_a_run_holds(f: Any, args: Any, policy: str | int) -> None:
    g = ckad.grad(f, checkpoint=policy)
    plan = ckad.plan(g)(*args)
    report = ckad.memory.profile(g, *args)
    assert report.executor_bytes == plan.live_bytes
    assert plan.peak_bytes == sum(plan.parts.values())


def test_sqrt_needs_a_fraction() -> None:
    args = deep_net(64)
    none, sqrt = (ckad.plan(ckad.grad(deep, checkpoint=policy))(*args) for policy in ("none", "sqrt"))
    outputs = none.parts["outputs"]
    assert sqrt.live_bytes - outputs < 0.35 * (none.live_bytes - outputs)
    assert sqrt.extra_flops <= 0.35 * none.flops
    assert none.extra_flops == 0
    assert sqrt.segments > 1
    assert none.forward_flops < none.flops < sqrt.flops


def test_peak_of_sqrt_grows_like_a_square_root() -> None:
    peaks = []
    for depth in (16, 64, 256):
        plan = ckad.plan(ckad.grad(deep, checkpoint="sqrt"))(*deep_net(depth, width=8, batch=512))
        peaks.append(plan.live_bytes - plan.parts["outputs"])
    assert peaks[2] / peaks[1] < 2.3
    assert peaks[1] / peaks[0] < 2.3


def _heat(copies: bool) -> Callable[[Any, Any], Any]:
    def loss(u: Any, rate: Any) -> Any:
        u = u.copy()
        for step in range(100):
            u = u.copy() if copies else u
            u[1:-1] += rate * np.tanh(u[2:] - 2.0 * u[1:-1] + u[:-2])
            u[0] = 0.0
            u[-1] = u[-2]
            u[step] += 0.01
        return np.sum(u * u)

    return loss


@pytest.mark.parametrize("copies", [False, True])
def test_boundary_conditions_do_not_keep_a_simulation(copies: bool) -> None:
    args = (np.linspace(0.0, 1.0, 10_000), 0.1)
    gradients = {policy: ckad.grad(_heat(copies), (0, 1), checkpoint=policy) for policy in ("none", "sqrt")}
    none, sqrt = (ckad.plan(gradient)(*args) for gradient in gradients.values())
    assert sqrt.live_bytes < 0.25 * none.live_bytes
    assert sqrt.bytes_moved < 2.0 * none.bytes_moved
    for by_none, by_sqrt in zip(*(gradient(*args) for gradient in gradients.values()), strict=True):
        assert np.array_equal(by_none, by_sqrt)


def test_a_policy_that_saves_nothing_says_so() -> None:
    # The gradient of a linear function needs none of its values.
    a = np.ones((64, 64))
    plan = ckad.plan(ckad.grad(lambda x: np.sum(x @ a @ a @ a), checkpoint="sqrt"))(np.ones((64, 64)))
    assert plan.segments == 1
    assert "everything is kept" in (plan.note or "")


def test_no_policy_needs_more_than_none(policy: str | int) -> None:
    for f, args in PROGRAMS.values():
        none = ckad.plan(ckad.grad(f, checkpoint="none"))(*args)
        assert ckad.plan(ckad.grad(f, checkpoint=policy))(*args).live_bytes <= none.live_bytes


def test_checkpoint_marks_a_region() -> None:
    def block(x: Any, w: Any) -> Any:
        for _ in range(8):
            x = np.tanh(x @ w)
        return x

    def f(w: Any, x: Any, wrap: Any) -> Any:
        for _ in range(8):
            x = wrap(block)(x, w)
        return np.sum(x * x)

    rng = np.random.default_rng(0)
    w, x = rng.standard_normal((32, 32)) / 6, rng.standard_normal((512, 32))
    plain, marked = (
        ckad.grad(lambda w, x, wrap=wrap: f(w, x, wrap), checkpoint="none") for wrap in (lambda g: g, ckad.checkpoint)
    )
    assert ckad.plan(marked)(w, x).live_bytes < 0.5 * ckad.plan(plain)(w, x).live_bytes
    assert plain(w, x).tobytes() == marked(w, x).tobytes()


def plain_net(weights: Any, x: Any) -> Any:
    for w in weights:
        x = np.tanh(x @ w)
    return np.mean(x**2)


def trained(weights: Any, x: Any, rate: Any, policy: Any) -> Any:
    gradient = ckad.grad(plain_net, checkpoint=policy)
    for _ in range(3):
        weights = [w - rate * g for w, g in zip(weights, gradient(weights, x), strict=True)]
    return plain_net(weights, x)


@pytest.mark.parametrize("outer", ["jvp of a gradient", "jvp of a training loop", "gradient of a training loop"])
def test_an_inner_policy_holds_under_an_outer_transform(outer: str) -> None:
    params, x = deep_net(64)
    weights = [w for w, _ in params]
    live = {}
    for policy in ("none", "sqrt"):
        if outer == "jvp of a gradient":
            gradient = ckad.grad(plain_net, checkpoint=policy)
            call = lambda gradient=gradient: ckad.jvp(
                lambda w: gradient(w, x), (weights,), (weights,), checkpoint="none"
            )
        elif outer == "jvp of a training loop":
            call = lambda policy=policy: ckad.jvp(
                lambda rate: trained(weights, x, rate, policy), (0.1,), (1.0,), checkpoint="none"
            )
        else:
            call = lambda policy=policy: ckad.grad(lambda rate: trained(weights, x, rate, policy), checkpoint="none")(
                0.1
            )
        live[policy] = ckad.plan(mark_transform(call))().live_bytes
    assert live["sqrt"] < 0.4 * live["none"]


def test_gradients_that_run_inside_a_trace_are_counted_not_planned() -> None:
    params, x = deep_net(8)
    weights = [w for w, _ in params]
    plan = ckad.plan(lambda rate: trained(weights, x, rate, "none"), checkpoint="none")(0.1)
    # The first of the three gradients depends on nothing traced: it runs while the rest is recorded.
    assert plan.forced_runs[0] == 1


def test_the_plan_has_a_table_per_source_line() -> None:
    plan = ckad.plan(ckad.grad(deep, checkpoint="sqrt"))(*deep_net(8))
    text = str(plan)
    assert "test_planning.py:" in text
    named = {"peak": plan.peak_bytes, "live": plan.live_bytes, "planning": plan.planning_bytes, **plan.parts}
    for name, count in named.items():
        assert re.search(rf"^ *{name} +{count:,} B +{count / 2**20:.1f} MiB", text, re.MULTILINE), name
    assert f"{100 * plan.extra_flops / (plan.flops - plan.extra_flops):.1f} % of the operations without them" in text
    # What the columns mean stands below them.
    assert all(f"\n{word}  " in text for word in ("at the peak", "saved", "computed 2×"))


def test_a_loop_that_is_recorded_once_says_how_often_it_is_computed() -> None:
    def f(x: Any) -> Any:
        return np.sum(ckad.scan(lambda c, _: (np.sin(c) * 1.1, None), x, None, 200)[0])

    # With 4 slots C(4 + 6, 6) = 210 iterations are turned round by at most six sweeps, C(4 + 5, 5) = 126 by five.
    for policy, times in (("none", 1), ("sqrt", 2), (4, 6)):
        plan = ckad.plan(ckad.grad(f, checkpoint=policy))(np.ones(50))
        assert max(cost.computed for cost in plan.lines) == times
        assert re.search(rf" {times}×$", str(plan), re.MULTILINE)
        assert (plan.extra_flops > 0) == (times > 1)
        page = plan.to_html()
        assert ("none is computed again" in page) == (times == 1)
        assert ("or iterations of loops, are computed again" in page) == (times > 1)


def test_a_plain_function_is_planned_as_its_value_and_grad() -> None:
    args = deep_net(8)
    a = ckad.plan(deep, checkpoint="sqrt")(*args)
    b = ckad.plan(ckad.value_and_grad(deep, checkpoint="sqrt"))(*args)
    assert (a.peak_bytes, a.flops) == (b.peak_bytes, b.flops)


@pytest.mark.parametrize("reduce", [np.sum, np.mean])
def test_value_and_gradient_of_an_expression_are_one_kernel(reduce: Any, policy: str | int) -> None:
    def f(x: Any) -> Any:
        return reduce(np.tanh(x) * np.exp(-x * x) + np.log1p(x * x) / (1.0 + np.abs(x)))

    x = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
    plan = ckad.plan(ckad.value_and_grad(f, checkpoint=policy))(x)
    # No array but the gradient itself.
    assert plan.live_bytes <= x.nbytes + 64
    assert 0 < plan.forward_flops < plan.flops
    # The same bits as from two programs, one for each pass.
    value, gradient = ckad.value_and_grad(f, checkpoint=policy)(x)
    apart, pull = ckad.vjp(f, x)
    assert value.tobytes() == apart.tobytes()
    (other,) = pull(np.float32(1.0))
    assert gradient.tobytes() == other.tobytes()


def test_loops_that_index_are_linear_in_elements_touched(policy: str | int) -> None:
    def trajectory(x0: Any, steps: int) -> Any:
        u = np.zeros((steps, 50)) + 0 * x0
        u[0] = x0
        for t in range(steps - 1):
            u[t + 1] = u[t] + 0.01 * np.sin(u[t])
        return np.sum(u[-1] * u[steps // 2])

    def element_by_element(x0: Any, steps: int) -> Any:
        u = np.zeros(steps) + 0 * x0[0]
        u[0] = x0[0]
        for t in range(steps - 1):
            u[t + 1] = 0.9 * u[t] + x0[1]
        return np.sum(u)

    for program in (trajectory, element_by_element):
        moved = []
        for steps in (200, 400):
            gradient = ckad.grad(lambda x0, steps=steps, program=program: program(x0, steps), checkpoint=policy)
            moved.append(ckad.plan(gradient)(np.full(50, 0.5)).bytes_moved)
        assert moved[1] < 2.1 * moved[0]


def test_auto_keeps_two_values_a_layer_of_gelu_and_layer_norm() -> None:
    depth, width, batch = 16, 256, 1024
    params = [(np.ones((width, width), np.float32), np.zeros(width, np.float32))] * depth
    x = np.ones((batch, width), np.float32)

    def loss(params: Any, h: Any) -> Any:
        for w, b in params:
            u = ckad.nn.gelu(h @ w + b)
            u = u - np.mean(u, axis=1, keepdims=True)
            h = u / np.sqrt(np.mean(u * u, axis=1, keepdims=True) + 1e-5)
        return np.mean(h * h * h)

    none, auto = (ckad.plan(ckad.value_and_grad(loss, checkpoint=policy))(params, x) for policy in ("none", "auto"))
    assert auto.parts["arena"] <= (2 * depth + 2) * x.nbytes
    assert auto.parts["arena"] <= 0.3 * none.parts["arena"]
    assert auto.extra_flops <= 0.05 * auto.flops
