"""Random programs: ckad against the oracle, policies against each other, plans against runs."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import oracle
from conftest import POLICIES
from hypothesis import HealthCheck, given, settings
from random_programs import Program, programs

import ckad

# The suite is reproducible: the same programs each time. CKAD_EXAMPLES=5000 looks further, at others each time.
EXAMPLES = os.environ.get("CKAD_EXAMPLES")
fuzz = settings(
    max_examples=int(EXAMPLES or 60),
    derandomize=EXAMPLES is None,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def close(found: Any, expected: Any, what: str) -> None:
    """Equal up to rounding, measured by the largest element."""
    found, expected = np.asarray(found), np.asarray(oracle.read(expected))
    assert found.shape == expected.shape
    largest = np.max(np.abs(expected), initial=1.0)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-10 * largest, err_msg=what)


def directions(program: Program) -> tuple[Any, ...]:
    rng = np.random.default_rng(0)
    return tuple(rng.standard_normal(np.shape(x))[()] for x in program.args)


@fuzz
@given(programs())
def test_first_derivatives(program: Program) -> None:
    every = tuple(range(len(program.args)))
    before = [np.array(x) for x in program.args]
    value, gradient = ckad.value_and_grad(program, argnums=every)(*program.args)
    for x, old in zip(program.args, before, strict=True):
        assert np.asarray(x).tobytes() == old.tobytes(), "an argument was changed"
    close(value, program(*[x.copy("K") for x in program.args]), "value")
    expected = oracle.vjp(program, *program.args)[1](1.0)
    for k in every:
        close(gradient[k], expected[k], f"gradient by argument {k}")
    v = directions(program)
    _, tangent = ckad.jvp(program, program.args, v)
    close(tangent, sum(np.sum(oracle.read(g) * d) for g, d in zip(expected, v, strict=True)), "jvp")


@fuzz
@given(programs(longest=8))
def test_second_derivatives(program: Program) -> None:
    x, v = program.args, directions(program)
    expected = oracle.hvp(program, x, v)

    def f(args: Any) -> Any:
        return program(*args)

    def slope(args: Any) -> Any:
        return sum(np.sum(g * d) for g, d in zip(ckad.grad(f)(args), v, strict=True))

    def tangent(args: Any) -> Any:
        return ckad.jvp(f, (args,), (v,))[1]

    ways = {
        "forward over reverse": ckad.hvp(f, x, v),
        "reverse over reverse": ckad.grad(slope)(x),
        "reverse over forward": ckad.grad(tangent)(x),
    }
    for way, found in ways.items():
        for k, (a, b) in enumerate(zip(found, expected, strict=True)):
            close(a, b, f"{way}, argument {k}")


@fuzz
@given(programs(longest=16))
def test_policies_give_the_same_bits_and_keep_to_their_plans(program: Program) -> None:
    every = tuple(range(len(program.args)))
    bits, least = None, None
    for policy in POLICIES:
        transformed = ckad.value_and_grad(program, argnums=every, checkpoint=policy)
        value, gradient = transformed(*program.args)
        found = [np.asarray(value).tobytes(), *(np.asarray(g).tobytes() for g in gradient)]
        bits = bits or found
        assert found == bits, f"{policy} gives other bits than none"
        plan = ckad.plan(transformed)(*program.args)
        least = plan.live_bytes if least is None else least
        assert 0 < plan.live_bytes <= least
        assert plan.live_bytes >= sum(np.asarray(g).nbytes for g in gradient)
        assert plan.peak_bytes == max(sum(plan.parts.values()), plan.forced_runs[1])
        assert plan.extra_flops >= 0


@fuzz
@given(programs(longest=6))
def test_second_derivatives_have_the_same_bits(program: Program) -> None:
    v = directions(program)
    bits = set()
    for policy in POLICIES:
        products = ckad.hvp(lambda args: program(*args), program.args, v, checkpoint=policy)
        bits.add(tuple(np.asarray(product).tobytes() for product in products))
    assert len(bits) == 1
