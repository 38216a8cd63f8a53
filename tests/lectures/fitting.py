"""What several tests of the lectures do: fit a small network, and a function to fit it to."""

import numpy as np

import gpunn as gn


def fitted(net, data, loss="softmax_cross_entropy", epochs=200, lr=0.05, **options):
    """The accuracy on the training data after full-batch Adam."""
    trainer = gn.Trainer(net, loss, gn.optim.Adam(lr=lr), **options)
    trainer.fit(data.x, data.y, epochs=epochs, batch_size=len(data.x), progress=False)
    return trainer.evaluate(data.x, data.y)["accuracy"]


def smooth(x):
    return np.sin(3 * x) + x / 2
