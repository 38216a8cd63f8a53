"""gpunn predict: files of any size, whole outputs or none, exit codes for scripts."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
import tracemalloc
import zipfile

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn
from gpunn.cli.predict import Wanted, run
from gpunn.errors import DataError

WIDTH, NAMES = 5, ["ash", "oak, red", "élm"]
ROWS = 4096 + 700  # a whole batch and a part of one


@pytest.fixture(autouse=True)
def buffered(monkeypatch):
    """Standard output of the commands has a buffer, as without this variable."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)


@pytest.fixture
def folder(tmp_path):
    gn.manual_seed(0)
    net = nn.Sequential(nn.Linear(WIDTH, 8, "relu"), nn.Linear(8, 3))
    columns = [f"c{k}" for k in range(WIDTH)]
    info = {"classes": NAMES, "features": columns, "target": "tree", "delimiter": ","}
    gn.save(net, tmp_path / "classes.safetensors", info=info)
    gn.save(net, tmp_path / "numbers.safetensors", info={"features": columns})
    return tmp_path


@pytest.fixture
def x(rng):
    return rng.standard_normal((ROWS, WIDTH), dtype=np.float32)


def write_csv(path, x, labels=None):
    head = [f"c{k}" for k in range(x.shape[1])] + (["tree"] if labels else [])
    rows = [",".join(map(repr, row)) for row in x.tolist()]
    if labels:
        rows = [f'{row},"{label}"' for row, label in zip(rows, labels, strict=True)]
    path.write_text("\n".join([",".join(head), *rows]) + "\n", encoding="utf-8")


def command(*args):
    return [sys.executable, "-m", "gpunn", "predict", *map(str, args)]


def gpunn(*args, cwd, **options):
    return subprocess.run(command(*args), cwd=cwd, capture_output=True, **options)


def predict(folder, data, out="out.csv", model="numbers.safetensors"):
    """What the command does, in this process."""
    run(folder / model, str(folder / data), Wanted(folder / out), "cpu", None)
    return folder / out


# the same numbers from every kind of file ---------------------------------------------------------


def save_csv(path, x):
    write_csv(path.with_suffix(".csv"), x)
    return path.with_suffix(".csv")


def save_npy(array):
    def save(path, x):
        np.save(path.with_suffix(".npy"), array(x))
        return path.with_suffix(".npy")

    return save


def save_npz(array, write=np.savez, name="x"):
    def save(path, x):
        write(path.with_suffix(".npz"), **{name: array(x), "other": np.zeros(7)})
        return path.with_suffix(".npz")

    return save


KINDS = {
    "csv": save_csv,
    "npy": save_npy(np.asarray),
    "npy Fortran": save_npy(np.asfortranarray),
    "npy big-endian": save_npy(lambda x: x.astype(">f4")),
    "npy Fortran, big-endian, double, of more dimensions": save_npy(
        lambda x: np.asfortranarray(x.reshape(-1, WIDTH, 1), ">f8")
    ),
    "npz": save_npz(np.asarray),
    "npz compressed": save_npz(np.asarray, np.savez_compressed),
    "npz Fortran": save_npz(np.asfortranarray),
    "npz compressed, Fortran": save_npz(np.asfortranarray, np.savez_compressed, "X"),
}


@pytest.mark.parametrize("save", KINDS.values(), ids=KINDS)
def test_the_bits_are_those_of_the_model_over_all_rows_at_once(save, folder, x):
    net = gn.load(folder / "numbers.safetensors")
    path = save(folder / "data", x)
    out = predict(folder, path.name, "out.npy")
    expected = net.predict(x)
    found = np.load(out)
    assert (found.dtype, found.shape) == (np.float32, (ROWS, 3))
    np.testing.assert_array_equal(found, expected)
    rows = np.loadtxt(predict(folder, path.name), delimiter=",", skiprows=1)
    np.testing.assert_array_equal(rows.astype(np.float32), expected)


