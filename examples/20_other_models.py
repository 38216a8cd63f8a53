"""Nearest neighbours and kernels approximate any function too.

Lecture 001: "k-NN is also a universal approximator". Lecture 004: kernel models have a closed form,
while networks are trained by gradient descent. The points are denser at the ends, because the mean
loss of n equally spaced points gives each end only the weight 1 / n, and the network errs there.
"""

import numpy as np
from lesson import run

import gpunn as gn


def target(x):
    return np.sin(3 * x) + x / 2


def nearest(known, values, x):
    return values[np.abs(x[:, None] - known).argmin(axis=1)]


def kernel_ridge(known, values, x, width=0.3, penalty=1e-3):
    """Fit kernel ridge regression with a Gaussian kernel by one system of equations."""
    gram = np.exp(-(((known[:, None] - known) / width) ** 2) / 2)
    weights = np.linalg.solve(gram + penalty * np.eye(len(known)), values)
    return np.exp(-(((x[:, None] - known) / width) ** 2) / 2) @ weights


def network(known, values, x, epochs, seed=0):
    """Fit 40 tanh units, whose centres start all over [-2, 2]."""
    gn.manual_seed(seed)
    hidden = gn.nn.Linear(1, 40, "tanh", dtype="float64")
    hidden.weight.data *= 8
    centres = np.random.default_rng(seed).uniform(-2, 2, 40)
    hidden.bias.data[:] = gn.backend().upload(-hidden.weight.numpy()[0] * centres)
    net = gn.nn.Sequential(hidden, gn.nn.Linear(40, 1, dtype="float64"))
    trainer = gn.Trainer(net, "squared_error", gn.optim.Adam(lr=0.02), schedule="cosine")
    fit = {"epochs": epochs, "batch_size": len(known), "progress": False}
    trainer.fit(known[:, None], values, **fit)
    return net.predict(x[:, None])[:, 0]


def chebyshev(n):
    """Return n points of [-2, 2] that are denser at the ends."""
    return 2 * np.cos((np.arange(n) + 0.5) * np.pi / n)


def main(short):
    x = np.linspace(-2, 2, 1001)
    figure, (left, right) = gn.plot.figure(1, 2)
    sizes, errors = (10, 20, 40, 80), {}
    for n in sizes:
        known = chebyshev(n)
        values = target(known)
        fits = {
            "nearest neighbour": nearest(known, values, x),
            "kernel ridge": kernel_ridge(known, values, x),
            "network": network(known, values, x, 1000 if short else 4000),
        }
        for name, fit in fits.items():
            errors.setdefault(name, []).append(float(np.abs(fit - target(x)).max()))
        if n == 20:
            curves = {"target": (x, target(x)), **{k: (x, v) for k, v in fits.items()}}
            gn.plot.series(curves, left, xlabel="x", title="From 20 points")
    for name, found in errors.items():
        print(f"{name:17}: largest error from {sizes} points: {np.round(found, 4)}")
    curves = {name: (sizes, found) for name, found in errors.items()}
    labels = {"xlabel": "points", "ylabel": "largest error", "scale": "log"}
    gn.plot.series(curves, right, title="More points", **labels)
    return figure


if __name__ == "__main__":
    run(main)
