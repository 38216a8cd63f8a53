"""The part of both estimators that predicts, and that shows weights as attributes."""

from __future__ import annotations

import warnings
from math import isfinite
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import _check_feature_names_in, check_is_fitted, validate_data

from gpunn.backends import Backend, backend, backend_of
from gpunn.data.rows import RowTable
from gpunn.errors import ArgumentError, DeviceUnavailableError
from gpunn.examples import BATCH_ROWS
from gpunn.sklearn import translation
from gpunn.sklearn.compat import check_same_namespace
from gpunn.sklearn.device_input import checked, like_input, on_device, on_host, placeholder
from gpunn.sklearn.network import Network, Weights
from gpunn.sklearn.onnx import OnnxExport
from gpunn.typing import Array, DType

HELD = ("_network", "_predictor", "_trainer", "_fitted_with")
"""Attributes that are not pickled. Their contents are also in the fitted attributes."""

PLAIN = (np.dtype(np.float32), np.dtype(np.float64))


class Predictor(OnnxExport, TransformerMixin, BaseEstimator):
    """A mixin that predicts, scores and transforms with the network of a fitted estimator.

    It comes before scikit-learn's own estimators, and keeps their checks and messages.
    """

    n_features_in_: int
    coefs_: Weights
    intercepts_: Weights
    _best_coefs: Weights
    _best_intercepts: Weights

    # networks --------------------------------------------------------------------------------

    def _new_network(self, b: Backend, dtype: DType, train: bool = False) -> Network:
        """Make a network from the present weights."""
        rates = translation.dropout_rates(self) if train else None
        names = translation.hidden_activations(self)
        return Network(b, dtype, self.coefs_, self.intercepts_, names, rates)

    def _backend(self, X: Any) -> Backend:
        """Return the backend of the named device, else that of the examples, else the default."""
        if self.device is None and on_device(X):
            return backend_of(X)
        return backend(self.device)

    def _network_for(self, X: Any) -> Network:
        """Return a network that holds the arrays of the attributes, to predict with.

        A prediction changes no network, because another thread may predict or fit with it.
        """
        weights = self.coefs_, self.intercepts_, translation.hidden_activations(self)
        for name in ("_network", "_predictor"):
            known: Network | None = vars(self).get(name)
            if known is not None and self._is_near(known, X) and known.holds(*weights):
                return known
        try:
            b = self._backend(X)
        except DeviceUnavailableError as error:  # the model was fitted on another machine
            warnings.warn(f"predicting on the CPU: {error}", stacklevel=2)
            b = backend("cpu")
        self._predictor = network = self._new_network(b, self.coefs_[0].dtype)
        return network

    def _current_network(self, X: Any) -> Network:
        """Return the last fit's network, with the present weights of the attributes.

        It is another network if that one has other shapes or activations, or is elsewhere.
        """
        network: Network | None = getattr(self, "_network", None)
        names = translation.hidden_activations(self)
        if network is not None and self._is_near(network, X) and network.suits(self.coefs_, names):
            network.take(self.coefs_, self.intercepts_)
            return network
        return self._network_for(X)

    def _is_near(self, network: Network, X: Any) -> bool:
        """Return whether a network is where the examples are, if no device is named."""
        anywhere = self.device is not None or not on_device(X)
        return anywhere or network.backend is backend_of(X)

    def _show_weights(self) -> None:
        """Set the attributes to the weights of the network."""
        self.coefs_, self.intercepts_ = self._network.show()
        self.__dict__.pop("_predictor", None)

    # prediction ------------------------------------------------------------------------------

    def _checked_for_use(self, X: Any) -> Any:
        """Check examples for a fitted estimator with scikit-learn's checks."""
        if self._is_plain(X):
            return X
        if on_device(X):
            X = checked(X)
            validate_data(self, placeholder(X), reset=False)
            return X
        return validate_data(self, on_host(X), accept_sparse=["csr", "csc"], reset=False)

    def _is_plain(self, X: Any) -> bool:
        """Return whether scikit-learn's checks, which take 60 us, would return an array as it is.

        The sum of a plain array is finite. If it is not, they find out why.
        """
        if type(X) is not np.ndarray or X.dtype not in PLAIN or X.ndim != 2 or not X.shape[0]:
            return False
        if X.shape[1] != self.n_features_in_ or hasattr(self, "feature_names_in_"):
            return False
        with np.errstate(all="ignore"):
            return isfinite(np.add.reduce(X, axis=None))

    def _check_library(self, X: Any, method: str) -> None:
        """Check that examples are of the same array library as in `fit`, with array dispatch on."""
        if hasattr(self, "_fitted_with"):
            check_same_namespace(X, self, attribute="_fitted_with", method=method)

    def predict(self, X: Any) -> Any:
        """Predict the classes or numbers of examples.

        Args:
            X: (N, D) examples.

        Returns:
            (N,) or (N, K) predictions, on the device and of the array library of the examples.
            Text is in NumPy arrays.
        """
        self._check_library(X, "predict")
        return super().predict(X)

    def _predict(self, X: Any, check_input: bool = True) -> Any:
        """Predict for examples; called by scikit-learn's `predict`."""
        return like_input(super()._predict(X, check_input), X)

    def _forward_pass_fast(self, X: Any, check_input: bool = True) -> Array:
        """Compute the (N, K) outputs for examples; called by scikit-learn's `predict`."""
        if isinstance(X, RowTable):
            starts = range(0, len(X), BATCH_ROWS)
            found = [self._forward_pass_fast(X[k : k + BATCH_ROWS]) for k in starts]
            return np.concatenate(found)
        X = self._checked_for_use(X) if check_input else X
        y = self._network_for(X).outputs(X, self.out_activation_)
        return y.astype(np.result_type(X.dtype, y.dtype), copy=False)

    def transform(self, X: Any) -> Array:
        """Compute the activations of the hidden layer `transform_layer`.

        Args:
            X: (N, D) examples.

        Returns:
            (N, H) numbers, on the device of the examples.

        Raises:
            ArgumentError: there is no such layer.
        """
        check_is_fitted(self)
        self._check_library(X, "transform")
        x = self._checked_for_use(X)
        return like_input(self._network_for(x).hidden(x, self._hidden_layer()), X)

    def _hidden_layer(self) -> int:
        """Return the number of the hidden layer that `transform` shows, counted from 0."""
        count = len(self.coefs_) - 1
        if not count:
            raise ArgumentError(
                "got transform of an estimator without hidden layers; expected at least one: set "
                "hidden_layer_sizes and fit again"
            )
        if not -count <= self.transform_layer < count:
            raise ArgumentError(
                f"got transform_layer={self.transform_layer} of {count} hidden layers; expected "
                f"{-count} to {count - 1}: set transform_layer"
            )
        return int(self.transform_layer) % count

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of the columns of `transform`.

        Args:
            input_features: the names of the features of `fit`, which are checked; or None.

        Raises:
            ValueError: these are not the names, or as many names, as in `fit`.
            ArgumentError: there is no such layer.
        """
        check_is_fitted(self)
        _check_feature_names_in(self, input_features, generate_names=False)
        width = self.intercepts_[self._hidden_layer()].size
        name = type(self).__name__.lower()
        return np.asarray([f"{name}{unit}" for unit in range(width)], dtype=object)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Compute the accuracy of a classifier or R2 of a regressor, as scikit-learn's `score`.

        Args:
            X: (N, D) examples.
            y: their targets.
            sample_weight: (N,) weights, or None.
        """
        y = y[:] if isinstance(y, RowTable) else y
        found = self._score_from(on_host(y), on_host(self.predict(X)), on_host(sample_weight))
        return float(found)

    def _score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Compute the score of checked examples; called by scikit-learn's early stopping."""
        if not on_device(X):
            return float(super()._score(X, y, sample_weight))
        found = on_host(self._predict(X, check_input=False))
        if found.dtype.kind == "f" and not np.isfinite(found).all():
            return float("nan")
        return float(self._score_from(y, found, on_host(sample_weight)))

    # state -----------------------------------------------------------------------------------

    def __sklearn_tags__(self) -> Any:
        """Return scikit-learn's tags, with the tag that CuPy arrays are accepted."""
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the state. Parameters that its version did not have get their defaults."""
        super().__setstate__(type(self)().get_params(deep=False) | state)

    def __sklearn_is_fitted__(self) -> bool:
        """Return whether there are weights. scikit-learn would look through all attributes."""
        return hasattr(self, "coefs_")

    def __getstate__(self) -> dict[str, Any]:
        """Return the state as plain arrays and numbers, without objects of a device."""
        state = super().__getstate__()
        return {name: value for name, value in state.items() if name not in HELD}
