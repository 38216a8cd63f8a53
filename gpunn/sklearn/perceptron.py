"""The part of both estimators that trains: scikit-learn's interface to gpunn's training loop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from sklearn import get_config
from sklearn.base import is_classifier
from sklearn.model_selection import train_test_split
from sklearn.utils import check_array
from sklearn.utils.fixes import _get_additional_lbfgs_options_dict

from gpunn.data.parts import ArrayPart
from gpunn.data.rows import RowTable, floats
from gpunn.errors import ArgumentError
from gpunn.optim import SGD, get_schedule
from gpunn.sklearn import translation
from gpunn.sklearn.arithmetic import SummedStep
from gpunn.sklearn.compat import (
    CallbackSupportMixin,
    FitTask,
    with_callbacks,
)
from gpunn.sklearn.continuing import SummedTrainer, Update, go_on, remember, state_of
from gpunn.sklearn.convergence import Convergence, HeldOut, Warner
from gpunn.sklearn.device_input import checked, like_input, on_device, on_host, placeholder, wide
from gpunn.sklearn.prediction import Predictor
from gpunn.sklearn.shuffle import CumulativeShuffle, WeightedBatches
from gpunn.train.checkpoints import Checkpoints
from gpunn.train.lbfgs import FlatObjective, minimized


class Perceptron(CallbackSupportMixin, Warner, Predictor):
    """A mixin that fits and predicts with gpunn, after scikit-learn has checked and initialised.

    It comes before scikit-learn's own estimators. Parameters, attributes, checks and messages are
    theirs. Networks, losses, updates and epochs are gpunn's.
    """

    trainer_class: type[SummedTrainer] = SummedTrainer
    validation_scores_: list[float] | None
    validation_loss_curve_: Any  # a list, or None

    # training --------------------------------------------------------------------------------

    @with_callbacks
    def _fit(self, X: Any, y: Any, sample_weight: Any = None, incremental: bool = False) -> Any:
        """Fit the estimator; called by scikit-learn's `fit` and `partial_fit`."""
        sample_weight = on_host(sample_weight)
        self.__dict__.pop("_fitted_with", None)
        if get_config()["array_api_dispatch"]:
            self._fitted_with = like_input(np.zeros(0, np.float32), X)
        self._task = FitTask(self, X, y, sample_weight, 1 if incremental else self.max_iter)
        try:
            fitted = super()._fit(X, y, sample_weight=sample_weight, incremental=incremental)
            self._task.ends()
        finally:
            del self._task
        return fitted

    def _validate_input(self, X: Any, y: Any, incremental: bool, reset: bool) -> tuple[Any, Any]:
        """Check the data with scikit-learn's checks; device arrays and rows on disk too."""
        if isinstance(X, RowTable):
            translation.check_on_disk(self)
            X = floats(X)
            y = y[:] if isinstance(y, RowTable) else on_host(y)
            _, y = super()._validate_input(placeholder(X), y, incremental, reset)
            return X, y
        if not on_device(X):
            checked_x, y = super()._validate_input(on_host(X), on_host(y), incremental, reset)
            return checked_x, y
        X = checked(X)
        _, y = super()._validate_input(placeholder(X), on_host(y), incremental, reset)
        return X, y

    def _initialize(self, y: Any, layer_units: Any, dtype: Any) -> None:
        """Set all attributes for a first fit; called by scikit-learn's `fit`."""
        super()._initialize(y, layer_units, dtype)
        self.validation_loss_curve_ = [] if self.validation_curve else None

    def _prepared_trainer(self, X: Any, incremental: bool) -> SummedTrainer:
        """Return the trainer: the last one to go on with its optimizer, else a new one."""
        keeps = incremental or (self.warm_start and self.keep_optimizer)
        trainer = self._suited(X, incremental) if keeps else None
        if trainer is None:
            state = self._training_now() if keeps or self.warm_start else None
            trainer = self._new_trainer(X, incremental, keeps, state or {})
        self._trainer = trainer
        self.__dict__.pop("_training_state", None)
        trainer.loss = translation.loss_function(self)
        trainer.regularizer = translation.penalty(self)
        trainer.schedule = get_schedule(self.schedule or "constant")
        folder = self.checkpoint
        trainer.checkpoints = None if folder is None else Checkpoints(folder)
        if folder is not None:
            trainer.parameters = self.get_params(deep=False)
        self.device_ = self._network.backend.describe()
        self._show_weights()
        return trainer

    def _suited(self, X: Any, incremental: bool) -> SummedTrainer | None:
        """Return the last trainer if it does what the parameters say; else None."""
        trainer: SummedTrainer | None = getattr(self, "_trainer", None)
        network = self._current_network(X)
        if trainer is None or network.model is not trainer.model:
            return None
        anywhere = self.device is None and not on_device(X)
        if not anywhere and network.backend is not self._backend(X):
            return None
        same = network.rates == translation.dropout_rates(self)
        same = same and trainer.precision.name == self.precision
        same = same and (incremental or trainer.update.is_like(Update.of(self)))
        return trainer if same else None

    def _new_trainer(
        self, X: Any, incremental: bool, keeps: bool, state: dict[str, Any]
    ) -> SummedTrainer:
        """Make a network and its trainer, which goes on from the state of another if it `keeps`."""
        now = Update.of(self)
        then = Update(**state["update"]) if "update" in state else now
        self._network = network = self._new_network(
            self._backend(X), self.coefs_[0].dtype, train=True
        )
        seed = 0
        if network.model.streams():
            draws = not keeps or not state.get("streams")
            seed = self._random_state.randint(2**31) if draws else state["seed"]
        update = then if incremental else now
        trainer = self.trainer_class(
            network.model,
            translation.loss_function(self),
            translation.update_rule(update),
            precision=self.precision,
            on_nonfinite="ignore",
            seed=seed,
        )
        trainer.update = update
        for module in network.model.modules():
            module.by_chance = self.random_state is None
        trainer.prepare()
        if keeps and state:
            go_on(trainer, state, same=update.is_like(then))
        remember(trainer, state)
        return trainer

    def _training_now(self) -> dict[str, Any] | None:
        """Return the state of the last training that a fit may go on from; None without one."""
        trainer: SummedTrainer | None = getattr(self, "_trainer", None)
        if trainer is not None:
            return state_of(trainer)
        older = self.__dict__.pop("_optimizer_state", None)  # of a file of an older release
        state: dict[str, Any] | None = getattr(self, "_training_state", None)
        return {"optimizer": older} if state is None and older is not None else state

    def __getstate__(self) -> dict[str, Any]:
        """Return the state as plain arrays and numbers, with that of the training."""
        state: dict[str, Any] = dict(super().__getstate__())
        trainer: SummedTrainer | None = getattr(self, "_trainer", None)
        return state if trainer is None else {**state, "_training_state": state_of(trainer)}

    def _fit_stochastic(self, X: Any, y: Any, sample_weight: Any, *rest: Any) -> None:
        """Train with the solvers "sgd" and "adam"; called by scikit-learn's `fit`."""
        incremental: bool = rest[-1]
        if getattr(self, "_only_initialize", False):
            return
        held_out: HeldOut | None = getattr(self, "_given_validation", None)
        if self.early_stopping and incremental and held_out is None:
            raise ValueError("partial_fit does not support early_stopping=True")
        translation.check_depth(self, rest[4])
        best_is_live = self._best_coefs is self.coefs_
        if not incremental and not self.warm_start:
            self._forget()
        translation.settle_output(self)
        trainer = self._prepared_trainer(X, incremental)
        sample_weight = translation.example_weights(self, y, sample_weight, incremental)
        targets = translation.targets(self, y, trainer.model.backend, trainer.model.dtype)
        on_disk = isinstance(X, RowTable)
        if on_disk:
            targets = RowTable([ArrayPart(targets, "the targets")])
            trainer.seed = int(self._random_state.randint(2**31))
        elif self.early_stopping and not incremental:
            X, targets, sample_weight, held_out = self._split(X, y, targets, sample_weight)
        size = self._rows_of_batch(X.shape[0])
        batches = WeightedBatches(sample_weight, size)
        shuffles = self.shuffle and not on_disk  # for rows on disk the trainer has an order
        order = CumulativeShuffle(self._random_state, batches) if shuffles else None
        if order is None:
            batches.check()
        rows, update = X.shape[0], trainer.update
        epochs = Convergence(
            self, rows, held_out, incremental, order, self._task, best_is_live, update
        )
        try:
            self.n_iter_ = 0
            trainer.fit(
                X,
                targets,
                epochs=1 if incremental else self.max_iter,
                batch_size=size,
                shuffle=order or (on_disk and self.shuffle),
                sample_weight=sample_weight,
                callbacks=[epochs, *(self.callbacks or ())],
                progress=self.progress_bar,
            )
        except KeyboardInterrupt:
            self._warn("Training interrupted by user.")
        finally:
            self._show_weights()
        self.stopped_ = trainer.history.stopped
        if held_out is not None and (self.stopped_ or not incremental):
            if not epochs.best_is_live:
                self._network.take(self._best_coefs, self._best_intercepts)
                self._show_weights()
            self._best_coefs, self._best_intercepts = self.coefs_, self.intercepts_

    def _split(
        self, X: Any, y: Any, targets: Any, sample_weight: Any
    ) -> tuple[Any, Any, Any, HeldOut]:
        """Set data aside for early stopping, with scikit-learn's split."""
        train, test = train_test_split(
            np.arange(X.shape[0]),
            random_state=self._random_state,
            test_size=self.validation_fraction,
            stratify=y if is_classifier(self) and self.n_outputs_ == 1 else None,
        )
        if len(test) < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the size of "
                "your dataset."
            )
        labels = y[test]
        if is_classifier(self):
            labels = self._label_binarizer.inverse_transform(labels)
        weights = [None if sample_weight is None else sample_weight[part] for part in (train, test)]
        held_out = HeldOut(X[test], labels, weights[1], targets[test])
        return X[train], targets[train], weights[0], held_out

    def _loss_of(self, held_out: HeldOut) -> float:
        """Compute the mean loss of held-out data, without penalties."""
        trainer = self._trainer
        return trainer.evaluate(held_out.x, held_out.targets)["loss"]

    def _rows_of_batch(self, rows: int) -> int:
        if self.batch_size == "auto":
            return min(200, rows)
        if self.batch_size > rows:
            self._warn(
                "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped"
            )
        return int(np.clip(self.batch_size, 1, rows))

    def _fit_lbfgs(self, X: Any, y: Any, sample_weight: Any, *rest: Any) -> None:
        """Train with the solver "lbfgs"; called by scikit-learn's `fit`."""
        if getattr(self, "_only_initialize", False):
            return
        translation.check_depth(self, rest[4])
        translation.refuse_with_lbfgs(self, translation.dropout_rates(self))
        b = self._backend(X)
        self._network = network = self._new_network(b, np.float64)
        self._forget()
        optimizer = SGD(network.model.parameters())
        loss, penalty = translation.loss_function(self), translation.penalty(self)
        step = SummedStep(network.model, loss, optimizer, penalty, stops=False)
        sample_weight = translation.example_weights(self, y, sample_weight, False)
        WeightedBatches(sample_weight, X.shape[0]).check()
        given = [X, translation.targets(self, y, b, np.float64)]
        given += [] if sample_weight is None else [sample_weight]
        found = minimized(
            FlatObjective(step, tuple(wide(b, a) for a in given)),
            maxfun=self.max_fun,
            maxiter=self.max_iter,
            gtol=self.tol,
            **_get_additional_lbfgs_options_dict("iprint", 1 if self.verbose else -1),
        )
        self.n_iter_ = self._iterations(found)
        self.loss_ = np.float64(found.fun)
        self.device_ = b.describe()
        self._show_weights()

    def initialize(self, X: Any, y: Any) -> Any:
        """Check the data and set all fitted attributes with initial weights, without training.

        You may then write to `coefs_` and `intercepts_`. `predict`, `partial_fit` and a `fit` with
        `warm_start` use these weights.

        Args:
            X: (N, D) examples, as in `fit`.
            y: their targets, with every class at least once.

        Returns:
            The estimator.
        """
        self._only_initialize = True
        try:
            self._validate_params()
            self._forget()
            for name in ("coefs_", "_network", "_optimizer"):
                self.__dict__.pop(name, None)
            return self._fit(X, y)
        finally:
            del self._only_initialize

    def _forget(self) -> None:
        """Forget the last training, so that no fit goes on from it."""
        for name in ("_trainer", "_training_state", "_optimizer_state"):
            self.__dict__.pop(name, None)

    @contextmanager
    def _validating(self, validation: Any) -> Iterator[None]:
        """Score the `partial_fit` inside the block on this data."""
        if validation is None:
            yield
            return
        if not isinstance(validation, tuple) or len(validation) not in (2, 3):
            raise ArgumentError(
                f"got validation of type {type(validation).__name__}; expected a tuple: pass "
                "validation=(X_test, y_test)"
            )
        if not self.early_stopping:
            raise ArgumentError(
                "got validation data with early_stopping=False; expected early_stopping=True: set "
                "it, or leave out the validation data"
            )
        x, y, *weights = validation
        x = x if on_device(x) else check_array(on_host(x), accept_sparse="csr")
        y = on_host(y)
        self._given_validation = HeldOut(x, y, on_host(weights[0]) if weights else None, y)
        try:
            yield
        finally:
            del self._given_validation
