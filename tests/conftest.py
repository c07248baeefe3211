"""Settings of the whole suite: every graph and program that a test makes is verified."""

from __future__ import annotations

import os
import signal

os.environ.setdefault("CKAD_VERIFY", "1")

from typing import Any

import numpy as np
import pytest

import ckad

# What a shell runs in the background starts with Ctrl-C ignored; tests of interrupts, and the processes that they
# start, are to hear it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

POLICIES = ["none", "auto", "sqrt", 1, 3, "log", ckad.Revolve(3), ckad.Mixed(3), ckad.Offload(min_bytes=1)]


@pytest.fixture(params=POLICIES, ids=str)
def policy(request: pytest.FixtureRequest) -> Any:
    """Every checkpoint policy in turn."""
    return request.param


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
