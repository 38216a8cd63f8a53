"""Dropout: the rows D1 to D7 of docs/lectures.md."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn, ops
from gpunn.backends import RandomStream
from gpunn.ops.dropout import Rate, dropout_words, keep_factors


def mask(rate, shape, seed):
    """The mask that the next draw of a layer with this seed gives, 1 or 0."""
    how, out = Rate.of(rate), np.empty(shape)
    words = dropout_words(gn.backend("cpu"), how, out.size, RandomStream(seed, chosen=True).draw())
    keep_factors(words, *how, 1.0, out)
    return out


def three_layers(device, kind):
    """The slide's network, 5-7-6-2, with two dropout layers."""
    options = {"dtype": "float64", "device": device}
    return nn.Sequential(
        nn.Linear(5, 7, "relu", seed=1, **options),
        kind(0.5, seed=11),
        nn.Linear(7, 6, "relu", seed=2, **options),
        kind(0.5, seed=12),
        nn.Linear(6, 2, seed=3, **options),
    )


@pytest.mark.parametrize("kind", [nn.VanillaDropout, nn.Dropout])
def test_the_slides_code(kind, device, rng):
    """D1 and D2: p is the probability of keeping; vanilla scales at test time, inverted does not.

    Column layout as on the slide: W is (H, D), an example is a column.
    """
    net, p, x = three_layers(device, kind), 0.5, rng.standard_normal((5, 9))
    w1, w2, w3 = (net[i].weight.numpy().T for i in (0, 2, 4))
    b1, b2, b3 = (net[i].bias.numpy()[:, None] for i in (0, 2, 4))
    inverted = p if kind is nn.Dropout else 1.0
    h1 = np.maximum(0, np.dot(w1, x) + b1)
    h1 *= mask(0.5, (9, 7), 11).T / inverted
    h2 = np.maximum(0, np.dot(w2, h1) + b2)
    h2 *= mask(0.5, (9, 6), 12).T / inverted
    out = np.dot(w3, h2) + b3
    np.testing.assert_allclose(net(net.backend.upload(x.T.copy())).numpy().T, out, rtol=1e-12)
    scale = 1.0 if kind is nn.Dropout else p
    h1 = np.maximum(0, np.dot(w1, x) + b1) * scale
    h2 = np.maximum(0, np.dot(w2, h1) + b2) * scale
    np.testing.assert_allclose(net.predict(x.T).T, np.dot(w3, h2) + b3, rtol=1e-12)


def test_prediction_has_the_bits_of_the_network_without_dropout(device, rng):
    net, x = three_layers(device, nn.Dropout), rng.standard_normal((9, 5))
    plain = nn.Sequential(net[0], net[2], net[4])
    np.testing.assert_array_equal(net.predict(x), plain.predict(x))


def outputs_of_all_masks(h, w, rate=0.5):
    """The output h * mask @ w of every mask, with inverted scaling, and the masks' weights."""
    masks = np.array(list(itertools.product((0.0, 1.0), repeat=len(h))))
    kept = masks.sum(axis=1)
    weights = (1 - rate) ** kept * rate ** (len(h) - kept)
    return (masks * h / (1 - rate)) @ w, weights


@pytest.mark.parametrize("rate", [0.5, 0.25])
def test_the_mean_over_all_masks_is_the_test_output(rate, rng):
    """D2, by enumeration of 2**12 masks."""
    h, w = rng.standard_normal(12), rng.standard_normal((12, 3))
    outputs, weights = outputs_of_all_masks(h, w, rate)
    np.testing.assert_allclose(weights @ outputs, h @ w, rtol=1e-12)


def test_the_slide_with_two_inputs():
    """D3: a quarter of each of four masks is 1/2 (w1 x + w2 y), exactly."""
    w1, w2, x, y = 0.75, -1.5, 2.0, 3.0
    net = nn.Sequential(nn.VanillaDropout(0.5), nn.Linear(2, 1, bias=False, dtype="float64"))
    net[1].load_state_dict({"weight": np.array([[w1], [w2]])})
    four = [w1 * x + w2 * y, w1 * x, w2 * y, 0.0]
    assert sum(four) / 4 == (w1 * x + w2 * y) / 2
    assert net.predict(np.array([[x, y]])).item() == (w1 * x + w2 * y) / 2
    found = {net(gn.tensor(np.array([[x, y]]))).item() for _ in range(200)}
    assert found == set(four)


