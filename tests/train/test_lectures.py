"""Numbers that the lectures print."""

from __future__ import annotations

import ast
import gzip
import os
import re
from pathlib import Path

import numpy as np
import pytest

import gpunn as gn
from tests.examples.loading import example

neural_net_in_20_lines = example("11_neural_net_in_20_lines")

ROOT = Path(__file__).parents[2]


def written_by_hand(steps):
    """Lecture 001's listing, with its misprints mended."""
    np.random.seed(0)  # noqa: NPY002
    x, y = np.random.randn(64, 1000), np.random.randn(64, 10)  # noqa: NPY002
    w1, w2 = np.random.randn(1000, 100), np.random.randn(100, 10)  # noqa: NPY002
    for _ in range(steps):
        h = 1.0 / (1.0 + np.exp(-x.dot(w1)))
        y_pred = h.dot(w2)
        yield np.square(y_pred - y).sum()
        dy_pred = 2.0 * (y_pred - y)
        dw2 = h.T.dot(dy_pred)
        dh = dy_pred.dot(w2.T)
        dw1 = x.T.dot(dh * h * (1 - h))
        w1 -= 1e-4 * dw1
        w2 -= 1e-4 * dw2


def test_neural_net_in_20_lines():
    curve = neural_net_in_20_lines.losses(101)
    assert curve[0] == 24635.893498628233
    np.testing.assert_allclose(curve, list(written_by_hand(101)), rtol=1e-9)
    assert curve[100] == pytest.approx(2383.16, abs=0.005)


def test_it_really_takes_at_most_20_lines():
    tree = ast.parse(Path(neural_net_in_20_lines.__file__).read_text())
    function = next(node for node in tree.body if isinstance(node, ast.FunctionDef))
    body = function.body[1:]
    assert body[-1].end_lineno - body[0].lineno + 1 + len(["import numpy", "import gpunn"]) <= 20


def mnist_folder():
    folder = os.environ.get("GPUNN_DATA_DIR")
    return Path(folder) if folder and list(Path(folder).rglob("train-images*")) else None


@pytest.fixture
def small_mnist(tmp_path, monkeypatch):
    """Four IDX files as MNIST has them: the digits that ship with gpunn, enlarged to 28 x 28."""
    train, test = gn.data.load_digits().split(0.25, stratify=True)
    for part, name in ((train, "train"), (test, "t10k")):
        images = (part.x.reshape(-1, 8, 8) / part.x.max() * 255).astype(np.uint8)
        large = np.pad(images.repeat(3, axis=1).repeat(3, axis=2), ((0, 0), (2, 2), (2, 2)))
        gn.data.write_idx(tmp_path / f"{name}-images-idx3-ubyte.gz", large)
        gn.data.write_idx(tmp_path / f"{name}-labels-idx1-ubyte", part.y.astype(np.uint8))
    monkeypatch.setenv("GPUNN_DATA_DIR", str(tmp_path))


def test_lecture_003_networks_on_idx_files(small_mnist, capsys):
    """M17 without MNIST: the full form of the example, with files that the test has written."""
    figure = example("15_mnist").main(False)
    found = re.findall(r"(784-\S*10): test error ([\d.]+) %", capsys.readouterr().out)
    errors = {name: float(error) for name, error in found}
    assert errors["784-10"] < 7.0
    assert errors["784-50-10"] < 4.5
    assert errors["784-50-10"] < errors["784-10"]
    assert len(figure.axes) >= 4


def test_lecture_003_network_learns_mnist_in_two_epochs():
    folder = mnist_folder()
    if folder is None:
        pytest.skip("MNIST is not here: set GPUNN_DATA_DIR to its folder")
    train, test = gn.data.load_mnist(folder)
    gn.manual_seed(0)
    net = gn.nn.Sequential(gn.nn.Linear(784, 50, "relu"), gn.nn.Linear(50, 10))
    trainer = gn.Trainer(net, optimizer="adam", seed=0)
    trainer.fit(train, epochs=2, batch_size=64, progress=False)
    assert trainer.evaluate(test)["accuracy"] > 0.945


def test_lecture_003_networks_reach_their_errors_on_mnist(capsys):
    """M17: the full form of the example, 20 epochs each."""
    if mnist_folder() is None:
        pytest.skip("MNIST is not here: set GPUNN_DATA_DIR to its folder")
    example("15_mnist").main(False)
    found = re.findall(r"test error ([\d.]+) %", capsys.readouterr().out)
    softmax_regression, hidden = map(float, found)
    assert 6.5 < softmax_regression < 8.0
    assert hidden <= 2.8


def test_gelu_approximation_error_is_the_published_one():
    x = np.linspace(-8, 8, 160_001)
    gap = gn.ops.gelu(gn.tensor(x)).numpy() - gn.ops.gelu_sigmoid(gn.tensor(x)).numpy()
    assert 0.0203 <= np.abs(gap).max() <= 0.0204
    assert x[np.abs(gap).argmax()] == pytest.approx(-2.27, abs=0.01) or x[
        np.abs(gap).argmax()
    ] == pytest.approx(2.27, abs=0.01)


def test_hand_wired_xor_of_hard_thresholds():
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float64)
    hidden = gn.ops.linear(
        x,
        gn.tensor(np.ones((2, 2))),
        gn.tensor(np.array([-0.5, -1.5])),
        activation=gn.ops.hard_threshold,
    )
    w = gn.tensor(np.array([[1.0], [-1.0]]))
    y = gn.ops.linear(hidden, w, gn.tensor(np.array([-0.5])), activation=gn.ops.hard_threshold)
    assert y.numpy()[:, 0].tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["sigmoid", "tanh", "gelu", "gelu_sigmoid", "softmax"])
def test_no_overflow_and_no_nan_far_out(name, dtype):
    x = np.array([[-1e4, -100.0, -1.0, 0.0, 1.0, 100.0, 1e4]], dtype)
    t = gn.tensor(x, requires_grad=True)
    y = gn.autograd.OPS[name](t)
    y.sum().backward()
    assert np.isfinite(y.numpy()).all()
    assert np.isfinite(t.grad).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_losses_are_finite_for_logits_of_10000(dtype, device):
    z = gn.tensor(np.array([[1e4, -1e4], [-1e4, 1e4]], dtype), requires_grad=True, device=device)
    b = z.backend
    for loss in (
        gn.ops.softmax_cross_entropy(z, b.upload(np.array([0, 0]))),
        gn.ops.binary_cross_entropy_with_logits(z, b.upload(np.eye(2, dtype=dtype))),
    ):
        z.zero_grad()
        loss.backward()
        assert np.isfinite(loss.item())
        assert np.isfinite(b.download(z.grad)).all()


def test_special_values_of_relu(device):
    x = gn.tensor(np.array([-0.0, 0.0, -np.inf, np.inf, np.nan]), requires_grad=True, device=device)
    y = gn.ops.relu(x)
    np.testing.assert_array_equal(y.numpy(), [0, 0, 0, np.inf, np.nan])
    y.backward(x.backend.upload(np.ones(5)))
    np.testing.assert_array_equal(x.backend.download(x.grad)[:4], [0, 0, 0, 1])


def test_digits_file_is_a_gzip_of_idx():
    path = ROOT / "gpunn" / "data" / "embedded" / "digits-images-idx3-ubyte.gz"
    assert gzip.decompress(path.read_bytes())[:4] == bytes([0, 0, 8, 3])
