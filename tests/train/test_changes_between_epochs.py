"""What a callback or a user changes is done: modes of layers, rates, and parts of the training."""

from __future__ import annotations

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn, optim
from gpunn.train import Callback

pytestmark = pytest.mark.fast

RNG = np.random.default_rng(0)
X = RNG.standard_normal((128, 5), dtype=np.float32)
Y = RNG.integers(0, 3, 128)


class At(Callback):
    """Does something at the end of an epoch, or before the first."""

    def __init__(self, epoch, change):
        self.epoch, self.change = epoch, change

    def on_fit_start(self, trainer):
        if self.epoch == 0:
            self.change(trainer)

    def on_epoch_end(self, trainer, epoch, history):
        if epoch == self.epoch:
            self.change(trainer)


def network():
    return nn.Sequential(
        nn.Linear(5, 8, "relu", seed=1),
        nn.BatchNorm(8),
        nn.Dropout(0.5, seed=4),
        nn.Linear(8, 3, seed=2),
    )


def fit(trainer, epochs=4, callbacks=(), **options):
    options = {"batch_size": 32, "progress": False} | options
    return trainer.fit(X, Y, epochs=epochs, callbacks=list(callbacks), **options)


# modes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("capture", [False, "auto"])
@pytest.mark.parametrize("validation", [None, (X, Y)])
def test_a_layer_that_was_put_to_rest_stays_at_rest(validation, capture):
    net = network()
    net[1].eval()
    net[2].eval()
    before = net[1].running_mean.numpy(), net[1].running_variance.numpy()
    trainer = gn.Trainer(net, capture=capture)
    for _ in range(2):
        fit(trainer, validation=validation)
        trainer.evaluate(X, Y)
        net.predict(X)
    np.testing.assert_array_equal(net[1].running_mean.numpy(), before[0])
    np.testing.assert_array_equal(net[1].running_variance.numpy(), before[1])
    assert net[2].stream.call == 0
    assert [m.training for m in net.modules()] == [True, True, False, False, True]
    net[1].train()
    fit(trainer, validation=validation)
    assert not np.array_equal(net[1].running_mean.numpy(), before[0])


def test_a_layer_that_rests_from_an_epoch_on_trains_until_then():
    seen = []

    def rest(trainer):
        trainer.model[1].eval()
        seen.append(trainer.model[1].running_mean.numpy())

    net = network()
    fit(gn.Trainer(net), callbacks=[At(2, rest)])
    np.testing.assert_array_equal(net[1].running_mean.numpy(), seen[0])
    assert seen[0].any()


def test_a_model_in_evaluation_mode_is_trained_as_a_whole():
    net = network().eval()
    fit(gn.Trainer(net))
    assert net[1].running_mean.numpy().any()
    assert net[2].stream.call == 16


def test_a_callback_that_leaves_the_model_in_evaluation_mode_frees_no_layer():
    net = network()
    net[1].eval()
    fit(gn.Trainer(net), callbacks=[At(k, lambda trainer: trainer.model.eval()) for k in (1, 2)])
    assert not net[1].running_mean.numpy().any()
    assert net[2].stream.call == 16


# rates -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("capture", [False, "auto"])
@pytest.mark.parametrize("epoch", [0, 2])
def test_a_rate_that_a_callback_writes_is_the_rate(epoch, capture):
    trainer = gn.Trainer(nn.Sequential(nn.Linear(5, 3, seed=1)), optimizer="sgd", capture=capture)
    before = trainer.model.state_dict()
    change = At(epoch, lambda trainer: setattr(trainer.optimizer, "lr", 0.0))
    history = fit(trainer, callbacks=[change])
    assert history["lr"] == [0.01] * epoch + [0.0] * (4 - epoch)
    assert np.array_equal(trainer.model.state_dict()["0.weight"], before["0.weight"]) == (not epoch)
    np.testing.assert_allclose(history["loss"][epoch + 1 :], history["loss"][epoch + 1], rtol=1e-5)
    assert trainer.optimizer.lr == trainer.base_lr == 0.0  # and so in the next fit