def test_the_mean_network_is_the_geometric_mean_of_all_thinned_ones(rng):
    """D4: one hidden layer and softmax, p = 1/2: exact over the 1024 networks."""
    h, w, bias = rng.standard_normal(10), rng.standard_normal((10, 4)), rng.standard_normal(4)
    masks = np.array(list(itertools.product((0.0, 1.0), repeat=10)))
    b = gn.backend("cpu")
    thinned = ops.softmax.vjp(b, (masks * h) @ w + bias)[0]
    geometric = np.exp(np.log(thinned).mean(axis=0))
    geometric /= geometric.sum()
    head = nn.Sequential(nn.VanillaDropout(0.5), nn.Linear(10, 4, dtype="float64"), "softmax")
    head[1].load_state_dict({"weight": w, "bias": bias})
    np.testing.assert_allclose(head.predict(h[None])[0], geometric, atol=5e-15)


def test_4096_units_have_10_to_the_1233_masks():
    assert 4096 * math.log10(2) == pytest.approx(1233.02, abs=0.01)
    assert len(str(2**4096)) == 1234


def test_more_masks_come_closer_to_weight_scaling(rng):
    """D4: the Monte-Carlo average over k masks converges like 1 / sqrt(k)."""
    net, x = three_layers("cpu", nn.Dropout), rng.standard_normal((1, 5))
    single = nn.Sequential(net[0], net[1], nn.Linear(7, 2, dtype="float64", seed=5))
    scaled = single.predict(x)
    errors = []
    for k in (10, 1000):
        found = [
            np.abs(single(np.repeat(x, k, axis=0)).numpy().mean(axis=0) - scaled).max()
            for _ in range(20)
        ]
        errors.append(np.mean(found))
    assert 4 < errors[0] / errors[1] < 25  # sqrt(100) = 10


def test_the_mask_of_the_backward_pass_is_that_of_the_forward_pass(device):
    """D5; a fresh one for every example and step."""
    layer = nn.Dropout(0.3, seed=4)
    masks = []
    for _ in range(2):
        x = gn.tensor(np.ones((50, 40)), requires_grad=True, device=device)
        y = layer(x)
        y.sum().backward()
        np.testing.assert_array_equal(x.backend.download(x.grad), y.numpy())
        masks.append(y.numpy() != 0)
    assert (masks[0] != masks[1]).any()
    assert len({row.tobytes() for row in masks[0]}) == 50


def test_dropout_in_linear_regression_is_ridge_regression(rng):
    """D6: E |y - (R * X) w|^2 = |y - p X w|^2 + p (1 - p) |Gamma w|^2, by enumeration."""
    x, y, w, p = rng.standard_normal((3, 4)), rng.standard_normal(3), rng.standard_normal(4), 0.75
    layer_rate = Rate.of(1 - p)
    assert 1 - layer_rate.realised == p
    masks = np.array(list(itertools.product((0.0, 1.0), repeat=12)))
    kept = masks.sum(axis=1)
    weights = p**kept * (1 - p) ** (12 - kept)
    losses = np.square(y - (masks.reshape(-1, 3, 4) * x) @ w).sum(axis=1)
    gamma = np.sqrt(np.square(x).sum(axis=0))
    ridge = np.square(y - p * x @ w).sum() + p * (1 - p) * np.square(gamma * w).sum()
    assert weights @ losses == pytest.approx(ridge, rel=1e-13)


def test_dropout_regression_learns_the_ridge_solution(rng):
    """D6 again, as the library runs it: many masked steps end near the ridge solution."""
    x, p = rng.standard_normal((64, 3)), 0.5
    y = x @ [[1.0], [-2.0], [0.5]] + 0.1 * rng.standard_normal((64, 1))
    net = nn.Sequential(nn.VanillaDropout(0.5, seed=1), nn.Linear(3, 1, bias=False, seed=2))
    trainer = gn.Trainer(net, "squared_error", gn.optim.SGD(lr=0.01), schedule="cosine")
    trainer.fit(x, y, epochs=1500, batch_size=64, progress=False)
    gram = x.T @ x
    ridge = np.linalg.solve(p * p * gram + p * (1 - p) * np.diag(np.diag(gram)), p * x.T @ y)
    np.testing.assert_allclose(net[1].weight.numpy(), ridge, atol=0.03)


def test_three_layers_with_dropout_have_the_same_masks_everywhere(device, rng):
    """D7: bit for bit, step after step."""
    x = rng.standard_normal((16, 5))
    found = []
    for place in ("cpu", device):
        net = three_layers(place, nn.Dropout)
        steps = []
        for _ in range(3):
            h = net[1](net.backend.upload(np.ones((16, 7)))).numpy()
            steps += [h, net[3](net.backend.upload(np.ones((16, 6)))).numpy()]
        found.append(steps)
        assert net(net.backend.upload(x)).shape == (16, 2)
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_array_equal(ours, theirs)
