"""The documents: their Python runs, and their lines are not too long."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckad
from ckad import nn, random

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])
# What is shown and not run says so by its language.
SHOWN = {"diff", "text", "sh"}


def blocks_of(path: Path) -> list[tuple[str, int, str]]:
    """Language, first line and text of each fenced block."""
    found = re.finditer(r"^```(.*?)\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL)
    text = path.read_text()
    return [(block[1], text[: block.start(2)].count("\n"), block[2]) for block in found]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_python_in_documents_runs(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The blocks of one document share their names, from first to last."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    for language, line, text in blocks_of(path):
        assert language in {"python", *SHOWN}, f"{path.name}:{line}: a block in {language!r} is neither run nor shown"
        if language == "python":
            # Empty lines in front, so that an error names the document's own line.
            exec(compile("\n" * line + text, str(path), "exec"), names)


def test_the_table_of_dropout_is_counted() -> None:
    path = ROOT / "docs" / "random.md"
    rows = re.findall(r'^\| `"(\w+)"` \| ([\d.]+) MiB \| ([\d.]+) % \|$', path.read_text(), re.MULTILINE)
    assert [policy for policy, *_ in rows] == ["none", "auto", "sqrt"]
    (program,) = (text for _, _, text in blocks_of(path) if "nn.Dropout" in text)
    names: dict[str, Any] = {"np": np, "ckad": ckad, "nn": nn, "random": random, "key": random.key(0)}
    exec(program, names)
    for policy, mebibytes, percent in rows:
        plan = ckad.plan(ckad.grad(names["loss"], checkpoint=policy))(names["params"], names["batch"], names["key"])
        assert f"{plan.peak_bytes / 2**20:.0f}" == mebibytes, policy
        assert float(f"{100 * plan.extra_flops / names['everything'].flops:.1f}") == float(percent), policy


def test_there_are_blocks_that_run() -> None:
    assert any(language == "python" for path in DOCUMENTS for language, _, _ in blocks_of(path))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_lines_are_short(path: Path) -> None:
    for number, line in enumerate(path.read_text().splitlines(), 1):
        # A row of a table cannot be broken.
        assert len(line) <= 120 or line.startswith("|"), f"{path.name}:{number} has {len(line)} columns"


def test_lines_of_rust_are_short() -> None:
    # rustfmt leaves comments and long texts as they are.
    for path in sorted((ROOT / "rust").rglob("*.rs")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            assert len(line) <= 120, f"{path.relative_to(ROOT)}:{number} has {len(line)} columns"
