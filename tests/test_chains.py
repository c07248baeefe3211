"""Plain loops are chains: 'log', Revolve and Mixed, counted against the optimum and seen in bytes."""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_schedules import Forward, MultistageCheckpointSchedule
from checkpoint_schedules.mixed import mixed_steps_tabulation

import ckad


def products(steps: int) -> Callable[[Any, Any], Any]:
    """A loop whose steps cost the same and whose adjoints read nothing but states."""

    def f(x: Any, w: Any) -> Any:
        for _ in range(steps):
            x = np.tanh(x @ w)
        return np.sum((x @ w) ** 2)

    return f


def recomputed(steps: int, policy: Any) -> float:
    """Steps that are computed beyond one time each."""
    x, w = np.full((256, 16), 0.5), np.full((16, 16), 0.25)
    plan = ckad.plan(ckad.grad(products(steps), (0, 1), checkpoint=policy))(x, w)
    assert plan.note is None
    one = ckad.plan(products(2))(x, w).forward_flops - ckad.plan(products(1))(x, w).forward_flops
    return plan.extra_flops / one


def advances(steps: int, slots: int) -> int:
    """Griewank and Walther's closed form."""
    repeats = next(r for r in range(steps + 1) if math.comb(slots + r, slots) >= steps)
    return repeats * steps - math.comb(slots + repeats, repeats - 1)


@pytest.mark.parametrize(
    ("steps", "slots"),
    [(10, 1), (50, 1), (10, 2), (100, 2), (100, 5), (300, 7), (1000, 3), (1000, 10), (1000, 44), (1000, 56)],
)
def test_a_uniform_loop_takes_as_few_steps_as_can_be(steps: int, slots: int) -> None:
    # All but the last step are computed once in any case.
    own = round(recomputed(steps, ckad.Revolve(slots)), 9) + steps - 1
    assert own == advances(steps, slots)


@pytest.mark.parametrize(("steps", "slots"), [(10, 1), (10, 2), (100, 5), (300, 7), (1000, 3), (1000, 44), (1000, 100)])
def test_the_package_computes_as_many(steps: int, slots: int) -> None:
    schedule = MultistageCheckpointSchedule(steps, slots, 0)
    forwards = [action for action in schedule if isinstance(action, Forward)]
    # It computes each step once more, for its own adjoint.
    assert sum(action.n1 - action.n0 for action in forwards) - steps == advances(steps, slots)


@pytest.mark.parametrize("slots", [3, 10, 30, 100])
def test_ten_thousand_steps(slots: int) -> None:
    assert round(recomputed(10_000, ckad.Revolve(slots)), 9) + 9_999 == advances(10_000, slots)


def stencil_in_place(steps: int) -> Callable[[Any], Any]:
    def f(u: Any) -> Any:
        u = u + 0.0
        for _ in range(steps):
            u[1:-1] += 0.1 * (u[2:] - 2.0 * u[1:-1] + u[:-2]) * u[1:-1]
        return np.sum(u * u)

    return f


def stencil_copied(steps: int) -> Callable[[Any], Any]:
    def f(u: Any) -> Any:
        for _ in range(steps):
            inner = u[1:-1] + 0.1 * (u[2:] - 2.0 * u[1:-1] + u[:-2]) * u[1:-1]
            u = np.concatenate([u[:1], inner, u[-1:]])
        return np.sum(u * u)

    return f


@pytest.mark.parametrize("stencil", [stencil_in_place, stencil_copied])
def test_a_stencil_of_a_thousand_steps_holds_sixty_states(stencil: Any) -> None:
    n, steps, slots = 4_000, 1000, 50
    u = np.linspace(0.0, 1.0, n)
    gradient = ckad.grad(stencil(steps), checkpoint=ckad.Revolve(slots))
    plan = ckad.plan(gradient)(u)
    assert plan.live_bytes <= 60 * u.nbytes
    # Of the extra work, what the adjoints rebuild for themselves is at most one forward part.
    forward = plan.forward_flops
    assert advances(steps, slots) <= 2 * steps
    assert plan.extra_flops <= forward * advances(steps, slots) / steps
    np.testing.assert_array_equal(gradient(u), ckad.grad(stencil(steps), checkpoint="none")(u))


