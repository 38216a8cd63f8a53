"""`set_params` after a fit: what every later method does is what scikit-learn's does."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import gpunn.sklearn
from gpunn.sklearn import MLPClassifier, MLPRegressor
from tests.sklearn.cases import data, pair

CHANGES = {
    "hidden_layer_sizes": (7,),
    "activation": "tanh",
    "solver": "sgd",
    "alpha": 1.0,
    "batch_size": 7,
    "learning_rate": "adaptive",
    "learning_rate_init": 0.1,
    "power_t": 0.9,
    "max_iter": 2,
    "shuffle": False,
    "random_state": 5,
    "tol": 10.0,
    "warm_start": True,
    "momentum": 0.1,
    "nesterovs_momentum": False,
    "early_stopping": True,
    "validation_fraction": 0.4,
    "beta_1": 0.5,
    "beta_2": 0.5,
    "epsilon": 0.1,
    "n_iter_no_change": 1,
    "max_fun": 3,
    "verbose": False,
    "loss": "poisson",
}
BASES = [
    {},
    {"solver": "sgd", "learning_rate": "invscaling"},
    {"solver": "sgd", "learning_rate": "adaptive", "tol": 10.0, "n_iter_no_change": 1},
    {"early_stopping": True},
]


def again(model):
    return pickle.loads(pickle.dumps(model))


def partial(model, x, y):
    return model.partial_fit(x, y).partial_fit(x, y)


USES = {
    "predict": lambda model, x, y: model,
    "partial_fit": partial,
    "fit": lambda model, x, y: model.fit(x, y),
    "fit, partial_fit": lambda model, x, y: model.fit(x, y).partial_fit(x, y),
    "pickle": lambda model, x, y: again(again(model).partial_fit(x, y)).partial_fit(x, y),
}
NUMBERS = ("loss_", "loss_curve_", "n_iter_", "t_", "best_loss_", "out_activation_")


def outcome(model, use, x, y):
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            model = use(model, x, y)
            found = {"predictions": model.predict(x)}
    except Exception as error:
        return type(error)
    weights = enumerate(model.coefs_ + model.intercepts_)
    found |= {f"weights {k}": w for k, w in weights}
    return found | {name: getattr(model, name) for name in NUMBERS if hasattr(model, name)}


@pytest.mark.parametrize("base", BASES, ids=["adam", "invscaling", "adaptive", "early_stopping"])
@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("task", ["multiclass", "poisson"])
def test_a_changed_parameter_does_what_it_does_in_scikit_learn(task, name, base):
    x, y = data(task)
    given = {"hidden_layer_sizes": (6,), "max_iter": 3, "random_state": 0, "batch_size": 31}
    models = pair("regression" if task == "poisson" else task, **{**given, **base})
    if name not in models[0].get_params():
        pytest.skip(f"{type(models[0]).__name__} has no {name}")
    with threadpool_limits(1):
        for model in models:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model.fit(x, y)
        content = [pickle.dumps(model.set_params(**{name: CHANGES[name]})) for model in models]
        for words, use in USES.items():
            live = outcome(models[1], use, x, y) if words == "predict" else None
            theirs, ours = (outcome(pickle.loads(each), use, x, y) for each in content)
            np.testing.assert_equal(ours, theirs, words)
            if live is not None:
                np.testing.assert_equal(live, theirs, words)


@pytest.mark.parametrize(
    "change",
    [
        {"dropout": 0.9},
        {"input_dropout": 0.5},
        {"activation": ["gelu"]},
        {"schedule": "inverse"},
        {"l2": 1.0},
        {"max_norm": 0.1},
        {"loss": "hinge"},
        {"class_weight": {0: 5.0}},
    ],
    ids=lambda change: next(iter(change)),
)
@pytest.mark.parametrize("start", [{}, {"dropout": 0.3}], ids=["plain", "dropout"])
def test_a_changed_option_of_gpunn_is_taken_at_once_and_after_pickling(change, start):
    x, y = data("binary")
    given = {"hidden_layer_sizes": (8,), "random_state": 0, "batch_size": 31, **start}
    models = [MLPClassifier(**given).partial_fit(x, y, classes=[0, 1]) for _ in range(3)]
    unchanged, live, copied = models
    live.set_params(**change)
    copied = again(copied.set_params(**change))
    for _ in range(2):
        for model in (unchanged, live, copied):
            model.partial_fit(x, y)
    for a, b, c in zip(live.coefs_, copied.coefs_, unchanged.coefs_, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)
    np.testing.assert_array_equal(live.predict(x), copied.predict(x))


def test_a_changed_loss_has_its_own_outputs_and_decisions():
    x, y = data("binary")
    model = MLPClassifier((8,), random_state=0).partial_fit(x, y, classes=[0, 1])
    before = model.predict(x)
    model.set_params(loss="hinge")
    np.testing.assert_array_equal(model.predict(x), before)  # the outputs are still probabilities
    assert hasattr(model, "predict_proba")
    theirs = gpunn.sklearn.to_sklearn(model.set_params(loss="log_loss"))
    np.testing.assert_allclose(theirs.predict_proba(x), model.predict_proba(x))
    model.set_params(loss="hinge")
    for _ in range(30):
        model.partial_fit(x, y)
    assert model.loss_ >= 0
    assert model.out_activation_ == "identity"
    assert not hasattr(model, "predict_proba")
    np.testing.assert_array_equal(model.predict(x), (model.decision_function(x) > 0).astype(int))
    model.set_params(loss="log_loss")
    assert not hasattr(model, "predict_proba")  # the outputs are still scores
    with pytest.raises(gpunn.errors.ArgumentError, match="hinge"):
        gpunn.sklearn.to_sklearn(model)
    model.partial_fit(x, y)
    assert model.out_activation_ == "logistic"
    assert model.predict_proba(x).min() >= 0


@pytest.mark.parametrize(
    ("change", "kept"),
    [({"learning_rate_init": 0.05}, True), ({"beta_1": 0.5}, True), ({"solver": "sgd"}, False)],
    ids=["rate", "beta_1", "solver"],
)
def test_a_warm_start_that_keeps_the_optimizer_takes_its_new_parameters(change, kept):
    x, y = data("regression")
    given = {"hidden_layer_sizes": (8,), "random_state": 0, "max_iter": 3, "warm_start": True}
    found = []
    for options in ({"keep_optimizer": True}, {"keep_optimizer": False}):
        for changed in (change, {}):
            model = MLPRegressor(**given, **options)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model.fit(x, y).set_params(**changed).fit(x, y)
            found.append(model.coefs_[0])
    changed, unchanged, changed_cold, _ = found
    assert not np.array_equal(changed, unchanged)
    assert np.array_equal(changed, changed_cold) != kept  # moments of another solver are of no use


GOING_ON = [
    {},
    {"dropout": 0.3, "input_dropout": 0.1},
    {"schedule": "inverse"},
    {"schedule": "cosine"},
    {"solver": "sgd", "learning_rate": "adaptive", "tol": 10.0, "n_iter_no_change": 1},
    {"solver": "sgd", "learning_rate": "invscaling", "power_t": 0.9},
    {"optimizer": "rmsprop", "schedule": "step", "max_norm": 0.4},
    {"optimizer": gpunn.optim.AdamW(lr=0.01, weight_decay=0.1), "dropout": 0.2},
    {"random_state": np.random.RandomState(3), "dropout": 0.2},
]


@pytest.mark.parametrize("options", GOING_ON, ids=lambda options: "-".join(options) or "plain")
@pytest.mark.parametrize("how", ["pickle", "pickle twice", "deepcopy"])
@pytest.mark.parametrize("way", ["partial_fit", "warm_start"])
def test_a_copied_estimator_goes_on_with_the_same_bits(way, how, options):
    from copy import deepcopy

    x, y = data("regression")
    given = {"hidden_layer_sizes": (8,), "random_state": 0, "batch_size": 16, "max_iter": 2}
    model = MLPRegressor(**{**given, **options}, warm_start=True, keep_optimizer=True)
    copy = {"pickle": again, "pickle twice": lambda m: again(again(m)), "deepcopy": deepcopy}[how]

    def train(model):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return model.partial_fit(x, y) if way == "partial_fit" else model.fit(x, y)

    for _ in range(3):
        train(model)
    other = copy(model)
    for _ in range(2):
        train(model)
        train(other)
        other = copy(other)
        other.predict(x)
    for a, b in zip(model.coefs_, other.coefs_, strict=True):
        np.testing.assert_array_equal(a, b)
    assert model.loss_curve_ == other.loss_curve_


def test_a_rate_that_a_callback_lowered_is_in_the_pickle():
    x, y = data("regression")

    class Lower(gpunn.train.Callback):
        def on_epoch_end(self, trainer, epoch, history):
            trainer.optimizer.lr /= 2
            trainer.optimizer.beta1 = 0.5

    model = MLPRegressor(hidden_layer_sizes=(8,), random_state=0, callbacks=[Lower()])
    model.partial_fit(x, y).set_params(callbacks=None)
    other = again(model)
    for each in (model, other):
        each.partial_fit(x, y)
    np.testing.assert_array_equal(model.coefs_[0], other.coefs_[0])


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
@pytest.mark.parametrize("way", ["fit", "partial_fit"])
@pytest.mark.parametrize(("before", "after"), [((3,), ()), ((), (3,)), ((3,), (3, 3))])
def test_another_number_of_layers_is_refused_where_a_fit_goes_on(before, after, way, solver):
    """scikit-learn fails there, too, with an error from within."""
    if (way, solver) == ("partial_fit", "lbfgs"):
        pytest.skip("scikit-learn has no partial_fit with lbfgs")
    x, y = data("multiclass", "float64")
    for model in pair("multiclass", warm_start=True, max_iter=2, solver=solver):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.set_params(hidden_layer_sizes=before).fit(x, y)
            weights = [w.copy() for w in model.coefs_]
            ours = isinstance(model, MLPClassifier)
            with pytest.raises(ValueError if ours else Exception, match="layers" if ours else ""):
                getattr(model.set_params(hidden_layer_sizes=after), way)(x, y)
            if ours:
                for found, expected in zip(model.coefs_, weights, strict=True):
                    np.testing.assert_array_equal(found, expected)
                model.set_params(warm_start=False).fit(x, y)
                assert len(model.coefs_) == len(after) + 1


def test_scikit_learns_own_refusal_comes_before_that_of_other_layers():
    x, y = data("multiclass", "float64")
    for model in pair("multiclass", early_stopping=True, max_iter=2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(x, y).set_params(hidden_layer_sizes=(3, 3, 3))
        with pytest.raises(ValueError, match="partial_fit does not support early_stopping=True"):
            model.partial_fit(x, y)
