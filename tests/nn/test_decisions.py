"""Scores that are not numbers stand for no class, wherever classes are chosen."""

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn, ops
from gpunn.errors import DataError
from gpunn.nn.decisions import above, largest
from gpunn.plot.regions import classes_of

pytestmark = pytest.mark.fast

LOSSES = {
    "softmax_cross_entropy": 3,
    "multiclass_hinge": 3,
    "focal": 3,
    "binary_cross_entropy_with_logits": 1,
    "binary_cross_entropy": 1,
    "hinge": 1,
    "perceptron": 1,
}


def trainer(loss, outputs):
    last = "sigmoid" if loss == "binary_cross_entropy" else "identity"
    net = nn.Sequential(nn.Linear(3, 4, "relu", seed=0), nn.Linear(4, outputs, last, seed=1))
    return gn.Trainer(net, loss=loss)


def test_every_loss_with_classes_is_here():
    assert set(LOSSES) == {n for n, loss in ops.LOSSES.items() if getattr(loss, "decides", None)}


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.parametrize(("loss", "outputs"), LOSSES.items())
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_an_example_without_a_score_is_refused_by_its_row(loss, outputs, wrong):
    x = np.ones((5, 3))
    assert trainer(loss, outputs).classify(x).shape == (5,)
    x[3, 1] = wrong
    scores = trainer(loss, outputs).predict(x)
    if np.isfinite(scores).all():  # a sigmoid or a ReLU may be sure of an infinite example
        return
    with pytest.raises(DataError, match="in row 3; expected finite scores"):
        trainer(loss, outputs).classify(x)


def test_modules_and_pictures_refuse_too():
    net = trainer("softmax_cross_entropy", 3).model
    x = np.array([[0.0, 1, 2], [np.nan, 1, 2]])
    with pytest.raises(DataError, match="in row 1"):
        net.classify(x)
    for width in (1, 3):
        with pytest.raises(DataError, match="in row 1"):
            classes_of(nn.Sequential(nn.Linear(3, width)), x)


def test_minus_infinity_is_the_score_of_an_impossible_class(rng):
    scores = rng.standard_normal((4, 3))
    scores[:, 1] = -np.inf
    assert largest(scores).tolist() == scores.argmax(axis=1).tolist()
    with pytest.raises(DataError, match="in row 0"):
        largest(np.full((1, 3), -np.inf))
    assert above(np.array([0.2, 0.7]), 0.5).tolist() == [False, True]
