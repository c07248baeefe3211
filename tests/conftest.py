"""Settings of the whole suite: every graph and program that a test makes is verified."""

from __future__ import annotations

import os

os.environ.setdefault("CKAD_VERIFY", "1")

import numpy as np
import pytest

POLICIES = ["none", "auto", "sqrt", 1, 3]


@pytest.fixture(params=POLICIES, ids=str)
def policy(request: pytest.FixtureRequest) -> str | int:
    """Every checkpoint policy in turn."""
    return request.param


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
