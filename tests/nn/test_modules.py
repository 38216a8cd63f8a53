"""Layers and containers."""

from __future__ import annotations

import copy
import pickle
import re

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn
from gpunn.errors import ArgumentError, DataError, ModelFileError, ShapeError, UnknownNameError
from gpunn.ops.dropout import DROPOUT

pytestmark = pytest.mark.fast


def small(device=None):
    return nn.Sequential(
        nn.Linear(5, 8, "relu", seed=1, device=device),
        nn.Dropout(0.5, seed=2),
        nn.Linear(8, 3, seed=3, device=device),
    )


def test_linear_equals_the_formula(device, rng):
    layer = nn.Linear(4, 3, activation="tanh", seed=0, device=device)
    x = rng.standard_normal((6, 4), dtype=np.float32)
    expected = np.tanh(x @ layer.weight.numpy() + layer.bias.numpy())
    np.testing.assert_allclose(layer.predict(x), expected, rtol=1e-5, atol=1e-6)


def test_prediction_is_free_of_masks_and_leaves_the_mode(device, rng):
    net = small(device)
    plain = nn.Sequential(net[0], net[2])
    x = rng.standard_normal((7, 5), dtype=np.float32)
    np.testing.assert_array_equal(net.predict(x), plain.predict(x))
    assert net.training
    assert net[1].stream.call == 0


def test_predict_in_batches_equals_predict_at_once(rng):
    net, x = small(), rng.standard_normal((10, 5), dtype=np.float32)
    np.testing.assert_allclose(net.predict(x, batch_size=3), net.predict(x), rtol=1e-6)
    assert net.predict(x[:0]).shape == (0, 3)


def test_device_arrays_in_device_arrays_out(cuda_device, rng):
    net, b = small(cuda_device), gn.backend(cuda_device)
    x = rng.standard_normal((4, 5), dtype=np.float32)
    y = net.predict(b.upload(x))
    assert gn.backends.backend_of(y) is b
    host = net.predict(x)
    assert type(host) is np.ndarray
    np.testing.assert_array_equal(b.download(y), host)


def test_mean_over_all_masks_is_the_evaluation():
    """D2 and D3 of the lectures: the expectation over the 2**H masks, by enumeration."""
    h, rate = 8, 0.5
    x = np.random.default_rng(0).standard_normal(h)
    total = np.zeros(h)
    for bits in range(2**h):
        keep = np.array([bits >> i & 1 for i in range(h)])
        out = np.empty(h)
        words = np.array([bits], np.uint64)
        gn.backend("cpu").launch(DROPOUT, x, words, 1, 1, 1 / (1 - rate), out=out)
        np.testing.assert_array_equal(out != 0, keep == 1)
        total += out
    np.testing.assert_allclose(total / 2**h, x, rtol=1e-14)


def test_vanilla_dropout_scales_in_evaluation(rng):
    layer = nn.VanillaDropout(0.25, seed=0)
    x = rng.standard_normal((50, 40))
    y = layer(gn.tensor(x)).numpy()
    assert set(np.unique(np.isclose(y, x) | (y == 0))) == {True}
    assert 0 < np.count_nonzero(y == 0) < x.size
    np.testing.assert_allclose(layer.eval()(gn.tensor(x)).numpy(), 0.75 * x, rtol=1e-15)


def test_dropout_draws_a_new_mask_every_step():
    layer, x = nn.Dropout(0.5, seed=0), gn.tensor(np.ones(256))
    assert (layer(x).numpy() != layer(x).numpy()).any()
    again = nn.Dropout(0.5, seed=0)
    again.stream.call = 1
    layer.stream.call = 1
    np.testing.assert_array_equal(layer(x).numpy(), again(x).numpy())


def test_sequential_fuses_without_changing_a_number(rng):
    net = small()
    x = gn.tensor(rng.standard_normal((6, 5), dtype=np.float32))
    fused = net(x).numpy()
    net[1].stream.call = 0
    by_hand = net[2](net[1](net[0](x))).numpy()
    np.testing.assert_allclose(fused, by_hand, rtol=1e-6)


