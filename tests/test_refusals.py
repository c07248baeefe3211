"""Every refusal says `[op] what is wrong. Hint: what to do.`, and the hint works."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import ckad
from ckad.errors import CkadError
from ckad.numpy import keywords, ways
from ckad.numpy.registry import SUPPORTED

ROOT = Path(__file__).parent.parent
FORM = re.compile(r"^\[[\w.]+\] .+\. Hint: .+", re.DOTALL)


# The sources --------------------------------------------------------------------------------------------------------

RAISED_OTHERWISE = {
    # check_grads reports as tests do: what it compares is no refusal, and np.testing raises the other half of it.
    ("transforms/checking.py", "AssertionError"),
}


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
        "m": np.array([True, False, True, True]), "g": np.array([0.0, 1.0, 2.5, 4.0]),
    }  # fmt: skip


PLAIN = {"np", "ckad", "m", "g"}


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
        ckad.check_grads(numpy_program, (reals,), order=1 if name in ways.FIRST_ORDER else 2, modes=("reverse",))


def dispatched(module: ModuleType) -> Iterator[tuple[str, Any]]:
    for name in dir(module):
        function = getattr(module, name)
        if hasattr(function, "_implementation") and not name.startswith("_"):
            yield f"{module.__name__}.{name}".removeprefix("numpy."), function


UNSUPPORTED = {
    name: function
    for module in (np, np.linalg, np.fft)
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
