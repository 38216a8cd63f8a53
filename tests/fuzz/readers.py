"""Feed broken files to the readers of CSV, NPY, NPZ and IDX, guided by the coverage of atheris.

    pip install atheris
    python -m tests.fuzz.readers npz corpus -max_total_time=600

`corpus` is a folder that keeps the interesting files from run to run; whole files to begin with are
put into it. What follows it goes to libFuzzer. The suite calls the same `check` with files that
Hypothesis breaks (tests/data/test_fuzz.py).

A reader must either raise one of gpunn's errors, in few words, or return data that are honest:
finite, no larger than the file can hold, and the same in one piece and in batches.
"""

from __future__ import annotations

import gzip
import io
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

DEFLATE_RATIO = 1032
MAX_MESSAGE = 1000


def check_table(path: Path) -> None:
    """A CSV, NPZ or NPY file as examples to predict from."""
    from gpunn.data import load_features, open_features
    from gpunn.errors import GpunnError

    try:
        x, labels = load_features(path, target="y")
    except GpunnError as error:
        _check_length(error)
        return
    assert x.dtype == np.float32
    assert x.ndim == 2
    assert np.isfinite(x).all()
    assert x.size <= path.stat().st_size * DEFLATE_RATIO
    assert labels is None or len(labels) == len(x)
    with open_features(path, target="y") as stream:
        parts = [part for part, _ in stream.batches(3)]
    assert [len(part) for part in parts[:-1]] == [3] * (len(parts) - 1)
    np.testing.assert_array_equal(np.concatenate(parts), x)


def check_dataset(path: Path) -> None:
    """A CSV or NPZ file as data to train on."""
    from gpunn.data import load_csv, load_npz
    from gpunn.errors import GpunnError

    for task in ("auto", "classification", "regression"):
        try:
            npz = path.suffix == ".npz"
            data = load_npz(path, task=task) if npz else load_csv(path, "y", task=task)
        except GpunnError as error:
            _check_length(error)
            continue
        assert data.x.dtype == np.float32
        assert len(data.x) == len(data.y)
        assert np.isfinite(data.x).all()
        assert np.isfinite(data.y).all()


def check_idx(path: Path) -> None:
    """An IDX file."""
    from gpunn.data import read_idx, write_idx
    from gpunn.errors import GpunnError

    try:
        array = read_idx(path)
    except GpunnError as error:
        _check_length(error)
        return
    assert array.nbytes <= path.stat().st_size * DEFLATE_RATIO
    content = path.read_bytes()
    write_idx(path, array)
    if content[:2] != b"\x1f\x8b":
        assert path.read_bytes() == content, "the file holds something that the array does not"


CHECKS: dict[str, tuple[Callable[[Path], None], ...]] = {
    "csv": (check_table, check_dataset),
    "npz": (check_table, check_dataset),
    "npy": (check_table,),
    "idx": (check_idx,),
}


def check(kind: str, content: bytes, folder: Path) -> None:
    """Raise if a reader does anything with `content` but to refuse it or to return honest data."""
    path = folder / f"data.{kind}"
    for one in CHECKS[kind]:
        path.write_bytes(content)
        one(path)


def whole_files(kind: str) -> list[bytes]:
    """Files to begin with."""
    from gpunn.data import write_idx

    if kind == "csv":
        return [
            b'a,b,y\r\n1,2,red\r\n"3",4e-1,"blu""e"\r\n',
            b"\xef\xbb\xbfa,y\n1,0.5\n2,1\n",
        ]
    x, y = np.arange(12.0).reshape(4, 3), np.array([0, 1, 1, 0])
    if kind == "npy":
        arrays = (x, np.asfortranarray(x), x.astype(">f4"), x > 3, y)
        return [_written(np.save, array) for array in arrays]
    if kind == "npz":
        return [
            _written(np.savez, x=x, y=y),
            _written(np.savez_compressed, X=np.asfortranarray(x), y=np.array(list("abab"))),
        ]
    with tempfile.TemporaryDirectory() as folder:
        write_idx(Path(folder) / "idx", x.astype(np.int16))
        content = (Path(folder) / "idx").read_bytes()
    return [content, gzip.compress(content, mtime=0)]


def _check_length(error: Exception) -> None:
    if len(str(error)) > MAX_MESSAGE:
        raise AssertionError(f"a message of {len(str(error))} characters") from error


def _written(write: Callable[..., None], *arrays: object, **named: object) -> bytes:
    file = io.BytesIO()
    write(file, *arrays, **named)
    return file.getvalue()


def main() -> None:
    """Run libFuzzer over one kind of file."""
    import atheris

    kind, corpus = sys.argv[1], Path(sys.argv[2])
    with atheris.instrument_imports(include=["gpunn", "zipfile", "gzip"]):
        import gpunn.data  # noqa: F401
    corpus.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(whole_files(kind)):
        (corpus / f"whole-{number}").write_bytes(content)
    folder = Path(tempfile.mkdtemp())
    atheris.Setup([sys.argv[0], *sys.argv[2:]], lambda content: check(kind, content, folder))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
