"""A training step of scikit-learn: `partial_fit` of a multilayer perceptron on one batch."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.benchmarks.networks import LR, MOMENTUM, Network
from gpunn.benchmarks.timing import Work


def sklearn_step(network: Network, rule: str) -> Work:
    """Build a step of one call of `partial_fit`, which is one update."""
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    x, y = network.examples()
    options: dict[str, Any] = {
        "hidden_layer_sizes": network.sizes[1:-1],
        "activation": {"relu": "relu", "sigmoid": "logistic"}[network.activation],
        "solver": rule,
        "alpha": 0.0,
        "batch_size": network.batch,
        "learning_rate_init": LR,
        "momentum": MOMENTUM,
        "nesterovs_momentum": False,
        "random_state": 0,
    }
    if not network.classifies:
        regressor = MLPRegressor(**options)
        return lambda: regressor.partial_fit(x, y)
    classifier = MLPClassifier(**options)
    classes = np.arange(network.sizes[-1])
    return lambda: classifier.partial_fit(x, y, classes=classes)
