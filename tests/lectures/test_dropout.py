"""Dropout: the rows D1 to D7 of docs/lectures.md."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn, ops
from gpunn.backends import RandomStream
from gpunn.ops.dropout import DROPOUT, Rate, dropout_words, keep_factors


def mask(rate, shape, seed):
    """The mask that the next draw of a layer with this seed gives, 1 or 0."""
    how, out = Rate.of(rate), np.empty(shape)
    words = dropout_words(gn.backend("cpu"), how, out.size, RandomStream(seed, chosen=True).draw())
    keep_factors(words, *how, 1.0, out)
    return out


def three_layers(device, kind, bend="relu"):
    """The slide's network, 5-7-6-2, with two dropout layers."""
    options = {"dtype": "float64", "device": device}
    return nn.Sequential(
        nn.Linear(5, 7, bend, seed=1, **options),
        kind(0.5, seed=11),
        nn.Linear(7, 6, bend, seed=2, **options),
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


def every_mask(units):
    return np.array(list(itertools.product((0.0, 1.0), repeat=units)))


def words_of(masks, rate):
    """The random words that make gpunn's kernel keep and drop as these masks say."""
    how = Rate.of(rate)
    numbers = np.where(masks.ravel() > 0, 2**how.width - 1, 0).astype(np.uint64)
    bits = (numbers[:, None] >> np.arange(how.width, dtype=np.uint64)) & np.uint64(1)
    packed = np.packbits(bits.astype(bool).ravel(), bitorder="little")
    words = np.zeros(how.word_count(masks.size) * 8, np.uint8)
    words[: len(packed)] = packed
    return words.view(np.uint64)


def dropped(b, x, masks, rate):
    """gpunn's dropout of x with these masks, (N, H)."""
    how = Rate.of(rate)
    words = b.upload(words_of(masks, rate))
    return b.download(b.launch(DROPOUT, b.upload(x), words, *how, how.scale))


def chances(masks, rate):
    kept = masks.sum(axis=1)
    return (1 - rate) ** kept * rate ** (masks.shape[1] - kept)


@pytest.mark.parametrize("rate", [0.5, 0.25])
def test_the_mean_over_all_masks_is_the_test_output(rate, device, rng):
    """D2: the kernel's output of each of the 2**12 masks, by their chances."""
    h, w, masks = rng.standard_normal(12), rng.standard_normal((12, 3)), every_mask(12)
    found = dropped(gn.backend(device), np.tile(h, (len(masks), 1)), masks, rate)
    np.testing.assert_allclose(found, masks * h / (1 - rate), rtol=1e-15)
    np.testing.assert_allclose(chances(masks, rate) @ found @ w, h @ w, rtol=1e-12)


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
    """D4: a row of 4096 units takes 64 words, each bit of which changes the mask."""
    how = Rate.of(0.5)
    assert how.word_count(4096) == 64
    assert 64 * 64 * math.log10(2) == pytest.approx(1233.02, abs=0.01)
    words, x = np.zeros(64, np.uint64), np.ones(4096)
    b, seen = gn.backend("cpu"), set()
    for unit in range(0, 4096, 97):
        words[unit // 64] = 1 << unit % 64
        kept = np.flatnonzero(b.launch(DROPOUT, x, words, *how, how.scale))
        assert kept.tolist() == [unit]
        seen.add(kept.tobytes())
        words[unit // 64] = 0
    assert len(seen) == len(range(0, 4096, 97))


def deep_outputs(net, x, masks, widths, rate):
    """The output of a network of two dropout layers for each mask of all their units."""
    first, second, last = net[0], net[2], net[4]
    b, rows = net.backend, np.repeat(x, len(masks), axis=0)
    h1 = dropped(b, first.predict(rows), masks[:, : widths[0]], rate)
    h2 = dropped(b, second.predict(h1), masks[:, widths[0] :], rate)
    return last.predict(h2)


@pytest.mark.parametrize("bend", ["relu", "identity"])
def test_weight_scaling_is_an_approximation_in_a_deep_network(bend, rng):
    """C9, "but this integral seems hard": over all 2**13 masks of two layers of dropout.

    With a ReLU behind the first mask, the mean over the masks is not the output of the scaled
    network; without it, the two are equal. A mean over few drawn masks is farther off than either.
    """
    net = three_layers("cpu", nn.Dropout, bend)
    x, masks = rng.standard_normal((1, 5)), every_mask(13)
    outputs = deep_outputs(net, x, masks, (7, 6), 0.5)
    exact, scaled = outputs.mean(axis=0), net.predict(x)[0]
    gap = np.abs(exact - scaled).max()
    if bend == "identity":
        assert gap < 1e-12
        return
    assert gap > 0.02 * np.abs(exact).max()
    drawn = [
        np.abs(net(np.repeat(x, 20, axis=0)).numpy().mean(axis=0) - exact).max() for _ in range(50)
    ]
    assert np.mean(drawn) > gap  # 20 passes cost 20 times as much, and are farther off


def test_dropout_prevents_co_adaptation():
    """C9: units that do not rely on each other survive when half of them are removed.

    On digits, 3 seeds: without dropout the accuracy falls by more than 12 points, with dropout by
    less than 6; and the hidden units are less correlated.
    """
    train, test = gn.data.load_digits().split(0.3, stratify=True)
    scale = train.x.max()
    for seed in range(3):
        lost, related = {}, {}
        for rate in (0.0, 0.5):
            gn.manual_seed(seed)
            hidden, last = nn.Linear(64, 60, "relu"), nn.Linear(60, 10)
            layers = [hidden, nn.Dropout(rate), last] if rate else [hidden, last]
            trainer = gn.Trainer(
                nn.Sequential(*layers), optimizer=gn.optim.Adam(lr=0.003), seed=seed
            )
            trainer.fit(train.x / scale, train.y, epochs=60, batch_size=32, progress=False)
            h = hidden.predict(test.x / scale)
            masks = np.random.default_rng(0).random((20, 1, 60)) < 0.5
            kept = [(last.predict(h * mask * 2).argmax(1) == test.y).mean() for mask in masks]
            lost[rate] = (last.predict(h).argmax(1) == test.y).mean() - np.mean(kept)
            matrix = np.corrcoef(h[:, h.std(axis=0) > 0].T)
            related[rate] = np.abs(matrix[np.triu_indices(len(matrix), 1)]).mean()
        assert lost[0.0] > 0.12
        assert lost[0.5] < 0.06
        assert related[0.5] < related[0.0]


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
    mix = np.array([[1.0, 0.9, 0.0], [0.0, 0.5, 0.8], [0.0, 0.0, 0.6]])  # related features
    x, p = rng.standard_normal((64, 3)) @ mix, 0.5
    y = x @ [[1.0], [-2.0], [0.5]] + 0.1 * rng.standard_normal((64, 1))
    net = nn.Sequential(nn.VanillaDropout(0.5, seed=1), nn.Linear(3, 1, bias=False, seed=2))
    trainer = gn.Trainer(net, "squared_error", gn.optim.SGD(lr=0.02), schedule="cosine")
    trainer.fit(x, y, epochs=4000, batch_size=64, progress=False)
    gram = x.T @ x
    ridge = np.linalg.solve(p * p * gram + p * (1 - p) * np.diag(np.diag(gram)), p * x.T @ y)
    plain = np.linalg.solve(p * p * gram, p * x.T @ y)
    found = net[1].weight.numpy()
    np.testing.assert_allclose(found, ridge, atol=0.05)
    assert np.abs(plain - ridge).max() > 20 * np.abs(found - ridge).max()


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
