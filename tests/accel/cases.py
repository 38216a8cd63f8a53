"""The same work in plain scikit-learn and under gpunn.accel, in one process."""

from __future__ import annotations

import contextlib
import io
import warnings
from contextlib import contextmanager

import numpy as np
from threadpoolctl import threadpool_limits

from gpunn import accel
from gpunn.accel import report


@contextmanager
def patched(verbose=False):
    """Patch in the block only."""
    accel.patch(verbose)
    try:
        yield
    finally:
        accel.unpatch()


@contextmanager
def told():
    """The messages about what ran where, as a list that grows."""
    words = []
    level, report.logger.filters[:] = report.logger.level, [lambda r: words.append(r.getMessage())]
    report.logger.setLevel("INFO")
    report._told.clear()
    try:
        yield words
    finally:
        report.logger.setLevel(level)
        report.logger.filters.clear()


def outcome(work):
    """What work returns or raises, prints and warns about."""
    out = io.StringIO()
    np.random.seed(0)  # noqa: NPY002 - it is the one that scikit-learn draws from
    with (
        warnings.catch_warnings(record=True) as caught,
        contextlib.redirect_stdout(out),
        threadpool_limits(1),
    ):
        warnings.simplefilter("always")
        try:
            result = work()
        except Exception as error:
            result = type(error), str(error)
    words = [(w.category, str(w.message), w.filename) for w in caught]
    after = np.random.random_sample()  # noqa: NPY002
    return result, out.getvalue(), words, after


def plain(value):
    """A value in a form that `==` compares to the bit."""
    if isinstance(value, np.ndarray):
        return type(value), value.dtype, value.shape, value.tobytes()
    if isinstance(value, np.random.RandomState):
        name, key, *rest = value.get_state()
        return name, key.tobytes(), *rest
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value), [plain(each) for each in value]
    if hasattr(value, "toarray"):
        return type(value), plain(value.toarray())
    if type(value).__module__.startswith("sklearn.") and hasattr(value, "__dict__"):
        return type(value), plain(vars(value))
    return type(value), repr(value)


def same_work(work):
    """Do the work in plain scikit-learn and under gpunn.accel, and compare all that it shows.

    Returns:
        The messages about what ran where.
    """
    theirs = outcome(work)
    with patched(), told() as words:
        ours = outcome(work)
    assert_same(theirs, ours)
    return words


def assert_same(theirs, ours):
    """Compare two outcomes; the message names the attribute that differs."""
    parts = ("result", "print", "warnings", "draws")
    for one, other, what in zip(theirs, ours, parts, strict=True):
        differences(plain(one), plain(other), what)


def differences(one, other, path):
    """Assert that two plain values are equal, part by part."""
    if isinstance(one, dict) and isinstance(other, dict):
        assert list(one.keys()) == list(other.keys()), (path, [*one], [*other])
        for name in one:
            differences(one[name], other[name], f"{path}.{name}")
    elif isinstance(one, tuple | list) and isinstance(other, tuple | list):
        assert len(one) == len(other), (path, one, other)
        for k, (a, b) in enumerate(zip(one, other, strict=True)):
            differences(a, b, f"{path}[{k}]")
    else:
        assert one == other, (path, str(one)[:200], str(other)[:200])
