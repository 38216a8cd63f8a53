"""Metrics: curves of the validation data, with scikit-learn's numbers."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as skm

import gpunn as gn
from gpunn import nn
from gpunn.errors import ArgumentError, UnknownNameError
from gpunn.train import METRICS, Metric

pytestmark = pytest.mark.fast

RNG = np.random.default_rng(0)
X = RNG.normal(size=(90, 4)).astype(np.float32)
LABELS = {
    2: (X[:, 0] + RNG.normal(size=90) > 0).astype(np.int64),
    3: RNG.integers(0, 3, 90),
}


def network(outputs, device="cpu"):
    return nn.Sequential(
        nn.Linear(4, 8, "relu", seed=1, device=device), nn.Linear(8, outputs, seed=2, device=device)
    )


EXPECTED = {
    "log_loss": lambda t, p, c: skm.log_loss(t, p, labels=range(p.shape[1])),
    "roc_auc": lambda t, p, c: skm.roc_auc_score(
        t, p[:, 1] if p.shape[1] == 2 else p, multi_class="ovr"
    ),
    "average_precision": lambda t, p, c: skm.average_precision_score(t, p[:, 1]),
    "balanced_accuracy": lambda t, p, c: skm.balanced_accuracy_score(t, c),
    "f1": lambda t, p, c: skm.f1_score(t, c),
    "precision": lambda t, p, c: skm.precision_score(t, c),
    "recall": lambda t, p, c: skm.recall_score(t, c),
    "f1_macro": lambda t, p, c: skm.f1_score(t, c, average="macro"),
    "precision_macro": lambda t, p, c: skm.precision_score(t, c, average="macro"),
    "recall_macro": lambda t, p, c: skm.recall_score(t, c, average="macro"),
    "top_2_accuracy": lambda t, p, c: skm.top_k_accuracy_score(t, p, k=2),
}
OF_NUMBERS = {
    "mean_absolute_error": skm.mean_absolute_error,
    "mean_squared_error": skm.mean_squared_error,
    "root_mean_squared_error": skm.root_mean_squared_error,
    "r2": skm.r2_score,
}


def test_every_named_metric_has_a_row():
    assert EXPECTED.keys() | OF_NUMBERS.keys() == METRICS.keys() | {"top_2_accuracy"}


@pytest.mark.parametrize("count", LABELS)
@pytest.mark.parametrize("one_hot", [False, True])
def test_classes_and_probabilities(count, one_hot, device):
    two = {name for name, metric in METRICS.items() if metric.two}
    names = [n for n in EXPECTED if count > 2 or n != "top_2_accuracy"]
    names = [n for n in names if count == 2 or n not in two]
    y = LABELS[count]
    trainer = gn.Trainer(network(count, device), seed=0, metrics=names)
    targets = np.eye(count, dtype=np.float32)[y] if one_hot else y
    history = trainer.fit(X, targets, epochs=2, validation=(X, targets), progress=False)
    shares, classes = trainer.predict_proba(X), trainer.classify(X)
    for name in names:
        expected = EXPECTED[name](y, shares, classes)
        np.testing.assert_allclose(history[f"val_{name}"][-1], expected, rtol=1e-6)
        np.testing.assert_allclose(trainer.evaluate(X, targets)[name], expected, rtol=1e-6)


@pytest.mark.parametrize("loss", ["binary_cross_entropy_with_logits", "hinge"])
def test_one_output(loss):
    names = ["f1", "balanced_accuracy"] + ["roc_auc"] * (loss != "hinge")
    y = LABELS[2].astype(np.float32)[:, None]
    y = 2 * y - 1 if loss == "hinge" else y
    trainer = gn.Trainer(network(1), loss, seed=0, metrics=names)
    trainer.fit(X, y, epochs=2, progress=False)
    found, classes = trainer.evaluate(X, y), trainer.classify(X).reshape(-1)
    assert found["f1"] == skm.f1_score(LABELS[2], classes > 0)
    if loss != "hinge":
        shares = trainer.predict_proba(X)[:, 1]
        np.testing.assert_allclose(found["roc_auc"], skm.roc_auc_score(LABELS[2], shares))


@pytest.mark.parametrize("outputs", [1, 2])
def test_numbers(outputs):
    y = X[:, :outputs] * 2
    trainer = gn.Trainer(network(outputs), "squared_error", seed=0, metrics=[*OF_NUMBERS])
    history = trainer.fit(X, y, epochs=2, validation=(X, y), progress=False)
    for name, function in OF_NUMBERS.items():
        expected = function(y, trainer.predict(X))
        np.testing.assert_allclose(history[f"val_{name}"][-1], expected, rtol=1e-5)


def test_functions_get_classes_or_outputs():
    seen = {}

    def worst(targets, predictions):
        seen["shape"], seen["kind"] = predictions.shape, predictions.dtype.kind
        return np.abs(targets - predictions).max()

    y = LABELS[3]
    own = Metric(lambda t, p: p.max(), "surest", of="probabilities")
    trainer = gn.Trainer(network(3), seed=0, metrics=[worst, own])
    found = trainer.evaluate(X, y)
    assert seen == {"shape": (90,), "kind": "i"}
    assert found["worst"] == np.abs(y - trainer.classify(X)).max()
    assert found["surest"] == trainer.predict_proba(X).max()
    gn.Trainer(network(1), "squared_error", metrics=[worst]).evaluate(X, X[:, :1])
    assert seen == {"shape": (90,), "kind": "f"}


@pytest.mark.parametrize(("name", "rises"), [("auc", True), ("log_loss", False), ("mae", False)])
def test_the_best_epoch_by_a_metric(name, rises):
    if name == "mae":
        trainer = gn.Trainer(network(1), "squared_error", lr=0.1, seed=0, metrics=[name])
        y = X[:, :1]
    else:
        trainer, y = gn.Trainer(network(2), lr=0.1, seed=0, metrics=[name]), LABELS[2]
    keep = gn.train.KeepBest(f"val_{name}")
    history = trainer.fit(
        X[:60], y[:60], epochs=8, validation=(X[60:], y[60:]), callbacks=[keep], progress=False
    )
    curve = history[f"val_{name}"]
    best = max(curve) if rises else min(curve)
    assert curve[keep.best_epoch - 1] == best
    np.testing.assert_allclose(trainer.evaluate(X[60:], y[60:])[name], best, rtol=1e-6)


def test_curves_that_are_there_anyway():
    trainer = gn.Trainer(network(2), metrics=["accuracy", "loss"])
    assert trainer.evaluate(X, LABELS[2]).keys() == {"loss", "accuracy"}


def test_what_is_no_metric():
    with pytest.raises(UnknownNameError, match="roc_auc"):
        gn.Trainer(network(2), metrics=["aucc"])
    with pytest.raises(ArgumentError, match="pass metrics="):
        gn.Trainer(network(2), metrics="roc_auc")
    with pytest.raises(ArgumentError, match="a name or a function"):
        gn.Trainer(network(2), metrics=[3])
    with pytest.raises(ArgumentError, match="two curves named"):
        gn.Trainer(network(2), metrics=["f1", "f1"])
    with pytest.raises(ArgumentError, match='use "f1_macro"'):
        gn.Trainer(network(3), metrics=["f1"]).evaluate(X, LABELS[3])
    with pytest.raises(ArgumentError, match="one number"):
        gn.Trainer(network(3), metrics=[lambda t, p: p]).evaluate(X, LABELS[3])
    with pytest.raises(ArgumentError, match="no probabilities"):
        gn.Trainer(network(3), "multiclass_hinge", metrics=["log_loss"]).evaluate(X, LABELS[3])
