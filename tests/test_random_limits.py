"""Random programs under limits and policies of the user's: the same bits, limits kept, never more than 'none'."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_programs import Program, programs
from test_random_graphs import EXAMPLES, fuzz

import ckad


class Drawn:
    """Keeps a random part of the values, or draws borders, or repeats random clusters."""

    def __init__(self, kind: str, seed: int) -> None:
        self.kind, self.seed = kind, seed

    def choose(self, clusters: ckad.Clusters) -> Any:
        rng = np.random.default_rng(self.seed)
        if self.kind == "keep":
            return {"keep": np.flatnonzero(rng.random(len(clusters.bytes)) < 0.3)}
        if self.kind == "borders":
            return {"borders": rng.integers(0, clusters.positions, 4)}
        order: list[int] = []
        for cluster in range(len(clusters.flops)):
            order.append(cluster)
            if order and rng.random() < 0.4:
                order.append(int(rng.choice(order)))
        return {"compute": order}


def bits(transformed: Any, program: Program) -> list[bytes]:
    value, gradient = transformed(*program.args)
    return [np.asarray(value).tobytes(), *(np.asarray(g).tobytes() for g in gradient)]


@fuzz
@given(programs(longest=12))
def test_limits_are_kept_and_change_no_bit(program: Program) -> None:
    every = tuple(range(len(program.args)))
    free = ckad.value_and_grad(program, argnums=every, checkpoint="none")
    most = ckad.plan(free)(*program.args)
    with pytest.raises(ckad.errors.MemoryLimitError) as refused:
        ckad.plan(ckad.value_and_grad(program, argnums=every, memory_limit=1))(*program.args)
    least = refused.value.minimum
    # Values that were forced and wait for the last run count beside it.
    enough = max(least, most.peak_bytes) if most.forced_runs[0] == 0 else 2 * least + most.peak_bytes
    if most.forced_runs[0] == 0:
        assert least <= most.peak_bytes
    expected = bits(free, program)
    for limit in (least, (least + enough) // 2, enough):
        limited = ckad.value_and_grad(program, argnums=every, memory_limit=limit)
        assert ckad.plan(limited)(*program.args).peak_bytes <= limit
        assert bits(limited, program) == expected
    with pytest.raises(ckad.errors.MemoryLimitError):
        ckad.value_and_grad(program, argnums=every, memory_limit=least - 1)(*program.args)


POLICIES: list[Any] = [
    *("none", "auto", "sqrt", "log", 1, 2, 3, 5, 9),
    *(ckad.Revolve(1), ckad.Revolve(2), ckad.Revolve(4), ckad.Mixed(1), ckad.Mixed(2), ckad.Mixed(5)),
]


@settings(fuzz, max_examples=int(EXAMPLES or 40))
@given(programs(longest=12), st.booleans())
def test_no_policy_needs_less_than_the_least_limit(program: Program, jitted: bool) -> None:
    every = tuple(range(len(program.args)))

    def planned(**options: Any) -> Any:
        gradient = ckad.value_and_grad(program, argnums=every, **options)
        return ckad.plan(ckad.jit(gradient) if jitted else gradient)(*program.args)

    try:
        none = planned(checkpoint="none")
    except ckad.errors.TracerError:  # It looks at values.
        assert jitted
        return
    if none.forced_runs[0]:
        return
    # A policy that is asked for inside of `jit` holds there, and a limit plans around it.
    least = planned().frontier()[0].peak_bytes
    for policy in POLICIES:
        plan = planned(checkpoint=policy)
        assert least <= plan.peak_bytes <= none.peak_bytes, policy
        assert plan.live_bytes <= none.live_bytes, policy


@settings(fuzz, max_examples=int(EXAMPLES or 40))
@given(programs(longest=12), st.sampled_from(["keep", "borders", "compute"]), st.integers(0, 2**30))
def test_random_answers_change_no_bit(program: Program, kind: str, seed: int) -> None:
    every = tuple(range(len(program.args)))
    expected = bits(ckad.value_and_grad(program, argnums=every, checkpoint="none"), program)
    none = ckad.plan(ckad.value_and_grad(program, argnums=every, checkpoint="none"))(*program.args)
    mine = ckad.value_and_grad(program, argnums=every, checkpoint=_drawn(kind, seed))
    assert bits(mine, program) == expected
    plan = ckad.plan(mine)(*program.args)
    assert plan.peak_bytes <= none.peak_bytes
    # Policies of users do not heed regions, which 'none' recomputes.
    if "ckad.checkpoint" not in program.source:
        assert plan.live_bytes <= none.live_bytes


_KNOWN: dict[tuple[str, int], Drawn] = {}


def _drawn(kind: str, seed: int) -> Drawn:
    # Few different objects: each lives as long as the process.
    return _KNOWN.setdefault((kind, seed % 100), Drawn(kind, seed % 100))
