"""`ckad.save`: what is kept by hand is computed once under every policy, and changes nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ckad

W = np.random.default_rng(0).standard_normal((16, 16)) / 4
X = np.random.default_rng(1).standard_normal((512, 16))


def net(w: Any, x: Any, save: Any = ckad.save, layers: int = 20, inner: Any = lambda block: block) -> Any:
    def block(x: Any, layer: int) -> Any:
        if layer % 3 == 1:
            return save(np.tanh(x @ w))  # saved
        return np.tanh(x @ w)

    for layer in range(layers):
        x = inner(block)(x, layer)
    return np.sum(x * x)


def unsaved(w: Any, x: Any) -> Any:
    return net(w, x, save=lambda x: x)


def times(plan: Any, marked: str = "# saved") -> int:
    """How often the values of the marked line are computed."""
    with open(__file__, encoding="utf-8") as source:
        lines = [number for number, text in enumerate(source, 1) if text.rstrip().endswith(marked)]
    (found,) = (cost.computed for cost in plan.lines if cost.line in lines)
    return found


class KeepNothing:
    """A policy of the user's."""

    def choose(self, clusters: ckad.Clusters) -> Any:
        return {"keep": []}

    def __str__(self) -> str:
        return "one of the user's"


EVERY = ["none", "auto", "sqrt", 4, 12, "log", ckad.Revolve(4), ckad.Mixed(4), ckad.Offload(min_bytes=1), KeepNothing()]


@pytest.mark.parametrize("checkpoint", EVERY, ids=str)
def test_no_policy_computes_it_again(checkpoint: Any) -> None:
    assert times(ckad.plan(ckad.grad(net, checkpoint=checkpoint))(W, X)) == 1
    regions = lambda w, x: net(w, x, inner=lambda block: ckad.checkpoint(block))
    assert times(ckad.plan(ckad.grad(regions, checkpoint=checkpoint))(W, X)) == 1


@pytest.mark.parametrize(
    ("checkpoint", "else_computed"),
    [("sqrt", 2), (4, 2), (12, 2), ("log", 4), (ckad.Revolve(4), 3), (ckad.Mixed(4), 3)],
    ids=str,
)
def test_what_is_saved_is_computed_once(checkpoint: Any, else_computed: int) -> None:
    plan = ckad.plan(ckad.grad(net, checkpoint=checkpoint))(W, X)
    assert plan.extra_flops > 0
    assert times(plan) == 1
    without = ckad.plan(ckad.grad(lambda w, x: net(w, x, lambda x: x), checkpoint=checkpoint))(W, X)
    assert times(without) == else_computed


def test_what_is_saved_in_a_region_is_computed_once() -> None:
    def f(w: Any, x: Any, save: Any) -> Any:
        for _ in range(4):
            x = ckad.checkpoint(lambda x: net_part(w, x, save))(x)
        return np.sum(x * x)

    def net_part(w: Any, x: Any, save: Any) -> Any:
        x = np.sin(x @ w)
        y = save(np.tanh(x @ w))  # in a region
        return np.sin(np.sin(y @ w) @ w)

    for checkpoint in ("none", "auto", "sqrt"):
        with_save = ckad.grad(lambda w, x: f(w, x, ckad.save), checkpoint=checkpoint)
        without = ckad.grad(lambda w, x: f(w, x, lambda x: x), checkpoint=checkpoint)
        assert times(ckad.plan(with_save)(W, X), "# in a region") == 1
        assert times(ckad.plan(without)(W, X), "# in a region") >= 2
        assert with_save(W, X).tobytes() == without(W, X).tobytes()


def test_what_is_saved_is_computed_once_within_a_limit() -> None:
    most = ckad.plan(ckad.grad(net, checkpoint="none"))(W, X).peak_bytes
    with pytest.raises(ckad.errors.MemoryLimitError) as refused:
        ckad.grad(net, memory_limit=1)(W, X)
    least = refused.value.minimum
    for limit in (least, (2 * least + most) // 3, (least + 2 * most) // 3):
        gradient = ckad.grad(net, memory_limit=limit)
        assert times(ckad.plan(gradient)(W, X)) == 1
        assert gradient(W, X).tobytes() == ckad.grad(unsaved)(W, X).tobytes()


def test_a_policy_of_the_users_keeps_it_too() -> None:
    class Nothing:
        def choose(self, clusters: ckad.Clusters) -> Any:
            assert clusters.pinned.sum() == 7
            return {"keep": []}

    assert times(ckad.plan(ckad.grad(net, checkpoint=Nothing()))(W, X)) == 1


@pytest.mark.parametrize("checkpoint", [policy for policy in EVERY if not isinstance(policy, KeepNothing)], ids=str)
def test_saving_changes_no_bit_of_any_derivative(checkpoint: Any) -> None:
    def calls(f: Any) -> list[Any]:
        gradient = ckad.grad(f, checkpoint=checkpoint)
        return [
            f(W, X),
            gradient(W, X),
            ckad.jvp(lambda w: f(w, X), (W,), (W,), checkpoint=checkpoint)[1],
            ckad.grad(lambda w: np.sum(gradient(w, X) ** 2), checkpoint=checkpoint)(W),
            ckad.hvp(lambda w: f(w, X), W, W),
            ckad.jit(gradient)(W, X),
        ]

    for saved, plain in zip(calls(net), calls(unsaved), strict=True):
        assert np.asarray(saved).tobytes() == np.asarray(plain).tobytes()


def test_any_value_may_be_saved() -> None:
    def f(x: Any, save: Any) -> Any:
        x = save(x)  # an argument
        y = np.sin(x)
        part = save(y[1:])  # a view
        pair = save((np.cos(part), {"two": np.tanh(y).T, "three": 3.0}))  # a pytree, partly of other things
        total = save(np.sum(pair[0]) * pair[1]["three"])  # a scalar
        y[0] = 2.0
        return total + np.sum(save(pair[1]["two"]) ** 2) + np.sum(y)

    x = np.linspace(0.1, 1.0, 12).reshape(4, 3)
    for checkpoint in ("none", "sqrt", 2):
        saved, plain = (ckad.grad(f, checkpoint=checkpoint)(x, save) for save in (ckad.save, lambda x: x))
        assert saved.tobytes() == plain.tobytes()
    assert ckad.save(x) is x
    assert ckad.save(None) is None


def test_a_training_loop_saves() -> None:
    def trained(rate: Any, save: Any) -> Any:
        w = W
        for _ in range(3):
            w = w - rate * ckad.grad(lambda w: net(w, X, save, 6))(w)
        return net(w, X, save, 6)

    saved, plain = (
        ckad.grad(lambda rate, save=save: trained(rate, save), checkpoint="sqrt")(0.01)
        for save in (ckad.save, lambda x: x)
    )
    assert saved == plain