@pytest.mark.parametrize("name", sorted(optim.schedules.SCHEDULES))
def test_a_schedule_goes_on_from_a_rate_that_was_written(name):
    rates = []
    for change in (
        None,
        lambda trainer: setattr(trainer.optimizer, "lr", trainer.optimizer.lr / 2),
    ):
        trainer = gn.Trainer(nn.Sequential(nn.Linear(5, 3, seed=1)), schedule=name)
        callbacks = [] if change is None else [At(2, change)]
        rates.append(np.array(fit(trainer, epochs=6, callbacks=callbacks)["lr"]))
    np.testing.assert_allclose(rates[1], rates[0] * [1, 1, 0.5, 0.5, 0.5, 0.5], rtol=1e-12)


def test_a_base_rate_that_was_written_is_multiplied_by_the_schedule():
    trainer = gn.Trainer(nn.Sequential(nn.Linear(5, 3, seed=1)), schedule="linear")
    whole = fit(trainer, epochs=4)["lr"]
    other = gn.Trainer(nn.Sequential(nn.Linear(5, 3, seed=1)), schedule="linear")
    change = At(2, lambda trainer: setattr(trainer, "base_lr", trainer.base_lr * 4))
    np.testing.assert_allclose(
        fit(other, epochs=4, callbacks=[change])["lr"], np.array(whole) * [1, 1, 4, 4]
    )


def test_a_written_rate_is_in_the_checkpoint(tmp_path):
    class Killed(Exception):
        pass

    def stop(trainer):
        raise Killed

    def run(folder, *more):
        net = nn.Sequential(nn.Linear(5, 3, seed=1))
        trainer = gn.Trainer(net, schedule="cosine", checkpoint=folder)
        change = At(2, lambda trainer: setattr(trainer.optimizer, "lr", 0.5))
        history = fit(trainer, epochs=5, callbacks=[change, *more])
        return history["lr"], net.state_dict()["0.weight"]

    with pytest.raises(Killed):
        run(tmp_path, At(4, stop))
    for found, expected in zip(run(tmp_path), run(None), strict=True):
        np.testing.assert_array_equal(found, expected)


# parts of the training ---------------------------------------------------------------------------

PARTS = {
    "loss": lambda: gn.ops.get_loss("multiclass_hinge"),
    "regularizer": lambda: optim.L2(0.1),
    "clip_norm": lambda: 1e-3,
    "schedule": lambda: optim.schedules.Inverse(decay=0.5),
    "optimizer": lambda: optim.Adam(lr=0.1),
    "on_nonfinite": lambda: "ignore",
    "capture": lambda: False,
    "seed": lambda: 9,
}


@pytest.mark.parametrize("capture", [False, "auto"])
@pytest.mark.parametrize("name", PARTS)
def test_a_part_that_a_callback_replaces_takes_effect(name, capture):
    """The epochs after the change are those of a second fit with it."""

    def trainer():
        return gn.Trainer(network(), optimizer="sgd", capture=capture)

    found = trainer()
    curve = fit(found, callbacks=[At(2, lambda t: setattr(t, name, PARTS[name]()))])["loss"]
    expected = trainer()
    first = fit(expected, epochs=2)["loss"]
    setattr(expected, name, PARTS[name]())
    second = fit(expected, epochs=2)["loss"]
    assert curve == [*first, *second]
    for key, value in expected.model.state_dict().items():
        np.testing.assert_array_equal(found.model.state_dict()[key], value)


@pytest.mark.parametrize("number", [0, 2])
def test_a_callback_replaces_an_activation(number):
    def net():
        return nn.Sequential(nn.Linear(5, 8, "relu", seed=1), nn.BatchNorm(8), nn.Activate("relu"))

    def replace(trainer):
        trainer.model[number].activation = "tanh"

    found = {}
    for capture in (False, "auto"):
        for epoch in (2, None):
            trainer = gn.Trainer(net(), capture=capture)
            fit(trainer, callbacks=[At(epoch, replace)])
            found[capture, epoch] = trainer.history["loss"]
    assert found[False, 2] == found["auto", 2]
    assert found[False, 2][:2] == found[False, None][:2]
    assert found[False, 2][2] != found[False, None][2]


def test_early_stopping_follows_another_curve():
    stopping = gn.train.EarlyStopping("val_loss", patience=1)
    stopping.monitor = "val_accuracy"
    history = gn.train.History({"val_accuracy": [0.5]})
    trainer = gn.Trainer(network())
    stopping.on_fit_start(trainer)
    assert stopping.on_epoch_end(trainer, 1, history) is None
    history.append({"val_accuracy": 0.6})
    assert stopping.on_epoch_end(trainer, 2, history) is None
    assert stopping.best_epoch == 2
