"""The work of scikit-learn's multilayer perceptrons between epochs, as a callback."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple, Protocol

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.optimize import _check_optimize_result

from gpunn.ops.reductions import all_finite
from gpunn.sklearn.compat import FitTask
from gpunn.sklearn.continuing import Update
from gpunn.sklearn.shuffle import CumulativeShuffle
from gpunn.train import Callback, History, Training
from gpunn.typing import Array

SMALLEST_RATE = 1e-6  # below this, learning_rate="adaptive" stops

NUMBERS = ("n_iter_", "t_", "loss_", "best_loss_", "best_validation_score_")
CURVES = ("loss_curve_", "validation_scores_", "validation_loss_curve_")
BEST = ("_best_coefs", "_best_intercepts")


class HeldOut(NamedTuple):
    """Data for early stopping.

    Attributes:
        x: (M, D) examples.
        y: their targets in the form that `score` takes.
        weights: (M,) weights of the examples, or None.
        targets: (M, K) targets in the form that the loss takes.
    """

    x: Array
    y: Array
    weights: Array | None
    targets: Array


class Warner:
    """A mixin for estimators, with the warnings of a fit."""

    max_iter: int

    def _iterations(self, result: Any) -> int:
        """Return the iterations of SciPy's result, and warn if it has not converged."""
        return int(_check_optimize_result("lbfgs", result, self.max_iter))

    def _warn(self, words: str, category: type[Warning] = UserWarning) -> None:
        """Warn about a fit, in the name of the caller's caller."""
        warnings.warn(words, category, stacklevel=3)


class Estimator(Protocol):
    """An estimator: the parameters that end a fit, and the attributes that an epoch sets."""

    max_iter: int
    n_iter_no_change: float
    tol: float
    verbose: bool | int
    validation_curve: bool
    n_iter_: int
    t_: int
    loss_: np.float64
    loss_curve_: list[np.float64]
    validation_loss_curve_: Any
    _no_improvement_count: int
    _best_coefs: list[np.ndarray]

    def _show_weights(self) -> None: ...

    def _loss_of(self, held_out: HeldOut) -> float: ...

    def _warn(self, words: str, category: type[Warning]) -> None: ...

    def _update_no_improvement_count(self, *given: Any) -> None: ...


