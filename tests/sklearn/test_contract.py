"""What scikit-learn's users rely on: states, words, tools around the estimators."""

from __future__ import annotations

import contextlib
import copy
import io
import pickle
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn import neural_network
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

import gpunn.sklearn
from tests.sklearn.cases import assert_same, data, fitted, pair

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
TASKS = ("binary", "multiclass", "multilabel", "regression", "outputs")
MODULES = (neural_network, gpunn.sklearn)


def both(task, work, **options):
    """Apply `work` to both estimators on one BLAS thread; their results must be the same."""
    x, y = data(task)
    models = pair(task, random_state=0, hidden_layer_sizes=(6,), **options)
    with threadpool_limits(1):
        for model in models:
            work(model, x, y)
    assert_same(*models, x)
    return models


@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("task", TASKS)
def test_partial_fit(task, solver):
    def work(model, x, y):
        for start in (0, 30, 60, 0):
            part = slice(start, start + 30)
            known = np.unique(y) if y.ndim == 1 else np.arange(y.shape[1])
            classes = {} if task in ("regression", "outputs") else {"classes": known}
            model.partial_fit(x[part], y[part], **classes)

    both(task, work, solver=solver, learning_rate="invscaling")


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_warm_start_and_fit_again(solver):
    def work(model, x, y):
        model.fit(x, y)
        model.fit(x[:50], y[:50])
        model.set_params(warm_start=False, alpha=0.1).fit(x, y)
        model.set_params(warm_start=True, max_iter=3).fit(x, y)

    both("multiclass", work, solver=solver, warm_start=True, max_iter=5)


def test_partial_fit_after_fit_keeps_the_moments():
    def work(model, x, y):
        model.fit(x, y).partial_fit(x[:20], y[:20])
        model.set_params(alpha=0.5, shuffle=False, batch_size=7).partial_fit(x, y)

    both("multiclass", work, max_iter=4)


def test_weights_that_a_user_writes_are_used():
    def work(model, x, y):
        model.fit(x, y)
        model.coefs_[0] = model.coefs_[0] + 0.5  # another array
        model.intercepts_[1][:] = 0.25  # the same array
        model.predict(x)
        model.coefs_[0][0, 0] = 3.0

    theirs, ours = both("multiclass", work, max_iter=4)
    x, y = data("multiclass")
    with threadpool_limits(1):
        ours.partial_fit(x, y)
    assert not np.array_equal(ours.coefs_[0], theirs.coefs_[0])


def test_pickle_and_copies_go_on_with_the_same_bits():
    x, y = data("multiclass")
    with threadpool_limits(1):
        model = gpunn.sklearn.MLPClassifier((6,), random_state=0, max_iter=4).fit(x, y)
        for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
            assert_same(model, again, x)
            more = [copy.deepcopy(model).partial_fit(x, y), again.partial_fit(x, y)]
            assert_same(*more, x)
        theirs = neural_network.MLPClassifier((6,), random_state=0, max_iter=4).fit(x, y)
        assert_same(theirs.partial_fit(x, y), model.partial_fit(x, y), x)


def test_the_state_is_plain(tmp_path):
    x, y = data("multiclass")
    model = gpunn.sklearn.MLPClassifier((6,), random_state=0, max_iter=2).fit(x, y)
    kinds = set()

    def walk(value):
        kinds.add(f"{type(value).__module__}.{type(value).__name__}")
        for part in value.values() if isinstance(value, dict) else value:
            if isinstance(part, dict | list | tuple):
                walk(part)
            else:
                kinds.add(f"{type(part).__module__}.{type(part).__name__}")

    walk(model.__getstate__())
    assert not [kind for kind in kinds if kind.startswith("gpunn")]
    joblib.dump(model, tmp_path / "model")
    assert_same(model, joblib.load(tmp_path / "model"), x)


def test_clone_keeps_every_parameter():
    model = gpunn.sklearn.MLPRegressor(
        "huber", (3, 4), activation=["gelu", "tanh"], dropout=[0.1, 0.2], optimizer="rmsprop"
    )
    assert clone(model).get_params() == model.get_params()
    theirs = neural_network.MLPRegressor().get_params()
    ours = gpunn.sklearn.MLPRegressor().get_params()
    assert theirs.items() <= ours.items()
    assert (
        neural_network.MLPClassifier().get_params().items()
        <= gpunn.sklearn.MLPClassifier().get_params().items()
    )


def test_an_optimizer_object_can_be_cloned_pickled_and_searched():
    rule = gpunn.optim.SGD(lr=0.05, momentum=0.9)
    model = gpunn.sklearn.MLPClassifier((4,), optimizer=rule, max_iter=3, random_state=0)
    x, y = data("binary")
    first = clone(model).fit(x, y)
    second = pickle.loads(pickle.dumps(model)).fit(x, y)
    assert_same(first, second, x)
    assert rule.flat is None


