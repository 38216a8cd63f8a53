"""Feedback alignment: errors go back through fixed random weights, with and without weight decay.

Lecture 000, arXiv 2106.06044: in the paper's linear network only regularisation turns the forward
weights towards the random feedback weights. On digits they turn without it (here 8 x 8, if short).
"""

import numpy as np
from lesson import run

import gpunn as gn


class Angle(gn.train.Callback):
    """A callback that notes the angle between feedback and forward weights after each epoch."""

    def __init__(self, layer):
        self.layer, self.degrees = layer, [layer.alignment()]

    def on_epoch_end(self, trainer, epoch, history):  # noqa: D102
        self.degrees.append(self.layer.alignment())


def linear_network(penalty, epochs):
    """Train a 20-50-1 network without activations on a linear target, as in the paper."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((50, 20))
    y = x @ rng.standard_normal((20, 1)) / np.sqrt(20)
    gn.manual_seed(0)
    options = {"dtype": "float64", "bias": False, "init": "lecun_normal"}
    head = gn.nn.FeedbackLinear(50, 1, **options)
    net = gn.nn.Sequential(gn.nn.Linear(20, 50, **options), head)
    angle, decay = Angle(head), gn.optim.L2(penalty) if penalty else None
    trainer = gn.Trainer(net, "half_squared_error", gn.optim.SGD(lr=0.05), regularizer=decay)
    fit = {"epochs": epochs, "batch_size": 50, "callbacks": [angle], "progress": False}
    return trainer.fit(x, y, **fit)["loss"], angle.degrees


def digits_network(data, hidden, epochs, penalty, layer):
    """Train a sigmoid network on digits; return the test error and the angles with feedback."""
    train, test = data
    gn.manual_seed(0)
    head = layer(hidden, 10)
    net = gn.nn.Sequential(gn.nn.Linear(train.x.shape[1], hidden, "sigmoid"), head)
    callbacks = [Angle(head)] if layer is gn.nn.FeedbackLinear else []
    decay = gn.optim.L2(penalty) if penalty else None
    trainer = gn.Trainer(net, optimizer=gn.optim.SGD(lr=0.5), seed=0, regularizer=decay)
    trainer.fit(train, epochs=epochs, batch_size=64, callbacks=callbacks, progress=False)
    error = 100 - 100 * trainer.evaluate(test)["accuracy"]
    return error, callbacks[0].degrees if callbacks else None


def main(short):
    figure, axes = gn.plot.figure(1, 3, width=4.2)
    epochs = 600 if short else 2000
    runs = {f"decay {p}": linear_network(p, epochs) for p in (0, 0.01, 0.05)}
    for name, (loss, degrees) in runs.items():
        turn = f"angle {degrees[0]:.0f} -> {degrees[-1]:.1f} degrees"
        print(f"linear network, {name}: loss with penalty {loss[-1]:.1e}, {turn}")
    steps = range(1, epochs + 2)
    labels = {"xlabel": "step", "title": "Linear network 20-50-1"}
    losses = {name: (steps[:-1], loss) for name, (loss, _) in runs.items()}
    gn.plot.series(losses, axes[0], ylabel="loss with penalty", scale="log", **labels)
    angles = {name: (steps, degrees) for name, (_, degrees) in runs.items()}
    gn.plot.series(angles, axes[1], ylabel="angle (degrees)", **labels)
    data = gn.data.load_digits().split(0.2, stratify=True) if short else gn.data.load_mnist()
    data = [gn.data.Dataset(d.x / data[0].x.max(), d.y) for d in data]
    hidden, epochs, curves = (100, 10, {}) if short else (1000, 10, {})
    for penalty in (0, 1e-4, 1e-3):
        error, _ = digits_network(data, hidden, epochs, penalty, gn.nn.Linear)
        other, degrees = digits_network(data, hidden, epochs, penalty, gn.nn.FeedbackLinear)
        curves[f"decay {penalty}"] = (range(len(degrees)), degrees)
        turn = f"angle {degrees[0]:.1f} -> {degrees[-1]:.1f}"
        errors = f"backprop {error:.2f} % wrong, feedback alignment {other:.2f} %"
        print(f"digits, {hidden} hidden units, decay {penalty}: {errors}, {turn}")
    title = f"{data[0].x.shape[1]}-{hidden}-10, digits"
    gn.plot.series(curves, axes[2], xlabel="epoch", ylabel="angle (degrees)", title=title)
    return figure


if __name__ == "__main__":
    run(main)
