"""`np.einsum` as a sequence of general dot products, in the order that NumPy's greedy path finds."""

from __future__ import annotations

import string
from typing import Any

import numpy as np

from ckad import _core
from ckad.errors import CkadValueError, ShapeError
from ckad.numpy.axes import cast, laid_out, strides


def contract(subscripts: str, operands: list[Any], in_steps: bool) -> Any:
    """The contraction that `subscripts` describes.

    Args:
        subscripts: NumPy's notation, explicit or implicit output, with or without ellipsis.
        operands: traced values and arrays.
        in_steps: NumPy would contract two operands at a time (`optimize`), which decides how the result lies.

    Raises:
        ShapeError: an index has two lengths.
        ValueError: the subscripts do not fit the operands.
    """
    terms, output = _parse(subscripts, operands)
    _check_extents(terms, operands, subscripts)
    result = _contract(terms, operands, output)
    if in_steps and len(operands) > 1:
        return _core.with_unknown_layout(result) if output else _of_rank_0(result, terms, operands)
    # Of one operand whose letters all stay, NumPy's result is a view.
    return result if len(operands) == 1 and set(output) == set(terms[0]) else _lay_out(result, terms, operands, output)


def _of_rank_0(result: Any, terms: list[str], operands: list[Any]) -> Any:
    """The last step of two operands is a matrix product, which gives an array."""
    lengths = [
        {letter: extent for letter, extent in zip(term, operand.shape, strict=True) if extent != 1}
        for term, operand in zip(terms, operands, strict=True)
    ]
    repeated = any(sum(letter in longer for longer in lengths) > 1 for letter in set("".join(terms)))
    return _core.as_array(result) if repeated else result


def _lay_out(result: Any, terms: list[str], operands: list[Any], output: str) -> Any:
    """The result as NumPy's one loop over all letters lays it out: those of the output first, then the summed ones."""
    letters = output + "".join(sorted(set("".join(terms)) - set(output)))
    walked = []
    for term, operand in zip(terms, operands, strict=True):
        steps = dict.fromkeys(letters, 0)
        for letter, stride in zip(term, strides(operand), strict=True):
            steps[letter] += stride
        walked.append(list(steps.values()))
    order = _core.iteration_order(len(letters), walked)
    return laid_out(result, [axis for axis in order if axis < len(output)])


def _contract(terms: list[str], operands: list[Any], output: str) -> Any:
    if len(operands) == 1:
        return _finish(*_take_diagonals(terms[0], operands[0]), output)
    common = np.result_type(*(operand.dtype for operand in operands))
    work = [_take_diagonals(term, cast(operand, common)) for term, operand in zip(terms, operands, strict=True)]
    stand_ins = [np.broadcast_to(np.float64(0), np.shape(operand)) for operand in operands]
    path = np.einsum_path(",".join(terms) + "->" + output, *stand_ins, optimize="greedy")[0][1:]
    for step in path:
        chosen = [work[i] for i in step]
        work = [item for i, item in enumerate(work) if i not in step]
        needed = set(output).union(*(term for term, _ in work))
        result = chosen[0]
        for position, other in enumerate(chosen[1:], start=2):
            later = set().union(*(term for term, _ in chosen[position:]))
            result = _pair(result, other, needed | later)
        work.append(result)
    return _finish(*work[0], output)


def _parse(subscripts: str, operands: list[Any]) -> tuple[list[str], str]:
    text = subscripts.replace(" ", "")
    inputs, arrow, output = text.partition("->")
    terms = inputs.split(",")
    if len(terms) != len(operands):
        what = f"{subscripts!r} has {len(terms)} terms for {len(operands)} operands"
        raise CkadValueError.of("einsum", what, "give one term an operand, with commas between: 'ij,jk->ik'")
    unused = [letter for letter in string.ascii_letters if letter not in text]
    widths = [
        operand.ndim - len(term.replace("...", "")) if "..." in term else 0
        for term, operand in zip(terms, operands, strict=True)
    ]
    if any(width < 0 for width in widths):
        shapes = ", ".join(str(operand.shape) for operand in operands)
        what = f"{subscripts!r} names more axes than an operand has: {shapes}"
        raise CkadValueError.of("einsum", what, "give each term one letter an axis of its operand")
    widest = max(widths)
    dots = "".join(unused[:widest])
    terms = [term.replace("...", dots[widest - width :]) for term, width in zip(terms, widths, strict=True)]
    if arrow:
        output = output.replace("...", dots)
    else:
        letters = "".join(terms)
        output = dots + "".join(sorted(c for c in set(letters) - set(dots) if letters.count(c) == 1))
    for term, operand in zip(terms, operands, strict=True):
        if len(term) != operand.ndim or (not term.isalpha() and term):
            what = f"subscripts {term!r} do not fit an operand of shape {operand.shape}"
            raise CkadValueError.of("einsum", what, "give each term one letter an axis, or '...' for those not named")
    if len(set(output)) != len(output) or not set(output) <= set("".join(terms)):
        what = f"output subscripts {output!r} of {subscripts!r} are not distinct letters of the inputs"
        raise CkadValueError.of("einsum", what, "name each letter of the output once, as it stands in the inputs")
    return terms, output


