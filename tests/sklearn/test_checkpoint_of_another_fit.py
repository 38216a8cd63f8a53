"""Checkpoints of an estimator: another fit is refused by name, and the same one goes on."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import GridSearchCV

import gpunn as gn
from gpunn.errors import ModelFileError
from gpunn.sklearn import MLPClassifier, MLPRegressor
from tests.sklearn.cases import data

X, Y = data("multiclass")
GIVEN = {"hidden_layer_sizes": (8,), "max_iter": 4, "random_state": 0}

DECIDING = {
    "hidden_layer_sizes": (9,),
    "activation": "tanh",
    "solver": "sgd",
    "alpha": 10.0,
    "batch_size": 20,
    "learning_rate": "adaptive",
    "learning_rate_init": 0.1,
    "power_t": 0.7,
    "shuffle": False,
    "random_state": 5,
    "tol": 1.0,
    "momentum": 0.5,
    "nesterovs_momentum": False,
    "early_stopping": True,
    "validation_fraction": 0.2,
    "beta_1": 0.1,
    "beta_2": 0.1,
    "epsilon": 0.1,
    "n_iter_no_change": 2,
    "dropout": 0.5,
    "input_dropout": 0.5,
    "l1": 1.0,
    "l2": 1.0,
    "max_norm": 1.0,
    "optimizer": "rmsprop",
    "schedule": "cosine",
    "loss": "hinge",
    "class_weight": "balanced",
    "validation_curve": True,
}
NEUTRAL = {
    "hidden_layer_sizes": [8],
    "max_iter": 6,
    "verbose": True,
    "warm_start": True,
    "keep_optimizer": True,
    "max_fun": 3,
    "device": "cpu",
    "transform_layer": 0,
    "progress_bar": True,
    "callbacks": [gn.train.Callback()],
}
ELSEWHERE = {"checkpoint", "precision"}  # the folder itself; another precision needs a GPU


def fit(checkpoint=None, kind=MLPClassifier, x=X, y=Y, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return kind(**{**GIVEN, **options}, checkpoint=checkpoint).fit(x, y)


def assert_same(found, expected):
    for a, b in zip(found.coefs_ + found.intercepts_, expected.coefs_ + expected.intercepts_,
                    strict=True):  # fmt: skip
        np.testing.assert_array_equal(a, b)
    for name in ("loss_curve_", "n_iter_", "t_", "best_loss_", "loss_"):
        assert getattr(found, name) == getattr(expected, name), name


def test_every_parameter_is_in_one_of_the_lists():
    assert DECIDING.keys() | NEUTRAL.keys() | ELSEWHERE == MLPClassifier().get_params().keys()
    more = MLPRegressor().get_params().keys() - MLPClassifier().get_params().keys()
    assert more == {"quantile", "huber_delta"}


@pytest.mark.parametrize("name", DECIDING)
def test_another_fit_is_refused_and_its_parameter_is_named(name, tmp_path):
    fit(tmp_path)
    with pytest.raises(ModelFileError, match=rf"a run with {name}\b.*; expected "):
        fit(tmp_path, **{name: DECIDING[name]})


@pytest.mark.parametrize("name", ["quantile", "huber_delta"])
def test_the_options_of_a_regressor_decide_too(name, tmp_path):
    fit(tmp_path, MLPRegressor)
    with pytest.raises(ModelFileError, match=rf"a run with {name} .*; expected 0.25"):
        fit(tmp_path, MLPRegressor, **{name: 0.25})


@pytest.mark.parametrize("name", NEUTRAL)
def test_a_parameter_that_decides_nothing_lets_a_fit_go_on(name, tmp_path):
    fit(tmp_path)
    found = fit(tmp_path, **{name: NEUTRAL[name]})
    assert_same(found, fit(max_iter=6 if name == "max_iter" else 4))


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": gn.optim.AdamW(weight_decay=0.1)},
        {"schedule": gn.optim.schedules.Step(every=3)},
        {"callbacks": [gn.train.EarlyStopping("loss", patience=3)]},
        {"random_state": np.random.RandomState(3)},
        {"solver": "sgd", "learning_rate": "adaptive"},
        {"early_stopping": True, "validation_curve": True},
        {"dropout": 0.3},
        {"random_state": None},
    ],
    ids=["optimizer", "schedule", "callback", "generator", "sgd", "early", "dropout", "chance"],
)
def test_the_same_fit_is_found_again(options, tmp_path):
    from sklearn.base import clone

    gn.manual_seed(0)  # must make no difference to weights that scikit-learn draws
    model = MLPClassifier(**{**GIVEN, **options}, checkpoint=tmp_path)
    first, second = clone(model), clone(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first.fit(X, Y)
        assert_same(second.fit(X, Y), first)


@pytest.mark.parametrize("row", range(0, 97, 8))
def test_other_examples_are_refused_also_those_that_are_held_out(row, tmp_path):
    fit(tmp_path, early_stopping=True, validation_fraction=0.3)
    x = X.copy()
    x[row] += 1e-9
    with pytest.raises(ModelFileError, match=r"data\.x|held_out"):
        fit(tmp_path, x=x, early_stopping=True, validation_fraction=0.3)


def test_other_targets_and_weights_are_refused(tmp_path):
    fit(tmp_path)
    with pytest.raises(ModelFileError, match=r"data\.y"):
        fit(tmp_path, y=Y[::-1])
    weighted = MLPClassifier(**GIVEN, checkpoint=tmp_path)
    with pytest.raises(ModelFileError, match=r"data\.weights nothing; expected"):
        weighted.fit(X, Y, sample_weight=np.ones(len(X)))


@pytest.mark.parametrize("keep", [False, True])
def test_warm_starts_are_fits_of_one_run(keep, tmp_path):
    def script(checkpoint, fits=3, last=4):
        model = MLPClassifier(
            **GIVEN, warm_start=True, keep_optimizer=keep, dropout=0.2, checkpoint=checkpoint
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for number in range(fits):
                model.set_params(max_iter=last if number == fits - 1 else 4).fit(X, Y)
        return model

    expected = script(None)
    script(tmp_path, fits=2, last=2)  # ended in the second fit
    assert_same(script(tmp_path), expected)
    assert_same(script(tmp_path), expected)  # all done


def test_calls_of_partial_fit_are_fits_of_one_run(tmp_path):
    def script(checkpoint, calls):
        model = MLPClassifier(**GIVEN, checkpoint=checkpoint)
        for call in range(calls):
            part = slice(call % 2, None, 2)
            model.partial_fit(X[part], Y[part], classes=np.unique(Y))
        return model

    expected = script(None, 5)
    script(tmp_path, 3)
    found = script(tmp_path, 5)
    for a, b in zip(found.coefs_, expected.coefs_, strict=True):
        np.testing.assert_array_equal(a, b)


def test_candidates_of_a_search_do_not_get_the_numbers_of_another(tmp_path):
    grid, split = {"alpha": [1e-4, 100.0]}, [(np.arange(60), np.arange(60, 97))]
    search = GridSearchCV(MLPClassifier(**GIVEN, checkpoint=tmp_path), grid, cv=split, refit=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        search.fit(X, Y)
    failed = [w for w in caught if issubclass(w.category, FitFailedWarning)]
    assert "a run with alpha 0.0001; expected 100" in str(failed[0].message)
    scores = search.cv_results_["mean_test_score"]
    assert np.isfinite(scores[0])
    assert np.isnan(scores[1])
