"""Losses and activations say what they mean, whatever form they come in."""

from __future__ import annotations

import inspect
from functools import partial

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn, ops
from gpunn.errors import ArgumentError, DataError, UnknownNameError
from gpunn.ops.elementwise_losses import decision
from gpunn.train.scores import classes

RECTIFIERS = {
    "relu",
    "relu_right",
    "leaky_relu",
    "elu",
    "gelu",
    "gelu_sigmoid",
    "gelu_tanh",
    "hardswish",
    "relu6",
    "mish",
    "silu",
    "softplus",
}


def start(activation):
    return nn.Linear(40, 30, activation, seed=3).weight.numpy()


@pytest.mark.parametrize("name", sorted(ops.ACTIVATIONS))
def test_a_layer_starts_alike_with_a_name_and_with_a_function(name):
    found = start(ops.ACTIVATIONS[name])
    np.testing.assert_array_equal(found, start(name))
    he = nn.Linear(40, 30, name, seed=3, init="he_normal").weight.numpy()
    assert np.array_equal(found, he) == (name in RECTIFIERS)


def test_a_layer_starts_alike_with_options():
    sloped = partial(ops.leaky_relu, slope=0.3)
    np.testing.assert_array_equal(start(sloped), start("leaky_relu"))
    assert not np.array_equal(start(lambda x: x), start("relu"))

    def mine(x):
        return x

    mine.gain = "he"
    np.testing.assert_array_equal(start(mine), start("relu"))
    mine.gain = "hee"
    with pytest.raises(UnknownNameError, match="glorot, he"):
        start(mine)


def test_options_of_an_activation_are_fused(device, rng):
    x = gn.tensor(rng.standard_normal((6, 4)), device=device)
    layer = nn.Linear(4, 3, ops.get_activation("elu", alpha=0.5), dtype="float64", device=device)
    z = x.numpy() @ layer.weight.numpy()
    y = layer(x)
    np.testing.assert_allclose(y.numpy(), np.where(z > 0, z, 0.5 * np.expm1(z)), rtol=1e-12)
    assert y.node.name == "linear"
    y.sum().backward()
    expected = x.numpy().T @ np.where(z > 0, 1, 0.5 * np.exp(z))
    np.testing.assert_allclose(
        layer.weight.backend.download(layer.weight.grad), expected, rtol=1e-12
    )


