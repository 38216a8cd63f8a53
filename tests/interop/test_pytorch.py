"""PyTorch's names and layouts: against numbers that it gave once, and against it if installed."""

from __future__ import annotations

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn
from gpunn.errors import ArgumentError, ModelFileError
from gpunn.interop import load_torch, load_torch_state_dict, save_torch, to_torch_state_dict

# Sequential(Linear(2, 3), LeakyReLU(0.1), Dropout(), LayerNorm(3), BatchNorm1d(3), Linear(3, 2),
# GELU()).eval() with these weights gave these outputs in float64 under PyTorch 2.13. They are small
# and the variances near eps, so that each eps matters.
STATE = {
    "0.weight": [[0.005, -0.01], [0.02, 0.0025], [-0.0075, 0.015]],
    "0.bias": [0.001, -0.002, 0.003],
    "3.weight": [1.25, -0.75, 0.5],
    "3.bias": [0.1, 0.2, -0.3],
    "4.weight": [1.5, -0.5, 2.0],
    "4.bias": [0.0, 0.25, -1.0],
    "4.running_mean": [0.5, -0.25, 1.0],
    "4.running_var": [4.0, 0.0001, 0.5],
    "4.num_batches_tracked": 7,
    "5.weight": [[1.0, -0.02, 0.5], [0.25, 0.0075, -1.25]],
    "5.bias": [0.5, -0.5],
}
X = [[1.0, 2.0], [-0.5, 0.25], [0.0, 0.0]]
Y = [
    [-0.00611754756, 3.56646857828],
    [-0.16605185069, 2.64911361388],
    [-0.14673109529, 4.08483536986],
]

TORCH_MODULES = {
    "relu": lambda t: t.nn.ReLU(),
    "leaky_relu": lambda t: t.nn.LeakyReLU(0.1),
    "elu": lambda t: t.nn.ELU(),
    "gelu": lambda t: t.nn.GELU(),
    "gelu_tanh": lambda t: t.nn.GELU(approximate="tanh"),
    "relu6": lambda t: t.nn.ReLU6(),
    "hardswish": lambda t: t.nn.Hardswish(),
    "log_softmax": lambda t: t.nn.LogSoftmax(dim=-1),
    "silu": lambda t: t.nn.SiLU(),
    "mish": lambda t: t.nn.Mish(),
    "selu": lambda t: t.nn.SELU(),
    "softplus": lambda t: t.nn.Softplus(),
    "tanh": lambda t: t.nn.Tanh(),
    "sigmoid": lambda t: t.nn.Sigmoid(),
    "softmax": lambda t: t.nn.Softmax(dim=-1),
    "identity": lambda t: t.nn.Identity(),
}


def small(dtype="float32"):
    return nn.Sequential(
        nn.Linear(2, 3, "leaky_relu", dtype=dtype),
        nn.Dropout(0.5),
        nn.LayerNorm(3, dtype=dtype),
        nn.BatchNorm(3, dtype=dtype),
        nn.Linear(3, 2, "gelu", dtype=dtype),
    )


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed")


def randomized(torch, net):
    """Give every weight, mean and variance of PyTorch's a number of its own."""
    for name, value in net.state_dict().items():
        if value.is_floating_point():
            value.uniform_(0.5 if name.endswith("var") else -1.5, 1.5)
    return net.eval()


def test_the_outputs_that_pytorch_gave(device):
    net = small("float64").to(device)
    load_torch_state_dict(net, STATE)
    np.testing.assert_allclose(net.predict(np.array(X)), Y, rtol=0, atol=1e-8)


def test_names_and_layouts_come_back():
    net = small()
    load_torch_state_dict(net, STATE)
    state = to_torch_state_dict(net)
    assert list(state) == list(STATE)
    assert all(array.flags.c_contiguous for array in state.values())
    for name, expected in STATE.items():
        if not name.endswith("tracked"):
            np.testing.assert_array_equal(state[name], np.array(expected, np.float32), name)


def test_every_module_takes_a_number():
    net = nn.Sequential(
        nn.Sequential(nn.Linear(2, 2, "relu"), nn.Linear(2, 2, bias=False)),
        "tanh",
        nn.Dropout(0.1),
        nn.Linear(2, 2, lambda z: z * 2.0),
        nn.Linear(2, 2, gn.ops.identity),
        nn.Linear(2, 1),
    )
    names = ["0.0.weight", "0.0.bias", "0.2.weight"]
    names += [f"{number}.{kind}" for number in (3, 5, 6) for kind in ("weight", "bias")]
    assert list(to_torch_state_dict(net)) == names


