"""Layers for training: dropout under every plan, normalisation against formulas, what Sequential gives its layers."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import Any

import numpy as np
import pytest
from jitted import Counted

import ckad
from ckad import nn, random, tree
from ckad.errors import CkadTypeError, CkadValueError, DTypeError, ShapeError
from ckad.optim import adam, sgd

DTYPES = [np.float64, np.float32]
KEY = random.key(8)


def example(shape: tuple[int, ...], dtype: Any = np.float64, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(0.3, 1.7, shape).astype(dtype)


# Dropout --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (7,), (40, 50), (0, 3)])
def test_dropout_zeroes_and_scales(dtype: Any, shape: tuple[int, ...]) -> None:
    x = example(shape, dtype)
    layer = nn.Dropout(0.25)
    y = layer(x, train=True, key=KEY)
    assert y.dtype == dtype
    assert np.shape(y) == shape
    kept = random.bernoulli(KEY, np.float32(0.75), shape)
    np.testing.assert_array_equal(y, np.where(kept, x, 0).astype(dtype) * dtype(1 / 0.75))
    np.testing.assert_array_equal(ckad.jit(lambda x: layer(x, train=True, key=KEY))(x), y)


def test_dropout_keeps_the_share_that_it_says() -> None:
    x = np.ones(100_000)
    for rate in (0.0, 0.1, 0.5, 0.9):
        y = nn.Dropout(rate)(x, train=True, key=KEY)
        assert np.mean(y == 0) == pytest.approx(rate, abs=0.01)
        assert np.mean(y) == pytest.approx(1, abs=0.05)


def test_dropout_is_nothing_outside_of_training() -> None:
    x = np.ones(3)
    assert nn.Dropout(0.5)(x) is x
    assert nn.Dropout(0.5)(x, key=KEY) is x
    assert nn.Dropout(0.0)(x, train=True) is x
    assert tree.flatten(nn.Dropout(0.5))[0] == []
    assert repr(nn.Dropout(0.5)) == "Dropout(0.5)"


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan"), "0.5", True])
def test_dropout_refuses_rates(rate: Any) -> None:
    with pytest.raises(CkadValueError, match=r"no number in \[0, 1\)"):
        nn.Dropout(rate)


def test_dropout_asks_for_a_key() -> None:
    model = nn.Sequential(nn.Linear(2, 2, rng=0), nn.Dropout(0.5))
    with pytest.raises(CkadTypeError, match=r"a key is needed in training.*Hint: call the model with key="):
        model(np.ones((1, 2)), train=True)
    with pytest.raises(DTypeError, match="a key has dtype uint32"):
        model(np.ones((1, 2)), train=True, key=np.zeros(2))


def network(width: int, depth: int, dtype: Any = np.float32) -> nn.Sequential:
    rng = np.random.default_rng(1)
    layers: list[Any] = []
    for _ in range(depth):
        layers += [nn.Linear(width, width, rng=rng, dtype=dtype), nn.gelu, nn.Dropout(0.2)]
    return nn.Sequential(*layers)


def dropped_loss(model: Any, x: Any, key: Any) -> Any:
    return np.mean(np.square(model(x, train=True, key=key)))


def bits(tree_: Any) -> bytes:
    return b"".join(np.asarray(leaf).tobytes() for leaf in tree.flatten(tree_)[0])


def test_dropout_is_bit_identical_under_every_plan() -> None:
    model, x = network(48, 6), example((64, 48), np.float32)
    gradient = lambda **how: ckad.value_and_grad(dropped_loss, **how)
    expected = bits(gradient(checkpoint="none")(model, x, KEY))
    for policy in ("auto", "sqrt", "log", 1, 2, 3, 5, ckad.Revolve(2), ckad.Mixed(3), ckad.Offload(min_bytes=4096)):
        assert bits(gradient(checkpoint=policy)(model, x, KEY)) == expected
        assert bits(ckad.jit(gradient(checkpoint=policy))(model, x, KEY)) == expected
    by_hand = lambda model, x, key: np.mean(
        np.square(ckad.checkpoint(lambda m, x, key: m(x, train=True, key=key))(model, x, key))
    )
    for policy in ("none", "auto", "sqrt"):
        assert bits(ckad.value_and_grad(by_hand, checkpoint=policy)(model, x, KEY)) == expected
    peak = {how: ckad.plan(gradient(checkpoint=how))(model, x, KEY).peak_bytes for how in ("none", "sqrt")}
    for share in (0.3, 0.6, 0.9):
        limit = int(peak["sqrt"] + share * (peak["none"] - peak["sqrt"]))
        assert bits(gradient(memory_limit=limit)(model, x, KEY)) == expected
    # A pullback keeps what it needs, and forward mode draws the same.
    value, pullback = ckad.vjp(lambda model: dropped_loss(model, x, KEY), model)
    assert bits((value, pullback(np.float32(1.0))[0])) == expected
    assert bits(ckad.jvp(lambda x: dropped_loss(model, x, KEY), (x,), (np.zeros_like(x),))[0]) == bits(value)


def test_masks_are_not_kept() -> None:
    model, x = network(64, 8), example((2048, 64), np.float32)
    plain = nn.Sequential(*(layer for layer in model if not isinstance(layer, nn.Dropout)))
    peak = lambda model, how: ckad.plan(ckad.grad(dropped_loss, checkpoint=how))(model, x, KEY).peak_bytes
    masks, larger_program = 8 * x.size, 65536
    assert peak(model, "none") - peak(plain, "none") > 0.8 * masks
    assert peak(model, "auto") - peak(plain, "auto") <= larger_program
    # Segments end elsewhere: by the size of one layer.
    assert peak(model, "sqrt") - peak(plain, "sqrt") <= masks // 8 * 4 + larger_program
    assert peak(model, 4) - peak(plain, 4) <= larger_program


def test_dropout_in_a_scan_is_that_of_a_loop() -> None:
    x, w = example((64, 48), np.float32), example((48, 48), np.float32, seed=1) / np.float32(12)
    steps = np.arange(9)

    def body(h: Any, w: Any, step: Any) -> Any:
        return nn.Dropout(0.2)(np.tanh(h @ w), train=True, key=random.fold_in(KEY, step))

    def scanned(w: Any) -> Any:
        advance = lambda carry, step: ((body(*carry, step), carry[1]), np.mean(carry[0]))
        (h, _), means = ckad.scan(advance, (x, w), steps)
        return np.sum(h * h) + np.sum(means)

    def looped(w: Any) -> Any:
        h, total = x, 0.0
        for step in steps:
            h, total = body(h, w, step), total + np.mean(h)
        return np.sum(h * h) + total

    expected = ckad.grad(looped)(w)
    for policy in ("none", "auto", "sqrt", 3):
        assert bits(ckad.grad(scanned, checkpoint=policy)(w)) == bits(expected)
    assert bits(ckad.jit(ckad.grad(scanned))(w)) == bits(expected)


PROGRAM = """
import sys; sys.path.insert(0, {tests!r})
import hashlib, ckad
from test_nn_training import KEY, bits, dropped_loss, example, network
import numpy as np
found = ckad.value_and_grad(dropped_loss, checkpoint="sqrt")(network(96, 3), example((300, 96), np.float32), KEY)
print(hashlib.sha256(bits(found)).hexdigest())
"""


def test_dropout_does_not_depend_on_the_number_of_threads() -> None:
    program = textwrap.dedent(PROGRAM).format(tests=os.path.dirname(__file__))
    digests = set()
    for threads in ("1", "2", "5"):
        environment = os.environ | {"CKAD_NUM_THREADS": threads}
        done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        digests.add(done.stdout)
    assert len(digests) == 1


# Layer norm -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "of"), [(5, (2, 5)), ((5,), (5,)), ((3, 4), (2, 3, 4)), ((3, 4), (0, 3, 4))])
def test_layer_norm_is_its_formula(dtype: Any, shape: Any, of: tuple[int, ...]) -> None:
    layer = nn.LayerNorm(shape, eps=1e-3, dtype=dtype)
    layer.weight, layer.bias = example(layer.shape, dtype, 1), example(layer.shape, dtype, 2)
    x = example(of, dtype)
    axes = tuple(range(-len(layer.shape), 0))
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    expected = (x - mean) / np.sqrt(variance + 1e-3) * layer.weight + layer.bias
    found = layer(x)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=3e-5 if dtype == np.float32 else 1e-12, atol=1e-6)
    np.testing.assert_allclose(ckad.jit(layer)(x), expected, rtol=1e-4 if dtype == np.float32 else 1e-12, atol=1e-6)


def test_layer_norm_is_differentiated() -> None:
    x, u = example((3, 2, 4)), example((3, 2, 4), seed=3)
    for layer in (nn.LayerNorm(4), nn.LayerNorm((2, 4), elementwise_affine=False)):
        ckad.check_grads(lambda layer, x: np.sum(layer(x) * u), (layer, x), order=2, rtol=1e-5, atol=1e-6)


def test_layer_norm_without_weights_has_none() -> None:
    layer = nn.LayerNorm(4, elementwise_affine=False)
    assert tree.flatten(layer)[0] == []
    assert (layer.weight, layer.bias) == (None, None)
    assert repr(layer) == "LayerNorm(4, eps=1e-05, elementwise_affine=False)"
    assert repr(nn.LayerNorm((2, 3), 1e-3)) == "LayerNorm((2, 3), eps=0.001)"
    assert nn.LayerNorm(3)(np.ones((2, 3))).tolist() == [[0.0] * 3] * 2


# Batch norm -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("of", [(6, 3), (2, 1, 3), (2, 4, 5, 3)])
def test_batch_norm_is_its_formula(dtype: Any, of: tuple[int, ...]) -> None:
    layer = nn.BatchNorm(3, momentum=0.8, eps=1e-3, dtype=dtype)
    layer.weight, layer.bias = example((3,), dtype, 1), example((3,), dtype, 2)
    x = example(of, dtype)
    rows = x.reshape(-1, 3)
    mean, variance = rows.mean(0), rows.var(0)
    close = {"rtol": 1e-4, "atol": 1e-6} if dtype == np.float32 else {"rtol": 1e-12}
    for call in (layer.__call__, ckad.jit(lambda x, train: layer(x, train=train), static_argnums=1)):
        y, after = call(x, train=True)
        np.testing.assert_allclose(y, (x - mean) / np.sqrt(variance + 1e-3) * layer.weight + layer.bias, **close)
        np.testing.assert_allclose(after.mean, 0.2 * mean, **close)
        np.testing.assert_allclose(after.variance, 0.8 + 0.2 * variance, **close)
        assert {leaf.dtype for leaf in [y, *tree.flatten(after)[0]]} == {np.dtype(dtype)}
        # The layer itself stays as it is.
        assert layer.mean.tolist() == [0, 0, 0]
        y, same = call(x, train=False)
        expected = x / np.sqrt(dtype(1) + dtype(1e-3)) * layer.weight + layer.bias
        np.testing.assert_allclose(y, expected, **close)
        np.testing.assert_array_equal(same.mean, layer.mean)


def test_batch_norm_is_differentiated() -> None:
    x, u = example((5, 3)), example((5, 3), seed=3)
    layer = nn.BatchNorm(3)
    layer.mean, layer.variance = example((3,), seed=4), example((3,), seed=5) ** 2
    for train in (True, False):
        f = lambda x, weight, bias, train=train: np.sum(moved(layer, weight, bias)(x, train=train)[0] * u)
        ckad.check_grads(f, (x, example((3,), seed=6), layer.bias), order=2, rtol=1e-5, atol=1e-6)


def moved(layer: Any, weight: Any, bias: Any) -> Any:
    leaves, structure = tree.flatten(layer)
    return tree.unflatten(structure, [weight, bias, *leaves[2:]])


@pytest.mark.parametrize("optimizer", [sgd(0.1), sgd(0.1, momentum=0.9), adam(0.1)])
@pytest.mark.parametrize("train", [True, False])
def test_statistics_are_not_trained(optimizer: Any, train: bool) -> None:
    layer, x = nn.BatchNorm(3), example((6, 3))
    layer.mean, layer.variance = example((3,), seed=4), example((3,), seed=5) ** 2

    def loss(layer: Any) -> Any:
        y, layer = layer(x, train=train)
        return np.sum(y**3), layer

    state = optimizer.init(layer)
    for _ in range(3):
        (_, after), gradient = ckad.value_and_grad(loss, has_aux=True)(layer)
        assert gradient.mean.tolist() == gradient.variance.tolist() == [0, 0, 0]
        assert np.all(gradient.weight != 0)
        layer, state = optimizer.update(gradient, state, after)
        assert layer.mean.tobytes() == after.mean.tobytes()
        assert layer.variance.tobytes() == after.variance.tobytes()
    # Nor do derivatives go through statistics that are returned.
    into = ckad.grad(lambda x: np.sum(layer(x, train=True)[1].mean * layer(x, train=True)[1].variance))(x)
    assert not into.any()


REFUSED: list[tuple[Any, type[Exception], str]] = [
    (lambda: nn.LayerNorm(0), CkadValueError, "shape=0 is not made of positive integers"),
    (lambda: nn.LayerNorm(()), CkadValueError, "positive integers"),
    (lambda: nn.LayerNorm((2, 2.5)), CkadValueError, "positive integers"),
    (lambda: nn.LayerNorm(3, eps=-1), CkadValueError, "eps=-1 must be finite"),
    (lambda: nn.LayerNorm(3, dtype=np.float16), DTypeError, "float16 is not supported"),
    (lambda: nn.LayerNorm(3)(np.ones((3, 2))), ShapeError, r"x of shape \(3, 2\) does not end in \(3,\)"),
    (lambda: nn.LayerNorm((2, 3))(np.ones(3)), ShapeError, r"does not end in \(2, 3\)"),
    (lambda: nn.BatchNorm(True), CkadValueError, "features=True"),
    (lambda: nn.BatchNorm(3, momentum=1), CkadValueError, "momentum=1 must be"),
    (lambda: nn.BatchNorm(3, eps=float("nan")), CkadValueError, "eps=nan"),
    (lambda: nn.BatchNorm(3)(np.ones((3, 2))), ShapeError, r"x of shape \(3, 2\) does not end in \(3,\)"),
    (lambda: nn.BatchNorm(3)(np.ones(3), train=True), ShapeError, "fewer than two examples"),
    (lambda: nn.BatchNorm(3)(np.ones((0, 3)), train=True), ShapeError, "fewer than two examples"),
]


@pytest.mark.parametrize(("call", "error", "text"), REFUSED)
def test_refusals(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text + r"[\s\S]*Hint: "):
        call()


# Sequential -----------------------------------------------------------------------------------------------------------


class Noted:
    """A function that notes what it was called with."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def __call__(self, x: Any, *, train: bool = False, key: Any = None) -> Any:
        self.calls.append((train, None if key is None else key.tolist()))
        return x


