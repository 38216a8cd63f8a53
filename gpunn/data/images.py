"""Hand-made features of images, as they were used before networks learned their own."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.arguments import count
from gpunn.errors import DataError, ShapeError

Images = np.ndarray[Any, Any]


def oriented_gradients(images: Any, cell: int = 8, bins: int = 9) -> Images:
    """Compute histograms of oriented gradients (HoG), one for each cell of each image.

    At each pixel, the gradient of the brightness is a central difference (one-sided at the border).
    Its length is shared linearly between the two bins nearest to its direction, modulo 180 degrees.
    Bin k is centred on (k + 1/2) 180 / bins degrees. There is no normalisation over blocks of
    cells. Pixels outside of whole cells are left out.

    Args:
        images: (N, height, width) brightness.
        cell: the side of a cell, in pixels.
        bins: the number of directions. Lecture 001 says "8 directions" but counts 30 * 40 * 9
            numbers, which are 9 directions.

    Returns:
        (N, rows * columns * bins) float64: 10,800 numbers for 240 x 320 pixels.

    Raises:
        ShapeError: the array does not have three axes, or the images are smaller than a cell.

    Reference:
        Dalal and Triggs (2005); lecture 001, "histogram of oriented gradients".

    Example:
        >>> oriented_gradients(np.zeros((1, 240, 320))).shape
        (1, 10800)
    """
    pixels = _floats(images, 3, "(N, height, width)")
    cell, bins = count("cell", cell), count("bins", bins)
    n, rows, columns = len(pixels), pixels.shape[1] // cell, pixels.shape[2] // cell
    if not rows or not columns:
        raise ShapeError(
            f"got images of {pixels.shape[1:]} pixels; expected at least {cell} each: pass a "
            "smaller cell"
        )
    down, right = np.gradient(pixels, axis=(1, 2))
    strength = np.hypot(down, right)
    place = np.arctan2(down, right) % np.pi * bins / np.pi - 0.5  # in bins, from the first centre
    first = np.floor(place).astype(np.int64)
    share = place - first
    histogram = np.zeros((n, rows, columns, bins))
    inside = (slice(None), slice(rows * cell), slice(columns * cell))
    for number in range(bins):
        nearest = np.where(first % bins == number, 1 - share, 0.0)
        nearest += np.where((first + 1) % bins == number, share, 0.0)  # one bin gets both
        parts = (strength * nearest)[inside].reshape(n, rows, cell, columns, cell)
        histogram[..., number] = parts.sum(axis=(2, 4))
    return histogram.reshape(n, -1)


def color_histogram(images: Any, bins: int = 8) -> Images:
    """Compute the fraction of pixels in each range of each channel, wherever they are.

    Args:
        images: (N, height, width, channels) numbers from 0 to 1.
        bins: the number of ranges of equal width for each channel.

    Returns:
        (N, channels * bins) float64; the bins of a channel add up to 1.

    Raises:
        ShapeError: the array does not have four axes.
        DataError: a number is outside [0, 1].

    Reference:
        Lecture 001, "color histogram".

    Example:
        >>> color_histogram(np.zeros((1, 2, 2, 3)), bins=2)
        array([[1., 0., 1., 0., 1., 0.]])
    """
    pixels = _floats(images, 4, "(N, height, width, channels)")
    bins = count("bins", bins)
    if not ((pixels >= 0) & (pixels <= 1)).all():
        raise DataError("got pixels outside [0, 1]; expected fractions: divide bytes by 255")
    place = np.minimum((pixels * bins).astype(np.int64), bins - 1)
    hits: Images = (place[..., None] == np.arange(bins)).mean(axis=(1, 2))
    return hits.reshape(len(pixels), -1)


def patches(images: Any, size: int = 5, step: int = 2) -> Images:
    """Cut square patches out of images, each with a mean of 0.

    Args:
        images: (N, height, width) or (N, height, width, channels) numbers.
        size: the side of a patch, in pixels.
        step: the distance between two patches, in pixels.

    Returns:
        (N, P, size * size * channels) float64, the P patches of each image.

    Raises:
        ShapeError: the array has another number of axes, or the images are smaller than a patch.
    """
    pixels = np.asarray(images, np.float64)
    pixels = pixels[..., None] if pixels.ndim == 3 else _floats(pixels, 4, "(N, H, W[, channels])")
    size, step = count("size", size), count("step", step)
    if min(pixels.shape[1:3]) < size:
        raise ShapeError(
            f"got images of {pixels.shape[1:3]} pixels; expected at least {size} each: pass a "
            "smaller size"
        )
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (size, size), axis=(1, 2))
    windows = windows[:, ::step, ::step]  # (N, rows, columns, channels, size, size)
    found = windows.reshape(len(pixels), windows.shape[1] * windows.shape[2], -1)
    centred: Images = found - found.mean(axis=2, keepdims=True)
    return centred


def visual_words(found: Any, count_of_words: int, seed: int = 0) -> Images:
    """Find the patches that stand for all others, by k-means: the words of a visual vocabulary.

    Args:
        found: (N, P, D) patches, as `patches` returns them.
        count_of_words: K, the number of words.
        seed: the seed of the first words.

    Returns:
        (K, D) float64.

    Reference:
        Lecture 001, "bag of words"; Fei-Fei and Perona (2005).
    """
    from scipy.cluster.vq import kmeans2

    rows = _floats(found, 3, "(N, P, D)")
    rows = rows.reshape(-1, rows.shape[2])
    words: Images = kmeans2(rows, count("count_of_words", count_of_words), minit="++", rng=seed)[0]
    return words


def bag_of_words(found: Any, words: Any) -> Images:
    """Compute the fraction of the patches of each image that are nearest to each word.

    Args:
        found: (N, P, D) patches, as `patches` returns them.
        words: (K, D) patches, as `visual_words` returns them.

    Returns:
        (N, K) float64; each row adds up to 1.

    Raises:
        ShapeError: the patches and the words do not have the same length.
    """
    from scipy.cluster.vq import vq

    rows, words = _floats(found, 3, "(N, P, D)"), np.asarray(words, np.float64)
    if words.ndim != 2 or words.shape[1] != rows.shape[2]:
        raise ShapeError(
            f"got words of shape {words.shape} for patches of {rows.shape[2]} numbers; expected "
            f"(K, {rows.shape[2]}): cut both with the same size"
        )
    nearest = vq(rows.reshape(-1, rows.shape[2]), words)[0].reshape(rows.shape[:2])
    shares: Images = (nearest[..., None] == np.arange(len(words))).mean(axis=1)
    return shares


def _floats(images: Any, axes: int, shape: str) -> Images:
    pixels = np.asarray(images, np.float64)
    if pixels.ndim != axes:
        raise ShapeError(f"got images of shape {pixels.shape}; expected {shape}: reshape them")
    return pixels
