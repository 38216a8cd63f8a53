"""Run one seed of a recipe, or scikit-learn's estimator beside it."""

from __future__ import annotations

import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import gpunn as gn
from gpunn.benchmarks.machine import machine
from gpunn.benchmarks.papers.recipe import Recipe
from gpunn.benchmarks.settings import Settings
from gpunn.nn.decisions import largest


class Clock(gn.train.Callback):
    """The wall time of a run, over all its parts."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def on_epoch_end(
        self, trainer: gn.train.Training, epoch: int, history: gn.train.History
    ) -> None:
        """Add the time of an epoch."""
        self.seconds += history["seconds"][-1]

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the seconds so far."""
        return {}, {"seconds": self.seconds}

    def restore(self, trainer: Any, arrays: dict[str, Any], state: dict[str, Any]) -> None:
        """Go on from the seconds so far."""
        self.seconds = float(state["seconds"])


def run(
    name: str, recipe: Recipe, seed: int, data: tuple[Any, Any], work: Path, device: str
) -> dict[str, Any]:
    """Train one seed to the end, and return its result.

    Args:
        name: the name of the recipe.
        recipe: the recipe.
        seed: the seed of weights, order and masks.
        data: the training and the test data.
        work: the folder for checkpoints.
        device: the device to train on.
    """
    train, test = (replace(part, x=part.x.astype(recipe.dtype, copy=False)) for part in data)
    steps = -(-len(train.x) // recipe.batch_size)
    folder = work / f"{name}-{recipe.epochs}-{seed}"
    trainer = recipe.trainer(steps, seed, device, checkpoint=folder, every=5)
    clock = Clock()
    history = trainer.fit(
        train.x,
        recipe.targets(train.y),
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        callbacks=[clock],
        progress=False,
    )
    found = {
        **{"recipe": name, "seed": seed, "epochs": recipe.epochs, "updates": trainer.steps},
        **errors(trainer.predict(test.x), test.y),
        **{"loss": history["loss"][-1], "seconds": clock.seconds, "device": history.device},
    }
    if recipe.averages:
        found["averages"] = averages(trainer.model, test, recipe.averages)
    return found | circumstances()


def errors(scores: Any, classes: Any) -> dict[str, Any]:
    """Count the examples whose largest score is not that of their class."""
    wrong = int((largest(scores) != classes).sum())
    return {"test_errors": wrong, "test_percent": 100 * wrong / len(classes)}


def averages(net: gn.nn.Module, test: Any, counts: tuple[int, ...]) -> dict[str, float]:
    """Return the test error in percent of the mean prediction of k networks drawn by dropout.

    As many networks are drawn as the largest k says. For a smaller k they make several groups, and
    the error is the mean of those of the groups.
    """
    net.train()
    x = net.backend.upload(test.x)
    sums: dict[int, Any] = dict.fromkeys(counts, 0.0)
    found: dict[int, list[float]] = {k: [] for k in counts}
    with gn.no_grad():
        for drawn in range(1, max(counts) + 1):
            shares = gn.ops.softmax(net(x)).numpy()
            for k in counts:
                sums[k] = sums[k] + shares
                if drawn % k == 0:
                    found[k].append(errors(sums[k], test.y)["test_percent"])
                    sums[k] = 0.0
    net.eval()
    return {str(k): float(np.mean(percents)) for k, percents in found.items()}


def beside(name: str, recipe: Recipe, seed: int, data: tuple[Any, Any]) -> dict[str, Any]:
    """Train scikit-learn's estimator for the same run, and return its result."""
    import sklearn
    from sklearn.neural_network import MLPClassifier

    train, test = data
    begun = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = MLPClassifier(**recipe.estimator, random_state=seed).fit(train.x, train.y)
    seconds = time.perf_counter() - begun
    return {
        **{"recipe": name, "by": f"scikit-learn {sklearn.__version__}", "seed": seed},
        **{"epochs": model.n_iter_, **errors(model.predict_proba(test.x), test.y)},
        **{"loss": model.loss_, "seconds": seconds, **circumstances()},
    }


def circumstances() -> dict[str, str]:
    """Return with what, where and when a result was found."""
    here = machine(Settings())
    place = ", ".join(str(here[key]) for key in ("processor", "blas", "compiler"))
    return {"gpunn": gn.__version__, "machine": place, "day": time.strftime("%Y-%m-%d")}
