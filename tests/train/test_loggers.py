"""Logs for TensorBoard, MLflow and Weights & Biases, read back from what the libraries wrote."""

from __future__ import annotations

import pickle
import sys
from time import sleep

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn
from gpunn.errors import MissingExtraError, OutputError

X = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)


class Stop(gn.train.Callback):
    def on_epoch_end(self, trainer, epoch, history):
        if epoch == 2:
            raise KeyboardInterrupt


def fit(*callbacks, **options):
    trainer = gn.Trainer(nn.Linear(4, 2, seed=0), seed=0, metrics=["roc_auc"], **options)
    return trainer.fit(X, Y, epochs=3, validation=(X, Y), callbacks=list(callbacks), progress=False)


def same(found, history, tolerance=1e-6):
    for name, curve in history.items():
        np.testing.assert_allclose(found[name], curve, rtol=tolerance)


def of_tensorboard(folder, history):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    tags = {
        **{name: f"{name.removeprefix('val_')}/val" for name in history if "val_" in name},
        **{name: f"{name}/train" for name in ("loss",)},
        **{name: name for name in ("lr", "seconds")},
    }
    found = {}
    for name, tag in tags.items():
        scalars = events.Scalars(tag)
        assert [scalar.step for scalar in scalars] == list(range(1, history.epochs + 1))
        found[name] = [scalar.value for scalar in scalars]
    return found


def test_tensorboard_reads_every_curve(tmp_path):
    pytest.importorskip("tensorboard")
    history = fit(gn.train.TensorBoard(tmp_path / "log"))
    same(of_tensorboard(tmp_path / "log", history), history)


def test_a_resumed_fit_has_no_epoch_twice(tmp_path):
    pytest.importorskip("tensorboard")
    log = gn.train.TensorBoard(tmp_path / "log")
    with pytest.raises(KeyboardInterrupt):
        fit(log, Stop(), checkpoint=tmp_path / "run")
    history = fit(pickle.loads(pickle.dumps(log)), checkpoint=tmp_path / "run")
    same(of_tensorboard(tmp_path / "log", history), history)


def test_tensorboard_without_a_folder_to_write_to(tmp_path):
    pytest.importorskip("tensorboard")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="choose another one"):
        fit(gn.train.TensorBoard(tmp_path / "file" / "log"))


def test_mlflow_reads_every_curve(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setattr("warnings.showwarning", lambda *args, **rest: None)
    mlflow.set_tracking_uri((tmp_path / "runs").as_uri())
    history = fit(gn.train.MLflow(run_name="first"))
    assert mlflow.active_run() is None
    client = mlflow.tracking.MlflowClient()
    (run,) = client.search_runs(["0"])
    logged = {name: client.get_metric_history(run.info.run_id, name) for name in history}
    same({name: [each.value for each in values] for name, values in logged.items()}, history)
    assert run.data.params["optimizer"] == "Adam"
    assert run.data.params["loss"] == "softmax_cross_entropy"
    with mlflow.start_run() as outer:
        fit(gn.train.MLflow(parameters=False))
        assert mlflow.active_run().info.run_id == outer.info.run_id


def records(path):
    """The records of a file of Weights & Biases: blocks of 32 KiB, with a header for each part."""
    data, record = path.read_bytes(), b""
    assert data[:4] == b":W&B"
    at = 7
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        size, part = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        if left < 7 or part == 0:
            at += left
            continue
        record += data[at + 7 : at + 7 + size]
        at += 7 + size
        if part in (1, 4):  # whole, or the last part
            yield record
            record = b""


def test_wandb_writes_every_curve(tmp_path):
    wandb = pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    settings = wandb.Settings(silent=True)
    log = gn.train.WandB(mode="offline", dir=str(tmp_path), project="p", settings=settings)
    history = fit(log)
    assert wandb.run is None
    (path,) = tmp_path.rglob("run-*.wandb")
    for _ in range(100):  # its service may still be writing the file
        found = {name: [] for name in history}
        for data in records(path):
            for item in Record.FromString(data).history.item:
                key = item.key or item.nested_key[0]
                if key in found:
                    found[key].append(float(item.value_json))
        if len(found["loss"]) == history.epochs:
            break
        sleep(0.05)
    same(found, history)


@pytest.mark.parametrize(
    ("name", "package"),
    [("TensorBoard", "tensorboard"), ("MLflow", "mlflow"), ("WandB", "wandb")],
)
def test_a_missing_library_is_named(name, package, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr("gpunn.train.callbacks.logs.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=package):
        getattr(gn.train, name)(**({"folder": tmp_path} if name == "TensorBoard" else {}))
