"""ReLU folds the plane: points that no line separates become separable.

Lecture 001: h = max(0, W x) with two units maps one cone to the inside of a quadrant, two cones to
its edges and one cone to its corner.
"""

import numpy as np
from lesson import run

import gpunn as gn


def cross(n):
    """Return points of the plane; class 1 where one of two slanted coordinates is positive."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (n, 2)).astype(np.float32)
    side = x @ np.array([[1.0, 0.6], [-0.5, 1.0]], np.float32)
    keep = (np.abs(side) > 0.12).all(axis=1)
    return x[keep], (side > 0).any(axis=1)[keep].astype(int)


def animate(path, frames=36):
    """Write a GIF: the points under (1 - t) x + t W x, then under a growing ReLU."""
    from matplotlib.animation import FuncAnimation, PillowWriter

    x, y = cross(300)
    z = x @ np.array([[1.0, 0.6], [-0.5, 1.0]], np.float32)
    figure, ax = gn.plot.figure(width=3.2, height=3.2)
    dots = ax.scatter(*x.T, c=[gn.plot.PALETTE[label] for label in y], s=12)
    ax.set(xlim=(-1.6, 1.6), ylim=(-1.6, 1.6), xticks=[], yticks=[])

    def draw(frame):
        t = 2 * min(frame / (frames - 12), 1.0)
        part = x + min(t, 1.0) * (z - x) if t <= 1 else z - (t - 1) * np.minimum(z, 0)
        dots.set_offsets(part)
        ax.set_title("W x" if t <= 1 else "max(0, W x)", fontsize=10)

    FuncAnimation(figure, draw, frames).save(path, PillowWriter(fps=12), dpi=80)


def main(short):
    x, y = cross(200 if short else 500)
    fold = gn.nn.Linear(2, 2, "relu", bias=False)
    fold.load_state_dict({"weight": np.array([[1.0, 0.6], [-0.5, 1.0]])})
    folded = fold.predict(x)
    corner = (folded == 0).all(axis=1)
    print(f"{corner.sum()} points of class 0 end in the origin: {set(y[corner].tolist())}")
    print(f"{(folded == 0).any(axis=1).sum() - corner.sum()} points end on an edge of the quadrant")
    scores, lines = [], []
    for rows in (x, folded):
        gn.manual_seed(0)
        trainer = gn.Trainer(gn.nn.Linear(2, 2), optimizer=gn.optim.Adam(lr=0.1))
        trainer.fit(rows, y, epochs=300, batch_size=len(x), progress=False)
        scores.append(trainer.evaluate(rows, y)["accuracy"])
        lines.append(trainer.model)
    print(f"a line before folding: {scores[0]:.1%}, after: {scores[1]:.1%}")
    figure, axes = gn.plot.figure(1, 3, width=4)
    before, after = lines
    pictures = {
        "x, and a line": (before, x),
        "h = max(0, W x), and a line": (after, folded),
        "that line, seen in x": (gn.nn.Sequential(fold, after), x),
    }
    for ax, (title, (net, rows)) in zip(axes, pictures.items(), strict=True):
        gn.plot.decision_regions(net, rows, y, ax, title=title)
    return figure


if __name__ == "__main__":
    run(main)
