"""Training in float16, bfloat16 and TF32: float32 parameters, and a loss scale on the device."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from gpunn.optim.scaling import LossScale

import gpunn as gn
from gpunn import nn
from gpunn.errors import ArgumentError, DataError, DivergenceError, UnknownNameError

pytest.importorskip("ml_dtypes", reason="NumPy's bfloat16 is in ml_dtypes")

NARROW = ("float16", "bfloat16")
PRECISIONS = ("tf32", *NARROW)


def network(device, *last):
    gn.manual_seed(0)
    with gn.device(device):
        return nn.Sequential(
            nn.Linear(6, 16, "relu"),
            nn.Dropout(0.5),
            nn.Linear(16, 8, "gelu"),
            nn.LayerNorm(8),
            nn.RMSNorm(8),
            nn.Linear(8, 8, "tanh"),
            nn.BatchNorm(8),
            *last or (nn.Linear(8, 3),),
        )


@pytest.fixture
def data(rng):
    return rng.standard_normal((170, 6), dtype=np.float32), rng.integers(0, 3, 170)


def fit(device, data, precision, epochs=4, net=None, **options):
    net = network(device) if net is None else net
    trainer = gn.Trainer(net, seed=5, precision=precision, **options)
    history = trainer.fit(*data, epochs=epochs, batch_size=16, progress=False)
    return trainer, history["loss"]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_narrow_training_follows_full_precision(precision, data, cuda_device):
    trainer, losses = fit(cuda_device, data, precision)
    _, full = fit(cuda_device, data, "float32")
    assert losses == pytest.approx(full, rel=2e-2)
    if precision in NARROW:
        assert losses != full  # it was narrow, indeed
    assert trainer.model.dtype == np.float32
    for name, value in trainer.model.state_dict().items():
        assert value.dtype == np.float32, name


@pytest.mark.parametrize("precision", PRECISIONS)
def test_captured_narrow_training_has_the_bits_of_an_eager_one(precision, data, cuda_device):
    found = []
    for capture in (True, False):
        trainer, losses = fit(cuda_device, data, precision, capture=capture, clip_norm=0.5)
        found.append((losses, trainer.model.state_dict()))
    assert found[0][0] == found[1][0]
    for name, value in found[0][1].items():
        np.testing.assert_array_equal(value, found[1][1][name], err_msg=name)


@pytest.mark.parametrize("precision", NARROW)
def test_updates_smaller_than_a_narrow_digit_are_not_lost(precision, cuda_device):
    net = nn.Sequential(nn.Linear(1, 1, bias=False, seed=0, device=cuda_device))
    net.layers[0].weight.data[...] = 1.0
    x, y = np.ones((64, 1), np.float32), np.zeros((64, 1), np.float32)
    trainer = gn.Trainer(net, "half_squared_error", gn.optim.SGD(lr=1e-5), precision=precision)
    trainer.fit(x, y, epochs=10, batch_size=4, progress=False)
    weight = float(net.layers[0].weight.numpy()[0, 0])
    assert weight == pytest.approx((1 - 1e-5) ** 160, rel=2e-5)  # 160 steps of less than a digit


@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "multiclass_hinge"])
def test_every_row_loss_trains_narrow(loss, data, cuda_device):
    for precision in NARROW:
        _, losses = fit(cuda_device, data, precision, loss=loss)
        assert losses == pytest.approx(fit(cuda_device, data, "float32", loss=loss)[1], rel=2e-2)


@pytest.mark.parametrize(
    "loss", ["squared_error", "half_squared_error", "binary_cross_entropy_with_logits"]
)
def test_elementwise_losses_keep_their_wide_targets(loss, data, cuda_device):
    x, y = data[0], (data[1] > 0).astype(np.float32)[:, None]
    last = nn.Linear(8, 1, seed=1, device=cuda_device)
    for precision in NARROW:
        found = [
            fit(cuda_device, (x, y), p, net=network(cuda_device, last), loss=loss)[1]
            for p in (precision, "float32")
        ]
        last = nn.Linear(8, 1, seed=1, device=cuda_device)
        assert found[0][0] == pytest.approx(found[1][0], rel=0.2)


def test_one_hot_targets_train_narrow(data, cuda_device):
    soft = np.eye(3, dtype=np.float32)[data[1]]
    _, losses = fit(cuda_device, (data[0], soft), "float16")
    assert losses == pytest.approx(fit(cuda_device, data, "float16")[1], rel=1e-2)


# the loss scale --------------------------------------------------------------------------------


def scaled(device, gradients, scale, clip=None, interval=3):
    """A parameter of two numbers whose scaled gradients are given; its optimizer and scale."""
    w = gn.tensor(np.array([1.0, -1.0], np.float32), requires_grad=True, device=device)
    optimizer, b = gn.optim.SGD([w], lr=1.0), w.backend
    loss_scale = LossScale(b, start=scale, interval=interval)
    for gradient in gradients:
        optimizer.zero_grad()
        (w * b.upload(np.array(gradient, np.float32))).sum().backward()
        optimizer.step(loss_scale.factor(optimizer.bound, clip))
    state = {name: float(value) for name, value in loss_scale.state_dict().items()}
    return w.numpy(), state, int(optimizer.state_dict()["step"])


def test_gradients_are_divided_by_the_scale(device):
    weights, state, steps = scaled(device, [[8.0, 16.0]], 16.0)
    np.testing.assert_array_equal(weights, [0.5, -2.0])
    assert (state, steps) == ({"scale": 16.0, "good": 1.0}, 1)


@pytest.mark.parametrize("broken", [np.inf, -np.inf, np.nan])
def test_a_step_that_overflowed_is_skipped_and_halves_the_scale(broken, device):
    weights, state, steps = scaled(device, [[8.0, 16.0], [broken, 1.0]], 16.0)
    np.testing.assert_array_equal(weights, [0.5, -2.0])
    assert (state, steps) == ({"scale": 8.0, "good": 0.0}, 1)


def test_good_steps_in_a_row_double_the_scale(device):
    weights, state, _ = scaled(device, [[16.0, 0.0]] * 3 + [[32.0, 0.0]], 16.0)
    assert (weights[0], state) == (-3.0, {"scale": 32.0, "good": 1.0})
    assert scaled(device, [[16.0, 0.0]] * 2 + [[np.inf, 0.0], [1.0, 0.0]], 16.0)[1] == {
        "scale": 8.0,
        "good": 1.0,
    }
    assert scaled(device, [[np.nan, 0.0]] * 3, 2.0)[1]["scale"] == 1.0  # and not below


def test_clipping_is_by_the_norm_of_the_true_gradients(device):
    weights, *_ = scaled(device, [[48.0, 64.0]], 16.0, clip=2.5)  # true norm 5
    np.testing.assert_allclose(weights, [1 - 1.5, -1 - 2.0], rtol=1e-6)


def test_a_fit_lowers_a_scale_that_is_too_large_and_learns(data, cuda_device):
    trainer = gn.Trainer(network(cuda_device), precision="float16", seed=5)
    trainer.precision.loss_scale = LossScale(trainer.model.backend, start=2.0**24)
    before = trainer.model.state_dict()
    history = trainer.fit(*data, epochs=4, batch_size=16, progress=False)
    taken = int(trainer.optimizer.state_dict()["step"])
    assert float(trainer.precision.loss_scale.state_dict()["scale"]) < 2.0**24
    assert 0 < taken < 44  # some were skipped, and none of those was counted
    assert np.isfinite(history["loss"]).all()
    assert all(np.isfinite(v).all() for v in trainer.model.state_dict().values())
    assert any((before[k] != v).any() for k, v in trainer.model.state_dict().items())


@pytest.mark.parametrize("capture", [True, False])
@pytest.mark.parametrize("precision", ["float32", *PRECISIONS])
def test_divergence_is_reported_in_every_precision(precision, capture, data, cuda_device):
    net = network(cuda_device)
    net.layers[0].weight.data[0, 0] = np.nan
    with pytest.raises(DivergenceError, match=r"loss of nan.*parameter '0\.weight'"):
        fit(cuda_device, data, precision, net=net, capture=capture)
    assert net.dtype == np.float32
    assert net.parameters()[0].dtype == np.float32


# refusals --------------------------------------------------------------------------------------


def test_narrow_training_is_refused_where_it_makes_no_sense(cuda_device):
    with pytest.raises(ArgumentError, match=r'precision=.float16. on cpu; expected "float32"'):
        gn.Trainer(network("cpu"), precision="float16")
    with pytest.raises(UnknownNameError, match="float8"):
        gn.Trainer(network("cpu"), precision="float8")
    wide = nn.Linear(2, 2, dtype="float64", device=cuda_device)
    with pytest.raises(ArgumentError, match="for a model of float64"):
        gn.Trainer(wide, precision="bfloat16")


def test_data_beyond_float16_is_refused(data, cuda_device, caplog):
    with pytest.raises(DataError, match=r"beyond 65504.*standardize"):
        fit(cuda_device, (1e6 * data[0], data[1]), "float16")
    with caplog.at_level(logging.WARNING, "gpunn"):
        assert np.isfinite(fit(cuda_device, (1e6 * data[0], data[1]), "bfloat16")[1]).all()
