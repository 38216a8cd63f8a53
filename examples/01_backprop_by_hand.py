"""Backpropagation by hand: every error signal of a small network.

Lecture 003 (and 000): z = W1 x + b1, h = sigmoid(z), y = W2 h + b2, L = 1/2 |y - t|^2. A bar above
a name is the error signal, the derivative of the loss by that quantity.
"""

import numpy as np
from lesson import run

import gpunn as gn


def by_hand(w1, b1, w2, b2, x, t):
    """Compute the forward and the backward pass line by line, as the lecture writes them."""
    z = w1 @ x + b1
    h = 1 / (1 + np.exp(-z))
    y = w2 @ h + b2
    y_bar = y - t
    w2_bar = np.outer(y_bar, h)
    h_bar = w2.T @ y_bar
    z_bar = h_bar * h * (1 - h)
    w1_bar = np.outer(z_bar, x)
    above = {"y": y_bar, "W2": w2_bar, "b2": y_bar}
    return above | {"h1": h_bar, "z1": z_bar, "W1": w1_bar, "b1": z_bar}


def main(short):
    gn.manual_seed(4)
    net = gn.nn.Sequential(
        gn.nn.Linear(2, 3, "sigmoid", dtype="float64"), gn.nn.Linear(3, 2, dtype="float64")
    )
    x, t = np.array([1.0, -0.5]), np.array([0.0, 1.0])
    steps = gn.explain.network(net, x, t[None], reduction="sum")
    print(steps)

    hidden, output = (gn.backend().download(layer.W_col) for layer in net.layers)
    signals = by_hand(hidden, net[0].bias.numpy(), output, net[1].bias.numpy(), x, t)
    for name, signal in signals.items():
        tape = steps[name].grad.T if name in ("W1", "W2") else steps[name].grad.ravel()
        print(f"error signal of {name:2}: by hand - by tape = {np.abs(signal - tape).max():.1e}")
    title = "Error signals go back through the graph (orange)"
    return gn.plot.computation_graph(steps, title=title).figure


if __name__ == "__main__":
    run(main)
