"""scikit-learn's estimators under gpunn.accel show what they show without it, to the bit."""

from __future__ import annotations

import contextlib
import copy
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.neural_network import _multilayer_perceptron as theirs
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from gpunn.accel import switch
from gpunn.accel.reasons import DIVERGED
from gpunn.sklearn.shuffle import CumulativeShuffle
from tests.accel.cases import outcome, patched, same_work, told
from tests.sklearn.cases import data, kind

ON_GPUNN = "gpunn, on the CPU in float64"
TASKS = ("binary", "multiclass", "multilabel", "regression", "outputs", "poisson")
KINDS = {"MLPClassifier": MLPClassifier, "MLPRegressor": MLPRegressor}


def made(task, **options):
    """An estimator of scikit-learn for a task."""
    given = {"hidden_layer_sizes": (6,), "max_iter": 12, "random_state": 0, **options}
    return KINDS[kind(task)](**given, **({"loss": "poisson"} if task == "poisson" else {}))


def shown(model):
    """All attributes of an estimator."""
    return dict(vars(model))


def places(words):
    """Where the fits and predictions ran."""
    return {each.rpartition(" on ")[2] if ON_GPUNN not in each else ON_GPUNN for each in words}


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
@pytest.mark.parametrize("task", TASKS)
def test_fit_and_predict(task, solver):
    def work():
        x, y = data(task)
        model = made(task, solver=solver, verbose=True).fit(x, y)
        more = [model.predict(x), model.score(x, y), model.predict(x[:1]), repr(model)]
        if hasattr(model, "predict_proba"):
            more += [model.predict_proba(x), model.predict_log_proba(x)]
        return shown(model), more

    words = same_work(work)
    assert len(words) == 2
    assert all(each.endswith(ON_GPUNN) for each in words)


@pytest.mark.parametrize("seed", range(40))
def test_any_order_of_calls(seed):
    """Random parameters and calls, with pickles and copies between them."""
    rng = np.random.default_rng(seed)

    def one(*of):
        return of[rng.integers(len(of))]

    task = one(*TASKS)
    options = {
        "solver": one("adam", "sgd", "sgd", "lbfgs"),
        "activation": one("relu", "tanh", "logistic", "identity"),
        "hidden_layer_sizes": one((), 5, (4, 3)),
        "batch_size": one("auto", 1, 33, 1000),
        "learning_rate": one("constant", "invscaling", "adaptive"),
        "learning_rate_init": one(0.001, 0.1),
        "nesterovs_momentum": one(True, False),
        "early_stopping": one(True, False, False),
        "warm_start": one(True, False),
        "shuffle": one(True, True, False),
        "n_iter_no_change": one(1, 3, np.inf),
        "tol": one(1e-4, 0.1),
        "alpha": one(0, 1e-4, 1.0),
        "random_state": one(None, 0),
    }
    calls = [one("fit", "part", "half", "pickle", "copy", "set", "write", "plain") for _ in "12345"]
    weighted = one(True, False)

    def work(plainly):
        x, y = data(task)
        weights = np.linspace(0.5, 2, len(x)) if weighted else None
        model = made(task, **options)
        errors = []
        for call in calls:
            try:
                if call in ("fit", "plain"):
                    with plainly(call):
                        model.fit(x, y, sample_weight=weights)
                elif call == "half":
                    model.fit(x[::2], y[::2])
                elif call == "part":
                    known = {} if kind(task) == "MLPRegressor" else {"classes": classes(y)}
                    model.partial_fit(x, y, sample_weight=weights, **known)
                elif call == "set":
                    model.set_params(alpha=0.5, learning_rate_init=0.02, solver="sgd")
                elif call == "write":
                    model.coefs_[0][:] *= 0.5
                    model.intercepts_[-1] = model.intercepts_[-1] + 0.1
                elif call in ("pickle", "copy"):
                    model = {"pickle": lambda m: pickle.loads(pickle.dumps(m))}.get(
                        call, copy.deepcopy
                    )(model)
            except Exception as error:
                errors.append((call, type(error), str(error)))
        return errors, shown(model)

    @contextlib.contextmanager
    def unpatched(call):
        on = MLPClassifier._fit_stochastic is switch.fit_stochastic
        if call == "plain":  # scikit-learn goes on where gpunn stopped, and gpunn where it stops
            switch.turn_off()
        try:
            yield
        finally:
            if on:
                switch.turn_on()

    words = same_work(lambda: work(unpatched))
    assert words or not {"fit", "part", "half"} & {*calls}


