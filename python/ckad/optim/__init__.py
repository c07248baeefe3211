"""Optimisers: pairs of functions over pytrees.

>>> import numpy as np
>>> init, update = sgd(0.5)
>>> params = {"w": np.array([4.0])}
>>> state = init(params)
>>> for _ in range(3):
...     grads = {"w": params["w"]}  # of w² / 2
...     params, state = update(grads, state, params)
>>> params["w"], state
(array([0.5]), {'step': 3})

The state is a pytree of dicts, so `ckad.nn.save` writes it. `update` changes none of its arguments, and it is made of
NumPy functions, so a training step can itself be differentiated.
"""

from ckad.optim.adam import adam
from ckad.optim.optimizer import Optimizer
from ckad.optim.sgd import sgd

__all__ = ["Optimizer", "adam", "sgd"]
