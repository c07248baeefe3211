"""The planner's goals: work at half of what keeping everything needs, and a deep net beside Rotor's program."""

from __future__ import annotations

import json
from pathlib import Path

import generate
import pytest

from benches import against_torch
from benches.planned_programs import planned


@pytest.mark.parametrize(("name", "most"), [("residual", 0.10), ("pyramid_unet", 0.20), ("equal_unet", 0.41)])
def test_nets_at_half_of_their_memory(name: str, most: float) -> None:
    library = planned(name)
    none = library.planned
    fitting = [point.extra_flops for point in library.points if 2 * point.peak_bytes <= none.peak_bytes]
    assert min(fitting) <= most * none.flops


def test_a_deep_net_lies_on_rotors_curve() -> None:
    rows = against_torch.against_rotor(depth=128, width=256, batch=4096)
    assert rows[0][0] <= 5
    assert all(planned <= least + 0.01 for _, planned, least in rows), rows


def test_the_table_beside_pytorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "AGAINST_TORCH", tmp_path / "missing.json")
    assert generate.against_torch_table() == "Not measured yet: `make against-torch` fills this in.\n"
    points = [
        {"label": label, "seconds": seconds, "mib": mib, "versions": {"numpy": "2"}}
        for label, seconds, mib in (("ckad:none", 1.0, 500.0), ("torch", 1.5, 900.0), ("torch:segments-2", 2.0, 100.0))
    ]
    data = {
        "machine": {"cpu": "a", "threads": 2, "python": "3"},
        "sizes": {"depth": 8},
        "points": points,
        "within": against_torch.beaten(points[:1], points[1:]),
        "rotor": [[5, 0.25, 0.2]],
    }
    written = tmp_path / "against_torch.json"
    written.write_text(json.dumps(data))
    monkeypatch.setattr(generate, "AGAINST_TORCH", written)
    table = generate.against_torch_table()
    assert "| torch | 900 MiB | 1.50 s | time × 0.67, memory × 0.56 |" in table
    assert "| torch:segments-2 | 100 MiB | 2.00 s | – |" in table
    assert "from 5 layers' outputs" in table
    assert "by over 5.0 %" in table