def classes(y):
    """The classes for a first `partial_fit`."""
    return np.unique(y) if y.ndim == 1 else np.arange(y.shape[1])


def test_both_go_on_from_the_same_pickle():
    """A pickle of either kind continues in the other, with its moments."""
    x, y = data("multiclass")

    def begin():
        return pickle.dumps(made("multiclass").fit(x, y))

    def go_on(text):
        return shown(pickle.loads(text).partial_fit(x, y))

    plain = outcome(begin)[0]
    with patched():
        fast = outcome(begin)[0]
        first = outcome(lambda: go_on(plain))[0]
    assert plain == fast
    second = outcome(lambda: go_on(fast))[0]
    assert first.keys() == second.keys()
    np.testing.assert_array_equal(first["coefs_"][0], second["coefs_"][0])
    np.testing.assert_array_equal(first["_optimizer"].ms[0], second["_optimizer"].ms[0])


def test_a_pickle_loads_where_gpunn_is_not():
    x, y = data("multiclass")
    with patched():
        text = pickle.dumps(made("multiclass").partial_fit(x, y, classes=classes(y)))
    code = (
        "import pickle, sys; m = pickle.loads(sys.stdin.buffer.read()); "
        "print(type(m).__module__, 'gpunn' in sys.modules, len(m.coefs_))"
    )
    done = subprocess.run([sys.executable, "-c", code], input=text, capture_output=True)
    assert done.stdout.split() == [theirs.__name__.encode(), b"False", b"2"], done.stderr


LAYOUTS = {
    "frame": (pd.DataFrame, ON_GPUNN),
    "integers": (lambda x: (x * 5).astype(int), ON_GPUNN),
    "booleans": (lambda x: x > 0, ON_GPUNN),
    "list": (np.ndarray.tolist, ON_GPUNN),
    "csr": (lambda x: scipy.sparse.csr_matrix(np.where(x > 0.5, x, 0)), ON_GPUNN),
    "csr array": (lambda x: scipy.sparse.csr_array(np.where(x > 0.5, x, 0)), ON_GPUNN),
    "csc": (lambda x: scipy.sparse.csc_matrix(np.where(x > 0.5, x, 0)), "csc_matrix"),
    "float32": (lambda x: x.astype(np.float32), "float32"),
    "every second column": (lambda x: np.repeat(x, 2, axis=1)[:, ::2], ON_GPUNN),
}


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout, shuffle, solver):
    change, expected = LAYOUTS[layout]

    def work():
        x, y = data("multiclass")
        model = made("multiclass", solver=solver, shuffle=shuffle, batch_size=1, max_iter=2)
        model.fit(change(x), y)
        return shown(model) | {"feature_names_in_": None}, model.predict_proba(change(x[:3]))

    words = same_work(work)
    if shuffle and solver == "adam":
        assert expected in words[0]


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_overflow_is_told_by_scikit_learn(solver):
    def work():
        x, y = data("poisson")
        model = made(
            "poisson", solver=solver, learning_rate_init=5.0, early_stopping=solver == "sgd"
        )
        try:
            model.fit(x * 1e160, y)
        except ValueError as error:
            return str(error), shown(model)
        return shown(model)

    assert DIVERGED in same_work(work)[0]


@pytest.mark.parametrize("batch_size", ["auto", 1])
def test_overflow_that_leaves_no_trace_in_the_weights(batch_size):
    """Squares of gradients overflow in Adam, and the steps become 0; the loss stays finite."""

    def work():
        x, y = data("binary")
        model = made("binary", batch_size=batch_size).fit(x * 1e200, y)
        assert np.isfinite(model.loss_curve_).all()
        return shown(model)

    assert DIVERGED in same_work(work)[0]


def test_overflow_in_a_prediction():
    def work():
        x, y = data("poisson")
        model = made("poisson").fit(x, y)
        return model.predict(x * 1e5)

    with warnings.catch_warnings():
        words = same_work(work)
    assert DIVERGED in words[-1]