def test_batch_norm(device, rng):
    layer = nn.BatchNorm(3, momentum=0.5, dtype="float64", device=device)
    x = rng.standard_normal((8, 3)) * 3 + 1
    y = layer(gn.tensor(x, device=device)).numpy()
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(y.var(0), 1, rtol=1e-4)
    np.testing.assert_allclose(layer.running_mean.numpy(), x.mean(0) / 2, rtol=1e-12)
    np.testing.assert_allclose(
        layer.running_variance.numpy(), (1 + x.var(0, ddof=1)) / 2, rtol=1e-12
    )
    mean, variance = layer.running_mean.numpy(), layer.running_variance.numpy()
    layer.eval()
    expected = (x - mean) / np.sqrt(variance + 1e-5)
    np.testing.assert_allclose(layer(gn.tensor(x, device=device)).numpy(), expected, rtol=1e-10)
    with pytest.raises(ShapeError, match="at least 2"):
        layer.train()(gn.tensor(x[:1], device=device))


def test_residual_and_graph(rng):
    a, b = nn.Linear(4, 4, "tanh", seed=0), nn.Linear(4, 2, seed=1)
    graph = nn.Graph({"h": (a, ["x"]), "s": (nn.Sum(), ["h", "x"]), "y": (b, ["s"])})
    row = nn.Sequential(nn.Residual(a), b)
    x = rng.standard_normal((3, 4), dtype=np.float32)
    np.testing.assert_array_equal(graph.predict(x), row.predict(x))
    assert len(graph.parameters()) == 4
    wide = nn.Graph({"h": (a, ["x"]), "c": (nn.Concatenate(), ["h", "x"])})
    assert wide.predict(x).shape == (3, 8)


@pytest.mark.parametrize(
    "nodes", [{}, {"a": (nn.Sum(), ["b"]), "b": (nn.Sum(), ["x"])}, {"x": (nn.Sum(), ["x"])}]
)
def test_a_graph_must_be_acyclic(nodes):
    with pytest.raises(ArgumentError, match="expected"):
        nn.Graph(nodes)


def test_a_shared_module_counts_once():
    layer = nn.Linear(3, 3)
    assert len(nn.Sequential(layer, layer).parameters()) == 2


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: nn.Linear(3, 2, "rleu"), UnknownNameError, "'rleu'.*relu.*tanh"),
        (lambda: nn.Linear(3, 2, init="hee"), UnknownNameError, "glorot_uniform"),
        (lambda: nn.Linear(0, 2), ArgumentError, "in_features=0"),
        (lambda: nn.Linear(3, 2.5), ArgumentError, "out_features=2.5"),
        (lambda: nn.Linear(3, 2, dtype="int8"), gn.errors.DTypeError, "int8.*float32"),
    ],
)
def test_bad_arguments(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_shapes_that_do_not_fit_are_both_named():
    with pytest.raises(ShapeError, match=r"\(2, 4\).*\(5, 8\)"):
        small()(np.ones((2, 4), np.float32))


def test_state_round_trip_and_refusal():
    net, other = small(), small()
    state = {name: value + 1 for name, value in net.state_dict().items()}
    other.load_state_dict(state)
    for name, value in other.state_dict().items():
        np.testing.assert_array_equal(value, state[name])
    with pytest.raises(ModelFileError, match=r"missing: 0\.bias"):
        net.load_state_dict({})
    state["0.weight"] = np.ones(3)
    with pytest.raises(ModelFileError, match="shape"):
        net.load_state_dict(state)


def test_a_state_with_other_names_sets_the_shared_ones():
    net, before = small(), small().state_dict()
    assert net.load_state_dict(before) == ([], [])
    state = {"head.weight": "anything", "0.weight": before["0.weight"] + 1, "head.bias": None}
    found = net.load_state_dict(state, strict=False)
    assert found.missing_keys == [name for name in before if name != "0.weight"]
    assert found.unexpected_keys == ["head.weight", "head.bias"]
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[name] + (name == "0.weight"))
    with pytest.raises(ModelFileError, match=r"missing: .*unknown: head\.bias, head\.weight"):
        net.load_state_dict(state)


