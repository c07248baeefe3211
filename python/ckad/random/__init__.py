"""Random numbers from explicit keys: `uniform(key, shape)` is a function of its arguments, and nothing else.

A key is an array of two uint32. There is no state that draws change: who draws twice splits the key. Inside a traced
function draws are recorded, so what is drawn is drawn again where a plan recomputes, bit for bit, instead of being
kept. Keys, bits and what is made of them exactly are `jax.random`'s (with 64-bit types enabled).

>>> import numpy as np
>>> first, second = split(key(0))
>>> uniform(first, (3,)).round(3), bool(bernoulli(second, 0.1))
(array([0.97 , 0.315, 0.661]), True)
"""

from ckad.random.choices import categorical, choice, permutation, randint
from ckad.random.floats import bernoulli, exponential, gumbel, normal, truncated_normal, uniform
from ckad.random.keys import PRNGKey, bits, fold_in, key, split

__all__ = [
    "PRNGKey",
    "bernoulli",
    "bits",
    "categorical",
    "choice",
    "exponential",
    "fold_in",
    "gumbel",
    "key",
    "normal",
    "permutation",
    "randint",
    "split",
    "truncated_normal",
    "uniform",
]
