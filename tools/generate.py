"""Writes the generated parts of the repository anew; with --check, only says whether they are up to date.

A generated part is either a whole file or the lines between two markers of a file. Each has one source, so that nothing
is written down twice.
"""

from __future__ import annotations

import ast
import itertools
import json
import math
import re
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benches" / "results.json"
SCALING = ROOT / "benches" / "scaling.json"
FLOORS = ROOT / "benches" / "floors.json"
OVERHEADS = ROOT / "benches" / "overheads.json"
FRONTIERS = ROOT / "benches" / "frontiers.json"
AGAINST_TORCH = ROOT / "benches" / "against_torch.json"
PLANNING = ROOT / "benches" / "planning.json"

WORKLOADS = ROOT / "benches" / "workloads.py"
FRONTIER_PROGRAMS = [WORKLOADS, ROOT / "benches" / "planned_programs.py"]

COLUMNS = """\
Each line is measured in processes of its own, in turn with the others, all with the same number of threads. *First
call*: the first call of a process, which for ckad and JAX includes planning or compiling; the fastest of the processes.
*Fastest* and *median*: of the calls after it, so a first call can be the quicker one. *Extra memory*: by how much the
high-water mark of the resident set grew, during all calls, above the resident set before the first; the least of the
processes. It holds whatever the process keeps, an allocator's free memory too."""
"""What the columns of the table are (`benches/worker.py` measures, `benches/compare.py` summarises)."""


def benchmark_table() -> str:
    """The README's table, from what `make bench-results` has measured."""
    if not RESULTS.exists():
        return "Not measured yet: `make bench-results` fills this in.\n"
    measured = json.loads(RESULTS.read_text())
    results = measured["results"]
    lines = [
        "| workload | library | first call | fastest | median | extra memory |",
        "|---|---|--:|--:|--:|--:|",
    ]
    lines += [_benchmark_row(result) for result in results]
    lines += ["", COLUMNS, "", _wrapped(_machine_text(measured["machine"], results)), ""]
    programs = _programs(WORKLOADS)
    for name in dict.fromkeys(result["workload"] for result in results):
        doc, sizes = programs[name]
        text = f"* `{name}` ({', '.join(f'{size}={number:,}' for size, number in sizes.items())}): {doc}"
        if name == "record":
            ours = next(result for result in results if result["workload"] == name)
            text += f" Here: {1e6 * ours['min'] / sizes['ops']:.2f} µs an operation."
        lines.append(_wrapped(text, "  "))
    return "\n".join(lines) + "\n"


def _programs(source: Path) -> dict[str, tuple[str, dict[str, int]]]:
    """Program → what it is and its sizes, as its function has them; the other libraries need not be here."""
    found = {}
    for node in ast.parse(source.read_text()).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            names = [argument.arg for argument in node.args.args][1:]
            sizes = [ast.literal_eval(default) for default in node.args.defaults]
            if len(names) != len(sizes):
                continue
            doc = " ".join((ast.get_docstring(node) or "").split())
            found[node.name] = (doc, dict(zip(names, sizes, strict=True)))
    return found


def _machine_text(machine: dict[str, Any], results: list[dict[str, Any]]) -> str:
    """What was measured on, with which versions; older results say less."""
    cpu = f"Measured on {machine['cpu']}"
    if machine.get("model"):
        cpu += f" ({machine['model']})"
    parts = [cpu, f"{machine['threads']} threads"]
    if "cores" in machine:
        parts[1] += f" on {machine['cores']} cores"
    widest = {"avx512f": "AVX-512", "avx2": "AVX2"}
    parts += [name for flag, name in widest.items() if flag in machine.get("isa", ())][:1]
    caches = machine.get("caches", {})
    parts += [f"{level} {_cache_size(caches[level])}" for level in ("L2", "L3") if level in caches]
    if machine.get("rounds", 1) > 1:
        parts.append(f"{machine['rounds']} processes a line")
    parts.append(f"Python {machine['python']}")
    versions: dict[str, list[str]] = {}
    for result in results:
        for name, version in result.get("versions", {}).items():
            if version not in versions.setdefault(name, []):
                versions[name].append(version)
    names = {"numpy": "NumPy", "torch": "PyTorch", "jax": "JAX"}
    parts += [f"{names.get(name, name)} {' and '.join(found)}" for name, found in versions.items()]
    return ", ".join(parts) + "."


