"""Corners in which scikit-learn's numbers, types and errors are easily missed."""

from __future__ import annotations

import pickle
import warnings
from copy import deepcopy

import numpy as np
import pytest
from sklearn import neural_network
from sklearn.linear_model import SGDClassifier
from threadpoolctl import threadpool_limits

from gpunn.errors import ArgumentError
from gpunn.sklearn import MLPClassifier, MLPRegressor, from_sklearn, to_sklearn
from tests.sklearn.cases import ROWS, assert_same, data, fitted, pair

TASKS = ("binary", "multiclass", "multilabel", "regression", "outputs", "poisson")

pytestmark = pytest.mark.filterwarnings(
    "ignore:Stochastic Optimizer", "ignore:lbfgs failed", "ignore:Training interrupted"
)


# types ---------------------------------------------------------------------------------------


def described(value):
    """The type of a value; of a list, that of its first element; of an array also its dtype."""
    if isinstance(value, list | tuple):
        return [described(part) for part in value[:1]]
    if isinstance(value, np.ndarray):
        return value.dtype, value.ndim
    return type(value)


@pytest.mark.parametrize("options", [{}, {"early_stopping": True}, {"solver": "lbfgs"}], ids=str)
@pytest.mark.parametrize("task", TASKS)
def test_attributes_have_scikit_learns_types(task, options):
    (theirs, ours), x, y = fitted(task, hidden_layer_sizes=(3,), max_iter=3, **options)
    public = [name for name in vars(theirs) if name.endswith("_")]
    found = {name: described(getattr(ours, name)) for name in public}
    assert found == {name: described(getattr(theirs, name)) for name in public}
    assert described(ours.predict(x)) == described(theirs.predict(x))
    assert described(ours.score(x, y)) == described(theirs.score(x, y))


# weights of examples -------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("early", [False, True])
def test_negative_weights(task, solver, early):
    weights = np.random.default_rng(2).uniform(0.2, 2, ROWS)
    weights[::7] *= -0.5
    (theirs, ours), x, _ = fitted(
        task, sample_weight=weights, hidden_layer_sizes=(4,), solver=solver, max_iter=8,
        random_state=0, early_stopping=early,
    )  # fmt: skip
    assert_same(theirs, ours, x)


