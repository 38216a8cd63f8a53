"""Embeddings: PyTorch's meaning, codes that are none, and training."""

from __future__ import annotations

import logging

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn
from gpunn.errors import ArgumentError, DataError, DTypeError, ShapeError

pytestmark = pytest.mark.fast

RNG = np.random.default_rng(0)
R, D = 7, 3
CODES = RNG.integers(0, R, (40, 2))
KINDS = ("int8", "uint8", "int64", "uint64", "float16", "float32", "float64")


def network(device="cpu", padding_idx=None):
    with gn.device(device):
        return nn.Sequential(
            nn.Embedding(R, D, padding_idx, flatten=True, seed=0),
            nn.RMSNorm(2 * D),
            nn.Linear(2 * D, 8, "relu", seed=1),
            nn.Linear(8, 2, seed=2),
        )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(40,), (40, 2), (4, 5, 2), (0, 2), ()])
def test_the_vectors_of_codes_of_any_dtype_and_shape(shape, kind, device):
    layer = nn.Embedding(R, D, seed=0, device=device)
    codes = np.resize(CODES, shape).astype(kind)
    y = layer(gn.tensor(codes, device=device))
    assert y.shape == (*shape, D)
    np.testing.assert_array_equal(y.numpy(), layer.weight.numpy()[codes.astype(int)])
    layer.flatten = True
    flat = layer(gn.tensor(codes, device=device)).numpy()
    rows = y.numpy() if len(shape) < 2 else y.numpy().reshape(shape[0], D * np.prod(shape[1:]))
    np.testing.assert_array_equal(flat, rows)


def test_the_gradient_is_the_sum_over_all_places(device):
    layer = nn.Embedding(R, D, padding_idx=-2, seed=0, device=device)
    assert layer.padding_idx == R - 2
    b = layer.backend
    gy = RNG.standard_normal((*CODES.shape, D)).astype(np.float32)
    layer(gn.tensor(CODES, device=device)).backward(b.upload(gy))
    wanted = np.zeros((R, D))
    np.add.at(wanted, CODES, gy)
    wanted[R - 2] = 0
    np.testing.assert_allclose(b.download(layer.weight.grad), wanted, rtol=1e-6, atol=1e-6)


def test_the_first_weights_are_standard_normal():
    first = nn.Embedding(400, 50, padding_idx=3, seed=5).weight.numpy()
    assert abs(first.mean()) < 0.02
    assert abs(first.std() - 1) < 0.02
    assert not first[3].any()
    other = nn.Embedding(400, 50, seed=5).weight.numpy()
    np.testing.assert_array_equal(np.delete(first, 3, 0), np.delete(other, 3, 0))
    assert other[3].all()


BAD = [-1, R, 2.5, np.nan, np.inf, -0.25]


@pytest.mark.parametrize("code", BAD)
def test_a_code_that_is_none_is_named_on_the_cpu(code):
    x = CODES.astype(np.float64)
    x[30, 1] = code
    for kind in ("float64", "float32", *["int64"] * float(code).is_integer()):
        given = x.astype(kind)
        with pytest.raises(DataError, match=rf"code {code}.*whole numbers from 0 to {R - 1}"):
            nn.Embedding(R, D)(given)


@pytest.mark.parametrize("code", BAD)
def test_a_code_that_is_none_is_nan_on_a_gpu(code, cuda_device):
    x = CODES.astype(np.float32)
    x[30, 1] = code
    layer = nn.Embedding(R, D, device=cuda_device)
    y = layer(gn.tensor(x, device=cuda_device)).numpy()
    wrong = np.zeros(CODES.shape, bool)
    wrong[30, 1] = True
    np.testing.assert_array_equal(np.isnan(y), np.repeat(wrong[..., None], D, axis=2))


@pytest.mark.both_bodies
def test_a_prediction_that_is_repeated_checks_its_codes():
    net, x = network(), CODES[:4].astype(np.float32)
    first = net.predict(x)
    for _ in range(6):
        np.testing.assert_array_equal(net.predict(x), first)
    assert net._captured.again(x, len(x)) is not None
    for code in BAD[:4]:
        wrong = x.copy()
        wrong[3, 0] = code
        with pytest.raises(DataError, match="got the code"):
            net.predict(wrong)
        np.testing.assert_array_equal(net.predict(x), first)
    np.testing.assert_array_equal(net.predict(x[::-1]), first[::-1])


