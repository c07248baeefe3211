"""ckad.optim on plain arrays: the update formulas, dtypes, schedules, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ckad import nn, optim, tree
from ckad.errors import CkadTypeError, CkadValueError, DTypeError, ShapeError


def params_of_all_kinds() -> dict[str, Any]:
    return {
        "double": np.array([1.0, -2.0]),
        "single": np.array([[1.0, -2.0]], np.float32),
        "empty": np.zeros((0, 3)),
        "zero-d": np.array(3.0, np.float32),
        "scalar": np.float32(0.5),
        "python": 0.25,
    }


def grads_like(params: Any, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return tree.map_leaves(lambda p: rng.standard_normal(np.shape(p)), params)


OPTIMIZERS = [optim.sgd(0.1), optim.sgd(0.1, momentum=0.9), optim.adam(0.1)]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("seed", [0, 1])
def test_each_parameter_keeps_its_dtype(optimizer: optim.Optimizer, seed: int) -> None:
    params = params_of_all_kinds()
    state = optimizer.init(params)
    initial = tree.flatten(state)[1]
    for step in range(3):  # the gradients are float64 throughout
        params, state = optimizer.update(grads_like(params, seed + step), state, params)
    for name, before in params_of_all_kinds().items():
        assert np.asarray(params[name]).dtype == np.asarray(before).dtype, name
        assert np.shape(params[name]) == np.shape(before)
    assert type(params["python"]) is float
    assert isinstance(params["zero-d"], (np.ndarray, np.generic))
    assert tree.flatten(state)[1] == initial
    assert state["step"] == 3
    for leaf in tree.flatten({k: v for k, v in state.items() if k != "step"})[0]:
        assert np.asarray(leaf).dtype in (np.float64, np.float32)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_update_changes_none_of_its_arguments(optimizer: optim.Optimizer) -> None:
    params = {"w": np.ones(3), "b": np.zeros(2)}
    grads, state = grads_like(params), optimizer.init(params)
    for leaf in tree.flatten((params, grads, state))[0]:
        if isinstance(leaf, np.ndarray):
            leaf.flags.writeable = False
    optimizer.update(grads, state, params)
    assert state["step"] == 0


def test_sgd_is_p_minus_lr_g() -> None:
    init, update = optim.sgd(0.5)
    params = np.array([1.0, 2.0])
    params, state = update(np.array([1.0, -1.0]), init(params), params)
    np.testing.assert_array_equal(params, [0.5, 2.5])
    assert state == {"step": 1}


def test_momentum_accumulates() -> None:
    init, update = optim.sgd(1.0, momentum=0.5)
    params = np.zeros(1)
    state = init(params)
    for expected in (-1.0, -2.5, -4.25):
        params, state = update(np.ones(1), state, params)
        np.testing.assert_array_equal(params, [expected])


def test_adam_follows_the_paper() -> None:
    rng = np.random.default_rng(3)
    b1, b2, eps, lr = 0.8, 0.95, 1e-6, 0.01
    init, update = optim.adam(lr, b1, b2, eps)
    params = reference = rng.standard_normal(4)
    state = init(params)
    m = v = np.zeros(4)
    for t in range(1, 20):
        g = rng.standard_normal(4)
        params, state = update(g, state, params)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        reference = reference - lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
        np.testing.assert_allclose(params, reference, rtol=1e-13)


@pytest.mark.parametrize("make", [optim.sgd, optim.adam])
@pytest.mark.parametrize("rate", [lambda step: 0.1 / (1 + step), lambda step: np.float64(0.1) / (1 + step)])
def test_schedules_count_from_zero(make: Any, rate: Any) -> None:
    seen: list[int] = []

    def schedule(step: int) -> Any:
        seen.append(step)
        return rate(step)

    init, update = make(schedule)
    params = np.ones(2, np.float32)
    state = init(params)
    for _ in range(3):
        params, state = update(np.ones(2, np.float32), state, params)
    assert seen == [0, 1, 2]
    assert params.dtype == np.float32


def test_a_numpy_rate_does_not_widen() -> None:
    init, update = optim.sgd(np.float64(0.1))
    params, _ = update(np.ones(2, np.float32), init(np.ones(2, np.float32)), np.ones(2, np.float32))
    assert params.dtype == np.float32


@pytest.mark.parametrize(("optimizer", "tolerance"), [(optim.sgd(0.2, momentum=0.5), 1e-3), (optim.adam(0.05), 1e-3)])
def test_a_quadratic_is_minimised(optimizer: optim.Optimizer, tolerance: float) -> None:
    params = [np.array([3.0, -4.0]), {"b": np.array(2.0)}]
    state = optimizer.init(params)
    for _ in range(400):
        params, state = optimizer.update(params, state, params)
    assert max(np.max(np.abs(leaf)) for leaf in tree.flatten(params)[0]) < tolerance


def test_state_is_saved_and_resumed_exactly(tmp_path: Any) -> None:
    net = nn.Sequential(nn.Linear(2, 3, rng=0, dtype=np.float32), np.tanh, nn.Linear(3, 1, rng=1, dtype=np.float32))
    init, update = optim.adam(0.01)
    state = init(net)
    net, state = update(grads_like(net), state, net)
    nn.save(tmp_path / "state.npz", (net, state))
    net2, state2 = nn.load(tmp_path / "state.npz", like=(net, init(net)))
    for _ in range(2):
        net, state = update(grads_like(net, 5), state, net)
        net2, state2 = update(grads_like(net2, 5), state2, net2)
    for a, b in zip(tree.flatten((net, state))[0], tree.flatten((net2, state2))[0], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: optim.sgd(-0.1), "lr=-0.1 must be finite and at least 0"),
        (lambda: optim.adam(float("nan")), "lr=nan must be finite"),
        (lambda: optim.sgd(0.1, momentum=1.0), "momentum=1.0 must be at least 0 and below 1"),
        (lambda: optim.adam(0.1, b1=1.0), "b1=1.0 must be"),
        (lambda: optim.adam(0.1, b2=-0.1), "b2=-0.1 must be"),
        (lambda: optim.adam(0.1, eps=-1.0), "eps=-1.0 must be"),
    ],
)
def test_numbers_out_of_range_are_refused(call: Any, text: str) -> None:
    with pytest.raises(CkadValueError, match=text):
        call()


def test_wrong_rates_are_refused() -> None:
    with pytest.raises(CkadTypeError, match="a number or a function of the step"):
        optim.sgd("0.1")  # type: ignore[arg-type]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_parameters_and_gradients_are_checked(optimizer: optim.Optimizer) -> None:
    with pytest.raises(DTypeError, match="parameter 'a/0' has dtype int64"):
        optimizer.init({"a": [np.arange(3)]})
    params = {"a": np.ones(3)}
    state = optimizer.init(params)
    with pytest.raises(CkadValueError, match=r"Hint: the order is update\(grads, state, params\)"):
        optimizer.update(state, params, params)
    with pytest.raises(ShapeError, match=r"parameter 'a' differ in shape: \(1,\) and \(3,\)"):
        optimizer.update({"a": np.ones(1)}, state, params)


@pytest.mark.parametrize("optimizer", [optim.sgd(0.1, momentum=0.9), optim.adam(0.1)])
def test_the_state_is_checked(optimizer: optim.Optimizer) -> None:
    params = {"a": np.ones((3, 2))}
    for other in (optim.sgd(0.1), optim.sgd(0.1, 0.5) if "mean" in optimizer.init(params) else optim.adam(0.1)):
        with pytest.raises(CkadValueError, match=r"the state must hold \['step', .* Hint: the order is"):
            optimizer.update(params, other.init(params), params)
    with pytest.raises(CkadValueError, match="the state must hold"):
        optimizer.update(params, None, params)  # type: ignore[arg-type]
    with pytest.raises(CkadValueError, match="and parameters differ in structure"):
        optimizer.update(params, optimizer.init({"b": np.ones((3, 2))}), params)
    with pytest.raises(ShapeError, match=r"parameter 'a' differ in shape: \(1, 2\) and \(3, 2\)"):
        optimizer.update(params, optimizer.init({"a": np.ones((1, 2))}), params)


def test_what_a_schedule_gives_is_checked() -> None:
    params = np.ones(2)
    cases: list[tuple[Any, type[Exception], str]] = [
        (float("nan"), CkadValueError, r"lr\(0\)=nan must be finite"),
        (-1.0, CkadValueError, "must be finite and at least 0"),
        (None, CkadTypeError, "a function of the step that gives one, not None"),
        (np.ones(2), ShapeError, r"lr\(0\) must be one number, not an array of shape \(2,\)"),
    ]
    for rate, error, text in cases:
        for make in (optim.sgd, optim.adam):
            init, update = make(lambda step, rate=rate: rate)
            with pytest.raises(error, match=text):
                update(params, init(params), params)
    with pytest.raises(ShapeError, match="lr must be one number"):
        optim.adam(np.ones(2))  # type: ignore[arg-type]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_array_of_rank_0_stays_one(optimizer: optim.Optimizer) -> None:
    params: Any = {"a": np.array(2.0, np.float32), "b": np.float32(2.0)}
    state = optimizer.init(params)
    for _ in range(2):
        params, state = optimizer.update({"a": np.float32(1.0), "b": np.float32(1.0)}, state, params)
        assert type(params["a"]) is np.ndarray
        assert params["a"].dtype == np.float32
        assert type(params["b"]) is np.float32
        for moment in state.values():
            assert not isinstance(moment, dict) or type(moment["a"]) is np.ndarray


@pytest.mark.parametrize("optimizer", [optim.sgd(0.1), optim.sgd(0.1, momentum=0.9), optim.adam(0.1)])
def test_arrays_advance_in_one_pass_to_the_same_bits(optimizer: optim.Optimizer) -> None:
    rng = np.random.default_rng(0)
    params = {"w": rng.standard_normal((300, 40)).astype(np.float32), "b": [rng.standard_normal(7)]}
    # A parameter that is a Python number has all of them advanced one operation after another.
    one_pass, each = params, {"params": params, "other": 0.25}
    states = optimizer.init(one_pass), optimizer.init(each)
    for seed in range(5):
        grads = grads_like(params, seed)
        one_pass, first = optimizer.update(grads, states[0], one_pass)
        each, second = optimizer.update({"params": grads, "other": 1.0}, states[1], each)
        states = first, second
        for left, right in zip(tree.flatten(one_pass)[0], tree.flatten(each["params"])[0], strict=True):
            assert left.dtype == right.dtype
            assert np.array_equal(left, right)
