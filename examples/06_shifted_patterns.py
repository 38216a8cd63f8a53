"""Two patterns in all their shifts: no linear model tells them apart.

Lecture 003: over their 16 cyclic shifts, both patterns have the mean 1/4 in every pixel. A
half-space with all shifts of A contains this mean. The opposite half-space with all shifts of B
would contain it too, which is impossible.
"""

import numpy as np
from lesson import run

import gpunn as gn


def trained(net, data, epochs):
    trainer = gn.Trainer(net, optimizer=gn.optim.Adam(lr=0.02), seed=0)
    history = trainer.fit(data, epochs=epochs, batch_size=32, progress=False)
    return trainer.evaluate(data)["accuracy"], history["loss"]


def main(short):
    data = gn.data.shifted_patterns()
    for label, name in enumerate("AB"):
        mean = data.x[data.y == label].mean(axis=0)
        print(f"mean of {name} over its shifts: {np.unique(mean)}")
    gn.manual_seed(0)
    epochs = 150 if short else 600
    linear, losses = trained(gn.nn.Linear(16, 2), data, epochs)
    net = gn.nn.Sequential(gn.nn.Linear(16, 16, "relu"), gn.nn.Linear(16, 2))
    hidden, hidden_losses = trained(net, data, epochs)
    print(f"linear: {linear:.1%} of 32 right, loss {losses[-1]:.4f} (ln 2 = {np.log(2):.4f})")
    print(f"16 hidden units: {hidden:.1%} right, loss {hidden_losses[-1]:.4f}")
    figure, (left, right) = gn.plot.figure(1, 2)
    left.imshow(data.x, cmap="Blues", aspect="auto", interpolation="nearest")
    left.axhline(15.5, color="black")
    left.set(title="A (above) and B in 16 shifts", xlabel="pixel", ylabel="example")
    steps = range(1, epochs + 1)
    curves = {"linear": (steps, losses), "16 hidden units": (steps, hidden_losses)}
    gn.plot.series(curves, right, xlabel="epoch", ylabel="loss", scale="log", title="Training")
    return figure


if __name__ == "__main__":
    run(main)
