"""Networks build compact representations: a few learned units against many fixed ones.

Lecture 004: a learned representation is almost as predictive as an exhaustive set of neurons, but
much more compact. The target depends on three directions in a space of ten dimensions.
"""

import numpy as np
from lesson import run

import gpunn as gn

D = 10


def points(n, seed):
    """Return n points and targets with standard deviation 1."""
    x = np.random.default_rng(seed).uniform(-1, 1, (n, D))
    w = np.random.default_rng(99).standard_normal((D, 3))
    a, b, c = (x @ (w / np.linalg.norm(w, axis=0))).T
    y = np.tanh(3 * a) + np.maximum(0, 2 * b) - np.maximum(0, 2 * c)
    return x.astype(np.float32), (y / 1.18).astype(np.float32)[:, None]


def head(features, train, test, penalty=1e-3):
    """Fit linear weights on fixed features by the closed form; return the error on test points."""
    rows = [np.hstack([features(x), np.ones((len(x), 1))]).astype(float) for x, _ in (train, test)]
    gram = rows[0].T @ rows[0] + penalty * np.eye(rows[0].shape[1])
    w = np.linalg.solve(gram, rows[0].T @ train[1])
    return float(np.sqrt(np.mean((rows[1] @ w - test[1]) ** 2)))


def polynomial(degree, train, test):
    """Return the number of products and the error."""
    layer = gn.nn.PolynomialFeatures(D, degree)
    return len(layer.factors()), head(layer.predict, train, test)


def random(width, seed, train, test):
    """Return the error of random ReLU units, with a random threshold each."""
    layer = gn.nn.RandomFeatures(D + 1, width, "relu", seed=seed)
    one = lambda x: np.hstack([x, np.ones((len(x), 1), np.float32)])  # noqa: E731
    return head(lambda x: layer.predict(one(x)), train, test)


def learned(width, seed, train, test, epochs):
    """Return the error of learned ReLU units."""
    gn.manual_seed(seed)
    net = gn.nn.Sequential(gn.nn.Linear(D, width, "relu"), gn.nn.Linear(width, 1))
    rule, more = gn.optim.Adam(lr=0.01), {"schedule": "cosine", "seed": seed}
    trainer = gn.Trainer(net, "squared_error", rule, **more)
    trainer.fit(*train, epochs=epochs, batch_size=50, progress=False)
    return float(np.sqrt(np.mean((net.predict(test[0]) - test[1]) ** 2)))


def main(short):
    train, test = points(3000, 0), points(3000, 1)
    seeds, epochs = range(1 if short else 3), 40 if short else 100
    degrees, widths = ((1, 2, 3), (16, 256)) if short else ((1, 2, 3, 4), (16, 64, 256, 1024, 2048))
    curves = {
        "all products": [polynomial(degree, train, test) for degree in degrees],
        "random units": [
            (h, np.median([random(h, s, train, test) for s in seeds])) for h in widths
        ],
        "learned units": [
            (h, np.median([learned(h, s, train, test, epochs) for s in seeds]))
            for h in ((4, 8) if short else (2, 4, 8, 16, 32))
        ],
    }
    for name, found in curves.items():
        for width, error in found:
            numbers = width * (D + 2) + 1 if name == "learned units" else width + 1
            print(f"{name:13}: {width:4} features, {numbers:4} trained numbers, error {error:.3f}")
    lines = {name: tuple(zip(*found, strict=True)) for name, found in curves.items()}
    labels = {"xlabel": "features", "ylabel": "error on new points", "scale": "log"}
    ax = gn.plot.series(lines, title="Learned features are compact", **labels)
    ax.set_xscale("log")
    return ax.figure


if __name__ == "__main__":
    run(main)
