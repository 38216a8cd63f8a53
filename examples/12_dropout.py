"""Dropout: vanilla and inverted, the ensemble that it trains, and the average of the ensemble.

Lecture 001: dropout applies a mask in training. At test time, vanilla dropout scales the units and
inverted dropout does nothing. For one hidden layer, a softmax and the rate 1/2, the scaled network
is exactly the geometric mean of all 2^H thinned networks.
"""

import itertools
import math

import numpy as np
from lesson import run

import gpunn as gn


def exact_facts():
    """Print the slide's example, the geometric mean of 1024 networks and the number of masks."""
    w1, w2, x, y = 0.75, -1.5, 2.0, 3.0
    mean = sum(a * w1 * x + b * w2 * y for a, b in itertools.product((0, 1), repeat=2)) / 4
    print(f"mean of the slide's four masks {mean}, half of the full sum {(w1 * x + w2 * y) / 2}")
    rng = np.random.default_rng(0)
    h, w, bias = rng.standard_normal(10), rng.standard_normal((10, 4)), rng.standard_normal(4)
    masks = np.array(list(itertools.product((0.0, 1.0), repeat=10)))
    thinned = gn.ops.softmax(gn.tensor((masks * h) @ w + bias)).numpy()
    geometric = np.exp(np.log(thinned).mean(axis=0))
    scaled = gn.ops.softmax(gn.tensor(((0.5 * h) @ w + bias)[None])).numpy()[0]
    difference = np.abs(geometric / geometric.sum() - scaled).max()
    print(f"geometric mean of 1024 networks - scaled network: {difference:.1e}")
    print(f"masks of 4096 units: 10^{4096 * math.log10(2):.2f}")


def monte_carlo(net, test, counts):
    """Return the test error of the average prediction of k masks, for each k."""
    net.train()
    x, total, errors = net.backend.upload(test.x), 0.0, []
    with gn.no_grad():
        for k in range(1, max(counts) + 1):
            total = total + gn.ops.softmax(net(x)).numpy()
            if k in counts:
                errors.append(100 * float((total.argmax(axis=1) != test.y).mean()))
    return errors


def main(short):
    exact_facts()
    train, test = gn.data.load_digits().split(0.5, stratify=True)
    epochs = 10 if short else 200
    figure, (left, right) = gn.plot.figure(1, 2)
    curves = {}
    kinds = {"no dropout": None, "vanilla": gn.nn.VanillaDropout, "inverted": gn.nn.Dropout}
    for name, kind in kinds.items():
        gn.manual_seed(0)
        between = [kind(0.5)] if kind else []
        net = gn.nn.Sequential(gn.nn.Linear(64, 256, "relu"), *between, gn.nn.Linear(256, 10))
        trainer = gn.Trainer(net, optimizer=gn.optim.Adam(lr=0.002), seed=0)
        history = trainer.fit(train, epochs=epochs, validation=test, progress=False)
        error = 100 - 100 * trainer.evaluate(test)["accuracy"]
        curves[name] = (range(1, epochs + 1), history["val_loss"])
        print(f"{name:10}: test error {error:.2f} %, test loss {history['val_loss'][-1]:.4f}")
    gn.plot.series(curves, left, xlabel="epoch", ylabel="test loss", scale="log", title="Digits")
    counts = (1, 2, 5, 10, 20, 50, 100)[: 4 if short else 7]
    errors = monte_carlo(net, test, counts)
    for k, value in zip(counts, errors, strict=True):
        print(f"average over {k:3} masks: test error {value:.2f} %; weight scaling {error:.2f} %")
    both = {
        "average over k masks": (counts, errors),
        "weight scaling": (counts, [error] * len(counts)),
    }
    gn.plot.series(both, right, xlabel="k", ylabel="test error (%)", title="Monte Carlo")
    right.set_xscale("log")
    return figure


if __name__ == "__main__":
    run(main)