@pytest.mark.parametrize("strict", [True, False])
def test_all_shapes_that_differ_are_listed(strict):
    net, before = small(), small().state_dict()
    (first, a), (second, _), *_ = before.items()
    state = before | {first: np.ones(3), second: np.ones((2, 2))}
    words = rf"{first} of shape \(3,\); expected {re.escape(str(a.shape))}, and {second} of shape"
    with pytest.raises(ModelFileError, match=words):
        net.load_state_dict(state, strict=strict)
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_weights_that_a_state_lacks_are_still_by_chance():
    net = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    for layer in net:
        layer.by_chance = True  # as without a seed
    net.load_state_dict({"0.weight": np.ones((3, 2))}, strict=False)
    assert [layer.by_chance for layer in net] == [True, True]
    net.load_state_dict({"0.weight": np.ones((3, 2)), "0.bias": np.ones(2)}, strict=False)
    assert [layer.by_chance for layer in net] == [False, True]


@pytest.mark.parametrize("name", sorted(nn.init.INITIALIZERS))
def test_initializers_have_their_variance(name):
    weight = nn.Linear(300, 200, init=name, seed=0, dtype="float64").weight.numpy()
    variance = {"he": 2 / 300, "glorot": 2 / 500, "lecun": 1 / 300, "zeros": 0}[name.split("_")[0]]
    assert weight.var() == pytest.approx(variance, rel=0.03)
    assert abs(weight.mean()) < 5 * np.sqrt(variance / weight.size) + 1e-12


def test_classify(rng):
    net = small()
    x = rng.standard_normal((9, 5), dtype=np.float32)
    np.testing.assert_array_equal(net.classify(x), net.predict(x).argmax(1))
    with pytest.raises(ShapeError, match=r"Trainer\.classify"):
        nn.Linear(5, 1, seed=0).classify(x)
    with pytest.raises(ShapeError, match=r"\(3,\)"):
        net.classify(x[0])


def test_repr_shows_the_layers():
    assert repr(nn.Residual(nn.Dropout(0.25))) == "Residual(\n  (inner): Dropout(rate=0.25)\n)"
    assert "(0): Linear(in_features=5, out_features=8" in repr(small())


def test_copies_and_pickles_are_independent(device, rng):
    net = small(device)
    gn.optim.SGD(net.parameters())
    x = rng.standard_normal((4, 5), dtype=np.float32)
    expected = net.predict(x)
    for again in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        np.testing.assert_array_equal(again.predict(x), expected)
        assert str(again.device) == device
        again[0].weight.data += 1
        np.testing.assert_array_equal(net.predict(x), expected)
        assert [p.regularize for p in again.parameters()] == [True, False, True, False]
        gn.optim.SGD(again.parameters())


def test_standardize_and_its_inverse(device, rng):
    x = rng.standard_normal((5, 2)).astype(np.float32) * 30 + 7
    there = nn.Standardize([7.0, 1.0], [30.0, 2.0], device=device)
    back = nn.Standardize([7.0, 1.0], [30.0, 2.0], inverse=True, device=device)
    expected = (x - [7.0, 1.0]) / [30.0, 2.0]
    np.testing.assert_allclose(there.predict(x), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(nn.Sequential(there, back).predict(x), x, rtol=1e-5)
    assert there.parameters() == []
    with pytest.raises(ArgumentError, match="constant column"):
        nn.Standardize([0.0], [0.0])
    with pytest.raises(ShapeError, match=r"\(1,\).*\(2,\)"):
        nn.Standardize([0.0], [1.0, 2.0])


@pytest.mark.parametrize(("name", "hint"), [("ReLU", "activation="), ("BatchNorm1d", "BatchNorm")])
def test_names_of_elsewhere_lead_here(name, hint):
    with pytest.raises(AttributeError, match=hint):
        getattr(nn, name)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: small()([[0.0] * 5]), gn.errors.DTypeError, "list.*numpy.asarray"),
        (lambda: small()(np.zeros((2, 5), int)), gn.errors.DTypeError, "int64.*float32"),
        (lambda: small().predict(object()), gn.errors.DTypeError, "array of numbers"),
        (lambda: nn.Sequential([nn.Linear(2, 2)]), ArgumentError, r"\*layers"),
        (lambda: nn.Linear(2, 2, ["relu"]), UnknownNameError, "relu"),
        (lambda: nn.Graph({"a": nn.Linear(2, 2)}), ArgumentError, r"'a' as a Linear.*\["),
        (lambda: gn.tensor([[1], [2, 3]]), gn.errors.DTypeError, "rows of the same length"),
        (lambda: gn.tensor("abc"), gn.errors.DTypeError, "array of numbers"),
        (lambda: gn.tensor([[1.0]]).sum(axis=5), gn.errors.ShapeError, "axis=5.*-2 to 1"),
    ],
)
def test_wrong_types_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


