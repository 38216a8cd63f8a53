"""Every operation on inputs on which a naive formula loses its digits, against mpmath.

The bounds: 4 ulp for formulas, 2 eps log2(n) sum |x| for sums and means. Each test runs through
compiled kernels, through NumPy alone and through the CUDA bodies. CuPy compiles the CUDA bodies so
that float32 numbers below `TINY` count as 0: on a GPU such an argument is left out, and `FLUSHED`
bounds the error of a result.
"""

from __future__ import annotations

from itertools import chain
from math import fsum, log2

import mpmath as mp
import numpy as np
import pytest

import gpunn as gn
from gpunn import ops, optim
from gpunn.autograd import OPS
from gpunn.ops.classifier import classifier_loss
from gpunn.ops.linear import Dropped, layer_of
from gpunn.ops.reductions import column_sums
from gpunn.optim.factor import NORM, clip_by_global_norm, global_norm
from gpunn.optim.flat import FlatParameters
from gpunn.optim.optimizer import OPTIMIZERS
from tests.hardcases import ELEMENTWISE, PAIRS, ROWS, SUMS, exact, numbers, ulps
from tests.standin import compiler

pytestmark = pytest.mark.both_bodies

MOVES = {"reshape", "transpose", "getitem", "concatenate", "astype", "dropout", "vanilla_dropout"}
MOVES |= {"embedding", "level_columns"}
"""Operations that move numbers, round them once, or multiply them once by one factor."""

TESTED_BELOW = {
    *("add", "subtract", "multiply", "divide", "linear", "matmul", "take", "waves"),
    *("sum", "mean", "max", "softmax", "log_softmax", "layer_norm", "rms_norm", "batch_norm"),
    *("softmax_cross_entropy", "classifier_loss", "multiclass_hinge", "focal", "gaussian_nll"),
}
ULP = 4
TINY = 2.0**-126
LOST = 0.0
FLUSHED = 128 * TINY
"""The effect of a number below TINY that is multiplied by up to 128 and counts as 0."""
NARROW_TOO = ("float32", "float16")


@pytest.fixture(autouse=True)
def digits():
    with mp.workdps(60), np.errstate(all="ignore"):
        yield


@pytest.fixture
def flushes(device, monkeypatch):
    """Whether numbers below TINY count as 0 on the device; `assert_close` knows it, too."""
    found = device.startswith("cuda") or (device.startswith("standin") and compiler.flushes())
    monkeypatch.setitem(globals(), "LOST", FLUSHED if found else 0.0)
    return found


def test_every_operation_is_in_the_table():
    of_estimators = {"expit"}  # it has scikit-learn's rounding: tests/sklearn
    named = {name.partition("/")[0] for name in (*ELEMENTWISE, *PAIRS)}
    assert set(OPS) - of_estimators == named | MOVES | TESTED_BELOW


def assert_close(found, wanted, sizes, dtype, given):
    """Compare with exact numbers; say which input is the worst."""
    errors = [
        0 if np.isfinite(f) and abs(exact(f) - w) <= LOST else ulps(f, w, s, dtype)
        for f, w, s in zip(found, wanted, sizes, strict=True)
    ]
    worst = int(np.argmax(errors))
    assert errors[worst] <= ULP, (
        f"{errors[worst]:.3g} ulp: got {found[worst]} for {given[worst]}, expected "
        f"{mp.nstr(wanted[worst], 12)}"
    )


def applied(operation, x, device):
    """The value of an operation and its gradient, as host arrays."""
    x = gn.tensor(x, requires_grad=True, device=device)
    y = operation(x)
    y.backward(y.backend.full(y.shape, 1, y.dtype))
    return y.numpy(), None if x.grad is None else x.backend.download(x.grad)


def of_name(name):
    return (lambda t: t**3) if name == "power" else OPS[name]


@pytest.mark.parametrize("dtype", NARROW_TOO)
@pytest.mark.parametrize("name", sorted(ELEMENTWISE))
def test_an_elementwise_operation(name, dtype, device, flushes):
    row, x = ELEMENTWISE[name], numbers(dtype)
    x = x[row.domain(x) & ((x == 0) | (abs(x) >= TINY) | (not flushes))]
    y, gx = applied(of_name(name), x, device)
    assert y.dtype == dtype
    given = [exact(v) for v in x]
    assert_close(y, [*map(row.value, given)], [*map(row.value_size, given)], dtype, x)
    if row.slope is not None:
        assert_close(gx, [*map(row.slope, given)], [*map(row.slope_size, given)], dtype, x)