def test_images_in_fortran_order_are_flattened_as_the_others(folder, rng):
    images = rng.standard_normal((9, 1, WIDTH), dtype=np.float32)
    wide = rng.standard_normal((9, 2, 3), dtype=np.float32)
    np.savez_compressed(folder / "c.npz", x=np.asfortranarray(images))
    np.save(folder / "wide.npy", np.asfortranarray(wide))
    expected = gn.load(folder / "numbers.safetensors").predict(images.reshape(9, -1))
    np.testing.assert_array_equal(np.load(predict(folder, "c.npz", "c.npy")), expected)
    found, _ = gn.data.load_features(folder / "wide.npy")
    np.testing.assert_array_equal(found, wide.reshape(9, -1))


def test_classes_and_accuracy(folder, x, capsys):
    net = gn.load(folder / "classes.safetensors")
    right = [NAMES[k] for k in net.classify(x)]
    told = [NAMES[0] if k % 2 else name for k, name in enumerate(right)]
    write_csv(folder / "told.csv", x, told)
    out = predict(folder, "told.csv", model="classes.safetensors")
    assert out.read_text(encoding="utf-8").replace('"', "").split("\n") == [
        "prediction",
        *right,
        "",
    ]
    share = np.mean([a == b for a, b in zip(right, told, strict=True)])
    assert f"accuracy: {100 * share:.2f} %" in capsys.readouterr().err
    np.savez(folder / "told.npz", x=x, y=np.array(told))
    predict(folder, "told.npz", "out.npy", "classes.safetensors")  # told beside numbers too
    assert f"accuracy: {100 * share:.2f} %" in capsys.readouterr().err
    np.testing.assert_array_equal(np.load(folder / "out.npy"), net.predict(x))


# memory -------------------------------------------------------------------------------------------


def write_many(path, rows):
    x = np.random.default_rng(0).standard_normal((rows, WIDTH))
    if path.suffix == ".csv":
        return write_csv(path, x)
    if path.suffix == ".npz":
        return np.savez_compressed(path, x=np.asfortranarray(x))
    return np.save(path, x)


@pytest.mark.parametrize("suffix", [".csv", ".npy", ".npz"])
@pytest.mark.parametrize("out", ["out.csv", "out.npy"])
def test_memory_is_that_of_a_batch(suffix, out, folder):
    peaks = []
    for rows in (8192, 40960):
        write_many(folder / f"data{suffix}", rows)
        predict(folder, f"data{suffix}", out)  # what is imported and pooled on the first call
        tracemalloc.start()
        predict(folder, f"data{suffix}", out)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
    assert peaks[1] < 2_500_000


# what cannot be used ------------------------------------------------------------------------------


HEAD = ",".join(f"c{k}" for k in range(WIDTH)) + "\n"
ROW = ",".join("1" * WIDTH) + "\n"


def save_objects(path):
    np.save(path, np.array([[None] * WIDTH], object), allow_pickle=True)


def empty_member(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"")