def pendulum(steps: int) -> Callable[[Any], Any]:
    """Steps so small that fusion takes several into one kernel."""

    def f(x: Any) -> Any:
        for _ in range(steps):
            x = x + 0.1 * np.sin(x)
        return np.sum(x * x)

    return f


def products_of_waves(steps: int) -> Callable[[Any], Any]:
    def f(x: Any) -> Any:
        for _ in range(steps):
            x = np.sin(x) * np.cos(x)
        return np.sum(x * x)

    return f


@pytest.mark.parametrize("loop", [pendulum, products_of_waves])
@pytest.mark.parametrize(("steps", "slots"), [(300, 30), (300, 24), (300, 5), (1000, 30)])
def test_an_elementwise_loop_holds_its_slots(loop: Any, steps: int, slots: int) -> None:
    x = np.linspace(0.0, 1.0, 4_000)
    gradient = ckad.grad(loop(steps), checkpoint=ckad.Revolve(slots))
    plan = ckad.plan(gradient)(x)
    assert plan.note is None
    assert plan.live_bytes <= (slots + 4) * x.nbytes
    # What the adjoints rebuild for themselves is at most one forward part.
    assert plan.extra_flops <= plan.forward_flops * advances(steps, slots) / steps
    np.testing.assert_array_equal(gradient(x), ckad.grad(loop(steps), checkpoint="none")(x))


@pytest.mark.parametrize("steps", [300, 1000])
def test_an_elementwise_loop_under_the_other_policies(steps: int) -> None:
    # States large enough for kernels of one step each to take few bytes beside them.
    x = np.linspace(0.0, 1.0, 40_000)
    root = math.sqrt(2 * steps)
    most = {"sqrt": root + 4, "log": math.log2(steps) + 5, ckad.Mixed(30): 34.0, 20: 20 + steps / 20 + 4}
    expected = ckad.grad(pendulum(steps), checkpoint="none")(x)
    for policy, states in most.items():
        gradient = ckad.grad(pendulum(steps), checkpoint=policy)
        assert ckad.plan(gradient)(x).live_bytes <= states * x.nbytes, policy
        np.testing.assert_array_equal(gradient(x), expected)


def test_a_limit_finds_the_steps_of_an_elementwise_loop() -> None:
    x = np.linspace(0.0, 1.0, 50_000)
    f = pendulum(200)
    frontier = ckad.memory_frontier(ckad.grad(f))(x)
    for slots in (3, 5, 10, 20):
        plan = ckad.plan(ckad.grad(f, checkpoint=ckad.Revolve(slots)))(x)
        assert frontier[0][0] <= plan.peak_bytes
        within = [extra for bytes_, extra, _ in frontier if bytes_ <= plan.peak_bytes]
        assert min(within) <= 1.05 * plan.extra_flops
    limited = ckad.grad(f, memory_limit=frontier[0][0])(x)
    np.testing.assert_array_equal(limited, ckad.grad(f, checkpoint="none")(x))