def _check_extents(terms: list[str], operands: list[Any], subscripts: str) -> None:
    extents: dict[str, int] = {}
    for term, operand in zip(terms, operands, strict=True):
        for letter, extent in zip(term, operand.shape, strict=True):
            if extents.setdefault(letter, extent) != extent and 1 not in (extent, extents[letter]):
                shapes = ", ".join(str(operand.shape) for operand in operands)
                what = f"index {letter!r} of {subscripts!r} has lengths {extents[letter]} and {extent}: {shapes}"
                raise ShapeError.of(
                    "einsum", what, "axes of one letter have one length, or 1; one operand may need `.T`"
                )
            extents[letter] = max(extents[letter], extent)


def _take_diagonals(term: str, operand: Any) -> tuple[str, Any]:
    """Each letter once: repeated ones become a diagonal view."""
    for letter in dict.fromkeys(term):
        while term.count(letter) > 1:
            first = term.index(letter)
            second = term.index(letter, first + 1)
            traced = isinstance(operand, _core.Tracer)
            # Unlike np.diagonal's, einsum's view is writeable.
            operand = (
                _core.diagonal_view(operand, 0, first, second, False)
                if traced
                else np.diagonal(operand, 0, first, second)
            )
            term = "".join(c for i, c in enumerate(term) if i not in (first, second)) + letter
    return term, operand


def _without(term: str, operand: Any, dropped: set[str]) -> tuple[str, Any]:
    """The operand summed over some of its letters."""
    axes = tuple(i for i, letter in enumerate(term) if letter in dropped)
    if not axes:
        return term, operand
    # Unlike np.sum, einsum does not widen integers.
    total = np.any(operand, axis=axes) if operand.dtype == np.bool_ else np.sum(operand, axis=axes, dtype=operand.dtype)
    return "".join(c for c in term if c not in dropped), total


def _squeeze_ones(term: str, operand: Any, other: str, other_operand: Any) -> tuple[str, Any]:
    """Axes of length 1 that broadcast against a longer axis of the other operand go away."""
    longer = dict(zip(other, other_operand.shape, strict=True))
    axes = tuple(i for i, letter in enumerate(term) if operand.shape[i] == 1 and longer.get(letter, 1) != 1)
    if not axes:
        return term, operand
    return "".join(c for i, c in enumerate(term) if i not in axes), np.squeeze(operand, axis=axes)


def _pair(left: tuple[str, Any], right: tuple[str, Any], needed: set[str]) -> tuple[str, Any]:
    a_term, a = _squeeze_ones(*left, *right)
    b_term, b = _squeeze_ones(*right, *left)
    a_term, a = _without(a_term, a, set(a_term) - set(b_term) - needed)
    b_term, b = _without(b_term, b, set(b_term) - set(a_term) - needed)
    shared = [letter for letter in a_term if letter in b_term]
    batch = [letter for letter in shared if letter in needed]
    summed = [letter for letter in shared if letter not in needed]
    free_a = [letter for letter in a_term if letter not in shared]
    free_b = [letter for letter in b_term if letter not in shared]
    term = "".join(batch + free_a + free_b)
    if not isinstance(a, _core.Tracer) and not isinstance(b, _core.Tracer):
        return term, np.einsum(f"{a_term},{b_term}->{term}", a, b)
    product = _core.dot_general(
        a,
        b,
        tuple(a_term.index(letter) for letter in batch),
        tuple(b_term.index(letter) for letter in batch),
        tuple(a_term.index(letter) for letter in summed),
        tuple(b_term.index(letter) for letter in summed),
    )
    return term, product


def _finish(term: str, operand: Any, output: str) -> Any:
    term, operand = _without(term, operand, set(term) - set(output))
    if term == output:
        return operand
    return np.transpose(operand, [term.index(letter) for letter in output])
