"""Dead ReLUs and vanishing gradients: two reports that show the faults of a network.

Lectures 002 and 003: a ReLU with a very negative bias passes no gradient, and sigmoids shrink the
gradient from layer to layer. Lecture 004: vanishing and exploding gradients.
"""

import numpy as np
from lesson import run

import gpunn as gn


def deep(activation, layers, gain=1.0):
    gn.manual_seed(0)
    net = gn.nn.Sequential(
        *(gn.nn.Linear(50, 50, activation, init="he_normal") for _ in range(layers)),
        gn.nn.Linear(50, 1),
    )
    for layer in net.layers:
        layer.weight.data *= gain
    return net


def main(short):
    x = np.random.default_rng(0).standard_normal((256, 50)).astype(np.float32)
    figure, (left, right) = gn.plot.figure(1, 2)
    layers = 10 if short else 20
    cases = (("sigmoid", 1.0), ("tanh", 0.7), ("tanh", 3.0), ("relu", 1.0))
    for activation, gain in cases:
        net = deep(activation, layers, gain)
        net(net.backend.upload(x)).sum().backward()
        norms = list(gn.nn.gradient_norms(net).values())
        label = f"{activation}, He's weights x {gain}"
        print(f"{label:30}: gradient norm of layer 1 / layer {layers}: {norms[0] / norms[-2]:.2e}")
        gn.plot.gradient_norms(net, left, label=label, title=f"{layers} layers of 50 units")
    net = deep("relu", 3)
    for number, shift in enumerate((0.0, -2.0, -6.0)):
        bias = net[number].bias.numpy() + shift
        net[number].load_state_dict({"weight": net[number].weight.numpy(), "bias": bias})
    reports = gn.nn.dead_units(net, net.backend.upload(x))
    for (name, report), shift in zip(reports.items(), (0, -2, -6), strict=True):
        share = f"{report.fraction:.0%} dead, mean slope {report.slope.mean():.2f}"
        print(f"ReLU layer {name} with biases {shift:+}: {share}")
    gn.plot.dead_units(reports, right, title="Biases 0, -2 and -6")
    return figure


if __name__ == "__main__":
    run(main)
