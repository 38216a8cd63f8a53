"""Handwritten digits: softmax regression, then 50 hidden units, and the filters of both.

Lecture 003: 784-10, then 784-50-10. Lecture 004 shows the first-layer filters of AlexNet, whose
weights do not come with gpunn. The filters here are those of the two networks. The short form takes
8 x 8 digits.
"""

import numpy as np
from lesson import run

import gpunn as gn


def main(short):
    if short:
        (train, test), side = gn.data.load_digits().split(0.2, stratify=True), 8
        train, test = (gn.data.Dataset(d.x / train.x.max(), d.y) for d in (train, test))
    else:
        (train, test), side = gn.data.load_mnist(), 28
    pixels, epochs = side**2, 30 if short else 20
    gn.manual_seed(0)
    nets = {
        f"{pixels}-10": gn.nn.Sequential(gn.nn.Linear(pixels, 10)),
        f"{pixels}-50-10": gn.nn.Sequential(gn.nn.Linear(pixels, 50, "relu"), gn.nn.Linear(50, 10)),
    }
    figure, axes = gn.plot.figure(2, 2, width=5.4, height=3.6)
    for (name, net), filters, columns in zip(nets.items(), axes[:2], (5, 10), strict=True):
        decay = gn.optim.L2(1e-4) if "-50-" in name else None
        trainer = gn.Trainer(
            net, optimizer=gn.optim.Adam(lr=0.003), seed=0, schedule="cosine", regularizer=decay
        )
        history = trainer.fit(train, epochs=epochs, validation=test, progress=False)
        error = 100 - 100 * trainer.evaluate(test)["accuracy"]
        seconds = np.sum(history["seconds"])
        print(f"{name}: test error {error:.2f} % after {epochs} epochs, {seconds:.1f} s")
        gn.plot.filters(
            net[0], (side, side), filters, columns=columns, title=f"{name}: first layer"
        )
    gn.plot.learning_curve(history, axes[2], title=name)
    names = [str(k) for k in range(10)]
    title = f"{name}, test data"
    gn.plot.confusion_matrix(test.y, net.classify(test.x), axes[3], names=names, title=title)
    return figure


if __name__ == "__main__":
    run(main)
