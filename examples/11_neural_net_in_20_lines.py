"""The neural net in fewer than 20 lines: the lecture's listing, with the lecture's numbers.

Lecture 001: a sigmoid layer, a linear layer, the summed squared error, plain gradient descent.
"""

import numpy as np
from lesson import run

import gpunn as gn


def losses(steps: int) -> list[float]:
    """Return the loss before each step; the first is 24635.893498628233."""
    np.random.seed(0)  # noqa: NPY002 - the lecture's own numbers
    n, d_in, h, d_out = 64, 1000, 100, 10
    x, y = np.random.randn(n, d_in), np.random.randn(n, d_out)  # noqa: NPY002
    w1 = gn.tensor(np.random.randn(d_in, h), requires_grad=True)  # noqa: NPY002
    w2 = gn.tensor(np.random.randn(h, d_out), requires_grad=True)  # noqa: NPY002
    x, y = gn.tensor(x), gn.tensor(y)
    optimizer = gn.optim.SGD([w1, w2], lr=1e-4)
    curve = []
    for _ in range(steps):
        loss = gn.ops.squared_error(gn.ops.sigmoid(x @ w1) @ w2, y, reduction="sum")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        curve.append(loss.item())
    return curve


def main(short):
    curve = losses(101 if short else 10_000)
    for t in (0, 100, 1000, 9999):
        if t < len(curve):
            print(f"step {t:5}: loss {curve[t]!r}")
    labels = {"xlabel": "step", "ylabel": "summed squared error", "scale": "log"}
    curves = {"loss": (range(1, len(curve) + 1), curve)}
    return gn.plot.series(curves, title="The lecture's network", **labels).figure


if __name__ == "__main__":
    run(main)
