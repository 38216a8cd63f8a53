"""Weights of examples, and orders of one's own, in a fit."""

from __future__ import annotations

import numpy as np
import pytest

import gpunn as gn
from gpunn.errors import DataError, ShapeError, UnknownNameError

pytestmark = pytest.mark.fast

LOSSES = ("softmax_cross_entropy", "multiclass_hinge", "half_squared_error")


def problem(rng, rows=12):
    return rng.standard_normal((rows, 3)), rng.integers(0, 4, rows)


def trained(device, x, y, loss="softmax_cross_entropy", **options):
    net = gn.nn.Sequential(
        gn.nn.Linear(3, 5, "tanh", seed=1, dtype="float64", device=device),
        gn.nn.Linear(5, 4, seed=2, dtype="float64", device=device),
    )
    rate, epochs = options.pop("lr", 0.3), options.pop("epochs", 3)
    trainer = gn.Trainer(net, loss, gn.optim.SGD(lr=rate), device=device, seed=0)
    if loss == "half_squared_error":
        y = np.eye(4)[y]
    history = trainer.fit(x, y, epochs=epochs, progress=False, **options)
    return net, history


@pytest.mark.parametrize("loss", LOSSES)
def test_an_integer_weight_is_a_repeated_example(loss, device, rng):
    x, y = problem(rng)
    counts = rng.integers(0, 4, len(x))
    counts[0] = 2
    some = {"device": device, "loss": loss, "shuffle": False, "batch_size": 100}
    once, curve = trained(x=x, y=y, sample_weight=counts, **some)
    often, other = trained(x=np.repeat(x, counts, 0), y=np.repeat(y, counts), **some)
    for name, value in once.state_dict().items():
        np.testing.assert_allclose(value, often.state_dict()[name], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(curve["loss"], other["loss"], rtol=1e-12)


@pytest.mark.parametrize("loss", ["half_squared_error", "kullback_leibler"])
def test_equal_weights_are_none(loss, device, rng):
    """Also of a mean over rows."""
    x, y = rng.standard_normal((12, 3)), rng.dirichlet(np.ones(4), 12)
    for reduction in ("mean", "batchmean"):
        found = []
        for weights in (None, np.full(12, 2.0)):
            net = gn.nn.Linear(3, 4, seed=1, dtype="float64", device=device)
            chosen = gn.ops.get_loss(loss, reduction=reduction)
            trainer = gn.Trainer(net, chosen, gn.optim.SGD(lr=0.1), device=device, seed=0)
            trainer.fit(x, y, epochs=2, batch_size=5, sample_weight=weights, progress=False)
            found.append(net.predict(x))
        np.testing.assert_allclose(*found, rtol=1e-12)
    b = gn.backend(device)
    z, labels = b.upload(x), b.upload(np.zeros(12, np.int64))
    with pytest.raises(UnknownNameError, match="batchmean"):
        gn.ops.softmax_cross_entropy(z, labels, reduction="batchmean")


def test_weights_follow_their_examples_through_the_shuffle(device, rng):
    x, y = problem(rng)
    weights = rng.uniform(0.5, 2, len(x))
    plain, curve = trained(device, x, y, sample_weight=weights, batch_size=5, lr=0.0, epochs=1)
    z = plain.predict(x)
    losses = np.log(np.exp(z).sum(1)) - z[np.arange(len(y)), y]
    order = gn.backends.random.permutation(len(x), 0, 2**63, 1)
    parts = [order[i : i + 5] for i in range(0, 12, 5)]
    expected = sum(len(p) * np.average(losses[p], weights=weights[p]) for p in parts) / 12
    assert curve["loss"] == [pytest.approx(expected, rel=1e-12)]


def test_a_batch_without_weight_changes_nothing(device, rng):
    x, y = problem(rng)
    weights = np.r_[np.zeros(6), np.ones(6)]
    both, _ = trained(device, x, y, sample_weight=weights, shuffle=False, batch_size=6)
    half, _ = trained(device, x[6:], y[6:], shuffle=False, batch_size=6)
    for name, value in both.state_dict().items():
        np.testing.assert_allclose(value, half.state_dict()[name], rtol=1e-12)


def test_an_order_of_ones_own(device, rng):
    x, y = problem(rng)
    asked = []

    def order(epoch, rows):
        asked.append((epoch, rows))
        return np.roll(np.arange(rows), epoch)

    own, _ = trained(device, x, y, shuffle=order, batch_size=5, epochs=2)
    assert asked == [(1, 12), (2, 12)]
    net, _ = trained(device, np.roll(x, 1, 0), np.roll(y, 1), shuffle=False, batch_size=5, epochs=1)
    first, _ = trained(device, x, y, shuffle=order, batch_size=5, epochs=1)
    for name, value in net.state_dict().items():
        np.testing.assert_allclose(value, first.state_dict()[name], rtol=1e-12)
        assert not np.allclose(value, own.state_dict()[name])


@pytest.mark.parametrize(
    ("weights", "error", "words"),
    [
        (np.ones(3), ShapeError, "sample_weight of shape"),
        (-np.ones(12), DataError, "below 0"),
        (np.zeros(12), DataError, "nothing but zeros"),
        (np.full(12, np.nan), DataError, "sample_weight"),
    ],
)
def test_bad_weights_are_told(weights, error, words, rng):
    x, y = problem(rng)
    with pytest.raises(error, match=words):
        trained("cpu", x, y, sample_weight=weights)