@pytest.mark.parametrize("name", sorted(n for n, row in ELEMENTWISE.items() if row.infinite))
def test_an_elementwise_operation_of_infinity_and_nan(name, device):
    row, x = ELEMENTWISE[name], np.array([np.inf, -np.inf, np.nan], np.float32)
    y, gx = applied(of_name(name), x, device)
    given = [exact(v) for v in x[:2]]
    assert_close(y[:2], [*map(row.value, given)], [0, 0], "float32", x)
    if row.slope is not None:
        assert_close(gx[:2], [*map(row.slope, given)], [*map(row.slope_size, given)], "float32", x)
    assert np.isnan(y[2]) or name == "hard_threshold"


@pytest.mark.parametrize("name", ["relu", "relu_right", "leaky_relu"])
def test_an_infinite_gradient_stays_where_it_flows(name, device):
    x = gn.tensor(np.array([-1.0, 2.0, 0.0], np.float32), requires_grad=True, device=device)
    OPS[name](x).backward(x.backend.upload(np.full(3, np.inf, np.float32)))
    expected = {
        "relu": [0, np.inf, 0],
        "relu_right": [0, np.inf, np.inf],
        "leaky_relu": [np.inf] * 3,
    }
    np.testing.assert_array_equal(x.backend.download(x.grad), expected[name])


@pytest.mark.parametrize("value", [np.inf, np.nan, 2.0])
@pytest.mark.parametrize("rate", [0.5, 0.25, 0.3])
def test_what_dropout_drops_is_0(rate, value, device):
    """Also behind another activation, and in the gradient."""
    draw = gn.backends.RandomStream(3).draw()
    ones = np.ones((8, 16), np.float32)
    kept = ops.dropout(gn.tensor(ones, device=device), rate=rate, draw=draw).numpy() > 0
    x = np.full((8, 16), value, np.float32)
    y = ops.dropout(gn.tensor(x, device=device), rate=rate, draw=draw).numpy()
    assert (y[~kept] == 0).all()
    assert not (y[kept] == 0).any()
    arrays = np.eye(8, 16, dtype=np.float32), np.zeros(16, np.float32)
    layer = [gn.tensor(a, requires_grad=True, device=device) for a in arrays]
    dropped = Dropped(rate, draw)
    y = ops.linear(gn.tensor(np.eye(8, dtype=np.float32), device=device), *layer, dropout=dropped)
    y.backward(y.backend.upload(x))
    gbias = y.backend.download(layer[1].grad)
    np.testing.assert_array_equal(gbias == 0, ~kept.any(axis=0))


@pytest.mark.parametrize("name", ["identity", "relu", "leaky_relu"])
@pytest.mark.parametrize("value", [1.0, np.inf])
@pytest.mark.parametrize("rate", [0.5, 0.25, 0.3])
def test_the_output_after_dropout_tells_the_gradient(name, rate, value, device):
    b, draw = gn.backend(device), gn.backends.RandomStream(3).draw()
    tiny, large = np.finfo(np.float32).tiny, np.finfo(np.float32).max
    z = np.array([0.0, -0.0, tiny, -tiny, 1.0, -1.0, large, -large, np.inf, -np.inf], np.float32)
    x, w = (b.zeros(shape, np.float32) for shape in ((16, 4), (4, len(z))))
    layer = layer_of(b, x, w, b.upload(z), OPS[name], Dropped(rate, draw))
    gy = np.full((16, len(z)), value, np.float32)
    parts = gn.tensor(np.tile(z, (16, 1)), requires_grad=True, device=device)
    y = ops.dropout(OPS[name](parts), rate=rate, draw=draw)
    y.backward(b.upload(gy))
    np.testing.assert_array_equal(b.download(layer.y), y.numpy())
    np.testing.assert_array_equal(b.download(layer.through(b.upload(gy))), b.download(parts.grad))


@pytest.mark.parametrize("dtype", NARROW_TOO)
@pytest.mark.parametrize("name", sorted(PAIRS))
def test_a_loss_of_pairs(name, dtype, device, flushes):
    row = PAIRS[name]
    if (name, dtype) == ("binary_cross_entropy", "float16"):
        pytest.skip("it clips at the epsilon of float16")
    p = numbers(dtype)
    p = p[row.domain(p) & ((p == 0) | (abs(p) >= TINY) | (not flushes))]
    t = np.array(row.targets, dtype)
    pairs = np.repeat(p, len(t)), np.tile(t, len(p))
    loss = ops.get_loss(name.partition("/")[0], reduction="none", **dict(row.options))
    b = gn.backend(device)
    value, gp = applied(lambda q: loss(q, b.upload(pairs[1])), pairs[0], device)
    given = [(exact(a), exact(c)) for a, c in zip(*pairs, strict=True)]
    wanted, sizes = ([f(*pair) for pair in given] for f in (row.value, row.value_size))
    assert value.dtype == np.float32
    assert_close(value, wanted, sizes, "float32", given)
    wanted, sizes = ([f(*pair) for pair in given] for f in (row.slope, row.slope_size))
    assert_close(gp, wanted, sizes, dtype, given)