def test_grid_search_with_two_processes():
    x, y = data("multiclass")
    found = []
    for module in MODULES:
        model = make_pipeline(StandardScaler(), module.MLPClassifier((5,), random_state=0))
        grid = {"mlpclassifier__alpha": [1e-4, 3.0], "mlpclassifier__max_iter": [5]}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found.append(GridSearchCV(model, grid, n_jobs=2, cv=3).fit(x, y))
    theirs, ours = (search.cv_results_["mean_test_score"] for search in found)
    np.testing.assert_allclose(ours, theirs)
    assert found[1].best_params_ == found[0].best_params_
    assert cross_val_score(found[1].best_estimator_, x, y, cv=2).shape == (2,)


@pytest.mark.parametrize("form", [scipy.sparse.csr_matrix, scipy.sparse.csc_array])
@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_sparse_input(form, solver):
    x, y = data("multiclass")
    x = form(np.where(np.abs(x) > 0.7, x, 0))
    models = pair("multiclass", hidden_layer_sizes=(6,), random_state=0, max_iter=5, solver=solver)
    for options in ({}, {"early_stopping": True, "batch_size": 16}):
        with threadpool_limits(1):
            for model in models:
                model.set_params(**options).fit(x, y)
        assert_same(*models, x)


def test_frames_and_their_names():
    x, y = data("multiclass")
    frame = pd.DataFrame(x, columns=list("abcdef"))
    labels = pd.Series(np.array(["low", "mid", "high", "top"])[y])
    models = pair("multiclass", hidden_layer_sizes=(6,), random_state=0, max_iter=5)
    with threadpool_limits(1):
        for model in models:
            model.fit(frame, labels)
        assert_same(*models, frame)
    assert list(models[1].feature_names_in_) == list("abcdef")
    with pytest.raises(ValueError, match="feature names should match"):
        models[1].predict(frame[list("bacdef")])


def said(work):
    """What a piece of work prints, warns and raises."""
    out = io.StringIO()
    error = ""
    with warnings.catch_warnings(record=True) as found, contextlib.redirect_stdout(out):
        warnings.simplefilter("always")
        try:
            work()
        except Exception as raised:
            error = f"{type(raised).__name__}: {raised}"
    return out.getvalue(), [(w.category, str(w.message)) for w in found], error


def nan(x):
    x = x.copy()
    x[3, 2] = np.nan
    return x


SAYINGS = {
    "verbose": lambda m, x, y: m(verbose=True, max_iter=5).fit(x, y),
    "verbose early stop": lambda m, x, y: m(
        verbose=True, early_stopping=True, n_iter_no_change=2, tol=1.0
    ).fit(x, y),
    "adaptive": lambda m, x, y: m(
        verbose=True, solver="sgd", learning_rate="adaptive", tol=5.0, n_iter_no_change=1,
        learning_rate_init=2e-5,
    ).fit(x, y),
    "plateau": lambda m, x, y: m(verbose=True, tol=5.0, n_iter_no_change=2).fit(x, y),
    "not converged": lambda m, x, y: m(max_iter=2).fit(x, y),
    "lbfgs not converged": lambda m, x, y: m(max_iter=2, solver="lbfgs").fit(x, y),
    "large batch": lambda m, x, y: m(batch_size=1000, max_iter=2).fit(x, y),
    "nan": lambda m, x, y: m().fit(nan(x), y),
    "nan to predict": lambda m, x, y: m(max_iter=2).fit(x, y).predict(nan(x)),
    "one row": lambda m, x, y: m(early_stopping=True, validation_fraction=0.01).fit(x, y),
    "lengths": lambda m, x, y: m().fit(x, y[:-1]),
    "features": lambda m, x, y: m(max_iter=2).fit(x, y).predict(x[:, :3]),
    "one-dimensional": lambda m, x, y: m().fit(x[:, 0], y),
    "hidden 0": lambda m, x, y: m(hidden_layer_sizes=(3, 0)).fit(x, y),
    "hidden -1": lambda m, x, y: m(hidden_layer_sizes=-1).fit(x, y),
    "alpha": lambda m, x, y: m(alpha=-1).fit(x, y),
    "solver": lambda m, x, y: m(solver="newton").fit(x, y),
    "momentum": lambda m, x, y: m(momentum=2).fit(x, y),
    "batch": lambda m, x, y: m(batch_size=0).fit(x, y),
    "partial early": lambda m, x, y: m(early_stopping=True).partial_fit(
        x, y, **({"classes": [0, 1, 2, 3]} if y.dtype == int else {})
    ),
    "partial lbfgs": lambda m, x, y: m(solver="lbfgs").partial_fit(x, y),
    "not fitted": lambda m, x, y: m().predict(x),
    "column": lambda m, x, y: m(max_iter=2).fit(x, y.reshape(-1, 1)),
    "weights": lambda m, x, y: m(max_iter=2).fit(x, y, np.ones(3)),
    "text": lambda m, x, y: m(max_iter=2).fit(x.astype(str).astype(object) + "a", y),
    "diverges": lambda m, x, y: m(
        solver="sgd", learning_rate_init=1e200, max_iter=3, hidden_layer_sizes=(3, 3, 3)
    ).fit(x * 1e100, y),
}  # fmt: skip


