"""Universal approximation: bumps, indicators, and one unit for each configuration.

Lectures 001 and 003: four ReLUs make a bump, and K bumps approximate any function. Two thresholds
make an indicator, and scaled sigmoids approach thresholds. 2^D units compute any Boolean function.
"""

import itertools

import numpy as np
from lesson import run

import gpunn as gn

build = gn.nn.constructed


def target(x):
    return np.sin(3 * x) + x / 2


def main(short):
    x = np.linspace(-2, 2, 4001)[:, None]
    for k in (10, 20, 40, 80):
        error = np.abs(build.approximation(target, -2, 2, k).predict(x) - target(x)).max()
        print(f"{k:3} bumps ({4 * k} ReLUs): largest error {error:.4f}, times K {error * k:.2f}")
    exact = build.threshold_indicator(1, 2).predict(np.array([[0.999], [1.5], [2.001]]))
    print(f"indicator of [1, 2] by thresholds at 0.999, 1.5, 2.001: {exact[:, 0]}")
    bits = np.array(list(itertools.product((0.0, 1.0), repeat=10)))
    values = np.random.default_rng(0).integers(0, 2, 1024)
    wrong = (build.boolean(values, 10).predict(bits)[:, 0] != values).sum()
    print(f"a random function of 10 bits by 1024 units: {wrong} of 1024 values wrong")

    figure, axes = gn.plot.figure(1, 3, width=4.2)
    wide = np.linspace(0, 4, 801)[:, None]
    step = build.threshold_indicator(1, 2)
    curves = {"bump of 4 ReLUs": build.relu_bump(1.1, 1.9, 0.1), "2 thresholds": step}
    ready = {label: (wide, model.predict(wide)) for label, model in curves.items()}
    gn.plot.series(ready, axes[0], title="The indicator of [1, 2]", xlabel="x")
    scaled = {f"sigmoid({k} x)": (x, gn.ops.sigmoid(gn.tensor(k * x)).numpy()) for k in (2, 10, 50)}
    gn.plot.series(scaled, axes[1], title="Scaled sigmoids become a step", xlabel="x")
    fits = {f"{k} bumps": (x, build.approximation(target, -2, 2, k).predict(x)) for k in (10, 40)}
    gn.plot.series({"target": (x, target(x)), **fits}, axes[2], title="Sums of bumps", xlabel="x")
    return figure


if __name__ == "__main__":
    run(main)
