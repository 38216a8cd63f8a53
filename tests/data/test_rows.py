"""Data on disk: any parts, the order of an epoch, and the bits of a fit in memory."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn
from gpunn.data import open_rows, rowfeed
from gpunn.data.rowfeed import StreamOrder
from gpunn.errors import ArgumentError, DataError
from tests.train.test_shards import assert_equal, by_workers

ROWS, FEATURES = 1000, 6
X = np.random.default_rng(0).standard_normal((ROWS, FEATURES)).astype(np.float32)
Y = np.random.default_rng(1).integers(0, 3, ROWS)
CUTS = [0, 130, 131, 500, 1000]


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    """Chunks of 8 rows and windows of 50, so that a small data set has many."""
    monkeypatch.setattr("gpunn.data.parts.CHUNK_BYTES", 8 * FEATURES * 4)
    monkeypatch.setattr(rowfeed, "CHUNK_BYTES", 50 * FEATURES * 4 // 8)


def written(folder, kind, x=X, y=Y):
    """The rows of data that were written to files of a kind."""
    for k, (start, stop) in enumerate(pairwise(CUTS)):
        part, targets = x[start:stop], y[start:stop]
        if kind == "parquet":
            arrow = pytest.importorskip("pyarrow")
            from pyarrow import parquet

            columns = {f"c{j}": part[:, j] for j in range(part.shape[1])}
            parquet.write_table(
                arrow.table({"t": targets, **columns}), folder / f"p-{k}.parquet", row_group_size=60
            )
        else:
            np.save(folder / f"x-{k}.npy", part)
            np.save(folder / f"y-{k}.npy", targets)
    if kind == "parquet":
        return open_rows(str(folder / "p-*.parquet"), target="t")
    if kind == "npy":
        return open_rows(str(folder / "x-*.npy"), str(folder / "y-*.npy"))
    return open_rows(Slices(x), Slices(y))


class Slices:
    """An array of which rows can be sliced, as of Zarr, with chunks of 70 rows."""

    def __init__(self, array):
        self.shape, self.dtype, self._array = array.shape, array.dtype, array
        self.chunks = (70, *array.shape[1:])

    def __getitem__(self, rows):
        return self._array[rows].tolist()  # so that nothing else is used


class DaskLike(Slices):
    def __init__(self, array):
        super().__init__(array)
        self.chunks = ((100, 300, 600), *((n,) for n in array.shape[1:]))


KINDS = ["npy", "parquet", "array"]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_those_that_were_written(kind, tmp_path):
    rows = written(tmp_path, kind)
    assert len(rows) == ROWS
    assert rows.x.shape == X.shape
    for part in (slice(0, 5), slice(129, 132), slice(100, 600), slice(990, None), slice(7, 7)):
        np.testing.assert_array_equal(rows.x[part], X[part])
        np.testing.assert_array_equal(rows.y[part], Y[part])
    assert sum(rows.x.chunks) == ROWS


def test_chunks_are_those_of_the_array():
    assert open_rows(DaskLike(X), DaskLike(Y)).x.chunks == [100, 300, 600]
    assert open_rows(Slices(X), Slices(Y)).x.chunks == [70] * 14 + [20]


def test_arrays_of_zarr_and_dask(tmp_path):
    zarr = pytest.importorskip("zarr", reason="Zarr is not installed")
    dask = pytest.importorskip("dask.array", reason="Dask's arrays are not installed")
    stored = zarr.create_array(tmp_path / "x", shape=X.shape, dtype=X.dtype, chunks=(90, FEATURES))
    stored[:] = X
    for x in (stored, dask.from_array(X, chunks=(90, FEATURES))):
        rows = open_rows(x, Y)
        assert rows.x.chunks == [90] * 11 + [10]
        assert_equal(fitted(rows), fitted((X, Y), shuffle=as_on_disk(rows, rowfeed.STREAMS)))


# the order ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunks", [[1], [10] * 7, [3, 17, 1, 1, 40, 9], [64] * 20 + [5]])
@pytest.mark.parametrize(("batch_size", "streams"), [(1, 1), (7, 3), (16, 8), (500, 8)])
@pytest.mark.parametrize("window", [1, 8, 50, 10_000])
def test_an_order_has_every_row_once(chunks, batch_size, streams, window):
    streams = min(streams, batch_size)
    for seed in (0, None):
        order = StreamOrder(chunks, batch_size, streams, window, seed, 3).numbers()
        np.testing.assert_array_equal(np.sort(order), np.arange(sum(chunks)))
    other = StreamOrder(chunks, batch_size, streams, window, 0, 4).numbers()
    assert sum(chunks) < 10 or (order != other).any()


def test_without_a_shuffle_one_stream_has_the_order_of_the_data():
    np.testing.assert_array_equal(StreamOrder([3, 4, 5], 4, 1, 2, None, 1).numbers(), np.arange(12))


def test_a_batch_mixes_all_of_the_data():
    order = StreamOrder([10] * 100, 64, 8, 80, 0, 1).numbers()
    first = order[:64]
    assert len(np.unique(first // 10)) > 30
    places = np.array([np.flatnonzero(order == row)[0] for row in range(0, 1000, 7)])
    assert abs(np.corrcoef(places, np.arange(0, 1000, 7))[0, 1]) < 0.25


# fits --------------------------------------------------------------------------------------------


def network():
    return nn.Sequential(
        nn.Linear(FEATURES, 16, "relu", seed=1), nn.BatchNorm(16), nn.Dropout(0.25),
        nn.Linear(16, 3, seed=2),
    )  # fmt: skip


def fitted(rows, epochs=3, trainer=None, shuffle=True, **options):
    net = network()
    trainer = gn.Trainer(net, seed=5, **options)
    data = (rows,) if isinstance(rows, gn.data.Rows) else rows
    history = trainer.fit(*data, epochs=epochs, batch_size=64, shuffle=shuffle, progress=False)
    return net.state_dict() | trainer.optimizer.state_dict() | {"loss": np.array(history["loss"])}


def as_on_disk(rows, streams):
    """The order of a fit of rows, as a function that a fit in memory takes."""
    window = max(8, 8 * rowfeed.CHUNK_BYTES // (FEATURES * rows.x.dtype.itemsize))
    return lambda epoch, n: StreamOrder(rows.x.chunks, 64, streams, window, 5, epoch).numbers()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shards", [None, 4])
@pytest.mark.parametrize("capture", ["auto", False])
def test_a_fit_has_the_bits_of_one_in_memory(kind, shards, capture, tmp_path):
    rows = written(tmp_path, kind)
    found = fitted(rows, shards=shards, capture=capture)
    order = as_on_disk(rows, shards or rowfeed.STREAMS)
    assert_equal(found, fitted((X, Y), shards=shards, shuffle=order))
    assert_equal(fitted(rows, shuffle=False), fitted((X, Y), shuffle=False))


@pytest.mark.parametrize("size", [2, 4])
def test_any_number_of_workers_has_the_bits_of_one(size, tmp_path):
    rows = written(tmp_path, "npy")
    alone = fitted(rows, shards=4)
    for found in by_workers(size, lambda group: fitted(rows, shards=4, group=group)):
        assert_equal(found, alone)


def test_workers_without_a_shard_of_their_own_read_all_rows(tmp_path):
    """A batch of 6 rows has 3 shards, which each of 4 workers computes alone."""
    rows = written(tmp_path, "npy")

    def fit(group=None):
        net = network()
        trainer = gn.Trainer(net, seed=5, shards=8, group=group)
        trainer.fit(rows, epochs=1, batch_size=6, progress=False)
        return net.state_dict()

    alone = fit()
    for found in by_workers(4, fit):
        assert_equal(found, alone)


def test_a_resumed_fit_has_the_bits_of_an_unbroken_one(tmp_path):
    rows = written(tmp_path, "npy")
    unbroken = fitted(rows, checkpoint=tmp_path / "a")

    class Stop(gn.train.Callback):
        def on_epoch_end(self, trainer, epoch, history):
            if epoch == 2:
                raise KeyboardInterrupt

    trainer = gn.Trainer(network(), seed=5, checkpoint=tmp_path / "b")
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(rows, epochs=3, batch_size=64, progress=False, callbacks=[Stop()])
    assert_equal(fitted(rows, checkpoint=tmp_path / "b"), unbroken)


def test_a_checkpoint_knows_its_rows(tmp_path):
    fitted(written(tmp_path, "npy"), checkpoint=tmp_path / "a")
    other = written(tmp_path, "npy", x=X + 1)
    with pytest.raises(gn.errors.ModelFileError, match=r"data\.x"):
        fitted(other, checkpoint=tmp_path / "a")


def test_validation_and_evaluation_read_rows(tmp_path):
    rows = written(tmp_path, "npy")
    trainer = gn.Trainer(network(), seed=5)
    history = trainer.fit(rows, epochs=2, validation=rows, progress=False)
    assert trainer.evaluate(rows) == trainer.evaluate(X, Y)
    assert history["val_loss"][-1] == trainer.evaluate(X, Y)["loss"]


@pytest.mark.parametrize("dtype", [np.uint8, np.float64, ">f4"])
def test_other_dtypes_are_converted(dtype, tmp_path):
    x = (X * 20 + 100).clip(0, 255).astype(np.uint8).astype(dtype)
    rows = written(tmp_path, "npy", x=x, y=Y.astype(np.int16))
    order = as_on_disk(rows, rowfeed.STREAMS)
    small = np.dtype(dtype).newbyteorder("=")
    assert_equal(fitted(rows), fitted((x.astype(small), Y), shuffle=order))


# what goes wrong ---------------------------------------------------------------------------------


def test_what_is_not_there_or_does_not_fit_is_named(tmp_path):
    written(tmp_path, "npy")
    x, y = str(tmp_path / "x-*.npy"), str(tmp_path / "y-*.npy")
    (tmp_path / "y-2.npy").unlink()
    with pytest.raises(DataError, match="1000 examples and 631 targets"):
        open_rows(x, y)
    np.save(tmp_path / "y-2.npy", Y[131:499])
    with pytest.raises(DataError, match=r"x-2\.npy with 369 rows and .*y-2\.npy with 368"):
        open_rows(x, y)
    np.save(tmp_path / "y-2.npy", Y[131:500])
    for wrong in (X[131:500].astype(np.float64), X[131:500, :3]):
        np.save(tmp_path / "x-2.npy", wrong)
        with pytest.raises(DataError, match=r"x-2\.npy with rows .*expected the same in"):
            open_rows(x, y)
    np.save(tmp_path / "x-2.npy", np.asfortranarray(X[131:500]))
    with pytest.raises(DataError, match="Fortran"):
        open_rows(x, y)
    for given in (str(tmp_path / "z-*.npy"), tmp_path / "no.npy", [tmp_path / "x.csv"], []):
        with pytest.raises(DataError, match=r"no file|cannot be read|expected NPY"):
            open_rows(given, y)
    with pytest.raises(ArgumentError, match="from neither"):
        open_rows(x)
    with pytest.raises(ArgumentError, match="as a int"):
        open_rows(3, y)


def test_a_file_that_is_cut_off_is_an_error(tmp_path):
    rows = written(tmp_path, "npy")
    os.truncate(tmp_path / "x-3.npy", 6000)
    with pytest.raises(DataError, match=r"x-3\.npy without row"):
        fitted(rows)
    (tmp_path / "x-1.npy").unlink()
    with pytest.raises(DataError, match=r"x-1\.npy, which cannot be read"):
        rows.x[130:131]


def test_a_broken_parquet_file_is_an_error(tmp_path):
    rows = written(tmp_path, "parquet")
    whole = (tmp_path / "p-3.parquet").read_bytes()
    (tmp_path / "p-3.parquet").write_bytes(whole[:200] + b"\0" * (len(whole) - 200))
    with pytest.raises(DataError, match=r"p-3\.parquet, which cannot be read"):
        fitted(rows)
    with pytest.raises(DataError, match="without a column 'no'"):
        open_rows(tmp_path / "p-2.parquet", target="no")
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(arrow.table({"t": [1], "w": ["a"]}), tmp_path / "w.parquet")
    with pytest.raises(DataError, match=r"column 'w' .* not of numbers"):
        open_rows(tmp_path / "w.parquet", target="t")
    coded = arrow.array(["a"]).dictionary_encode()
    parquet.write_table(arrow.table({"t": [1], "w": coded}), tmp_path / "w.parquet")
    with pytest.raises(DataError, match=r"column 'w' .* not of numbers"):
        open_rows(tmp_path / "w.parquet", target="t")


def test_wrong_numbers_are_found_while_they_are_read(tmp_path):
    x = X.copy()
    x[700, 2] = np.nan
    with pytest.raises(DataError, match=r"nan in row 0, .*\(in rows 700 to 707 of all\)"):
        fitted(written(tmp_path, "npy", x=x))
    y = Y.copy()
    y[3] = 7
    with pytest.raises(DataError, match="label"):
        fitted(written(tmp_path, "npy", y=y))
    rows = written(tmp_path, "npy")
    with pytest.raises(ArgumentError, match="sample_weight for rows"):
        gn.Trainer(network()).fit(rows, sample_weight=np.ones(ROWS))
    with pytest.raises(ArgumentError, match="function as shuffle"):
        gn.Trainer(network()).fit(rows, shuffle=lambda epoch, n: np.arange(n), progress=False)
    with pytest.raises(ArgumentError, match="expected one"):
        gn.Trainer(network()).fit(rows, Y)


def test_sorted_data_are_warned_of(tmp_path, caplog):
    fitted(written(tmp_path, "npy"))
    assert "sorted" not in caplog.text
    order = np.argsort(Y, kind="stable")
    fitted(written(tmp_path, "npy", X[order], Y[order]))
    assert caplog.text.count("the rows lie sorted by class") == 1


LARGE = """
import resource, sys
import numpy as np
import gpunn as gn
from gpunn import nn
limit = int(sys.argv[2])
net = nn.Sequential(nn.Linear(256, 8, "relu", seed=1), nn.Linear(8, 3, seed=2))
small = np.zeros((512, 256), np.float32)
gn.Trainer(net).fit(small, np.zeros(512, int), epochs=1, batch_size=256, progress=False)
with open("/proc/self/statm") as file:
    now = int(file.read().split()[5]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_DATA, (now + limit, now + limit))
