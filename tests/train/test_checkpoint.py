"""Models as files: exact round trips, and every broken file refused in words."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

import gpunn as gn
from gpunn import nn
from gpunn.errors import ArgumentError, ModelFileError, OutputError
from gpunn.train import read_info

pytestmark = pytest.mark.fast

OTHER = {"module": "Linear", "config": {"in_features": 3, "out_features": 2}}


def graph():
    return nn.Graph(
        {
            "a": (nn.Linear(4, 6, "gelu", seed=1), ["x"]),
            "n": (nn.LayerNorm(6), ["a"]),
            "m": (nn.RMSNorm(6, eps=1e-3), ["n"]),
            "d": (nn.Dropout(0.25, seed=2), ["m"]),
            "r": (nn.Residual(nn.Linear(6, 6, "elu", seed=3)), ["d"]),
            "c": (nn.Concatenate(), ["r", "a"]),
            "b": (nn.BatchNorm(12), ["c"]),
            "y": (nn.Sequential(nn.Linear(12, 3, bias=False, seed=4), "tanh"), ["b"]),
        }
    )


def test_round_trip_of_every_kind_of_module(tmp_path, device, rng):
    net = graph()
    x = rng.standard_normal((8, 4), dtype=np.float32)
    net(x)  # moves the running statistics and the dropout's stream
    gn.save(net, tmp_path / "net.safetensors", info={"classes": ["a", "b", "c"]})
    again = gn.load(tmp_path / "net.safetensors", device=device)
    assert str(again.device) == device
    assert not again.training
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[name], value)
    assert again.streams() == net.streams()
    np.testing.assert_allclose(again.predict(x), net.predict(x), rtol=1e-5, atol=1e-6)
    assert read_info(tmp_path / "net.safetensors") == {"classes": ["a", "b", "c"]}


def test_a_model_of_a_device_loads_on_the_cpu(tmp_path, cuda_device):
    net = nn.Linear(3, 2, seed=0, device=cuda_device)
    gn.save(net, tmp_path / "net.safetensors")
    again = gn.load(tmp_path / "net.safetensors")
    assert str(again.device) == "cpu"
    np.testing.assert_array_equal(again.weight.numpy(), net.weight.numpy())


def test_float64_is_kept(tmp_path):
    gn.save(nn.Linear(3, 2, dtype="float64"), tmp_path / "net.safetensors")
    assert gn.load(tmp_path / "net.safetensors").dtype == np.float64


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "net.safetensors"
    gn.save(nn.Sequential(nn.Linear(3, 2)), path)
    return path


def test_a_truncated_file(saved):
    whole = saved.read_bytes()
    for length in (0, 1, 7, 8, 50, len(whole) // 2, len(whole) - 1):
        saved.write_bytes(whole[:length])
        with pytest.raises(ModelFileError, match="whole safetensors file"):
            gn.load(saved)


def test_files_that_are_not_ours(tmp_path):
    foreign = tmp_path / "foreign.safetensors"
    save_file({"w": np.ones(3)}, foreign)
    with pytest.raises(ModelFileError, match="did not write"):
        gn.load(foreign)
    with pytest.raises(ModelFileError, match="check the path"):
        gn.load(tmp_path / "missing.safetensors")
    (tmp_path / "text").write_text("no model " * 100)
    with pytest.raises(ModelFileError, match="cannot be read"):
        gn.load(tmp_path / "text")


def rewrite(path, **changes):
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"].update(changes)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": "2"}, "version '2'; expected '1'"),
        ({"architecture": "{"}, "whose architecture cannot be read"),
        ({"architecture": '{"module": "Teapot", "config": {}}'}, "Teapot.*Linear"),
        ({"architecture": '{"module": "Linear", "config": {"in_features": 3}}'}, "cannot be built"),
        ({"architecture": json.dumps(OTHER)}, "with other names"),
    ],
)
def test_headers_that_do_not_fit(saved, changes, words):
    rewrite(saved, **changes)
    with pytest.raises(ModelFileError, match=words):
        gn.load(saved)


def test_an_unwritable_place_leaves_the_old_file_whole(saved, tmp_path, monkeypatch):
    before = saved.read_bytes()
    with pytest.raises(OutputError, match="another place"):
        gn.save(nn.Linear(2, 2), tmp_path / "missing" / "net.safetensors")

    def full_disk(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OutputError, match="No space left"):
        gn.save(nn.Linear(2, 2), saved)
    assert saved.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [saved.name]


def test_a_function_of_the_users_cannot_be_saved(tmp_path):
    net = nn.Linear(2, 2, activation=lambda z: z * 2.0)
    with pytest.raises(ArgumentError, match="no registered name"):
        gn.save(net, tmp_path / "net.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_module_used_twice_is_one_module_again(tmp_path, rng):
    layer, drop = nn.Linear(3, 3, "tanh", seed=0), nn.Dropout(0.5)
    net = nn.Sequential(layer, drop, nn.Residual(layer), nn.Linear(3, 2, seed=1), drop)
    gn.save(net, tmp_path / "net.safetensors")
    again = gn.load(tmp_path / "net.safetensors")
    assert again[0] is again[2].inner
    assert again[1] is again[4]
    x = rng.standard_normal((4, 3), dtype=np.float32)
    np.testing.assert_array_equal(again.predict(x), net.predict(x))
