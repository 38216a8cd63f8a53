"""Steps and predictions as graphs: the same numbers, and nothing that waits."""

from __future__ import annotations

import copy
import gc
import logging
import weakref

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn
from gpunn.errors import CaptureError, DivergenceError
from gpunn.train.steps.repeated import STEPS_PER_GRAPH
from tests.standin.backend import standin_cupy

pytestmark = [pytest.mark.both_bodies, pytest.mark.fast]


def network(device, norm=False):
    gn.manual_seed(0)
    with gn.device(device):
        return nn.Sequential(
            nn.Linear(6, 16, "relu"),
            nn.Dropout(0.5),
            *([nn.BatchNorm(16)] if norm else []),
            nn.Linear(16, 8, "gelu"),
            nn.Dropout(0.2),
            nn.Linear(8, 3),
        )


@pytest.fixture
def data(rng):
    return rng.standard_normal((170, 6), dtype=np.float32), rng.integers(0, 3, 170)


def fit(net, data, capture, epochs=3, **options):
    trainer = gn.Trainer(net, seed=5, capture=capture, **options)
    history = trainer.fit(*data, epochs=epochs, batch_size=16, progress=False)
    return history, net.state_dict(), [stream.call for stream in net.streams()], trainer


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("norm", [False, True], ids=["plain", "batch norm"])
@pytest.mark.parametrize(
    "options",
    [
        {"schedule": "cosine"},
        # the same rate in a whole epoch: the eager tail must not keep that of the epoch before
        {"schedule": gn.optim.schedules.Step(11)},
        {"optimizer": "sgd", "clip_norm": 0.5},
        {"optimizer": gn.optim.SGD(lr=0.05, momentum=0.9), "regularizer": gn.optim.L2(0.01)},
        {"regularizer": gn.optim.MaxNorm(0.8)},
    ],
    ids=["cosine", "step", "clipped", "penalty", "max-norm"],
)
def test_a_captured_fit_has_the_bits_of_an_eager_one(options, norm, shuffle, data, device):
    found = []
    for capture in (True, False):
        net = network(device, norm)
        trainer = gn.Trainer(net, seed=5, capture=capture, **copy.deepcopy(options))
        history = trainer.fit(
            *data, epochs=3, batch_size=16, progress=False, shuffle=shuffle, validation=data
        )
        calls = [stream.call for stream in net.streams()]
        found.append((history, net.state_dict(), calls, trainer.optimizer.state_dict()))
    (captured, weights, calls, state), (eager, *rest) = found
    for name in ("loss", "lr", "val_loss", "val_accuracy"):
        assert captured[name] == eager[name], name
    assert calls == rest[1]
    assert calls[0] == 3 * 11  # 170 rows are 10 whole batches and a tail
    for name, value in weights.items():
        np.testing.assert_array_equal(value, rest[0][name], err_msg=name)
    for name, value in state.items():
        np.testing.assert_array_equal(value, rest[2][name], err_msg=name)


def test_a_second_fit_goes_on_where_the_first_ended(data, device):
    weights = []
    for capture in (True, False):
        *_, trainer = fit(network(device), data, capture)
        trainer.fit(*data, epochs=2, batch_size=32, progress=False)
        weights.append(trainer.model.state_dict())
    for name, value in weights[0].items():
        np.testing.assert_array_equal(value, weights[1][name])


def test_a_captured_step_costs_the_host_next_to_nothing(data):
    net = network("standin")
    trainer = gn.Trainer(net, capture=True)
    trainer.fit(*data, epochs=1, batch_size=16, progress=False)
    counters = standin_cupy().counters
    steps = []
    for epochs in (1, 3):
        with counters.count() as found:
            trainer.fit(*data, epochs=epochs, batch_size=16, progress=False)
        steps.append(found)
    more = {
        name: getattr(steps[1], name) - getattr(steps[0], name)
        for name in ("host_to_device", "device_to_host", "synchronisations")
    }
    # each epoch: the order, the rates and the counters go there; the mean loss comes back
    assert more == {"host_to_device": 2 * 3, "device_to_host": 2, "synchronisations": 2}


