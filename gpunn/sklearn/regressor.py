"""The regressor, MLPRegressor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from sklearn import neural_network
from sklearn.metrics import r2_score

from gpunn.optim import Optimizer, Schedule
from gpunn.sklearn import translation
from gpunn.sklearn.constraints import REGRESSOR
from gpunn.sklearn.device_input import on_host
from gpunn.sklearn.perceptron import Perceptron
from gpunn.train import Callback
from gpunn.typing import DeviceLike


class MLPRegressor(Perceptron, neural_network.MLPRegressor):
    """scikit-learn's MLPRegressor with the same numbers and with more options.

    If the options that scikit-learn does not have keep their defaults, the attributes and
    predictions agree with scikit-learn's. In float64 on the CPU they agree to 1e-10; with one BLAS
    thread they have the same bits.

    Args:
        loss: "squared_error" or "poisson" as in scikit-learn, "absolute_error", "huber" or
            "quantile".
        hidden_layer_sizes: the units of each hidden layer.
        activation: "identity", "logistic", "tanh" or "relu" as in scikit-learn, another activation
            of gpunn, or a list with one name per hidden layer.
        solver, alpha, ..., max_fun: as in scikit-learn, with the same meanings and defaults. The
            solver "lbfgs" is SciPy's L-BFGS-B, on every device.
        quantile: the quantile of the loss "quantile", between 0 and 1.
        huber_delta: the error above which the loss "huber" is linear, above 0.
        device: the device to train and predict on: "cpu", "cuda", "cuda:1", or "auto" for a GPU if
            one can be used. None for the device of CuPy examples, else gpunn's default device.
        precision: "float32"; on a GPU also "tf32", "float16" or "bfloat16"; see `gpunn.Trainer`.
        dropout: the probability that a hidden unit is set to 0 in training; one number, or a list
            with one per hidden layer.
        input_dropout: the probability that a feature is set to 0 in training.
        l1: the factor of sum(|W|), which is added to the loss for any batch size.
        l2: the factor of sum(W ** 2), which is added to the loss. Unlike `alpha`, it does not
            shrink with the batch size.
        max_norm: the largest norm of the weights into a unit; None for no limit.
        optimizer: a name or an object of `gpunn.optim` that replaces the solver's update. A name
            uses `learning_rate_init`; an object has its own rate.
        schedule: a name or an object of `gpunn.optim.schedules`, which counts steps.
        callbacks: callbacks of gpunn, called between epochs.
        validation_curve: whether `early_stopping` also records `validation_loss_curve_`.
        keep_optimizer: whether `warm_start` also keeps the moments of the optimizer.
        transform_layer: the hidden layer whose activations `transform` returns, counted from 0, or
            from the last with -1.
        progress_bar: whether to show a progress bar.
        checkpoint: a folder for checkpoints. When a fit that was killed is repeated, it goes on
            from there.

    Attributes:
        coefs_, intercepts_, n_iter_, loss_curve_, ...: as in scikit-learn. They are NumPy arrays,
            even after a fit on a GPU.
        validation_loss_curve_: the loss per epoch of the data that `early_stopping` sets aside.
        device_: the description of the device of the last fit.
        stopped_: the reason why the last fit ended before its last epoch; empty if it did not.

    Raises:
        InvalidParameterError: a parameter is outside its range. It has scikit-learn's message, and
            is a ValueError.
        DeviceUnavailableError: the device cannot be used.

    Reference:
        scikit-learn's user guide, "Neural network models (supervised)"; scikit-learn issues 6175
        (dropout), 14571 (losses), 6780 (penalty and batch size).

    Example:
        >>> from sklearn.datasets import make_regression
        >>> X, y = make_regression(n_samples=100, n_features=5, random_state=1)
        >>> model = MLPRegressor("huber", random_state=1, tol=0.1, max_iter=2000).fit(X, y)
        >>> model.predict(X[:2]).shape
        (2,)
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **neural_network.MLPRegressor._parameter_constraints,
        **REGRESSOR,
    }

    def __init__(
        self,
        loss: str = "squared_error",
        hidden_layer_sizes: int | Sequence[int] = (100,),
        activation: str | Sequence[str] = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        device: DeviceLike = None,
        precision: str = "float32",
        dropout: float | Sequence[float] = 0.0,
        input_dropout: float = 0.0,
        l1: float = 0.0,
        l2: float = 0.0,
        max_norm: float | None = None,
        optimizer: str | Optimizer | None = None,
        schedule: str | Schedule | None = None,
        callbacks: Sequence[Callback] | None = None,
        validation_curve: bool = False,
        keep_optimizer: bool = False,
        transform_layer: int = -1,
        progress_bar: bool = False,
        checkpoint: str | Path | None = None,
        quantile: float = 0.5,
        huber_delta: float = 1.0,
    ) -> None:
        super().__init__(
            loss=loss,
            hidden_layer_sizes=hidden_layer_sizes,
            activation=activation,
            solver=solver,
            alpha=alpha,
            batch_size=batch_size,
            learning_rate=learning_rate,
            learning_rate_init=learning_rate_init,
            power_t=power_t,
            max_iter=max_iter,
            shuffle=shuffle,
            random_state=random_state,
            tol=tol,
            verbose=verbose,
            warm_start=warm_start,
            momentum=momentum,
            nesterovs_momentum=nesterovs_momentum,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            n_iter_no_change=n_iter_no_change,
            max_fun=max_fun,
        )
        self.device = device
        self.precision = precision
        self.dropout = dropout
        self.input_dropout = input_dropout
        self.l1 = l1
        self.l2 = l2
        self.max_norm = max_norm
        self.optimizer = optimizer
        self.schedule = schedule
        self.callbacks = callbacks
        self.validation_curve = validation_curve
        self.keep_optimizer = keep_optimizer
        self.transform_layer = transform_layer
        self.progress_bar = progress_bar
        self.checkpoint = checkpoint
        self.quantile = quantile
        self.huber_delta = huber_delta

    def partial_fit(
        self, X: Any, y: Any, sample_weight: Any = None, *, validation: Any = None
    ) -> MLPRegressor:
        """Train for one epoch on these examples.

        Args:
            X: (N, D) examples.
            y: (N,) or (N, K) targets.
            sample_weight: (N,) weights, or None.
            validation: (X, y) or (X, y, weights), for `early_stopping`: the data that the epoch is
                scored on. If its score has not improved for `n_iter_no_change` calls, the best
                weights are restored and `stopped_` says so.
        """
        with self._validating(validation):
            fitted: MLPRegressor = super().partial_fit(X, on_host(y), sample_weight)
        return fitted

    def _validate_input(self, X: Any, y: Any, incremental: bool, reset: bool) -> tuple[Any, Any]:
        X, y = super()._validate_input(X, y, incremental, reset)
        translation.check_targets(y)
        return X, y

    def _score_from(self, y: Any, found: Any, sample_weight: Any) -> float:
        return float(r2_score(y, found, sample_weight=sample_weight))
