"""Arguments for every row kernel, for the tests that run its two bodies side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpunn.backends import computed


class Draw:
    """Random host arrays of one dtype for a matrix of some shape.

    Outputs are NaN at first, so that an element that is not written shows.
    """

    def __init__(self, dtype: str, rows: int, columns: int) -> None:
        if dtype == "bfloat16":
            import ml_dtypes

            self.dtype = np.dtype(ml_dtypes.bfloat16)
        else:
            self.dtype = np.dtype(dtype)
        self.rows, self.columns = rows, columns
        self.statistic = np.dtype(computed(dtype))
        self.rng = np.random.default_rng(rows * 1009 + columns)

    def normal(self, *shape: int) -> np.ndarray:
        """Standard normal numbers; a matrix unless a shape is given."""
        values = self.rng.standard_normal(shape or (self.rows, self.columns))
        return values.astype(self.dtype)

    def labels(self) -> np.ndarray:
        """A class for each row."""
        return self.rng.integers(0, self.columns, self.rows)

    def out(self, *shape: int, dtype: Any = None) -> np.ndarray:
        """An output; a matrix unless a shape is given."""
        return np.full(shape or (self.rows, self.columns), np.nan, dtype or self.dtype)


def _row_loss(draw: Draw, *numbers: float) -> list[Any]:
    losses, total = draw.out(draw.rows, dtype=draw.statistic), np.zeros((), draw.statistic)
    return [4 * draw.normal(), draw.labels(), losses, draw.out(), total, *numbers, 3.0, 0.25]


def _classifier_loss(draw: Draw) -> list[Any]:
    """Rows of a hidden layer behind ReLU and dropout, and an output layer with 5 classes."""
    classes, kind = 5, draw.statistic
    h = np.maximum(draw.normal(), 0)
    w, bias = draw.normal(draw.columns, classes), draw.normal(classes)
    labels = draw.rng.integers(0, classes, draw.rows)
    losses, errors = draw.out(draw.rows, dtype=kind), draw.out(draw.rows, classes)
    outputs = [losses, errors, draw.out(), np.zeros((), kind)]
    return [h, w, bias, labels, *outputs, 0.1, 3.0, 0.25, 1.5, classes]


def _correct(draw: Draw) -> list[Any]:
    scores, labels = draw.normal(), draw.labels()
    scores[: draw.rows // 2] = np.round(scores[: draw.rows // 2])  # ties: the first one counts
    labels[::2] = scores[::2].argmax(axis=1)
    return [scores, labels, np.array(5)]


def _waves(draw: Draw) -> list[Any]:
    """Half of the columns, with 4 frequencies, are for the 3 outputs of each embedded column."""
    n = draw.columns // 6
    width = draw.columns - 3 * n
    shapes = ((draw.rows, width), (n, 4), (n, 4), (n, 4, 3), (n, 3))
    x, frequency, *others = (draw.normal(*shape) for shape in shapes)
    return [x, _slow(frequency), *others, draw.out(), width, 4, 3]


def _slow(frequency: np.ndarray) -> np.ndarray:
    """Frequencies of angles that are known to a few machine epsilons."""
    return (frequency / 8).astype(frequency.dtype)


def _waves_grad_parameters(draw: Draw) -> list[Any]:
    """One embedded column for each row of the launch, one frequency for each of its columns."""
    n, count, outputs, width, examples = draw.rows, draw.columns, 5, draw.rows + 1, 60
    shapes = [(n, count), (n, count), (n, count, outputs), (n, outputs)]
    return [
        *(draw.normal(examples, width + n * outputs), draw.normal(examples, width)),
        _slow(draw.normal(*shapes[0])),
        *(draw.normal(*shape) for shape in shapes[1:3]),
        *(draw.out(*shape, dtype=draw.statistic) for shape in shapes),
        *(outputs, width, examples),
    ]


def _scatter(draw: Draw) -> list[Any]:
    sums = draw.normal(5, draw.columns).astype(draw.statistic)
    return [draw.normal(), draw.rng.integers(0, 5, draw.rows), sums, np.zeros_like(sums), 5]


def _layer_norm(draw: Draw) -> list[Any]:
    each = draw.normal(draw.columns), draw.normal(draw.columns)
    kept = (draw.out(draw.rows, dtype=draw.statistic) for _ in range(3))
    return [3 + draw.normal(), *each, draw.out(), *kept, 1e-5]


def _rms_norm(draw: Draw) -> list[Any]:
    kept = (draw.out(draw.rows, dtype=draw.statistic) for _ in range(2))
    x = draw.normal() * np.geomspace(0.25, 2, draw.rows)[:, None]
    return [x.astype(draw.dtype), draw.normal(draw.columns), draw.out(), *kept, 0.1, 0.1]


def _batch_norm(draw: Draw) -> list[Any]:
    each = draw.normal(draw.columns), draw.normal(draw.columns)
    kept = (draw.out(draw.columns, dtype=draw.statistic) for _ in range(3))
    running = (abs(draw.normal(draw.columns)).astype(draw.statistic) for _ in range(2))
    return [3 + draw.normal(), *each, draw.out(), *kept, *running, 0.25, 1e-5]


def _statistics(draw: Draw, count: int) -> list[np.ndarray]:
    """The two parts of means, and inverse deviations, kept by a forward."""
    mean, rest, inverse = draw.rng.standard_normal((3, count)) * [[1.0], [0.01], [0.0]]
    inverse += draw.rng.uniform(0.5, 2, count)
    return [array.astype(draw.statistic) for array in (mean, rest, inverse)]


def _scales(draw: Draw) -> list[np.ndarray]:
    """Factors and inverse roots, kept by a forward."""
    return list(draw.rng.uniform(0.5, 2, (2, draw.rows)).astype(draw.statistic))


ARGUMENTS: dict[str, Callable[[Draw], list[Any]]] = {
    "softmax_cross_entropy": lambda draw: _row_loss(draw, 0.1),
    "multiclass_hinge": lambda draw: _row_loss(draw, 0.7),
    "classifier_loss": _classifier_loss,
    "correct": _correct,
    "softmax": lambda draw: [4 * draw.normal(), draw.out()],
    "log_softmax": lambda draw: [4 * draw.normal(), draw.out()],
    "log_softmax_grad": lambda draw: [draw.normal(), -abs(draw.normal()) - 1, draw.out()],
    "softmax_grad": lambda draw: [draw.normal(), abs(draw.normal()) / draw.columns, draw.out()],
    "scatter_rows": _scatter,
    "row_sums": lambda draw: [draw.normal(), draw.out(draw.rows, dtype=draw.statistic)],
    "column_sums": lambda draw: [draw.normal(), draw.out(draw.columns)],
    "column_sums_wide": lambda draw: [draw.normal(), draw.out(draw.columns, dtype=draw.statistic)],
    "layer_norm": _layer_norm,
    "layer_norm_grad": lambda draw: [
        *(draw.normal(), draw.normal(), draw.normal(draw.columns)),
        *_statistics(draw, draw.rows),
        draw.out(),
    ],
    "layer_norm_grad_columns": lambda draw: [
        *(draw.normal(), draw.normal()),
        *_statistics(draw, draw.rows),
        *(draw.out(draw.columns, dtype=draw.statistic) for _ in range(2)),
    ],
    "rms_norm": _rms_norm,
    "rms_norm_grad": lambda draw: [
        *(draw.normal(), draw.normal(), draw.normal(draw.columns)),
        *_scales(draw),
        draw.out(),
    ],
    "rms_norm_grad_columns": lambda draw: [
        *(draw.normal(), draw.normal()),
        *_scales(draw),
        draw.out(draw.columns, dtype=draw.statistic),
    ],
    "level_columns": lambda draw: [
        np.round(draw.normal(draw.rows, 6)).astype(draw.dtype),
        draw.rng.integers(0, 6, draw.columns),
        *(draw.rng.integers(-2, 2, draw.columns).astype(draw.dtype) for _ in range(2)),
        draw.out(),
        *(6, 0),
    ],
    "waves": _waves,
    "waves_grad": lambda draw: [
        draw.normal(draw.rows, draw.columns + 5),
        *(draw.normal(), _slow(draw.normal(1, 3)), draw.normal(1, 3), draw.normal(1, 3, 5)),
        *(draw.out(), 1, 3, 5),
    ],
    "waves_grad_parameters": _waves_grad_parameters,
    "layer_norm_grad_in_one": lambda draw: [
        *(draw.normal(), draw.normal(), draw.normal(draw.columns)),
        *_statistics(draw, draw.rows),
        draw.out(),
        *(draw.out(-(-draw.rows // 8), draw.columns, dtype=draw.statistic) for _ in range(2)),
    ],
    "batch_norm": _batch_norm,
    "batch_norm_grad": lambda draw: [
        *(draw.normal(), draw.normal(), draw.normal(draw.columns)),
        *_statistics(draw, draw.columns),
        draw.out(),
        *(draw.out(draw.columns, dtype=draw.statistic) for _ in range(2)),
    ],
}
"""The arguments of each row kernel but for the last two."""
