"""Time training to 97.5 % test accuracy on MNIST: 784-100-100-10, Adam, batch 200."""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import gpunn as gn
from gpunn.backends.cpu.backend import NumpyBackend
from gpunn.benchmarks.contenders.torch_step import torch_model
from gpunn.benchmarks.networks import LR, Network
from gpunn.benchmarks.settings import Settings
from gpunn.data import Dataset
from gpunn.errors import DataError

NETWORK = Network("mnist", (784, 100, 100, 10), 200)
ACCURACY = 0.975
MOST_EPOCHS = 40


class Race:
    """A clock for training that stops during the evaluation on the test set."""

    def __init__(self, most: int) -> None:
        self.most, self.epochs, self.seconds, self.accuracy = most, 0, 0.0, 0.0
        self._start = time.perf_counter()

    def is_over(self, accuracy: Callable[[], float]) -> bool:
        """Note an epoch, and return whether training ends. Called after every epoch."""
        self.seconds += time.perf_counter() - self._start
        self.epochs += 1
        self.accuracy = float(accuracy())
        self._start = time.perf_counter()
        return self.accuracy >= ACCURACY or self.epochs >= self.most


class _Watch(gn.train.Callback):
    def __init__(self, race: Race, test: Dataset) -> None:
        self.race, self.test = race, test

    def on_epoch_end(self, trainer: Any, epoch: int, history: Any) -> str | None:
        over = self.race.is_over(lambda: trainer.evaluate(self.test)["accuracy"])
        return "the race is over" if over else None


def gpunn_fit(train: Dataset, test: Dataset, seed: int, race: Race) -> None:
    """Train by gpunn's `Trainer` with its defaults."""
    gn.manual_seed(seed)
    layers = [gn.nn.Linear(d, h, "relu") for d, h in NETWORK.hidden]
    model = gn.nn.Sequential(*layers, gn.nn.Linear(*NETWORK.layers[-1]))
    trainer = gn.Trainer(model, optimizer=gn.optim.Adam(lr=LR), seed=seed)
    watch = [_Watch(race, test)]
    batch = NETWORK.batch
    trainer.fit(train, epochs=race.most, batch_size=batch, callbacks=watch, progress=False)


def numpy_alone_fit(train: Dataset, test: Dataset, seed: int, race: Race) -> None:
    """Train by gpunn without compiled kernels."""
    b = gn.backend("cpu")
    assert isinstance(b, NumpyBackend)
    with b.numpy_alone():
        gpunn_fit(train, test, seed, race)


def torch_fit(train: Dataset, test: Dataset, seed: int, race: Race) -> None:
    """Train by PyTorch in a plain loop over a `TensorDataset` and a `DataLoader`."""
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    torch.manual_seed(seed)
    model = torch_model(NETWORK)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    x, y, x_test, y_test = map(torch.from_numpy, (train.x, train.y, test.x, test.y))
    loader = DataLoader(TensorDataset(x, y), batch_size=NETWORK.batch, shuffle=True)

    def accuracy() -> float:
        with torch.no_grad():
            return float((model(x_test).argmax(dim=1) == y_test).float().mean())

    while True:
        for xs, ys in loader:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(xs), ys).backward()
            optimizer.step()
        if race.is_over(accuracy):
            return


def sklearn_fit(train: Dataset, test: Dataset, seed: int, race: Race) -> None:
    """Train scikit-learn's classifier, one epoch per call."""
    from sklearn.neural_network import MLPClassifier

    model = MLPClassifier(
        hidden_layer_sizes=NETWORK.sizes[1:-1],
        alpha=0.0,
        batch_size=NETWORK.batch,
        learning_rate_init=LR,
        random_state=seed,
    )
    classes = np.arange(NETWORK.sizes[-1])
    while True:
        model.partial_fit(train.x, train.y, classes=classes)
        if race.is_over(lambda: model.score(test.x, test.y)):
            return


FITS = {
    "gpunn": ("gpunn", gpunn_fit),
    "gpunn NumPy alone": ("gpunn", numpy_alone_fit),
    "PyTorch": ("torch", torch_fit),
    "scikit-learn": ("sklearn", sklearn_fit),
}
"""The contenders, each with the package that it needs."""


def fit(settings: Settings) -> dict[str, Any]:
    """Train every contender with several seeds, in turn."""
    try:
        if not settings.data_dir:
            raise DataError("no --data-dir with the MNIST files was given")
        train, test = gn.data.load_mnist(settings.data_dir)
    except DataError as error:
        return {"skipped": str(error)}
    seeds, most = (1, 2) if settings.quick else (3, MOST_EPOCHS)
    races: dict[str, list[Race]] = {}
    for seed in range(seeds):
        for name, (package, work) in FITS.items():
            if importlib.util.find_spec(package):
                race = Race(most)
                work(train, test, seed, race)
                races.setdefault(name, []).append(race)
    return {
        name: {
            "seconds": [race.seconds for race in all_of],
            "median_s": statistics.median(race.seconds for race in all_of),
            "epochs": [race.epochs for race in all_of],
            "accuracy": [race.accuracy for race in all_of],
            "reached": all(race.accuracy >= ACCURACY for race in all_of),
        }
        for name, all_of in races.items()
    }