@pytest.mark.parametrize("name", SAYINGS)
@pytest.mark.parametrize("kind", ["MLPClassifier", "MLPRegressor"])
def test_words_are_scikit_learns(kind, name):
    x, y = data("multiclass" if kind == "MLPClassifier" else "regression")

    def run(module):
        def make(**options):
            return getattr(module, kind)(random_state=0, **options)

        with threadpool_limits(1):
            return said(lambda: SAYINGS[name](make, x, y))

    (out, warned, error), (our_out, our_warned, our_error) = map(run, MODULES)
    assert our_out == out
    if name != "diverges":
        assert our_error == error
        assert our_warned == warned
        assert out or warned or error or name == "partial lbfgs"  # the regressor allows it
    else:  # told at once, with more words; overflows are not told one by one
        theirs = "ValueError: Solver produced non-finite parameter weights. The input data may"
        assert error.startswith(theirs)
        assert our_error.startswith("NonFiniteError" + theirs.removeprefix("ValueError"))
        assert "It happened in epoch" in our_error


def test_classes_of_partial_fit_and_warm_start_are_checked():
    x, y = data("multiclass")
    for module in MODULES:
        model = module.MLPClassifier((3,), max_iter=2, warm_start=True, random_state=0).fit(x, y)
        with pytest.raises(ValueError, match="warm_start can only be used where `y` has the same"):
            model.fit(x, y + 1)
        with pytest.raises(ValueError, match=r"`y` has classes not in `self\.classes_`"):
            model.set_params(warm_start=False).partial_fit(x, y + 1)


def test_errors_have_the_types_of_scikit_learn():
    x, y = data("binary")
    with pytest.raises(NotFittedError):
        gpunn.sklearn.MLPClassifier().predict_proba(x)
    with pytest.warns(ConvergenceWarning, match="Maximum iterations"):
        gpunn.sklearn.MLPClassifier(max_iter=1).fit(x, y)
    assert not hasattr(gpunn.sklearn.MLPClassifier(solver="lbfgs"), "partial_fit")


def test_an_interrupted_fit_is_a_warning():
    x, y = data("binary")

    class Interrupts(gpunn.train.Callback):
        def on_epoch_end(self, trainer, epoch, history):
            if epoch == 3:
                raise KeyboardInterrupt

    model = gpunn.sklearn.MLPClassifier((3,), callbacks=[Interrupts()])
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        model.fit(x, y)
    assert model.n_iter_ == 3
    assert model.predict(x).shape == y.shape


def test_random_states_move_as_scikit_learns():
    x, y = data("multiclass")
    ends = []
    for module in MODULES:
        state = np.random.RandomState(5)
        with threadpool_limits(1):
            module.MLPClassifier((4,), random_state=state, max_iter=3, early_stopping=True).fit(
                x, y
            )
        ends.append(state.uniform())
    assert ends[0] == ends[1]


def test_float32_and_integers_are_taken():
    (theirs, ours), x, _ = fitted("binary", "float32", max_iter=3, random_state=0)
    assert ours.predict_proba(x).dtype == theirs.predict_proba(x).dtype == np.float32
    wide = x.astype(np.float64)
    assert ours.predict_proba(wide).dtype == theirs.predict_proba(wide).dtype
    whole = (x * 10).astype(int)
    with threadpool_limits(1):
        for model in (theirs, ours):
            model.fit(whole, x[:, 0] > 0)
    assert_same(theirs, ours, whole)


@pytest.mark.parametrize("kind", [gpunn.sklearn.MLPClassifier, gpunn.sklearn.MLPRegressor])
def test_a_pickle_without_a_newer_parameter_gets_its_default(kind):
    x, y = data("binary")
    model = kind(hidden_layer_sizes=(3,), max_iter=2, random_state=0).fit(x, y)
    state, expected = model.__getstate__(), model.predict(x)
    for name, default in kind().get_params().items():
        if name in ("hidden_layer_sizes", "max_iter", "random_state"):
            continue
        older = kind.__new__(kind)
        older.__setstate__({key: value for key, value in state.items() if key != name})
        assert older.get_params()[name] == default
        np.testing.assert_array_equal(older.predict(x), expected)
        clone(older).fit(x, y)


@pytest.mark.parametrize("loss", ["squared_error", "poisson", "huber"])
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda t: t.astype(str), "targets of dtype <U"),
        (lambda t: t.astype("S9"), "targets of dtype"),
        (lambda t: t.astype("M8[s]"), "targets of dtype datetime64"),
        (lambda t: t.astype("m8[s]"), "targets of dtype timedelta64"),
        (lambda t: scipy.sparse.csr_matrix(np.c_[t, t]), r"y.toarray\(\)"),
    ],
    ids=["text", "bytes", "dates", "times", "sparse"],
)
def test_targets_of_a_regressor_are_numbers(make, words, solver, loss):
    x, t = np.eye(6, 3), np.arange(6.0)
    with pytest.raises(TypeError, match=words):
        gpunn.sklearn.MLPRegressor(loss=loss, solver=solver, max_iter=2).fit(x, make(t))
