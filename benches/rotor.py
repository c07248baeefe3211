"""Rotor's dynamic program on a chain of equal layers: the least work for each number of values in memory.

It is the rule by which Rockmate plans chains (Beaumont et al., "Optimal checkpointing for heterogeneous chains", 2019;
Zhao et al., "Rockmate", 2023): a layer is either run and its output kept until the backward part has used it, or the
input of a stretch of layers is kept and the stretch is run again later. Written from the recurrence, with nothing of
ckad's, as an oracle for the curve of memory against work.
"""

from __future__ import annotations

import numpy as np


def extra_forwards(layers: int, values: int) -> list[float]:
    """For each number of values that may be held at once, up to `values`, the fewest layers that run again; ∞ where
    there is no way.

    Args:
        layers: the length of the chain; every layer's output is one value, and it is what the backward part needs.
        values: the greatest number of outputs held beside the chain's input and the derivatives under way.
    """
    # cost[n, m]: layers run, the first time included, to reverse a chain of n whose input is there, within m values.
    cost = np.full((layers + 1, values + 1), np.inf)
    cost[0] = 0.0
    cost[1, 1:] = 1.0
    for n in range(2, layers + 1):
        # Keep the first layer's output until its own reversal, or run up to a later input, keep that, and come back.
        best = np.full(values + 1, np.inf)
        best[1:] = 1.0 + cost[n - 1, :-1]
        for first in range(1, n):
            again = np.full(values + 1, np.inf)
            again[1:] = first + cost[n - first, :-1] + cost[first, 1:]
            best = np.minimum(best, again)
        cost[n] = best
    return [float(count - layers) for count in cost[layers]]
