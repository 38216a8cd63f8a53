"""The layers of table models."""

from __future__ import annotations

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn
from gpunn.errors import ArgumentError, ShapeError, UnknownNameError

RNG = np.random.default_rng(0)


def table_network(device="cpu"):
    codes = np.column_stack(
        [RNG.normal(size=(50, 2)), RNG.integers(-1, 3, 50), RNG.integers(0, 2, 50)]
    )
    with gn.device(device):
        first = nn.OneHot([0, 0, 3, 2])
        scale = nn.RobustScale.fit(first(codes.astype(np.float32)).numpy())
        members = [
            nn.Sequential(
                nn.PeriodicEmbedding(2, seed=k),
                nn.Scale(12),
                nn.Linear(12, 8, seed=k),
                nn.ParametricActivation(8, "mish"),
                nn.Linear(8, 3, seed=k + 9),
            )
            for k in range(2)
        ]
        net = nn.Sequential(first, scale, nn.Ensemble(members, "probabilities", 1.5))
    return net, codes.astype(np.float32)


def test_a_network_of_all_table_layers_is_saved_and_loaded(device, tmp_path):
    net, codes = table_network(device)
    gn.save(net, tmp_path / "m.safetensors")
    again = gn.load(tmp_path / "m.safetensors", device=device)
    np.testing.assert_array_equal(again.predict(codes), net.predict(codes))


def test_devices_agree(cuda_device):
    net, codes = table_network()
    here = net.predict(codes)
    np.testing.assert_allclose(net.to(cuda_device).predict(codes), here, rtol=1e-4, atol=1e-5)


def test_it_trains(device):
    net, codes = table_network(device)
    y = (codes[:, 0] > 0).astype(int) + (codes[:, 3] > 0)
    trainer = gn.Trainer(net, optimizer=gn.optim.Adam(lr=0.02), seed=0)
    history = trainer.fit(codes, y, epochs=40, batch_size=25, progress=False)
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    eager = table_network(device)[0]
    assert len(eager.parameters()) == len(net.parameters())


def test_robust_scale():
    x = np.array([[0.0, 5, 1], [1, 5, 1], [2, 5, 1], [3, 5, 1], [4, 5, 9]])
    layer = nn.RobustScale.fit(x, dtype="float64")
    np.testing.assert_array_equal(layer.center.numpy(), [2, 5, 1])
    np.testing.assert_array_equal(layer.scale.numpy(), [0.5, 0, 0.25])
    u = np.array([1.0, 0, 2])
    np.testing.assert_allclose(layer(x[4:]).numpy()[0], u / np.sqrt(1 + u**2 / 9))
    with pytest.raises(ShapeError, match="center"):
        nn.RobustScale([1.0], [1.0, 2.0])


@pytest.mark.parametrize("levels", [[], [2, 0], [1], [0, 3, 1], [-1], [2.5]])
def test_levels_are_checked(levels):
    with pytest.raises(ArgumentError, match="levels"):
        nn.OneHot(levels)


def test_an_ensemble_is_the_mean_of_its_members(device):
    x = RNG.normal(size=(6, 4)).astype(np.float32)
    members = [nn.Linear(4, 3, seed=k, device=device) for k in range(3)]
    each = [member.predict(x) for member in members]
    np.testing.assert_allclose(nn.Ensemble(members).predict(x), np.mean(each, 0), rtol=1e-5)
    chances = [np.exp(z) / np.exp(z).sum(1, keepdims=True) for z in each]
    scores = nn.Ensemble(members, "probabilities").predict(x)
    np.testing.assert_allclose(np.exp(scores), np.mean(chances, 0), rtol=1e-5)
    cooled = nn.Ensemble(members, "probabilities", 2.0).predict(x)
    np.testing.assert_allclose(2 * cooled, scores, rtol=1e-6)


def test_wrong_ensembles():
    with pytest.raises(ArgumentError, match="without members"):
        nn.Ensemble([])
    with pytest.raises(UnknownNameError, match="median"):
        nn.Ensemble([nn.Linear(2, 2)], "median")


def test_a_probability_of_0_has_a_finite_score():
    sure = nn.Linear(1, 2, seed=0)
    sure.weight.data[...] = [[1e4, -1e4]]
    scores = nn.Ensemble([sure], "probabilities").predict(np.ones((1, 1), np.float32))
    assert np.isfinite(scores).all()
    assert scores.argmax() == 0


def test_label_smoothing_agrees_with_soft_targets(device):
    z = RNG.normal(size=(7, 4))
    y = RNG.integers(0, 4, 7)
    rows = 0.9 * np.eye(4)[y] + 0.1 / 4
    results = []
    for target, options in (
        (y, {"label_smoothing": 0.1}),
        (np.eye(4)[y], {"label_smoothing": 0.1}),
        (rows, {}),
    ):
        scores = gn.tensor(z, requires_grad=True, device=device)
        loss = gn.ops.softmax_cross_entropy(scores, gn.tensor(target, device=device), **options)
        loss.backward()
        results.append((float(loss.numpy()), scores.backend.download(scores.grad)))
    for value, gradient in results[1:]:
        assert value == pytest.approx(results[0][0], rel=1e-12)
        np.testing.assert_allclose(gradient, results[0][1], rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("value", [-0.1, 1.0, float("nan"), "a"])
def test_smoothing_is_checked(value):
    with pytest.raises(ArgumentError, match=r"0\.0 <= label_smoothing < 1\.0"):
        gn.ops.get_loss("softmax_cross_entropy", label_smoothing=value)


def test_schedules():
    coslog, flat = gn.optim.get_schedule("coslog"), gn.optim.get_schedule("flatcosine")
    times = [0, 1 / 15, 3 / 15, 7 / 15, 1]  # the ends of the cycles
    assert [round(coslog.factor(round(t * 1500), 1500), 12) for t in times] == [0] * 5
    middles = [(2 ** (k + 0.5) - 1) / 15 for k in range(4)]
    assert all(coslog.factor(round(t * 10**6), 10**6) > 0.999 for t in middles)
    assert [round(flat.factor(t, 8), 12) for t in (0, 3, 4, 6, 8)] == [1, 1, 1, 0.5, 0]


def test_keep_best_takes_the_last_of_equals():
    x = np.zeros((4, 2), np.float32)
    net = nn.Linear(2, 2, seed=0)

    class Scores(gn.train.Callback):
        def on_epoch_end(self, trainer, epoch, history):
            history.curves["accuracy"] = [
                *history.curves.get("accuracy", []),
                [0, 1, 1, 0][epoch - 1],
            ]
            trainer.model.bias.data[...] = epoch

    for kind, best in (
        (gn.train.KeepBest("accuracy"), 3),
        (gn.train.EarlyStopping("accuracy", 9), 2),
    ):
        trainer = gn.Trainer(net, optimizer=gn.optim.SGD(lr=0.0), seed=0)
        trainer.fit(x, [0, 1, 0, 1], epochs=4, progress=False, callbacks=[Scores(), kind])
        assert kind.best_epoch == best
        assert net.bias.numpy().tolist() == [best, best]
