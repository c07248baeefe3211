"""What is said in two places agrees: tables, NumPy and pages; the stub and the module; the pages and the files."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

import ckad
from ckad import _core

TABLE = _core.elementwise_table()
ROOT = Path(__file__).parent.parent


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def test_every_primitive_is_documented_and_every_documented_one_exists() -> None:
    elementwise, structural = (
        re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
        for section in read("docs/primitives.md").split("\n## Structural\n")
    )
    assert elementwise == [row["name"] for row in TABLE]
    # The files that have samples: those which dispatch knows, leaves aside.
    (sampled,) = re.findall(r"let structural = \[(.*?)\];", read("rust/prim/src/sample.rs"), re.DOTALL)
    assert {"reduce", "arg_reduce", *re.findall(r"(\w+)::samples", sampled)} == set(structural)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row["name"])
def test_every_row_has_all_its_fields(row: dict[str, object]) -> None:
    assert row["doc"]
    assert row["cost"]
    assert row["wgsl"]
    assert row["dtypes"]
    assert len(row["sample"]) == row["arity"]  # type: ignore[arg-type]
    assert not row["numpy"] or hasattr(np, str(row["numpy"]))


@pytest.mark.parametrize("ufunc", sorted(name for name in dir(np) if isinstance(getattr(np, name), np.ufunc)))
def test_every_ufunc_is_recorded_or_refused_by_name(ufunc: str) -> None:
    function = getattr(np, ufunc)

    def f(x: object) -> object:
        square = np.stack([x, x])  # type: ignore[list-item]
        stacked = {"vecmat": [x, square], "matvec": [square, x]}
        operands = stacked.get(ufunc, [x, x + 0.5][: function.nin])  # type: ignore[operator]
        result = function(*operands)
        first = result[0] if isinstance(result, tuple) else result
        return np.sum(first.astype(np.float64))

    refusal = ""
    try:
        # Every function is defined on one of the two sides of 1.
        below, above = (ckad.value_and_grad(f)(point) for point in (np.array([0.3, 0.6]), np.array([1.3, 1.6])))
    except (TypeError, ckad.CkadError) as error:
        refusal = str(error)
    if refusal:
        assert ufunc in refusal or function.__name__ in refusal
    else:
        value, gradient = below if np.isfinite(below[0]) else above
        assert np.isfinite(value)
        assert np.shape(gradient) == (2,)


def names_in(body: list[ast.stmt]) -> set[str]:
    """The public names that a module or class of the stub declares."""
    functions = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    variables = {
        node.target.id for node in body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    return {name for name in functions | variables if not name.startswith("_")}


def test_the_stub_declares_what_the_core_registers() -> None:
    stub = ast.parse(read("python/ckad/_core.pyi"))
    public = lambda thing: {name for name in dir(thing) if not name.startswith("_")}
    assert names_in(stub.body) == public(_core)
    for node in stub.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            registered = getattr(_core, node.name)
            own = public(registered) - public(BaseException) if node.name == "Planned" else public(registered)
            # A traced value has ndarray's methods too, which the stub leaves to __getattr__.
            missing = own - names_in(node.body) if node.name != "Tracer" else set()
            assert missing == names_in(node.body) - own == set(), node.name


def test_crates_depend_downwards() -> None:
    users: dict[str, set[str]] = {}
    for height, crate in enumerate(CRATES):
        manifest = tomllib.loads(read(f"rust/{crate}/Cargo.toml"))
        tables = [manifest, *manifest.get("target", {}).values()]
        for name in {name for table in tables for name in table.get("dependencies", {})}:
            users.setdefault(name, set()).add(crate)
            if name.startswith("ckad-"):
                assert CRATES.index(name.removeprefix("ckad-")) < height, f"{crate} uses {name}"
    assert {f"rust/{crate}" for crate in CRATES} == set(tomllib.loads(read("Cargo.toml"))["workspace"]["members"])
    assert users["pyo3"] == users["numpy"] == {"python"}
    assert users["private-gemm-x86"] == users["gemm"] == {"cpu"}


def rust_files(*crates: str) -> dict[str, str]:
    """Sources of crates without their tests: path → text without comments."""
    found = {}
    for crate in crates:
        for path in (ROOT / "rust" / crate / "src").rglob("*.rs"):
            if "test" not in path.stem:
                text = path.read_text(encoding="utf-8").split("\n#[cfg(test)]\nmod tests {")[0]
                found[str(path.relative_to(ROOT))] = re.sub(r"//[^\n]*", "", text)
    assert found
    return found


CRATES = ["graph", "prim", "transform", "plan", "cpu", "run", "python"]


def test_only_one_crate_knows_python_and_only_one_folder_the_matrix_library() -> None:
    for path, text in rust_files(*CRATES).items():
        assert path.startswith("rust/python/") or not re.search(r"\b(pyo3|numpy)::", text), path
        in_library = path.startswith("rust/cpu/src/matmul/library")
        assert in_library or not re.search(r"\b(private_gemm_x86|gemm)::", text), path


def test_derivative_rules_are_written_in_primitives() -> None:
    # A rule has nodes and no elements: nothing that these crates may use could run a kernel or touch an array.
    for path, text in rust_files("graph", "prim", "transform").items():
        assert not re.search(r"\bckad_(plan|cpu|run)\b", text), path
        assert "unsafe" not in text, path


def test_schedules_and_programs_are_data() -> None:
    for path in ("rust/plan/src/schedule.rs", "rust/plan/src/program.rs"):
        text = rust_files("plan")[path]
        # Schedules of one graph share its clusters, and programs the bodies of loops: plain data, too.
        owned = text.replace("use std::sync::Arc;", "")
        for shared in ("Arc<Clustering>", "Arc<Body>", "Box<LoopKernel>"):
            owned = owned.replace(shared, "")
        assert not re.search(r"\b(dyn|Box|Rc|Arc|Cell|RefCell|Mutex|impl Fn\w*|unsafe)\b", owned), path
        # The three functions are the target's, not the program's.
        assert len(re.findall(r":\s*fn\(", text)) == 3 * path.endswith("program.rs")
        types = re.findall(r"((?:#\[[^\n]*\n)+)pub (?:struct|enum) (\w+)", text)
        assert types
        for attributes, name in types:
            derived = ", ".join(re.findall(r"derive\(([^)]*)\)", attributes))
            assert {"Clone", "Debug"} <= set(derived.split(", ")), name
            assert name == "Target" or "PartialEq" in derived, name


def test_only_the_planner_decides_what_is_kept() -> None:
    for path, text in rust_files(*CRATES).items():
        if not path.startswith("rust/plan/"):
            assert not re.search(r"\b(Schedule|Action)\b|ckad_plan::(schedule|simulate)", text), path


def test_only_the_run_allocates_arrays() -> None:
    allocating = r"\b(alloc|realloc|alloc_zeroed|mmap|malloc)\(|Layout::from_size_align|PyArray\w*::(zeros|new)\b"
    for path, text in rust_files(*CRATES).items():
        assert path.startswith("rust/run/src/") or not re.search(allocating, text), path


def test_the_guards_of_the_invariants_exist() -> None:
    rows = [line for line in read("docs/design.md").split("\n## What always holds\n")[1].splitlines() if "::" in line]
    assert len(rows) > 10
    for row in rows:
        file = ""
        for name in re.findall(r"`([\w/.:]+)`", row.split("|")[2]):
            path, _, test = name.rpartition("::")
            file = path or file
            assert re.search(rf"\b(?:def|fn) {test}\b", read(file)), f"{file} has no {test}"


def test_add_a_primitive_is_shown_as_it_was_done() -> None:
    (diff,) = re.findall(r"```diff\n(.*?)```", read("CONTRIBUTING.md"), re.DOTALL)
    hunks = re.findall(r"^\+\+\+ b/(.*)\n@@\n((?:(?!---).*\n)*)", diff, re.MULTILINE)
    assert len(hunks) == diff.count("+++ b/") == 5
    for path, hunk in hunks:
        after = "".join(line[1:] + "\n" for line in hunk.splitlines() if not line.startswith("-"))
        assert after in read(path), f"{path} does not contain\n{after}"


def test_every_environment_variable_is_documented() -> None:
    def named(*files: Path) -> set[str]:
        return {name for file in files for name in re.findall(r"\bCKAD_[A-Z][A-Z_]*\b", file.read_text())}

    sources = [*(ROOT / "rust").rglob("*.rs"), *(ROOT / "python").rglob("*.py")]
    rows = set(re.findall(r"^\| `(CKAD_\w+)` \|", read("docs/guide.md"), re.MULTILINE))
    assert rows == named(*sources)
    assert len(rows) > 2
    # What only the tests and tools read is for those who work on ckad.
    others = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "tools").rglob("*.py"), *(ROOT / "benches").rglob("*.py")]
    assert named(*others) - rows <= named(ROOT / "CONTRIBUTING.md")
