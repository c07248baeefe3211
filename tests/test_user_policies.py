"""Policies of the user's own: what they are shown, what they may answer, and what is wrong in an answer."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import ckad
from ckad.transforms.policy import NAMED

W = np.random.default_rng(0).standard_normal((16, 16)) / 4
X = np.random.default_rng(1).standard_normal((512, 16))


def loss(w: Any, x: Any) -> Any:
    for _ in range(20):
        x = np.tanh(x @ w)
    return np.sum(x * x)


@dataclass(frozen=True)
class Every:
    """A segment for so many positions."""

    step: int

    def choose(self, clusters: ckad.Clusters) -> Any:
        return {"borders": range(0, clusters.positions, self.step)}


class KeepSome:
    """Keeps one of so many values of the first pass."""

    def __init__(self, one_of: int) -> None:
        self.one_of = one_of

    def choose(self, clusters: ckad.Clusters) -> Any:
        first = np.flatnonzero(clusters.passes[clusters.producer] == 0)
        return {"keep": first[:: self.one_of]}


class InTurn:
    """The order of the clusters, the first pass twice."""

    def choose(self, clusters: ckad.Clusters) -> Any:
        first = np.flatnonzero(clusters.passes == 0)
        return {"compute": [*first, *range(len(clusters.flops))]}


class Answering:
    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def choose(self, clusters: ckad.Clusters) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


POLICIES = [Every(1), Every(8), Every(1000), KeepSome(1), KeepSome(4), Answering({"keep": []}), InTurn()]


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: type(policy).__name__)
def test_no_answer_changes_a_bit_or_needs_more_than_none(policy: Any) -> None:
    calls = {
        "value_and_grad": lambda **k: ckad.value_and_grad(loss, **k)(W, X),
        "hvp": lambda **k: ckad.hvp(lambda w: loss(w, X), W, W, **k),
        "jvp": lambda **k: ckad.jvp(lambda w: loss(w, X), (W,), (W,), **k),
        "vjp": lambda **k: ckad.vjp(lambda w: loss(w, X), W, **k)[1](1.0),
        "linearize": lambda **k: ckad.linearize(lambda w: loss(w, X), W, **k)[1](W),
        "jacobian": lambda **k: ckad.jacobian(lambda w: np.sum(np.tanh(X[:4] @ w), axis=0), **k)(W),
        "grad of grad": lambda **k: ckad.grad(lambda w: np.sum(ckad.grad(loss)(w, X) ** 2), **k)(W),
    }
    for name, call in calls.items():
        mine, none = call(checkpoint=policy), call(checkpoint="none")
        for a, b in zip(ckad.tree.flatten(mine)[0], ckad.tree.flatten(none)[0], strict=True):
            assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), name
    mine, none = (ckad.plan(ckad.grad(loss, checkpoint=chosen))(W, X) for chosen in (policy, "none"))
    assert mine.peak_bytes <= none.peak_bytes


def test_answers_do_what_they_say() -> None:
    plans = [ckad.plan(ckad.grad(loss, checkpoint=policy))(W, X) for policy in ("none", Every(8), KeepSome(4))]
    none, borders, keep = plans
    assert 1 < borders.segments <= 5
    assert borders.live_bytes < 0.7 * none.live_bytes
    assert keep.live_bytes < none.live_bytes
    assert keep.extra_flops > 0
    # An integer asks for segments of equal bytes.
    assert borders.extra_flops == ckad.plan(ckad.grad(loss, checkpoint=5))(W, X).extra_flops


def test_a_policy_sees_the_program() -> None:
    seen: list[ckad.Clusters] = []

    class Looks:
        def choose(self, clusters: ckad.Clusters) -> Any:
            seen.append(clusters)
            return {"borders": []}

    ckad.grad(loss, checkpoint=Looks())(W, X)
    (shown,) = seen
    count, values = len(shown.flops), len(shown.bytes)
    assert len(shown.passes) == len(shown.position) == len(shown.line) == count
    assert len(shown.operands) == len(shown.results) == count
    assert len(shown.users) == len(shown.producer) == len(shown.output) == len(shown.pinned) == values
    assert set(shown.passes) == {0, 1}
    assert shown.position.max() == shown.positions - 1
    # The value and the gradient.
    assert shown.output.sum() == 2
    assert all(text.startswith(__file__) for text in shown.line)
    # The products of both passes: 2 · 512 · 16 · 16 operations each.
    assert sum(shown.flops == 2 * 512 * 16 * 16) == 20 + 2 * 20 - 1
    for cluster in range(count):
        assert all(shown.producer[value] < cluster for value in shown.operands[cluster])
        assert all(cluster in shown.users[value] for value in shown.operands[cluster])
        assert all(shown.producer[value] == cluster for value in shown.results[cluster])
    with pytest.raises(ValueError, match="read-only"):
        shown.flops[0] = 1


def test_equal_policies_share_programs() -> None:
    asked: list[int] = []

    @dataclass(frozen=True)
    class Counted:
        step: int

        def choose(self, clusters: ckad.Clusters) -> Any:
            asked.append(self.step)
            return {"borders": range(0, clusters.positions, self.step)}

    for step in (4, 4, 6, 4):
        ckad.grad(loss, checkpoint=Counted(step))(W, X)
    assert asked == [4, 6]

    @dataclass
    class Unhashable:
        step: int
        choose = Counted.choose

    # Told apart by identity, also after one is gone and another lies in its place.
    for step in (5, 7, 5):
        ckad.grad(loss, checkpoint=Unhashable(step))(W, X)
        gc.collect()
    assert asked == [4, 6, 5, 7, 5]


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (None, TypeError, "answered a value of type NoneType"),
        ({}, ValueError, r"a dict of the keys \[\]"),
        ({"keep": [], "borders": []}, ValueError, r"of the keys \['borders', 'keep'\]"),
        ({"segments": []}, ValueError, "of the keys"),
        ({"keep": [10**6]}, ValueError, r"there is no value 1000000. Hint: values are numbered from 0 to \d+"),
        ({"keep": [-1]}, ValueError, "there is no value -1"),
        ({"keep": [2**70]}, ValueError, "beyond 64 bits"),
        ({"keep": [1.5]}, TypeError, "1.5, …]}, which is no int"),
        ({"keep": [True]}, TypeError, "True, …]}, which is no int"),
        ({"keep": np.ones(4, bool)}, TypeError, "a mask. Hint: .*flatnonzero"),
        ({"keep": 3}, TypeError, "with a value of type int"),
        ({"borders": "ab"}, TypeError, "with a value of type str"),
        ({"borders": [10**6]}, ValueError, "there is no position 1000000"),
        ({"compute": [3]}, ValueError, r"cluster 3 stands at place 0, before cluster 2"),
        ({"compute": [0, 1]}, ValueError, r"without cluster \d+, which makes a value that is returned"),
        ({"compute": [10**6]}, ValueError, "there is no cluster 1000000"),
    ],
)
def test_what_is_wrong_in_an_answer_is_named(answer: Any, error: type[Exception], message: str) -> None:
    for transform in (ckad.grad, lambda f, **k: ckad.plan(ckad.grad(f, **k))):
        with pytest.raises(error, match=message) as raised:
            transform(loss, checkpoint=Answering(answer))(W, X)
        assert isinstance(raised.value, ckad.CkadError)
        assert "Answering" in str(raised.value)


def test_what_a_policy_raises_is_raised() -> None:
    mine = KeyError("mine")
    with pytest.raises(KeyError) as raised:
        ckad.grad(loss, checkpoint=Answering(mine))(W, X)
    assert raised.value is mine
    assert ckad.grad(loss)(W, X).shape == W.shape


def test_what_is_no_policy_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the class Every in place of a policy. Hint: .*checkpoint=Every\(\)"):
        ckad.grad(loss, checkpoint=Every)(W, X)  # type: ignore[arg-type]
    for wrong in (np.ones(3), np.float64(2.0), object(), lambda clusters: {"keep": []}):
        with pytest.raises(ValueError, match=r"\[checkpoint\] .*policy"):
            ckad.grad(loss, checkpoint=wrong)(W, X)  # type: ignore[arg-type]


def test_under_another_transform_the_outer_one_is_named() -> None:
    inner = ckad.grad(loss, checkpoint=Every(4))
    for outer in (ckad.grad(lambda w: np.sum(inner(w, X))), ckad.jit(lambda w: inner(w, X))):
        with pytest.raises(ValueError, match=r"policy object of a transform under ckad.(grad|jit).*Hint: ") as caught:
            outer(W)
        assert str(caught.value).endswith(f"or use {NAMED} here")
    # Those that it names work there.
    for policy in ("none", "auto", "sqrt", "log", 3, ckad.Revolve(2), ckad.Mixed(2), ckad.Offload()):
        named = ckad.grad(loss, checkpoint=policy)
        assert ckad.grad(lambda w, named=named: np.sum(named(w, X)))(W).shape == W.shape


def test_beside_a_limit_it_is_the_only_plan() -> None:
    needed = ckad.plan(ckad.grad(loss, checkpoint=Every(8)))(W, X).peak_bytes
    assert ckad.grad(loss, checkpoint=Every(8), memory_limit=needed)(W, X).shape == W.shape
    with pytest.raises(ckad.errors.MemoryLimitError) as refused:
        ckad.grad(loss, checkpoint=Every(8), memory_limit=needed - 1)(W, X)
    assert refused.value.minimum == needed
