"""Activation functions with their derivatives, and the error of the approximation of GELU.

Lectures 000 to 004: two forms of the sigmoid, tanh as a scaled one, two derivatives of ReLU at 0.
"""

import numpy as np
from lesson import run

import gpunn as gn

LECTURED = (
    *("sigmoid", "tanh", "relu", "leaky_relu", "elu", "hard_threshold", "identity"),
    *("gelu", "gelu_sigmoid"),
)


def values(op, x):
    return op(gn.tensor(x)).numpy()


def main(short):
    x = np.linspace(-8, 8, 1601 if short else 160_001)
    s = values(gn.ops.sigmoid, x)
    forms = np.abs(s - np.exp(x) / (1 + np.exp(x))).max()
    print(f"1 / (1 + e^-x) - e^x / (1 + e^x): {forms:.1e}")
    scaled = np.abs(values(gn.ops.tanh, x / 2) - (2 * s - 1)).max()
    print(f"tanh(x) - (2 sigmoid(2x) - 1): {scaled:.1e}")
    gap = np.abs(values(gn.ops.gelu, x) - values(gn.ops.gelu_sigmoid, x))
    print(f"GELU - x sigmoid(1.702 x): at most {gap.max():.6f}, at x = {x[gap.argmax()]:.2f}")
    for op in (gn.ops.relu, gn.ops.relu_right):
        zero = gn.tensor(np.zeros(1), requires_grad=True)
        op(zero).sum().backward()
        slope = zero.backend.download(zero.grad)[0]
        print(f"derivative of {op.name} at 0: {slope:.0f}")
    figure, axes = gn.plot.figure(3, 3, width=3.4, height=2.6)
    for ax, name in zip(axes, LECTURED, strict=True):
        gn.plot.activation(name, ax)
        ax.set_ylim(-1.3, 2.2)
    return figure


if __name__ == "__main__":
    run(main)
