"""Lecture 001's "neural net in <20 lines": sigmoid layer, linear layer, summed squared error."""

import sys

import numpy as np

import gpunn as gn


def losses(steps: int) -> list[float]:
    """The loss before each step; the first is 24635.893498628233."""
    np.random.seed(0)  # noqa: NPY002 - the lecture's own numbers
    n, d_in, h, d_out = 64, 1000, 100, 10
    x, y = np.random.randn(n, d_in), np.random.randn(n, d_out)  # noqa: NPY002
    w1 = gn.tensor(np.random.randn(d_in, h), requires_grad=True)  # noqa: NPY002
    w2 = gn.tensor(np.random.randn(h, d_out), requires_grad=True)  # noqa: NPY002
    optimizer = gn.optim.SGD([w1, w2], lr=1e-4)
    curve = []
    for _ in range(steps):
        loss = gn.ops.squared_error(gn.ops.sigmoid(x @ w1) @ w2, y, reduction="sum")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        curve.append(loss.item())
    return curve


if __name__ == "__main__":
    for t, value in enumerate(losses(11 if "--short" in sys.argv else 1001)):
        if t in (0, 10, 100, 1000):
            print(f"step {t:5}: loss {value!r}")
