"""Writes the generated parts of the repository anew; with --check, only says whether they are up to date.

A generated part is either a whole file or the lines between two markers of a file. Each has one source, so that nothing
is written down twice.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benches" / "results.json"

SHOWN = ("deepmlp", "oploop", "chain", "elementwise", "smallnet")
"""The workloads in the README; the others are for those who run the benchmarks."""


def benchmark_table() -> str:
    """The README's table, from what `make bench-results` has measured."""
    if not RESULTS.exists():
        return "Not measured yet: `make bench-results` fills this in.\n"
    measured = json.loads(RESULTS.read_text())
    lines = [
        "| workload | library | first call | fastest | median | extra memory |",
        "|---|---|--:|--:|--:|--:|",
    ]
    lines += [_benchmark_row(result) for result in measured["results"] if result["workload"] in SHOWN]
    machine = measured["machine"]
    lines += ["", f"Measured on {machine['cpu']}, {machine['threads']} threads, Python {machine['python']}."]
    return "\n".join(lines) + "\n"


def _benchmark_row(result: dict[str, Any]) -> str:
    times = " | ".join(_seconds(result[key]) for key in ("first", "min", "median"))
    return f"| {result['workload']} | {result['library']} | {times} | {result['peak_mib']:.0f} MiB |"


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{1e3 * value:.3g} ms"


SECTIONS: dict[tuple[str, str], Callable[[], str]] = {
    ("README.md", "benchmarks"): benchmark_table,
}
"""(file, name of the section) → its text. The section lies between <!-- begin NAME --> and <!-- end NAME -->."""

FILES: dict[str, Callable[[], str]] = {}
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