rows = gn.data.open_rows(sys.argv[1] + "/x-*.npy", sys.argv[1] + "/y-*.npy")
history = gn.Trainer(net, seed=0).fit(rows, epochs=1, batch_size=256, progress=False)
print(len(rows), rows.x.shape[0] * 1024 / limit)
try:
    np.concatenate([np.load(f"{sys.argv[1]}/x-{k}.npy") for k in range(10)])
except MemoryError:
    print("no room for all of them")
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="limits of memory are Linux's")
def test_a_fit_on_ten_times_the_memory(tmp_path):
    limit = 160 << 20
    rows = limit // 1024
    for k in range(10):
        block = np.lib.format.open_memmap(tmp_path / f"x-{k}.npy", "w+", np.float32, (rows, 256))
        block[:: rows // 50] = k + 1
        del block
        np.save(tmp_path / f"y-{k}.npy", np.arange(rows) % 3)
    done = subprocess.run(
        [sys.executable, "-c", LARGE, str(tmp_path), str(limit)],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{10 * rows} 10.0", "no room for all of them"]
    assert resource.getrlimit(resource.RLIMIT_DATA)[0] != limit


def test_examples_and_targets_of_rows_can_be_passed_apart():
    rows = open_rows(Slices(X), Slices(Y))
    nets = [nn.Sequential(nn.Linear(FEATURES, 3, seed=0)) for _ in range(2)]
    gn.Trainer(nets[0], seed=1).fit(rows, epochs=1, progress=False)
    gn.Trainer(nets[1], seed=1).fit(rows.x, rows.y, epochs=1, progress=False)
    assert_equal(nets[0].state_dict(), nets[1].state_dict())
    for x, y in ((rows.x, Y), (X, rows.y)):
        with pytest.raises(ArgumentError, match="only one is on disk"):
            gn.Trainer(nets[0]).fit(x, y, epochs=1, progress=False)
