"""Fits and predictions of scikit-learn's estimators, done by gpunn's.

scikit-learn checks parameters and data, and sets all attributes for a first fit. Then an estimator
of gpunn, the twin, gets the attributes and trains. What it has learned is written into the arrays
and attributes of scikit-learn's estimator, with an optimizer of scikit-learn's that has the
moments. Pickles, copies and scikit-learn itself therefore go on from there.
"""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from sklearn.neural_network import _multilayer_perceptron as theirs
from sklearn.utils.optimize import _check_optimize_result
from sklearn.utils.validation import validate_data

from gpunn.accel import report
from gpunn.accel.moments import Moments, as_optimizer, load, made_with
from gpunn.accel.reasons import DIVERGED, against_fit, against_prediction
from gpunn.backends.floating import overflow_raises
from gpunn.sklearn import MLPClassifier, MLPRegressor
from gpunn.sklearn.compat import FitTask
from gpunn.sklearn.continuing import SummedTrainer
from gpunn.sklearn.convergence import NonFiniteError
from gpunn.sklearn.conversion import OURS
from gpunn.sklearn.prediction import HELD

__all__ = ["fit_lbfgs", "fit_stochastic", "outputs"]

CURVES = ("loss_curve_", "validation_scores_")
WEIGHTS = ("coefs_", "intercepts_")


_recording = threading.Lock()


class QuietTrainer(SummedTrainer):
    """A trainer that gives no advice about data."""

    hints = False


class InPlace:
    """A mixin for twins, which go on with scikit-learn's optimizer and warn in its name."""

    max_iter: int
    trainer_class: type[SummedTrainer] = QuietTrainer

    def _new_trainer(self, X: Any, incremental: bool, keeps: bool, state: Any) -> Any:
        make: Any = super()._new_trainer  # type: ignore[misc]
        last = vars(self).get("_optimizer")
        if last is None:
            return make(X, incremental, keeps, state)
        trainer = make(X, incremental, False, {"update": made_with(self, last)})
        load(trainer, last)
        return trainer

    def _warn(self, words: str, category: type[Warning] = UserWarning) -> None:
        vars(self).setdefault("_warnings", []).append((words, category))

    def warn(self) -> None:
        """Issue the warnings of a fit, which scikit-learn is not to repeat."""
        registry = vars(theirs).setdefault("__warningregistry__", {})
        line = theirs.BaseMultilayerPerceptron._fit.__code__.co_firstlineno
        path = str(theirs.__file__)
        for words, category in vars(self).pop("_warnings", ()):
            warnings.warn_explicit(words, category, path, line, theirs.__name__, registry)

    def _iterations(self, result: Any) -> int:
        if result.status == 0:
            return int(_check_optimize_result("lbfgs", result, self.max_iter))
        with _recording, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            count = _check_optimize_result("lbfgs", result, self.max_iter)
        for warning in caught:
            self._warn(str(warning.message), warning.category)
        return int(count)


class Classifier(InPlace, MLPClassifier):
    """The twin of a classifier."""


class Regressor(InPlace, MLPRegressor):
    """The twin of a regressor."""


def _options(kind: type, base: type) -> dict[str, Any]:
    """Return the defaults of the parameters that only gpunn's estimator has."""
    own, known = kind().get_params(deep=False), base().get_params(deep=False)
    return {name: own[name] for name in own.keys() - known.keys()} | {"device": "cpu"}


KINDS: dict[type, tuple[type, dict[str, Any]]] = {
    kind: (base, _options(kind, base))
    for kind, base in ((Classifier, theirs.MLPClassifier), (Regressor, theirs.MLPRegressor))
}
PRIVATE = {*OURS, *HELD, *WEIGHTS, "_optimizer", "_task", "_only_initialize", "_given_validation"}


class Kept:
    """The memory of an estimator between two calls of its methods.

    Attributes:
        twin: the twin that predicts.
        training: the twin's network and trainer of the last `partial_fit`.
        moments: the arrays that the trainer shares with the estimator's optimizer.
    """

    def __init__(self, twin: Any) -> None:
        self.twin = twin  # with no attributes but those that it predicts with
        self.training: dict[str, Any] = {}
        self.moments: Moments | None = None


_kept: dict[int, tuple[weakref.ref[Any], Kept]] = {}
"""By the `id` of the estimator, because a subclass may not be hashable."""


def _kept_of(found: Any) -> Kept:
    key = id(found)
    known = _kept.get(key)
    if known is None or known[0]() is not found:
        gone = weakref.ref(found, lambda _: _kept.pop(key, None))
        _kept[key] = known = gone, Kept(_blank(found))
    return known[1]


def _kind(found: Any) -> type | None:
    """Return the class of an estimator's twin; None if it is neither of scikit-learn's two."""
    return next((kind for kind, (base, _) in KINDS.items() if isinstance(found, base)), None)


def _blank(found: Any) -> Any:
    """Make a twin that has only the parameters that scikit-learn's estimators do not have."""
    kind = _kind(found)
    assert kind is not None
    twin: Any = object.__new__(kind)
    vars(twin).update(KINDS[kind][1])
    return twin


def _twin(found: Any) -> Any:
    """Make a twin with the parameters and attributes of an estimator."""
    twin = _blank(found)
    shadowed = PRIVATE | vars(twin).keys()  # a subclass may have such attributes for itself
    vars(twin).update({k: v for k, v in vars(found).items() if k not in shadowed})
    if hasattr(found, "coefs_"):
        for name in WEIGHTS:  # lists of its own, because a network replaces their items
            setattr(twin, name, list(getattr(found, name)))
        if vars(found).get("_best_coefs") is found.coefs_:
            twin._best_coefs, twin._best_intercepts = twin.coefs_, twin.intercepts_
    return twin


