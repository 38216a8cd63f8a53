"""Predict with both estimators, and show their weights as scikit-learn does."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from gpunn.backends import Backend, backend, backend_of
from gpunn.errors import ArgumentError, DeviceUnavailableError
from gpunn.sklearn import translation
from gpunn.sklearn.compat import check_same_namespace
from gpunn.sklearn.device_input import checked, like_input, on_device, on_host, placeholder
from gpunn.sklearn.network import Network, Weights
from gpunn.train import Trainer
from gpunn.typing import Array, DType

HELD = ("_network", "_trainer", "_fitted_with")
"""Attributes that are not pickled. Their contents are also in the fitted attributes."""


class Predictor(TransformerMixin, BaseEstimator):
    """Predicts, scores and transforms with the network of a fitted estimator.

    A mixin in front of scikit-learn's own estimators, whose checks and words it keeps.
    """

    coefs_: Weights
    intercepts_: Weights

    # networks --------------------------------------------------------------------------------

    def _new_network(self, b: Backend, dtype: DType, train: bool = False) -> Network:
        """A network of the weights as they are."""
        rates = translation.dropout_rates(self) if train else None
        names = translation.hidden_activations(self)
        return Network(b, dtype, self.coefs_, self.intercepts_, names, rates)

    def _backend(self, X: Any) -> Backend:
        """Where to train: on the device that was named, that of the examples, or the default."""
        if self.device is None and on_device(X):
            return backend_of(X)
        return backend(self.device)

    def _current_network(self, X: Any) -> Network:
        """The network with the weights that the attributes show, whoever wrote them."""
        network: Network | None = getattr(self, "_network", None)
        moved = self.device is None and on_device(X) and network is not None
        if moved and network is not None and network.backend is not backend_of(X):
            network = None
        shapes = [w.shape for w in self.coefs_]
        if network is None or [layer.weight.shape for layer in network.layers] != shapes:
            try:
                b = self._backend(X)
            except DeviceUnavailableError as error:  # fitted elsewhere, and loaded here
                warnings.warn(f"predicting on the CPU: {error}", stacklevel=2)
                b = backend("cpu")
            self._network = network = self._new_network(b, self.coefs_[0].dtype)
        else:
            network.take(self.coefs_, self.intercepts_)
        return network

    def _show_weights(self) -> None:
        """Let the attributes show the weights of the network."""
        self.coefs_, self.intercepts_ = self._network.show()

    # use -------------------------------------------------------------------------------------

    def _checked_for_use(self, X: Any) -> Any:
        """Examples for a fitted estimator, checked by scikit-learn."""
        if on_device(X):
            X = checked(X)
            validate_data(self, placeholder(X), reset=False)
            return X
        return validate_data(self, on_host(X), accept_sparse=["csr", "csc"], reset=False)

    def _check_library(self, X: Any, method: str) -> None:
        """Raise where examples are of another library than those of `fit`, if that is asked for."""
        if hasattr(self, "_fitted_with"):
            check_same_namespace(X, self, attribute="_fitted_with", method=method)

    def predict(self, X: Any) -> Any:
        """The classes, or the numbers, of examples.

        Args:
            X: (N, D) examples.

        Returns:
            (N,), or (N, K), where the examples are and of their library; text is NumPy's.
        """
        self._check_library(X, "predict")
        return super().predict(X)

    def _predict(self, X: Any, check_input: bool = True) -> Any:
        """Called by scikit-learn's `predict`."""
        return like_input(super()._predict(X, check_input), X)

    def _forward_pass_fast(self, X: Any, check_input: bool = True) -> Array:
        """The (N, K) outputs for examples; called by scikit-learn's `predict`."""
        X = self._checked_for_use(X) if check_input else X
        y = self._current_network(X).outputs(X, self.out_activation_)
        return y.astype(np.result_type(X.dtype, y.dtype), copy=False)

    def transform(self, X: Any) -> Array:
        """The activations of the hidden layer `transform_layer`.

        Args:
            X: (N, D) examples.

        Returns:
            (N, H) numbers, where the examples are.

        Raises:
            ArgumentError: there is no such layer.
        """
        check_is_fitted(self)
        self._check_library(X, "transform")
        x = self._checked_for_use(X)
        count = len(self.coefs_) - 1
        if not -count <= self.transform_layer < count:
            raise ArgumentError(
                f"got transform_layer={self.transform_layer} of {count} hidden layers; expected "
                f"{-count} to {count - 1}"
            )
        return like_input(self._current_network(x).hidden(x, self.transform_layer % count), X)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the columns of `transform`.

        Args:
            input_features: not used.
        """
        check_is_fitted(self)
        width = self.intercepts_[:-1][self.transform_layer].size
        name = type(self).__name__.lower()
        return np.asarray([f"{name}{unit}" for unit in range(width)], dtype=object)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The accuracy, or R2: see scikit-learn's `score`.

        Args:
            X: (N, D) examples.
            y: their targets.
            sample_weight: (N,) or None.
        """
        found = self._score_from(on_host(y), on_host(self.predict(X)), on_host(sample_weight))
        return float(found)

    def _score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The score of checked examples; called by scikit-learn's early stopping."""
        if not on_device(X):
            return float(super()._score(X, y, sample_weight))
        found = on_host(self._predict(X, check_input=False))
        if found.dtype.kind == "f" and not np.isfinite(found).all():
            return float("nan")
        return float(self._score_from(y, found, on_host(sample_weight)))

    # state -----------------------------------------------------------------------------------

    def __sklearn_tags__(self) -> Any:
        """scikit-learn's, and that CuPy arrays are taken."""
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """Plain arrays and numbers: what is on a device is on the host too."""
        state: dict[str, Any] = dict(super().__getstate__())
        trainer: Trainer | None = state.get("_trainer")
        if trainer is not None:
            state["_optimizer_state"] = trainer.optimizer.state_dict()
        return {name: value for name, value in state.items() if name not in HELD}
