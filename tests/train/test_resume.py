"""Checkpoints: a run that is killed and started again ends in the bits of one that was not."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import threading

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn
from gpunn.errors import ArgumentError, DivergenceError, ModelFileError, OutputError
from gpunn.train import Callback, CSVLog, EarlyStopping
from tests.contents import unpack
from tests.fuzz import chaos


def network(device):
    gn.manual_seed(0)
    with gn.device(device):
        return nn.Sequential(
            nn.Linear(6, 16, "relu"), nn.Dropout(0.5), nn.BatchNorm(16), nn.Linear(16, 3)
        )


@pytest.fixture
def data(rng):
    return rng.standard_normal((170, 6), dtype=np.float32), rng.integers(0, 3, 170)


class Killed(Exception):
    """Stands for a kill: nothing is written on the way out."""


class KillAt(Callback):
    """Ends a fit in the middle of things, without a checkpoint."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch_end(self, trainer, epoch, history):
        if epoch == self.epoch:
            raise Killed


def run(data, folder=None, *, device="cpu", epochs=6, callbacks=(), **options):
    net = network(device)
    trainer = gn.Trainer(
        net, optimizer="adam", schedule="cosine", seed=4, checkpoint=folder, **options
    )
    history = trainer.fit(
        *data, epochs=epochs, batch_size=16, validation=data, callbacks=callbacks, progress=False
    )
    return trainer, history


def assert_same(found, expected):
    (trainer, history), (other, curves) = found, expected
    assert {k: v for k, v in history.curves.items() if k != "seconds"} == {
        k: v for k, v in curves.curves.items() if k != "seconds"
    }
    states = trainer.model.state_dict(), other.model.state_dict()
    for name, value in states[0].items():
        np.testing.assert_array_equal(value, states[1][name], err_msg=name)
    for name, value in trainer.optimizer.state_dict().items():
        np.testing.assert_array_equal(value, other.optimizer.state_dict()[name], err_msg=name)
    assert [s.call for s in trainer.model.streams()] == [s.call for s in other.model.streams()]
    assert (trainer.epoch, trainer.steps) == (other.epoch, other.steps)


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("killed", [1, 2, 5])
def test_a_killed_run_goes_on_with_the_same_bits(killed, every, data, device, tmp_path, caplog):
    expected = run(data, device=device)
    with pytest.raises(Killed):
        run(data, tmp_path, device=device, every=every, callbacks=[KillAt(killed)])
    with caplog.at_level(logging.WARNING, "gpunn"):
        found = run(data, tmp_path, device=device, every=every, callbacks=[Callback()])
    assert_same(found, expected)
    whole = (killed - 1) // every * every  # the checkpoint comes after the callbacks
    assert (f"resuming from {tmp_path}: epoch {whole + 1}" in caplog.text) == bool(whole)
    assert_same(run(data, tmp_path, device=device, callbacks=[Callback()]), expected)  # all done


@pytest.mark.parametrize(("first", "second"), [("cpu", "standin"), ("standin", "cpu")])
def test_a_run_may_change_its_device(first, second, data, tmp_path):
    if not gn.diagnose("standin").usable:
        pytest.skip(f"standin:0: {gn.diagnose('standin').reason}")
    expected = run(data)
    with pytest.raises(Killed):
        run(data, tmp_path, device=first, callbacks=[KillAt(4)])
    _, history = run(data, tmp_path, device=second, callbacks=[Callback()])
    assert history["loss"] == pytest.approx(expected[1]["loss"], 1e-4)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("after", [1, 7, 13])
def test_signals_finish_the_step_and_write(number, code, after, data, device, tmp_path):
    expected = run(data, device=device)
    net_steps = []

    class Signal(Callback):
        def on_fit_start(self, trainer):
            original = trainer.model.forward

            def forward(*inputs):
                net_steps.append(1)
                if len(net_steps) == after and trainer.model.training:
                    os.kill(os.getpid(), number)
                return original(*inputs)

            trainer.model.forward = forward

    kind = KeyboardInterrupt if number == signal.SIGINT else SystemExit
    handlers = signal.getsignal(number)
    with pytest.raises(kind) as caught:
        run(data, tmp_path, device=device, capture=False, callbacks=[Signal()])
    assert signal.getsignal(number) is handlers
    if kind is SystemExit:
        assert caught.value.code == code
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert len(manifest["checkpoints"]) >= 1
    assert_same(run(data, tmp_path, device=device, callbacks=[Callback()]), expected)