@pytest.mark.parametrize("activation", ["elu", partial(ops.elu), partial(ops.elu, alpha=0.5)])
def test_a_model_with_options_is_saved_and_exported(activation, tmp_path, rng):
    net = nn.Sequential(nn.Linear(3, 4, activation), nn.Activate(activation), nn.Linear(4, 2))
    x = rng.standard_normal((5, 3)).astype(np.float32)
    gn.save(net, tmp_path / "net.safetensors")
    loaded = gn.load(tmp_path / "net.safetensors")
    np.testing.assert_array_equal(loaded.predict(x), net.predict(x))
    assert set(nn.dead_units(net, x)) == {"0", "1"}
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    gn.interop.to_onnx(net, tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    (found,) = session.run(None, {session.get_inputs()[0].name: x})
    np.testing.assert_allclose(found, net.predict(x), rtol=1e-5, atol=1e-6)


def test_a_file_cannot_choose_an_option_outside_its_interval():
    for given in ({"name": "elu", "alpha": -1}, {"name": "elu", "beta": 1}, {"alpha": 1.0}, {}):
        with pytest.raises((ArgumentError, UnknownNameError)):
            ops.get_activation(given)


def test_options_are_checked_where_they_are_chosen():
    with pytest.raises(ArgumentError, match=r"slope=2.*0.0 < slope < 1.0"):
        ops.get_activation("leaky_relu", slope=2)
    with pytest.raises(ArgumentError, match="delta=-1"):
        ops.get_loss(ops.huber, delta=-1)
    with pytest.raises(UnknownNameError, match="option of huber 'deltas'"):
        ops.get_loss("huber", deltas=1)
    with pytest.raises(UnknownNameError, match="option of softmax_cross_entropy"):
        ops.get_loss("softmax_cross_entropy", margin=1)
    assert ops.get_loss("multiclass_hinge", margin=0.5, reduction="sum").keywords["margin"] == 0.5
    assert ops.get_loss("huber") is ops.huber


def test_help_shows_the_options():
    assert "*, reduction: 'str' = 'mean', delta=1.0)" in str(inspect.signature(ops.huber))
    assert "(x: 'Array', *, alpha=1.0)" in str(inspect.signature(ops.elu))
    assert inspect.signature(ops.elu).return_annotation is gn.Tensor
    assert "margin" in inspect.signature(ops.multiclass_hinge).parameters
    assert list(inspect.signature(ops.relu).parameters) == ["x"]


def forms(name):
    loss = ops.LOSSES[name]
    return {
        "name": name,
        "function": loss,
        "partial": partial(loss),
        "nested": partial(partial(loss, reduction="sum"), reduction="mean"),
    }


@pytest.mark.parametrize("form", ["name", "function", "partial", "nested"])
@pytest.mark.parametrize(
    ("name", "outputs", "labels", "wrong"),
    [
        ("softmax_cross_entropy", 3, [0, 2, 1, 1], [0, 3, 1, 1]),
        ("multiclass_hinge", 3, [0, 2, 1, 1], [0, 3, 1, 1]),
        ("focal", 3, [0, 2, 1, 1], [0, 3, 1, 1]),
        ("binary_cross_entropy_with_logits", 1, [0, 1, 1, 0], [0, 2, 1, 0]),
        ("hinge", 1, [-1, 1, 1, -1], [0, 1, 1, 0]),
        ("perceptron", 1, [-1, 1, 1, -1], [0, 1, 1, 0]),
        ("poisson_error", 1, [0, 7, 1, 0], [0, -7, 1, 0]),
    ],
)
def test_every_form_of_a_loss_means_the_same(form, name, outputs, labels, wrong, rng):
    def trained(loss):
        net = nn.Sequential(nn.Linear(2, outputs, seed=1))
        trainer = gn.Trainer(net, loss, gn.optim.SGD(lr=0.1), seed=0)
        history = trainer.fit(x, labels, epochs=2, batch_size=2, progress=False)
        with pytest.raises(DataError):
            trainer.fit(x, wrong, progress=False)
        return history["loss"], trainer.evaluate(x, labels), classes(net.predict(x), trainer.loss)

    x, labels = rng.standard_normal((4, 2)), np.array(labels)
    found, expected = trained(forms(name)[form]), trained(name)
    assert found[:2] == expected[:2]
    assert ("accuracy" in found[1]) == (name != "poisson_error")
    np.testing.assert_array_equal(found[2], expected[2])
    if name != "poisson_error":
        assert set(found[2]) <= set(labels.tolist())


def test_a_loss_of_a_user_says_how_outputs_become_classes(rng):
    @ops.decides("sign", labels=(-1, 1))
    def squared_hinge(scores, y):
        left = ops.relu(1.0 - scores * y.reshape(scores.shape).astype(scores.dtype))
        return (left * left).mean()

    x = rng.standard_normal((8, 2))
    y = np.where(x[:, 0] > 0, 1, -1)
    for loss in (squared_hinge, partial(squared_hinge)):
        net = nn.Sequential(nn.Linear(2, 1, seed=1))
        trainer = gn.Trainer(net, loss, gn.optim.SGD(lr=0.5), seed=0)
        trainer.fit(x, y, epochs=60, batch_size=4, progress=False)
        assert trainer.evaluate(x, y)["accuracy"] == 1
        np.testing.assert_array_equal(classes(net.predict(x), loss), y)


def test_a_decision_is_one_of_three():
    with pytest.raises(UnknownNameError, match="argmax, half, sign"):
        ops.decides("largest")

    def loss(scores, y):
        return scores.sum()

    assert decision(loss) is None
    loss.decides = "largest"
    with pytest.raises(UnknownNameError, match="decision rule 'largest'"):
        decision(loss)


@pytest.mark.parametrize("registry", ["ACTIVATIONS", "LOSSES"])
def test_what_is_registered_is_exported(registry):
    for name, operation in getattr(ops, registry).items():
        body = operation.kernel.numpy if hasattr(operation, "kernel") else operation.vjp
        if body.__module__.startswith("gpunn.ops."):  # others are the estimators' or a test's
            assert getattr(ops, name) is operation
            assert name in ops.__all__


@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "binary_cross_entropy_with_logits"])
def test_targets_are_checked_once_where_data_come_in(loss, rng, monkeypatch):
    calls = []
    outputs = 3 if loss == "softmax_cross_entropy" else 1
    check = ops.class_losses._check_range
    monkeypatch.setattr(
        ops.class_losses, "_check_range", lambda *given: (calls.append(given), check(*given))
    )
    whole = ops.LOSSES[loss]
    monkeypatch.setattr(
        type(whole), "check_targets", lambda self, t: calls.append(t), raising=False
    )
    net = nn.Sequential(nn.Linear(2, outputs, seed=1))
    x, y = rng.standard_normal((8, 2)), np.array([0, 1] * 4)
    trainer = gn.Trainer(net, loss, capture=False)
    trainer.fit(x, y, validation=(x, y), epochs=3, batch_size=2, progress=False)
    trainer.evaluate(x, y)
    # by the loss: of training data, of validation data and of what is evaluated, or not at all
    before = 0 if outputs == 3 else 3
    assert len(calls) == before
    whole(net(x.astype(np.float32)), y)
    assert len(calls) == before + 1