def _give(twin: Any, found: Any) -> None:
    """Give an estimator what its twin has set, except its weights."""
    shadowed = PRIVATE | KINDS[type(twin)][1].keys()
    vars(found).update({k: v for k, v in vars(twin).items() if k not in shadowed})


class Before:
    """The part of an estimator that a fit changes before it ends: to take it back."""

    def __init__(self, found: Any) -> None:
        self.random = found._random_state
        self.state = self.random.get_state()
        self.curves = [(c, len(c)) for name in CURVES if (c := vars(found).get(name)) is not None]

    def restore(self) -> None:
        """Take back the random numbers and the epochs."""
        self.random.set_state(self.state)
        for curve, length in self.curves:
            del curve[length:]


def fit_stochastic(
    own: Callable[..., Any], found: Any, X: Any, y: Any, sample_weight: Any, *rest: Any
) -> None:
    """Train an estimator with the solvers "sgd" and "adam".

    Args:
        own: scikit-learn's method.
        found: the estimator.
        X: (N, D) checked examples.
        y: (N, K) checked targets.
        sample_weight: (N,) weights, or None.
        rest: the further arguments of scikit-learn's method.
    """
    incremental: bool = rest[-1]
    what = "partial_fit" if incremental else "fit"
    reason = against_fit(found, _kind(found), X, y)
    if reason is None:
        before = Before(found)
        try:
            reason = _trained(found, X, y, sample_weight, rest)
        except Exception as error:  # scikit-learn raises its own, in the words of its own
            reason = f"{type(error).__name__}: {error}"
        if reason is not None:
            before.restore()
    report.ran(found, what, reason)
    if reason is not None:
        own(found, X, y, sample_weight, *rest)


def _trained(found: Any, X: Any, y: Any, sample_weight: Any, rest: Any) -> str | None:
    """Train an estimator, or return the reason why scikit-learn should."""
    incremental: bool = rest[-1]
    kept, twin = _kept_of(found), _twin(found)
    training, kept.training = kept.training, {}
    last = vars(found).get("_optimizer") if incremental else None
    if last is not None:
        twin._optimizer = last
        if kept.moments is not None and kept.moments.are_of(last):
            vars(twin).update(training)
    twin._task = FitTask(twin, X, y, sample_weight, 1)
    try:
        with overflow_raises():
            twin._fit_stochastic(X, y, sample_weight, *rest)
    except (FloatingPointError, NonFiniteError):
        return DIVERGED
    if not np.isfinite(twin.loss_curve_).all():
        return DIVERGED
    twin.warn()
    found._optimizer = as_optimizer(twin._trainer, last)
    _give(twin, found)
    if twin.early_stopping:
        found.coefs_, found.intercepts_ = twin.coefs_, twin.intercepts_
    else:
        for name in WEIGHTS:
            for old, new in zip(getattr(found, name), getattr(twin, name), strict=True):
                old[...] = new
    if incremental:
        kept.training = {name: vars(twin)[name] for name in ("_network", "_trainer")}
        kept.moments = Moments(found._optimizer)
    return None


def fit_lbfgs(
    own: Callable[..., Any], found: Any, X: Any, y: Any, sample_weight: Any, *rest: Any
) -> None:
    """Train an estimator with the solver "lbfgs"; the arguments are those of `fit_stochastic`."""
    reason = against_fit(found, _kind(found), X, y)
    if reason is None:
        twin = _twin(found)
        try:
            with overflow_raises():
                twin._fit_lbfgs(X, y, sample_weight, *rest)
            if np.isfinite(twin.loss_):
                twin.warn()
            else:
                reason = DIVERGED
        except FloatingPointError:
            reason = DIVERGED
        except Exception as error:  # as above
            reason = f"{type(error).__name__}: {error}"
    report.ran(found, "fit", reason)
    if reason is not None:
        own(found, X, y, sample_weight, *rest)
        return
    coefs, intercepts = twin.coefs_, twin.intercepts_
    ends = np.cumsum([0, *(each.size for each in (*coefs, *intercepts))]).tolist()
    spans = list(pairwise(ends))  # where scikit-learn has the weights in SciPy's vector
    found._coef_indptr = [(*span, w.shape) for span, w in zip(spans, coefs, strict=False)]
    found._intercept_indptr = spans[len(coefs) :]
    found.coefs_[:], found.intercepts_[:] = coefs, intercepts
    found.loss_, found.n_iter_ = twin.loss_, twin.n_iter_


def outputs(own: Callable[..., Any], found: Any, X: Any, check_input: bool) -> Any:
    """Compute the (N, K) outputs of an estimator for (N, D) examples.

    Args:
        own: scikit-learn's method.
        found: the fitted estimator.
        X: the examples.
        check_input: whether to check them.
    """
    if check_input and not MLPClassifier._is_plain(found, X):
        X = validate_data(found, X, accept_sparse=["csr", "csc"], reset=False)
    reason = against_prediction(found, _kind(found), X)
    report.ran(found, "prediction", reason)
    if reason is not None:
        return own(found, X, check_input=False)
    twin = _kept_of(found).twin
    for name in ("activation", "out_activation_"):
        setattr(twin, name, getattr(found, name))
    twin.coefs_, twin.intercepts_ = found.coefs_, found.intercepts_
    try:
        with overflow_raises():
            return twin._forward_pass_fast(X, check_input=False)
    except FloatingPointError:
        del _kept[id(found)]
        report.ran(found, "prediction", DIVERGED)
        return own(found, X, check_input=False)