def test_a_diverged_fit_that_is_interrupted_keeps_the_last_good_checkpoint(
    data, tmp_path, cuda_device
):
    class Break(Callback):
        def on_epoch_end(self, trainer, epoch, history):
            original, signals = trainer.model.forward, [signal.SIGINT]

            def forward(x):
                if signals:
                    os.kill(os.getpid(), signals.pop())
                return original(x) * np.nan

            trainer.model.forward = forward

    with pytest.raises(DivergenceError, match="step 1 of epoch 2"):
        run(data, tmp_path, device=cuda_device, capture=False, callbacks=[Break()])
    (entry,) = json.loads((tmp_path / "manifest.json").read_text())["checkpoints"]
    header, _ = unpack(tmp_path / entry["file"])
    assert json.loads(header["state"])["progress"]["epochs"] == 1


def test_a_fit_in_another_thread_leaves_signals_alone(data, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    done = []
    thread = threading.Thread(target=lambda: done.append(run(data, tmp_path)))
    thread.start()
    thread.join()
    assert done
    assert signal.getsignal(signal.SIGINT) is before


def test_early_stopping_and_the_log_are_resumed(data, tmp_path):
    def callbacks(name):
        return [EarlyStopping(patience=3), CSVLog(tmp_path / name)]

    expected = run(data, epochs=12, callbacks=[*callbacks("whole.csv"), Callback()])
    kill = KillAt(len(expected[1]) - 1)
    with pytest.raises(Killed):
        run(data, tmp_path / "c", epochs=12, every=2, callbacks=[*callbacks("log.csv"), kill])
    found = run(data, tmp_path / "c", epochs=12, callbacks=[*callbacks("log.csv"), Callback()])
    assert_same(found, expected)
    assert found[1].stopped == expected[1].stopped

    def rows(name):
        lines = (tmp_path / name).read_text().splitlines()
        return [line.rsplit(",", 1)[0] for line in lines]  # without the seconds

    assert rows("log.csv") == rows("whole.csv")


def test_a_loss_scale_is_resumed(data, tmp_path, cuda_device):
    options = {"device": cuda_device, "precision": "float16"}
    expected = run(data, **options)
    with pytest.raises(Killed):
        run(data, tmp_path, callbacks=[KillAt(4)], **options)
    found = run(data, tmp_path, callbacks=[Callback()], **options)
    assert_same(found, expected)
    scales = [t.precision.loss_scale.state_dict() for t, _ in (found, expected)]
    assert scales[0] == scales[1]


def test_a_second_fit_of_a_run_is_resumed_as_such(data, tmp_path):
    def script(folder, kill=None):
        trainer, _ = run(data, folder, epochs=2)
        history = trainer.fit(
            *data, epochs=3, batch_size=32, callbacks=[KillAt(kill)], progress=False
        )
        return trainer, history

    expected = script(None)
    with pytest.raises(Killed):
        script(tmp_path, kill=3)
    assert_same(script(tmp_path), expected)


def test_runs_killed_with_sigkill_end_like_an_unbroken_one():
    digest, seconds, first = chaos.reference(epochs=20)
    outcomes = [
        chaos.one_run(seed, digest, seconds * wrong, first * wrong, epochs=20)
        for seed, wrong in enumerate((1, 20, 0.1))  # the machine may have been slower or faster
    ]
    assert [outcome.same for outcome in outcomes] == [True] * 3
    assert all(outcome.kills for outcome in outcomes)


def test_what_a_killed_write_left_behind_is_swept_away(data, tmp_path):
    leftovers = [tmp_path / ".00000003.safetensors.abc", tmp_path / ".manifest.json.xyz"]
    for path in leftovers:
        path.write_text("half a file")
    run(data, tmp_path)
    assert not any(path.exists() for path in leftovers)


# the folder --------------------------------------------------------------------------------------


def test_the_newest_stay_and_the_rest_goes(data, tmp_path):
    run(data, tmp_path, keep=3)
    names = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert names == [f"{n:08d}.safetensors" for n in (4, 5, 6)]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".0")]


