"""The computation graph fans out: error signals along all paths add up.

Lecture 003: f = y + exp(x y) with x = cos t and y = t^2, and softmax regression, where every score
reaches the loss through every probability.
"""

import numpy as np
from lesson import run

import gpunn as gn


def chain(t):
    x, y = gn.ops.cos(t), t * t
    return {"x": x, "y": y, "f": y + gn.ops.exp(x * y)}


def softmax_regression(x, w1, w2, t):
    z1, z2 = x * w1, x * w2
    e1, e2 = gn.ops.exp(z1), gn.ops.exp(z2)
    s = e1 + e2
    y1, y2 = e1 / s, e2 / s
    loss = -(gn.ops.log(y1) * t + gn.ops.log(y2) * (1.0 - t))
    return {"z1": z1, "z2": z2, "e1": e1, "e2": e2, "s": s, "y1": y1, "y2": y2, "L": loss}


def main(short):
    t = 0.7
    steps = gn.explain.function(chain, t=t)
    print(steps)
    x, y = np.cos(t), t**2
    by_rule = y * np.exp(x * y) * -np.sin(t) + (1 + x * np.exp(x * y)) * 2 * t
    tape = steps["t"].grad
    print(f"df/dt by the multivariate chain rule {by_rule:.12f}, by the tape {tape:.12f}")

    inputs = {"x": 1.5, "w1": 0.4, "w2": -0.2, "t": 0.9}
    fan = gn.explain.function(softmax_regression, constants=("x", "t"), **inputs)
    for z, target in (("z1", 0.9), ("z2", 0.1)):
        y = fan[z.replace("z", "y")].value
        print(f"error signal of {z}: {fan[z].grad:.15f} = y - t = {y - target:.15f}")
    figure, (above, below) = gn.plot.figure(2, 1, width=19, height=3.6)
    gn.plot.computation_graph(steps, above, title="f = y + exp(x y), x = cos t, y = t²")
    gn.plot.computation_graph(fan, below, title="softmax regression with two classes")
    return figure


if __name__ == "__main__":
    run(main)
