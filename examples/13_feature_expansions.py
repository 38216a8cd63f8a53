"""Features made by hand, by products and at random, each with a linear model.

Lectures 002 and 004: phi = [1; |x1 - x2|]; the surface of two sigmoid units; all products x_i x_j;
random projections rho(w . x).
"""

import numpy as np
from lesson import run

import gpunn as gn


def band(n):
    """Return points of the plane; class 1 is far from the diagonal."""
    x = np.random.default_rng(0).uniform(-1, 1, (n, 2)).astype(np.float32)
    gap = np.abs(x[:, 0] - x[:, 1])
    return x[np.abs(gap - 0.6) > 0.05], (gap > 0.6).astype(int)[np.abs(gap - 0.6) > 0.05]


def two_sigmoids():
    """Return a layer of the lecture's unit sigma(-5 x1 + 5 x2 + 1) and its mirror image."""
    layer = gn.nn.Linear(2, 2, "sigmoid")
    layer.load_state_dict({"weight": np.array([[-5.0, 5.0], [5.0, -5.0]]), "bias": np.ones(2)})
    return layer


def main(short):
    x, y = band(300)
    gn.manual_seed(0)
    maps = {
        "x itself": (gn.nn.Activate("identity"), 2),
        "[1; |x1 - x2|]": (gn.nn.DifferenceFeature(), 2),
        "two sigmoid units": (two_sigmoids(), 2),
        "all products": (gn.nn.QuadraticFeatures(), 5),
        "100 random ReLUs": (gn.nn.RandomFeatures(2, 100, "relu"), 100),
    }
    figure, axes = gn.plot.figure(2, 3, width=3.6, height=3.2)
    for ax, (name, (features, count)) in zip(axes, maps.items(), strict=False):
        head = gn.nn.Linear(count, 2)
        net = gn.nn.Sequential(features, head)
        trainer = gn.Trainer(net, optimizer=gn.optim.Adam(head.parameters(), lr=0.3))
        trainer.fit(x, y, epochs=300 if short else 1500, batch_size=len(x), progress=False)
        accuracy = trainer.evaluate(x, y)["accuracy"]
        print(f"linear model on {name:17}: {accuracy:.1%}")
        gn.plot.decision_regions(net, x, y, ax, title=f"{name}: {accuracy:.0%}")

    counts, curves = (2, 5, 10, 20, 40, 80, 160), {}
    for points in (30, 60, 120):
        shares = []
        for h in counts:
            right = []
            for seed in range(3 if short else 20):
                rng = np.random.default_rng(seed)
                z, labels = rng.standard_normal((points, 5)), rng.choice([-1.0, 1.0], points)
                phi = gn.nn.RandomFeatures(5, h, "tanh", seed=seed, dtype="float64").predict(z)
                phi = np.hstack([phi, np.ones((points, 1))])
                w = np.linalg.lstsq(phi, labels, rcond=None)[0]
                right.append((np.sign(phi @ w) == labels).mean())
            shares.append(float(np.mean(right)))
        curves[f"{points} points"] = (counts, shares)
        print(f"{points:3} points with random labels, {counts} features: {np.round(shares, 2)}")
    gn.plot.series(curves, axes[5], xlabel="random features", title="Random labels", ylabel="right")
    axes[5].set_xscale("log")
    return figure


if __name__ == "__main__":
    run(main)
