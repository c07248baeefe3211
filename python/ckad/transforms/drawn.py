"""Whether a function drew random numbers while it was recorded for calls or iterations to come.

Each of them would see the same numbers, silently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from ckad.errors import TracerError
from ckad.transforms.reach import Reach


def check_drawn(name: str, reach: Reach, before: dict[int, object], later: str, hint: str) -> None:
    """Refuses what drew from a generator whose state was noted before."""
    for generator, state in before.items():
        if reach.state_of(generator) != state:
            what = f"{reach.name_of(generator)} was drawn from while the function was recorded: every {later} "
            raise TracerError.of(name, what + "would see the same numbers", hint)


@contextmanager
def drawing_refused(name: str, functions: Iterable[Callable[..., Any]]) -> Iterator[None]:
    """A context in which functions are recorded once for all iterations: afterwards none may have drawn."""
    reach = Reach(functions)
    before = reach.generator_states()
    yield
    hint = (
        "draw before the loop, and pass the array (scan: one slice of xs an iteration); or draw with ckad.random from "
        "a key that the index is folded into: ckad.random.normal(ckad.random.fold_in(key, i))"
    )
    check_drawn(name, reach, before, "iteration", hint)