def test_sequential_gives_what_layers_name() -> None:
    first, second, inner = Noted(), Noted(), Noted()
    seen = {}

    def asks_for_a_key(x: Any, key: Any = None) -> Any:
        seen["key"] = key
        return x

    def asks_for_train(x: Any, *, train: bool) -> Any:
        seen["train"] = train
        return x

    model = nn.Sequential(
        first, np.tanh, second, nn.Sequential(inner), asks_for_a_key, asks_for_train, abs, ckad.jit(np.sin)
    )
    keys = random.split(KEY, 8)
    model(np.ones(2), train=True, key=KEY)
    assert first.calls == [(True, keys[0].tolist())]
    assert second.calls == [(True, keys[2].tolist())]
    assert inner.calls == [(True, random.split(keys[3], 1)[0].tolist())]
    np.testing.assert_array_equal(seen["key"], keys[4])
    assert seen["train"] is True
    model(np.ones(2))
    assert first.calls[1:] == [(False, None)]
    assert (seen["key"], seen["train"]) == (None, False)
    scaled = ckad.jit(lambda x, key: x * random.uniform(key, x.shape))
    np.testing.assert_array_equal(
        nn.Sequential(scaled)(np.ones(3), key=KEY), random.uniform(random.split(KEY, 1)[0], (3,))
    )


