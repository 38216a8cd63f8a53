"""Full disks, folders that cannot be written, files that vanish, and two writers of one file."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn
from gpunn.cli import predict
from gpunn.data import idx, load_mnist, load_npz, mnist, open_features, write_idx
from gpunn.errors import DataError, ModelFileError, OutputError
from gpunn.storage.atomic import replacing, write_atomically
from gpunn.train import Callback, CSVLog

COLUMNS = ("a", "b", "c", "d")


def network(seed=0, hidden=8):
    gn.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, hidden, "relu"), nn.Dropout(0.5), nn.Linear(hidden, 3))


def names_in(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def assert_same_model(found, expected):
    for name, value in expected.state_dict().items():
        np.testing.assert_array_equal(found.state_dict()[name], value)


@pytest.fixture
def x(rng):
    return rng.standard_normal((5000, 4), dtype=np.float32)


@pytest.fixture
def table(tmp_path, x):
    """A CSV file of more than a batch, and a model beside it."""
    np.savetxt(tmp_path / "x.csv", x, delimiter=",", header=",".join(COLUMNS), comments="")
    gn.save(network(), tmp_path / "model.safetensors", info={"features": COLUMNS})
    return tmp_path / "x.csv"


def run_predict(table, out):
    wanted = predict.Wanted(out)
    predict.run(table.with_name("model.safetensors"), str(table), wanted, "cpu", None)


# disks --------------------------------------------------------------------------------------------


def mount(folder, options):
    """Put a small disk at a folder, or skip where that is not allowed."""
    folder.mkdir()
    command = shutil.which("mount")
    if command is None or not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("only root mounts a small disk")
    done = subprocess.run(
        [command, "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")


class SmallDisk:
    """A disk of its own; it is full while a file of ballast lies on it."""

    def __init__(self, folder):
        self.folder = folder

    @contextmanager
    def full(self):
        ballast = self.folder / "ballast"
        with pytest.raises(OSError, match="No space"), ballast.open("wb", buffering=0) as file:  # noqa: PT012
            while True:
                file.write(bytes(1024))
        yield
        ballast.unlink(missing_ok=True)


class SmallFiles:
    """The portable stand-in: no file of this process may have more than 64 bytes."""

    def __init__(self, folder):
        self.folder = folder

    @contextmanager
    def full(self):
        import resource

        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.fixture(params=["small disk", "small files"])
def disk(request, tmp_path):
    if os.name != "posix":
        pytest.skip("limits of POSIX")
    if request.param == "small files":
        (tmp_path / "disk").mkdir()
        yield SmallFiles(tmp_path / "disk")
        return
    mount(tmp_path / "disk", "size=256k")
    try:
        yield SmallDisk(tmp_path / "disk")
    finally:
        subprocess.run(["umount", tmp_path / "disk"], check=True)


@pytest.fixture
def sealed(tmp_path):
    """A folder in which no file can be made."""
    folder = tmp_path / "sealed"
    if not hasattr(os, "geteuid"):
        pytest.skip("rights of POSIX")
    if os.geteuid() != 0:
        folder.mkdir(0o555)
        yield folder
        return
    mount(folder, "size=64k,ro")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_leaves_the_old_model(disk):
    path, old = disk.folder / "m.safetensors", network(0)
    gn.save(old, path)
    with disk.full():
        with pytest.raises(OutputError, match=f"in {disk.folder} .*make room"):
            gn.save(network(1, hidden=500), path)
        assert set(names_in(disk.folder)) <= {"m.safetensors", "ballast"}
        assert_same_model(gn.load(path), old)
    gn.save(network(1, hidden=500), path)
    assert_same_model(gn.load(path), network(1, hidden=500))


def test_a_full_disk_leaves_the_old_predictions(disk, table):
    for name in ("p.csv", "p.npy"):
        out = disk.folder / name
        out.write_text("old")
        with disk.full():
            with pytest.raises(
                OutputError, match=f"{name}, which cannot be written in {disk.folder} "
            ):
                run_predict(table, out)
            assert out.read_text() == "old"
            assert set(names_in(disk.folder)) <= {"p.csv", "p.npy", "ballast"}


class During(Callback):
    """Enters a context after some epoch."""

    def __init__(self, epoch, context):
        self.epoch, self.context = epoch, context

    def on_epoch_end(self, trainer, epoch, history):
        if epoch == self.epoch:
            self.context.__enter__()


def fit(x, folder, *callbacks, epochs=5, every=1):
    y = np.arange(len(x)) % 3
    trainer = gn.Trainer(network(), seed=3, checkpoint=folder, every=every)
    trainer.fit(x, y, epochs=epochs, batch_size=50, callbacks=callbacks, progress=False)
    return trainer.model


def test_a_full_disk_leaves_the_checkpoint_before(disk, x):
    x = x[:200]
    expected = fit(x, None, Callback())
    full = disk.full()
    with pytest.raises(OutputError, match=f"in {disk.folder / 'run'} .*make room"):
        fit(x, disk.folder / "run", During(3, full))
    assert [n for n in names_in(disk.folder / "run") if n.startswith(".")] == []
    newest = gn.train.checkpoints.Checkpoints(disk.folder / "run").newest()
    assert newest[1]["progress"]["epochs"] == 2
    full.__exit__(None, None, None)
    assert_same_model(fit(x, disk.folder / "run", Callback()), expected)


def test_a_disk_that_fills_up_at_the_manifest(tmp_path, x, monkeypatch):
    x = x[:200]
    expected = fit(x, None)
    replace = os.replace

    def no_room_for_the_third(source, target):
        if target.name == "manifest.json" and (target.parent / "00000003.safetensors").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", no_room_for_the_third)
        with pytest.raises(
            OutputError, match=r"manifest\.json, which cannot be written.*No space left"
        ):
            fit(x, tmp_path / "run")
    kept = ["00000001.safetensors", "00000002.safetensors", "manifest.json"]
    assert [name for name in names_in(tmp_path / "run") if name != "lock"] == kept
    assert_same_model(fit(x, tmp_path / "run"), expected)


def test_a_full_disk_ends_the_log_with_its_name_and_a_resumed_one_is_whole(disk, x, tmp_path):
    x, log, full = x[:50], disk.folder / "log.csv", disk.full()
    # the last block of a log that has begun still takes rows on a full disk
    with pytest.raises(OutputError, match=r"log\.csv for the log.*make room"):
        fit(x, tmp_path / "run", During(3, full), CSVLog(log), epochs=120, every=20)
    full.__exit__(None, None, None)
    fit(x, tmp_path / "run", Callback(), CSVLog(log), epochs=120, every=20)
    rows = log.read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", *map(str, range(1, 121))]
    assert len({row.count(",") for row in rows}) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_devices_are_written_to_and_stay(table, tmp_path):
    for write in (
        lambda: gn.save(network(), "/dev/full"),
        lambda: run_predict(table, Path("/dev/full")),
        lambda: fit(np.ones((50, 4), np.float32), None, CSVLog("/dev/full"), epochs=1),
    ):
        with pytest.raises(OutputError, match="No space left"):
            write()
    run_predict(table, Path("/dev/null"))
    for name in ("/dev/full", "/dev/null"):
        assert Path(name).is_char_device()


# folders ------------------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_written_is_named(sealed, table, x):
    writers = {
        "model": lambda: gn.save(network(), sealed / "m.safetensors"),
        "predictions": lambda: run_predict(table, sealed / "p.csv"),
        "checkpoints": lambda: fit(x, sealed),
        "log": lambda: fit(x, None, CSVLog(sealed / "log.csv")),
        "idx": lambda: write_idx(sealed / "a.gz", np.arange(3, dtype=np.uint8)),
    }
    for what, write in writers.items():
        with pytest.raises(OutputError, match=str(sealed)):
            pytest.fail(f"{what}: {write()}")
    assert names_in(sealed) == []


def test_links_stay_and_their_targets_change(tmp_path):
    (tmp_path / "runs").mkdir()
    target, link = tmp_path / "runs" / "today", tmp_path / "latest"
    target.write_bytes(b"old")
    link.symlink_to(target)
    write_atomically(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert names_in(tmp_path) == ["latest", "today"]


@pytest.mark.skipif(os.name != "posix", reason="rights of POSIX")
def test_new_files_have_the_rights_that_the_user_wants(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_a_block_that_raises_writes_nothing(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    for error in (KeyboardInterrupt, SystemExit(143), ValueError):
        with pytest.raises(type(error) if isinstance(error, SystemExit) else error):  # noqa: PT012, SIM117
            with replacing(tmp_path / "file") as file:
                file.write(b"half of it")
                raise error
        assert (tmp_path / "file").read_bytes() == b"old"
        assert names_in(tmp_path) == ["file"]


# files that vanish --------------------------------------------------------------------------------


def data_file(path, x):
    if path.suffix == ".csv":
        np.savetxt(path, x, delimiter=",", header=",".join(COLUMNS), comments="")
    elif path.suffix == ".npy":
        np.save(path, x)
    else:
        np.savez(path, x=x, y=np.arange(len(x)) % 3)
    return path


def cut(path):
    """Leave the first part of a file."""
    os.truncate(path, path.stat().st_size // 3)


@pytest.mark.parametrize("suffix", [".csv", ".npy", ".npz"])
@pytest.mark.parametrize("aligned", [True, False], ids=["at a row", "inside a row"])
def test_a_file_that_is_cut_off_while_it_is_read(suffix, aligned, tmp_path, x):
    path = data_file(tmp_path / f"data{suffix}", np.tile(x, (6, 1)))
    with open_features(path) as stream:
        batches = stream.batches(4096)
        next(batches)
        size = path.stat().st_size // 2
        if aligned and suffix == ".csv":
            size = path.read_bytes().index(b"\n", size) + 1
        os.truncate(path, size)
        with pytest.raises(DataError):
            list(batches)


@pytest.mark.skipif(os.name != "posix", reason="Windows keeps open files from being deleted")
@pytest.mark.parametrize("suffix", [".csv", ".npy", ".npz"])
def test_a_file_that_is_deleted_while_it_is_read_is_read(suffix, tmp_path, x):
    path = data_file(tmp_path / f"data{suffix}", x)
    with open_features(path) as stream:
        path.unlink()
        parts = [part for part, _ in stream.batches(4096)]
    np.testing.assert_array_equal(np.concatenate(parts), x)
    with pytest.raises(DataError, match="cannot be read"), open_features(path):
        pass


def test_an_archive_that_is_cut_off_after_its_directory_was_read(tmp_path, x, monkeypatch):
    from gpunn.data import table as tables

    path, choose = data_file(tmp_path / "a.npz", x), tables.choose_x

    def choose_and_cut(*args, **options):
        cut(path)
        return choose(*args, **options)

    monkeypatch.setattr(tables, "choose_x", choose_and_cut)
    with pytest.raises(DataError, match="cannot be read"):
        load_npz(path)


@pytest.mark.parametrize("damage", [cut, Path.unlink])
def test_a_model_that_changes_between_two_looks(damage, table, monkeypatch):
    real = predict.load

    def load(path, **options):
        damage(path)
        return real(path, **options)

    monkeypatch.setattr(predict, "load", load)
    with pytest.raises(ModelFileError, match="cannot be read"):
        run_predict(table, table.with_name("p.csv"))
    assert not table.with_name("p.csv").exists()


@pytest.mark.parametrize("damage", [cut, Path.unlink])
def test_mnist_files_that_change_between_two_looks(damage, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for name in mnist.SHA256:
        size = (600, 28, 28) if "images" in name else 600
        write_idx(tmp_path / name, rng.integers(0, 10, size, np.uint8))
    labels, real = tmp_path / "train-labels-idx1-ubyte", mnist.read_idx

    def read_idx(path):
        array = real(path)
        if "train-images" in path.name:
            damage(labels)
        return array

    monkeypatch.setattr(mnist, "read_idx", read_idx)
    with pytest.raises(DataError, match=r"truncated|cannot be read"):
        load_mnist(tmp_path)


def test_an_idx_file_that_is_cut_off_after_its_header_was_read(tmp_path, monkeypatch):
    path, real = tmp_path / "a.idx", idx._header
    write_idx(path, np.zeros((300, 28, 28), np.uint8))

    def header(*args):
        found = real(*args)
        cut(path)
        return found

    monkeypatch.setattr(idx, "_header", header)
    with pytest.raises(DataError, match="truncated"):
        idx.read_idx(path)


# two writers --------------------------------------------------------------------------------------


def save_often(path, seed, begin, times=60):
    net = network(seed, hidden=200 * seed)
    begin.wait(60)
    for _ in range(times):
        gn.save(net, path)


def test_two_processes_that_save_one_model_leave_either_whole(tmp_path):
    path, context = tmp_path / "m.safetensors", multiprocessing.get_context("spawn")
    gn.save(network(1, hidden=200), path)
    begin = context.Barrier(3)
    writers = [context.Process(target=save_often, args=(path, seed, begin)) for seed in (1, 2)]
    for writer in writers:
        writer.start()
    begin.wait(60)
    seen = set()
    while any(writer.is_alive() for writer in writers):
        seen.add(gn.load(path)[0].out_features)  # raises for a file that is not whole
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert seen <= {200, 400}
    last = gn.load(path)[0].out_features // 200
    assert_same_model(gn.load(path), network(last, hidden=200 * last))
    assert names_in(tmp_path) == ["m.safetensors"]


def test_two_predictions_into_one_file_leave_either_whole(table):
    folder = table.parent
    gn.save(network(5), folder / "other.safetensors", info={"features": COLUMNS})
    models = ("model.safetensors", "other.safetensors")
    command = [sys.executable, "-m", "gpunn", "predict"]
    for name in models:
        subprocess.run([*command, name, "x.csv", "--out", name[0]], cwd=folder, check=True)
    both = [
        subprocess.Popen([*command, name, "x.csv", "--out", "p.csv"], cwd=folder) for name in models
    ]
    assert [process.wait(60) for process in both] == [0, 0]
    alone = [(folder / name[0]).read_bytes() for name in models]
    assert alone[0] != alone[1]
    assert (folder / "p.csv").read_bytes() in alone
    assert not [name for name in names_in(folder) if name.startswith(".")]
