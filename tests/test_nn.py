"""ckad.nn on plain arrays: layers as pytrees, activations and losses at their delicate places, saving and loading."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import ckad
from ckad import nn, tree
from ckad.errors import CkadIndexError, CkadTypeError, CkadValueError, DTypeError, ShapeError
from ckad.optim import adam, sgd

DTYPES = [np.float64, np.float32]


def model(dtype: Any = np.float64) -> nn.Sequential:
    rng = np.random.default_rng(0)
    return nn.Sequential(nn.Linear(3, 5, rng=rng, dtype=dtype), np.tanh, nn.Linear(5, 2, rng=rng, dtype=dtype))


# Layers ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_linear_is_x_w_plus_b(dtype: Any) -> None:
    layer = nn.Linear(3, 4, rng=1, dtype=dtype)
    x = np.random.default_rng(2).standard_normal((2, 7, 3)).astype(dtype)
    assert layer.weight.dtype == layer.bias.dtype == layer(x).dtype == dtype
    np.testing.assert_array_equal(layer(x), x @ layer.weight + layer.bias)
    assert repr(layer) == f"Linear(3, 4, dtype={np.dtype(dtype)})"


def test_linear_is_reproducible_and_scaled() -> None:
    np.testing.assert_array_equal(nn.Linear(3, 4, rng=7).weight, nn.Linear(3, 4, rng=np.random.default_rng(7)).weight)
    assert abs(np.std(nn.Linear(400, 400, rng=0).weight) * 20 - 1) < 0.02


@pytest.mark.parametrize("sizes", [(0, 3), (3, -1), (2.0, 3), (True, 3)])
def test_linear_refuses_sizes(sizes: Any) -> None:
    with pytest.raises(ValueError, match="not a positive integer"):
        nn.Linear(*sizes)


@pytest.mark.parametrize("dtype", [np.int64, np.float16, complex])
def test_linear_refuses_dtypes(dtype: Any) -> None:
    with pytest.raises(DTypeError, match="Hint: use numpy.float64"):
        nn.Linear(2, 2, dtype=dtype)


def test_sequential_is_a_pytree_of_its_layers() -> None:
    net: Any = model()
    leaves, structure = tree.flatten(net)
    assert tree.paths(net) == ["0/weight", "0/bias", "2/weight", "2/bias"]
    doubled = tree.unflatten(structure, [2 * leaf for leaf in leaves])
    assert isinstance(doubled, nn.Sequential)
    assert doubled.layers[1] is np.tanh
    np.testing.assert_array_equal(doubled[2].weight, 2 * net[2].weight)
    assert tree.flatten(model())[1] == structure
    assert tree.flatten(nn.Sequential(*net.layers[:1], np.sin, net.layers[2]))[1] != structure


def test_sequential_applies_in_order() -> None:
    net = model()
    x = np.ones((4, 3))
    np.testing.assert_array_equal(net(x), net[2](np.tanh(net[0](x))))
    assert len(net) == 3
    assert list(net) == list(net.layers)
    assert repr(net) == "Sequential(Linear(3, 5, dtype=float64), tanh, Linear(5, 2, dtype=float64))"


def test_sequential_refuses_the_same_layer_twice() -> None:
    layer = nn.Linear(2, 2)
    with pytest.raises(CkadValueError, match="layer 2 shares parameters with layer 0"):
        nn.Sequential(layer, np.tanh, layer)
    with pytest.raises(CkadValueError, match="layer 1 shares parameters with layer 0"):
        nn.Sequential(layer, nn.Sequential(np.tanh, layer))
    tied = nn.Linear(2, 2)
    tied.weight = layer.weight
    with pytest.raises(CkadValueError, match="shares parameters"):
        nn.Sequential(layer, tied)
    nn.Sequential(np.tanh, layer, np.tanh)  # a function may come twice


def test_sequential_refuses_what_it_cannot_train_or_call() -> None:
    class Scale:
        def __init__(self) -> None:
            self.scale = np.ones(3)

        def __call__(self, x: Any) -> Any:
            return x * self.scale

    with pytest.raises(CkadTypeError, match="holds arrays but is no pytree"):
        nn.Sequential(Scale())
    with pytest.raises(CkadTypeError, match="cannot be called"):
        nn.Sequential(np.ones(3))  # type: ignore[arg-type]
    net = nn.Sequential(nn.layer("scale")(Scale)())
    assert tree.paths(net) == ["0/scale"]


def test_layer_keeps_other_attributes_in_the_structure() -> None:
    @nn.layer("inner")
    class Power:
        def __init__(self, exponent: int) -> None:
            self.exponent = exponent
            self.inner = {"a": np.ones(1), "b": [np.zeros(2)]}

    assert tree.paths(Power(2)) == ["inner/a", "inner/b/0"]
    assert tree.flatten(Power(2))[1] == tree.flatten(Power(2))[1] != tree.flatten(Power(3))[1]
    leaves, structure = tree.flatten(Power(5))
    assert tree.unflatten(structure, leaves).exponent == 5


# Activations and losses -----------------------------------------------------------------------------------------------

EXTREMES = [-np.inf, -1e5, -700.0, -20.0, -1e-8, -0.0, 0.0, 1e-8, 20.0, 700.0, 1e5, np.inf]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", [nn.relu, nn.tanh, nn.sigmoid, nn.gelu, nn.softplus])
def test_activations_keep_dtype_and_nan(activation: Any, dtype: Any) -> None:
    x = np.array([[1.0, -2.0], [0.0, np.nan]], dtype)
    with np.errstate(invalid="ignore"):  # NumPy's logaddexp warns of NaN
        y = activation(x)
    assert y.dtype == dtype
    assert y.shape == x.shape
    np.testing.assert_array_equal(np.isnan(y), np.isnan(x))


def test_activations_at_extremes() -> None:
    x = np.array(EXTREMES)
    np.testing.assert_array_equal(nn.relu(x), np.maximum(x, 0))
    with np.errstate(over="ignore"):  # of the reference
        np.testing.assert_allclose(nn.sigmoid(x), 1 / (1 + np.exp(-x)), rtol=1e-12)
    np.testing.assert_allclose(nn.softplus(x[1:-1]), [_softplus(v) for v in EXTREMES[1:-1]], rtol=1e-14)
    np.testing.assert_array_equal(nn.softplus(x[[0, -1]]), [0, np.inf])


def test_gelu_is_near_the_exact_form() -> None:
    x = np.linspace(-6, 6, 1001)
    exact = x * [0.5 * math.erfc(-v / math.sqrt(2)) for v in x]
    assert np.max(np.abs(nn.gelu(x) - exact)) < 5e-4


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def test_mse_loss() -> None:
    a, b = np.random.default_rng(0).standard_normal((2, 3, 4))
    assert nn.mse_loss(a, b) == pytest.approx(np.mean((a - b) ** 2), rel=1e-15)
    with pytest.raises(ShapeError, match=r"\(3, 4\) and \(3, 1\).*do not broadcast"):
        nn.mse_loss(a, b[:, :1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_cross_entropy(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((2, 5, 4)).astype(dtype)
    labels = rng.integers(0, 4, (2, 5))
    probabilities = np.exp(logits) / np.sum(np.exp(logits), axis=-1, keepdims=True)
    expected = -np.mean(np.log(np.take_along_axis(probabilities, labels[..., None], -1)))
    one_hot = np.eye(4, dtype=dtype)[labels]
    tolerance = 1e-14 if dtype == np.float64 else 1e-6
    for value in (nn.softmax_cross_entropy(logits, labels), nn.softmax_cross_entropy(logits, one_hot)):
        assert value.dtype == dtype
        assert value == pytest.approx(expected, rel=tolerance)
    assert nn.softmax_cross_entropy(logits, labels.tolist()) == nn.softmax_cross_entropy(logits, labels)
    assert nn.softmax_cross_entropy(logits[0, 0], labels[0, 0]) > 0


def test_losses_refuse_what_a_model_with_a_state_returns() -> None:
    pair = (np.ones((2, 3)), "model")
    for loss in (nn.mse_loss, nn.softmax_cross_entropy):
        with pytest.raises(TypeError, match=r"is a tuple of 2.*returns \(y, model\)"):
            loss(pair, np.zeros(2, dtype=int))  # pyright: ignore[reportArgumentType]


def test_softmax_cross_entropy_of_large_logits() -> None:
    assert nn.softmax_cross_entropy(np.array([[1000.0, 0.0]]), np.array([1])) == 1000.0


def test_softmax_cross_entropy_refuses() -> None:
    logits = np.zeros((5, 3))
    with pytest.raises(ShapeError, match="integer labels have the shape of logits without its last axis"):
        nn.softmax_cross_entropy(logits, np.zeros((5, 1), int))
    with pytest.raises(ShapeError, match="float labels have the shape of logits"):
        nn.softmax_cross_entropy(logits, np.zeros(5))
    with pytest.raises(DTypeError, match="bool"):
        nn.softmax_cross_entropy(logits, np.zeros(5, bool))


# Saving ---------------------------------------------------------------------------------------------------------------


def state_tree() -> dict[str, Any]:
    net = model(np.float32)
    return {
        "net": net,
        "optimizer": adam(1e-3).init(net),
        "extra": [np.arange(3), (np.float32(1.5), 2, 3.5, True, np.array(4)), None],
    }


def test_save_and_load_return_the_same_tree(tmp_path: Any) -> None:
    path = tmp_path / "state.npz"
    saved = state_tree()
    nn.save(path, saved)
    loaded = nn.load(path, state_tree())
    assert tree.flatten(loaded)[1] == tree.flatten(saved)[1]
    for a, b in zip(tree.flatten(saved)[0], tree.flatten(loaded)[0], strict=True):
        assert type(a) is type(b)
        np.testing.assert_array_equal(a, b)
        if isinstance(a, (np.ndarray, np.generic)):
            assert a.dtype == b.dtype
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.npz"]


def test_keys_are_paths_and_files_need_no_pickle(tmp_path: Any) -> None:
    nn.save(tmp_path / "a.npz", state_tree())
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        assert {"net/0/weight", "optimizer/mean/2/bias", "optimizer/step", "extra/1/0"} <= set(archive.files)


def test_a_leaf_alone_and_awkward_keys(tmp_path: Any) -> None:
    path = tmp_path / "x.npz"
    nn.save(path, np.arange(3))
    np.testing.assert_array_equal(nn.load(path, np.zeros(3, int)), [0, 1, 2])
    awkward = {"file": np.ones(1), "arr_0": np.zeros(2), "ключ": np.ones((2, 0))}
    nn.save(path, awkward)
    assert nn.load(path, awkward)["ключ"].shape == (2, 0)


def test_layouts_and_byte_order(tmp_path: Any) -> None:
    path = tmp_path / "x.npz"
    grid = np.arange(12.0).reshape(3, 4)
    nn.save(path, [grid.T, grid[::-1, ::2], grid.astype(">f8"), np.broadcast_to(1.0, (2, 2))])
    loaded = nn.load(path, [grid.T, grid[:, ::2], grid, np.zeros((2, 2))])
    for value, expected in zip(loaded, [grid.T, grid[::-1, ::2], grid, np.ones((2, 2))], strict=True):
        np.testing.assert_array_equal(value, expected)
        assert value.flags.writeable


def test_load_refuses_what_does_not_fit(tmp_path: Any) -> None:
    path = tmp_path / "x.npz"
    nn.save(path, {"a": np.ones(3), "b": np.ones(2)})
    with pytest.raises(CkadValueError, match="missing: c; extra: b"):
        nn.load(path, {"a": np.ones(3), "c": np.ones(2)})
    with pytest.raises(CkadValueError, match="extra: b"):
        nn.load(path, {"a": np.ones(3)})
    with pytest.raises(ShapeError, match=r"b in .* has shape \(2,\), expected \(1, 2\)"):
        nn.load(path, {"a": np.ones(3), "b": np.ones((1, 2))})
    with pytest.raises(DTypeError, match="b in .* has dtype float64, expected float32"):
        nn.load(path, {"a": np.ones(3), "b": np.ones(2, np.float32)})


def test_save_refuses_and_leaves_the_old_file(tmp_path: Any) -> None:
    path = tmp_path / "x.npz"
    nn.save(path, {"a": 1.0})
    for bad in ("text", object(), np.array(["text"]), np.array([None]), np.datetime64("2020-01-01")):
        with pytest.raises(CkadTypeError, match="b/0 is neither"):
            nn.save(path, {"b": [bad]})
    with pytest.raises(CkadValueError, match="two leaves have the name 'a/b'"):
        nn.save(path, {"a": {"b": 1.0}, "a/b": 2.0})
    assert nn.load(path, {"a": 0.0}) == {"a": 1.0}
    assert len(list(tmp_path.iterdir())) == 1


def test_load_of_other_files(tmp_path: Any) -> None:
    with pytest.raises(FileNotFoundError):
        nn.load(tmp_path / "nothing.npz", 0.0)
    (tmp_path / "text.npz").write_text("hello")
    np.save(tmp_path / "single.npy", np.ones(2))
    np.savez(tmp_path / "pickled.npz", value=np.array([None]))
    nn.save(tmp_path / "cut.npz", np.ones(1000))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:4000])
    for name in ("text.npz", "single.npy", "pickled.npz", "cut.npz"):
        with pytest.raises(CkadValueError, match="no .npz file"):
            nn.load(tmp_path / name, np.ones(2))


# Under transforms -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", [nn.relu, nn.tanh, nn.sigmoid, nn.gelu, nn.softplus])
def test_derivatives_of_activations(activation: Any) -> None:
    ckad.check_grads(activation, (np.array([-3.0, -0.7, 0.4, 2.5]),))


def test_activations_at_delicate_places() -> None:
    def derivative(f: Any, x: float) -> float:
        return float(ckad.grad(f)(x))

    assert derivative(nn.relu, 0.0) == 0.0
    assert derivative(nn.sigmoid, 0.0) == pytest.approx(0.25, rel=1e-15)
    assert derivative(nn.sigmoid, -400.0) == pytest.approx(math.exp(-400), rel=1e-12)
    for x in (-1000.0, 1000.0):
        assert derivative(nn.sigmoid, x) == 0.0
        assert derivative(nn.softplus, x) == float(x > 0)


@pytest.mark.parametrize("kind", ["labels", "probabilities"])
def test_derivatives_of_losses(kind: str) -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((5, 3)), rng.integers(0, 3, 5)
    target: Any = labels if kind == "labels" else rng.dirichlet(np.ones(3), 5)
    softmax = np.exp(logits) / np.sum(np.exp(logits), axis=1, keepdims=True)
    expected = (softmax - (np.eye(3)[labels] if kind == "labels" else target)) / 5
    np.testing.assert_allclose(ckad.grad(nn.softmax_cross_entropy)(logits, target), expected, rtol=1e-12, atol=1e-15)
    ckad.check_grads(lambda u: nn.softmax_cross_entropy(u, target), (logits,))
    ckad.check_grads(nn.mse_loss, (logits, rng.standard_normal((5, 3))))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_model_is_trained(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 3)).astype(dtype)
    target = np.sin(x @ rng.standard_normal((3, 2)).astype(dtype))
    net = model(dtype)
    init, update = adam(0.02)
    state = init(net)
    gradient = ckad.value_and_grad(lambda net: nn.mse_loss(net(x), target))
    losses = []
    for _ in range(150):
        value, grads = gradient(net)
        net, state = update(grads, state, net)
        losses.append(float(value))
    assert isinstance(grads, nn.Sequential)
    assert all(leaf.dtype == dtype for leaf in tree.flatten((net, state["mean"]))[0])
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.parametrize("optimizer", [sgd(0.1), sgd(0.1, momentum=0.5), adam(0.1)])
def test_a_training_step_is_differentiated(optimizer: Any) -> None:
    x = np.random.default_rng(0).standard_normal((4, 2))

    def loss_after_two_steps(w: Any) -> Any:
        params, state = {"w": w}, optimizer.init({"w": w})
        for _ in range(2):
            grads = ckad.grad(lambda p: nn.mse_loss(np.tanh(x @ p["w"]), np.ones((4, 3))))(params)
            params, state = optimizer.update(grads, state, params)
        return nn.mse_loss(np.tanh(x @ params["w"]), np.ones((4, 3)))

    ckad.check_grads(loss_after_two_steps, (np.random.default_rng(1).standard_normal((2, 3)),), order=1)


def test_the_learning_rate_is_differentiated() -> None:
    def loss(rate: Any) -> Any:
        init, update = sgd(rate)
        params = np.array([1.0, 2.0])
        for _ in range(3):
            params, _ = update(params, init(params), params)
        return np.sum(params)

    assert float(ckad.grad(loss)(0.1)) == pytest.approx(-3 * 0.9**2 * 3, rel=1e-12)


def test_softmax_cross_entropy_takes_only_classes() -> None:
    for labels in ([0, -1], [0, 3], [0, 2**40]):
        with pytest.raises(CkadIndexError, match=r"for 3 classes: logits \(2, 3\), labels \(2,\)"):
            nn.softmax_cross_entropy(np.zeros((2, 3)), np.array(labels))
        with pytest.raises(IndexError):
            ckad.grad(nn.softmax_cross_entropy)(np.zeros((2, 3)), labels)
    assert nn.softmax_cross_entropy(np.zeros(3), np.int64(2)) == pytest.approx(np.log(3))


def test_keys_that_end_as_members_do(tmp_path: Any) -> None:
    tree_ = {"a": 1.0, "a.npy": 2.0, "a.npy.npy": 3.0, ".npy": 4.0}
    for order in (tree_, dict(reversed(tree_.items()))):
        nn.save(tmp_path / "keys.npz", order)
        assert nn.load(tmp_path / "keys.npz", order) == order