BAD = {
    "empty": ("d.csv", b"", "which is empty"),
    "no rows": ("d.csv", HEAD.encode(), "no rows"),
    "header mismatch": ("d.csv", HEAD.replace("c3", "c9").encode() + ROW.encode(), "c3 too"),
    "ragged": ("d.csv", (HEAD + ROW * 5000 + "1,2\n").encode(), "2 cells in line 5002"),
    "text": (
        "d.csv",
        (HEAD + ROW * 5000 + "1,2,x,4,5\n").encode(),
        "'x' in line 5002, column 'c2'",
    ),
    "not finite": ("d.csv", (HEAD + ROW * 5000 + "1,2,3,inf,5\n").encode(), "column 'c3'"),
    "too large": ("d.csv", (HEAD + ROW * 5000 + "1,2,3,1e39,5\n").encode(), "row 5000, column 3"),
    "no array x": (
        "d.npz",
        lambda p: np.savez(p, images=np.ones((2, 5))),
        "arrays images; expected",
    ),
    "x and X": ("d.npz", lambda p: np.savez(p, x=np.ones((2, 5)), X=np.ones(3)), "X, x; expected"),
    "no zip": ("d.npz", b"PK\x03\x04 and so on", "cannot be read"),
    "empty member": ("d.npz", empty_member, "cannot be read"),
    "npz width": ("d.npz", lambda p: np.savez(p, x=np.ones((2, 4))), "4 features; expected 5"),
    "npy width": ("d.npy", lambda p: np.save(p, np.ones((2, 6))), "6 features; expected 5"),
    "no rows of npy": ("d.npy", lambda p: np.save(p, np.ones((0, 5))), "without examples"),
    "a number": ("d.npy", lambda p: np.save(p, np.array(3.0)), "without examples"),
    "objects": ("d.npy", save_objects, "never unpickled"),
    "text of npy": ("d.npy", lambda p: np.save(p, np.full((2, 5), "a")), "real numbers"),
    "nan of npy": (
        "d.npy",
        lambda p: np.save(p, np.r_[np.ones((5000, 5)), [[1, np.nan, 1, 1, 1]]]),
        "row 5000, column 1",
    ),
    "y of another length": (
        "d.npz",
        lambda p: np.savez(p, x=np.ones((3, 5)), y=np.arange(2)),
        "same number of rows",
    ),
}


@pytest.mark.parametrize(("name", "content", "words"), BAD.values(), ids=BAD)
def test_bad_data_leave_the_old_file_as_it_was(name, content, words, folder):
    if callable(content):
        content(folder / name)
    else:
        (folder / name).write_bytes(content)
    (folder / "out.csv").write_text("old")
    before = set(folder.iterdir())
    with pytest.raises(gn.errors.GpunnError, match=words.replace("(", r"\(")):
        predict(folder, name)
    assert (folder / "out.csv").read_text() == "old"
    assert set(folder.iterdir()) == before


def test_a_wide_model_of_other_words_is_refused(folder):
    net = gn.load(folder / "numbers.safetensors")
    write_csv(folder / "data.csv", np.ones((2, WIDTH)))
    for info in (
        {"classes": ["a", "b"]},
        {"classes": "abc"},
        {"classes": [1, 2, 3]},
        {"features": {"c0": 1}},
        {"delimiter": 7},
    ):
        gn.save(net, folder / "odd.safetensors", info=info)
        with pytest.raises(gn.errors.ModelFileError, match=r"names 2 classes|unexpected values"):
            predict(folder, "data.csv", model="odd.safetensors")
        assert not (folder / "out.csv").exists()


def test_inputs_are_not_written_over(folder, x):
    write_csv(folder / "data.csv", x)
    content = (folder / "data.csv").read_bytes()
    for out in ("data.csv", "numbers.safetensors"):
        with pytest.raises(gn.errors.ArgumentError, match="another file"):
            predict(folder, "data.csv", out)
    assert (folder / "data.csv").read_bytes() == content
    with pytest.raises(gn.errors.ArgumentError, match=r"ends in \.csv or \.npy"):
        predict(folder, "data.csv", "out.npz")


# as scripts see it --------------------------------------------------------------------------------


def test_a_user_error_is_one_line_and_status_2(folder):
    (folder / "d.csv").write_text(HEAD + ROW + '"1\n2",1,1,1,1\n')
    done = gpunn("classes.safetensors", "d.csv", "--out", "out.csv", cwd=folder, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    (_, line) = done.stderr.splitlines()  # the first tells the device
    assert line.startswith("gpunn: error: got '1\\n2' in line 4, column 'c0' of d.csv")
    assert not (folder / "out.csv").exists()


def test_standard_input_and_output(folder, x):
    write_csv(folder / "data.csv", x[:10])
    content = (folder / "data.csv").read_bytes()
    piped = gpunn("classes.safetensors", "-", cwd=folder, input=content)
    named = gpunn("classes.safetensors", "data.csv", cwd=folder)
    assert piped.returncode == named.returncode == 0, piped.stderr
    assert piped.stdout == named.stdout
    assert piped.stdout.startswith(b"prediction\n")
    assert b"row" not in piped.stderr  # no progress bar where there is no terminal
    nothing = gpunn("classes.safetensors", "-", cwd=folder, input=b"")
    assert nothing.returncode == 2
    assert b"got standard input, which is empty" in nothing.stderr


@pytest.mark.parametrize("rows", [1, ROWS], ids=["in the buffer", "beyond it"])
def test_a_pipe_that_nobody_reads_is_quiet(rows, folder, x):
    write_csv(folder / "data.csv", x[:rows])
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        command("classes.safetensors", "data.csv"), cwd=folder, stdout=write, stderr=-1, text=True
    )
    os.close(write)
    assert done.returncode == 141
    assert len(done.stderr.splitlines()) == 1, done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
