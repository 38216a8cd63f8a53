"""Image features made by hand: row M19 of docs/lectures.md."""

from __future__ import annotations

import numpy as np
import pytest

import gpunn as gn
from gpunn.data import color_histogram, oriented_gradients
from gpunn.errors import ArgumentError, DataError, ShapeError


def ramp(degrees, size=16):
    """Brightness that grows in one direction."""
    rows, columns = np.mgrid[:size, :size]
    angle = np.radians(degrees)
    return rows * np.sin(angle) + columns * np.cos(angle)


def by_hand(image, cell, bins):
    """The definition, pixel by pixel."""
    down, right = np.gradient(image)
    result = np.zeros((image.shape[0] // cell, image.shape[1] // cell, bins))
    for i in range(result.shape[0] * cell):
        for j in range(result.shape[1] * cell):
            place = np.degrees(np.arctan2(down[i, j], right[i, j])) % 180 / (180 / bins) - 0.5
            lower = int(np.floor(place))
            for k, share in ((lower, lower + 1 - place), (lower + 1, place - lower)):
                result[i // cell, j // cell, k % bins] += share * np.hypot(down[i, j], right[i, j])
    return result.reshape(-1)


@pytest.mark.parametrize("bins", [1, 4, 9])
def test_it_is_the_definition(rng, bins):
    images = rng.random((3, 19, 26))
    got = oriented_gradients(images, cell=8, bins=bins)
    np.testing.assert_allclose(got, [by_hand(i, 8, bins) for i in images], rtol=1e-10, atol=1e-12)


def test_the_lectures_10800_numbers():
    """320 x 240 pixels, cells of 8 x 8 and nine directions; with the printed 8 it would be 9600."""
    image = np.zeros((1, 240, 320))
    assert oriented_gradients(image, bins=9).shape == (1, 30 * 40 * 9) == (1, 10_800)
    assert oriented_gradients(image, bins=8).shape == (1, 9_600)


@pytest.mark.parametrize("k", range(9))
def test_an_edge_falls_into_the_bin_of_its_direction(k):
    cells = oriented_gradients(ramp(20 * (k + 0.5))[None], 16, 9)[0]
    np.testing.assert_allclose(cells, np.eye(9)[k] * 256, atol=1e-9)
    opposite = oriented_gradients(ramp(20 * (k + 0.5) + 180)[None], 16, 9)[0]
    np.testing.assert_allclose(opposite, cells, atol=1e-9)


def test_turning_an_image_turns_the_histogram(rng):
    image = rng.random((1, 16, 16))
    turned = np.rot90(image, axes=(1, 2))  # by 90 degrees: four and a half of nine bins
    for bins in (4, 10):
        before = oriented_gradients(image, 16, bins)[0]
        after = oriented_gradients(turned, 16, bins)[0]
        np.testing.assert_allclose(after, np.roll(before, bins // 2), rtol=1e-9)


def test_contrast_scales_it_and_brightness_does_not_matter(rng):
    image = rng.random((2, 24, 24))
    before = oriented_gradients(image)
    np.testing.assert_allclose(oriented_gradients(3 * image + 5), 3 * before, rtol=1e-9)


def test_color_histogram_counts_pixels_and_forgets_places(rng):
    images = rng.random((2, 6, 5, 3))
    images[0, 0, 0] = [0.0, 1.0, 0.5]
    got = color_histogram(images, bins=4).reshape(2, 3, 4)
    np.testing.assert_allclose(got.sum(axis=2), 1, rtol=1e-12)
    expected, _ = np.histogram(images[0, ..., 1], bins=4, range=(0, 1))
    np.testing.assert_allclose(got[0, 1], expected / 30, rtol=1e-12)
    moved = color_histogram(images[:, ::-1, ::-1], bins=4)
    np.testing.assert_array_equal(moved.reshape(2, 3, 4), got)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: oriented_gradients(np.zeros((8, 8))), ShapeError),
        (lambda: oriented_gradients(np.zeros((1, 7, 8))), ShapeError),
        (lambda: oriented_gradients(np.zeros((1, 8, 8)), bins=0), ArgumentError),
        (lambda: color_histogram(np.zeros((1, 8, 8))), ShapeError),
        (lambda: color_histogram(np.full((1, 2, 2, 3), 255)), DataError),
    ],
)
def test_bad_input_is_refused(call, error):
    with pytest.raises(error, match="expected"):
        call()


def test_a_linear_classifier_on_oriented_gradients_beats_one_on_pixels():
    """On digits moved by up to 3 pixels in a frame of 16: HoG is robust to small shifts."""
    digits = gn.data.load_digits()
    rng = np.random.default_rng(0)
    frames = np.zeros((len(digits.x), 16, 16), np.float32)
    for frame, image in zip(frames, digits.x.reshape(-1, 8, 8), strict=True):
        i, j = rng.integers(1, 8, 2)
        frame[i : i + 8, j : j + 8] = image / digits.x.max()
    scores = []
    for features in (frames.reshape(len(frames), -1), oriented_gradients(frames, cell=4)):
        gn.manual_seed(0)
        x = features.astype(np.float32)
        trainer = gn.Trainer(gn.nn.Linear(x.shape[1], 10), optimizer=gn.optim.Adam(lr=0.01))
        half = len(x) // 2
        trainer.fit(x[:half], digits.y[:half], epochs=20, batch_size=64, progress=False)
        scores.append(trainer.evaluate(x[half:], digits.y[half:])["accuracy"])
    assert scores[1] > scores[0] + 0.1