# rows --------------------------------------------------------------------------------------------


def rows_of(name, dtype):
    """The rows of a case, all with the same numbers in three more orders."""
    with np.errstate(over="ignore"):
        x = np.array(ROWS[name]).astype(dtype)
    if not np.isfinite(x).all() and name != "infinite":
        pytest.skip(f"{dtype} has no such numbers")
    return np.concatenate([np.roll(x, k, axis=1) for k in range(x.shape[1])])


def softmax(row):
    top = max(row)
    powers = [mp.exp(v - top) for v in row]
    return [p / mp.fsum(powers) for p in powers]


@pytest.mark.parametrize("dtype", NARROW_TOO)
@pytest.mark.parametrize("name", sorted(ROWS))
def test_a_softmax(name, dtype, device, flushes):
    x = rows_of(name, dtype)
    y = ops.softmax(gn.tensor(x, device=device)).numpy()
    wanted = [p for row in x for p in softmax([exact(v) for v in row])]
    assert_close(y.reshape(-1), wanted, [0] * x.size, dtype, x.reshape(-1))


@pytest.mark.parametrize("dtype", NARROW_TOO)
@pytest.mark.parametrize("name", sorted(set(ROWS) - {"infinite"}))
def test_a_log_softmax(name, dtype, device, flushes):
    x = rows_of(name, dtype)
    y, gx = applied(lambda t: ops.log_softmax(t) * 1.0, x, device)
    wanted, slopes = [], []
    for row in x:
        given = [*map(exact, row)]
        wanted += [
            -mp.log1p(mp.fsum(mp.exp(v - u) for j, v in enumerate(given) if j != k))
            for k, u in enumerate(given)
        ]
        slopes += [1 - len(given) * p for p in softmax(given)]
    assert_close(y.reshape(-1), wanted, [0] * x.size, dtype, x.reshape(-1))
    assert_close(gx.reshape(-1), slopes, [4] * x.size, dtype, x.reshape(-1))


def test_a_log_softmax_of_infinity_and_nan(device):
    x = np.array([[0.0, -np.inf, 1.0], [np.nan, 0, 0], [np.inf, 0, 0]], np.float32)
    y = ops.log_softmax(gn.tensor(x, device=device)).numpy()
    np.testing.assert_allclose(y[0], [-np.log1p(np.e), -np.inf, -np.log1p(1 / np.e)], rtol=1e-6)
    assert np.isnan(y[1:]).any(axis=1).all()


def cross_entropy(row, label):
    others = mp.fsum(mp.exp(v - row[label]) for k, v in enumerate(row) if k != label)
    p = softmax(row)
    slopes = [*p]
    slopes[label] = -mp.fsum(q for k, q in enumerate(p) if k != label)
    return mp.log1p(others), slopes


@pytest.mark.parametrize("wide", [0, 200])
@pytest.mark.parametrize("dtype", NARROW_TOO)
@pytest.mark.parametrize("name", sorted(set(ROWS) - {"infinite"}))
def test_a_cross_entropy(name, dtype, wide, device, flushes):
    x = rows_of(name, dtype)
    if wide:  # NumPy takes another way with many classes
        x = np.concatenate([x, np.full((len(x), wide), x.min() - 30, dtype)], axis=1)
    labels = np.arange(len(x)) % 4
    b = gn.backend(device)
    loss, gz = applied(
        lambda z: ops.softmax_cross_entropy(z, b.upload(labels), reduction="none"), x, device
    )
    wanted = [cross_entropy([*map(exact, r)], k) for r, k in zip(x, labels, strict=True)]
    assert_close(loss, [w for w, _ in wanted], [0] * len(x), "float32", x)
    slopes = [s for _, row in wanted for s in row]
    assert_close(gz.reshape(-1), slopes, [0] * x.size, dtype, x.reshape(-1))


