"""Sample inputs for every operation; activations and losses come from their registries.

A name is an operation's, or "operation/variant". An operation without a row fails a test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from gpunn import ops
from gpunn.autograd import OPS
from gpunn.backends import RandomStream
from gpunn.ops.classifier import classifier_loss
from gpunn.ops.columns import level_columns
from gpunn.ops.linear import Dropped
from tests import reference


@dataclass(frozen=True)
class Case:
    """What to feed an operation.

    `shapes` of standard normal inputs (or `make`, which gives the arrays); `call` takes tensors;
    `expected` takes the arrays.
    """

    call: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...] = ((3, 4),)
    make: Callable[[], list[np.ndarray]] | None = None
    expected: Callable[..., Any] | None = None
    differentiable: bool = True

    def inputs(self):
        if self.make is not None:
            return self.make()
        rng = np.random.default_rng(0)
        return [rng.standard_normal(shape) for shape in self.shapes]


def positive():
    return [np.random.default_rng(0).uniform(0.5, 2.0, (3, 4))]


def probabilities():
    return [np.random.default_rng(0).uniform(0.1, 0.9, (3, 4))]


LABELS = np.array([2, 0, 3])
WEIGHTS = [0.5, 3.0, 2.0, 0.25]
ROWS = np.array([[2, 0], [-1, 2]])
CODED = np.array([2, 2, 2, 3]), np.array([0, 1, 2, 1]), np.array([-0.5, -0.5, -0.5, 0])
MASK = np.array([[True, False, True, True], [False] * 4, [True] * 4])
SIGNED = ("perceptron", "hinge")
SIGNS = np.array([[1, -1, 1, -1], [-1, -1, 1, 1], [1, 1, 1, -1]], np.int64)
DRAW = RandomStream(11, 5).draw()
LAYERS = ((3, 5), (5, 7), (7,), (7, 4), (4,))


def elementwise(function):
    return lambda x: [[function(v) for v in row] for row in x]


def reference_of(table, name):
    """The reference of an operation, looked up when it is called."""

    def call(*args):
        known = getattr(reference, table)
        if name not in known:
            pytest.fail(f"{name} has no reference: add its reference to tests/reference.py")
        return known[name](*args)

    return call


CASES = {
    "add": Case(lambda x, y: x + y, ((3, 4), (4,)), expected=lambda x, y: x + y),
    "add/number": Case(lambda x: 2.0 + x, expected=lambda x: 2 + x),
    "subtract": Case(lambda x, y: x - y, ((3, 1), (3, 4)), expected=lambda x, y: x - y),
    "subtract/number": Case(lambda x: 1.0 - x, expected=lambda x: 1 - x),
    "multiply": Case(lambda x, y: x * y, ((3, 4), (3, 1)), expected=lambda x, y: x * y),
    "multiply/same": Case(lambda x: x * x, expected=lambda x: x**2),
    "divide": Case(
        lambda x, y: x / y,
        make=lambda: [np.random.default_rng(1).standard_normal(4), *positive()],
        expected=lambda x, y: x / y,
    ),
    "divide/number": Case(lambda x: 2.0 / x, make=positive, expected=lambda x: 2 / x),
    "negative": Case(lambda x: -x, expected=lambda x: -x),
    "power": Case(lambda x: x**3, expected=lambda x: x**3),
    "sin": Case(ops.sin, expected=np.sin),
    "cos": Case(ops.cos, expected=np.cos),
    "exp": Case(ops.exp, expected=np.exp),
    "log": Case(ops.log, make=positive, expected=np.log),
    "sqrt": Case(ops.sqrt, make=positive, expected=np.sqrt),
    "abs": Case(abs, expected=np.abs),
    "matmul": Case(lambda x, y: x @ y, ((3, 4), (4, 2)), expected=lambda x, y: x @ y),
    "matmul/transposed": Case(
        lambda x, y: x.T @ y, ((4, 3), (4, 2)), expected=lambda x, y: x.T @ y
    ),
    "sum": Case(lambda x: x.sum(), expected=np.sum),
    "sum/axis": Case(lambda x: x.sum(axis=1), expected=lambda x: x.sum(1)),
    "sum/keepdims": Case(
        lambda x: x.sum(axis=(0, 1), keepdims=True), expected=lambda x: [[x.sum()]]
    ),
    "mean": Case(lambda x: x.mean(), expected=np.mean),
    "mean/axis": Case(lambda x: x.mean(axis=0, keepdims=True), expected=lambda x: [x.mean(0)]),
    "max": Case(lambda x: ops.max(x, axis=1), expected=lambda x: x.max(1)),
    "max/all": Case(ops.max, expected=np.max),
    "reshape": Case(lambda x: x.reshape(2, -1), expected=lambda x: x.reshape(2, -1)),
    "astype": Case(lambda x: x.astype("float64").astype(x.dtype), expected=lambda x: x),
    "transpose": Case(
        lambda x: x.transpose(1, 2, 0), ((2, 3, 4),), expected=lambda x: x.transpose(1, 2, 0)
    ),
    "getitem": Case(lambda x: x[1:, ::2], expected=lambda x: x[1:, ::2]),
    "getitem/integer": Case(lambda x: x[1, 2], expected=lambda x: x[1, 2]),
    "getitem/rows": Case(lambda x: x[ROWS], expected=lambda x: x[ROWS]),
    "getitem/elements": Case(
        lambda x: x[[0, 2, 1], LABELS], expected=lambda x: x[[0, 2, 1], LABELS]
    ),
    "getitem/columns": Case(lambda x: x[:, [3, 0, 3]], expected=lambda x: x[:, [3, 0, 3]]),
    "getitem/mask": Case(lambda x: x[MASK], expected=lambda x: x[MASK]),
    "take": Case(lambda x: ops.take(x, x.backend.upload(ROWS)), expected=lambda x: x[ROWS]),
    "take/deep": Case(
        lambda x: ops.take(x, x.backend.upload(ROWS)), ((3, 2, 2),), expected=lambda x: x[ROWS]
    ),
    "embedding": Case(
        lambda w: ops.embedding(w.backend.upload(abs(ROWS)), w), expected=lambda w: w[abs(ROWS)]
    ),
    "embedding/floats": Case(
        lambda w: ops.embedding(w.backend.upload(abs(ROWS).astype(w.dtype)), w),
        expected=lambda w: w[abs(ROWS)],
    ),
    "concatenate": Case(
        ops.concatenate, ((3, 4), (3, 2)), expected=lambda x, y: np.concatenate([x, y], 1)
    ),
    "level_columns": Case(
        lambda x: level_columns(
            x,
            *(
                x.backend.upload(part.astype(kind))
                for part, kind in zip(CODED, (np.int64, x.dtype, x.dtype), strict=True)
            ),
            2,
        ),
        make=lambda: [np.array([[0.5, -2.0, 0, 1], [0.1, 3.0, 2, 0], [9.0, 0.2, -1, 7]])],
        expected=lambda x: np.array(
            [[0.5, -2, 1, 0, 0, 1], [0.1, 3, 0, 0, 1, -1], [9, 0.2, 0, 0, 0, 0]]
        ),
        differentiable=False,
    ),
    "smooth_clip": Case(ops.smooth_clip, expected=lambda x: x / np.sqrt(1 + x**2 / 9)),
    "smooth_clip/limit": Case(
        lambda x: ops.smooth_clip(x, limit=0.5), expected=lambda x: x / np.sqrt(1 + x**2 / 0.25)
    ),
    "waves": Case(ops.waves, ((5, 4), (3, 6), (3, 6), (3, 6, 2), (3, 2)), expected=reference.waves),
    "linear": Case(ops.linear, ((3, 4), (4, 2), (2,)), expected=reference.linear),
    "linear/no bias": Case(ops.linear, ((3, 4), (4, 2)), expected=lambda x, w: x @ w),
    "linear/3-d": Case(ops.linear, ((2, 3, 4), (4, 2), (2,)), expected=lambda x, w, b: x @ w + b),
    "linear/1-d": Case(ops.linear, ((4,), (4, 2), (2,)), expected=lambda x, w, b: x @ w + b),
    "classifier_loss": Case(
        lambda *arrays: classifier_loss(*arrays, arrays[0].backend.upload(LABELS)),
        LAYERS,
        expected=lambda x, w, bias, *output: np.mean(
            reference.softmax_cross_entropy(
                reference.linear(np.maximum(reference.linear(x, w, bias), 0), *output), LABELS
            )
        ),
    ),
    "classifier_loss/dropout": Case(
        lambda *arrays: classifier_loss(
            *arrays,
            arrays[0].backend.upload(LABELS),
            dropout=Dropped(0.3, DRAW),
            label_smoothing=0.2,
            reduction="sum",
        ),
        LAYERS,
        expected=lambda x, w, bias, *output: ops.softmax_cross_entropy(
            ops.linear(
                ops.linear(x, w, bias, activation=ops.relu, dropout=Dropped(0.3, DRAW)), *output
            ),
            LABELS,
            label_smoothing=0.2,
            reduction="sum",
        ).numpy(),
    ),
    "softmax": Case(ops.softmax, expected=lambda x: [reference.softmax(row) for row in x]),
    "log_softmax": Case(
        ops.log_softmax, expected=lambda x: [reference.log_softmax(row) for row in x]
    ),
    "dropout": Case(lambda x: ops.dropout(x, rate=0.3, draw=DRAW), ((5, 13),)),
    "vanilla_dropout": Case(lambda x: ops.vanilla_dropout(x, rate=0.5, draw=DRAW), ((5, 13),)),
    "layer_norm": Case(ops.layer_norm, ((3, 4), (4,), (4,)), expected=reference.layer_norm),
    "rms_norm": Case(ops.rms_norm, ((3, 4), (4,)), expected=reference.rms_norm),
    "rms_norm/eps": Case(
        lambda x, gamma: ops.rms_norm(x, gamma, eps=0.5),
        ((3, 4), (4,)),
        expected=lambda x, gamma: reference.rms_norm(x, gamma, 0.5),
    ),
    "batch_norm": Case(
        lambda x, g, b: ops.batch_norm(
            x,
            g,
            b,
            running_mean=x.backend.zeros((4,), x.dtype),
            running_variance=x.backend.zeros((4,), x.dtype),
        ),
        ((5, 4), (4,), (4,)),
        expected=lambda x, g, b: (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5) * g + b,
    ),
    "softmax_cross_entropy": Case(
        lambda z: ops.softmax_cross_entropy(z, z.backend.upload(LABELS), reduction="none"),
        expected=lambda z: reference.softmax_cross_entropy(z, LABELS),
    ),
    "softmax_cross_entropy/one-hot": Case(
        lambda z: ops.softmax_cross_entropy(z, z.backend.upload(np.eye(4)[LABELS].astype(z.dtype))),
        expected=lambda z: np.mean(reference.softmax_cross_entropy(z, LABELS)),
    ),
    "softmax_cross_entropy/sum": Case(
        lambda z: ops.softmax_cross_entropy(z, z.backend.upload(LABELS), reduction="sum"),
        expected=lambda z: np.sum(reference.softmax_cross_entropy(z, LABELS)),
    ),
    "softmax_cross_entropy/weights": Case(
        lambda z: ops.softmax_cross_entropy(
            z, z.backend.upload(LABELS), weight=WEIGHTS, ignore_index=0
        ),
        expected=lambda z: np.average(
            reference.softmax_cross_entropy(z, LABELS), weights=[WEIGHTS[2], 0, WEIGHTS[3]]
        ),
    ),
    "softmax_cross_entropy/smoothed weights": Case(
        lambda z: ops.softmax_cross_entropy(
            z, z.backend.upload(LABELS), weight=WEIGHTS, label_smoothing=0.2
        ),
        expected=lambda z: reference.smoothed_cross_entropy(z, LABELS, WEIGHTS, 0.2),
    ),
    "focal": Case(
        lambda z: ops.focal(z, z.backend.upload(LABELS), reduction="none"),
        expected=lambda z: reference.focal(z, LABELS, 2.0),
    ),
    "focal/options": Case(
        lambda z: ops.focal(z, z.backend.upload(LABELS), gamma=0.5, weight=WEIGHTS),
        expected=lambda z: np.average(
            reference.focal(z, LABELS, 0.5), weights=np.take(WEIGHTS, LABELS)
        ),
    ),
    "gaussian_nll": Case(
        lambda p: ops.gaussian_nll(p, p.backend.upload(SIGNS[:, :2]), reduction="none"),
        expected=lambda p: np.vectorize(reference.gaussian_nll)(
            p[:, :2], SIGNS[:, :2], np.log1p(np.exp(p[:, 2:]))
        ),
    ),
    "gaussian_nll/variance": Case(
        lambda p, v: ops.gaussian_nll(p, p.backend.upload(SIGNS), v, full=True),
        make=lambda: [np.random.default_rng(1).standard_normal((3, 4)), *positive()],
        expected=lambda p, v: (
            np.vectorize(reference.gaussian_nll)(p, SIGNS, v).mean() + np.log(2 * np.pi) / 2
        ),
    ),
    "gaussian_nll/one variance": Case(
        lambda p, v: ops.gaussian_nll(p, p.backend.upload(SIGNS), v, reduction="sum"),
        make=lambda: [np.random.default_rng(1).standard_normal((3, 4)), positive()[0][:, :1]],
        expected=lambda p, v: np.vectorize(reference.gaussian_nll)(p, SIGNS, v).sum(),
    ),
    "binary_cross_entropy_with_logits/weights": Case(
        lambda p: ops.binary_cross_entropy_with_logits(
            p, p.backend.upload(np.maximum(SIGNS, 0)), weight=np.eye(3, 4), pos_weight=WEIGHTS
        ),
        expected=lambda p: np.mean(
            np.eye(3, 4) * np.where(SIGNS > 0, WEIGHTS * np.log1p(np.exp(-p)), np.log1p(np.exp(p)))
        ),
    ),
    "binary_cross_entropy/weights": Case(
        lambda p: ops.binary_cross_entropy(
            p, p.backend.upload(np.maximum(SIGNS, 0)), weight=WEIGHTS, reduction="sum"
        ),
        make=probabilities,
        expected=lambda p: -np.sum(WEIGHTS * np.log(np.where(SIGNS > 0, p, 1 - p))),
    ),
    "kullback_leibler/log_target": Case(
        lambda p: ops.kullback_leibler(p, p.backend.upload(-(SIGNS**2)), log_target=True),
        expected=lambda p: np.mean(np.exp(-1) * (-1 - p)),
    ),
    "kullback_leibler/batchmean": Case(
        lambda p: ops.kullback_leibler(
            p, p.backend.upload(np.maximum(SIGNS, 0)), reduction="batchmean"
        ),
        expected=lambda p: -np.sum(p * np.maximum(SIGNS, 0)) / 3,
    ),
    "multiclass_hinge": Case(
        lambda s: ops.multiclass_hinge(s, s.backend.upload(LABELS), reduction="none"),
        expected=lambda s: reference.multiclass_hinge(s, LABELS),
    ),
    "multiclass_hinge/margin": Case(
        lambda s: ops.multiclass_hinge(s, s.backend.upload(LABELS), margin=0.2),
        expected=lambda s: np.mean(reference.multiclass_hinge(s, LABELS, 0.2)),
    ),
}

for _name, _activation in ops.ACTIVATIONS.items():
    if isinstance(_activation, ops.Activation):
        CASES[_name] = Case(
            OPS[_name],
            expected=elementwise(reference_of("ACTIVATIONS", _name)),
            differentiable=_activation.differentiable,
        )

for _name in sorted(name for name, loss in ops.LOSSES.items() if loss.pairs):
    _reference = reference_of("LOSSES", _name)
    for _reduction in ops.loss_reduction.REDUCTIONS:
        CASES[f"{_name}/{_reduction}"] = Case(
            lambda p, n=_name, r=_reduction: (
                OPS[n](p, p.backend.upload(SIGNS), reduction=r)
                if n in SIGNED
                else OPS[n](p, p.backend.upload((SIGNS + 1) // 2), reduction=r)
            ),
            make=probabilities if _name == "binary_cross_entropy" else None,
            expected=lambda p, n=_name, r=_reduction, f=_reference: {
                "none": np.asarray,
                "sum": np.sum,
                "mean": np.mean,
            }[r](np.vectorize(f)(p, SIGNS if n in SIGNED else (SIGNS + 1) // 2)),
        )
