"""Steps over the same rows that run as one: the bits and the bytes of whole programs.

`ckad.memory.profile` runs every step by itself, each value in memory, so its results are the ones to compare with.
"""

from typing import Any

import numpy as np
import optree
import pytest

import ckad

ROWS, WIDTH = 1024, 256


def softmax(x: Any) -> Any:
    e = np.exp(x - np.max(x, axis=1, keepdims=True))
    return e / np.sum(e, axis=1, keepdims=True)


def layer_norm(x: Any, scale: Any) -> Any:
    centred = x - np.mean(x, axis=1, keepdims=True)
    return centred / np.sqrt(np.mean(centred**2, axis=1, keepdims=True) + 1e-5) * scale


# Elements of rows in any order, some of them twice, some counted from the end.
PICKED = np.random.default_rng(7).integers(-ROWS, ROWS, ROWS)
LABELS = np.random.default_rng(8).integers(-WIDTH, WIDTH, ROWS)


def cross_entropy(x: Any, rows: Any) -> Any:
    shifted = x - np.max(x, axis=1, keepdims=True)
    return np.mean(np.log(np.sum(np.exp(shifted), axis=1)) - shifted[rows, LABELS])


def with_some_set(x: Any, b: Any) -> Any:
    y = softmax(x) * b
    y[PICKED, LABELS] = b[LABELS]
    return y


PROGRAMS = {
    "softmax": lambda x, w, b: np.sum(softmax(x + b) ** 2) + np.sum(w),
    "layer norm": lambda x, w, b: np.sum(layer_norm(x, b) ** 3) + np.sum(w),
    "dense": lambda x, w, b: np.sum(np.sum(np.tanh(x @ w + b), axis=0) ** 2),
    "both": lambda x, w, b: np.mean(layer_norm(softmax(np.tanh(x @ w + b)), b) ** 2),
    "other rows": lambda x, w, b: np.sum(softmax(layer_norm(x, b)[::-1] + x) @ w),
    "cross entropy": lambda x, w, b: cross_entropy(x @ w + b, np.arange(ROWS)),
    "elements of any rows": lambda x, w, b: cross_entropy(x * b, PICKED) + np.sum(w[0] ** 2),
    "weighted elements": lambda x, w, b: np.sum((softmax(x)[PICKED, LABELS] * b[LABELS]) ** 2) + np.sum(w),
    "elements that are set": lambda x, w, b: np.sum(np.max(with_some_set(x, b), axis=1) ** 2) + np.sum(w),
    "axes": lambda x, w, b: np.sum(
        np.tanh((x @ w).reshape(ROWS, 4, -1) - np.max(x.reshape(ROWS, 4, -1), axis=1)[:, None])
    ),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", PROGRAMS)
def test_bits_are_those_of_steps_in_turn(name: str, dtype: Any, policy: str | int, rng: np.random.Generator) -> None:
    x, w, b = (rng.standard_normal(shape).astype(dtype) for shape in ((ROWS, WIDTH), (WIDTH, WIDTH), (WIDTH,)))
    gradient = ckad.value_and_grad(PROGRAMS[name], argnums=(0, 1, 2), checkpoint=policy)
    in_turn = ckad.memory.profile(gradient, x, w / 16, b)
    as_one = gradient(x, w / 16, b)
    for one, other in zip(optree.tree_leaves(as_one), optree.tree_leaves(in_turn.result), strict=True):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()
    np.testing.assert_allclose(as_one[0], PROGRAMS[name](x, w / 16, b), rtol=1e-4 if dtype is np.float32 else 1e-9)


def test_rows_that_are_used_up_take_no_memory(rng: np.random.Generator) -> None:
    x, b = rng.standard_normal((ROWS, WIDTH)), rng.standard_normal(WIDTH)
    plan = ckad.plan(ckad.grad(lambda x: np.sum(layer_norm(x, b) ** 3)))(x)
    assert plan.live_bytes > 3 * x.nbytes
    assert plan.parts["arena"] < x.nbytes / 8


def test_a_cross_entropy_takes_the_memory_of_its_gradient(rng: np.random.Generator) -> None:
    x = rng.standard_normal((ROWS, WIDTH))
    plan = ckad.plan(ckad.value_and_grad(lambda x: cross_entropy(x, np.arange(ROWS))))(x)
    assert plan.live_bytes > 2 * x.nbytes
    assert plan.parts["arena"] < x.nbytes / 8


def test_an_index_out_of_range_names_its_line(rng: np.random.Generator) -> None:
    x, labels = rng.standard_normal((ROWS, WIDTH)).astype(np.float32), LABELS.copy()
    labels[700] = WIDTH

    def f(x: Any) -> Any:
        computed = labels + 0 * np.argmax(x[0])  # known only to the run
        e = softmax(x)
        picked = e[PICKED, computed]
        return np.sum(picked * picked) + np.sum(e * e)

    line = f.__code__.co_firstlineno + 3
    with pytest.raises(IndexError, match=f"out of bounds for axis 1 .*test_joined.py:{line}"):
        ckad.grad(f)(x)
