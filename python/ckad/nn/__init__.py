"""Layers, activations, losses, and saving them: plain NumPy functions over pytrees of arrays.

A layer is a pytree, so `ckad.grad` differentiates with respect to it and `ckad.optim` updates it; calling it applies
it. Each function is written as one would by hand in NumPy, with `ckad.random` where something is drawn, and runs on
arrays as it does on traced values.

>>> import numpy as np
>>> model = Sequential(Linear(2, 16, rng=0), np.tanh, Linear(16, 3, rng=1))
>>> model(np.zeros((5, 2))).shape
(5, 3)
"""

from ckad.nn.activations import gelu, relu, sigmoid, softplus, tanh
from ckad.nn.dropout import Dropout
from ckad.nn.layer import layer
from ckad.nn.linear import Linear
from ckad.nn.losses import mse_loss, softmax_cross_entropy
from ckad.nn.normalisation import BatchNorm, LayerNorm
from ckad.nn.saving import load, save
from ckad.nn.sequential import Sequential

__all__ = [
    "BatchNorm",
    "Dropout",
    "LayerNorm",
    "Linear",
    "Sequential",
    "gelu",
    "layer",
    "load",
    "mse_loss",
    "relu",
    "save",
    "sigmoid",
    "softmax_cross_entropy",
    "softplus",
    "tanh",
]
