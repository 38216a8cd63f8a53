"""Predictions that repeat a recording have the bits of those that do not, whatever changes."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn
from gpunn.errors import ArgumentError, ShapeError
from gpunn.nn import inference
from gpunn.nn.observation import observe

RNG = np.random.default_rng(0)
X = RNG.standard_normal((300, 6)).astype(np.float32)
TIMES = 5  # the first runs as usual, the second is recorded, the third compared


def network(device="cpu"):
    return nn.Sequential(
        nn.Linear(6, 8, "relu", seed=1),
        nn.BatchNorm(8),
        nn.Dropout(0.5),
        nn.LayerNorm(8),
        nn.RMSNorm(8),
        nn.Linear(8, 3, "tanh", seed=2),
    ).to(device)


def plain(net, x):
    """The outputs without a recording."""
    with net.evaluating():
        return net(x.astype(net.dtype)).numpy()


def repeats(net, x):
    """The outputs of a prediction that repeats a recording."""
    for _ in range(TIMES):
        net.predict(x)
    assert net._captured.again(np.asarray(x, net.dtype), len(x)) is not None
    return net.predict(x)


@pytest.mark.both_bodies
@pytest.mark.parametrize("rows", [1, 2, 13, 256])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int8])
def test_a_repeated_prediction_has_the_bits_of_the_first(rows, dtype):
    net, x = network(), (3 * X[:rows]).astype(dtype)
    first = net.predict(x)
    np.testing.assert_array_equal(repeats(net, x), first)
    np.testing.assert_array_equal(first, plain(net, x))
    other = -x
    np.testing.assert_array_equal(net.predict(other), plain(net, other))


def change_in_place(net):
    net[0].weight.data *= 2


def change_the_array(net):
    net[0].weight.data = net[0].weight.data * np.float32(0.5)


def change_a_layer(net):
    net.layers[5] = nn.Linear(8, 3, seed=9)


def change_an_activation(net):
    net[0].activation = "sigmoid"


def change_running_values(net):
    net[1].running_mean += 1


def load_a_state(net):
    net.load_state_dict(network().state_dict() | {"5.bias": np.full(3, 2, np.float32)})


def train(net):
    gn.Trainer(net, seed=0).fit(X, np.arange(300) % 3, epochs=1, progress=False)


CHANGES = [change_in_place, change_the_array, change_a_layer, change_an_activation,
           change_running_values, load_a_state, train]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_the_model_is_seen(change):
    net = network()
    before = repeats(net, X[:4])
    change(net)
    expected = plain(net, X[:4])
    assert (expected != before).any()
    for _ in range(TIMES):
        np.testing.assert_array_equal(net.predict(X[:4]), expected)
    np.testing.assert_array_equal(repeats(net, X[:4]), expected)


def test_a_result_belongs_to_the_caller():
    net = network()
    repeats(net, X[:4])
    first = net.predict(X[:4])
    kept = first.copy()
    net.predict(-X[:4])
    np.testing.assert_array_equal(first, kept)
    first[...] = 0
    np.testing.assert_array_equal(net.predict(X[:4]), kept)


def test_threads_predict_at_the_same_time():
    net = network()
    parts = [X[k : k + 1 + k % 7] for k in range(200)]
    expected = [plain(net, part) for part in parts]

    def work(number):
        for _ in range(20):
            for k in range(number, len(parts), 4):
                np.testing.assert_array_equal(net.predict(parts[k]), expected[k])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))


def test_threads_that_share_a_shape():
    net = network()
    parts = [X[k : k + 3] for k in range(100)]
    expected = [plain(net, part) for part in parts]

    def work(number):
        for _ in range(30):
            for part, y in zip(parts[number::4], expected[number::4], strict=True):
                np.testing.assert_array_equal(net.predict(part), y)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert 1 <= len(net._captured._idle[3, 6]) <= 4


def test_an_observer_sees_all_modules():
    net = network()
    repeats(net, X[:4])
    seen = []
    with observe(lambda module, y: seen.append(module)):
        net.predict(X[:4])
    assert seen == [*net.layers, net]


def test_a_smaller_batch_size_still_divides():
    net, shapes = network(), []
    repeats(net, X[:10])
    with observe(lambda module, y: shapes.append(y.shape[0])):
        net.predict(X[:10], batch_size=4)
    assert set(shapes) == {4, 2}
    np.testing.assert_array_equal(net.predict(X[:10], batch_size=4), net.predict(X[:10]))
    for wrong in (0, 2.5, True, "4"):
        with pytest.raises(ArgumentError, match="batch_size"):
            net.predict(X[:10], batch_size=wrong)


def test_other_data_is_still_checked():
    net = network()
    repeats(net, X[:4])
    with pytest.raises(ShapeError):
        net.predict(X[:4, :5])
    with pytest.raises(ShapeError):
        net.predict(np.float32(3))
    assert net.predict(X[:0]).shape == (0, 3)
    turned = np.asfortranarray(X[:4])
    np.testing.assert_array_equal(net.predict(turned), net.predict(X[:4]))
    swapped = X[:4].astype(">f4")
    np.testing.assert_array_equal(net.predict(swapped), net.predict(X[:4]))


class Loud(nn.Module):
    """A module that counts its calls: a recording would not."""

    def __init__(self):
        super().__init__()
        self.inner, self.calls = nn.Linear(6, 3, seed=0), 0

    def forward(self, x):
        self.calls += 1
        return self.inner(x)


def test_a_module_that_changes_in_each_call_is_not_recorded():
    net = Loud()
    for k in range(1, 12):
        net.predict(X[:4])
        assert net.calls == k


def test_a_prediction_inside_recorded_work_is_part_of_it():
    net, b = network(), gn.backend("cpu")
    repeats(net, X[:4])
    x, out = X[:4].copy(), np.empty((4, 3), np.float32)

    def work():
        b.xp.add(net.predict(x), 1.0, out=out)

    with b.own_stream():
        plan = b.record(work)
    x *= -1
    if not plan.refused:
        plan.launch()
        np.testing.assert_array_equal(out, net.predict(-X[:4]) + np.float32(1.0))


def test_copies_and_pickles_have_their_own_recordings():
    net = network()
    expected = repeats(net, X[:4])
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        np.testing.assert_array_equal(repeats(other, X[:4]), expected)
        other[0].weight.data *= 0
        assert (other.predict(X[:4]) != expected).any()
    np.testing.assert_array_equal(net.predict(X[:4]), expected)


def test_there_are_few_recordings_of_small_batches(monkeypatch):
    monkeypatch.setattr(inference, "HOST_SHAPES", 3)
    monkeypatch.setattr(inference, "SEVERAL", 8)
    monkeypatch.setattr(inference, "HOST_BYTES", X[:50].nbytes)
    net = network()

    def recorded(n, times):
        for _ in range(times):
            net.predict(X[:n])
        return [shape[0] for shape in net._captured._idle]

    assert recorded(1, 1) == []
    assert recorded(1, 1) == [1]
    assert recorded(51, 9) == [1]
    assert [recorded(n, 2) for n in (2, 3)] == [[1, 2], [1, 2, 3]]
    assert recorded(4, 7) == [1, 2, 3]
    assert recorded(4, 1) == [2, 3, 4]


def test_a_recording_with_large_activations_is_dropped(monkeypatch):
    monkeypatch.setattr(inference, "HOST_BYTES", 1 << 15)
    net = nn.Sequential(nn.Linear(6, 2000, "relu", seed=0), nn.Linear(2000, 3, seed=1))
    for _ in range(9):
        np.testing.assert_array_equal(net.predict(X[:9]), plain(net, X[:9]))
    assert not net._captured._idle


def test_a_model_that_moves_is_recorded_anew(device):
    net = network()
    expected = repeats(net, X[:4])
    net.to(device)
    for _ in range(TIMES):
        np.testing.assert_allclose(net.predict(X[:4]), expected, rtol=1e-5, atol=1e-6)
    net.to("cpu")
    np.testing.assert_array_equal(repeats(net, X[:4]), expected)
