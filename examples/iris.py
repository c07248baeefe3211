"""A two-layer softmax network on Fisher's irises, its gradient by ckad.

The network has two features and a bias, 16 logistic hidden units and 3 classes; the loss is the mean negative
log-likelihood, written with NumPy as one would by hand. Gradient descent trains it. The gradient is compared with the
one derived by hand and with finite differences (scipy.optimize.check_grad).
"""

from __future__ import annotations

import csv
from typing import Any

import matplotlib as mpl
import numpy as np
from output import ROOT, output_path, print_table
from scipy.optimize import check_grad
from tqdm import trange

import ckad

mpl.use("Agg")

FEATURES = ("petal_length_cm", "petal_width_cm")
SPECIES = ("setosa", "versicolor", "virginica")
HIDDEN = 16
STEPS = 3000
LEARNING_RATE = 0.5

Params = tuple[Any, Any]


def read_irises() -> tuple[np.ndarray, np.ndarray]:
    """Two features of each flower, shape (150, 2), and its species as 0, 1, 2."""
    with open(ROOT / "examples" / "data" / "iris.csv", newline="") as file:
        flowers = list(csv.DictReader(file))
    features = np.array([[float(flower[name]) for name in FEATURES] for flower in flowers])
    return features, np.array([SPECIES.index(flower["species"]) for flower in flowers])


def logits(params: Params, x: Any) -> Any:
    """The network: x has a last column of ones for the bias."""
    w1, w2 = params
    hidden = 1.0 / (1.0 + np.exp(-(x @ w1)))
    return hidden @ w2


def loss(params: Params, x: Any, labels: Any) -> Any:
    """Mean negative log-likelihood."""
    u = logits(params, x)
    u = u - np.max(u, axis=1, keepdims=True)
    log_likelihood = u[np.arange(len(labels)), labels] - np.log(np.sum(np.exp(u), axis=1))
    return -np.mean(log_likelihood)


def gradient_by_hand(params: Params, x: Any, labels: Any) -> Params:
    """The same gradient as one derives it on paper."""
    w1, w2 = params
    hidden = 1.0 / (1.0 + np.exp(-(x @ w1)))
    u = hidden @ w2
    p = np.exp(u - np.max(u, axis=1, keepdims=True))
    p /= np.sum(p, axis=1, keepdims=True)
    p[np.arange(len(labels)), labels] -= 1.0
    p /= len(labels)
    return x.T @ ((p @ w2.T) * hidden * (1.0 - hidden)), hidden.T @ p


def main() -> None:
    """Trains the network, checks its gradient, draws its decisions."""
    features, labels = read_irises()
    centre, scale = features.mean(axis=0), features.std(axis=0)

    def prepare(values: np.ndarray) -> np.ndarray:
        return np.column_stack([(values - centre) / scale, np.ones(len(values))])

    x = prepare(features)
    rng = np.random.default_rng(0)
    start = (rng.standard_normal((3, HIDDEN)), rng.standard_normal((HIDDEN, 3)) / np.sqrt(HIDDEN))

    params, losses = start, []
    value_and_grad = ckad.value_and_grad(loss)
    for _ in trange(STEPS, desc="training on irises", unit="step", leave=False):
        value, grads = value_and_grad(params, x, labels)
        losses.append(float(value))
        params = tuple(p - LEARNING_RATE * g for p, g in zip(params, grads, strict=True))

    correct = int(np.sum(np.argmax(logits(params, x), axis=1) == labels))
    rows = [
        [name, f"{difference_by_hand(at, x, labels):.1e}", f"{difference_by_scipy(at, x, labels):.1e}"]
        for name, at in (("before training", start), ("after training", params))
    ]
    head = ["", "the one by hand, largest element", "finite differences, norm (scipy.optimize.check_grad)"]
    print_table("Iris: difference of ckad's gradient from", head, rows)
    print(f"  loss {losses[0]:.4f} → {losses[-1]:.4f} in {STEPS} steps; {correct} of the {len(labels)} flowers right,")
    print("  the same ones that it was trained on")
    draw(features, labels, lambda values: np.argmax(logits(params, prepare(values)), axis=1), losses)


def difference_by_hand(params: Params, x: np.ndarray, labels: np.ndarray) -> float:
    """Largest difference of an element from the gradient by hand."""
    pairs = zip(ckad.grad(loss)(params, x, labels), gradient_by_hand(params, x, labels), strict=True)
    return max(float(np.max(np.abs(a - b))) for a, b in pairs)


def difference_by_scipy(params: Params, x: np.ndarray, labels: np.ndarray) -> float:
    """Norm of the difference from SciPy's forward differences, which are good to about 1e-7."""
    split = params[0].size

    def unpack(flat: Any) -> Params:
        return flat[:split].reshape(params[0].shape), flat[split:].reshape(params[1].shape)

    def flat_loss(flat: Any) -> Any:
        return loss(unpack(flat), x, labels)

    flat = np.concatenate([p.ravel() for p in params])
    return float(check_grad(flat_loss, ckad.grad(flat_loss), flat))


def draw(features: np.ndarray, labels: np.ndarray, decide: Any, losses: list[float]) -> None:
    """The regions of the plane in which the network decides for each species, and the loss."""
    import matplotlib.pyplot as plt

    figure, (plane, curve) = plt.subplots(1, 2, figsize=(11, 4.5), width_ratios=(3, 2), layout="constrained")
    low, high = features.min(axis=0) - 0.4, features.max(axis=0) + 0.4
    u, v = np.meshgrid(np.linspace(low[0], high[0], 400), np.linspace(low[1], high[1], 400))
    regions = decide(np.column_stack([u.ravel(), v.ravel()])).reshape(u.shape)
    colours = ("tab:blue", "tab:orange", "tab:green")
    plane.contourf(u, v, regions, levels=(-0.5, 0.5, 1.5, 2.5), colors=colours, alpha=0.25)
    for index, (name, colour) in enumerate(zip(SPECIES, colours, strict=True)):
        # Petals are measured to the millimetre, so flowers coincide.
        places, counts = np.unique(features[labels == index], axis=0, return_counts=True)
        plane.scatter(*places.T, s=18 * counts, c=colour, edgecolors="black", linewidths=0.4, label=name)
    title = "decisions of the trained network; area of a dot: number of flowers"
    plane.set(xlabel="petal length, cm", ylabel="petal width, cm", title=title)
    for handle in plane.legend(loc="upper left").legend_handles:
        handle.set_sizes([36])  # type: ignore[union-attr]
    curve.semilogy(losses)
    curve.set(xlabel="step of gradient descent", ylabel="mean negative log-likelihood", title="training")
    figure.savefig(output_path("iris.png"), dpi=130)
    plt.close(figure)


if __name__ == "__main__":
    main()
