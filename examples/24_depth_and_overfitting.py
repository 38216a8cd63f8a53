"""More layers, more capacity, and overfitting: regularise with lambda, not with size.

Lectures 001 and 002: error on held-out data over width, depth and lambda, with 95 % intervals. One
of seven training labels is wrong, so that a network can learn what is not there.
"""

from itertools import pairwise

import numpy as np
from lesson import run

import gpunn as gn


def data(seed):
    """Return training points, labels of which 15 % are wrong, and held-out points."""
    train = gn.data.spirals(50, classes=2, noise=0.2, seed=seed)
    test = gn.data.spirals(1000, classes=2, noise=0.2, seed=1000 + seed)
    wrong = np.random.default_rng(seed).random(len(train)) < 0.15
    return train.x, np.where(wrong, 1 - train.y, train.y), test


def errors(width, depth, penalty, seed, epochs=600):
    """Train one network; return its training error and its error on held-out points."""
    x, y, test = data(seed)
    gn.manual_seed(seed)
    sizes = [2, *[width] * depth]
    hidden = [gn.nn.Linear(a, b, "relu") for a, b in pairwise(sizes)]
    net = gn.nn.Sequential(*hidden, gn.nn.Linear(width, 2))
    decay = gn.optim.L2(penalty) if penalty else None
    trainer = gn.Trainer(net, optimizer=gn.optim.Adam(lr=0.01), regularizer=decay)
    trainer.fit(x, y, epochs=epochs, batch_size=len(x), progress=False)
    return 1 - trainer.evaluate(x, y)["accuracy"], 1 - trainer.evaluate(test)["accuracy"]


def interval(values):
    """Return the mean and half of its 95 % interval, by the normal distribution."""
    return np.mean(values), 1.96 * np.std(values, ddof=1) / len(values) ** 0.5


PARTS = {
    "hidden units, one layer": [(width, (width, 1, 0.0)) for width in (3, 6, 20, 100)],
    "hidden layers of 20 units": [(depth, (20, depth, 0.0)) for depth in (1, 2, 3, 5)],
    "lambda, two layers of 100 units": [
        (penalty, (100, 2, penalty)) for penalty in (1e-4, 1e-3, 3e-3, 1e-2, 3e-2)
    ],
}


def main(short):
    seeds = range(3 if short else 20)
    figure, axes = gn.plot.figure(1, 3, width=4.2)
    for ax, (title, settings) in zip(axes, PARTS.items(), strict=True):
        settings = settings[1:-1] if short else settings
        found = []
        for value, setting in settings:
            both = np.array([errors(*setting, seed) for seed in seeds])
            (train, _), (test, half) = (interval(both[:, k]) for k in (0, 1))
            found.append((value, train, test, half))
            print(
                f"{title}: {value:6g}: training error {train:5.1%}, "
                f"on new points {test:5.1%} +- {half:.1%}"
            )
        x, train, test, half = np.array(found).T
        curves = {"training points": (x, train), "new points": (x, test)}
        gn.plot.series(curves, ax, title=title, xlabel=title.partition(",")[0], ylabel="error")
        ax.fill_between(x, test - half, test + half, alpha=0.2, linewidth=0)
        if title.startswith("lambda"):
            ax.set_xscale("log")
    return figure


if __name__ == "__main__":
    run(main)