class Parts(nn.Module):
    def __init__(self):
        self.a, self.b = [nn.Linear(2, 2, seed=0)], {"b": nn.Linear(2, 2, seed=1)}
        self.ws = [nn.Parameter(np.ones((2, 2), np.float32))]

    def forward(self, x):
        return self.b["b"](self.a[0](x)) @ self.ws[0]


def test_everything_in_lists_and_dicts_is_found():
    net = Parts()
    assert list(net.state_dict()) == ["ws.0", "a.0.weight", "a.0.bias", "b.b.weight", "b.b.bias"]
    assert len(net.parameters()) == 5


def test_a_rate_of_zero_is_an_integer_too():
    x = np.ones((2, 2), np.float32)
    np.testing.assert_array_equal(nn.Dropout(0)(gn.tensor(x)).numpy(), x)


@pytest.mark.parametrize("size", [0, -1, 2.5])
def test_a_bad_batch_size_of_predict(size):
    with pytest.raises(ArgumentError, match="batch_size"):
        small().predict(np.ones((2, 5)), batch_size=size)


def test_standardize_takes_its_numbers_from_data(rng, device):
    x = rng.normal(3, 5, (200, 3)).astype(np.float32)
    x[:, 1] = 7
    for data in (x, gn.tensor(x, device=device)):
        layer = nn.Standardize.fit(data, device=device)
        y = layer.predict(x)
        np.testing.assert_allclose(y.mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(y.std(axis=0), [1, 0, 1], atol=1e-5)
    np.testing.assert_array_equal(gn.data.Standardizer.fit(x).mean, x.mean(axis=0, dtype=float))
    back = nn.Standardize.fit(x, inverse=True, device=device).predict(y)
    np.testing.assert_allclose(back, x, rtol=1e-4, atol=1e-4)
    wrong = ([1.0, 2.0], [[np.nan]], np.zeros((0, 2)))
    for bad, error in zip(wrong, (ShapeError, DataError, DataError), strict=True):
        with pytest.raises(error):
            nn.Standardize.fit(bad)


@pytest.mark.parametrize(
    "make",
    [
        lambda name: nn.Linear(4, 3, name, seed=0),
        lambda name: nn.FeedbackLinear(4, 3, name, seed=0),
        lambda name: nn.RandomFeatures(4, 3, name, seed=0),
        lambda name: nn.Activate(name),
    ],
)
def test_an_activation_that_is_replaced_is_computed_and_saved(make, rng, tmp_path):
    x = rng.standard_normal((5, 4)).astype(np.float32)
    layer, other = nn.Sequential(make("relu")), nn.Sequential(make("tanh"))
    layer.predict(x)  # whatever is compiled for predictions must notice
    layer[0].activation = "tanh"
    other.load_state_dict(layer.state_dict())
    np.testing.assert_array_equal(layer.predict(x), other.predict(x))
    gn.save(layer, tmp_path / "m.safetensors")
    np.testing.assert_array_equal(gn.load(tmp_path / "m.safetensors").predict(x), other.predict(x))


def test_a_replaced_activation_is_checked():
    with pytest.raises(UnknownNameError):
        nn.Linear(2, 2).activation = "rellu"
    with pytest.raises(ArgumentError, match="elementwise"):
        nn.FeedbackLinear(2, 2).activation = "softmax"


def test_a_module_is_a_table_in_a_notebook():
    tied = nn.Linear(3, 3, seed=1)
    net = nn.Sequential(tied, nn.Residual(tied), nn.Dropout(0.5), nn.Linear(3, 2, seed=2))
    page = net._repr_html_()
    assert page.count("<tr>") == 6  # the head, four modules and the sum
    for words in ("<td>1.inner</td>", "Dropout(rate=0.5", ">12<", ">0<", "<b>20</b>", "on cpu"):
        assert words in page
    assert "&lt;" not in nn.Linear(2, 2)._repr_html_()
