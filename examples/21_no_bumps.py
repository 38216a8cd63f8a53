"""Networks do not really learn bumps: the same 40 ReLUs, built and learned.

Lecture 001, "reality check". The built network is steep, and each bump matters in one place. The
learned one fits better and bends no more than the function; a unit matters on half of the interval.
"""

import numpy as np
from lesson import run

import gpunn as gn


def target(x):
    return np.sin(3 * x) + x / 2


def learned(x, epochs, seed=0):
    """Train the lecture's network on the target, with kinks that start all over [-2, 2].

    With biases of 0 all kinks would start at 0, and no training would fit the function.
    """
    gn.manual_seed(seed)
    hidden = gn.nn.Linear(1, 40, "relu", dtype="float64")
    kinks = np.random.default_rng(seed).uniform(-2, 2, 40)
    hidden.bias.data[:] = gn.backend().upload(-hidden.weight.numpy()[0] * kinks)
    net = gn.nn.Sequential(hidden, gn.nn.Linear(40, 1, dtype="float64"))
    trainer = gn.Trainer(net, "squared_error", gn.optim.Adam(lr=0.01), schedule="cosine")
    trainer.fit(x[::10], target(x[::10]), epochs=epochs, batch_size=401, progress=False)
    return net


def parts(net, x, together):
    """Return what each unit adds to the output, or what the units `together` of a bump add."""
    terms = net[0].predict(x) * net[1].weight.numpy()[:, 0]
    return terms.reshape(len(x), -1, together).sum(axis=2)


def shape(net, x, together):
    """Return the largest error, the sum of all changes of slope, and the reach of a part.

    The reach is the share of [-2, 2] on which the part is not 0; half of the parts have more.
    """
    y = net.predict(x)[:, 0]
    reach = np.median((np.abs(parts(net, x, together)) > 1e-9).mean(axis=0))
    error = np.abs(y - target(x)[:, 0]).max()
    return error, np.abs(np.diff(y, 2)).sum() / (x[1, 0] - x[0, 0]), reach


def main(short):
    x = np.linspace(-2, 2, 4001)[:, None]
    bumps = gn.nn.constructed.approximation(target, -2, 2, 10)
    nets = [learned(x, 2000 if short else 4000, seed) for seed in range(2 if short else 10)]
    curvature = np.abs(np.diff(target(x)[:, 0], 2)).sum() / 0.001
    print(f"the slope of the function changes by {curvature:.0f} in all")
    for name, models, together in (("10 bumps", [bumps], 4), ("learned", nets, 1)):
        error, bend, reach = np.array([shape(model, x, together) for model in models]).T
        print(
            f"{name:8}, 40 ReLUs, {len(models)} seeds: largest error {error.max():.2f}, the slope "
            f"changes by {bend.max():.0f}, half of the {'bumps' if together > 1 else 'units'} "
            f"reach over {reach.min():.0%} of the interval"
        )
    figure, axes = gn.plot.figure(1, 3, width=4.2)
    fits = {"target": target(x), "10 bumps": bumps.predict(x), "learned": nets[0].predict(x)}
    fits = {label: (x, y) for label, y in fits.items()}
    gn.plot.series(fits, axes[0], title="Built and learned, 40 ReLUs each", xlabel="x")
    for ax, net, together, title in (
        (axes[1], bumps, 4, "Five of the ten bumps"),
        (axes[2], nets[0], 1, "Five of the 40 learned units"),
    ):
        found = parts(net, x, together)
        chosen = range(0, found.shape[1], found.shape[1] // 5)
        lines = {f"{'bump' if together > 1 else 'unit'} {k + 1}": (x, found[:, k]) for k in chosen}
        gn.plot.series(lines, ax, title=title, xlabel="x", ylabel="added to y")
    return figure


if __name__ == "__main__":
    run(main)
