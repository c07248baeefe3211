"""Every refusal says `[op] what is wrong. Hint: what to do.`, and the hint works."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy_functions import dispatched

import ckad
from ckad.errors import CkadError, TracerError
from ckad.numpy import ways
from ckad.numpy.registry import SUPPORTED

ROOT = Path(__file__).parent.parent
FORM = re.compile(r"^\[[^\]\n]+\] .+\. Hint: .+", re.DOTALL)


# The sources --------------------------------------------------------------------------------------------------------

RAISED_OTHERWISE = {
    # check_grads reports as tests do: what it compares is no refusal, and np.testing raises the other half of it.
    ("transforms/checking.py", "AssertionError"),
    # What Python says of a name that a module has not.
    ("__init__.py", "AttributeError"),
    # And of an attribute that is not to be set.
    ("transforms/slots.py", "AttributeError"),
    # NumPy's class, for a number of Python's that meets a narrower dtype.
    ("transforms/leaf.py", "OverflowError"),
}


# What was refused in another run of the same call.
HANDED_ON = {("transforms/inspection.py", "planning.refused")}


def raises(file: Path) -> Iterator[tuple[int, ast.expr]]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Raise) and node.exc is not None:  # a bare `raise` hands on what was raised
            yield node.lineno, node.exc


def test_every_raise_of_the_python_layer_has_a_hint() -> None:
    package, count = Path(ckad.__file__).parent, 0
    for file in sorted(package.rglob("*.py")):
        for line, raised in raises(file):
            count += 1
            place = f"{file.relative_to(package)}:{line}"
            if (str(file.relative_to(package)), ast.unparse(raised)) in HANDED_ON:
                continue
            assert isinstance(raised, ast.Call), place
            if isinstance(raised.func, ast.Name):
                assert (str(file.relative_to(package)), raised.func.id) in RAISED_OTHERWISE, place
                assert "Hint: " in ast.unparse(raised), place
            elif isinstance(raised.func, ast.Attribute) and raised.func.attr == "of":
                assert len(raised.args) == 3, place  # op, what, hint
                assert getattr(ckad.errors, ast.unparse(raised.func.value)), place
            else:
                assert raised.func.attr == "_not_float", place  # type: ignore[attr-defined]
    assert count > 50


def test_every_error_of_the_core_has_a_hint() -> None:
    # The compiler asks for the hint: Error::new gives a Refusal, which only `with_hint` makes an Error. What is left to
    # look for are exceptions and errors made past these two.
    for crate in sorted((ROOT / "rust").iterdir()):
        for file in sorted((crate / "src").rglob("*.rs")):
            text = re.sub(r"//[^\n]*", "", file.read_text(encoding="utf-8"))
            name = str(file.relative_to(ROOT / "rust"))
            bare = re.findall(r"\b(\w+)::new_err\(", text)
            # What Python itself raises on Ctrl-C has no text, and the end of a plan is caught by ckad.plan.
            allowed = {"PyKeyboardInterrupt"} if name == "python/src/errors.rs" else {"Planned"}
            assert set(bare) <= allowed, f"{name}: {bare}"
            assert name == "python/src/errors.rs" or not re.search(r"\bPyErr::new\b", text), name
            assert name == "graph/src/error.rs" or not re.search(r"(?<!enum )(?<!struct )\bError \{ kind", text), name


# NumPy's functions --------------------------------------------------------------------------------------------------


def variables() -> dict[str, Any]:
    rng = np.random.default_rng(3)
    square = rng.uniform(0.3, 1.5, (4, 4))
    return {
        "x": np.array([0.4, 1.7, -0.6, 1.1]), "y": np.array([2.0, 0.3, 1.2, -0.9]), "w": np.array([0.2, 0.5, 0.1, 0.7]),
        "z": np.array([0.5, np.nan, -1.5, 2.0]), "u": np.array([0.3, -1.2, 0.8]), "v": np.array([1.5, 0.4, -0.7]),
        "A": square + 2 * np.eye(4), "B": rng.uniform(-1.0, 1.0, (4, 4)), "T": rng.uniform(0.5, 1.5, (2, 3, 4)),
        "a": np.float64(1.3), "b": np.float64(2.2), "i": np.array([2, 0, 3, 1]), "j": np.array([[1], [0], [3], [2]]),
        "m": np.array([True, False, True, True]), "mask": np.array([True, False, True, True]),
        "g": np.array([0.0, 1.0, 2.5, 4.0]),
    }  # fmt: skip


PLAIN = {"np", "ckad", "m", "g", "mask"}


def result(program: str, values: dict[str, Any]) -> Any:
    """What a program gives: its last expression, or the array that its last line writes into."""
    names: dict[str, Any] = {"np": np, "ckad": ckad, **values}
    body = ast.parse(program).body
    last = body[-1]
    before = ast.Module(body if isinstance(last, ast.Assign) else body[:-1], [])
    exec(compile(before, program, "exec"), names)
    if isinstance(last, ast.Assign):
        return names[next(node.id for node in ast.walk(last.targets[0]) if isinstance(node, ast.Name))]
    assert isinstance(last, ast.Expr)
    value = eval(compile(ast.Expression(last.value), program, "eval"), names)
    # np.put(x, i, 0.0) writes into its first argument.
    return names[ast.unparse(last.value.args[0])] if value is None and isinstance(last.value, ast.Call) else value


def flat(value: Any) -> list[Any]:
    return [part for item in value for part in flat(item)] if isinstance(value, (list, tuple)) else [value]


def floats(values: list[Any]) -> list[Any]:
    return [v for v in values if getattr(v, "dtype", None) in (np.float64, np.float32)]


@pytest.mark.parametrize("name", ways.WAYS)
def test_the_suggested_way_computes_the_same(name: str) -> None:
    call, program = ways.WAYS[name]
    place, _, function = f"np.{name}".rpartition(".")
    assert re.search(rf"{re.escape(place)}\.{function}\(", call)
    given = variables()
    used = {n.id for n in ast.walk(ast.parse(f"{call}; {program}")) if isinstance(n, ast.Name)} & set(given)
    plain = {n: given[n] for n in used & PLAIN}
    inputs = {n: given[n] for n in used - PLAIN}
    expected = flat(result(call, {**plain, **{n: np.copy(v)[()] for n, v in inputs.items()}}))

    def traced(text: str, differentiated: dict[str, Any], others: dict[str, Any]) -> list[Any]:
        return flat(result(text, {**plain, **differentiated, **others}))

    reals = {n: v for n, v in inputs.items() if v.dtype.kind == "f"}
    others = {n: v for n, v in inputs.items() if n not in reals}
    run = ckad.value_and_grad(lambda r, o: (0.0, traced(program, r, o)), has_aux=True)
    (_, found), _ = run({**reals, "nothing": 1.0}, others)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(np.asarray(one, float), np.asarray(other, float), rtol=1e-6, atol=1e-12)
        assert np.shape(one) == np.shape(other)
    with pytest.raises(CkadError, match=FORM) as caught:
        ckad.value_and_grad(lambda r, o: (0.0, traced(call, r, o)), has_aux=True)({**reals, "nothing": 1.0}, others)
    assert f"`{program}` in place of `{call}`" in str(caught.value)
    if "z" not in used and reals and floats(expected) and name != "astype":
        numpy_program = lambda r: floats(traced(program, r, others))
        ckad.check_grads(numpy_program, (reals,), order=3 if name in ways.THIRD_ORDER else 2)


@pytest.mark.parametrize("at", [-1.0, 0.0, 0.7, 2.5, 4.0, 9.0])
def test_the_way_of_interp_everywhere_on_the_line(at: float) -> None:
    grid, values = np.array([0.0, 1.0, 2.5, 4.0]), np.array([0.4, 1.7, -0.6, 1.1])
    program = ways.WAYS["interp"][1]
    f = lambda a, g, x: result(program, {"a": a, "g": g, "x": x})
    assert f(at, grid, values) == pytest.approx(np.interp(at, grid, values))
    assert ckad.value_and_grad(f, (0, 1, 2))(at, grid, values)[0] == pytest.approx(np.interp(at, grid, values))
    points = np.array([at, 1.3])
    np.testing.assert_allclose(f(points, grid, values), np.interp(points, grid, values))
    slope = ckad.grad(f)(at, grid, values)
    assert slope == 0 if not 0 <= at <= 4 else np.isfinite(slope)
    if at in (0.7, 9.0, -1.0):
        ckad.check_grads(f, (at, grid, values))


@pytest.mark.parametrize("at", [0.0, 1e-9, 0.06, 0.064, -0.3, 2.0])
def test_the_way_of_sinc_near_its_hole(at: float) -> None:
    f = lambda x: np.sum(result(ways.WAYS["sinc"][1], {"x": x}))
    assert f(np.array(at)) == pytest.approx(np.sinc(at), rel=1e-14)
    s = np.pi * at
    small = abs(s) < 1e-4
    second = -1 / 3 + s**2 / 10 if small else (2 * np.sin(s) / s - 2 * np.cos(s) - s * np.sin(s)) / s**2
    assert ckad.grad(ckad.grad(f))(at) == pytest.approx(np.pi**2 * second, rel=1e-8)


def test_a_known_matrix_is_inverted_by_numpy() -> None:
    A, x = variables()["A"], variables()["x"]
    with pytest.raises(TracerError, match=r"`np\.linalg\.inv\(A\) @ x` where A is not differentiated"):
        ckad.vjp(lambda x: np.linalg.solve(A, x), x)
    known = lambda x, A: np.linalg.inv(A) @ x
    np.testing.assert_allclose(ckad.jacobian(known)(x, A), np.linalg.inv(A))


UNSUPPORTED = {
    name: function
    for module in (np, np.linalg, np.fft, np.lib.stride_tricks)
    for name, function in dispatched(module)
    if f"{function.__module__}.{function.__name__}".removeprefix("numpy.") not in SUPPORTED | {"array", "asarray"}
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_every_other_function_names_itself_and_a_way(name: str) -> None:
    function = UNSUPPORTED[name]
    try:
        parameters = inspect.signature(function).parameters.values()
        kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        required = [p for p in parameters if p.default is p.empty and (p.kind in kinds or p.kind is p.VAR_POSITIONAL)]
        counts = [len(required)]
    except ValueError:
        counts = [1, 2, 3]

    def call(x: Any) -> None:
        for count in counts:
            try:
                function(*[x] * count)
            except TypeError as error:
                if isinstance(error, CkadError) or count == counts[-1]:
                    raise

    with pytest.raises(CkadError, match=FORM) as caught:
        ckad.grad(call)(np.eye(3))
    assert function.__name__ in str(caught.value)
    assert caught.value.hint
    known = ways.WITHOUT_DERIVATIVE | ways.WAYS.keys()
    assert name in known or "not supported" in caught.value.hint


def test_the_ways_are_those_of_functions_that_are_not_supported() -> None:
    listed = ways.WITHOUT_DERIVATIVE | ways.WAYS.keys()
    names = {f"{f.__module__}.{f.__name__}".removeprefix("numpy.") for f in UNSUPPORTED.values()} | UNSUPPORTED.keys()
    assert sorted(listed - names) == []


# Arguments ----------------------------------------------------------------------------------------------------------

# What is refused; words of its hint; and what they lead to, "=" where that is the words themselves and NumPy takes the
# refused call.
REFUSED: list[tuple[str, str, str]] = [
    ("np.sum(x, where=mask)", "np.add.reduce(x, axis=None, where=mask)", "="),
    ("np.prod(x, where=mask)", "np.multiply.reduce(x, axis=None, where=mask)", "="),
    ("np.max(x, where=mask, initial=-np.inf)", "np.maximum.reduce(x, axis=None, where=mask, initial=-np.inf)", "="),
    ("np.min(x, where=mask, initial=np.inf)", "np.minimum.reduce(x, axis=None, where=mask, initial=np.inf)", "="),
    ("np.any(x > 1, where=mask)", "np.logical_or.reduce(x, axis=None, where=mask)",
        "np.logical_or.reduce(x > 1, axis=None, where=mask)"),
    ("np.all(x > 1, where=mask)", "np.logical_and.reduce(x, axis=None, where=mask)",
        "np.logical_and.reduce(x > 1, axis=None, where=mask)"),
    ("np.mean(x, where=mask)", "np.add.reduce(x, axis=None, where=mask) / np.sum(mask)", "="),
    ("np.var(x, where=mask)", "np.var(x[mask])", "="),
    ("np.std(x, where=mask)", "np.std(x[mask])", "="),
    ("np.diff(x, append=1.0)", "np.diff(np.concatenate([x, [1.0]]))", "="),
    ("np.diff(x, prepend=1.0)", "np.diff(np.concatenate([[1.0], x]))", "="),
    ("np.array_equal(x, y, equal_nan=True)", "np.allclose(x, y, 0, 0, equal_nan=True)", "="),
    ("np.pad(x, 1, mode='edge')", "x[np.pad(np.arange(x.size), 1, mode='edge')]", "="),
    ("np.sin(x, where=mask)", "np.where(condition, f(x), y)", "np.where(mask, np.sin(x), y)"),
    ("np.add.accumulate(x)", "np.cumsum(x, axis=0)", "="),
    ("np.multiply.accumulate(x)", "np.cumprod(x, axis=0)", "="),
    ("x.argpartition(2)[2]", "np.argsort(x)[2]", "="),
    ("x.partition(2)", "np.sort(x)[2]", "np.sort(x)[2]"),
    ("x.searchsorted(1.0)", "np.asarray(ckad.stop_gradient(x)).searchsorted",
        "np.asarray(ckad.stop_gradient(x)).searchsorted(1.0)"),
    ("x.sqrt()", "np.sqrt(x)", "np.sqrt(x)"),
    ("x.flat", "x.ravel()", "x.ravel()"),
    ("x.meen()", "x.mean", "x.mean()"),
    ("np.array(x, like=x, ndmin=2)", "np.array(x, like=x)[None]", "="),
    ("x.reshape(2, 2, copy=True)", "x.copy().reshape", "x.copy().reshape(2, 2)"),
    ("x.tobytes()", "np.asarray(ckad.stop_gradient(x)).tobytes", "np.asarray(ckad.stop_gradient(x)).tobytes()"),
    ("np.asarray(x)", "ckad.stop_gradient(x)", "np.asarray(ckad.stop_gradient(x))"),
    ("A.reshape(4, 4, 2)", "may be -1", "A.reshape(4, 2, -1)"),
    ("A.transpose(0)", "x.T", "A.T"),
    ("A.transpose(0, 0)", "x.T", "A.T"),
    ("A.squeeze(0)", "leave axis= out", "A[0]"),
    ("A.sum(axis=2)", "its axes are 0 to 1, or -2 to -1", "A.sum(axis=-2)"),
    ("np.sum(A, axis=2)", "its axes are 0 to 1, or -2 to -1", "np.sum(A, axis=1)"),
    ("np.sum(A, axis=(0, 0))", "name each axis once", "np.sum(A, axis=(0, 1))"),
    ("np.sum(x, axis=1)", "axis", "np.sum(x, axis=-1)"),
    ("np.sum(a, axis=1)", "leave axis", "np.sum(a)"),
    ("np.moveaxis(T, 3, 0)", "its axes are 0 to 2", "np.moveaxis(T, 2, 0)"),
    ("np.moveaxis(T, [0, 1], [0])", "its new place", "np.moveaxis(T, [0, 1], [0, 2])"),
    ("x.mT", "x.T", "x[:, None].mT"),
    ("x.diagonal()", "np.diag(x)", "np.diag(x)"),
    ("np.diagonal(x)", "np.diag(x)", "np.diag(x)"),
    ("A.diagonal(0, 1, 1)", "two axes", "A.diagonal(0, 1, 0)"),
    ("np.diag(T)", "np.diagonal", "np.diagonal(T)"),
    ("x.fill('a')", "x[...]", "x.__setitem__(..., [1.0, 2.0, 3.0, 4.0])"),
    ("x.astype(np.float32, casting='safe')", "leave casting= out", "x.astype(np.float32)"),
    ("x.reshape(2, 2, order='K')", "'C', 'F' or 'A'", "x.reshape(2, 2, order='A')"),
    ("x.copy(order='Z')", "order='C'", "x.copy(order='C')"),
    ("len(a)", "x.size", "a.size"),
    ("list(a)", "x.reshape(1)", "list(a.reshape(1))"),
    ("bool(x)", "x.any() or x.all()", "x.any() or x.all()"),
    ("int(x)", "np.sum(x)", "int(np.sum(x))"),
    ("[1, 2][x]", "int(x)", "np.asarray([1, 2])[i // 3]"),
    ("__import__('pickle').dumps(x)", "np.asarray(ckad.stop_gradient(x))",
        "__import__('pickle').dumps(np.asarray(ckad.stop_gradient(x)))"),
    ("setattr(x, 'shape', (2, 2))", "x = x.reshape(shape)", "x.reshape(2, 2)"),
    ("x.flags['X']", "'WRITEABLE'", "x.flags['WRITEABLE']"),
    ("x.sum(out=np.zeros(()))", "out = x.sum(…)", "np.zeros((), like=x).__setitem__(..., x.sum())"),
    ("np.sum(x, out=np.zeros(()))", "np.zeros(shape, like=x)", "np.zeros((), like=x).__setitem__(..., np.sum(x))"),
    ("np.cumsum(x, out=np.zeros(4))", "np.zeros(shape, like=x)", "np.cumsum(x)"),
    ("np.argsort(x, order='f')", "leave order= out", "np.argsort(x)"),
    ("np.zeros_like(x, subok=False)", "leave subok= out", "np.zeros_like(x)"),
    ("np.zeros(3, device='cpu', like=x)", "leave device= out", "np.zeros(3, like=x)"),
    ("np.clip(x, 0.0, 1.0, casting='unsafe')", "leave casting= out", "np.clip(x, 0.0, 1.0)"),
    ("np.einsum('i,i', x, y, casting='unsafe')", "leave casting= out", "np.einsum('i,i', x, y)"),
    ("np.stack([x, y], casting='no')", "np.stack([x.astype(np.float32)", "np.stack([x.astype(np.float32), y])"),
    ("np.concatenate([x, y], casting='no')", "x.astype", "np.concatenate([x.astype(np.float32), y])"),
    ("np.concatenate([a, b])", "np.stack", "np.stack([a, b])"),
    ("np.concatenate([A, x])", "np.stack", "np.concatenate([A, x[None]])"),
    ("np.stack([A, x])", "np.concatenate", "np.stack([A, np.broadcast_to(x, (4, 4))])"),
    ("np.where(x > 1, x)", "np.where(condition, x, 0.0)", "np.where(x > 1, x, 0.0)"),
    ("np.broadcast_to(x, (3,))", "x[:, None]", "np.broadcast_to(x[:, None], (4, 3))"),
    ("np.einsum([0, 1], x)", "np.einsum('ij,jk->ik', a, b)", "np.einsum('ij,jk->ik', A, B)"),
    ("np.einsum('ij', x)", "letter an axis", "np.einsum('i', x)"),
    ("np.einsum('i,i', x)", "one term an operand", "np.einsum('ij,jk->ik', A, B)"),
    ("np.einsum('ij->ik', A)", "as it stands in the inputs", "np.einsum('ij->ji', A)"),
    ("np.einsum('ij,jk', A, u[:, None])", "`.T`", "np.einsum('ij,jk', A, T[0].T)"),
    ("np.tensordot(A, B, axes=([0], [0, 1]))", "axes=([1, 0], [0, 1])", "np.tensordot(A, B, axes=([1, 0], [0, 1]))"),
    ("np.broadcast_arrays(A, u)", "x[:, None]", "np.broadcast_arrays(A, x[:, None])"),
    ("np.repeat(x, [1, 2])", "one for each element", "np.repeat(x, [1, 2, 0, 1])"),
    ("np.subtract.reduce(T, axis=(0, 1))", "axis=0", "np.subtract.reduce(T, axis=0)"),
    ("np.hypot.reduce(T, axis=3)", "its axes are 0 to 2", "np.hypot.reduce(T, axis=2)"),
    ("np.bitwise_and.reduce(x)", "astype", "np.bitwise_and.reduce(x.astype(int))"),
    ("np.isnat(x)", "np.isnan(x)", "np.isnan(x)"),
    ("np.frompyfunc(abs, 1, 1)(x)", "np.asarray(ckad.stop_gradient(x))", "np.abs(x)"),
    ("np.dot(A, u)", "equal lengths", "np.dot(A, x)"),
    ("A @ u", "last axis of the first must equal", "T[0] @ T[1].T"),
    ("np.matvec(x, x)", "np.vecdot", "np.vecdot(x, x)"),
    ("np.linalg.norm(A, 2)", "'fro'", "np.linalg.norm(A, 'fro')"),
    ("np.linalg.norm(x, 'fro')", "inf", "np.linalg.norm(x, np.inf)"),
    ("np.linalg.norm(T, 1, axis=(0, 1, 2))", "axis=", "np.linalg.norm(T, 1, axis=(0, 1))"),
    ("np.linalg.norm(A, 1, axis=(1, 1))", "two different axes", "np.linalg.norm(A, 1, axis=(1, 0))"),
    ("np.max(x[:0])", "initial=", "np.max(x[:0], initial=0.0)"),
    ("x[:0].max()", "x.size", "x[:0].max() if x[:0].size else 0.0"),
    ("np.argmax(x[:0])", "x.size", "np.argmax(x) if x.size else 0"),
    ("x[9]", "go from -4 to 3", "x[3]"),
    ("x.nothing_like_it", "ndarray has none", ""),
    ("np.broadcast_to(x, (2, 4)).__setitem__(0, 1.0)", "x.copy()",
        "np.broadcast_to(x, (2, 4)).copy().__setitem__(0, 1.0)"),
    ("np.pad(x, 1.5)", "pad_width=1", "np.pad(x, pad_width=1)"),
    ("np.pad(x, -1)", "x[1:-1]", "x[1:-1]"),
    ("np.pad(x, ((1, 1), (1, 1)))", "one pair", "np.pad(x, (1, 1))"),
    ("np.pad(x, 1, constant_values=[1, 2, 3])", "one pair", "np.pad(x, 1, constant_values=[1, 2])"),
    ("np.reshape(x, 2.0)", "int(n)", "np.reshape(x, (int(2.0), 2))"),
    ("x.reshape('a')", "a tuple of them", "x.reshape((2, 2))"),
    ("x.reshape(4.0, 1)", "whole numbers", "x.reshape(4, 1)"),
    ("x.reshape(n for n in (2, 2))", "a tuple of them", "x.reshape((2, 2))"),
    ("x.swapaxes('a', 0)", "whole numbers", "x.swapaxes(0, 0)"),
    ("A.diagonal('a')", "whole numbers", "A.diagonal(1)"),
    ("x.ravel(3)", "order='C'", "x.ravel(order='C')"),
    ("x.astype('foo')", "float64", "x.astype('float64')"),
    ("np.sum(A, axis=[0])", "axis=(0, 1)", "np.sum(A, axis=(0,))"),
    ("np.cumsum(x, axis='a')", "int(n)", "np.cumsum(x, axis=0)"),
    ("np.sum(x, initial=[1, 2])", "one number", "np.sum(x, initial=1.0)"),
    ("np.max(x, initial='a')", "one number", "np.max(x, initial=1.0)"),
    ("np.triu(a)", "x.reshape(1)", "np.triu(a.reshape(1))"),
    ("np.tril(A, 'a')", "k=1", "np.tril(A, k=1)"),
    ("np.tile(x, 1.5)", "int(n)", "np.tile(x, int(1.5))"),
    ("np.tile(x, -1)", "0 or more", "np.tile(x, 0)"),
    ("np.diff(x, -1)", "np.cumsum", "np.cumsum(x)"),
    ("np.broadcast_to(x, (-1, 4))", "whole shape", "np.broadcast_to(x, (1, 4))"),
    ("np.take_along_axis(x, j, None)", "x.ravel()[indices]", "x.ravel()[j]"),
    ("np.take_along_axis(x, j, 0)", "indices[:, None]", "np.take_along_axis(x[:, None], j, 0)"),
    ("delattr(x, 'T')", "del x", "x.T"),
    ("np.pad(i, 1, constant_values=a)", "of a float dtype", "np.pad(i.astype(float), 1, constant_values=a)"),
]  # fmt: skip


# Here the hint leads elsewhere than to what NumPy computes.
ANOTHER_THING = {
    "np.sin(x, where=mask)",  # NumPy's has what lay in memory where the mask is False
    "x.flags['X']",
    "x.sum(out=np.zeros(()))",
    "np.sum(x, out=np.zeros(()))",  # the result is in the array, and not the value of the expression
    "np.linalg.norm(A, 2)",
    "np.pad(i, 1, constant_values=a)",  # NumPy truncates the constant
}


@pytest.mark.parametrize(("refused", "words", "program"), REFUSED, ids=[row[0] for row in REFUSED])
def test_a_refusal_says_what_works(refused: str, words: str, program: str) -> None:
    given = variables()
    reals = {n: v for n, v in given.items() if v.dtype.kind == "f"}
    others = {n: v for n, v in given.items() if v.dtype.kind == "i"}
    constants = {"np": np, "ckad": ckad, "mask": given["mask"]}

    def run(text: str) -> Any:
        f = lambda reals, others: (0.0, eval(text, {**constants, **reals, **others}))
        return ckad.value_and_grad(f, has_aux=True)(reals, others)[0][1]

    with pytest.raises((TypeError, ValueError, IndexError, AttributeError, KeyError, CkadError)) as caught:
        run(refused)
    text = str(caught.value.args[0])
    assert FORM.match(text)
    assert words in text.split(". Hint: ")[1]
    if program:
        found = run(words if program == "=" else program)
        if refused in ANOTHER_THING:
            return
        try:
            expected = eval(refused, {**constants, **variables()})
        except (TypeError, ValueError, IndexError, AttributeError, KeyError, RuntimeError):
            assert program != "="
        else:
            compared = isinstance(expected, (np.ndarray, np.generic, bool))
            assert compared or program != "="
            if compared:
                np.testing.assert_allclose(found, np.asarray(expected, np.result_type(found)), rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "op"),
    [
        ("np.sum(x, axis=3)", "sum"),
        ("x.sum(axis=3)", "sum"),
        ("np.mean(x, axis=3)", "mean"),
        ("np.std(x, axis=3)", "std"),
        ("np.prod(x, axis=(0, 3))", "prod"),
        ("np.argmax(x, axis=3)", "argmax"),
        ("x.cumsum(axis=3)", "cumsum"),
        ("np.squeeze(x, axis=3)", "squeeze"),
        ("np.add.reduce(x, axis=3)", "add.reduce"),
        ("np.hypot.reduce(x, axis=3)", "hypot.reduce"),
        ("np.swapaxes(x, 3, 0)", "swapaxes"),
        ("np.transpose(x, [3])", "transpose"),
        ("np.moveaxis(x, 3, 0)", "moveaxis"),
        ("np.flip(x, 3)", "flip"),
        ("np.roll(x, 1, 3)", "roll"),
        ("np.sort(x, 3)", "sort"),
        ("np.take(x, 0, 3)", "take"),
        ("np.concatenate([x, x], 3)", "concatenate"),
        ("np.stack([x, x], 3)", "stack"),
        ("np.linalg.norm(x, axis=(0, 3))", "norm"),
    ],
)
def test_a_wrong_axis_names_the_function_and_the_shape(call: str, op: str) -> None:
    x = np.ones(4)
    with pytest.raises(np.exceptions.AxisError) as numpys:
        eval(call, {"np": np, "x": x})
    with pytest.raises(np.exceptions.AxisError, match=FORM) as caught:
        ckad.grad(lambda x: eval(call, {"np": np, "x": x}))(x)
    assert str(caught.value).startswith(f"[{op}] axis 3 is out of bounds for array of dimension ")
    assert str(numpys.value).split(": ")[-1] in str(caught.value)
    assert "shape (4,)" in str(caught.value)


def test_what_is_raised_while_a_hint_is_sought_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_arguments: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(ways, "_near", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ckad.grad(lambda x: x.a_name_that_nobody_asked_for_before)(1.0)