def kill_then_break(data, folder, damage):
    with pytest.raises(Killed):
        run(data, folder, callbacks=[KillAt(5)], keep=2)
    files = sorted(folder.glob("*.safetensors"))
    damage(files)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(path.read_bytes()[:-9]),
        lambda path: path.write_bytes(path.read_bytes()[:-9] + b"123456789"),
        lambda path: path.write_bytes(b""),
    ],
    ids=["gone", "cut off", "bits flipped", "empty"],
)
def test_a_broken_checkpoint_is_passed_over_aloud(damage, data, tmp_path, caplog):
    expected = run(data)
    kill_then_break(data, tmp_path, lambda files: damage(files[-1]))
    with caplog.at_level(logging.WARNING, "gpunn"):
        found = run(data, tmp_path, callbacks=[Callback()])
    assert "is not whole" in caplog.text
    assert "epoch 4," in caplog.text  # not 5
    assert_same(found, expected)


def test_nothing_whole_is_an_error_and_not_a_fresh_start(data, tmp_path):
    kill_then_break(data, tmp_path, lambda files: [f.unlink() for f in files])
    with pytest.raises(ModelFileError, match="no checkpoint is whole"):
        run(data, tmp_path, callbacks=[Callback()])
    (tmp_path / "manifest.json").write_text('{"format": "something"}')
    with pytest.raises(ModelFileError, match="not a manifest of checkpoints"):
        run(data, tmp_path)
    (tmp_path / "manifest.json").write_text(
        '{"format": "gpunn checkpoint", "version": 1, "checkpoints": '
        '[{"number": 1, "file": "../secret", "sha256": ""}]}'
    )
    with pytest.raises(ModelFileError, match="not the name of a file in this folder"):
        run(data, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": "sgd"}, "optimizer 'Adam'; expected 'SGD'"),
        ({"seed": 5}, "seed 4; expected 5"),
        ({"rows": 169}, r"x \(170, 6\).*expected .*x \(169, 6\)"),
        ({"bits": 1}, "expected"),
    ],
)
def test_another_run_is_refused(change, message, data, tmp_path):
    with pytest.raises(Killed):
        run(data, tmp_path, callbacks=[KillAt(3)])
    x, y = (a[: change.get("rows", 170)].copy() for a in data)
    x[0, 0] += change.get("bits", 0)
    trainer = gn.Trainer(
        network("cpu"),
        optimizer=change.get("optimizer", "adam"),
        schedule="cosine",
        seed=change.get("seed", 4),
        checkpoint=tmp_path,
    )
    before = trainer.model.state_dict()
    with pytest.raises(ModelFileError, match=message):
        trainer.fit(x, y, epochs=6, batch_size=16, callbacks=[Callback()], progress=False)
    for name, value in trainer.model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def hold(folder, ready, leave):
    with gn.train.checkpoints.Checkpoints(folder).locked():
        ready.set()
        leave.wait(30)


def test_two_runs_refuse_each_other_and_a_dead_one_does_not_matter(data, tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, leave = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path, ready, leave))
    other.start()
    try:
        assert ready.wait(30)
        with pytest.raises(OutputError, match="another run is using"):
            run(data, tmp_path)
        other.kill()
        other.join()
        run(data, tmp_path)
    finally:
        other.kill()


def test_a_folder_that_cannot_be_written_is_named_before_training(data, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        run(data, tmp_path / "file" / "folder")


@pytest.mark.parametrize("bad", [{"every": 0}, {"keep": 0}, {"keep": True}])
def test_bad_numbers_are_refused(bad, tmp_path):
    with pytest.raises(ArgumentError, match=r"every|keep"):
        gn.Trainer(network("cpu"), checkpoint=tmp_path, **bad)
