"""Convexity: linear scores have one minimum, networks have many.

Lecture 001: most linear classifiers optimise a convex function, networks need non-convex
optimisation and mostly end in a local optimum. Lecture 004: no closed form, nor convexity.
"""

import numpy as np
from lesson import run

import gpunn as gn

KIND = {"dtype": "float64"}


def noisy_xor(copies=15):
    four = gn.data.xor()
    noise = np.random.default_rng(0).normal(0, 0.3, (4 * copies, 2))
    return np.tile(four.x, (copies, 1)) + noise, np.tile(four.y, copies)


def linear(seed):
    gn.manual_seed(seed)
    return gn.nn.Sequential(gn.nn.Linear(2, 2, init="he_normal", **KIND))


def network(seed, width=3):
    gn.manual_seed(seed)
    return gn.nn.Sequential(gn.nn.Linear(2, width, "tanh", **KIND), gn.nn.Linear(width, 2, **KIND))


def trained(net, x, y, epochs):
    trainer = gn.Trainer(net, optimizer=gn.optim.Adam(lr=0.1), schedule="cosine")
    trainer.fit(x, y, epochs=epochs, batch_size=len(x), progress=False)
    return trainer.evaluate(x, y)["loss"]


def along(net, a, b, x, y, loss=gn.ops.softmax_cross_entropy, steps=41):
    """Return the loss on the straight line from the state a of a network to the state b."""
    found = []
    for t in np.linspace(0, 1, steps):
        net.load_state_dict({name: (1 - t) * a[name] + t * b[name] for name in a})
        found.append(float(loss(gn.tensor(net.predict(x)), y).item()))
    return np.array(found)


def mirrored(state):
    """Return the state with the order of the hidden units reversed: the same function."""
    first = {"0.weight": state["0.weight"][:, ::-1], "0.bias": state["0.bias"][::-1]}
    return {**state, **first, "1.weight": state["1.weight"][::-1]}


def main(short):
    x, y = noisy_xor()
    seeds, epochs = range(5 if short else 30), 300 if short else 1000
    for name, make in (("linear scores", linear), ("networks 2-3-2", network)):
        losses = [trained(make(seed), x, y, epochs) for seed in seeds]
        ends = f"{len(losses)} seeds end in {len(set(np.round(losses, 3)))} minima"
        print(f"{name:14}: {ends}, with losses from {min(losses):.4f} to {max(losses):.4f}")
    rng, shapes = np.random.default_rng(0), linear(0).state_dict()
    ends = [{k: 3 * rng.standard_normal(v.shape) for k, v in shapes.items()} for _ in range(6)]
    lines = [along(linear(0), a, b, x, y) for a, b in zip(ends[:3], ends[3:], strict=True)]
    bend = min(np.diff(line, 2).min() for line in lines)
    print(f"linear scores: the smallest second difference on {len(lines)} lines is {bend:.1e}")
    net = network(0)
    trained(net, x, y, epochs)
    curve = along(network(0), net.state_dict(), mirrored(net.state_dict()), x, y)
    words = f"{curve[0]:.3f} at a minimum and its mirror image, {curve[20]:.3f} half way between"
    print(f"network: loss {words}")
    figure, (left, right) = gn.plot.figure(1, 2)
    t, labels = np.linspace(0, 1, 41), {"xlabel": "position on the line", "ylabel": "loss"}
    curves = {f"line {k + 1}": (t, line) for k, line in enumerate(lines)}
    gn.plot.series(curves, left, title="Linear scores: convex", **labels)
    mirror = {"to its mirror image": (t, curve)}
    gn.plot.series(mirror, right, title="A network: not convex", **labels)
    return figure


if __name__ == "__main__":
    run(main)