def test_a_filter_for_scikit_learn_s_module_takes_its_warnings():
    x, y = data("multiclass")
    with patched(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", category=ConvergenceWarning, module="sklearn")
        made("multiclass", max_iter=1).fit(x, y)
        made("multiclass", max_iter=1, solver="lbfgs").fit(x, y)
    assert caught == []


def test_warnings_as_errors():
    def work():
        x, y = data("multiclass")
        model = made("multiclass", max_iter=2, early_stopping=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(ConvergenceWarning):
                model.fit(x, y)
        return shown(model)

    same_work(work)


class Mine(MLPClassifier):
    """A user's subclass, with attributes and options that have names of gpunn's."""

    def __init__(self, dropout=0.5, **options):
        self.dropout = dropout
        self.device = "a name of mine"
        super().__init__(**options)

    def fit(self, X, y):
        self.callbacks = ["mine"]
        self._network = "mine"
        return super().fit(X, y)

    def __eq__(self, other):
        return True

    __hash__ = None


class Backward(MLPClassifier):
    """A subclass with a gradient of its own."""

    def _backprop(self, *given):
        loss, coefs, intercepts = super()._backprop(*given)
        return loss, [grad * 0.5 for grad in coefs], intercepts


def test_subclasses():
    x, y = data("multiclass")
    options = {"max_iter": 5, "random_state": 0}

    def work(cls):
        model = clone(cls(**options)).fit(x, y)
        assert type(model) is cls
        return shown(model), model.predict_proba(x), model.get_params(), repr(model)

    assert places(same_work(lambda: work(Mine))) == {ON_GPUNN}
    words = same_work(lambda: work(Backward))
    assert "_backprop" in words[0]
    assert "scikit-learn" in words[0]


def test_an_activation_of_the_user_s(monkeypatch):
    x, y = data("multiclass")
    table = dict(theirs.ACTIVATIONS, tanh=lambda z: np.sin(z, out=z))
    monkeypatch.setattr(theirs, "ACTIVATIONS", table)

    def work():
        model = made("multiclass", activation="tanh").fit(x, y)
        return shown(model), model.predict_proba(x)

    assert all("ACTIVATIONS" in each for each in same_work(work))


def test_a_method_that_is_replaced_later(monkeypatch):
    x, y = data("multiclass")
    own = MLPClassifier._backprop
    seen = []

    def watched(self, *given):
        seen.append(1)
        return own(self, *given)

    watched.__module__ = own.__module__
    monkeypatch.setattr(MLPClassifier, "_backprop", watched)
    with patched(), told() as words:
        outcome(lambda: made("multiclass", max_iter=2).fit(x, y))
    assert seen
    assert "_backprop is not scikit-learn's" in words[0]


def test_people_s_ways(tmp_path):
    def work():
        x, y = data("multiclass")
        pipe = make_pipeline(StandardScaler(), made("multiclass"))
        search = GridSearchCV(
            pipe, {"mlpclassifier__alpha": [1e-4, 1.0], "mlpclassifier__solver": ["sgd", "lbfgs"]}
        ).fit(x, y)
        scores = cross_val_score(made("multiclass"), x, y, cv=3)
        best = search.best_estimator_[-1]
        return search.best_params_, search.cv_results_["mean_test_score"], scores, shown(best)

    assert places(same_work(work)) == {ON_GPUNN}


def test_weights_stay_the_same_arrays():
    """scikit-learn trains in place, and a user may hold an array."""

    def work():
        x, y = data("multiclass")
        model = made("multiclass", warm_start=True).fit(x, y)
        first = model.coefs_[0]
        model.fit(x, y).partial_fit(x, y)
        return model.coefs_[0] is first, first, first.flags.owndata, first.flags.writeable

    same_work(work)


def test_a_killed_fit(monkeypatch):
    """Ctrl-C ends the fit with a warning, and keeps the weights."""
    x, y = data("multiclass")
    calls = []
    own = CumulativeShuffle.__call__

    def interrupted(self, epoch, rows):
        calls.append(epoch)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return own(self, epoch, rows)

    monkeypatch.setattr(CumulativeShuffle, "__call__", interrupted)
    with patched(), pytest.warns(UserWarning, match="interrupted by user"):
        model = made("multiclass").fit(x, y)
    assert 1 <= model.n_iter_ < 12
    model.partial_fit(x, y)