@pytest.mark.parametrize("name", sorted(set(ROWS) - {"infinite"}))
def test_a_cross_entropy_together_with_its_layer(name, device, flushes):
    """A hidden unit of 1 makes the weights of the output layer its logits."""
    one, zero = np.ones((1, 1), np.float32), np.zeros(1, np.float32)
    x, b = rows_of(name, "float32"), gn.backend(device)
    for k, row in enumerate(x):
        others = [b.upload(a) for a in (one, one, zero, np.zeros_like(row), np.array([k % 4]))]
        loss, gz = applied(
            lambda z, o=others: classifier_loss(*o[:3], z, *o[3:], reduction="sum"),
            row[None],
            device,
        )
        wanted, slopes = cross_entropy([*map(exact, row)], k % 4)
        assert_close(loss.reshape(1), [wanted], [0], "float32", row[None])
        assert_close(gz[0], slopes, [0] * len(row), "float32", row)


@pytest.mark.parametrize("name", sorted(set(ROWS) - {"digits that differ", "subnormal"}))
def test_a_cross_entropy_of_one_hot_rows(name, device, flushes):
    x = rows_of(name, "float32")
    labels = np.arange(len(x)) % 4
    if name == "infinite":
        labels = x.argmax(axis=1)  # log 0 of another class is infinite
    b, hot = gn.backend(device), np.eye(4, dtype=np.float32)[labels]
    loss, gz = applied(
        lambda z: ops.softmax_cross_entropy(z, b.upload(hot), reduction="none"), x, device
    )
    wanted = [cross_entropy([*map(exact, r)], k) for r, k in zip(x, labels, strict=True)]
    assert_close(loss, [w for w, _ in wanted], [0] * len(x), "float32", x)
    slopes = [s for _, row in wanted for s in row]
    assert_close(gz.reshape(-1), slopes, [0] * x.size, "float32", x.reshape(-1))


@pytest.mark.parametrize("gamma", [0.5, 2.0])
@pytest.mark.parametrize("dtype", NARROW_TOO)
@pytest.mark.parametrize("name", sorted(set(ROWS) - {"infinite"}))
def test_a_focal_loss(name, dtype, gamma, device, flushes):
    """To a few machine epsilons times 1 + gamma."""
    x = rows_of(name, dtype)
    labels, b = np.arange(len(x)) % 4, gn.backend(device)
    loss, gz = applied(
        lambda z: ops.focal(z, b.upload(labels), gamma=gamma, reduction="none"), x, device
    )
    wanted, slopes = [], []
    for row, label in zip(x, labels, strict=True):
        nll, ps = cross_entropy([*map(exact, row)], label)
        rest = -ps[label]
        wanted.append(rest**gamma * nll)
        by = rest ** (gamma - 1) * (rest + gamma * mp.exp(-nll) * nll) if rest else mp.mpf(0)
        slopes += [by * p for p in ps]
    more = 1 + mp.mpf(gamma)
    assert_close(loss, wanted, [more * w for w in wanted], "float32", x)
    assert_close(gz.reshape(-1), slopes, [more * abs(v) for v in slopes], dtype, x.reshape(-1))


@pytest.mark.parametrize("dtype", NARROW_TOO)
def test_a_gaussian_likelihood(dtype, device, flushes):
    spread = np.array([1e-5, 0.01, 0.3, 1.0, 2.5, 1e3, 3e4])
    grid = np.meshgrid([0.0, 0.1, -3.7, 100.0], [0.0, 1.0, 99.0], spread)
    p, t, v = (each.reshape(-1).astype(dtype) for each in grid)
    b = gn.backend(device)
    given = [gn.tensor(a, requires_grad=True, device=device) for a in (p, v)]
    y = ops.gaussian_nll(given[0], b.upload(t), given[1], eps=1e-3, reduction="none")
    y.backward(b.full(y.shape, 1, y.dtype))
    values: list[list[mp.mpf]] = [[] for _ in range(6)]
    for a, c, e in zip(p, t, v, strict=True):
        wide, away = max(exact(e), exact(np.float32(1e-3))), exact(a) - exact(c)
        square = away**2 / wide
        parts = mp.log(wide) / 2, square / 2
        terms = (sum(parts), sum(map(abs, parts)), away / wide, mp.mpf(0))
        terms += ((1 - square) / wide / 2, (1 + square) / wide / 2)
        for found, term in zip(values, terms, strict=True):
            found.append(term)
    kinds = ("float32", dtype, dtype)
    found = (y.numpy(), *(b.download(a.grad) for a in given))
    for k, (array, kind) in enumerate(zip(found, kinds, strict=True)):
        assert_close(array, values[2 * k], values[2 * k + 1], kind, list(zip(p, t, v, strict=True)))


