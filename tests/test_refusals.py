"""Wrong arguments are refused in the words of the library; none is accepted in silence."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gpunn as gn
from gpunn import nn, ops, optim, train
from gpunn.autograd import OPS
from gpunn.errors import DataError, DTypeError, GpunnError, ModelFileError, ShapeError
from gpunn.nn.module import MODULES
from gpunn.ops.gather import RowGather
from gpunn.optim.optimizer import OPTIMIZERS
from gpunn.optim.schedules import SCHEDULES
from tests.opcases import CASES

X = np.arange(24.0).reshape(2, 3, 4)
AXES = st.one_of(
    st.integers(-5, 5),
    st.integers(-5, 5).map(np.int64),
    st.lists(st.integers(-5, 5), max_size=4).map(tuple),
    st.lists(st.integers(-4, 3), max_size=3),
    st.none(),
)
WITH_AXES = {"sum": np.sum, "mean": np.mean, "max": np.max}


def test_every_operation_with_axes_is_tested_here():
    named = {n for n, o in OPS.items() if {"axis", "axes"} & {*o.__signature__.parameters}}
    assert named == {*WITH_AXES, "transpose", "concatenate"}


@pytest.mark.parametrize("name", sorted(WITH_AXES))
@given(axis=AXES, keepdims=st.booleans())
def test_axes_are_those_of_numpy_or_refused(name, axis, keepdims):
    numpy_axis = tuple(axis) if isinstance(axis, list) else axis
    try:
        expected = WITH_AXES[name](X, axis=numpy_axis, keepdims=keepdims)
    except ValueError:
        with pytest.raises(ShapeError):
            OPS[name](X, axis=axis, keepdims=keepdims)
        return
    found = OPS[name](X, axis=axis, keepdims=keepdims)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-14)


@given(axes=st.lists(st.integers(-5, 5), max_size=4))
def test_an_order_of_axes_is_that_of_numpy_or_refused(axes):
    t = gn.tensor(X, requires_grad=True)
    if not axes:
        return
    try:
        expected = X.transpose(axes)
    except ValueError:
        with pytest.raises(ShapeError):
            t.transpose(*axes)
        return
    y = t.transpose(*axes)
    np.testing.assert_array_equal(y.numpy(), expected)
    y.backward(expected)
    np.testing.assert_array_equal(t.grad, X)


@given(axis=st.integers(-5, 5))
def test_an_axis_of_concatenate_is_that_of_numpy_or_refused(axis):
    try:
        expected = np.concatenate([X, X], axis)
    except ValueError:
        with pytest.raises(ShapeError):
            ops.concatenate(X, X, axis=axis)
        return
    np.testing.assert_array_equal(ops.concatenate(X, X, axis=axis).numpy(), expected)


@pytest.mark.parametrize("name", sorted(WITH_AXES))
@pytest.mark.parametrize("axis", [True, 1.0, "0", (0, None), (0.0,), (0, True)])
def test_an_axis_is_an_integer(name, axis):
    with pytest.raises(ShapeError, match="axis="):
        OPS[name](X, axis=axis)


@pytest.mark.parametrize("dtype", ["complex64", "complex128", "U3", "S3", "O", "M8[s]"])
@pytest.mark.parametrize("name", sorted(CASES))
def test_an_array_that_holds_no_numbers(name, dtype, monkeypatch):
    """It is refused wherever an operation takes an array."""
    case = CASES[name]
    inputs = [gn.tensor(a) for a in case.inputs()]
    for k, x in enumerate(inputs):
        changed = [
            t if n != k else gn.Tensor(np.zeros(x.shape, dtype)) for n, t in enumerate(inputs)
        ]
        with pytest.raises(DTypeError):
            case.call(*changed)


OF_FLOATS = {*ops.ACTIVATIONS, "exp", "log", "sin", "cos", "sqrt", *ops.LOSSES}


@pytest.mark.parametrize("name", sorted(n for n in CASES if n.partition("/")[0] in OF_FLOATS))
def test_integers_are_not_made_floats_in_silence(name):
    case = CASES[name]
    with pytest.raises(DTypeError, match="floats"):
        case.call(*(gn.tensor(np.ones(a.shape, np.int64)) for a in case.inputs()))


@pytest.mark.parametrize(
    "wrong", [1j, "1", None, True, 1e300, -1e300, pytest.param(10**400, id="huge"), [1.0]]
)
@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "divide"])
def test_a_number_that_does_not_fit(name, wrong):
    x = gn.tensor(np.ones(3, np.float32))
    with pytest.raises(DTypeError):
        OPS[name](x, wrong)
    if not isinstance(wrong, list):
        with pytest.raises(DTypeError):
            OPS[name](wrong, x)
    for fits in (np.inf, 3e38, np.float64(2), np.int64(3), 7):
        assert OPS[name](x, fits).dtype == "float32"
    with pytest.raises(DTypeError, match="int8"):
        ops.add(np.ones(3, np.int8), 300)


@given(
    st.sampled_from(["int8", "uint8", "int16", "uint32", "int64", "uint64"]),
    st.lists(st.floats(width=32), min_size=1, max_size=3),
)
def test_integers_have_every_number_that_is_cast_to_them(dtype, values):
    x = np.array(values)
    limits = np.iinfo(dtype)
    fits = all(np.isfinite(v) and limits.min <= int(v) <= limits.max for v in values)
    if not fits:
        with pytest.raises(DataError, match=dtype):
            ops.astype(x, dtype)
        return
    assert ops.astype(x, dtype).numpy().tolist() == [int(v) for v in values]


@pytest.mark.parametrize("dtype", ["complex64", "U1", "O", "float128", "nonsense", None])
def test_a_dtype_that_a_tensor_cannot_have(dtype):
    with pytest.raises(DTypeError):
        ops.astype(X, dtype)
    if dtype is not None:
        with pytest.raises(DTypeError):
            gn.tensor([1.0], dtype=dtype)


def test_numbers_beyond_a_dtype():
    for make in (
        lambda: gn.tensor([1e300]),
        lambda: gn.tensor(np.array([1e6]), dtype="float16"),
        lambda: nn.Standardize(np.array([1e300]), np.ones(1)),
        lambda: gn.Trainer(nn.Linear(2, 1)).fit(np.full((3, 2), 1e300), np.ones((3, 1))),
    ):
        with pytest.raises(DataError, match="expected numbers of at most"):
            make()
    assert np.isinf(gn.tensor([np.inf]).numpy()).all()
    with pytest.raises(GpunnError, match="0"):
        nn.Standardize(np.zeros(1), np.full(1, 1e-300))


@pytest.mark.parametrize("bad", [np.full((2, 1), 1e300), np.full((2, 1), 1j), np.full((2, 1), "a")])
def test_weights_that_do_not_fit_leave_the_model_alone(bad):
    layer = nn.Linear(2, 1)
    before = layer.state_dict()
    for state in (None, 3, before | {"weight": bad}):
        with pytest.raises(ModelFileError):
            layer.load_state_dict(state)
    for name, array in layer.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    optimizer = optim.Adam(layer.parameters())
    state = optimizer.state_dict()
    slot = state["mean"]
    with pytest.raises(ModelFileError):
        optimizer.load_state_dict(state | {"mean": np.full(slot.shape, bad[0, 0])})
    np.testing.assert_array_equal(optimizer.state_dict()["mean"], slot)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "uint64"])
@given(numbers=st.lists(st.integers(-5, 2**64 - 1), min_size=1, max_size=3))
def test_row_numbers_are_those_of_numpy_or_refused(dtype, numbers):
    limits, x = np.iinfo(dtype), X[:, 0, 0]
    index = np.array([min(max(n, limits.min), limits.max) for n in numbers], dtype)
    if all(-2 <= int(n) < 2 for n in index):
        np.testing.assert_array_equal(ops.take(x, index).numpy(), x[index.astype(int)])
        return
    with pytest.raises(DataError):
        ops.take(x, index)


def test_an_index_is_no_boolean():
    with pytest.raises(GpunnError, match="bool"):
        gn.tensor(X)[True]


@pytest.mark.parametrize("rows", [0, 1, 4])
def test_a_gather_reads_no_row_number_past_the_end(rows, device):
    b = gn.backend(device)
    order, tick = b.upload(np.zeros(rows, np.int64)), b.zeros((), np.int64)
    gather = RowGather(b, (b.upload(np.ones((7, 3), np.float32)),))
    if b.synchronous:
        with pytest.raises(DataError, match="row numbers"):
            gather(order, tick, 0, 5)
        return
    found = b.download(gather(order, tick, 0, 5)[0])
    np.testing.assert_array_equal(np.isnan(found).all(axis=1), np.arange(5) >= rows)


def test_a_recorded_gather_reads_no_row_number_past_the_end():
    b = gn.backend("cpu")
    order, tick = np.arange(6), np.zeros((), np.int64)
    out = np.zeros((4, 3), np.float32)
    gather = RowGather(b, (np.ones((6, 3), np.float32),))
    plan = b.record(lambda: gather(order, tick, 0, 4, (out,)))
    tick.fill(1)  # rows 4 to 7 of an order of 6
    try:
        plan.launch()
    except DataError:
        return  # NumPy's body can raise
    np.testing.assert_array_equal(np.isnan(out).all(axis=1), [False, False, True, True])


# options -----------------------------------------------------------------------------------------

WRONG = [float("nan"), "a", None, 1j, [1.0], 10**400]
MADE = {
    **{f"optim.{name}": kind for name, kind in OPTIMIZERS.items()},
    **{f"schedules.{name}": kind for name, kind in SCHEDULES.items()},
    **{f"nn.{n}": k for n, k in MODULES.items() if k.__module__.startswith("gpunn.")},
    **{f"optim.{n}": getattr(optim, n) for n in ("L1", "L2", "ElasticNet", "MaxNorm")},
    **{f"train.{n}": getattr(train, n) for n in ("EarlyStopping",)},
}
NEEDED = {"in_features": 2, "out_features": 2, "features": 2, "strength": 0.1, "limit": 1.0}
NEEDED |= {"mean": np.zeros(2), "scale": np.ones(2), "center": np.zeros(2), "numbers": 2}
NEEDED |= {"members": [nn.Linear(2, 2)], "levels": [0, 2]}
NEEDED |= {"num_embeddings": 2, "embedding_dim": 2}


def options():
    """Each option that is a number or a flag, of all that is made with options."""
    for name, kind in MADE.items():
        for option, p in inspect.signature(kind).parameters.items():
            annotation = str(p.annotation)
            if option == "seed" or annotation.partition(" ")[0] not in ("float", "int", "bool"):
                continue
            yield name, option, annotation


def made(name, **changed):
    kind = MADE[name]
    known = inspect.signature(kind).parameters
    return kind(**{k: v for k, v in NEEDED.items() if k in known} | changed)


@pytest.mark.parametrize(("name", "option", "kind"), sorted(options()))
def test_an_option_that_is_no_number(name, option, kind):
    for wrong in [
        *WRONG,
        *([] if kind == "bool" else [True]),
        *([2, 0.5] if kind == "bool" else []),
    ]:
        if wrong is None and kind.endswith("None"):
            continue
        if wrong == [1.0] and "Sequence" in kind:
            continue
        with pytest.raises(GpunnError):
            made(name, **{option: wrong})
    if kind == "int":
        assert made(name, **{option: np.int64(3)}) is not None
        with pytest.raises(GpunnError):
            made(name, **{option: 0})
    if kind == "float":
        with pytest.raises(GpunnError):
            made(name, **{option: float("inf")})
        with pytest.raises(GpunnError):
            made(name, **{option: -1.0})


NUMBERED = [
    (function, option)
    for function in (*ops.ACTIVATIONS.values(), *ops.LOSSES.values())
    for option in getattr(function, "limits", {})
]


@pytest.mark.parametrize("wrong", [*WRONG, True], ids=range(len(WRONG) + 1))
@pytest.mark.parametrize(("operation", "option"), NUMBERED)
def test_a_number_of_a_formula(operation, option, wrong):
    x = np.ones((2, 3), np.float32)
    given = (x, np.array([0, 1])) if operation.name in ("multiclass_hinge", "focal") else (x, x)
    given = given if operation.name in ops.LOSSES else (x,)
    if operation.name == "gaussian_nll":
        given = (*given, x)
    if wrong is True and operation.limits[option].type == "bool":
        assert operation(*given, **{option: wrong}) is not None
        return
    with pytest.raises(GpunnError):
        operation(*given, **{option: wrong})


@pytest.mark.parametrize("wrong", ["no", 1, None, 0.5])
def test_shuffle_is_a_flag_or_a_function(wrong):
    with pytest.raises(GpunnError, match="shuffle"):
        gn.Trainer(nn.Linear(1, 2)).fit(
            np.ones((4, 1)), [0, 1, 0, 1], shuffle=wrong, progress=False
        )


@given(shape=st.lists(st.integers(-3, 24), max_size=4).map(tuple))
def test_a_shape_of_reshape_has_at_most_one_size_to_be_computed(shape):
    try:
        expected = X.reshape(shape)
    except ValueError:
        expected = None
    if expected is None or min(shape, default=0) < -1:  # NumPy takes -2 for -1
        with pytest.raises(ShapeError, match="got reshape of"):
            ops.reshape(X, shape)
        return
    np.testing.assert_array_equal(ops.reshape(X, shape).numpy(), expected)


@pytest.mark.parametrize("shape", [(-2, 4), -24, (4.0, 6.0), (True, 24), ("4", 6), None])
def test_a_size_is_an_integer(shape):
    with pytest.raises(ShapeError, match="got reshape of"):
        ops.reshape(X, shape)


def masked(array, *places):
    mask = np.zeros(np.shape(array), bool)
    mask.reshape(-1)[[*places]] = True
    return np.ma.masked_array(array, mask)


@pytest.mark.parametrize("what", ["x", "y", "sample_weight", "validation", "predict", "tensor"])
def test_a_masked_number_is_missing(what):
    x, y, w = np.ones((6, 4), np.float32), np.arange(6) % 3, np.ones(6)
    trainer = gn.Trainer(nn.Linear(4, 3))

    def fit(x=x, y=y, sample_weight=w, validation=(x, y)):
        given = {"sample_weight": sample_weight, "validation": validation}
        trainer.fit(x, y, epochs=1, progress=False, **given)

    calls = {
        "x": lambda *places: fit(x=masked(x, *places)),
        "y": lambda *places: fit(y=masked(y, *places)),
        "sample_weight": lambda *places: fit(sample_weight=masked(w, *places)),
        "validation": lambda *places: fit(validation=(x, masked(y, *places))),
        "predict": lambda *places: trainer.predict(masked(x, *places)),
        "tensor": lambda *places: gn.tensor(masked(x, *places)),
    }
    with pytest.raises(DataError, match="2 elements are masked"):
        calls[what](1, 3)
    calls[what]()


@pytest.mark.parametrize("stratify", [np.arange(6), "yes", 1.0])
def test_stratify_is_a_flag(stratify):
    with pytest.raises(gn.errors.ArgumentError, match="stratify"):
        gn.data.Dataset(np.ones((6, 2)), np.arange(6) % 2).split(0.5, stratify=stratify)


ONE_HOT = np.eye(3)[np.arange(6) % 3]


@pytest.mark.parametrize("on", ["cpu", "standin:0"])
@pytest.mark.parametrize(
    "rows", [ONE_HOT * 0, ONE_HOT * 0 + 1, -ONE_HOT, 2 * ONE_HOT, 1 - ONE_HOT, 2 * ONE_HOT - 1 / 3]
)
def test_rows_of_targets_are_probabilities(rows, on):
    targets = ONE_HOT.copy()
    targets[4] = rows[4]
    trainer = gn.Trainer(nn.Linear(4, 3), device=on)
    with pytest.raises(DataError, match="row 4 of the targets"):
        trainer.fit(np.ones((6, 4), np.float32), targets, epochs=1, progress=False)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "bool"])
def test_probabilities_are_accepted(dtype):
    targets = ONE_HOT if dtype in ("int64", "bool") else 0.9 * ONE_HOT + 0.1 / 3
    trainer = gn.Trainer(nn.Linear(4, 3, dtype="float64"))
    trainer.fit(np.ones((6, 4)), targets.astype(dtype), epochs=1, progress=False)
