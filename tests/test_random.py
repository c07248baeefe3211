"""ckad.random: bits against published answers, JAX and a generator written in NumPy; distributions; where draws run."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import textwrap
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jitted import Counted

import ckad
from ckad import _core, random
from ckad.errors import CkadTypeError, CkadValueError, DTypeError, ShapeError

KEY = random.key(0)
FLOATS = [np.float64, np.float32]
WORDS = [np.uint8, np.uint16, np.uint32, np.uint64]


def blocks(key: Any, counters: Any) -> Any:
    """Threefry2x32 with 20 rounds, round by round as it is published: blocks of 64 bits."""
    k0, k1 = (np.uint32(word) for word in key)
    keys = [k0, k1, np.uint32(0x1BD11BDA) ^ k0 ^ k1]
    with np.errstate(over="ignore"):
        x, y = (counters >> 32).astype(np.uint32) + k0, counters.astype(np.uint32) + k1
        for turn in range(20):
            by = np.uint32([13, 15, 26, 6, 17, 29, 16, 24][turn % 8])
            x = x + y
            y = (y << by | y >> np.uint32(32 - by)) ^ x
            if turn % 4 == 3:
                x, y = x + keys[(turn // 4 + 1) % 3], y + keys[(turn // 4 + 2) % 3] + np.uint32(turn // 4 + 1)
    return x.astype(np.uint64) << 32 | y


# Bits -----------------------------------------------------------------------------------------------------------------

# With the reference implementation, Random123: key, counter, block.
KNOWN = [
    (0, 0, 0x6B20015999BA4EFE),
    (2**64 - 1, 2**64 - 1, 0x1CB996FCBB002BE7),
    (0x13198A2E03707344, 0x243F6A8885A308D3, 0xC4923A9C483DF7A0),
]


@pytest.mark.parametrize(("key", "counter", "block"), KNOWN)
def test_known_answers(key: int, counter: int, block: int) -> None:
    drawn = ckad.jit(lambda key, first: _core.random_bits(key, first, (1,), "uint64"))
    assert int(drawn(random.key(key), np.uint64(counter))[0]) == block
    assert int(blocks(random.key(key), np.array([counter], np.uint64))[0]) == block


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(-(2**63), 2**64 - 1),
    shape=st.lists(st.integers(0, 9), max_size=4).map(tuple) | st.sampled_from([(70_001,), (300, 257), (3, 1, 30_000)]),
    dtype=st.sampled_from(WORDS),
)
def test_bits_are_those_of_the_counters(seed: int, shape: tuple[int, ...], dtype: Any) -> None:
    key = random.key(seed)
    words = blocks(key, np.arange(math.prod(shape), dtype=np.uint64))
    expected = words if dtype == np.uint64 else (words >> 32 ^ words & 0xFFFFFFFF).astype(dtype)
    found = random.bits(key, shape, dtype)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, expected.reshape(shape))
    traced = ckad.jit(lambda key: random.bits(key, shape, dtype))(key)
    np.testing.assert_array_equal(traced, found)


def test_what_jax_draws() -> None:
    # Of JAX 0.10.2 with jax_enable_x64 and jax_threefry_partitionable, which is its default.
    assert random.split(KEY, 3).tolist() == [
        [1797259609, 2579123966],
        [928981903, 3453687069],
        [4146024105, 2718843009],
    ]
    assert random.fold_in(KEY, 7).tolist() == [2716826189, 292468403]
    assert random.fold_in(KEY, 2**32 - 1).tolist() == [743310391, 3789761811]
    assert random.bits(KEY, (5,), np.uint8).tolist() == [167, 146, 40, 53, 183]
    assert random.bits(KEY, (5,), np.uint16).tolist() == [20391, 13970, 3624, 43061, 15287]
    assert random.bits(KEY, (2, 2)).tolist() == [[4070199207, 4202968722], [1427181096, 2012915765]]
    assert random.bits(KEY, (2,), np.uint64).tolist() == [7719171245655871230, 3989946895414531357]
    uniform = [0.9476670026779175, 0.9785798788070679, 0.33229148387908936, 0.46866846084594727]
    assert random.uniform(KEY, (4,), np.float32).tolist() == uniform
    assert random.bernoulli(KEY, 0.3, (10,)).nonzero()[0].tolist() == [1, 9]
    assert random.bernoulli(KEY, np.float32(0.3), (10,)).nonzero()[0].tolist() == [5, 9]
    assert random.randint(KEY, (8,), -5, 17).tolist() == [-4, 4, -4, -2, -4, -4, 11, 7]
    assert random.randint(KEY, (8,), np.array(-5), np.array(17)).tolist() == [-4, 4, -4, -2, -4, -4, 11, 7]
    assert random.randint(KEY, (8,), -5, 17, np.int32).tolist() == [14, -5, -1, 0, 8, 12, 15, 6]
    assert random.randint(KEY, (8,), 0, 256, np.uint8).tolist() == [101, 80, 200, 61, 3, 211, 144, 31]
    assert random.permutation(KEY, 10).tolist() == [0, 1, 8, 5, 6, 4, 3, 2, 7, 9]
    rows = np.arange(12).reshape(4, 3)
    np.testing.assert_array_equal(random.permutation(KEY, rows), rows[[0, 1, 3, 2]])
    p = np.array([0.1, 0.2, 0.3, 0.4])
    assert random.choice(KEY, 10, (4,)).tolist() == [5, 1, 5, 7]
    assert random.choice(KEY, 10, (4,), replace=False).tolist() == [0, 1, 8, 5]
    assert random.choice(KEY, 4, (6,), p=p).tolist() == [2, 3, 0, 2, 2, 3]
    assert random.choice(KEY, 4, (3,), replace=False, p=p).tolist() == [2, 3, 1]
    logits = np.log(np.array([[0.1, 0.2, 0.7], [0.5, 0.25, 0.25]]))
    assert random.categorical(KEY, logits).tolist() == [2, 0]
    assert random.categorical(KEY, logits[0], shape=(6,)).tolist() == [2, 2, 2, 1, 1, 2]
    close = {"rtol": 1e-14}
    between = [0.09228555858193221, -0.9185227269724432]
    np.testing.assert_allclose(random.uniform(KEY, 2, minval=-2, maxval=3), between, **close)
    np.testing.assert_allclose(random.gumbel(KEY, 2), [0.13790565977540292, -0.4259929367942607], **close)
    np.testing.assert_allclose(random.exponential(KEY, 2), [0.5420705551711603, 0.24372318502372997], **close)
    truncated = [-0.19635199236715062, -0.7414705651387619, 1.590591332726381]
    np.testing.assert_allclose(random.truncated_normal(KEY, -2, 2, 3), truncated, atol=1e-7)


# Keys -----------------------------------------------------------------------------------------------------------------


def test_keys() -> None:
    assert random.key(2**40 + 3).tolist() == [256, 3]
    assert random.PRNGKey(-1).tolist() == [2**32 - 1, 2**32 - 1]
    assert random.split(KEY, (2, 3)).shape == (2, 3, 2)
    assert random.split(KEY, ()).shape == (2,)
    assert random.split(KEY, 0).shape == (0, 2)
    np.testing.assert_array_equal(random.split(KEY, (2, 3)).reshape(6, 2), random.split(KEY, 6))
    np.testing.assert_array_equal(random.fold_in(KEY, 2), random.split(KEY, 3)[2])
    keys = random.split(random.key(5), 10_000)
    assert len({tuple(key) for key in keys.tolist()}) == 10_000


def test_keys_are_traced() -> None:
    def f(seed: Any, step: Any) -> Any:
        key = random.fold_in(random.key(seed), step)
        first, second = random.split(key)
        return random.uniform(first, (3,)), random.bits(second, 2), key

    expected = f(12, 3)
    for found in (ckad.jit(f)(12, 3), ckad.jit(f)(np.int64(12), np.uint8(3))):
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype


def test_a_key_is_an_argument_and_records_once() -> None:
    def f(x: Any, key: Any) -> Any:
        key, mine = random.split(key)
        return x * random.bernoulli(mine, 0.5, x.shape), key

    step = Counted(f)
    x, key, eager = np.ones(9), random.key(3), random.key(3)
    for _ in range(4):
        y, key = step(x, key)
        eager, mine = random.split(eager)
        np.testing.assert_array_equal(y, x * random.bernoulli(mine, 0.5, x.shape))
    np.testing.assert_array_equal(key, eager)
    assert step.count == 1


@pytest.mark.parametrize("wrapped", [lambda f: f, ckad.jit], ids=["plain", "jit"])
def test_a_key_may_be_captured(wrapped: Any) -> None:
    keys = [random.key(1)]
    f = wrapped(ckad.value_and_grad(lambda x: np.sum(x * random.uniform(keys[0], x.shape))))
    for seed in (1, 2):
        keys[0] = random.key(seed)
        _, gradient = f(np.ones(4))
        np.testing.assert_array_equal(gradient, random.uniform(keys[0], (4,)))
    keys[0][1] = 7
    np.testing.assert_array_equal(f(np.ones(4))[1], random.uniform(random.key(7), (4,)))


def test_draws_in_nested_transforms() -> None:
    def inner(w: Any, key: Any) -> Any:
        return np.sum(np.tanh(w) * random.normal(key, w.shape))

    def outer(w: Any) -> Any:
        return np.sum(ckad.grad(inner)(w, random.key(4)) * random.uniform(random.key(5), w.shape))

    w = np.linspace(-1, 1, 5)
    noise, scale = random.normal(random.key(4), 5), random.uniform(random.key(5), 5)
    np.testing.assert_allclose(outer(w), np.sum((1 - np.tanh(w) ** 2) * noise * scale), rtol=1e-14)
    ckad.check_grads(outer, (w,))


# Distributions --------------------------------------------------------------------------------------------------------

N = 200_000


def check_moments(x: Any, mean: float, variance: float) -> None:
    """Mean and variance, each within five standard errors (of a distribution with kurtosis below 9)."""
    assert np.mean(x, dtype=np.float64) == pytest.approx(mean, abs=5 * math.sqrt(variance / x.size))
    assert np.var(x, dtype=np.float64) == pytest.approx(variance, abs=5 * variance * math.sqrt(8 / x.size))


@pytest.mark.parametrize("dtype", FLOATS)
def test_moments(dtype: Any) -> None:
    keys = random.split(random.key(11), 6)
    euler = 0.5772156649015329
    for x, mean, variance in (
        (random.uniform(keys[0], N, dtype), 1 / 2, 1 / 12),
        (random.normal(keys[1], N, dtype), 0, 1),
        (random.exponential(keys[2], N, dtype), 1, 1),
        (random.gumbel(keys[3], N, dtype), euler, math.pi**2 / 6),
        # φ(1) / (Φ(1) − Φ(−1)) and so on.
        (random.truncated_normal(keys[4], -1, 1, N, dtype), 0, 0.29112509),
        (random.uniform(keys[5], N, dtype, -3, 5), 1, 64 / 12),
    ):
        assert x.dtype == dtype
        assert np.all(np.isfinite(x))
        check_moments(x, mean, variance)


def test_normal_numbers_are_normal() -> None:
    # Shares below some numbers against the distribution function, within five standard errors.
    for dtype in FLOATS:
        x = random.normal(random.key(3), N, dtype)
        for bound in (-3.0, -1.5, -0.3, 0.0, 0.8, 2.0):
            share = (1 + math.erf(bound / math.sqrt(2))) / 2
            assert np.mean(x < bound) == pytest.approx(share, abs=5 * math.sqrt(share * (1 - share) / N))
        assert abs(np.mean(x[1:] * x[:-1])) < 5 / math.sqrt(N)


@pytest.mark.parametrize("dtype", FLOATS)
def test_ranges(dtype: Any) -> None:
    x = random.uniform(KEY, N, dtype)
    assert 0 <= x.min() < 1e-4
    assert 1 - 1e-4 < x.max() < 1
    # The greatest number that there is, and a range in which most sums round.
    least = dtype(1) - np.finfo(dtype).epsneg
    narrow = random.uniform(KEY, N, dtype, least, dtype(1))
    assert np.all(narrow == least)
    truncated = random.truncated_normal(KEY, 0.5, np.inf, N, dtype)
    assert truncated.min() >= 0.5
    assert np.all(np.isfinite(truncated))


def test_integers() -> None:
    x = random.randint(KEY, (N,), 3, 9)
    assert x.dtype == np.int64
    counts = np.bincount(x, minlength=9)
    assert counts[:3].tolist() == [0, 0, 0]
    np.testing.assert_allclose(counts[3:] / N, 1 / 6, atol=5 * math.sqrt(5 / 36 / N))
    for dtype in (np.int8, np.uint16, np.int32, np.uint64):
        limits = np.iinfo(dtype)
        whole = random.randint(KEY, (4096,), int(limits.min), int(limits.max) + 1, dtype)
        assert whole.dtype == dtype
        assert whole.min() < limits.min + limits.max // 100 or limits.max < 1000
        assert np.all(random.randint(KEY, (9,), int(limits.max), int(limits.max) + 1, dtype) == limits.max)
    low = np.array([[0], [10]])
    spread = random.randint(KEY, (2, 1000), low, low + np.arange(1, 1001))
    assert np.all((spread >= low) & (spread < low + np.arange(1, 1001)))


@pytest.mark.parametrize("count", [0, 1, 2, 100, 70_000])
def test_permutations(count: int) -> None:
    order = random.permutation(random.key(count), count)
    np.testing.assert_array_equal(np.sort(order), np.arange(count))
    assert count < 100 or np.any(order != np.arange(count))
    columns = random.permutation(random.key(count), np.tile(np.arange(count), (2, 1)), axis=1)
    np.testing.assert_array_equal(columns, np.tile(order, (2, 1)))


def test_choices() -> None:
    p = np.array([0.5, 0.0, 0.2, 0.3])
    for shares in (
        np.bincount(random.choice(KEY, 4, (N,), p=p), minlength=4) / N,
        np.bincount(random.categorical(KEY, np.log(np.maximum(p, 1e-300)), shape=(N,)), minlength=4) / N,
    ):
        assert shares[1] == 0
        np.testing.assert_allclose(shares, p, atol=5 / math.sqrt(N) / 2)
    rows = np.arange(12.0).reshape(4, 3)
    chosen = random.choice(KEY, 4, (2, 2))
    np.testing.assert_array_equal(random.choice(KEY, rows, (2, 2)), rows[chosen])
    np.testing.assert_array_equal(random.choice(KEY, rows.T, (2, 2), axis=1), rows.T[:, chosen])
    assert sorted(random.choice(KEY, 5, (5,), replace=False)) == list(range(5))
    logits = np.array([[0.0, 800.0], [800.0, 0.0], [0.0, 800.0]])
    assert random.categorical(KEY, logits, shape=(7, 3)).tolist() == [[1, 0, 1]] * 7
    assert random.categorical(KEY, logits.T, axis=0, shape=(7, 3)).tolist() == [[1, 0, 1]] * 7


def test_bernoulli_takes_probabilities_of_any_kind() -> None:
    p = np.linspace(0, 1, 11)
    drawn = random.bernoulli(KEY, p, (N // 10, 11))
    assert drawn.dtype == bool
    np.testing.assert_allclose(drawn.mean(0), p, atol=5 / math.sqrt(N / 10) / 2)
    assert not drawn[:, 0].any()
    assert drawn[:, -1].all()
    assert random.bernoulli(KEY, p).shape == (11,)
    assert random.bernoulli(KEY, [0.0, 1.0]).tolist() == [False, True]
    assert isinstance(random.bernoulli(KEY), np.bool_)


def test_bounds_are_differentiated() -> None:
    def f(low: Any, high: Any) -> Any:
        return np.sum(np.sin(random.uniform(KEY, (3,), minval=low, maxval=high)))

    ckad.check_grads(f, (0.3, 2.0))
    ckad.check_grads(f, (np.zeros(3), np.arange(1.0, 4.0)))


# Where draws run ------------------------------------------------------------------------------------------------------

DRAWS = {
    "uniform": lambda key: random.uniform(key, (70, 90), np.float32),
    "uniform between": lambda key: random.uniform(key, (6300,), minval=-1.0, maxval=2.0),
    "normal": lambda key: random.normal(key, (6300,)),
    "normal32": lambda key: random.normal(key, (3, 2100), np.float32),
    "truncated normal": lambda key: random.truncated_normal(key, -2, 2, (6300,)),
    "bernoulli": lambda key: random.bernoulli(key, 0.3, (6300,)),
    "exponential": lambda key: random.exponential(key, (63, 100)),
    "gumbel": lambda key: random.gumbel(key, (6300,), np.float32),
    "randint": lambda key: random.randint(key, (6300,), 0, 1000),
    "permutation": lambda key: random.permutation(key, 1000),
    "choice": lambda key: random.choice(key, 30, (70,), p=np.full(30, 1 / 30)),
    "permutation of rows": lambda key: random.permutation(key, np.arange(120, dtype=np.int32).reshape(30, 4)),
    "permutation of columns": lambda key: random.permutation(key, np.arange(120.0).reshape(4, 30), axis=1),
    "choice of rows": lambda key: random.choice(key, np.arange(60.0).reshape(20, 3), (7, 2), replace=False),
    "categorical": lambda key: random.categorical(key, np.zeros((20, 30))),
    "split": lambda key: random.split(key, 7),
    "fold_in": lambda key: random.fold_in(key, 7),
    "fold_in of rank 0": lambda key: random.fold_in(key, np.array(7)),
    "none": lambda key: random.normal(key, (0, 3)),
    "one": random.uniform,
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_traced_or_not_the_bits_are_the_same(draw: Any) -> None:
    key = random.key(123)
    plain = draw(key)
    assert isinstance(plain, (np.ndarray, np.generic))
    found = [ckad.jit(draw)(key), ckad.jit(lambda: draw(key))()]
    for policy in ("none", "auto", "sqrt"):
        f = lambda x, key: (x, draw(key))
        found.append(ckad.value_and_grad(f, has_aux=True, checkpoint=policy)(1.0, key)[0][1])
    for other in found:
        assert np.asarray(other).dtype == plain.dtype
        assert np.asarray(other).tobytes() == plain.tobytes()


PROGRAM = """
import sys; sys.path.insert(0, {tests!r})
import hashlib, numpy as np
from test_random import DRAWS, random
bits = b"".join(np.asarray(draw(random.key(5))).tobytes() for name, draw in DRAWS.items() if name in {names!r})
print(hashlib.sha256(bits).hexdigest())
"""


def digest(names: list[str], **environment: str) -> str:
    program = textwrap.dedent(PROGRAM).format(tests=os.path.dirname(__file__), names=names)
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_bits_do_not_depend_on_threads_or_instructions() -> None:
    names = list(DRAWS)
    assert digest(names, CKAD_NUM_THREADS="1") == digest(names, CKAD_NUM_THREADS="3")
    # Plain code rounds functions otherwise; what is exact is the same everywhere.
    exact = ["uniform", "bernoulli", "randint", "permutation", "split", "fold_in", "one"]
    assert digest(exact, CKAD_ISA="scalar") == digest(exact)


def test_joined_kernels_draw_what_others_draw() -> None:
    generator = np.random.default_rng(0)
    for rows, features in ((1000, 77), (3, 5000), (513, 128)):
        x, w = generator.normal(size=(rows, features)), generator.normal(size=(features, features)) / features**0.5

        def f(x: Any, w: Any, key: Any) -> Any:
            h = np.tanh(x @ w)
            y = np.where(random.bernoulli(key, 0.7, h.shape), h, 0)
            c = y - np.mean(y, axis=1, keepdims=True)
            z = c / np.sqrt(np.mean(c * c, axis=1, keepdims=True) + 1e-5)
            return y, z * random.uniform(random.fold_in(key, 1), z.shape)

        y, scaled = ckad.jit(f)(x, w, KEY)
        kept, scale = random.bernoulli(KEY, 0.7, y.shape), random.uniform(random.fold_in(KEY, 1), y.shape)
        np.testing.assert_array_equal(y != 0, kept)
        c = y - y.mean(1, keepdims=True)
        expected = c / np.sqrt((c * c).mean(1, keepdims=True) + 1e-5) * scale
        np.testing.assert_allclose(scaled, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("wrapped", [lambda f: f, ckad.jit], ids=["plain", "jit"])
def test_python_may_look_at_what_depends_on_no_argument(wrapped: Any) -> None:
    def f(x: Any) -> Any:
        count = int(random.randint(KEY, (), 3, 7))
        x = 2 * x if random.bernoulli(KEY, 0.9) else x
        return np.sum(x[:count]) * float(random.uniform(KEY)) + np.arange(9.0)[random.permutation(KEY, 4)[0]] * x[0]

    assert float(wrapped(f)(np.ones(9))) == float(f(np.ones(9)))
    np.testing.assert_allclose(ckad.grad(wrapped(f))(np.ones(9)), ckad.jacobian(f)(np.ones(9)), rtol=1e-14)


# Planning -------------------------------------------------------------------------------------------------------------


def dropped(x: Any, key: Any) -> Any:
    for layer in range(6):
        keep = random.bernoulli(random.fold_in(key, layer), np.float32(0.8), x.shape)
        x = np.where(keep, np.tanh(x) * 1.25, 0)
    return np.sum(x)


def noisy(x: Any, key: Any) -> Any:
    for layer in range(6):
        x = np.tanh(x) * (1 + 0.1 * random.normal(random.fold_in(key, layer), x.shape, np.float32))
    return np.sum(x)


@pytest.mark.parametrize("f", [dropped, noisy])
def test_bits_are_recomputed_and_not_stored(f: Any) -> None:
    x = np.random.default_rng(0).standard_normal((256, 512)).astype(np.float32)
    peaks = {}
    expected = ckad.grad(f, checkpoint="none")(x, KEY)
    for policy in ("none", "auto", "sqrt", 3):
        gradient = ckad.grad(f, checkpoint=policy)
        peaks[policy] = ckad.plan(gradient)(x, KEY).peak_bytes
        assert gradient(x, KEY).tobytes() == expected.tobytes()
    # What is drawn for six layers, masks of a byte or noise of four; the last one's is read where it is drawn anyway.
    drawn = 5 * x.size * (1 if f is dropped else 4)
    assert peaks["auto"] <= peaks["none"] - 0.95 * drawn
    assert peaks["sqrt"] <= peaks["auto"]
    limit = peaks["none"] - int(0.95 * drawn)
    limited = ckad.grad(f, memory_limit=limit)
    assert ckad.plan(limited)(x, KEY).peak_bytes <= limit
    assert limited(x, KEY).tobytes() == expected.tobytes()


def test_a_pullback_draws_again() -> None:
    x = np.linspace(-1, 1, 20_000)
    f = lambda x, key: np.where(random.bernoulli(key, 0.5, x.shape), np.sin(x), 0) * random.normal(KEY, x.shape)
    expected = ckad.grad(lambda x, key: np.sum(f(x, key)))(x, random.key(9))
    y, pullback = ckad.vjp(lambda x: f(x, random.key(9)), x)
    assert pullback(np.ones_like(y))[0].tobytes() == expected.tobytes()
    y, linear = ckad.linearize(ckad.jit(lambda x: f(x, random.key(9))), x)
    assert linear(np.ones_like(y)).tobytes() == expected.tobytes()
    np.testing.assert_array_equal(expected != 0, random.bernoulli(random.key(9), 0.5, x.shape))


# Refusals -------------------------------------------------------------------------------------------------------------

REFUSED: list[tuple[Any, type[Exception], str]] = [
    (lambda: random.key(1.5), CkadTypeError, "a seed is an integer"),
    (lambda: random.key(True), CkadTypeError, "a seed is an integer"),
    (lambda: random.key(2**64), CkadValueError, "at most 64 bits"),
    (lambda: ckad.jit(random.key)(1.5), CkadTypeError, "a seed is one integer"),
    (lambda: random.split(0), CkadTypeError, "array of two uint32.*ckad.random.key"),
    (lambda: random.split(np.zeros(2)), DTypeError, "dtype uint32, not float64"),
    (lambda: random.uniform(random.split(KEY)), ShapeError, r"shape \(2,\), not \(2, 2\).*keys\[0\]"),
    (lambda: random.split(KEY, -1), CkadValueError, "negative dimensions"),
    (lambda: random.split(KEY, 1.5), CkadTypeError, "integer"),
    (lambda: random.fold_in(KEY, -1), CkadValueError, "not in"),
    (lambda: random.fold_in(KEY, 1.0), CkadTypeError, "an integer is folded in"),
    (lambda: random.fold_in(KEY, np.array([1])), CkadTypeError, "an integer is folded in"),
    (lambda: ckad.jit(random.fold_in)(KEY, 1.0), CkadTypeError, "one integer is folded in"),
    (lambda: random.bits(KEY, 2, np.int32), DTypeError, "unsigned dtype, not int32"),
    (lambda: random.bits(KEY, (2**40, 2**40)), ShapeError, "no machine holds"),
    (lambda: random.uniform(KEY, 2, np.float16), DTypeError, "float16 is not supported"),
    (lambda: random.uniform(KEY, 2, minval=1, maxval=0), CkadValueError, "not below"),
    (lambda: random.uniform(KEY, 3, minval=np.ones(3)), CkadValueError, "not below"),
    (lambda: random.uniform(KEY, 2, minval=[0.0, 2.0], maxval=np.ones(2)), CkadValueError, "not below"),
    (lambda: random.uniform(KEY, 2, maxval=np.nan), CkadValueError, "not below"),
    (lambda: random.uniform(KEY, 2, minval=np.zeros(3), maxval=np.ones(2)), ValueError, "broadcast"),
    (lambda: random.bernoulli(KEY, 1.5), CkadValueError, "no probability"),
    (lambda: random.bernoulli(KEY, np.array([0.5, 2.0])), CkadValueError, "no probability"),
    (lambda: random.bernoulli(KEY, [-0.1, 0.5]), CkadValueError, "no probability"),
    (lambda: ckad.jit(lambda key: random.bernoulli(key, np.array([np.nan])))(KEY), CkadValueError, "no probability"),
    (lambda: random.truncated_normal(KEY, 1, 1), CkadValueError, "the lesser one first"),
    (lambda: random.randint(KEY, 2, 0, 10, np.float64), DTypeError, "not one of integers"),
    (lambda: random.randint(KEY, 2, 0.0, 10), CkadTypeError, "minval=0.0 is no integer"),
    (lambda: random.randint(KEY, 2, 3, 3), CkadValueError, "at least minval=3"),
    (lambda: random.randint(KEY, 2, 0, 300, np.uint8), CkadValueError, "below maxval=300"),
    (lambda: random.permutation(KEY, 1.5), CkadTypeError, "neither an integer nor an array"),
    (lambda: random.permutation(KEY, np.zeros((2, 3)), axis=2), np.exceptions.AxisError, "out of bounds"),
    (lambda: random.choice(KEY, 0, (1,)), CkadValueError, "0 entries"),
    (lambda: random.choice(KEY, 3, (4,), replace=False), CkadValueError, "4 of 3 entries"),
    (lambda: random.choice(KEY, 3, (4,), p=[0.5, 0.5]), ShapeError, r"p has shape \(2,\) for 3"),
    (lambda: random.choice(KEY, "abc"), CkadTypeError, "neither an integer nor an array"),
    (lambda: random.categorical(KEY, np.arange(3)), DTypeError, "logits have dtype int64"),
    (lambda: random.categorical(KEY, np.zeros((2, 3)), shape=(3,)), ShapeError, "does not end in"),
]


@pytest.mark.parametrize(("call", "error", "text"), REFUSED)
def test_refusals(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()