@pytest.mark.parametrize("dtype", NARROW_TOO)
@pytest.mark.parametrize("name", sorted(set(ROWS) - {"infinite"}))
def test_a_multiclass_hinge(name, dtype, device):
    x = rows_of(name, dtype)
    labels = np.arange(len(x)) % 4
    b = gn.backend(device)
    loss, gs = applied(
        lambda z: ops.multiclass_hinge(z, b.upload(labels), reduction="none"), x, device
    )
    wanted, slopes = [], []
    for row, label in zip(x, labels, strict=True):
        given = [*map(exact, row)]
        over = [max(v - given[label] + 1, 0) if k != label else 0 for k, v in enumerate(given)]
        wanted.append(mp.fsum(over))
        slopes.append([mp.mpf(int(v > 0)) for v in over])
        slopes[-1][label] = -mp.fsum(slopes[-1])
    assert_close(loss, wanted, [0] * len(x), "float32", x)
    assert_close(gs.reshape(-1), [*chain(*slopes)], [0] * x.size, dtype, x.reshape(-1))


def normalised(row):
    middle = mp.fsum(row) / len(row)
    deviation = mp.sqrt(mp.fsum((v - middle) ** 2 for v in row) / len(row) + mp.mpf(1e-5))
    return [(v - middle) / deviation for v in row]


FEATURES = {
    "constant": lambda n: np.full(n, 12345.678),
    "constant, large": lambda n: np.full(n, 1e6 + 0.3),
    "constant, largest": lambda n: np.full(n, 3e38),
    "constant, subnormal": lambda n: np.full(n, 1e-40),
    "constant but one": lambda n: np.where(np.arange(n) == 1, 2023.75, 2023.7),
    "offset": lambda n: 1e5 + np.random.default_rng(0).standard_normal(n),
    "offset, large": lambda n: 1e7 + 9 * np.random.default_rng(0).standard_normal(n),
    "ordinary": lambda n: np.random.default_rng(0).standard_normal(n),
    "small": lambda n: 1e-3 * np.random.default_rng(0).standard_normal(n),
}


@pytest.mark.parametrize("name", sorted(FEATURES))
@pytest.mark.parametrize("count", [7, 64, 300, 1100])
@pytest.mark.parametrize("over", ["rows", "batch"])
def test_a_normalisation(name, count, over, device, flushes):
    row = FEATURES[name](count).astype(np.float32)
    x, n = np.stack([row, row[::-1]]), 2
    wanted = [normalised([*map(exact, r)]) for r in x]
    b = gn.backend(device)
    if over == "batch":
        x, n = np.ascontiguousarray(x.T), count
        row = np.minimum(row, np.float32(1e20))  # the square of a rounding error must be finite
        x = np.minimum(x, np.float32(1e20))
        running = [b.full((2,), v, np.float32) for v in (0, 1)]
    gamma, beta = (b.full((x.shape[1],), v, np.float32) for v in (1, 0))
    if over == "rows":
        y = ops.layer_norm(gn.tensor(x, device=device), gamma, beta).numpy()
    else:
        options = dict(zip(("running_mean", "running_variance"), running, strict=True))
        y = ops.batch_norm(gn.tensor(x, device=device), gamma, beta, momentum=0.5, **options)
        y = y.numpy().T
    size = max(abs(v) for v in wanted[0])
    flat = [*chain(*wanted)]
    assert_close(y.reshape(-1), flat, [size] * len(flat), "float32", x.reshape(-1))
    if name.startswith("constant") and "one" not in name:
        np.testing.assert_array_equal(y, 0)
    if over == "batch" and n > 2:
        middle = mp.fsum(map(exact, row)) / count
        spread = mp.fsum((exact(v) - middle) ** 2 for v in row) / (count - 1)
        terms = mp.fsum(abs(exact(v)) for v in row) / count
        assert_close(b.download(running[0]), [middle / 2] * 2, [terms] * 2, "float32", [name] * 2)
        assert_close(b.download(running[1]), [(spread + 1) / 2] * 2, [0, 0], "float32", [name] * 2)


@pytest.mark.parametrize("over", ["rows", "batch"])
def test_the_gradient_of_a_normalisation_with_a_large_mean(over, device, rng):
    """It is that of the same numbers without the mean, which float32 has all digits of."""
    small = rng.integers(-8, 9, (33, 48)) / 8
    gy = rng.standard_normal(small.shape).astype(np.float32)
    b = gn.backend(device)
    found = []
    for offset, dtype in ((2.0**17, "float32"), (0, "float64")):
        x, gamma, beta = (
            gn.tensor(a.astype(dtype), requires_grad=True, device=device)
            for a in (small + offset, np.full(48, 1.5), np.zeros(48))
        )
        given = {}
        if over == "batch":
            given = {n: b.zeros((48,), dtype) for n in ("running_mean", "running_variance")}
        y = (ops.layer_norm if over == "rows" else ops.batch_norm)(x, gamma, beta, **given)
        y.backward(b.upload(gy.astype(dtype)))
        found.append([b.download(t.grad) for t in (x, gamma, beta)])
    for ours, wanted in zip(*found, strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=2e-6, atol=2e-6 * abs(wanted).max())


