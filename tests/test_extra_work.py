"""The planner's goals: work at half of what keeping everything needs, and a deep net beside Rotor's program."""

from __future__ import annotations

import pytest

from benches import extra_work, frontier


@pytest.mark.parametrize(("name", "most"), [("residual", 0.10), ("pyramid_unet", 0.20), ("equal_unet", 0.41)])
def test_nets_at_half_of_their_memory(name: str, most: float) -> None:
    found = extra_work.measured(extra_work.PROGRAMS[name])
    half = found["extra"]["0.5"]
    assert half is not None
    assert half <= most, found


def test_a_deep_net_lies_on_rotors_curve() -> None:
    rows = frontier.against_rotor(depth=128, width=256, batch=4096)
    assert rows[0][0] <= 5
    assert all(planned <= least + 0.01 for _, planned, least in rows), rows