def test_files(tmp_path, rng):
    here, there = small(), small()
    load_torch_state_dict(here, STATE)
    save_torch(here, tmp_path / "net.safetensors")
    load_torch(there, tmp_path / "net.safetensors")
    np.testing.assert_array_equal(here.predict(X), there.predict(X))


def test_a_file_that_is_none_of_safetensors(tmp_path):
    (tmp_path / "net.pt").write_bytes(b"PK\x03\x04 a pickle")
    with pytest.raises(ModelFileError, match="whole safetensors file"):
        load_torch(small(), tmp_path / "net.pt")


class Odd:
    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"0.bias": None}, r"missing: 0\.bias; unknown: none"),
        ({"module.0.bias": [0.0]}, r"missing: none; unknown: module\.0\.bias.*take a number each"),
        ({"0.weight": np.zeros((2, 3))}, r"0\.weight of shape \(2, 3\); expected \(3, 2\)"),
        ({"5.bias": Odd()}, r"5\.bias of type Odd.*use tensor\.detach\(\)\.cpu\(\)"),
        ({"5.bias": ["a", "b"]}, r"5\.bias of dtype <U1"),
    ],
)
def test_nothing_is_set_where_something_does_not_fit(changes, words):
    net = small()
    before = net.state_dict()
    state = {k: v for k, v in (STATE | changes).items() if v is not None}
    with pytest.raises(ModelFileError, match=words):
        load_torch_state_dict(net, state)
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_a_state_with_other_names_sets_the_shared_ones():
    net, whole = small(), small()
    load_torch_state_dict(whole, STATE)
    before, after = net.state_dict(), whole.state_dict()
    state = {k: v for k, v in STATE.items() if k.startswith("0")} | {"9.weight": np.ones(2)}
    found = load_torch_state_dict(net, state, strict=False)
    assert found.unexpected_keys == ["9.weight"]
    assert found.missing_keys == [k for k in STATE if k[0] != "0" and "tracked" not in k]
    for name, value in net.state_dict().items():
        wanted = after if name.startswith("0") else before
        np.testing.assert_array_equal(value, wanted[name])


@pytest.mark.parametrize("strict", [True, False])
def test_all_shapes_that_differ_are_listed(strict):
    state = STATE | {"0.weight": np.zeros((2, 3)), "5.bias": np.zeros(3)}
    words = r"0\.weight of shape \(2, 3\); expected \(3, 2\), and 5\.bias of shape \(3,\)"
    with pytest.raises(ModelFileError, match=words):
        load_torch_state_dict(small(), state, strict)


class Doubled(nn.Linear):
    def forward(self, x, dropout=None):
        return super().forward(x) * 2.0


class Named(nn.Linear):
    """A layer of the user's that computes what ours does."""


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (nn.Residual(nn.Linear(2, 2)), "Residual"),
        (nn.Graph({"a": (nn.Linear(2, 2), ["x"])}), "Graph"),
        (nn.Standardize([0.0, 0.0], [1.0, 1.0]), "Standardize"),
        (nn.VanillaDropout(0.5), "VanillaDropout"),
        (Doubled(2, 2), "Doubled"),
    ],
)
def test_what_a_sequential_of_pytorch_cannot_hold_is_named(layer, name, tmp_path):
    net = nn.Sequential(nn.Linear(2, 2, "relu"), nn.Sequential(nn.Dropout(0.5), layer))
    for call in (
        to_torch_state_dict,
        lambda m: load_torch_state_dict(m, {}),
        lambda m: save_torch(m, tmp_path / "net.safetensors"),
    ):
        with pytest.raises(ArgumentError, match=rf"got a {name} at place 2\.1"):
            call(net)
    assert not list(tmp_path.iterdir())


def test_a_subclass_that_computes_the_same_is_the_same():
    assert list(to_torch_state_dict(Named(2, 1))) == ["0.weight", "0.bias"]


@pytest.mark.parametrize("activation", TORCH_MODULES)
def test_activations_agree_with_pytorch(torch, activation, rng):
    module = TORCH_MODULES[activation](torch)
    linear = torch.nn.Linear(5, 4), torch.nn.Linear(4, 3)
    fused = activation != "identity"  # Linear has the identity anyway: no module stands for it
    theirs = torch.nn.Sequential(linear[0], *[module] * fused, torch.nn.Dropout(), linear[1])
    randomized(torch, theirs)
    ours = nn.Sequential(nn.Linear(5, 4, activation), nn.Dropout(0.5), nn.Linear(4, 3))
    alone = nn.Sequential(nn.Linear(5, 4), activation, nn.Linear(4, 3))
    x = rng.standard_normal((6, 5), dtype=np.float32)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(x)).numpy()
    load_torch_state_dict(ours, theirs.state_dict())
    load_torch_state_dict(
        alone, {f"{'02'[n[0] != '0']}{n[1:]}": v for n, v in theirs.state_dict().items()}
    )
    for net in (ours, alone):
        error = np.abs(net.predict(x) - expected).max()
        assert error <= 1e-6 * max(1, np.abs(expected).max())