LENGTHS = {
    **FEATURES,
    "zeros": np.zeros,
    "huge": lambda n: 1e38 * np.random.default_rng(0).uniform(-3, 3, n),
    "largest": lambda n: np.full(n, 3.4028234e38),
    "one is huge": lambda n: np.where(np.arange(n) == 1, 3e38, 1e30),
    "squares overflow": lambda n: 1e20 * np.random.default_rng(0).standard_normal(n),
    "squares vanish": lambda n: 1e-25 * np.random.default_rng(0).standard_normal(n),
    "tiny": lambda n: 1.3e-38 * np.random.default_rng(0).uniform(1, 3, n),
}
"""Rows whose squares float32 may not have."""


def over_root(row, eps, gy=None):
    """The row over the root of its mean square; or its gradient, as if gamma were 1."""
    root = mp.sqrt(mp.fsum(v * v for v in row) / len(row) + mp.mpf(eps))
    normal = [v / root for v in row]
    if gy is None:
        return normal
    along = mp.fsum(g * v for g, v in zip(gy, normal, strict=True)) / len(row)
    return [(g - v * along) / root for g, v in zip(gy, normal, strict=True)]


@pytest.mark.parametrize("eps", [None, 0.0, 1e-30])
@pytest.mark.parametrize("count", [1, 7, 300, 1100])
@pytest.mark.parametrize("name", sorted(LENGTHS))
def test_an_rms_normalisation(name, count, eps, device, flushes):
    row = LENGTHS[name](count).astype(np.float32)
    if eps == 0 and name in ("zeros", *["constant, subnormal"] * flushes):
        pytest.skip("0 / 0 is NaN")
    x = np.stack([row, row[::-1]])
    gy = np.random.default_rng(1).standard_normal(x.shape)
    gy = (1e-4 * gy if "subnormal" in name else gy).astype(np.float32)  # over 1e-40 it is finite
    seen = np.where(abs(x) < 2.0**-126, np.float32(0), x) if flushes else x
    given, added = [[*map(exact, r)] for r in seen], 2.0**-23 if eps is None else eps
    t = gn.tensor(x, requires_grad=True, device=device)
    gamma = gn.tensor(np.ones(count, np.float32), requires_grad=True, device=device)
    y = ops.rms_norm(t, gamma, eps=eps)
    b = y.backend
    y.backward(b.upload(gy))
    wanted = [v for r in given for v in over_root(r, added)]
    assert_close(y.numpy().reshape(-1), wanted, [0] * x.size, "float32", x.reshape(-1))
    for ours, r, g in zip(b.download(t.grad), given, gy, strict=True):
        exactly = over_root(r, added, [*map(exact, g)])
        root = mp.sqrt(mp.fsum(v * v for v in r) / count + mp.mpf(added))
        size = 8 * exact(abs(g).max()) / root
        assert_close(ours, exactly, [size] * count, "float32", r)
    sums = np.array(wanted, float).reshape(x.shape) * gy
    error = abs(b.download(gamma.grad) - sums.sum(axis=0))
    assert (error <= 8 * 2.0**-24 * abs(sums).sum(axis=0) + 2.0**-148 + LOST).all()


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_an_rms_normalisation_in_another_dtype(dtype, device):
    largest, least = (300.0, 1e-7) if dtype == "float16" else (1e300, 1e-300)
    x = np.random.default_rng(0).uniform(0.5, 1.9, (3, 40)) * [[largest], [least], [1.0]]
    x = x.astype(dtype)
    gamma = gn.backend(device).full((40,), 1, dtype)
    y = ops.rms_norm(gn.tensor(x, device=device), gamma, eps=0.0).numpy()
    wanted = [v for row in x for v in over_root([*map(exact, row)], 0)]
    assert_close(y.reshape(-1), wanted, [0] * x.size, dtype, x.reshape(-1))


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_an_rms_normalisation_of_infinity_and_nan(value, device):
    """The row is NaN, and no other one."""
    x = np.ones((3, 40), np.float32)
    x[1, 35] = value
    y = ops.rms_norm(gn.tensor(x, device=device), gn.backend(device).full((40,), 1, x.dtype))
    np.testing.assert_array_equal(np.isnan(y.numpy()).any(axis=1), [False, True, False])