def _cache_size(text: str) -> str:
    """`2048K`, as the kernel writes it, in MiB where it is some."""
    kibibytes = int(text.removesuffix("K"))
    return f"{kibibytes // 1024} MiB" if kibibytes % 1024 == 0 else f"{kibibytes} KiB"


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(text, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _benchmark_row(result: dict[str, Any]) -> str:
    times = " | ".join(_seconds(result[key]) for key in ("first", "min", "median"))
    return f"| {result['workload']} | {result['library']} | {times} | {result['peak_mib']:.0f} MiB |"


def scaling_tables() -> str:
    """The numbers of the figure in docs/performance.md, from what `make scaling` has measured."""
    measured = json.loads(SCALING.read_text())
    lines = [
        "| operations | record | derive | plan and lower | run | first call | later call | extra memory |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for graph in measured["graphs"]:
        stages = [1e6 * graph[stage] / graph["operations"] for stage in ("record", "derive", "plan", "run")]
        calls = [1e6 * graph[call] / graph["operations"] for call in ("first", "later")]
        times = " | ".join(f"{time:.3g}" for time in stages + calls)
        lines.append(f"| {graph['operations']:,} | {times} | {graph['peak_mib']:,.0f} MiB |")
    lines += ["", "µs a recorded operation.", "", "| elements | a call | ns an element |", "|--:|--:|--:|"]
    for array in measured["arrays"]:
        each = 1e9 * array["later"] / array["elements"]
        lines.append(f"| {array['elements']:,} | {_seconds(array['later'])} | {each:.3g} |")
    return "\n".join([*lines, "", _wrapped(_machine_text(measured["machine"], []))]) + "\n"


def floors_table() -> str:
    """What the machine allows, beside what was measured."""
    floors = json.loads(FLOORS.read_text())
    fastest = {
        (found["workload"], found["library"]): found["min"] for found in json.loads(RESULTS.read_text())["results"]
    }
    lines = [
        "| workload | flops | at peak | bytes | at bandwidth | measured | × floor |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for workload in floors["workloads"]:
        library = ":".join(filter(None, ["ckad", workload["variant"]]))
        arithmetic, memory = workload["flops"] / floors["flops"], workload["bytes"] / floors["bandwidth"]
        time = fastest[workload["workload"], library]
        ratio = time / max(arithmetic, memory)
        lines.append(
            f"| {workload['workload']} | {workload['flops'] / 1e9:.3g}·10⁹ | {_seconds(arithmetic)} | "
            f"{workload['bytes'] / 2**20:,.0f} MiB | {_seconds(memory)} | {_seconds(time)} | {ratio:.2f} |"
        )
    speeds = f"Peak: {floors['flops'] / 1e9:.0f} Gflop/s in float32. Bandwidth: {floors['bandwidth'] / 1e9:.1f} GB/s."
    return "\n".join([*lines, "", _wrapped(f"{speeds} {_machine_text(floors['machine'], [])}")]) + "\n"


def overheads_tables() -> str:
    """What single operations, calls and small products cost."""
    measured = json.loads(OVERHEADS.read_text())
    micro = [(f"recording `{name}`, arrays of 8", 1e6 * time) for name, time in measured["recording"].items()]
    micro.append(("a call of a jitted function of 10 scalar operations", 1e6 * measured["jitted_call"]))
    micro.append(("an operation with its backward part, cached, arrays of 8", 1e6 * measured["with_backward"]))
    lines = ["| what | µs |", "|---|--:|"]
    lines += [f"| {name} | {time:.2f} |" for name, time in micro]
    lines += ["", f"Importing ckad takes {measured['import']:.3f} s where NumPy is imported.", ""]
    lines += ["| product | ckad.jit | NumPy | × |", "|---|--:|--:|--:|"]
    for product in measured["products"]:
        ours, numpy = product["ckad"], product["numpy"]
        size = f"{product['n']}³, float{product['bits']}"
        lines.append(f"| {size} | {_seconds(ours)} | {_seconds(numpy)} | {numpy / ours:.2f} |")
    return "\n".join([*lines, "", _wrapped(_machine_text(measured["machine"], []))]) + "\n"


SHARES = (0.8, 0.65, 0.5, 0.35, 0.25)
"""Of the memory of 'none', in the table of frontiers."""


def frontiers_table() -> str:
    """What less memory costs, from what `python -m benches.frontiers` has counted."""
    measured = json.loads(FRONTIERS.read_text())["programs"]
    lines = [
        f"| program | 'none' | {' | '.join(f'{share:.2f}' for share in SHARES)} | the least | 'sqrt' |",
        f"|---|--:|{'--:|' * (len(SHARES) + 2)}",
    ]
    for result in measured:
        none, flops = result["none"], result["flops"]
        cells = []
        for share in SHARES:
            fitting = [extra for size, extra, _ in result["frontier"] if size <= share * none]
            cells.append(f"{100 * min(fitting) / flops:.1f} %" if fitting else "–")
        # What a policy by itself makes of it, as the least plan: share of the memory, extra work.
        for size, extra, *_ in (result["frontier"][0], result["sqrt"]):
            cells.append(f"{size / none:.2f}: {100 * extra / flops:.1f} %")
        lines.append(f"| {result['program']} | {none / 2**20:,.1f} MiB | {' | '.join(cells)} |")
    lines.append("")
    programs = {name: found for source in FRONTIER_PROGRAMS for name, found in _programs(source).items()}
    names = {result["program"] for result in measured}
    for name, (doc, sizes) in programs.items():
        if name in names:
            text = ", ".join(f"{size}={number:,}" for size, number in sizes.items())
            lines.append(_wrapped(f"* `{name}` ({text}): {doc}", "  "))
    return "\n".join(lines) + "\n"


def against_torch_table() -> str:
    """Bytes and time under limits beside PyTorch's, from what `make against-torch` has measured."""
    if not AGAINST_TORCH.exists():
        return "Not measured yet: `make against-torch` fills this in.\n"
    measured = json.loads(AGAINST_TORCH.read_text())
    lines = ["| | memory | time | ckad within that memory |", "|---|--:|--:|---|"]
    within = {label: (seconds, mib) for label, seconds, mib in measured["within"]}
    for point in measured["points"]:
        seconds, mib = within.get(point["label"], (None, None))
        compared = "" if seconds is None else "–" if seconds != seconds else f"time × {seconds:.2f}, memory × {mib:.2f}"
        lines.append(f"| {point['label']} | {point['mib']:,.0f} MiB | {_seconds(point['seconds'])} | {compared} |")
    least = measured["rotor"][0][0]
    worst = max(100 * (planned - rotor) for _, planned, rotor in measured["rotor"])
    sizes = ", ".join(f"{name}={size:,}" for name, size in measured["sizes"].items())
    text = (
        f"`deepmlp` ({sizes}). Counted and not measured: of the plans on its frontier, from {least} layers' outputs in "
        "memory on, none has more extra work than Rotor's dynamic program with as many by over "
        f"{max(worst, 0.0):.1f} % of all operations. {_machine_text(measured['machine'], measured['points'])}"
    )
    return "\n".join([*lines, "", _wrapped(text)]) + "\n"


def planning_table() -> str:
    """Seconds of planning by policy and size of the graph."""
    measured = json.loads(PLANNING.read_text())
    found: dict[tuple[str, str], dict[int, float]] = {}
    for plan in measured["plans"]:
        # Whole steps do not make exactly the nodes that were asked for.
        size = 10 ** round(math.log10(plan["nodes"]))
        found.setdefault((plan["program"], plan["policy"]), {})[size] = plan["seconds"]
    sizes = sorted({size for by_size in found.values() for size in by_size})
    lines = ["| program | plan | " + " | ".join(f"{size:,} nodes" for size in sizes) + " |"]
    lines.append("|---|---|" + "--:|" * len(sizes))
    for (program, policy), by_size in found.items():
        times = (_seconds(by_size[size]) if size in by_size else "–" for size in sizes)
        lines.append(f"| {program} | {policy} | " + " | ".join(times) + " |")
    return "\n".join([*lines, "", _wrapped(_machine_text(measured["machine"], []))]) + "\n"


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{1e3 * value:.3g} ms"


SECTIONS: dict[tuple[str, str], Callable[[], str]] = {
    ("README.md", "benchmarks"): benchmark_table,
    ("docs/performance.md", "scaling"): scaling_tables,
    ("docs/performance.md", "floors"): floors_table,
    ("docs/performance.md", "overheads"): overheads_tables,
    ("docs/how-checkpointing-works.md", "frontiers"): frontiers_table,
    ("docs/how-checkpointing-works.md", "against-torch"): against_torch_table,
    ("docs/performance.md", "planning"): planning_table,
}
"""(file, name of the section) → its text. The section lies between <!-- begin NAME --> and <!-- end NAME -->."""


def primitives_page() -> str:
    """docs/primitives.md: the elementwise table as the core has it, and the structural primitives by their headers."""
    from ckad import _core

    lines = [
        "# Primitives",
        "",
        "Every operation that ckad records is one of these; NumPy's other functions are composed of them in",
        "`python/ckad/numpy`. Generated by `tools/generate.py`.",
        "",
        "## Elementwise",
        "",
        "Rows of the table in `rust/prim/src/elementwise/table.rs`. Operands broadcast as in NumPy. Cost is in",
        "floating point operations an element, as the planner counts them.",
        "",
        "| primitive | NumPy | operands | dtypes | cost | what it is |",
        "|---|---|--:|---|--:|---|",
    ]
    for row in _core.elementwise_table():
        numpy = f"`np.{row['numpy']}`" if row["numpy"] else "–"
        doc = " ".join(row["doc"].split()).replace("|", "\\|")
        lines.append(
            f"| `{row['name']}` | {numpy} | {row['arity']} | {_dtypes(row['dtypes'])} | {row['cost']} | {doc} |"
        )
    lines += [
        "",
        "## Structural",
        "",
        "One file each in `rust/prim/src`. Shapes are exact.",
        "",
        "| primitive | what it is |",
        "|---|---|",
    ]
    lines += [f"| `{name}` | {text} |" for name, text in structural_primitives()]
    return "\n".join(lines) + "\n"


def structural_primitives() -> list[tuple[str, str]]:
    """Name and description of each file of rust/prim/src whose header begins with its own name."""
    found = []
    for path in sorted((ROOT / "rust" / "prim" / "src").glob("*.rs")):
        header = itertools.takewhile(lambda line: line.startswith("//! "), path.read_text().splitlines())
        text = " ".join(line.removeprefix("//! ") for line in header)
        name, _, description = text.partition(": ")
        if name == f"`{path.stem}`":
            found.append((path.stem, description.replace("|", "\\|")))
    return found


def _dtypes(names: list[str]) -> str:
    kinds = {"float": "floats", "int": "integers", "uint": "integers", "bool": "bool"}
    return ", ".join(dict.fromkeys(kinds[name.rstrip("0123456789")] for name in reversed(names)))


def numpy_page() -> str:
    """docs/numpy.md: what of NumPy is recorded, as the registry and the table of ufuncs have it."""
    import numpy as np

    from ckad import _core
    from ckad.numpy.registry import CREATING, METHODS, SUPPORTED

    # Older releases of NumPy lack some; the page is that of the newest.
    recorded = {name for name in _core.ufunc_names() if hasattr(np, name)}
    ufuncs = {name for name in recorded if isinstance(getattr(np, name), np.ufunc)}
    # The table of methods also holds what the core calls by a name of its own.
    named = {name for name in {*METHODS, *dir(_core.Tracer)} if name[0] != "_" and hasattr(np.ndarray, name)}
    attributes = {name for name in named if not callable(getattr(np.ndarray, name))}
    lists = {
        "Ufuncs": ("np.{}", sorted(ufuncs)),
        "Functions": ("np.{}", sorted((SUPPORTED | recorded) - ufuncs)),
        "Creation of arrays that take traced values, with `like=x`": ("np.{}", sorted(CREATING)),
        "Methods": ("x.{}", sorted(named - attributes)),
        "Attributes": ("x.{}", sorted(attributes)),
    }
    lines = [
        "# What of NumPy is recorded",
        "",
        "Each has a derivative where mathematics gives one. A keyword that is not supported raises an error that says",
        "what to write in its place. Of binary ufuncs also `reduce` and `outer`. Operators, indexing by slices,",
        "integers, arrays and masks, and assignments through them are NumPy's. On values that depend on nothing",
        "differentiated NumPy's other functions run as they are. Generated by `tools/generate.py`.",
    ]
    for title, (form, names) in lists.items():
        text = ", ".join(f"`{form.format(name)}`" for name in names)
        lines += ["", f"## {title}", "", textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)]
    return "\n".join(lines) + "\n"


FILES: dict[str, Callable[[], str]] = {"docs/primitives.md": primitives_page, "docs/numpy.md": numpy_page}
"""File → its whole text."""


def generated() -> dict[Path, str]:
    """Each file with a generated part, and the text it should have."""
    texts = {ROOT / name: make() for name, make in FILES.items()}
    for (name, section), make in SECTIONS.items():
        path = ROOT / name
        text = texts.get(path) or path.read_text()
        begin, end = f"<!-- begin {section} -->\n", f"<!-- end {section} -->"
        if not (begin in text and end in text):
            raise SystemExit(f"{name} has no section {section!r}")
        pattern = re.escape(begin) + ".*?" + re.escape(end)
        body = begin + make() + end
        texts[path] = re.sub(pattern, lambda _, body=body: body, text, count=1, flags=re.DOTALL)
    return texts


def main() -> None:
    """Writes, or checks."""
    stale = {path: text for path, text in generated().items() if not path.exists() or path.read_text() != text}
    if "--check" not in sys.argv[1:]:
        for path, text in stale.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    elif stale:
        names = ", ".join(str(path.relative_to(ROOT)) for path in stale)
        raise SystemExit(f"not up to date: {names} (run `make format`)")


if __name__ == "__main__":
    main()
