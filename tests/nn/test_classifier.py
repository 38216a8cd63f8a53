"""A training step computes the end of a classifier in one launch, and the numbers stay the same."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn
from gpunn.errors import DTypeError, ShapeError
from gpunn.nn.classifier import loss_in_one
from gpunn.ops.classifier import MOST_CLASSES, MOST_PRODUCTS, classifier_loss, is_small

CROSS_ENTROPY = gn.ops.softmax_cross_entropy
LAYERS = {
    "plain": lambda: [nn.Linear(6, 9, "relu", seed=0), nn.Linear(9, 4, seed=1)],
    "dropout": lambda: [
        nn.Linear(6, 9, "relu", seed=0),
        nn.Dropout(0.3, seed=2),
        nn.Linear(9, 4, seed=1),
    ],
    "deep": lambda: [
        nn.Linear(6, 70, "tanh", seed=0),
        nn.LayerNorm(70),
        nn.Linear(70, 150, "relu", seed=1),
        nn.Dropout(0.5, seed=3),
        nn.Linear(150, 4, seed=2),
    ],
}
SEVERAL = {
    "another activation": lambda: [nn.Linear(6, 9, "tanh"), nn.Linear(9, 4)],
    "an activation of the output": lambda: [nn.Linear(6, 9, "relu"), nn.Linear(9, 4, "relu")],
    "no bias": lambda: [nn.Linear(6, 9, "relu"), nn.Linear(9, 4, bias=False)],
    "no bias before": lambda: [nn.Linear(6, 9, "relu", bias=False), nn.Linear(9, 4)],
    "another dropout": lambda: [
        *(nn.Linear(6, 9, "relu"), nn.VanillaDropout(0.5)),
        nn.Linear(9, 4),
    ],
    "feedback": lambda: [nn.Linear(6, 9, "relu"), nn.FeedbackLinear(9, 4)],
    "many classes": lambda: [nn.Linear(6, 9, "relu"), nn.Linear(9, MOST_CLASSES + 1)],
    "16 bits": lambda: [
        nn.Linear(6, 9, "relu", dtype="float16"),
        nn.Linear(9, 4, dtype="float16"),
    ],
    "one layer": lambda: [nn.Linear(6, 4)],
    "one layer behind dropout": lambda: [nn.Dropout(0.5), nn.Linear(6, 4)],
    "nothing": lambda: [],
}


def batch(b, rows=11, kind=np.float32):
    rng = np.random.default_rng(5)
    x = rng.standard_normal((rows, 6)).astype(kind)
    return b.upload(x), b.upload(rng.integers(0, 4, rows))


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1, "reduction": "sum"}], ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_the_loss_and_all_gradients_are_those_of_the_layers(name, options, cuda_device):
    found = []
    for whole in (False, True):
        with gn.device(cuda_device):
            net = nn.Sequential(*LAYERS[name]()).train()
        x, t = batch(net.backend)
        loss = partial(CROSS_ENTROPY, **options)
        value = loss_in_one(net, loss, x, t) if whole else loss(net(x), t)
        value.backward()
        found.append([value.numpy(), *(net.backend.download(p.grad) for p in net.parameters())])
    for several, one in zip(*found, strict=True):
        np.testing.assert_allclose(one, several, rtol=2e-5, atol=2e-6)
    assert len(found[1]) > 4


def test_a_gradient_of_the_loss_multiplies_all_gradients(device):
    b = gn.backend(device)
    arrays = [a.numpy() for a in (nn.Linear(6, 9, seed=0).weight, nn.Linear(9, 4, seed=1).weight)]
    zeros = [np.zeros(n, np.float32) for n in (9, 4)]
    x, t = batch(b)
    gradients = []
    for seed in (None, 4.0):
        given = (arrays[0], zeros[0], arrays[1], zeros[1])
        tensors = [gn.tensor(a, requires_grad=True, device=device) for a in given]
        loss = classifier_loss(x, *tensors, t)
        loss.backward(None if seed is None else b.full((), seed, np.float32))
        gradients.append([b.download(tensor.grad) for tensor in tensors])
    for one, four in zip(*gradients, strict=True):
        np.testing.assert_array_equal(four, 4 * one)


@pytest.mark.parametrize("name", SEVERAL)
def test_another_end_is_left_to_its_operations(name, cuda_device):
    with gn.device(cuda_device):
        net = nn.Sequential(*SEVERAL[name]())
    x, t = batch(gn.backend(cuda_device), kind=np.float16 if name == "16 bits" else np.float32)
    assert loss_in_one(net, CROSS_ENTROPY, x, t) is None


@pytest.mark.parametrize("place", [None, 0, 1, 2])
def test_a_forward_of_a_users_own_is_called(place, cuda_device):
    with gn.device(cuda_device):
        net = nn.Sequential(*LAYERS["dropout"]())
    given = (CROSS_ENTROPY, *batch(net.backend))
    changed = net if place is None else net[place]
    changed.forward = lambda *inputs: pytest.fail("an operation in one does not call it")
    assert loss_in_one(net, *given) is None
    del changed.forward
    assert loss_in_one(net, *given) is not None


@pytest.mark.parametrize(
    "loss",
    [
        partial(CROSS_ENTROPY, reduction="none"),
        partial(CROSS_ENTROPY, weight=[1.0, 2.0, 1.0, 1.0]),
        partial(CROSS_ENTROPY, ignore_index=2),
        gn.ops.multiclass_hinge,
        lambda z, t: CROSS_ENTROPY(z, t) * 2,
    ],
    ids=["no mean", "weights", "ignored", "hinge", "a function"],
)
def test_another_loss_is_left_to_its_operations(loss, cuda_device):
    with gn.device(cuda_device):
        net = nn.Sequential(*LAYERS["plain"]())
    assert loss_in_one(net, loss, *batch(net.backend)) is None


def test_who_watches_a_layer_sees_it(cuda_device):
    from gpunn.nn.linear import unfused
    from gpunn.nn.observation import observe

    with gn.device(cuda_device):
        net = nn.Sequential(*LAYERS["plain"]())
    given = (net, CROSS_ENTROPY, *batch(net.backend))
    for block in (unfused(), observe(lambda module, y: None), gn.no_grad()):
        with block:
            assert loss_in_one(*given) is None
    assert loss_in_one(*given) is not None


def test_the_cpu_multiplies_matrices():
    net = nn.Sequential(*LAYERS["plain"]())
    assert loss_in_one(net, CROSS_ENTROPY, *batch(gn.backend("cpu"))) is None


def test_large_layers_are_matrix_products():
    assert is_small("float32", 128, 1024, 10)
    assert not is_small("float32", MOST_PRODUCTS // 10 // 1024 + 1, 1024, 10)
    assert not is_small("float16", 8, 8, 2)


@pytest.mark.parametrize("rows", [7, 300])
def test_a_row_with_a_wrong_label_is_nan_on_a_gpu_and_an_error_on_the_cpu(rows, device):
    with gn.device(device):
        hidden, output = LAYERS["plain"]()
    b = gn.backend(device)
    x, t = batch(b, rows)
    t[3] = 4
    given = (x, hidden.weight, hidden.bias, output.weight, output.bias, t)
    if b.on_host:
        with pytest.raises(gn.errors.DataError, match="got label 4 in row 3"):
            classifier_loss(*given)
        return
    assert np.isnan(classifier_loss(*given).numpy())


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"w": np.ones((4, 20), np.float32)}, ShapeError, "at most 16 classes"),
        ({"w": np.ones((5, 2), np.float32)}, ShapeError, "check the number of input features"),
        ({"x": np.ones((2, 1, 3), np.float32)}, ShapeError, r"\(N, D\)"),
        ({"dtype": np.float16}, DTypeError, "float32 or float64"),
    ],
)
def test_what_does_not_fit_is_refused(change, error, words):
    kind = change.get("dtype", np.float32)
    x, w = change.get("x", np.ones((2, 3), kind)), change.get("w", np.ones((4, 2), kind))
    with pytest.raises(error, match=words):
        classifier_loss(
            x,
            *(np.ones((3, 4), kind), np.ones(4, kind)),
            *(w, np.ones(w.shape[1], kind)),
            np.array([0, 1]),
        )
