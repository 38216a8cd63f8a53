"""Networks made of PyTorch's modules: of stand-ins with its attributes, and of its own."""

from __future__ import annotations

import numpy as np
import pytest

from gpunn import nn
from gpunn.errors import ArgumentError
from gpunn.interop import from_torch, load_torch_state_dict, to_torch_state_dict
from gpunn.interop.pytorch_modules import COUNTERPARTS
from tests.interop.test_pytorch import STATE, X, Y


class Tensor:
    """What is read of a tensor of PyTorch."""

    def __init__(self, numbers, dtype="float64"):
        self.array, self.dtype = np.asarray(numbers, np.float64), f"torch.{dtype}"

    def detach(self):
        return self

    def cpu(self):
        return self

    def float(self):
        return Tensor(self.array, "float32")

    def numpy(self):
        return self.array.astype(self.dtype.removeprefix("torch."))

    def is_floating_point(self):
        return True


class Stub:
    training = False

    def __init__(self, *modules, **attributes):
        self._forward_hooks, self._forward_pre_hooks = {}, {}
        self._modules = {str(k): each for k, each in enumerate(modules)}
        vars(self).update(attributes)

    def state_dict(self):
        own = [each for each in vars(self).values() if isinstance(each, Tensor)]
        inner = [t for m in self._modules.values() for t in m.state_dict().values()]
        return dict(enumerate(own + inner))

    def __str__(self):
        return f"{type(self).__name__}()"


def stub(kind, *modules, home="torch.nn.modules.stub", **attributes):
    return type(kind, (Stub,), {"__module__": home})(*modules, **attributes)


def linear(number, dtype="float64", bias=True):
    weight, shift = (Tensor(STATE[f"{number}.{name}"], dtype) for name in ("weight", "bias"))
    return stub("Linear", weight=weight, bias=shift if bias else None)


def theirs(training=False, dtype="float64"):
    """What gave Y; see `STATE`."""
    norm = {name: Tensor(STATE[f"4.{name}"], dtype) for name in ("weight", "bias")}
    norm |= {name: Tensor(STATE[f"4.{name}"], dtype) for name in ("running_mean", "running_var")}
    return stub(
        "Sequential",
        linear(0, dtype),
        stub("LeakyReLU", negative_slope=0.1),
        stub("Dropout", p=0.25),
        stub(
            "LayerNorm", normalized_shape=(3,), eps=1e-5,
            weight=Tensor(STATE["3.weight"], dtype), bias=Tensor(STATE["3.bias"], dtype),
        ),
        stub("BatchNorm1d", momentum=0.1, eps=1e-5, **norm),
        linear(5, dtype),
        stub("GELU", approximate="none"),
        training=training,
    )  # fmt: skip


def test_the_outputs_that_pytorch_gave(device):
    net = from_torch(theirs(), device=device)
    np.testing.assert_allclose(net.predict(np.array(X)), Y, rtol=0, atol=1e-8)
    assert (net.dtype, net[1].rate, net.training) == (np.float64, 0.25, False)
    assert [layer.activation for layer in (net[0], net[4])] == ["leaky_relu", "gelu"]
    assert from_torch(theirs(training=True)).training


def test_the_layers_have_pytorch_s_numbers():
    assert list(to_torch_state_dict(from_torch(theirs()))) == list(STATE)
    net = from_torch(theirs(dtype="bfloat16"))
    assert net.dtype == np.float32
    load_torch_state_dict(net, STATE)


def test_nested_ones_and_those_that_do_nothing():
    flat, same = stub("Flatten", start_dim=1, end_dim=-1), stub("Identity")
    net = from_torch(stub("Sequential", flat, stub("Sequential", linear(0), same), stub("ReLU")))
    alone = from_torch(linear(0))
    x = np.array(X)
    np.testing.assert_array_equal(net.predict(x), np.maximum(alone.predict(x), 0))
    assert isinstance(alone, nn.Linear)
    assert isinstance(net[1], nn.Sequential)


def codes(**changed):
    weight = Tensor(np.arange(8.0).reshape(4, 2))
    given = {"weight": weight, "padding_idx": 1, "max_norm": None, "scale_grad_by_freq": False}
    return stub("Embedding", **{**given, **changed})


def test_flatten_joins_the_embedding_before_it():
    flat, scale = stub("Flatten", start_dim=1, end_dim=-1), Tensor([1.0, 2.0, 3.0, 4.0])
    norm = stub("RMSNorm", normalized_shape=(4,), eps=None, weight=scale)
    net = from_torch(stub("Sequential", codes(), flat, norm))
    assert [type(m) for m in net] == [nn.Embedding, nn.RMSNorm]
    assert list(to_torch_state_dict(net)) == ["0.weight", "2.weight"]
    assert (net[0].padding_idx, net[0].flatten, net[1].eps) == (1, True, None)
    x = np.array([[3, 0], [1, 2]])
    wide = np.array([[6.0, 7, 0, 1], [2, 3, 4, 5]])
    wanted = wide / np.sqrt((wide**2).mean(axis=1, keepdims=True)) * scale.array
    np.testing.assert_allclose(net.predict(x), wanted, rtol=1e-14)
    alone = from_torch(stub("Sequential", codes()))
    np.testing.assert_array_equal(alone.predict(x), wide.reshape(2, 2, 2))