class Convergence(Callback):
    """A callback that keeps an estimator's curves, lowers its learning rate, and stops its fit.

    Args:
        estimator: the estimator whose fitted attributes are set.
        rows: the examples of an epoch.
        held_out: the data that decides when to stop; None to use the training loss.
        incremental: whether this is the only epoch of a `partial_fit`.
        order: the order of the rows; None if they are not shuffled.
        task: the fit in the form that scikit-learn's callbacks get.
        best_is_live: whether the weights of the best epoch so far are those that are trained. In
            scikit-learn this is so after a fit with early stopping: a further fit that does not
            beat the best score keeps its last weights.
        update: the parameters that the optimizer was made with. They decide about the rate.
    """

    def __init__(
        self,
        estimator: Estimator,
        rows: int,
        held_out: HeldOut | None,
        incremental: bool,
        order: CumulativeShuffle | None,
        task: FitTask,
        best_is_live: bool,
        update: Update,
    ) -> None:
        self.best_is_live = best_is_live
        self.estimator, self.rows, self.order, self.task = estimator, rows, order, task
        self.held_out, self.incremental, self.update = held_out, incremental, update

    def __identity__(self) -> dict[str, Any]:
        return {"held_out": self.held_out}

    def on_fit_start(self, trainer: Training) -> None:
        """Announce the first epoch to scikit-learn's callbacks."""
        self.task.epoch_begins()

    def on_epoch_end(self, trainer: Training, epoch: int, history: History) -> str | None:
        """Store the numbers of the epoch, and return a sentence if the fit should stop."""
        found = self.estimator
        found.n_iter_ += 1
        found.t_ += self.rows
        found.loss_ = np.float64(history["loss"][-1])
        found.loss_curve_.append(found.loss_)
        if found.verbose:
            print(f"Iteration {found.n_iter_}, loss = {found.loss_:.8f}")
        self._judge(trainer)
        made = self.update
        if made.solver == "sgd" and made.learning_rate == "invscaling":
            trainer.base_lr = float(made.learning_rate_init) / (found.t_ + 1) ** made.power_t
        asked = self.task.epoch_ends()
        if found._no_improvement_count > found.n_iter_no_change:
            words = self._stalled(trainer)
            if words:
                return words
            found._no_improvement_count = 0
        if asked:
            return "a callback of scikit-learn's asked to stop"
        if found.n_iter_ < found.max_iter and not self.incremental:
            self.task.epoch_begins()
        elif not self.incremental:
            found._warn(
                f"Stochastic Optimizer: Maximum iterations ({found.max_iter}) reached and the "
                "optimization hasn't converged yet.",
                ConvergenceWarning,
            )
        return None

    def _judge(self, trainer: Training) -> None:
        """Count the epochs without progress, on the held-out data or on the training loss."""
        found, held_out = self.estimator, self.held_out
        if held_out is None:
            flat = trainer.optimizer.bound
            if not all_finite(flat.backend, flat.data):  # NaN and infinity never go away
                raise NonFiniteError(found.n_iter_)
            found._update_no_improvement_count(False, None, None, None)
            return
        found._show_weights()
        if found.validation_curve and not self.incremental:
            found.validation_loss_curve_.append(found._loss_of(held_out))
        before = found._best_coefs
        found._update_no_improvement_count(True, *held_out[:3])
        self.best_is_live = self.best_is_live and found._best_coefs is before

    def _stalled(self, trainer: Training) -> str:
        """Handle a lack of progress: lower the rate and return "", or say why to stop."""
        found = self.estimator
        what = "Training loss" if self.held_out is None else "Validation score"
        words = (
            f"{what} did not improve more than tol={found.tol:f} for {found.n_iter_no_change} "
            "consecutive epochs."
        )
        slower = self.update.solver == "sgd" and self.update.learning_rate == "adaptive"
        if slower and trainer.base_lr > SMALLEST_RATE:
            trainer.base_lr /= 5.0
            words, stop = f"{words} Setting learning rate to {trainer.base_lr:f}", ""
        else:
            words += " Learning rate too small. Stopping." if slower else " Stopping."
            stop = words
        if found.verbose:
            print(words)
        return stop

    # checkpoints -----------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return the fitted attributes that change in each epoch, and the random state."""
        found = vars(self.estimator)
        numbers = {name: found[name] for name in (*NUMBERS, *CURVES) if name in found}
        numbers["count"] = found["_no_improvement_count"]
        arrays = {
            f"{name}.{layer}": np.asarray(array)
            for name in BEST
            if self.held_out is not None and not self.best_is_live
            for layer, array in enumerate(found[name])
        }
        if self.order is not None:
            more, numbers["order"] = self.order.state()
            arrays |= more
        return arrays, numbers

    def restore(
        self, trainer: Training, arrays: dict[str, np.ndarray], state: dict[str, Any]
    ) -> None:
        """Restore the attributes and the random state."""
        found = self.estimator
        found._no_improvement_count = state["count"]
        for name in (*NUMBERS, *CURVES):
            if name in state:
                setattr(found, name, state[name])
        for name in BEST:
            layers = [key for key in arrays if key.startswith(f"{name}.")]
            if layers:
                self.best_is_live = False
                setattr(found, name, [arrays[f"{name}.{layer}"] for layer in range(len(layers))])
        if self.order is not None:
            self.order.restore(arrays, state["order"])
        self.task.epoch_begins()


class NonFiniteError(ValueError):
    """The error for parameters that are not finite, with scikit-learn's message."""

    def __init__(self, epoch: int) -> None:
        super().__init__(
            "Solver produced non-finite parameter weights. The input data may contain large values "
            f"and need to be preprocessed. (It happened in epoch {epoch}: scale the data, or lower "
            "learning_rate_init.)"
        )
