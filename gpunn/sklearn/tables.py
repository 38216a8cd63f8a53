"""Estimators for tables: raw columns in, with text, dates and missing cells."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import assert_all_finite, check_consistent_length, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_feature_names,
    _check_sample_weight,
    check_is_fitted,
    column_or_1d,
)

from gpunn.columns import RawTable
from gpunn.frames import is_frame
from gpunn.nn.decisions import shares
from gpunn.sparse import is_sparse
from gpunn.tables import Fitted, Recipe, TableModel, fit_table
from gpunn.typing import DeviceLike

Array = np.ndarray[Any, Any]


class TableEstimator(BaseEstimator):
    """The common part of the estimators for tables."""

    def __init__(
        self,
        *,
        folds: int = 5,
        epochs: int = 64,
        hidden_layer_sizes: tuple[int, ...] = (256, 256, 256),
        batch_size: int | None = None,
        learning_rate_init: float | None = None,
        dropout: float = 0.15,
        kinds: Mapping[str, str] | None = None,
        time_limit_s: float | None = None,
        n_jobs: int | None = None,
        device: DeviceLike = None,
        random_state: Any = None,
    ) -> None:
        self.folds = folds
        self.epochs = epochs
        self.hidden_layer_sizes = hidden_layer_sizes
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.dropout = dropout
        self.kinds = kinds
        self.time_limit_s = time_limit_s
        self.n_jobs = n_jobs
        self.device = device
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn that text and missing cells are welcome."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = tags.input_tags.categorical = tags.input_tags.string = True
        return tags

    def _raw(self, X: Any) -> RawTable:
        """Return the columns of X, which is a frame, a mapping, an array or rows.

        Raises:
            ValueError: X has one dimension, or no columns.
            TypeError: X is sparse.
        """
        if is_sparse(X):
            raise TypeError(
                "Sparse data was passed for X, but dense data is required. Use '.toarray()' to "
                "convert to a dense numpy array."
            )
        if not (is_frame(X) or isinstance(X, Mapping | list | tuple)):
            X = np.asarray(X)
            if X.ndim != 2:
                raise ValueError(
                    f"Expected 2D array, got {X.ndim}D array instead. Reshape your data using "
                    "array.reshape(-1, 1) if it has a single feature, or array.reshape(1, -1) if "
                    "it is a single sample."
                )
        table = RawTable.of(X)
        if not table.names:
            shape = getattr(X, "shape", (len(table), 0))
            raise ValueError(
                f"Found array with 0 feature(s) (shape={shape}) while a minimum of 1 is required."
            )
        return table

    def _fitted_columns(self, X: Any) -> RawTable:
        """Return the columns of X under the names of the fit.

        Columns with names are found by them, in any order. Others stand for the fit's by position.

        Raises:
            NotFittedError: there was no fit.
            ValueError: a column is missing.
        """
        check_is_fitted(self)
        table, names = self._raw(X), self.model_columns_
        if (is_frame(X) or isinstance(X, Mapping)) and hasattr(self, "feature_names_in_"):
            return table
        if not isinstance(X, Mapping):
            _check_feature_names(self, X, reset=False)  # warns if only one of both has names
        if len(table.names) != len(names):
            raise ValueError(
                f"X has {len(table.names)} features, but {type(self).__name__} is expecting "
                f"{len(names)} features as input."
            )
        return RawTable(dict(zip(names, table.columns.values(), strict=True)))

    def _fit(self, X: Any, y: Array, classes: int, sample_weight: Any) -> Fitted:
        table = self._raw(X)
        check_consistent_length(np.empty(len(table)), y)
        if len(table) < 2:
            raise ValueError(
                f"Found array with {len(table)} sample(s) (n_samples={len(table)}) while a minimum "
                "of 2 is required."
            )
        if isinstance(X, Mapping):
            self.feature_names_in_ = np.array(table.names, object)
        else:
            _check_feature_names(self, X, reset=True)
        self.model_columns_ = table.names
        self.n_features_in_ = len(table.names)
        if sample_weight is not None:
            rows = np.empty((len(table), 1))
            sample_weight = _check_sample_weight(sample_weight, rows, dtype=np.float64)
            if (sample_weight < 0).any():
                raise ValueError("Negative values in data passed to `sample_weight`.")
        seed = self.random_state
        if not isinstance(seed, int | np.integer):
            seed = check_random_state(seed).randint(2**31)
        found = fit_table(
            table,
            y,
            classes=classes,
            recipe=Recipe(
                hidden=tuple(self.hidden_layer_sizes),
                epochs=self.epochs,
                batch_size=self.batch_size,
                lr=self.learning_rate_init,
                dropout=self.dropout,
            ),
            folds=self.folds,
            kinds=self.kinds,
            time_limit_s=self.time_limit_s,
            threads=None if self.n_jobs in (None, -1) else self.n_jobs,
            weights=sample_weight,
            seed=int(seed),
            device=self.device,
        )
        self.model_: TableModel = found.model
        self.histories_ = found.histories
        return found

    def save(self, path: str | Path) -> None:
        """Write the model to one file, which `gpunn predict` and `TableModel.load` read.

        Raises:
            OutputError: the file cannot be written.
        """
        check_is_fitted(self)
        self.model_.save(path)

    def draft_onnx(self, draft: Any) -> dict[str, Any]:
        """Add the model to a draft of an ONNX graph; see `TableModel.draft_onnx`."""
        check_is_fitted(self)
        classes = getattr(self, "classes_", None)
        if classes is not None:
            whole = classes.dtype.kind in "iub"
            classes = classes.astype(np.int64) if whole else classes.astype(str).astype(object)
        return self.model_.draft_onnx(draft, classes)


class TableClassifier(ClassifierMixin, TableEstimator):
    """A classifier for tables as people have them: numbers, text, dates and missing cells.

    Every column is recognised and encoded; see `gpunn.columns`. Five networks are trained by the
    recipe of RealMLP, each on four fifths of the rows. The last fifth chooses its best epoch. Their
    probabilities are averaged and calibrated.

    Args:
        folds: the number of networks, at least 1.
        epochs: the number of epochs of a network.
        hidden_layer_sizes: the widths of the hidden layers.
        batch_size: the examples of a step; None for 64 up to 1,000 examples, and 256 above.
        learning_rate_init: the largest learning rate; None for 0.04.
        dropout: the dropout rate behind every hidden layer.
        kinds: what some columns are, by name: "number", "category", "date" or "left out".
        time_limit_s: the seconds after which the fit should have ended; None for no limit.
        n_jobs: the networks that train at the same time on a CPU; None or -1 for as many as there
            are processors. The results do not depend on it.
        device: the device to train on; None for the default device.
        random_state: the seed, as in scikit-learn.

    Attributes:
        classes_: (C,) the classes.
        model_: the `TableModel`.
        out_of_fold_: (N, C) probabilities for the training rows, each from a network that was not
            trained on the row; NaN for rows that every network was trained on, or none.
        histories_: the curves of the networks.
        model_columns_: the names of the columns; column_1 and so on if X had none.
        n_features_in_: the number of columns.
        feature_names_in_: the names of the columns, if X had any that are text.

    Reference:
        Holzmüller, Grinsztajn, Steinwart (2024), arXiv 2407.04491.
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> TableClassifier:
        """Train on raw rows.

        Args:
            X: (N, D) cells: a frame of pandas or Polars, an array, or a list of rows.
            y: (N,) classes.
            sample_weight: (N,) weights of at least 0, or None. They also count in the choice of the
                best epoch and in the calibration. A row of weight 0 counts as if it were not there.

        Raises:
            DataError: no column can be used, or there are fewer rows than folds.
        """
        y = column_or_1d(y, warn=True)
        assert_all_finite(y, input_name="y")
        check_classification_targets(y)
        self.classes_, numbers = np.unique(y, return_inverse=True)
        found = self._fit(X, numbers, len(self.classes_), sample_weight)
        self.out_of_fold_ = shares(found.out_of_fold / found.temperature)
        return self

    def predict_proba(self, X: Any) -> Array:
        """Return (N, C) probabilities of the classes for N raw rows."""
        table = self._fitted_columns(X)
        return self.model_.probabilities(table)

    def predict(self, X: Any) -> Array:
        """Return the (N,) most probable classes for N raw rows."""
        chances = self.predict_proba(X)
        found: Array = self.classes_[chances.argmax(axis=1)]
        return found