def test_steps_per_graph_and_the_rest_of_an_epoch(data, cuda_device):
    """11 batches: one eager step, two graphs of 4, one eager rest and the tail."""
    net = network(cuda_device)
    trainer = gn.Trainer(net, capture=True)
    taken = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gpunn.train.trainer.Bar.update", lambda self, steps: taken.append(steps))
        trainer.fit(*data, epochs=2, batch_size=16, progress=False)
    assert STEPS_PER_GRAPH == 4
    assert taken == [1, 4, 4, 1, 1, 4, 4, 1, 1, 1]
    assert trainer.steps == 22


def test_the_step_by_hand(data, device):
    losses = []
    for captured in (True, False):
        net = network(device)
        b = net.backend
        step = gn.train.EagerStep(
            net, gn.ops.softmax_cross_entropy, gn.optim.Adam(net.parameters())
        )
        if captured:
            step = gn.train.CapturedStep(step)
        mine = []
        for k in range(6):
            x, y = (b.upload(a[16 * k : 16 * k + 16 - k // 4]) for a in data)  # two shapes
            mine.append(float(b.download(step(x, y))))
            if k == 3:
                net(x)  # somebody else draws from the streams in between
        losses.append(mine)
    assert losses[0] == losses[1]


def steps_by_hand(device, captured, batches):
    """The losses of steps on batches that `batches(b)` yields, and the weights after them."""
    net = network(device)
    b = net.backend
    step = gn.train.EagerStep(net, gn.ops.softmax_cross_entropy, gn.optim.Adam(net.parameters()))
    step = gn.train.CapturedStep(step) if captured else step
    losses = [float(b.download(step(x, y))) for x, y in batches(b)]
    return losses, net.state_dict(), step


@pytest.mark.parametrize("changed", ["content", "x", "y", "both"])
def test_arrays_that_come_again_are_read_where_they_are(changed, data, device):
    def batches(b):
        first = [b.upload(a[:16]) for a in data]
        other = [b.upload(a[16:32]) for a in data]
        yield first
        yield first
        yield first
        if changed == "content":
            first[0][...] = other[0]
            first[1][...] = other[1]
        if changed in ("x", "both"):
            first = [other[0], first[1]]
        if changed in ("y", "both"):
            first = [first[0], other[1]]
        yield first
        yield first
        yield [b.upload(a[32:48]) for a in data]

    (captured, weights, _), (eager, expected, _) = (
        steps_by_hand(device, flag, batches) for flag in (True, False)
    )
    assert captured == eager
    for name, value in weights.items():
        np.testing.assert_array_equal(value, expected[name])


def test_a_callers_arrays_are_never_written_to(data, device):
    mine = []

    def batches(b):
        mine.extend(b.upload(a[:16]) for a in data)
        for start in (0, 0, 0, 16, 16, 0):
            yield mine if start == 0 else [b.upload(a[start : start + 16]) for a in data]

    *_, step = steps_by_hand(device, True, batches)
    for array, content in zip(mine, data, strict=True):
        np.testing.assert_array_equal(step.backend.download(array), content[:16])


@pytest.mark.parametrize("again", [True, False])
def test_what_a_graph_reads(again, data, device):
    """The caller's own arrays where they came twice, so that nothing is copied; else its own."""
    given = []

    def batches(b):
        for _ in range(2):
            if not given or not again:
                given[:] = [b.upload(a[:16]) for a in data]
            yield given

    *_, step = steps_by_hand(device, True, batches)
    (recorded,) = step._shapes.values()
    assert [a is b for a, b in zip(recorded.arrays, given, strict=True)] == [again, again]


def test_capture_is_true_false_or_auto():
    with pytest.raises(gn.GpunnError, match='"auto"'):
        gn.Trainer(network("cpu"), capture="always")


def asking(z, t):
    """A loss that copies to the host in every step."""
    loss = gn.ops.softmax_cross_entropy(z, t)
    loss.item()
    return loss


def test_a_step_that_copies_is_refused_or_runs_eagerly_with_a_word(data, device, caplog):
    found = []
    for capture in ("auto", False):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "gpunn"):
            found.append(fit(network(device), data, capture, loss=asking))
        words = "training without captured steps: got a step that cannot be captured"
        assert [r.getMessage()[: len(words)] for r in caplog.records] == (
            [words] if capture else []
        )
    for name, value in found[0][1].items():
        np.testing.assert_array_equal(value, found[1][1][name])
    assert found[0][2] == found[1][2]
    with pytest.raises(CaptureError, match=r"cannot be captured.*without copies to the host"):
        fit(network(device), data, True, loss=asking)


class Outside(nn.Module):
    """Scales by a number that NumPy computes from the weights alone, which no recording sees."""

    def __init__(self, other):
        super().__init__()
        self.other = other

    def forward(self, x):
        return x * (1 + float(np.abs(np.asarray(self.other.weight.data)).max()))


def test_what_a_recording_missed_is_noticed(data, caplog):
    found = []
    for capture in ("auto", False):
        gn.manual_seed(0)
        first = nn.Linear(6, 8, "relu")
        net = nn.Sequential(first, Outside(first), nn.Linear(8, 3))
        caplog.clear()
        with caplog.at_level(logging.WARNING, "gpunn"):
            found.append(fit(net, data, capture)[:2])
        assert ("results differ from those of an ordinary step" in caplog.text) == bool(capture)
    assert found[0][0]["loss"] == found[1][0]["loss"]
    for name, value in found[0][1].items():
        np.testing.assert_array_equal(value, found[1][1][name])


class Decay(gn.optim.Regularizer):
    """A penalty in array functions."""

    def penalize(self, flat, times):
        xp, w, g = flat.backend.xp, flat.data[flat.weights], flat.grad[flat.weights]
        xp.add(g, xp.multiply(w, 0.1), out=g)
        return xp.multiply(xp.sum(xp.square(w)), 0.03)


class RawDecay(gn.optim.Regularizer):
    """The same in operators, which only a GPU's capture takes note of."""

    def penalize(self, flat, times):
        w = flat.data[flat.weights]
        flat.grad[flat.weights] += 0.1 * w
        return (w**2).sum() * 0.03


@pytest.mark.parametrize(("kind", "capture"), [(Decay, True), (RawDecay, "auto")])
def test_array_functions_of_users_are_recorded(kind, capture, data, device, caplog):
    with caplog.at_level(logging.WARNING, "gpunn"):
        found = [fit(network(device), data, how, regularizer=kind()) for how in (capture, False)]
    missed = kind is RawDecay and device == "cpu"
    assert caplog.text.count("results differ from those of an ordinary step") == missed
    assert found[0][0]["loss"] == found[1][0]["loss"]
    for name, value in found[0][1].items():
        np.testing.assert_array_equal(value, found[1][1][name])


class Calmer(gn.train.Callback):
    def on_epoch_end(self, trainer, epoch, history):
        trainer.model[1].rate = 0.1 * epoch


def test_a_model_that_a_callback_changes_is_recorded_anew(data, device):
    losses = []
    for capture in (True, False):
        trainer = gn.Trainer(network(device), seed=5, capture=capture)
        history = trainer.fit(*data, epochs=4, batch_size=16, callbacks=[Calmer()], progress=False)
        losses.append(history["loss"])
    assert losses[0] == losses[1]


@pytest.mark.parametrize("whole_batches", [2, 3, 4])
def test_short_epochs_with_a_schedule_are_captured(whole_batches, data, device):
    """The first replay that is compared with an eager step may be in a later epoch."""
    few = [a[: 16 * whole_batches + 5] for a in data]
    found = [fit(network(device), few, c, schedule="cosine")[:2] for c in (True, False)]
    assert found[0][0]["loss"] == found[1][0]["loss"]
    for name, value in found[0][1].items():
        np.testing.assert_array_equal(value, found[1][1][name])


def test_a_loss_that_breaks_stops_a_recorded_fit_at_once(data):
    x = data[0].copy()
    x[100] = 3e38
    trainer = gn.Trainer(network("cpu"), capture=True)
    with pytest.raises(DivergenceError, match=r"layer '0'.*step 7 of epoch 1"):
        trainer.fit(x, data[1], epochs=1, batch_size=16, shuffle=False, progress=False)
    assert trainer.steps == 6


def test_an_epoch_of_one_batch_is_not_worth_a_graph(data, cuda_device, caplog):
    trainer = gn.Trainer(network(cuda_device))
    with caplog.at_level(logging.WARNING, "gpunn"):
        trainer.fit(*data, epochs=1, batch_size=100, progress=False)
    assert "fewer than two whole batches" in caplog.text


def test_without_cublaslt_training_is_eager_and_says_so(data, monkeypatch, caplog):
    from gpunn.backends.cuda.cublaslt import LibraryNotFound
    from tests.standin.backend import StandinBackend

    def missing(self):
        raise LibraryNotFound("libcublasLt is not there")

    b = gn.backend("standin")
    monkeypatch.setattr(StandinBackend, "_cublaslt", missing)
    monkeypatch.delitem(b.__dict__, "_lt", raising=False)
    monkeypatch.setattr(b, "_no_lt", "")
    with caplog.at_level(logging.WARNING, "gpunn"):
        history, *_ = fit(network("standin"), data, "auto")
    del b.__dict__["_lt"]
    assert "libcublasLt is not there" in caplog.text
    assert "training without captured steps" in caplog.text
    monkeypatch.undo()
    assert history["loss"] == pytest.approx(fit(network("standin"), data, True)[0]["loss"], 1e-5)


# predictions -----------------------------------------------------------------------------------


def test_predictions_are_captured_and_follow_the_weights(data, cuda_device):
    x, _ = data
    net = network(cuda_device)
    eager = network("cpu")
    for _ in range(4):
        np.testing.assert_allclose(net.predict(x), eager.predict(x), rtol=1e-5, atol=1e-6)
        net.parameters()[0].data[...] *= 1.5  # in place: the graph sees it
        eager.parameters()[0].data[...] *= 1.5
    net.layers[0] = replaced = nn.Linear(6, 16, "tanh", seed=3, device=cuda_device)
    eager.layers[0] = replaced = nn.Linear(6, 16, "tanh", seed=3)
    for _ in range(3):
        np.testing.assert_allclose(net.predict(x), eager.predict(x), rtol=1e-5, atol=1e-6)
    assert replaced is eager.layers[0]


def test_a_graph_predicts_batch_after_batch(data, cuda_device):
    x, _ = data
    net = network(cuda_device)
    b = net.backend
    parts = net.predict(x, batch_size=20)
    np.testing.assert_allclose(parts, net.predict(x), rtol=1e-5, atol=1e-6)
    on_device = net.predict(b.upload(x), batch_size=20)
    np.testing.assert_array_equal(b.download(on_device), parts)


def test_a_captured_model_can_be_copied(data, cuda_device):
    net = network(cuda_device)
    for _ in range(3):
        expected = net.predict(data[0])
    np.testing.assert_array_equal(copy.deepcopy(net).predict(data[0]), expected)


def test_a_model_that_predicted_is_freed_without_the_garbage_collector(data, cuda_device):
    net = network(cuda_device)
    for _ in range(3):
        net.predict(data[0])
    known = weakref.ref(net)
    gc.collect()
    gc.disable()
    try:
        del net
        assert known() is None
    finally:
        gc.enable()
