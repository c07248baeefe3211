"""The recorded graph as text and as a drawing."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckad


def f(x: Any, w: Any) -> Any:
    return np.sum(np.tanh(x @ w) ** 2)


def graph() -> ckad.transforms.inspection.Graph:
    return ckad.trace(f)(np.ones((3, 4)), np.ones((4, 2)))


def test_the_text_has_a_line_per_node() -> None:
    *lines, last = str(graph()).splitlines()
    assert len(lines) == len(graph())
    (product,) = [line for line in lines if " dot(" in line]
    assert re.search(r"^%2 = dot\(%0, %1\) .* float64\(3, 2\) .*test_inspection\.py:\d+$", product)
    assert last == "return %5"


def test_dot_has_every_node_and_edge() -> None:
    dot = graph().to_dot()
    assert dot.startswith("digraph ")
    assert dot.rstrip().endswith("}")
    nodes = re.findall(r"^  (n\d+) \[label=\"(.*)\"", dot, re.MULTILINE)
    edges = re.findall(r"^  (n\d+) -> (n\d+);", dot, re.MULTILINE)
    assert len(nodes) == len(graph())
    names = {name for name, _ in nodes}
    assert {end for edge in edges for end in edge} <= names
    assert any("tanh" in label and "test_inspection.py" in label for _, label in nodes)


def loops(x: Any) -> Any:
    def step(c: Any, a: Any) -> Any:
        return ckad.cond(c[0] > a, np.sin, np.cos, c), a * 2

    y, doubled = ckad.scan(step, x, np.arange(3.0))
    return y, doubled


def test_bodies_are_shown_below_their_loops() -> None:
    seen = ckad.trace(loops)(np.ones(4))
    text = str(seen).splitlines()
    (scan,) = [index for index, line in enumerate(text) if " = scan(" in line]
    assert re.search(r"^%\d+ = scan\(.*\) trips=3 +# .*test_inspection\.py:\d+$", text[scan])
    assert text[scan + 1] == "  iteration:"
    (cond,) = [index for index, line in enumerate(text) if " = cond(" in line]
    assert cond > scan + 1
    assert text[cond].startswith("    %")
    assert "float64" not in text[cond]
    assert text[cond + 1] == "      if false:"
    assert "      if true:" in text
    for name, number in (("sin", 1), ("cos", 1)):
        inner = [line for line in text if f" = {name}(" in line]
        assert len(inner) == number
        assert re.match(r" {8}%\d+ = .*float64\(4,\) .*test_inspection\.py", inner[0])
    returns = [len(line) - len(line.lstrip()) for line in text if line.lstrip().startswith("return ")]
    assert returns == [8, 8, 4, 0]
    dot = seen.to_dot()
    assert dot.count("subgraph cluster_") == 3
    assert dot.count("{") == dot.count("}")
    names = re.findall(r"^ +(\w+) \[label=", dot, re.MULTILINE)
    assert len(names) == len(set(names)) == sum(" = " in line for line in text)
    ends = re.findall(r"^ +(\w+) -> (\w+)", dot, re.MULTILINE)
    assert {end for edge in ends for end in edge} <= set(names)


def test_loops_and_rules_have_their_names() -> None:
    @ckad.custom_vjp
    def rule(x: Any) -> Any:
        return np.sin(x)

    rule.defvjp(lambda x: (np.sin(x), x), lambda x, g: (g * 2,))

    def f(x: Any) -> Any:
        return ckad.while_loop(lambda c: c[0] < 3, lambda c: rule(c) + c + 1, x)

    text = str(ckad.trace(ckad.jit(f))(np.ones(2)))
    assert " = while_loop(" in text
    assert "  test:" in text
    assert "  iteration:" in text
    assert " = call(" not in text


def test_without_graphviz_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for draw in (graph().to_svg, graph()._repr_svg_):
        with pytest.raises(RuntimeError, match=r"Graphviz.*Hint: install Graphviz, or use print\(graph\) or to_dot"):
            draw()


def stand_in(folder: Path, script: str) -> None:
    """A program called `dot`."""
    program = folder / "dot"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_graphviz_draws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    stand_in(tmp_path, """test "$1" = -Tsvg && printf '<svg>' && cat && printf '</svg>'""")
    drawn = graph()
    assert drawn.to_svg() == drawn._repr_svg_() == f"<svg>{drawn.to_dot()}</svg>"

    def long(x: Any) -> Any:
        for _ in range(3000):
            x = np.sin(x)
        return x

    # More than a pipe holds, in both directions.
    assert len(ckad.trace(long)(1.0).to_svg()) > 1 << 17
    # A program that fails, and one that does not care for what it is given.
    stand_in(tmp_path, "cat > /dev/null; exit 3")
    with pytest.raises(RuntimeError, match="dot ended with"):
        drawn.to_svg()