@pytest.mark.parametrize("stencil", [stencil_in_place, stencil_copied])
def test_a_limit_finds_the_chain(stencil: Any) -> None:
    u = np.linspace(0.0, 1.0, 20_000)
    f = stencil(300)
    none = ckad.plan(ckad.grad(f, checkpoint="none"))(u)
    plan = ckad.plan(ckad.grad(f, memory_limit=none.peak_bytes // 10))(u)
    assert plan.peak_bytes <= none.peak_bytes // 10
    assert plan.extra_flops <= 2.2 * none.forward_flops
    limited = ckad.grad(f, memory_limit=none.peak_bytes // 10)(u)
    np.testing.assert_array_equal(limited, ckad.grad(f, checkpoint="none")(u))


def odd_steps(x: Any) -> Any:
    h = 0.1
    x = np.exp(np.sin(x))
    for t in range(60):
        if t % 10 == 0:
            x = x - 0.01 * np.cumsum(x) / x.size
        x = x + h * np.sin(x) * np.roll(x, 1)
        h *= 0.99
    return np.sum(x * x)


def nested(x: Any) -> Any:
    for _ in range(12):
        for _ in range(5):
            x = x + 0.1 * np.sin(x) * np.roll(x, 1)
        x = x / (1.0 + np.mean(x * x))
    return np.sum(x * x)


def adaptive(x: Any) -> Any:
    for _ in range(50):
        change = np.cos(x) * np.roll(x, 1)
        x = x + change * np.minimum(0.1, 0.05 / np.max(np.abs(change)))
    return np.sum(x * x)


def accepting(x: Any) -> Any:
    """Steps that are refused and tried again with half the width, as a value says: of each a run is forced."""
    step, taken, refused = 0.8, 0, 0
    while taken < 40:
        change = step * np.cos(x) * np.roll(x, 1)
        if np.max(np.abs(change)) > 0.3 / (1 + taken % 5):
            step, refused = 0.5 * step, refused + 1
            continue
        x, step, taken = x + change, 1.3 * step, taken + 1
    assert refused > 5
    return np.sum(x * x)


@pytest.mark.parametrize("policy", ["log", "sqrt", ckad.Revolve(4), ckad.Mixed(4)], ids=str)
def test_steps_that_are_accepted_or_refused(policy: Any) -> None:
    x = np.linspace(0.1, 1.0, 2000)
    none = ckad.plan(ckad.grad(accepting, checkpoint="none"))(x)
    plan = ckad.plan(ckad.grad(accepting, checkpoint=policy))(x)
    assert plan.forced_runs[0] > 40
    assert plan.note is None
    assert plan.live_bytes < 0.6 * none.live_bytes
    assert plan.extra_flops < 6 * none.forward_flops
    gradient = ckad.grad(accepting, checkpoint=policy)(x)
    np.testing.assert_array_equal(gradient, ckad.grad(accepting, checkpoint="none")(x))
    v = np.random.default_rng(0).standard_normal(2000)
    h = 1e-6
    difference = (accepting(x + h * v) - accepting(x - h * v)) / (2 * h)
    np.testing.assert_allclose(gradient @ v, difference, rtol=1e-6)


@pytest.mark.parametrize("f", [odd_steps, nested, adaptive])
@pytest.mark.parametrize("policy", ["log", ckad.Revolve(4), ckad.Mixed(4)], ids=str)
def test_loops_that_are_not_uniform(f: Any, policy: Any) -> None:
    x = np.linspace(0.1, 1.0, 2000)
    none = ckad.plan(ckad.grad(f, checkpoint="none"))(x)
    plan = ckad.plan(ckad.grad(f, checkpoint=policy))(x)
    assert plan.note is None
    assert plan.live_bytes < 0.6 * none.live_bytes
    assert plan.extra_flops < 6 * none.forward_flops
    np.testing.assert_array_equal(ckad.grad(f, checkpoint=policy)(x), ckad.grad(f, checkpoint="none")(x))


def test_slots_for_states_or_steps_take_no_more_steps() -> None:
    # The package counts each step for its own adjoint, too, which here reads states only.
    for steps, slots in [(20, 3), (60, 5), (100, 8)]:
        mixed = mixed_steps_tabulation(steps, slots)[steps, slots, 2]
        assert recomputed(steps, ckad.Mixed(slots)) + steps <= mixed
        assert recomputed(steps, ckad.Mixed(slots)) <= recomputed(steps, ckad.Revolve(slots))


def test_slots_count_on_long_chains() -> None:
    x = np.linspace(0.0, 1.0, 4_000)
    for steps, slots, only in [(2000, 1500, False), (3000, 1500, True)]:
        plan = ckad.plan(ckad.grad(pendulum(steps), checkpoint=ckad.Mixed(slots)))(x)
        assert plan.live_bytes <= (slots + 4) * x.nbytes
        assert ("each slot holds a state" in str(plan.note)) == only


@pytest.mark.parametrize("size", [10, 200])
def test_small_states_need_no_longer_programs(size: int) -> None:
    # A kernel for each step would take more bytes than the states that it saves.
    x = np.linspace(0.0, 1.0, size)
    none = ckad.plan(ckad.grad(pendulum(3000), checkpoint="none"))(x)
    for policy in ("sqrt", 20):
        plan = ckad.plan(ckad.grad(pendulum(3000), checkpoint=policy))(x)
        assert plan.note is None
        assert plan.peak_bytes <= none.peak_bytes
        assert plan.live_bytes <= 0.1 * none.live_bytes


def test_halving_holds_few_states() -> None:
    u = np.linspace(0.0, 1.0, 4_000)
    for steps in (64, 256):
        plan = ckad.plan(ckad.grad(stencil_in_place(steps), checkpoint="log"))(u)
        assert plan.live_bytes <= (math.log2(steps) + 6) * u.nbytes


def test_second_order_is_a_chain_forward_and_keeps_borders_backward() -> None:
    f = stencil_copied(30)
    u = np.linspace(0.0, 1.0, 50)
    expected = ckad.hvp(f, u, u, checkpoint="none")
    for policy in ("log", ckad.Revolve(4), ckad.Mixed(4)):
        np.testing.assert_array_equal(ckad.hvp(f, u, u, checkpoint=policy), expected)
    twice = ckad.grad(lambda u: np.sum(ckad.grad(f)(u) ** 2), checkpoint=ckad.Revolve(4))
    plan = ckad.plan(twice)(np.linspace(0.0, 1.0, 5000))
    assert "borders" in str(plan.note)


@pytest.mark.parametrize("policy", [ckad.Revolve, ckad.Mixed])
def test_slots_are_checked(policy: Any) -> None:
    for slots in (0, -3, 2**31, 10**30):
        with pytest.raises(ValueError, match=r"slots must be between 1 and 2\*\*31 − 1"):
            policy(slots)
    for slots in (1.5, "3", None, True):
        with pytest.raises(TypeError, match="slots is an int"):
            policy(slots)
    with pytest.raises(ValueError, match=rf"such as ckad\.{policy.__name__}\(10\)"):
        ckad.grad(np.sum, checkpoint=policy)
    with pytest.raises(AttributeError, match="does not change"):
        policy(3).slots = 4


def test_policies_are_values() -> None:
    three = ckad.Revolve(3)
    assert three == ckad.Revolve(np.int64(3)) != ckad.Revolve(4)
    assert three != ckad.Mixed(3)
    assert len({three, ckad.Revolve(3), ckad.Mixed(3)}) == 2
    assert repr(three) == "ckad.Revolve(3)"
    assert three.slots == 3
    assert pickle.loads(pickle.dumps(three)) == three


def test_far_too_few_slots() -> None:
    with pytest.raises(ValueError, match=r"Revolve\(1\) would compute some of the 6000 steps 5999 times.*at least 2"):
        ckad.plan(ckad.grad(products(6000), (0, 1), checkpoint=ckad.Revolve(1)))(np.ones((2, 2)), np.ones((2, 2)))


def test_the_page_says_what_policies_cost_a_long_loop() -> None:
    page = (Path(__file__).parents[1] / "docs" / "checkpointing.md").read_text()
    rows = re.findall(r"^\| `(.*)` \| (\d+) \| [\d.]+ n \| ([\d.]+) \|$", page, re.MULTILINE)
    assert len(rows) == 6
    u = np.linspace(0.0, 1.0, 100_000)
    for policy, states, extra in rows:
        plan = ckad.plan(ckad.grad(stencil_in_place(1000), checkpoint=eval(policy)))(u)
        assert round(plan.live_bytes / u.nbytes) == int(states), policy
        assert round(plan.extra_flops / plan.forward_flops, 2) == float(extra), policy