def test_sequential_with_a_state_returns_itself() -> None:
    x = example((6, 3))
    plain = nn.Sequential(nn.Linear(3, 3, rng=0), nn.Dropout(0.1), nn.LayerNorm(3))
    assert not plain.has_state
    assert isinstance(plain(x), np.ndarray)
    model = nn.Sequential(nn.Linear(3, 3, rng=0), nn.Sequential(np.tanh, nn.BatchNorm(3)), nn.BatchNorm(3), np.sin)
    assert model.has_state
    y, after = model(x, train=True)
    assert isinstance(after, nn.Sequential)
    assert tree.flatten(after)[1] == tree.flatten(model)[1]
    assert after[0] is model[0]
    h, first = model[1][1](np.tanh(model[0](x)), train=True)
    h, second = model[2](h, train=True)
    np.testing.assert_array_equal(y, np.sin(h))
    np.testing.assert_array_equal(after[1][1].mean, first.mean)
    np.testing.assert_array_equal(after[2].variance, second.variance)
    y, same = after(x)
    np.testing.assert_array_equal(same[2].mean, after[2].mean)


def test_a_layer_of_the_users_may_have_a_state() -> None:
    @nn.layer("scale", state=("count",))
    class Counting:
        def __init__(self) -> None:
            self.scale, self.count = np.ones(()), np.zeros(())

        def __call__(self, x: Any) -> Any:
            after = tree.unflatten(tree.flatten(self)[1], [self.scale, ckad.stop_gradient(self.count) + 1.0])
            return x * self.scale, after

    model: Any = nn.Sequential(Counting(), np.tanh)
    assert tree.paths(model) == ["0/scale", "0/count"]
    for _ in range(3):
        _, model = model(np.ones(2))
    assert model[0].count == 3


