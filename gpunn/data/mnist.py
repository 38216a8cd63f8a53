"""Load MNIST from a folder of the user, from the cache, or from a public mirror."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from gpunn.data.checks import check_labels
from gpunn.data.dataset import Dataset
from gpunn.data.idx import read_idx
from gpunn.errors import DataError, GpunnError, MissingExtraError
from gpunn.storage.cache import cache_folder

MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"
SHA256 = {  # of the gzipped files on the mirror
    "train-images-idx3-ubyte": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
IMAGE_SHAPE = (28, 28)


def load_mnist(data_dir: str | os.PathLike[str] | None = None) -> tuple[Dataset, Dataset]:
    """Load 60,000 training and 10,000 test images of handwritten digits, 28x28 pixels.

    The four IDX files, gzipped or not, are searched in `data_dir`. Without `data_dir`, they are
    searched in the folder that the environment variable GPUNN_DATA_DIR names, then in the user's
    cache. The subfolder `mnist` of each folder is searched too. If no folder has the files, they
    are downloaded into the cache (11 MB) and their SHA-256 sums are checked. If `data_dir` is given
    and does not hold the files, an error is raised instead.

    Args:
        data_dir: the folder with the files train-images-idx3-ubyte, train-labels-idx1-ubyte,
            t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, or these with .gz.

    Returns:
        (train, test), each x (N, 784) float32 in [0, 1] and y (N,) int64.

    Raises:
        DataError: the files are missing or broken, do not fit each other, or cannot be downloaded.
        MissingExtraError: a download is needed and pooch is not installed.

    Reference:
        LeCun, Bottou, Bengio, Haffner (1998), "Gradient-based learning applied to document
        recognition", Proceedings of the IEEE 86(11).
    """
    files = _find(_places(data_dir))
    if files is None and data_dir is not None:
        raise DataError(
            f"got data_dir={str(data_dir)!r} without MNIST; expected {', '.join(SHA256)} (or these "
            f"with .gz) in {_listed(_places(data_dir))}: put the files there, or pass no data_dir "
            "to download them"
        )
    if files is None:
        files = _download()
    images, labels, test_images, test_labels = files
    return _load(images, labels, "mnist"), _load(test_images, test_labels, "mnist test")


def _places(data_dir: str | os.PathLike[str] | None) -> list[Path]:
    """Return the folders to search, in order."""
    if data_dir is not None:
        roots = [Path(data_dir)]
    else:
        named = os.environ.get("GPUNN_DATA_DIR")
        roots = [*([Path(named)] if named else []), cache_folder()]
    return [place for root in roots for place in (root, root / "mnist")]


def _find(places: list[Path]) -> list[Path] | None:
    """Return the four files in the first folder that has all of them, or None."""
    for place in places:
        found = []
        for name in SHA256:
            either = (place / name, place / f"{name}.gz")
            found.extend([path for path in either if path.is_file()][:1])
        if len(found) == len(SHA256):
            return found
    return None


def _listed(places: list[Path]) -> str:
    return " or ".join(map(str, places))


def _download() -> list[Path]:
    looked = f"MNIST is not in {_listed(_places(None))}"
    try:
        import pooch
    except ImportError as error:
        raise MissingExtraError("pooch", "data", f"{looked}; downloading it") from error
    try:
        return [
            Path(
                pooch.retrieve(
                    f"{MIRROR}{name}.gz",
                    known_hash=f"sha256:{digest}",
                    fname=f"{name}.gz",
                    path=cache_folder() / "mnist",
                )
            )
            for name, digest in SHA256.items()
        ]
    except (OSError, ValueError) as error:  # no network, no space, or an unexpected file
        raise DataError(
            f"{looked}, and the download from {MIRROR} failed ({error}); expected a network "
            "connection, or the four files in one of these folders: set GPUNN_DATA_DIR or pass "
            "data_dir"
        ) from error


def _load(image_file: Path, label_file: Path, name: str) -> Dataset:
    images, labels = read_idx(image_file), read_idx(label_file)
    _check_pixels(image_file, images)
    if labels.shape != images.shape[:1]:
        raise DataError(
            f"got {len(images)} images in {image_file} and labels of shape {labels.shape} in "
            f"{label_file}; expected one label for each image: take both files from one place"
        )
    try:
        check_labels(labels, 10)
    except GpunnError as error:
        raise DataError(f"got {label_file}, which holds no digits: {error}") from error
    x = images.reshape(len(images), -1) / np.float32(255)
    features = tuple(f"pixel_{row}_{column}" for row in range(28) for column in range(28))
    return Dataset(x, labels, tuple("0123456789"), features, name)


def _check_pixels(path: Path, images: np.ndarray[Any, Any]) -> None:
    if images.dtype != np.uint8 or images.shape[1:] != IMAGE_SHAPE or not len(images):
        raise DataError(
            f"got {path} with shape {images.shape} of {images.dtype}; expected (N, 28, 28) of "
            "uint8: this is not a file of MNIST images, so check the path"
        )