@pytest.mark.parametrize("rows", [1, ROWS], ids=["in the buffer", "beyond it"])
def test_a_full_disk_behind_standard_output_is_told(rows, folder, x):
    write_csv(folder / "data.csv", x[:rows])
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command("classes.safetensors", "data.csv"),
            cwd=folder,
            stdout=full,
            stderr=-1,
            text=True,
        )
    assert done.returncode == 2
    assert "standard output, which cannot be written (No space left" in done.stderr
    assert len(done.stderr.splitlines()) == 2


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
def test_what_is_left_in_the_buffer_does_not_fail_again_when_python_ends():
    code = (
        "from gpunn.cli import outputs\n"
        "try:\n with outputs._standard_output() as file: file.write(b'x')\n"
        "except OSError: raise SystemExit(2)"
    )
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=-1, text=True)
    assert (done.returncode, done.stderr) == (2, "")


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("out", ["out.csv", "out.npy"])
def test_an_interrupted_run_leaves_the_old_file_whole(number, code, out, folder, x):
    (folder / out).write_text("old")
    write_csv(folder / "data.csv", x)
    content = (folder / "data.csv").read_bytes()
    before = set(folder.iterdir())
    process = subprocess.Popen(
        command("classes.safetensors", "-", "--out", out), cwd=folder, stdin=-1, stderr=-1
    )
    process.stdin.write(content)  # and no end of it
    process.stdin.flush()
    deadline = time.monotonic() + 30
    while set(folder.iterdir()) == before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert set(folder.iterdir()) != before, "it has not begun to write"
    process.send_signal(number)
    _, told = process.communicate()
    assert process.returncode == code, told
    assert b"Traceback" not in told
    assert set(folder.iterdir()) == before
    assert (folder / out).read_text() == "old"


def test_the_progress_bar_is_for_terminals(folder, x, monkeypatch):
    write_csv(folder / "data.csv", x)

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    predict(folder, "data.csv")
    assert "4.80k" in sys.stderr.getvalue()
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    predict(folder, "data.csv")
    assert "row/s" not in sys.stderr.getvalue()


def test_the_accuracy_compares_classes_by_value_and_leaves_out_missing_ones(folder, x, capsys):
    net = gn.load(folder / "classes.safetensors")
    names = ["1", "2", "10"]
    info = {"classes": names, "features": [f"c{k}" for k in range(WIDTH)], "target": "tree"}
    gn.save(net, folder / "classes.safetensors", info=info)
    found = [names[k] for k in net.classify(x)]
    write_csv(folder / "data.csv", x, [*(f"{name}.0" for name in found[:-2]), "NA", "7"])
    predict(folder, "data.csv", model="classes.safetensors")
    assert f"accuracy: {100 * (ROWS - 2) / (ROWS - 1):.2f} %" in capsys.readouterr().err


def test_scores_that_are_no_numbers_have_no_class(folder, x):
    net = gn.load(folder / "classes.safetensors")
    net.layers[1].bias.data[1] = np.nan
    gn.save(net, folder / "classes.safetensors", info={"classes": NAMES})
    np.save(folder / "data.npy", x)
    with pytest.raises(DataError, match="in row 0; expected finite scores"):
        predict(folder, "data.npy", model="classes.safetensors")
    assert not (folder / "out.csv").exists()
