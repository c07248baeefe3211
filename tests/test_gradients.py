"""Gradients of whole programs: against finite differences, between modes, and bit for bit between policies."""

from __future__ import annotations

from typing import Any

import numpy as np
import optree
import pytest
from programs import PROGRAMS

import ckad

CASES = [pytest.param(f, args, id=name) for name, (f, args) in PROGRAMS.items()]


def leaves(tree: Any) -> list[Any]:
    return [np.asarray(leaf) for leaf in optree.tree_leaves(tree)]


@pytest.mark.parametrize(("f", "args"), CASES)
def test_value_is_numpys(f: Any, args: Any) -> None:
    value, _ = ckad.value_and_grad(f)(*args)
    np.testing.assert_allclose(value, f(*args), rtol=1e-12)


@pytest.mark.parametrize(("f", "args"), CASES)
def test_derivatives_are_right(f: Any, args: Any) -> None:
    first = args[0]
    ckad.check_grads(lambda x: f(x, *args[1:]), (first,), order=2, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("f", "args"), CASES)
def test_every_policy_gives_the_same_bits(f: Any, args: Any, policy: str | int) -> None:
    expected = leaves(ckad.value_and_grad(f, checkpoint="none")(*args))
    found = leaves(ckad.value_and_grad(f, checkpoint=policy)(*args))
    for a, b in zip(expected, found, strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize(("f", "args"), CASES)
def test_second_calls_give_the_same_bits(f: Any, args: Any) -> None:
    g = ckad.grad(f)
    for a, b in zip(leaves(g(*args)), leaves(g(*args)), strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize(("f", "args"), CASES)
def test_float32_agrees_with_float64(f: Any, args: Any) -> None:
    narrow = optree.tree_map(lambda leaf: np.asarray(leaf, np.float32)[()], args)
    gradient = ckad.grad(f)(*narrow)
    for a, b in zip(leaves(ckad.grad(f)(*args)), leaves(gradient), strict=True):
        assert b.dtype == np.float32
        np.testing.assert_allclose(b, a, rtol=2e-3, atol=2e-3)