class TableRegressor(RegressorMixin, TableEstimator):
    """A regressor for tables as people have them: numbers, text, dates and missing cells.

    As `TableClassifier`. Targets are scaled for the training. Predictions stay between the smallest
    and the largest target.

    Args:
        folds: as for `TableClassifier`, like all others.
        epochs: the number of epochs of a network.
        hidden_layer_sizes: the widths of the hidden layers.
        batch_size: the examples of a step; None for 64 up to 1,000 examples, and 256 above.
        learning_rate_init: the largest learning rate; None for 0.2.
        dropout: the dropout rate behind every hidden layer.
        kinds: what some columns are, by name: "number", "category", "date" or "left out".
        time_limit_s: the seconds after which the fit should have ended; None for no limit.
        n_jobs: the networks that train at the same time on a CPU; None or -1 for as many as there
            are processors. The results do not depend on it.
        device: the device to train on; None for the default device.
        random_state: the seed, as in scikit-learn.

    Attributes:
        model_: the `TableModel`.
        out_of_fold_: (N,) predictions for the training rows, each from a network that was not
            trained on the row; NaN for rows that every network was trained on, or none.
        histories_: the curves of the networks.
        model_columns_: the names of the columns; column_1 and so on if X had none.
        n_features_in_: the number of columns.
        feature_names_in_: the names of the columns, if X had any that are text.
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> TableRegressor:
        """Train on raw rows.

        Args:
            X: (N, D) cells: a frame of pandas or Polars, an array, or a list of rows.
            y: (N,) numbers.
            sample_weight: (N,) weights of at least 0, or None. They also count in the choice of the
                best epoch and in the intervals. A row of weight 0 counts as if it were not there.

        Raises:
            DataError: no column can be used, or there are fewer rows than folds.
        """
        y = column_or_1d(y, warn=True, dtype=np.float64)
        assert_all_finite(y, input_name="y")
        found = self._fit(X, y, 0, sample_weight)
        self.out_of_fold_ = found.out_of_fold[:, 0]
        return self

    def predict(self, X: Any) -> Array:
        """Return (N,) numbers for N raw rows."""
        table = self._fitted_columns(X)
        return self.model_.predict(table)

    def predict_interval(self, X: Any, coverage: float = 0.9) -> Array:
        """Return (N, 2) lower and upper ends of intervals that contain new targets.

        Args:
            X: (N, D) raw rows.
            coverage: the probability that the target of a new row is in its interval.

        Raises:
            ArgumentError: the coverage is not between 0 and 1.

        Reference:
            Conformal prediction (Vovk et al. 2005), with the errors of members on the rows that
            they left out (Barber et al. 2021).
        """
        middle, half = self.predict(X), self.model_.half_width(coverage)
        return np.column_stack([middle - half, middle + half])
