"""Folders of checkpoints that anyone may have written: refused in words, and nothing is set."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tracemalloc

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn
from gpunn.errors import ModelFileError, OutputError
from gpunn.storage.arrays import pack
from gpunn.train import EarlyStopping
from gpunn.train.checkpoints import Checkpoints
from tests.contents import unpack

X = (np.arange(60) * 7 % 11 / 4 - 1).astype(np.float32).reshape(20, 3)
Y = np.arange(20) % 2
SHA = "0" * 64


def trainer(folder):
    net = nn.Sequential(nn.Linear(3, 4, "relu", seed=0), nn.Dropout(0.5), nn.Linear(4, 2, seed=1))
    return gn.Trainer(net, seed=3, checkpoint=folder)


def fit(runner, epochs=2):
    stopping = EarlyStopping(patience=9)
    return runner.fit(
        X,
        Y,
        epochs=epochs,
        batch_size=8,
        validation=(X, Y),
        callbacks=[stopping],
        progress=False,
    )


@pytest.fixture
def folder(tmp_path):
    fit(trainer(tmp_path / "run"))
    return tmp_path / "run"


def manifest(folder, *entries, **changes):
    whole = {"format": "gpunn checkpoint", "version": 1, "checkpoints": list(entries)} | changes
    (folder / "manifest.json").write_text(json.dumps(whole))


def rewrite(folder, change):
    """Change the newest checkpoint, with a manifest that agrees."""
    path = sorted(folder.glob("*.safetensors"))[-1]
    header, tensors = unpack(path)
    state = json.loads(header["state"])
    change(state, tensors)
    content = pack(tensors, header | {"state": json.dumps(state)})
    path.write_bytes(content)
    checksum = hashlib.sha256(content).hexdigest()
    manifest(folder, {"number": int(path.stem), "file": path.name, "sha256": checksum})


def entry(number=2, file="00000002.safetensors", sha256=SHA, **more):
    return {"number": number, "file": file, "sha256": sha256, **more}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no acceptable JSON"),
        ("[]", "another format"),
        ("[" * 500, "nested more than 128"),
        ('{"format": "gpunn checkpoint", "format": "x"}', "twice"),
        ('{"format": "gpunn checkpoint", "version": NaN}', "not finite"),
        ('{"format": "gpunn checkpoint", "version": 2}', "of version 2"),
        ('{"format": "gpunn checkpoint", "version": true}', "of version True"),
        ('{"format": "gpunn checkpoint", "version": 1}', "lists no checkpoints"),
        (" " * (2**20 + 1), "more than 1048576"),
    ],
)
def test_manifests_that_are_none(text, words, folder):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(ModelFileError, match=words):
        Checkpoints(folder).newest()


@pytest.mark.parametrize(
    "bad",
    [
        5,
        {},
        entry(more=1),
        entry(number="2"),
        entry(number=True),
        entry(number=-2),
        entry(number=10**15),
        entry(file=2),
        entry(file=".."),
        entry(file="../00000002.safetensors"),
        entry(file="/etc/passwd"),
        entry(file="manifest.json"),
        entry(file="00000003.safetensors"),
        entry(sha256=None),
        entry(sha256="0" * 63),
        entry(sha256="Z" * 64),
    ],
)
def test_entries_that_are_none(bad, folder):
    manifest(folder, bad)
    with pytest.raises(ModelFileError, match=r"is not (a checkpoint|the num|the name|a SHA-256)"):
        Checkpoints(folder).newest()


def test_a_small_checkpoint_takes_little_memory(folder):
    Checkpoints(folder).newest()
    tracemalloc.start()
    try:
        Checkpoints(folder).newest()
        assert tracemalloc.get_traced_memory()[1] < 400_000
    finally:
        tracemalloc.stop()


def test_numbers_go_up(folder):
    older = entry(1, "00000001.safetensors")
    for entries in ([entry(), entry()], [entry(), older]):
        manifest(folder, *entries)
        with pytest.raises(ModelFileError, match="do not go up"):
            Checkpoints(folder).newest()


@pytest.mark.parametrize("name", ["manifest.json", "00000002.safetensors"])
def test_links_and_pipes_in_the_folder_are_not_followed(name, folder, tmp_path, caplog):
    path, outside = folder / name, tmp_path / "outside"
    path.rename(outside)
    for make in (lambda: path.symlink_to(outside), lambda: os.mkfifo(path), path.mkdir):
        make()
        if name == "manifest.json":
            with pytest.raises(ModelFileError, match="cannot be read"):
                Checkpoints(folder).newest()
        else:
            assert Checkpoints(folder).newest()[1]["progress"]["epochs"] == 1  # the one before
            assert "is not whole" in caplog.text
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        caplog.clear()


def test_a_lock_that_is_a_link_does_not_empty_a_file(folder, tmp_path):
    (tmp_path / "precious").write_text("content")
    (folder / "lock").unlink(missing_ok=True)
    (folder / "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OutputError, match="symbolic link"):
        fit(trainer(folder))
    assert (tmp_path / "precious").read_text() == "content"


def put(*path, value):
    def change(state, tensors):
        *parents, last = path
        for name in parents:
            state = state[name]
        state[last] = value

    change.words = " ".join(map(str, path)) + f" {value!r}"[:40]
    return change


def drop(name):
    def change(state, tensors):
        del state[name]

    change.words = f"no {name}"
    return change


def array(name, make):
    def change(state, tensors):
        value = make(tensors.pop(name) if name in tensors else np.zeros(2))
        if value is not None:
            tensors[name] = value

    change.words = f"array {name}"
    return change


CHANGES = [
    *(drop(name) for name in ("progress", "epoch", "streams", "curves", "callbacks", "base_lr")),
    put("progress", value=[]),
    put("progress", value={}),
    put("progress", "fit", value="1"),
    put("progress", "epochs", value=-1),
    put("progress", "epochs", value=3),
    put("progress", "batches", value=1.5),
    put("progress", "batches", value=3),
    put("progress", "batches", value=2**70),
    put("progress", "start", value=10**6),
    put("progress", "total", value="0"),
    put("progress", "data", value=1),
    put("progress", "data", value="x" * 3000),
    put("progress", "more", value=1),
    put("epoch", value="2"),
    put("steps", value=True),
    put("base_lr", value=None),
    put("base_lr", value=-0.1),
    put("base_lr", value=float("nan")),
    put("seed", value="3"),
    put("optimizer", value=1),
    put("precision", value=[]),
    put("stopped", value=None),
    put("streams", value=[]),
    put("streams", value={"a": 1}),
    put("streams", 0, "call", value=-1),
    put("curves", value=[]),
    put("curves", "loss", value=1),
    put("curves", "loss", value=[0.1]),
    put("curves", "loss", value=[0.1, "0.2"]),
    put("callbacks", value=[]),
    put("callbacks", value={}),
    put("callbacks", value=[1]),
    put("callbacks", 0, value={}),
    put("callbacks", 0, "best", value="high"),
    put("callbacks", 0, "best_epoch", value=3),
    put("callbacks", 0, "best_epoch", value="1"),
    put("settings", value=None),
    put("settings", value=[[1, {}, 2]]),
    put("settings", value=[["1", {}]]),
    put("settings", value=[[1, {"loss": 3}]]),
    put("settings", value=[]),
    put("settings", 0, 1, value={"loss": "x" * 3000}),
    put("given", value=[]),
    put("given", value={"shuffle": 1}),
    put("given", value={"shuffle": "x" * 3000}),
    array("model.0.weight", lambda a: None),
    array("model.0.weight", lambda a: a.T.copy()),
    array("model.0.weight", lambda a: a.astype(np.float64)),
    array("model.9.weight", lambda a: a),
    array("optimizer.step", lambda a: a.astype(np.float32)),
    array("optimizer.step", lambda a: -a),
    array("optimizer.lr", lambda a: a * np.nan),
    array("optimizer.m", lambda a: a[:-1]),
    array("stranger.m", lambda a: a),
    array("callback.0.0.weight", lambda a: a[:-1]),
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.words)
def test_a_state_that_is_none_is_refused_and_nothing_is_set(change, folder):
    rewrite(folder, change)
    runner = trainer(folder)
    runner.prepare()
    before = runner.model.state_dict(), runner.optimizer.state_dict()
    with pytest.raises(ModelFileError, match="expected") as caught:
        fit(runner, 3)
    assert len(str(caught.value)) < 1000
    if "callback" not in change.words:
        for found, expected in zip(
            (runner.model.state_dict(), runner.optimizer.state_dict()), before, strict=True
        ):
            for name, value in expected.items():
                np.testing.assert_array_equal(found[name], value, err_msg=name)
        assert (runner.steps, runner.epoch, runner.history.curves) == (0, 0, {})


def test_a_loss_that_was_nan_does_not_end_a_run(folder):
    rewrite(folder, put("curves", "loss", value=[float("nan"), float("inf")]))
    history = fit(trainer(folder), 3)
    assert np.isnan(history["loss"][0])
    assert history.epochs == 3


def test_a_checkpoint_of_another_version_is_named(folder, caplog):
    path = folder / "00000002.safetensors"
    header, tensors = unpack(path)
    content = pack(tensors, header | {"version": "2"})
    path.write_bytes(content)
    manifest(folder, entry(sha256=hashlib.sha256(content).hexdigest()))
    with (
        caplog.at_level(logging.WARNING, "gpunn"),
        pytest.raises(ModelFileError, match="no checkpoint is whole"),
    ):
        Checkpoints(folder).newest()
    assert "version '2'; expected 'gpunn checkpoint', version 1" in caplog.text