@pytest.mark.both_bodies
@pytest.mark.parametrize("padding_idx", [None, 1])
def test_it_learns_and_a_recorded_fit_has_the_bits_of_an_eager_one(device, padding_idx):
    y, histories = CODES.sum(axis=1) % 2, []
    for capture in (True, False):
        net = network(device, padding_idx)
        trainer = gn.Trainer(net, optimizer="adamw", lr=0.02, seed=0, capture=capture)
        history = trainer.fit(CODES, y, epochs=40, batch_size=20, progress=False)
        histories.append(history["loss"])
        if padding_idx is not None:
            assert not net[0].weight.numpy()[padding_idx].any()
    assert histories[0] == histories[1]
    assert histories[0][-1] < 0.5 * histories[0][0]


def test_a_fit_names_a_code_that_is_none():
    x, y = CODES.copy(), CODES[:, 0] % 2
    x[33, 0] = R
    with pytest.raises(DataError, match=f"code {R}"):
        gn.Trainer(network(), seed=0).fit(x, y, epochs=3, batch_size=4, progress=False)


def test_a_fit_on_a_gpu_stops_at_a_code_that_is_none(cuda_device):
    x, y = CODES.copy(), CODES[:, 0] % 2
    x[33, 0] = R
    with pytest.raises(gn.errors.DivergenceError):
        gn.Trainer(network(cuda_device)).fit(x, y, epochs=1, batch_size=4, progress=False)


def test_float_dtypes_that_cannot_tell_the_codes_apart_are_refused():
    x = np.array([2047, 3], np.float16)
    nn.Embedding(2048, 1)(x)
    for rows, kind in ((2049, "float16"), (10**8, "float32")):
        with pytest.raises(DTypeError, match=f"{kind} for {rows} rows"):
            gn.ops.embedding(x.astype(kind), np.empty((rows, 1), np.float32))
    with pytest.raises(DTypeError, match="bool"):
        nn.Embedding(2, 1)(x > 5)
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="NumPy's bfloat16 is in ml_dtypes")
    narrow = x[1:].astype(ml_dtypes.bfloat16)
    nn.Embedding(256, 1)(narrow)
    with pytest.raises(DTypeError, match="bfloat16 for 257 rows"):
        nn.Embedding(257, 1)(narrow)


def test_codes_above_a_hundred_are_no_reason_to_standardize(caplog):
    caplog.set_level(logging.WARNING, logger="gpunn")
    net = nn.Sequential(nn.Embedding(500, 2, flatten=True), nn.Linear(4, 2))
    x = np.arange(100, 500).reshape(200, 2)
    gn.Trainer(net).fit(x, x[:, 0] // 2 % 2, epochs=1, progress=False)
    assert "standardize" not in caplog.text.lower()


def test_a_file_keeps_it(tmp_path, device):
    net = network(device, padding_idx=-1)
    gn.save(net, tmp_path / "net.safetensors")
    again = gn.load(tmp_path / "net.safetensors", device=device)
    assert again[0].config() == net[0].config()
    np.testing.assert_array_equal(again.predict(CODES), net.predict(CODES))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"num_embeddings": 0}, "num_embeddings=0"),
        ({"embedding_dim": 2.0}, "embedding_dim=2.0"),
        ({"padding_idx": R}, f"padding_idx={R}.*from -{R} to {R - 1}"),
        ({"padding_idx": -R - 1}, f"padding_idx=-{R + 1}"),
        ({"padding_idx": True}, "padding_idx=True"),
        ({"flatten": 1}, "flatten=1"),
    ],
)
def test_arguments_are_checked(arguments, words):
    with pytest.raises(ArgumentError, match=words):
        nn.Embedding(**({"num_embeddings": R, "embedding_dim": D} | arguments))


def test_arguments_of_the_operation_are_checked():
    weight = np.zeros((R, D), np.float32)
    with pytest.raises(ShapeError, match=r"\(R, D\)"):
        gn.ops.embedding(CODES, weight[0])
    with pytest.raises(ArgumentError, match=f"padding_idx={R}"):
        gn.ops.embedding(CODES, weight, padding_idx=R)
