import hashlib
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from gpunn.data import load_mnist, mnist, write_idx
from gpunn.errors import DataError, MissingExtraError

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
NAMES = tuple(mnist.SHA256)
# SHA-256 of the decompressed contents: training images, training labels, test images, test labels.
CONTENTS = (
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
)


def write_small(folder, suffix=".gz"):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for part, n in (("train", 20), ("t10k", 10)):
        images = rng.integers(0, 256, (n, 28, 28), np.uint8)
        images[0, 0, :2] = 0, 255
        write_idx(folder / f"{part}-images-idx3-ubyte{suffix}", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte{suffix}", np.arange(n, dtype=np.uint8) % 10)


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    """No folder of the user's, an empty cache, and no network."""
    monkeypatch.delenv("GPUNN_DATA_DIR", raising=False)
    monkeypatch.setattr(mnist, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setitem(sys.modules, "pooch", None)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("subfolder", ["", "mnist"])
def test_small_files_in_a_given_folder(tmp_path, suffix, subfolder):
    write_small(tmp_path / subfolder, suffix)
    train, test = load_mnist(tmp_path)
    assert (train.x.shape, test.x.shape) == ((20, 784), (10, 784))
    assert (train.x.dtype, train.y.dtype) == (np.float32, np.int64)
    assert (train.x.min(), train.x.max()) == (0, 1)
    assert train.classes == tuple("0123456789")
    np.testing.assert_array_equal(test.y, np.arange(10))


def test_environment_variable_comes_before_the_cache(tmp_path, monkeypatch):
    write_small(tmp_path / "cache" / "mnist")
    assert len(load_mnist()[0]) == 20
    write_small(tmp_path / "named")
    write_idx(tmp_path / "named" / f"{NAMES[0]}.gz", np.zeros((20, 28, 28), np.uint8))
    monkeypatch.setenv("GPUNN_DATA_DIR", str(tmp_path / "named"))
    assert load_mnist()[0].x.max() == 0


def test_given_folder_without_files_is_an_error_at_once(tmp_path):
    write_small(tmp_path / "cache")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty.*train-images-idx3-ubyte"):
        load_mnist(tmp_path / "empty")


def test_a_folder_with_three_of_four_files_does_not_count(tmp_path):
    write_small(tmp_path)
    (tmp_path / f"{NAMES[3]}.gz").unlink()
    with pytest.raises(DataError, match="without MNIST"):
        load_mnist(tmp_path)


def test_without_pooch_the_extra_and_the_places_are_named(tmp_path):
    with pytest.raises(MissingExtraError, match=r"cache.*gpunn\[data\]") as caught:
        load_mnist()
    assert str(tmp_path / "cache" / "mnist") in str(caught.value)


class Pooch:
    """Stands in for pooch: `retrieve` fails, or writes the small files."""

    def __init__(self, folder=None, error=None):
        self.folder, self.error, self.asked = folder, error, {}

    def retrieve(self, url, known_hash, fname, path):
        if self.error:
            raise self.error
        self.asked[url] = known_hash
        assert Path(path).name == "mnist"
        return str(self.folder / fname)


@pytest.mark.parametrize("error", [ConnectionError("no route"), ValueError("other hash")])
def test_failed_download(monkeypatch, error):
    monkeypatch.setitem(sys.modules, "pooch", Pooch(error=error))
    with pytest.raises(DataError, match=rf"cache.*{error}.*GPUNN_DATA_DIR"):
        load_mnist()


def test_download_asks_for_four_hashes(monkeypatch, tmp_path):
    write_small(tmp_path / "mirror")
    pooch = Pooch(tmp_path / "mirror")
    monkeypatch.setitem(sys.modules, "pooch", pooch)
    train, test = load_mnist()
    assert (len(train), len(test)) == (20, 10)
    assert list(pooch.asked) == [f"{mnist.MIRROR}{name}.gz" for name in NAMES]
    assert all(len(known) == len("sha256:") + 64 for known in pooch.asked.values())


@pytest.mark.parametrize(
    ("number", "array", "match"),
    [
        (1, np.zeros(19, np.uint8), "20 images.*(19,)"),
        (1, np.full(20, 10, np.uint8), "label 10 in row 0"),
        (0, np.zeros((20, 27, 28), np.uint8), "(20, 27, 28)"),
        (0, np.zeros((20, 28, 28), np.float32), "float32"),
        (0, np.zeros((0, 28, 28), np.uint8), "(0, 28, 28)"),
        (3, np.zeros((10, 1), np.uint8), "(10, 1)"),
    ],
)
def test_files_that_do_not_fit(tmp_path, number, array, match):
    write_small(tmp_path)
    write_idx(tmp_path / f"{NAMES[number]}.gz", array)
    with pytest.raises(DataError, match=match.replace("(", r"\(").replace(")", r"\)")):
        load_mnist(tmp_path)


def test_cache_follows_the_rule_of_pooch(monkeypatch):
    monkeypatch.undo()
    pooch = pytest.importorskip("pooch", reason="pooch is not installed")
    assert mnist.cache_folder() == Path(pooch.os_cache("gpunn"))


def test_full_mnist(monkeypatch):
    monkeypatch.undo()
    folders = [Path(named) for named in [os.environ.get("GPUNN_DATA_DIR")] if named] + [SHARED]
    found = [folder for folder in folders if mnist._find(mnist._places(folder))]
    if not found:
        pytest.skip("MNIST is in no folder that GPUNN_DATA_DIR names")
    train, test = load_mnist(found[0])
    assert (train.x.shape, test.x.shape) == ((60000, 784), (10000, 784))
    arrays = (train.x * 255, train.y, test.x * 255, test.y)
    headers = ("00000803 0000ea60 0000001c 0000001c", "00000801 0000ea60")
    headers += ("00000803 00002710 0000001c 0000001c", "00000801 00002710")
    for array, header, digest in zip(arrays, headers, CONTENTS, strict=True):
        content = bytes.fromhex(header) + np.rint(array).astype(np.uint8).tobytes()
        assert hashlib.sha256(content).hexdigest() == digest