def test_a_module_that_occurs_twice_is_one_layer():
    layer = stub("Linear", weight=Tensor([[1.0, 2.0], [-1.0, 0.5]]), bias=Tensor([0.0, -1.0]))
    net = from_torch(stub("Sequential", layer, stub("ReLU"), layer, stub("Tanh")))
    x = np.array(X)
    w, b = layer.weight.array.T, layer.bias.array
    expected = np.tanh(np.maximum(x @ w + b, 0) @ w + b)
    np.testing.assert_allclose(net.predict(x), expected, rtol=1e-12)
    assert len(net.parameters()) == 2


def test_normalisation_without_weights():
    norm = stub("LayerNorm", normalized_shape=(2,), eps=0.5, weight=None, bias=None)
    net = from_torch(stub("Sequential", norm, linear(0)))
    x = np.array(X)
    got = net[0].predict(x)
    mean, spread = x.mean(axis=1, keepdims=True), x.var(axis=1, keepdims=True)
    np.testing.assert_allclose(got, (x - mean) / np.sqrt(spread + 0.5), rtol=1e-12)


def test_slopes_below_zero():
    net = from_torch(stub("Sequential", linear(0), stub("PReLU", weight=Tensor([0.25]))))
    z = from_torch(linear(0)).predict(np.array(X))
    np.testing.assert_allclose(net.predict(np.array(X)), np.where(z > 0, z, z / 4), rtol=1e-12)


Conv = stub("Conv1d")
Doubled = type("Doubled", (type(linear(0)),), {"__module__": "mine"})


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (Conv, r"got Conv1d\(\) at 1\.0 \(gpunn has no counterpart\).*BatchNorm1d, Dropout"),
        (Doubled(weight=None), r"Doubled\(\) at 1\.0"),
        (
            stub("Linear", home="torch.ao.nn.quantized", weight=Tensor([[1.0]]), bias=None),
            r"Linear\(\) at 1\.0 \(gpunn has no",
        ),
        (stub("ReLU", _forward_hooks={1: print}), r"1\.0 \(it has hooks"),
        (stub("Softmax", dim=0), "ours has dim=-1"),
        (stub("Softplus", beta=2), "ours has beta=1"),
        (stub("LeakyReLU", negative_slope=1.5), r"slope=1\.5.*expected 0\.0 < slope"),
        (stub("Dropout", p=1.0), r"at 1\.0 \(got rate=1\.0"),
        (stub("Flatten", start_dim=0, end_dim=-1), "start_dim=1"),
        (stub("LayerNorm", normalized_shape=(2, 3)), "the columns of rows"),
        (stub("RMSNorm", normalized_shape=(2, 3)), "the columns of rows"),
        (stub("Embedding", max_norm=1.0, scale_grad_by_freq=False), "neither max_norm"),
        (stub("BatchNorm1d", running_mean=None, momentum=0.1), "running values"),
        (stub("Linear", weight=Tensor([[1.0]], "complex64"), bias=None), "are of complex64"),
        (stub("PReLU", weight=Tensor([0.5])), "how many columns"),
        (stub("GELU", approximate="other"), "unknown activation 'gelu_other'"),
        (3, r"got 3 at 1\.0"),
    ],
)  # fmt: skip
def test_what_has_no_counterpart_is_named(module, words):
    inner = stub("Sequential", module)
    inner.state_dict = dict
    outer = stub("Sequential", stub("ReLU"), inner)
    with pytest.raises(ArgumentError, match=words):
        from_torch(outer)


PYTORCH = {
    "ELU": {"alpha": 0.5},
    "LeakyReLU": {"negative_slope": 0.3},
    "Softmax": {"dim": -1},
    "LogSoftmax": {"dim": -1},
    "GELU": {"approximate": "tanh"},
}


@pytest.mark.parametrize("kind", sorted(COUNTERPARTS.keys() - {"Embedding"}))  # takes codes
def test_each_module_agrees_with_pytorch(kind, rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    sizes = {"Linear": (4, 4), "LayerNorm": (4,), "RMSNorm": (4,), "BatchNorm1d": (4,)}.get(
        kind, ()
    )
    options = PYTORCH.get(kind, {})
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), getattr(torch.nn, kind)(*sizes, **options))
    for name, value in net.eval().state_dict().items():
        if value.is_floating_point():
            value.uniform_(0.5 if name.endswith("var") else -1.5, 1.5)
    x = 3 * rng.standard_normal((6, 3), dtype=np.float32)
    with torch.no_grad():
        expected = net(torch.from_numpy(x)).numpy()
    error = np.abs(from_torch(net).predict(x) - expected).max()
    assert error <= 2e-6 * max(1, np.abs(expected).max())