def test_fixed_numbers_that_float16_does_not_have(device):
    """A running variance of 1e6 is infinite in float16, and a mean of 2049 is 2048."""
    layer = gn.nn.BatchNorm(1, dtype="float16", device=device).eval()
    b = layer.backend
    b.write(layer.running_variance.data, np.full(1, 1e6, np.float32))
    b.write(layer.running_mean.data, np.full(1, 2049, np.float32))
    x = gn.tensor(np.full((2, 1), 3050.0, np.float16), device=device)
    np.testing.assert_array_equal(layer(x).numpy(), np.float16(1.001))
    scaled = gn.nn.Standardize(np.full(1, 2049.0), np.full(1, 1e6), device=device)
    np.testing.assert_array_equal(scaled(x).numpy(), np.float16(1e-3 + 1e-6))
    assert scaled(x).dtype == np.float16


# sums --------------------------------------------------------------------------------------------


def assert_sum(found, x, dtype, divisor=1):
    """Check the bound of sums, in float32 for float16, which is rounded once."""
    if np.isinf(x).any():
        assert np.isinf(found)
        return
    whole = x.astype(np.float64).tolist()  # fsum rounds once, to float64
    wanted, sizes = (fsum(part) / divisor for part in (whole, map(abs, whole)))
    bound = 2 * float(np.finfo(np.float32).eps) * log2(len(x)) * sizes
    unit = np.spacing(np.asarray(abs(float(wanted)), dtype)) if dtype == "float16" else 0
    bound += max(float(unit), float(np.finfo(dtype).smallest_subnormal))
    assert abs(float(found) - wanted) <= bound, (found, wanted)


@pytest.mark.parametrize("dtype", NARROW_TOO)
@pytest.mark.parametrize("count", [5, 300, 20_000])
@pytest.mark.parametrize("name", sorted(SUMS))
def test_sums_and_means(name, count, dtype, device, flushes):
    if name == "subnormal" and flushes:
        pytest.skip("numbers below 2**-126 count as 0 there")
    if dtype == "float16" and count * max(SUMS[name](9)) > 6e4 and name != "infinite":
        pytest.skip("the sum is past the largest float16")
    x = SUMS[name](count).astype(dtype)
    t = gn.tensor(np.stack([x, x[::-1]]), device=device)
    column = gn.tensor(np.ascontiguousarray(t.numpy().T), device=device)
    deep = column.reshape(1, count, 2)
    for found in (
        *t.sum(axis=1).numpy(),
        *column.sum(axis=0).numpy(),
        *deep.sum(axis=(0, 1)).numpy(),
        *deep.transpose(2, 1, 0).sum(axis=1).numpy().reshape(-1),
        t[:1].sum().item(),
        column[:, 1].sum().item(),
        *column.backend.download(column_sums(column.backend, column.data)),
    ):
        assert_sum(found, x, dtype)
    for found in (
        *t.mean(axis=1).numpy(),
        *column.mean(axis=0).numpy(),
        column[:, 1].mean().item(),
    ):
        assert_sum(found, x, dtype, count)


def test_a_sum_of_a_million(device):
    """Several chunks on the CPU, and several blocks on a GPU."""
    if device.startswith("standin"):
        pytest.skip("it takes a minute; kernels with sums of several blocks are tested below")
    x = np.full(1_000_000, 0.1, np.float32)
    assert_sum(gn.tensor(x).sum().item(), x, "float32")
    assert_sum(gn.tensor(x[:, None]).sum(axis=0).numpy()[0], x, "float32")
    zeros = np.zeros_like(x)
    loss = ops.absolute_error(gn.tensor(x), zeros)
    assert_sum(loss.item(), x, "float32", len(x))


@pytest.mark.parametrize("dtype", NARROW_TOO)
def test_gradients_that_are_sums(dtype, device):
    n = 5000
    b = gn.backend(device)
    gy = b.upload(np.full((n, 2), 0.1, dtype))
    one = np.full(n, 0.1, dtype)

    def leaf(*shape):
        return gn.tensor(np.ones(shape, dtype), requires_grad=True, device=device)

    x = gn.tensor(np.ones((n, 2), dtype), device=device)
    for operation in (
        lambda v: x + v,
        lambda v: x - (-v),
        lambda v: x * v,
        lambda v: v / x,
        lambda v: ops.linear(x, x.backend.upload(np.zeros((2, 2), dtype)), v),
    ):
        v = leaf(2)
        operation(v).backward(gy)
        for found in b.download(v.grad):
            assert_sum(found, one, dtype)
    v = leaf(1, 2)
    (x + v).backward(gy)
    assert_sum(b.download(v.grad)[0, 1], one, dtype)
    v = leaf(3, 2)
    ops.take(v, b.upload(np.ones(n, np.int64))).backward(gy)
    assert_sum(b.download(v.grad)[1, 0], one, dtype)
    np.testing.assert_array_equal(b.download(v.grad)[[0, 2]], 0)
    v = leaf(n, 2)
    ops.max(v, axis=0).backward(b.upload(np.ones(2, dtype)))
    np.testing.assert_allclose(b.download(v.grad), 1 / n, rtol=1e-3)


