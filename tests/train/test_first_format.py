"""Files of format version 1, written once and kept: what reads them, and with which numbers."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn
from gpunn.nn.module import MODULES
from gpunn.train import Callback, EarlyStopping, read_info
from tests.contents import unpack

pytestmark = pytest.mark.fast

DATA = Path(__file__).parent / "data"
NUMBERS = json.loads((DATA / "version_1.json").read_text())
X = (np.arange(40 * 6) * 7 % 17 / 8 - 1).astype(np.float32).reshape(40, 6)
Y = np.arange(40) * 5 % 3


LATER = {
    *("DifferenceFeature", "Embedding", "FeedbackLinear", "RMSNorm"),
    *("Ensemble", "OneHot", "ParametricActivation", "PeriodicEmbedding", "RobustScale", "Scale"),
    *("PolynomialFeatures", "QuadraticFeatures", "RandomFeatures"),
}
"""Modules that came after the file was written; it needs none of them."""


def every_module():
    """A network with every type of module, one of them used twice."""
    tied = nn.Linear(6, 6, "elu", seed=3)
    nodes = {
        "s": (nn.Standardize([0.5, -1, 0, 2, 0.25, 1], [1, 2, 4, 0.5, 3, 1]), ["x"]),
        "a": (nn.Linear(6, 6, "gelu", seed=1), ["s"]),
        "n": (nn.LayerNorm(6, eps=1e-4), ["a"]),
        "d": (nn.Dropout(0.25, seed=2), ["n"]),
        "r": (nn.Residual(tied), ["d"]),
        "t": (nn.Sequential(tied, "tanh", nn.VanillaDropout(0.5, seed=5)), ["r"]),
        "p": (nn.Sum(), ["t", "a"]),
        "c": (nn.Concatenate(), ["p", "r"]),
        "b": (nn.BatchNorm(12, momentum=0.25), ["c"]),
        "y": (nn.Linear(12, 3, bias=False, seed=4), ["b"]),
        "z": (nn.Standardize([1, 2, 3], [0.5, 0.25, 2], inverse=True), ["y"]),
    }
    return nn.Graph(nodes)


def run(folder, epochs, *callbacks):
    """A fit with dropout, batch norm and early stopping, with checkpoints in a folder."""
    net = nn.Sequential(
        nn.Linear(6, 8, "relu", seed=1), nn.Dropout(0.5), nn.BatchNorm(8), nn.Linear(8, 3, seed=2)
    )
    trainer = gn.Trainer(net, optimizer="adam", schedule="cosine", seed=4, checkpoint=folder)
    history = trainer.fit(
        X,
        Y,
        epochs=epochs,
        batch_size=16,
        validation=(X, Y),
        callbacks=[EarlyStopping(patience=epochs), *callbacks],
        progress=False,
    )
    return net, history


def test_a_model_of_version_1_gives_the_numbers_that_it_gave(device):
    path, numbers = DATA / "version_1.safetensors", NUMBERS["model"]
    net = gn.load(path, device=device)
    np.testing.assert_allclose(net.predict(X)[:5], numbers["predictions"], rtol=1e-4, atol=1e-5)
    found = [[s.seed, s.stream, s.call, s.chosen] for s in net.streams()]
    assert found == numbers["streams"]
    assert {name: list(value.shape) for name, value in net.state_dict().items()} == numbers["state"]
    assert net.nodes["r"].inner is net.nodes["t"][0]
    assert read_info(path) == {"classes": ["a", "b", "ü"], "rows": 40}


def test_the_model_of_version_1_has_every_module():
    ours = {name for name in MODULES if "." not in name}
    found = {type(module).__name__ for module in every_module().modules()}
    assert found == ours - LATER


def test_it_is_written_again_as_it_was(tmp_path):
    """A format that changes unawares fails here."""
    gn.save(
        gn.load(DATA / "version_1.safetensors"),
        tmp_path / "net.safetensors",
        info=read_info(DATA / "version_1.safetensors"),
    )
    (old, arrays), (new, again) = map(
        unpack, (DATA / "version_1.safetensors", tmp_path / "net.safetensors")
    )
    assert new == old
    assert again.keys() == arrays.keys()
    for name, value in arrays.items():
        assert again[name].dtype == value.dtype
        np.testing.assert_array_equal(again[name], value)


def test_a_checkpoint_of_version_1_is_resumed(tmp_path, caplog):
    shutil.copytree(DATA / "version_1_checkpoints", tmp_path / "run")
    with caplog.at_level(logging.WARNING, "gpunn"):
        net, history = run(tmp_path / "run", 6, Callback())
    assert "epoch 4, step 9" in caplog.text
    numbers = NUMBERS["checkpoints"]
    for name, curve in numbers["curves"].items():
        np.testing.assert_allclose(history[name], curve, rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(net.predict(X)[:5], numbers["predictions"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["version_1.safetensors", "version_1_checkpoints"])
def test_a_stranger_can_read_them_with_safetensors_alone(name):
    """What docs/files.md says suffices: no line of gpunn reads here."""
    from safetensors import safe_open

    path = DATA / name
    if path.is_dir():
        newest = json.loads((path / "manifest.json").read_text())["checkpoints"][-1]
        path /= newest["file"]
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    with safe_open(path, framework="numpy") as file:
        assert header.pop("__metadata__") == file.metadata()
        for key, place in header.items():
            first, last = place["data_offsets"]
            dtype = {"F32": "<f4", "F64": "<f8", "I64": "<i8"}[place["dtype"]]
            array = np.frombuffer(content[8 + size + first : 8 + size + last], dtype)
            np.testing.assert_array_equal(array.reshape(place["shape"]), file.get_tensor(key))
