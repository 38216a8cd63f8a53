"""A neural network at work: the boundary after t steps of gradient descent.

Lecture 004: with the perceptron loss, after enough iterations all points are on the right side,
as for the perceptron, "but even if the data is not separable" by a line.
"""

import numpy as np
from lesson import run

import gpunn as gn

STEPS = (0, 10, 100, 1000)


def data(short):
    """Return circles and spirals, which no line separates."""
    n = 60 if short else 100
    return {
        "circles": gn.data.circles(n, noise=0.1, seed=0),
        "spirals": gn.data.spirals(n, classes=2, noise=0.05, seed=0),
    }


def at_work(points, seed, steps=STEPS, width=32):
    """Train on the perceptron loss; yield steps, the number of wrong points, loss and network.

    A point on the boundary counts as wrong.
    """
    gn.manual_seed(seed)
    layers = (gn.nn.Linear(2, width, "relu"), gn.nn.Linear(width, width, "relu"))
    net = gn.nn.Sequential(*layers, gn.nn.Linear(width, 1))
    trainer = gn.Trainer(net, "perceptron", gn.optim.Adam(lr=0.003))
    t = (2 * points.y - 1).astype(np.float32)[:, None]
    done = 0
    for until in steps:
        if until > done:
            fit = {"epochs": until - done, "batch_size": len(t), "progress": False}
            trainer.fit(points.x, t, **fit)  # an epoch of one batch is a step
            done = until
        z = net.predict(points.x)
        yield until, int((z * t <= 0).sum()), float(np.maximum(0, -z * t).mean()), net


def by_a_line(points):
    """Return the fewest wrong points that a line leaves after the same training."""
    t = 2.0 * points.y - 1
    wrong = []
    for seed in range(5):
        gn.manual_seed(seed)
        trainer = gn.Trainer(gn.nn.Linear(2, 1), "perceptron", gn.optim.Adam(lr=0.01))
        trainer.fit(points.x, t[:, None], epochs=500, batch_size=len(t), progress=False)
        wrong.append(int((trainer.model.predict(points.x)[:, 0] * t <= 0).sum()))
    return min(wrong)


def main(short):
    seeds = 2 if short else 10
    figure, axes = gn.plot.figure(2, len(STEPS), width=3.4)
    rows = axes[: len(STEPS)], axes[len(STEPS) :]
    for row, (name, points) in zip(rows, data(short).items(), strict=True):
        print(f"{name}: {len(points)} points, a line leaves {by_a_line(points)} wrong")
        curves = [[found[:3] for found in at_work(points, seed)] for seed in range(1, seeds)]
        for ax, (steps, wrong, loss, net) in zip(row, at_work(points, 0), strict=True):
            title = f"{name}, t = {steps}: {wrong} wrong"
            gn.plot.decision_regions(net, points.x, points.y, ax, title=title)
            others = [next(w for s, w, _ in curve if s == steps) for curve in curves]
            print(
                f"{name}, t = {steps:4}: loss {loss:.4f}, {wrong} wrong; "
                f"of {seeds} seeds at most {max([wrong, *others])} wrong"
            )
    return figure


if __name__ == "__main__":
    run(main)
