"""The pictures that `gpunn train` writes."""

from __future__ import annotations

from pathlib import Path

import gpunn
from gpunn.data.dataset import Dataset
from gpunn.data.rows import Rows
from gpunn.nn import Module
from gpunn.train import History

CURVE, ANSWERS = "learning-curve.png", "predictions.png"


def draw(
    folder: Path, name: str, history: History, model: Module, test: Dataset | Rows
) -> list[str]:
    """Draw the learning curve, and the predictions for the test data against the truth.

    Data on disk and regressions with several targets have no second picture.

    Args:
        folder: the folder for the pictures.
        name: the name of the data, for the titles.
        history: the curves of the fit.
        model: the trained model.
        test: the test data.

    Returns:
        The names of the files.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure = history.plot()
    figure.suptitle(name)
    for ax in figure.axes:
        ax.set_title("")
    gpunn.plot.save(figure, folder / CURVE)
    if isinstance(test, Rows) or (not test.classes and test.y.shape[1] > 1):
        return [CURVE]
    title = f"{name}, test data"
    if test.classes:
        found = model.backend.download(model.classify(test.x))
        ax = gpunn.plot.confusion_matrix(test.y, found, names=test.classes, title=title)
    else:
        found = model.backend.download(model.predict(test.x))
        ax = gpunn.plot.prediction_error(test.y, found, title=title)
    gpunn.plot.save(ax.figure, folder / ANSWERS)
    return [CURVE, ANSWERS]