ONE = np.eye(1, ROWS)[0]
CANCEL = np.append(np.tile([1.0, -1.0], ROWS // 2), 0.0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    ("weights", "options"),
    [
        (ONE, {"batch_size": 50}),
        (ONE, {"batch_size": 50, "shuffle": False, "solver": "sgd"}),
        (CANCEL, {"batch_size": ROWS}),
        (CANCEL, {"solver": "lbfgs"}),
    ],
    ids=str,
)
def test_a_batch_without_weight(task, dtype, weights, options):
    x, y = data(task, dtype)
    for model in pair(task, hidden_layer_sizes=(3,), **options):
        with (
            pytest.raises(ZeroDivisionError, match="Weights sum to zero, can't be normalized"),
            np.errstate(all="ignore"),
        ):
            model.fit(x, y, sample_weight=weights)


# class_weight --------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["binary", "multiclass"])
@pytest.mark.parametrize("names", [lambda y: y, lambda y: np.array([*"dcba"])[y]])
def test_a_chunk_may_lack_a_class_that_has_a_weight(task, names):
    x, y = data(task)
    y = names(y)
    classes = np.unique(y)
    weight = {classes[0]: 3.0, classes[-1]: 0.5}
    options = {"hidden_layer_sizes": (3,), "random_state": 0}
    ours = MLPClassifier(class_weight=weight, **options)
    theirs = MLPClassifier(**options)
    for label in classes:
        chunk = y == label
        ours.partial_fit(x[chunk], y[chunk], classes=classes)
        weights = np.full(chunk.sum(), weight.get(label, 1.0))
        theirs.partial_fit(x[chunk], y[chunk], weights, classes=classes)
    np.testing.assert_array_equal(ours.coefs_[0], theirs.coefs_[0])


def test_an_unknown_class_is_refused_in_the_words_of_scikit_learn():
    x, y = data("binary")
    said = []
    for model in (SGDClassifier(class_weight={7: 2.0}), MLPClassifier(class_weight={7: 2.0})):
        for call in (model.fit, lambda *a, m=model: m.partial_fit(*a, classes=[0, 1])):
            with pytest.raises(ValueError, match="class_weight") as found:
                call(x, y)
            said.append(str(found.value))
    assert len(set(said)) == 1


# early stopping over several fits ------------------------------------------------------------


def passes(model):
    return model


def pickled(model):
    return pickle.loads(pickle.dumps(model))


def converted(model):
    """To the other library and back."""
    if isinstance(model, MLPClassifier | MLPRegressor):
        return from_sklearn(to_sklearn(model))
    return to_sklearn(from_sklearn(model))


@pytest.mark.parametrize("between", [passes, pickled, deepcopy, converted])
@pytest.mark.parametrize("task", ["binary", "regression"])
@pytest.mark.parametrize("seed", range(4))
def test_warm_start_with_early_stopping(task, between, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(210, 1))
    y = (rng.random(210) > 0.5).astype(int) if task == "binary" else rng.random(210)
    models = pair(
        task, hidden_layer_sizes=(3,), solver="sgd", learning_rate_init=0.1, max_iter=3,
        warm_start=True, early_stopping=True, random_state=seed,
    )  # fmt: skip
    moved = set()
    for _ in range(4):
        with threadpool_limits(1):
            models = [between(model.fit(x, y)) for model in models]
        assert_same(*models, x)
        moved.add(models[1].coefs_[0].tobytes())
    assert len(moved) > 1


def test_a_killed_second_fit_keeps_scikit_learns_rule(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(210, 1)), (rng.random(210) > 0.5).astype(int)
    options = {
        "hidden_layer_sizes": (3,), "solver": "sgd", "learning_rate_init": 0.1, "max_iter": 4,
        "warm_start": True, "early_stopping": True, "random_state": 0,
    }  # fmt: skip
    whole = MLPClassifier(**options).fit(x, y).fit(x, y)

    class Killed(RuntimeError):
        pass

    def kill(trainer, epoch, history):
        if epoch == 1:
            raise Killed

    from gpunn.train import Callback

    class Killer(Callback):
        on_epoch_end = staticmethod(kill)

    model = MLPClassifier(**options).fit(x, y)
    again = pickled(model)
    with pytest.raises(Killed):
        model.set_params(checkpoint=tmp_path, callbacks=[Killer()]).fit(x, y)
    again.set_params(checkpoint=tmp_path).fit(x, y)
    np.testing.assert_array_equal(again.coefs_[0], whole.coefs_[0])


def test_the_curves_go_on_together():
    x, y = data("binary")
    model = MLPClassifier(
        (3,), max_iter=4, warm_start=True, early_stopping=True, validation_curve=True
    )
    for times in (1, 2, 3):
        model.fit(x, y)
        curves = (model.loss_curve_, model.validation_scores_, model.validation_loss_curve_)
        assert {len(curve) for curve in curves} == {4 * times}
    assert len(model.set_params(warm_start=False).fit(x, y).validation_loss_curve_) == 4


# names and dtypes ----------------------------------------------------------------------------


def test_the_names_of_the_features_are_checked():
    x, y = data("regression")
    model = MLPRegressor(hidden_layer_sizes=(3,), max_iter=2).fit(x, y)
    assert model.get_feature_names_out().tolist() == [f"mlpregressor{k}" for k in range(3)]
    assert len(model.get_feature_names_out([*"abcdef"])) == 3
    with pytest.raises(ValueError, match="input_features should have length equal"):
        model.get_feature_names_out(["a"])
    for options in ({"hidden_layer_sizes": ()}, {"transform_layer": 5}, {"transform_layer": -4}):
        model = MLPRegressor(max_iter=2).set_params(**options).fit(x, y)
        for call in (model.get_feature_names_out, lambda m=model: m.transform(x)):
            with pytest.raises(ArgumentError, match="hidden layers; expected"):
                call()


@pytest.mark.parametrize("method", ["predict", "predict_proba", "transform"])
def test_numbers_beyond_the_dtype_of_the_network_are_refused(method):
    x, y = data("multiclass", "float32")
    model = MLPClassifier((3,), max_iter=2).fit(x, y)
    wide = x.astype(np.float64)
    assert len(getattr(model, method)(wide)) == ROWS
    wide[3, 1] = 1e300
    with pytest.raises(ValueError, match=r"infinity or a value too large for dtype\('float32'\)"):
        getattr(model, method)(wide)


def test_float64_numbers_are_taken_by_scikit_learns_own():
    x, y = data("binary")
    assert neural_network.MLPClassifier((3,), max_iter=2).fit(x, y).loss_.round(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert MLPClassifier((3,), max_iter=2).fit(x, y).loss_.round(3)
