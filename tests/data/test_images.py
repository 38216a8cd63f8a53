"""Image features made by hand: row M19 of docs/lectures.md."""

from __future__ import annotations

import numpy as np
import pytest

import gpunn as gn
from gpunn.data import bag_of_words, color_histogram, oriented_gradients, patches, visual_words
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


# colours and words -------------------------------------------------------------------------------


def pictures(n, rng):
    """Colour images of 16 x 16 pixels: four classes, of two colours and two textures, anywhere."""
    labels = np.arange(n) % 4
    rows, columns = np.mgrid[:16, :16]
    found = np.empty((n, 16, 16, 3))
    for image, label in zip(found, labels, strict=True):
        shift = rng.integers(0, 4, 2)
        along = (rows + shift[0]) if label % 2 else (columns + shift[1])
        stripes = (along // 2 % 2)[..., None]
        hue = np.array([[0.9, 0.3, 0.2], [0.2, 0.4, 0.9]][label // 2])
        image[:] = 0.25 + 0.5 * stripes * hue + 0.1 * rng.standard_normal((16, 16, 3))
    return np.clip(found, 0, 1), labels


def linear_accuracy(features, labels):
    half = len(labels) // 2
    x = features.astype(np.float32)
    trainer = gn.Trainer(gn.nn.Linear(x.shape[1], 4, seed=0), optimizer=gn.optim.Adam(lr=0.1))
    trainer.fit(x[:half], labels[:half], epochs=200, batch_size=half, progress=False)
    return trainer.evaluate(x[half:], labels[half:])["accuracy"]


def test_colours_tell_colours_and_words_tell_textures(rng):
    """C12: a linear model on a colour histogram cannot tell the stripes, one on grey words can."""
    images, labels = pictures(240, rng)
    colours = color_histogram(images, bins=6)
    found = patches(images.mean(axis=3), size=4)
    words = visual_words(found[:120], 12)
    texts = bag_of_words(found, words)
    np.testing.assert_allclose(texts.sum(axis=1), 1)
    assert linear_accuracy(colours, labels // 2) > 0.97
    assert linear_accuracy(texts, labels % 2) > 0.97
    assert linear_accuracy(colours, labels % 2) < 0.65
    assert linear_accuracy(np.hstack([colours, texts]), labels) > 0.95


def test_a_colour_histogram_does_not_know_places(rng):
    images = rng.random((3, 4, 4, 3))
    mixed = images.reshape(3, 16, 3)[:, rng.permutation(16)].reshape(3, 4, 4, 3)
    np.testing.assert_array_equal(color_histogram(images), color_histogram(mixed))


def test_patches_are_cut_where_they_should_be(rng):
    image = rng.random((2, 7, 6, 3))
    found = patches(image, size=3, step=2)
    assert found.shape == (2, 3 * 2, 27)
    expected = image[1, 2:5, 2:5].transpose(2, 0, 1).ravel()
    np.testing.assert_allclose(found[1, 3], expected - expected.mean(), atol=1e-15)


def test_words_are_the_centres_of_clouds(rng):
    centres = np.array([[0.0, 0, 0], [5, 5, 5], [-5, 5, 0]])
    found = centres[rng.integers(0, 3, (4, 200))] + 0.1 * rng.standard_normal((4, 200, 3))
    words = visual_words(found, 3)
    nearest = np.abs(words[:, None] - centres).sum(axis=2)
    assert sorted(nearest.argmin(axis=1)) == [0, 1, 2]
    assert nearest.min(axis=1).max() < 0.1
    np.testing.assert_array_equal(visual_words(found, 3), words)  # the same seed, the same words


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: patches(np.zeros((1, 3, 3)), size=4), ShapeError),
        (lambda: patches(np.zeros((3, 3))), ShapeError),
        (lambda: patches(np.zeros((1, 9, 9)), size=0), ArgumentError),
        (lambda: bag_of_words(np.zeros((1, 2, 9)), np.zeros((3, 8))), ShapeError),
        (lambda: visual_words(np.zeros((2, 9)), 3), ShapeError),
    ],
)
def test_what_has_no_patches_is_refused(call, error):
    with pytest.raises(error, match="expected"):
        call()
