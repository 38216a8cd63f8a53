"""What users of NumPy and PyTorch try first works, or says what to do instead."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn, ops, optim
from gpunn.errors import ArgumentError, DataError, DTypeError, GpunnError, UnknownNameError
from gpunn.train import History


def test_tensors_are_not_compared_in_silence(device):
    x, y = (gn.tensor([1.0, 2.0], device=device) for _ in range(2))
    for other in (y, x.data, 1.0, 2, [1.0, 2.0], np.float32(1)):
        with pytest.raises(ArgumentError, match="`x is y`"):
            assert x == other
        with pytest.raises(ArgumentError, match=r"x\.numpy\(\) == y\.numpy\(\)"):
            assert x != other
    assert x == x
    assert x != "relu"
    assert x is not None
    assert x != None  # noqa: E711 - what is no number is simply not equal


def test_tensors_are_keys_and_members():
    x, y = gn.tensor([1.0]), gn.tensor([1.0])
    assert x in {x}
    assert x in [x, y]
    assert y not in {x}
    assert {x: 1, y: 2}[y] == 2
    net = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    assert len(set(net.parameters())) == 4
    assert set(net.parameters()) == set(net.parameters())


METHODS = {
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "sin": np.sin,
    "cos": np.cos,
    "abs": np.abs,
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "max": np.max,
}


@pytest.mark.parametrize("name", METHODS)
def test_an_operation_of_one_tensor_is_a_method(name, device, rng):
    x = gn.tensor(rng.uniform(0.5, 2, (3, 4)), requires_grad=True, device=device)
    y = getattr(x, name)()
    np.testing.assert_allclose(y.numpy(), METHODS[name](x.numpy()), rtol=1e-12)
    assert y.requires_grad
    assert getattr(gn.Tensor, name).__doc__


def test_max_takes_an_axis(rng):
    x = rng.standard_normal((3, 4))
    np.testing.assert_array_equal(gn.tensor(x).max(axis=1).numpy(), x.max(axis=1))
    assert gn.tensor(x).max(axis=0, keepdims=True).shape == (1, 4)


def test_astype_carries_gradients_back_in_the_dtype_of_the_input(device):
    x = gn.tensor([[1.5, -2.0]], requires_grad=True, device=device)
    y = x.astype("float64")
    assert y.dtype == np.float64
    assert (y * gn.tensor([[2.0, 3.0]], dtype="float64", device=device)).sum().backward() is None
    assert x.grad.dtype == np.float32
    np.testing.assert_array_equal(x.backend.download(x.grad), [[2, 3]])
    assert x.astype("int64").astype("float32").sum().item() == -1
    with pytest.raises(DTypeError, match=r"astype"):
        x + y


def test_arrays_of_integers_index_a_tensor(device, rng):
    host = rng.standard_normal((5, 3))
    x = gn.tensor(host, requires_grad=True, device=device)
    rows, columns = np.array([4, 0, -1, 4]), np.array([[0], [2]])
    for index in (rows, columns, (rows, np.array([0, 1, 2, -1])), (columns, rows % 3)):
        there = (
            tuple(gn.tensor(i, device=device) for i in index)
            if type(index) is tuple
            else (gn.tensor(index, device=device))
        )
        for given in (index, there):
            x.zero_grad()
            y = x[given]
            np.testing.assert_array_equal(y.numpy(), host[index])
            weights = rng.standard_normal(y.shape)
            y.backward(x.backend.upload(weights))
            expected = np.zeros_like(host)
            np.add.at(expected, index, weights)
            np.testing.assert_allclose(x.backend.download(x.grad), expected, rtol=1e-12)


@pytest.mark.parametrize("index", [[], np.zeros(0, int), np.zeros((2, 0), int), np.zeros(3, bool)])
@pytest.mark.parametrize("shape", [(3, 2), (3,), (3, 0)])
def test_an_index_may_be_empty(index, shape, device):
    x = gn.tensor(np.ones(shape), requires_grad=True, device=device)
    y = x[index]
    assert y.shape == np.ones(shape)[index].shape
    y.sum().backward()
    np.testing.assert_array_equal(x.backend.download(x.grad), np.zeros(shape))
    with pytest.raises(DataError, match="an array with rows"):
        gn.tensor(np.ones((0, 2)), device=device)[np.array([0])]


def test_the_logarithm_of_the_right_class_is_picked_by_index(device, rng):
    z = gn.tensor(rng.standard_normal((6, 4)), requires_grad=True, device=device)
    labels = np.array([0, 3, 1, 1, 2, 0])
    loss = -(ops.softmax(z).log()[np.arange(6), labels]).mean()
    loss.backward()
    whole = gn.tensor(z.numpy(), requires_grad=True, device=device)
    expected = ops.softmax_cross_entropy(whole, z.backend.upload(labels))
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    b = z.backend
    np.testing.assert_allclose(b.download(z.grad), b.download(whole.grad), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("bad", [5, -6])
def test_an_index_out_of_range_is_found_on_the_cpu(bad):
    x = gn.tensor(np.zeros((5, 2)))
    with pytest.raises(DataError, match="row numbers"):
        x[np.array([0, bad])]
    with pytest.raises(DataError, match="row numbers"):
        x[np.array([0, 1]), np.array([0, 2])]
    with pytest.raises(DataError, match="outside an array"):
        x[:, [0, 2]]
    with pytest.raises(DTypeError, match="index of dtype float64"):
        ops.take(x, np.array([0.0]))


def test_an_index_out_of_range_is_nan_on_a_device(cuda_device):
    x = gn.tensor(np.ones((5, 2)), requires_grad=True, device=cuda_device)
    y = x[np.array([0, 5, 1]), np.array([0, 0, 2])]
    np.testing.assert_array_equal(y.numpy(), [1, np.nan, np.nan])
    y.sum().backward()
    grad = x.backend.download(x.grad)
    assert grad.sum() == grad[0, 0] == 1


def test_a_table_of_rows_is_trained_through_an_index(device):
    """An embedding: only the rows that were asked for move."""
    table = gn.tensor(np.ones((4, 2)), requires_grad=True, device=device)
    optimizer = optim.SGD([table], lr=0.5)
    table[np.array([1, 3, 1])].sum().backward()
    optimizer.step()
    np.testing.assert_array_equal(table.numpy(), [[1, 1], [0, 0], [1, 1], [0.5, 0.5]])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: optim.Adam(betas=(0.9, 0.999)), r"beta1=0\.9, beta2=0\.999"),
        (lambda: optim.get_optimizer("adam", betas=(0.9, 0.999)), "Adam does not have"),
        (lambda: optim.RMSprop(alpha=0.9), "decay, the weight of the past"),
    ],
)
def test_an_option_of_pytorch_gets_a_hint(make, words):
    with pytest.raises(ArgumentError, match=words):
        make()


def test_options_that_an_optimizer_has_are_left_alone():
    assert optim.AdamW(weight_decay=0.1).weight_decay == 0.1
    with pytest.raises(TypeError, match="nothing"):
        optim.SGD(nothing=1)

    class Mine(optim.SGD):
        def __init__(self, **options):
            assert options == {"betas": 1}
            super().__init__()

    Mine(betas=1)


def test_a_history_is_a_mapping():
    history = History()
    history.append({"loss": 0.5, "lr": 0.1})
    history.append({"loss": 0.25, "lr": 0.1})
    assert isinstance(history, Mapping)
    assert list(history) == ["loss", "lr"]
    assert dict(history) == {"loss": [0.5, 0.25], "lr": [0.1, 0.1]}
    assert dict(history.items())["loss"] == history["loss"]
    assert history.get("val_loss") is None
    assert (len(history), history.epochs) == (2, 2)
    assert History().epochs == 0


PRIVATE = {
    "ops": ("Dropped", "Rate", "ElementwiseLoss", "column_sums", "gather_rows"),
    "optim": ("FlatParameters", "LossScale", "SummedL2", "global_norm"),
    "data": ("check_arrays", "check_finite", "check_labels", "check_lengths", "steps_per_epoch"),
    "nn": ("unfused", "observe"),
    "backends": ("KERNELS",),
}


@pytest.mark.parametrize("package", PRIVATE)
def test_what_only_gpunn_needs_is_not_public(package):
    assert not set(PRIVATE[package]) & set(getattr(gn, package).__all__)


NET = nn.Sequential(nn.Linear(4, 8, "relu"), nn.Linear(8, 3))
ONE = gn.tensor([1.0])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: optim.SGD([{"params": [], "momentum": 0.9}]), "one optimizer for each"),
        (lambda: optim.SGD(NET), r"pass model\.parameters\(\)"),
        (lambda: optim.SGD(NET.state_dict()), r"pass model\.parameters\(\)"),
        (lambda: optim.SGD(ONE), "requires_grad=True"),
        (lambda: optim.clip_by_global_norm(NET.parameters(), 1.0), r"pass optimizer\.bound"),
        (lambda: ops.get_loss("squared_error", delta=1.0), "expected one of reduction"),
        (lambda: ops.squared_error(ONE, ONE, delta=1.0), "expected none: leave it out"),
        (lambda: ops.relu(ONE, alpha=1.0), "expected none: leave it out"),
        (
            lambda: ops.softmax_cross_entropy(gn.tensor([[1.0, 2.0]]), np.array([1]), margin=1.0),
            "unknown option of softmax_cross_entropy 'margin': expected one of ignore_index",
        ),
        (lambda: ops.sum(ONE, dim=0), "unknown option of sum 'dim': expected one of axis, keep"),
        (lambda: gn.Trainer(NET, loss="hubber"), "'hubber': expected one of .*huber"),
    ],
)
def test_words_for_what_other_libraries_have(call, words):
    with pytest.raises(GpunnError, match=words):
        call()


def test_a_tensor_can_be_optimized_alone():
    x = gn.tensor([1.0, 2.0], requires_grad=True)
    assert optim.SGD(x).bound.tensors == [x]


def test_a_wrong_type_inside_an_operation_of_yours_stays_a_type_error():
    from gpunn.autograd import op

    @op
    def broken_inside(backend, x, *, times=1.0):
        return x + "a", None

    with pytest.raises(TypeError) as found:
        broken_inside(ONE, times=2.0)
    assert not isinstance(found.value, GpunnError)


def test_a_wide_model_has_a_short_repr():
    wide = nn.Sequential(nn.Standardize(np.zeros(5000), np.ones(5000)), nn.Linear(5000, 2))
    assert len(repr(wide)) < 1000
    assert "activation='relu'" in repr(nn.Linear(2, 3, "relu"))


def test_a_message_lists_few_of_many_names_and_first_those_that_are_alike():
    known = {f"column {n}": n for n in range(5000)} | {"price": 0}
    words = str(UnknownNameError("target", "prise", known))
    assert "expected one of price, " in words
    assert words.endswith("more")
    assert len(words) < 1000
