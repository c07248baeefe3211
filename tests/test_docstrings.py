"""What is public says what it is in one line, what it takes and gives, where it is from, and shows it."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Iterator
from typing import Any

import pytest

import ckad
from ckad import nn, optim, random

MODULES = (ckad, ckad.memory, ckad.tree, nn, optim, random)

RESULTS = {
    *("ckad.CkadError", "ckad.Graph", "ckad.Plan", "ckad.Tracer"),
    *("ckad.memory.LineMemory", "ckad.memory.Report", "ckad.memory.Report.save_flamegraph", "ckad.Policy.choose"),
}
"""Classes whose objects other functions make, and methods that the doctest of their class shows."""

PLAIN = {"ckad.nn", "ckad.optim", "ckad.tree", "ckad.memory.release"}
"""What has nothing but common knowledge behind it, or says its sources where there are some."""


def public() -> Iterator[tuple[str, Any]]:
    """Functions, classes and their methods by name."""
    for module in MODULES:
        for name in module.__all__:
            found = getattr(module, name)
            if isinstance(found, types.ModuleType) or not callable(found):
                continue
            yield f"{module.__name__}.{name}", found
            if inspect.isclass(found):
                methods = {name: member for name, member in vars(found).items() if inspect.isfunction(member)}
                yield from ((f"{module.__name__}.{name}.{key}", methods[key]) for key in methods if key[0] != "_")


OBJECTS = dict(public())


@pytest.mark.parametrize("name", OBJECTS)
def test_a_docstring_is_complete(name: str) -> None:
    found = OBJECTS[name]
    doc = inspect.getdoc(found) or ""
    assert re.match(r".+[.:?)](\n\n|$)", doc), "one line first"
    is_class = inspect.isclass(found)
    if name not in RESULTS:
        assert ">>> " in doc
    if is_class:
        # Fields may be told one by one.
        fields = getattr(found, "__annotations__", {})
        parameters = [] if found in (ckad.Policy, ckad.Clusters) else fields
    else:
        parameters = [key for key in inspect.signature(found).parameters if key != "self"]
        if inspect.signature(found).return_annotation not in (None, "None"):
            assert "Returns:\n" in doc
    if parameters:
        assert re.search(r"^(Args|Attributes):\n", doc, re.MULTILINE)
    for section in ("Args", "Attributes", "Returns", "Raises"):
        assert not re.search(rf"^{section}:\n\S", doc, re.MULTILINE), f"{section} is indented"


# Methods have the sources of their class.
FUNCTIONS = [
    name for name, found in OBJECTS.items() if not inspect.isclass(found) and found.__qualname__.count(".") == 0
]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_functions_docstring_names_a_source_and_what_is_raised(name: str) -> None:
    if any(name == plain or name.startswith(f"{plain}.") for plain in PLAIN):
        return
    doc = inspect.getdoc(OBJECTS[name]) or ""
    assert re.search(r"^Source: \S", doc, re.MULTILINE)
    if name != "ckad.stop_gradient":
        assert "Raises:\n" in doc
