"""The policy of `ckad.Offload`: values that wait on disk."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ckad.errors import CkadValueError


@dataclass(frozen=True)
class Offload:
    """The policy that keeps everything, large values on disk until the backward part needs them.

    A value goes to the file as soon as it is computed and comes back while the one before it is worked on, by a
    thread beside the computation. No heavy operation is computed twice; results are bit-identical. The file has no
    name, so that nothing is left however the process ends; it lies in the folder that the environment variable
    ``CKAD_TMPDIR`` names, else where Python's ``tempfile`` would put it. Memory that the system uses to cache the file
    is not the process's own; a ``CKAD_TMPDIR`` on a file system in memory (often ``/tmp``) saves nothing.

    Args:
        min_bytes: the size, in bytes, from which on a value is worth a transfer (an int ≥ 1).

    Raises:
        ValueError: `min_bytes` is not such an int.
        StorageError: in a run: the file cannot be made, or there is no room for it.

    Source: swapping as in Rhu et al., "vDNN" (2016), planned before the run.

    >>> import numpy as np, ckad
    >>> def loss(x):
    ...     for _ in range(60):
    ...         x = np.tanh(x) * 1.01
    ...     return (x * x).sum()
    >>> x = np.linspace(-1.0, 1.0, 20_000)
    >>> plan = ckad.plan(loss, checkpoint=ckad.Offload())(x)
    >>> everything = ckad.plan(loss, checkpoint="none")(x)
    >>> plan.peak_bytes < everything.peak_bytes / 2, plan.offloaded_bytes > 0
    (True, True)
    """

    min_bytes: int = 1 << 16

    def __post_init__(self) -> None:
        size = self.min_bytes
        if isinstance(size, bool) or not isinstance(size, int | np.integer) or not 1 <= size < 2**32:
            what = f"min_bytes must be an int between 1 and 2**32 − 1, not {size!r:.40}"
            raise CkadValueError.of("Offload", what, "give the least size of a value in bytes, such as 1 << 20")