def full_model(dtype: Any = np.float64) -> nn.Sequential:
    rng = np.random.default_rng(4)
    return nn.Sequential(
        nn.Linear(3, 16, rng=rng, dtype=dtype),
        nn.BatchNorm(16, dtype=dtype),
        np.tanh,
        nn.Dropout(0.2),
        nn.Sequential(nn.Linear(16, 16, rng=rng, dtype=dtype), nn.LayerNorm(16, dtype=dtype), nn.gelu, nn.Dropout(0.1)),
        nn.Linear(16, 1, rng=rng, dtype=dtype),
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_models_are_trained_and_recorded_once(dtype: Any) -> None:
    x = example((64, 3), dtype)
    target = np.sin(x[:, :1]) * x[:, 1:2]
    init, update = adam(1e-2)

    def loss(model: Any, key: Any) -> Any:
        y, model = model(x, train=True, key=key)
        return nn.mse_loss(y, target), model

    def advance(model: Any, state: Any, key: Any) -> Any:
        (value, after), gradient = ckad.value_and_grad(loss, has_aux=True)(model, key)
        model, state = update(gradient, state, after)
        return model, state, value

    step = Counted(advance)
    model: Any = full_model(dtype)
    eager, eager_state = model, init(model)
    state, losses = init(model), []
    for number in range(60):
        key = random.fold_in(KEY, number)
        model, state, value = step(model, state, key)
        losses.append(float(value))
        if number < 3:
            eager, eager_state, value = advance(eager, eager_state, key)
            assert float(value) == pytest.approx(losses[-1], rel=1e-3 if dtype == np.float32 else 1e-10)
    assert step.count <= 2
    assert {leaf.dtype for leaf in tree.flatten(model)[0]} == {np.dtype(dtype)}
    assert np.mean(losses[-5:]) < 0.6 * losses[0]
    assert not np.allclose(model[1].mean, 0)
    predicted, same = model(x)
    assert float(nn.mse_loss(predicted, target)) < 0.6 * losses[0]
    np.testing.assert_array_equal(same[1].mean, model[1].mean)


def test_models_are_saved_and_loaded(tmp_path: Any) -> None:
    x = example((8, 3))
    _, model = full_model()(x, train=True, key=KEY)
    nn.save(tmp_path / "model.npz", model)
    loaded = nn.load(tmp_path / "model.npz", full_model())
    assert bits(loaded) == bits(model)
    assert "1/variance" in np.load(tmp_path / "model.npz").files
    np.testing.assert_array_equal(loaded(x)[0], model(x)[0])


def test_the_gradient_of_a_whole_model() -> None:
    x, model = example((5, 3)), full_model()
    v = example(x.shape, seed=9)
    f = lambda by: np.sum(model(x + by * v, train=True, key=KEY)[0] ** 2)
    h = 3e-5
    expected = (8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12 * h)
    gradient = ckad.grad(lambda x: np.sum(model(x, train=True, key=KEY)[0] ** 2))(x)
    assert float(np.sum(gradient * v)) == pytest.approx(float(expected), rel=1e-8)
    by_weights = ckad.grad(lambda model: np.sum(model(x, train=True, key=KEY)[0] ** 2))(model)
    leaves, structure = tree.flatten(model)
    directions = [example(leaf.shape, seed=20 + place) for place, leaf in enumerate(leaves)]
    f = lambda by: np.sum(
        tree.unflatten(structure, [a + by * b for a, b in zip(leaves, directions, strict=True)])(
            x, train=True, key=KEY
        )[0]
        ** 2
    )
    expected = (8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12 * h)
    found = sum(np.sum(a * b) for a, b in zip(tree.flatten(by_weights)[0], directions, strict=True))
    assert float(found) == pytest.approx(float(expected), rel=1e-8)
