"""Regularise with L2, not with size: 20 hidden units and lambda = 0.001, 0.01, 0.1.

Lecture 001: a stronger penalty lambda |W|^2 gives smaller weights and a smoother boundary, with the
same number of units.
"""

import numpy as np
from lesson import run

import gpunn as gn


def trained(strength, data, epochs):
    gn.manual_seed(0)
    net = gn.nn.Sequential(gn.nn.Linear(2, 20, "relu"), gn.nn.Linear(20, 2))
    penalty = gn.optim.L2(strength)
    trainer = gn.Trainer(net, optimizer=gn.optim.Adam(lr=0.02), regularizer=penalty)
    trainer.fit(data, epochs=epochs, batch_size=len(data.x), progress=False)
    return net, trainer.evaluate(data)["accuracy"]


def variation(net, side=80):
    """Return the total variation of the difference of the two scores over the plane."""
    axis = np.linspace(-6, 6, side, dtype=np.float32)
    scores = net.predict(np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2))
    surface = (scores[:, 1] - scores[:, 0]).reshape(side, side)
    return sum(float(np.abs(np.diff(surface, axis=k)).sum()) for k in (0, 1)) / side


def main(short):
    data = gn.data.circles(120, noise=0.25, seed=1)
    data = gn.data.Dataset(4 * data.x, data.y)
    figure, axes = gn.plot.figure(1, 3, width=4)
    for ax, strength in zip(axes, (0.001, 0.01, 0.1), strict=True):
        net, accuracy = trained(strength, data, 300 if short else 3000)
        size = sum(float(np.square(layer.weight.numpy()).sum()) for layer in net.layers)
        print(
            f"lambda {strength:5}: |W|^2 {size:8.3f}, total variation {variation(net):7.2f}, "
            f"training accuracy {accuracy:.1%}"
        )
        gn.plot.decision_regions(net, data.x, data.y, ax, title=f"$\\lambda$ = {strength}")
    return figure


if __name__ == "__main__":
    run(main)
