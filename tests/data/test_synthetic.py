import numpy as np
import pytest

from gpunn.data import blobs, circles, spirals, xor
from gpunn.errors import ArgumentError


def test_xor():
    data = xor()
    np.testing.assert_array_equal(data.y, data.x[:, 0] != data.x[:, 1])
    assert len(np.unique(data.x, axis=0)) == 4


@pytest.mark.parametrize("make", [spirals, blobs, circles])
def test_seed_decides_and_classes_are_balanced(make):
    first, again, other = make(101, seed=1), make(101, seed=1), make(101, seed=2)
    np.testing.assert_array_equal(first.x, again.x)
    assert not np.array_equal(first.x, other.x)
    assert len(first) == 101
    assert np.ptp(np.bincount(first.y)) <= 1


def test_spirals_without_noise_are_rotations_of_one_arm():
    data = spirals(90, classes=3, noise=0)
    arms = [data.x[data.y == label] for label in range(3)]
    np.testing.assert_allclose(np.linalg.norm(arms[0], axis=1), np.arange(1, 31) / 30, rtol=1e-5)
    turn = 2 * np.pi / 3
    rotation = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    np.testing.assert_allclose(arms[0] @ rotation, arms[1], atol=1e-6)


def test_blobs_have_their_spread():
    data = blobs(4000, classes=2, features=3, spread=0.5)
    assert data.x.shape == (4000, 3)
    for label in range(2):
        np.testing.assert_allclose(data.x[data.y == label].std(axis=0), 0.5, rtol=0.06)
    tight = blobs(10, spread=0)
    assert len(np.unique(tight.x, axis=0)) == 3
    assert np.abs(tight.x).max() <= 10


def test_circles_have_their_radii():
    data = circles(50, noise=0, factor=0.3)
    radius = np.linalg.norm(data.x, axis=1)
    np.testing.assert_allclose(radius, np.where(data.y == 0, 1, 0.3), rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "arguments", "match"),
    [
        (spirals, {"n": 2}, "n=2"),
        (spirals, {"classes": 1}, "classes=1"),
        (spirals, {"noise": -1.0}, "noise"),
        (spirals, {"seed": -1}, "seed"),
        (blobs, {"features": 0}, "features=0"),
        (blobs, {"spread": float("nan")}, "spread"),
        (blobs, {"n": 10.0}, "n=10.0"),
        (circles, {"factor": 1.0}, "factor"),
        (circles, {"noise": float("inf")}, "noise"),
    ],
)
def test_bad_arguments(make, arguments, match):
    with pytest.raises(ArgumentError, match=match):
        make(**arguments)