def test_normalisation_agrees_with_pytorch_and_goes_back(torch, rng, tmp_path):
    from safetensors.torch import load_file, save_file

    t = torch.nn
    theirs = t.Sequential(
        t.Linear(4, 6),
        t.ReLU(),
        t.BatchNorm1d(6),
        t.Sequential(t.LayerNorm(6), t.Linear(6, 2, bias=False)),
    )
    randomized(torch, theirs)
    ours = nn.Sequential(
        nn.Linear(4, 6, "relu"),
        nn.BatchNorm(6),
        nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 2, bias=False)),
    )
    x = rng.standard_normal((5, 4), dtype=np.float32)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(x)).numpy()
    save_file(theirs.state_dict(), tmp_path / "theirs.safetensors")
    load_torch(ours, tmp_path / "theirs.safetensors")
    np.testing.assert_allclose(ours.predict(x), expected, rtol=0, atol=1e-6)

    save_torch(ours, tmp_path / "ours.safetensors")
    state = load_file(tmp_path / "ours.safetensors")
    assert {k: v.shape for k, v in state.items()} == {
        k: v.shape for k, v in theirs.state_dict().items()
    }
    randomized(torch, theirs).load_state_dict(state)
    with torch.no_grad():
        again = theirs(torch.from_numpy(x)).numpy()
    np.testing.assert_array_equal(again, expected)


def test_embeddings_and_rms_norms_agree_with_pytorch_and_go_back(torch, rng):
    t = torch.nn
    theirs = t.Sequential(
        t.Embedding(7, 3, padding_idx=2),
        t.Flatten(),
        t.RMSNorm(6),
        t.Linear(6, 4),
        t.ReLU(),
        t.RMSNorm(4, eps=1e-3),
        t.Linear(4, 2),
    )
    randomized(torch, theirs)
    ours = nn.Sequential(
        nn.Embedding(7, 3, padding_idx=2, flatten=True),
        nn.RMSNorm(6),
        nn.Linear(6, 4, "relu"),
        nn.RMSNorm(4, eps=1e-3),
        nn.Linear(4, 2),
    )
    load_torch_state_dict(ours, theirs.state_dict())
    x, y = rng.integers(0, 7, (9, 2)), rng.integers(0, 2, 9)
    scores = theirs(torch.from_numpy(x))
    np.testing.assert_allclose(ours.predict(x), scores.detach().numpy(), rtol=0, atol=1e-6)
    t.functional.cross_entropy(scores, torch.from_numpy(y)).backward()
    gn.ops.softmax_cross_entropy(ours(x), y).backward()
    for mine, other in ((ours[0].weight, theirs[0]), (ours[1].gamma, theirs[2])):
        np.testing.assert_allclose(mine.grad, other.weight.grad.numpy(), rtol=0, atol=1e-6)
    state = to_torch_state_dict(ours)
    assert list(state) == list(theirs.state_dict())
    built = gn.interop.from_torch(theirs)
    assert [m.config() for m in built if hasattr(m, "gamma") or hasattr(m, "flatten")] == [
        m.config() for m in ours if hasattr(m, "gamma") or hasattr(m, "flatten")
    ]
    np.testing.assert_allclose(built.predict(x), ours.predict(x), rtol=0, atol=1e-6)
    load_torch_state_dict(built, theirs.state_dict())
    theirs.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})


def test_the_numbers_of_an_rms_norm_that_pytorch_gave(device):
    """`torch.nn.RMSNorm(2)` of PyTorch 2.13: its eps is that of the dtype it computes in."""
    gave = {"float16": 0.9453125, "float32": 0.9452449083328247, "float64": 0.9999999998889777}
    for dtype, wanted in gave.items():
        layer = nn.RMSNorm(2, dtype=dtype, device=device)
        x = gn.tensor(np.full((1, 2), 1e-3, dtype), device=device)
        np.testing.assert_allclose(layer(x).numpy(), wanted, rtol=2 * np.finfo(dtype).eps)


def test_values_that_numpy_cannot_read_are_named(torch):
    state = {"0.weight": torch.ones(1, 2, dtype=torch.bfloat16), "0.bias": torch.ones(1)}
    with pytest.raises(ModelFileError, match=r"0\.weight of type Tensor.*\.float\(\) for bfloat16"):
        load_torch_state_dict(nn.Linear(2, 1), state)
