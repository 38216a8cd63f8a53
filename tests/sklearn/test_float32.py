"""float32 on the CPU: scikit-learn's losses from gpunn's kernels, and nothing between them."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn import neural_network

import gpunn as gn
from gpunn.backends.cpu import recording
from gpunn.sklearn import MLPClassifier
from gpunn.sklearn.arithmetic import WEIGHTED_MEAN
from tests.sklearn.cases import data, fitted, pair

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.both_bodies,
]
TASKS = ("binary", "multiclass", "multilabel", "regression", "outputs", "poisson")


SMALL = {"batch_size": 20, "max_iter": 3, "hidden_layer_sizes": (7, 5), "random_state": 0}


@pytest.fixture
def noted(monkeypatch):
    """The names of the calls that a recording notes, but for compiled ones."""
    names = []

    def note(self, work, *args):
        names.append(getattr(work, "__qualname__", "matmul"))
        original(self, work, *args)

    original = recording.Plan.note
    monkeypatch.setattr(recording.Plan, "note", note)
    return names


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("options", [{"solver": "adam"}, {"solver": "sgd"}], ids=str)
@pytest.mark.parametrize("task", TASKS)
def test_a_recorded_step_is_products_and_kernels(task, options, weighted, noted):
    x, y = data(task, "float32")
    weights = np.linspace(0.5, 2, len(x)) if weighted else None
    with gn.backend("cpu").numpy_alone():
        pair(task, **SMALL, **options)[1].fit(x, y, weights)
    assert "matmul" in noted, "nothing was recorded"
    assert not [name for name in noted if name.startswith(("Plan.", "_convert", "copyto"))]


@pytest.mark.parametrize("options", [{"solver": "adam"}, {"solver": "sgd"}], ids=str)
@pytest.mark.parametrize("task", TASKS)
def test_every_kernel_of_a_step_is_compiled(task, options, noted, native, monkeypatch):
    monkeypatch.setattr(gn.backend("cpu"), "_native", native)
    (theirs, ours), *_ = fitted(task, "float32", **SMALL, **options)
    assert not noted, "a step is not one call"
    assert ours.coefs_[0].dtype == "float32"
    for a, b in zip(theirs.coefs_, ours.coefs_, strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-5 * np.abs(a).max())
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-5)


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_losses_of_certain_and_wrong_predictions_are_clipped_as_scikit_learns(task):
    x, y = data(task, "float32")
    losses = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in (neural_network, gn.sklearn):
            model = module.MLPClassifier((5,), max_iter=3, random_state=0, alpha=0)
            losses.append(model.fit(x * 300, y).loss_curve_)
    assert max(losses[0]) > 3, "nothing to clip"
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)


def test_losses_on_a_device_are_clipped_too(cuda_device):
    x, y = data("multiclass")
    options = {"max_iter": 3, "random_state": 0, "alpha": 0, "hidden_layer_sizes": (5,)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        host, device = (
            MLPClassifier(device=where, **options).fit(x * 1e3, y) for where in ("cpu", cuda_device)
        )
    assert host.loss_curve_[0] > 10
    np.testing.assert_allclose(device.loss_curve_, host.loss_curve_, rtol=1e-9)


@pytest.mark.parametrize("shape", [(40,), (40, 3), (50_000, 2)])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_mean_by_weights(shape, weighted, rng, device):
    b = gn.backend(device)
    losses = rng.uniform(-2, 2, shape)
    weights = rng.uniform(0.1, 1, (shape[0], *[1] * (len(shape) - 1))) if weighted else 1.0
    out = b.empty((), np.float64), b.empty((), np.float64)
    given = b.upload(weights) if weighted else weights
    b.launch(WEIGHTED_MEAN, b.upload(losses), given, -1.0, 1.5, 3.0, out=out)
    spread = np.broadcast_to(weights, shape)
    expected = 3 * np.average(losses.clip(-1, 1.5), weights=spread)
    np.testing.assert_allclose(b.download(out[0]), expected, rtol=1e-12)
    np.testing.assert_allclose(b.download(out[1]), spread.sum(), rtol=1e-12)


def test_a_loss_that_is_not_a_number_stays_one(device):
    b = gn.backend(device)
    out = b.empty((), np.float64), b.empty((), np.float64)
    b.launch(WEIGHTED_MEAN, b.upload(np.array([0.5, np.nan])), 1.0, 0.0, 1.0, 1.0, out=out)
    assert np.isnan(b.download(out[0]))


@pytest.mark.parametrize("task", TASKS)
def test_weights_of_examples_agree(task):
    weights = np.random.default_rng(1).uniform(0, 2, 97)
    (theirs, ours), *_ = fitted(task, "float32", weights, max_iter=3, random_state=0)
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-5)
