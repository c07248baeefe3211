"""Loss functions: arrays in, one number out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ckad.errors import CkadIndexError, CkadTypeError, DTypeError, ShapeError


def mse_loss(prediction: NDArray[Any], target: ArrayLike) -> np.floating[Any]:
    """The mean of the squared differences.

    Args:
        prediction: array of any shape.
        target: array of the same shape.

    Returns:
        A number, of the dtype of the first argument.

    Raises:
        ValueError: the shapes differ. They are not broadcast: (n,) against (n, 1) would be n² differences.
        TypeError: the prediction is a tuple.

    >>> float(mse_loss(np.array([1.0, 2.0]), np.array([1.0, 4.0])))
    2.0
    """
    _check_is_array("mse_loss", "prediction", prediction)
    if np.shape(prediction) != np.shape(target):
        what = f"prediction and target differ in shape: {np.shape(prediction)} and {np.shape(target)}"
        raise ShapeError.of("mse_loss", what, "reshape one of them; losses do not broadcast")
    return np.mean(np.square(prediction - target))


def _check_is_array(loss: str, name: str, value: Any) -> None:
    """Refuses what a model with a state returns."""
    if isinstance(value, tuple):
        what = f"{name} is a tuple of {len(value)}"
        hint = "a model with a state returns (y, model): take its y, and keep the model"
        raise CkadTypeError.of(loss, what, hint)


def _check_classes(labels: Any, shape: tuple[int, ...]) -> None:
    """Refuses labels that are no class of logits of that shape: an index of −1 would be the last class."""
    if not isinstance(labels, (np.ndarray, np.generic)) or not labels.size:
        return
    least, greatest = labels.min(), labels.max()
    if least < 0 or greatest >= shape[-1]:
        what = f"labels from {least} to {greatest} for {shape[-1]} classes: logits {shape}, labels {labels.shape}"
        hint = "number the classes from 0, and leave rows without a class out: logits[labels >= 0]"
        raise CkadIndexError.of("softmax_cross_entropy", what, hint)


def softmax_cross_entropy(logits: NDArray[Any], labels: ArrayLike) -> np.floating[Any]:
    """The mean negative log-likelihood of the labels under softmax(logits).

    Args:
        logits: array of shape (..., classes), unnormalised log-probabilities.
        labels: integers of shape (...), the class of each row; or floats of the shape of logits, its probabilities.

    Returns:
        A number, of the dtype of the first argument.

    Raises:
        ValueError: the shapes do not fit.
        IndexError: a label is no class: below 0, or too large.
        TypeError: the labels are neither integers nor floats, or the logits are a tuple.

    >>> float(np.exp(softmax_cross_entropy(np.zeros((3, 4)), np.arange(3))).round(6))
    4.0
    """
    _check_is_array("softmax_cross_entropy", "logits", logits)
    values: Any = labels if hasattr(labels, "dtype") else np.asarray(labels)
    shape = np.shape(logits)
    integer = values.dtype.kind in "iu"
    if not integer and values.dtype.kind != "f":
        what = f"labels have dtype {values.dtype}, neither integer nor float"
        hint = "convert them: labels.astype(int) for classes, labels.astype(float) for probabilities"
        raise DTypeError.of("softmax_cross_entropy", what, hint)
    if not shape or np.shape(values) != (shape[:-1] if integer else shape):
        expected = "the shape of logits without its last axis" if integer else "the shape of logits"
        hint = f"{'integer' if integer else 'float'} labels have {expected}"
        what = f"logits {shape} and labels {np.shape(values)} do not fit"
        raise ShapeError.of("softmax_cross_entropy", what, hint)
    if integer:
        _check_classes(values, shape)
    # Less its maximum a row neither overflows nor underflows as a whole; the shift cancels in value and derivative.
    shifted = logits - np.max(logits, axis=-1, keepdims=True)
    log_sum = np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))
    if not integer:
        return -np.mean(np.sum(values * (shifted - log_sum), axis=-1))
    rows = np.reshape(shifted - log_sum, (-1, shape[-1]))
    return -np.mean(rows[np.arange(rows.shape[0]), np.reshape(values, (-1,))])
