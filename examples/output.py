"""What the examples share: where files go, how tables are printed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "demo-output"


def output_path(name: str) -> Path:
    """The path of a file that the demo writes."""
    OUTPUT.mkdir(exist_ok=True)
    return OUTPUT / name


def print_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table; the first column is flushed left, the others right."""
    widths = [max(len(cell) for cell in column) for column in zip(head, *rows, strict=True)]
    print(f"\n{title}")
    for row in (head, *rows):
        first, *rest = (
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        print("  " + "  ".join((first, *rest)))


def mebibytes(count: float) -> str:
    """A number of bytes, for reading."""
    return f"{count / 2**20:.1f} MiB"