def test_the_gradient_of_a_maximum_of_infinity_and_nan(device):
    x = np.array([[np.inf, 1, np.inf], [np.nan, 1, 2], [-np.inf, 3, 1]], np.float32)
    t = gn.tensor(x, requires_grad=True, device=device)
    ops.max(t, axis=1).backward(t.backend.upload(np.array([1, 1, np.inf], np.float32)))
    expected = [[0.5, 0, 0.5], [np.nan] * 3, [0, np.inf, 0]]
    np.testing.assert_array_equal(t.backend.download(t.grad), expected)


@pytest.mark.parametrize("dtype", NARROW_TOO)
def test_a_product_of_matrices(dtype, device, rng):
    """The error is that of adding up one after another: K eps / 2."""
    x, w = rng.standard_normal((3, 500)).astype(dtype), rng.standard_normal((500, 2)).astype(dtype)
    wide = x.astype(float), w.astype(float)
    found = (gn.tensor(x, device=device) @ gn.tensor(w, device=device)).numpy()
    bound = abs(wide[0]) @ abs(wide[1]) * 500 * 2.0**-24 + np.finfo(dtype).eps * 60
    assert (abs(found - wide[0] @ wide[1]) <= bound).all()


# training ----------------------------------------------------------------------------------------


def flat_of(gradient, device):
    t = gn.tensor(np.zeros_like(gradient), requires_grad=True, device=device)
    flat = FlatParameters([t])
    flat.grad.fill(0)
    flat.backend.write(flat.grad[: gradient.size], gradient.reshape(-1))
    return flat


@pytest.mark.parametrize("size", [1e-30, 1e-3, 1.0, 1e25])
@pytest.mark.parametrize("count", [3, 20_000])
def test_norms(size, count, device):
    flat = flat_of(np.full(count, size, np.float32), device)
    b = flat.backend
    wanted = mp.sqrt(count) * exact(np.float32(size))
    assert_close([b.download(global_norm(flat))], [wanted], [0], "float32", [size])
    norm = clip_by_global_norm(flat, 1e-2)
    assert_close([b.download(norm)], [wanted], [0], "float32", [size])
    scale = min(1, mp.mpf(0.01) / wanted)
    wanted = scale * exact(np.float32(size))
    assert_close([b.download(flat.grad)[0]], [wanted], [0], "float32", [size])
    assert NORM.sums


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_the_state_of_an_optimizer_has_the_digits_of_float64(name, device):
    g = np.array([1e-15, 1e-3, 0.1, 1.0, 1234.5678, 1e15])
    runs = []
    for dtype in ("float32", "float64"):
        p = gn.tensor(np.zeros(g.shape, dtype), requires_grad=True, device=device)
        given = {"momentum": 0.9} if name == "sgd" else {}
        optimizer = OPTIMIZERS[name]([p], lr=np.float32(0.01), **given)
        b = optimizer.flat.backend
        for _ in range(2):
            p.zero_grad()
            (p * b.upload(g.astype("float32").astype(dtype))).sum().backward()
            optimizer.step()
        runs.append([*optimizer.state, optimizer.flat.data])
        runs[-1] = [b.download(a)[: len(g)] for a in runs[-1]]
    for narrow, wide in zip(*runs, strict=True):
        np.testing.assert_allclose(narrow, wide, rtol=8 * 1.2e-7)


@pytest.mark.parametrize("penalty", [optim.L1, optim.L2])
def test_a_penalty_of_many_weights(penalty, device):
    flat = flat_of(np.zeros((200, 100), np.float32), device)
    flat.backend.write(flat.data[:20_000], np.full(20_000, 0.1, np.float32))
    value = penalty(0.5).penalize(flat, flat.backend.one(np.float32))
    each = exact(np.float32(0.1)) ** (2 if penalty is optim.L2 else 1)
    wanted = 20_000 * each / 2
    assert abs(exact(flat.backend.download(value)) - wanted) <= wanted * 2.4e-7 * log2(20_000)
