"""More hidden units, more capacity: 3, 6 and 20 units on the same points.

Lecture 001: with more units the boundary can bend more often, so the training error does not rise.
"""

import numpy as np
from lesson import run

import gpunn as gn


def trained(width, data, epochs, seed):
    gn.manual_seed(seed)
    net = gn.nn.Sequential(gn.nn.Linear(2, width, "relu"), gn.nn.Linear(width, 2))
    trainer = gn.Trainer(net, optimizer=gn.optim.Adam(lr=0.03), seed=seed)
    trainer.fit(data, epochs=epochs, batch_size=len(data.x), progress=False)
    return net, 1 - trainer.evaluate(data)["accuracy"]


def main(short):
    data = gn.data.spirals(150, classes=2, noise=0.1)
    seeds, epochs = (3, 300) if short else (11, 1000)
    figure, axes = gn.plot.figure(1, 3, width=4)
    for ax, width in zip(axes, (3, 6, 20), strict=True):
        found = [trained(width, data, epochs, seed) for seed in range(seeds)]
        errors = [error for _, error in found]
        middle = int(np.argsort(errors)[seeds // 2])
        print(
            f"{width:2} units: median training error {errors[middle]:.1%} over {seeds} seeds, "
            f"from {min(errors):.1%} to {max(errors):.1%}"
        )
        title = f"{width} hidden units, {errors[middle]:.0%} wrong"
        gn.plot.decision_regions(found[middle][0], data.x, data.y, ax, title=title)
    return figure


if __name__ == "__main__":
    run(main)
