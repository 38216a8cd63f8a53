"""Weights of classes in a fit and in losses, and labels that do not count."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight

import gpunn as gn
from gpunn import nn, ops
from gpunn.errors import ArgumentError, DataError, ModelFileError, ShapeError
from gpunn.train.class_weights import weights_of_classes

pytestmark = pytest.mark.fast

WEIGHTS = {0: 0.5, 1: 3.0, 3: 2.0}
CROSS = "softmax_cross_entropy"


def problem(rng, rows=24):
    return rng.standard_normal((rows, 3)), np.r_[np.arange(4), rng.choice(3, rows - 4)]


def trained(x, y, loss=CROSS, *, device="cpu", outputs=4, trainer=None, **options):
    net = nn.Sequential(
        nn.Linear(3, 5, "tanh", seed=1, dtype="float64", device=device),
        nn.Linear(5, outputs, seed=2, dtype="float64", device=device),
    )
    made = gn.Trainer(net, loss, gn.optim.SGD(lr=0.3), device=device, seed=0, **(trainer or {}))
    some = {"epochs": 3, "batch_size": 7, "progress": False} | options
    return made, made.fit(x, y, **some)


def assert_same(one, other, rtol=1e-12):
    for name, value in one.model.state_dict().items():
        np.testing.assert_allclose(value, other.model.state_dict()[name], rtol=rtol, err_msg=name)


@pytest.mark.parametrize("given", [WEIGHTS, "balanced", [0.5, 3.0, 1.0, 2.0]])
@pytest.mark.parametrize("form", ["labels", "rows"])
def test_a_weight_of_a_class_is_one_of_its_examples(given, form, device, rng):
    x, y = problem(rng)
    each = dict(enumerate(given)) if isinstance(given, list) else given
    each = {label: each.get(label, 1.0) for label in range(4)} if isinstance(each, dict) else each
    expected = compute_sample_weight(each, y)
    targets = y if form == "labels" else np.eye(4)[y]
    ours, curve = trained(x, targets, device=device, class_weight=given)
    theirs, other = trained(x, targets, device=device, sample_weight=expected)
    assert curve["loss"] == other["loss"]
    assert_same(ours, theirs)


def test_balanced_leaves_out_classes_without_examples(rng):
    x, y = problem(rng)
    y[y == 3] = 0
    found = compute_class_weight("balanced", classes=np.arange(3), y=y)
    model, loss = nn.Linear(3, 4, dtype="float64"), ops.softmax_cross_entropy
    each = weights_of_classes(model, loss, (x, y), "balanced")
    np.testing.assert_allclose(each, found[y], rtol=1e-15)
    marked = np.where(np.arange(len(y)) < 9, -1, y)
    ignoring = partial(loss, ignore_index=-1)
    each = weights_of_classes(model, ignoring, (x, marked), "balanced")
    np.testing.assert_allclose(each[9:], compute_sample_weight("balanced", y[9:]), rtol=1e-15)
    ours, _ = trained(x, y, class_weight="balanced")
    theirs, _ = trained(x, y, class_weight=dict(enumerate(found)))
    assert_same(ours, theirs)


def test_weights_of_examples_and_of_classes_multiply(device, rng):
    x, y = problem(rng)
    own = rng.uniform(0.5, 2, len(y))
    ours, _ = trained(x, y, device=device, class_weight=WEIGHTS, sample_weight=own)
    whole = own * [WEIGHTS.get(label, 1.0) for label in y]
    theirs, _ = trained(x, y, device=device, sample_weight=whole)
    assert_same(ours, theirs)
    loss = ops.get_loss(CROSS, weight=[WEIGHTS.get(label, 1.0) for label in range(4)])
    for shards in (None, 2):
        some = {"device": device, "sample_weight": own, "trainer": {"shards": shards}}
        inside, _ = trained(x, y, loss, **some)
        outside, _ = trained(x, y, class_weight=WEIGHTS, **some)
        assert_same(inside, outside, 1e-10)


@pytest.mark.parametrize(
    ("loss", "labels"), [("binary_cross_entropy_with_logits", (0, 1)), ("hinge", (-1, 1))]
)
@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_weights_of_two_classes(loss, labels, shape, rng):
    x = rng.standard_normal((24, 3))
    y = np.where(x[:, 0] > 0.5, *labels[::-1])
    ours, _ = trained(x, y.reshape(shape), loss, outputs=1, class_weight={labels[1]: 3.0})
    each = np.where(y == labels[1], 3.0, 1.0)
    theirs, _ = trained(x, y, loss, outputs=1, sample_weight=each)
    assert_same(ours, theirs)
    balanced, _ = trained(x, y, loss, outputs=1, class_weight="balanced")
    theirs, _ = trained(x, y, loss, outputs=1, sample_weight=compute_sample_weight("balanced", y))
    assert_same(balanced, theirs)


@pytest.mark.parametrize("shards", [None, 1, 3])
def test_the_weight_of_a_loss_is_that_of_its_examples(shards, device, rng):
    """In training, where both are a mean by the sum of the weights, whatever the shards."""
    x, y = problem(rng)
    options = {} if shards is None else {"trainer": {"shards": shards}}
    table = [WEIGHTS.get(label, 1.0) for label in range(4)]
    loss = ops.get_loss(CROSS, weight=table)
    ours, curve = trained(x, y, loss, device=device, **options)
    theirs, other = trained(x, y, device=device, class_weight=WEIGHTS, **options)
    np.testing.assert_allclose(curve["loss"], other["loss"], rtol=1e-12)
    assert_same(ours, theirs, 1e-10)
    z = ours.predict(x)
    losses = np.log(np.exp(z).sum(1)) - z[np.arange(len(y)), y]
    expected = np.average(losses, weights=np.take(table, y))
    for rows in (5, 100):  # the mean of all examples, however they are divided
        found = ours.evaluate(x, y, batch_size=rows)["loss"]
        assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("shards", [None, 2])
def test_a_label_to_ignore_is_as_if_its_example_were_not_there(shards, device, rng):
    """Also in a batch of nothing else, and in a shard of nothing else."""
    x, y = problem(rng, 18)
    gone = np.r_[np.zeros(6), np.ones(6), [0, 0, 0, 1, 1, 1]].astype(bool)
    marked = np.where(gone, -100, y)
    some = {"device": device, "shuffle": False, "batch_size": 6, "epochs": 1}
    loss = ops.get_loss(CROSS, ignore_index=-100)
    ours, curve = trained(x, marked, loss, **some, trainer={"shards": shards})
    batches = [(x[:6], y[:6]), (x[12:15], y[12:15])]
    theirs, _ = trained(batches, None, device=device, epochs=1)
    assert_same(ours, theirs)
    assert np.isfinite(curve["loss"]).all()
    kept = theirs.evaluate(x[~gone], y[~gone])
    for rows in (4, 100):
        found = ours.evaluate(x, marked, batch_size=rows)
        assert found["loss"] == pytest.approx(kept["loss"], rel=1e-12)
        assert found["accuracy"] == kept["accuracy"]


@pytest.mark.parametrize("precision", ["float16", "bfloat16", "tf32"])
def test_narrow_precisions(precision, cuda_device, rng):
    x, y = problem(rng, 200)
    y = np.where(rng.random(200) < 0.2, -100, y)
    for loss in (CROSS, "focal"):
        options = {"weight": [1.0, 0.5, 2.0, 4.0], "ignore_index": -100}
        net = nn.Sequential(nn.Linear(3, 32, "relu6", seed=1), nn.Linear(32, 4, seed=2))
        chosen = ops.get_loss(loss, **options)
        trainer = gn.Trainer(net, chosen, lr=0.01, device=cuda_device, precision=precision)
        history = trainer.fit(x, y, epochs=5, batch_size=50, progress=False)
        assert history["loss"][-1] < history["loss"][0]
        found = trainer.evaluate(x, y)["loss"]
        assert found == pytest.approx(history["loss"][-1], rel=0.2)


def test_a_label_to_ignore_may_be_a_class(rng):
    x, y = problem(rng)
    loss = partial(ops.softmax_cross_entropy, ignore_index=0)
    trainer, _ = trained(x, y, loss, trainer={"metrics": ["balanced_accuracy"]})
    found, kept = trainer.evaluate(x, y), trainer.evaluate(x[y > 0], y[y > 0])
    for name, value in kept.items():
        assert found[name] == pytest.approx(value, rel=1e-12), name


def test_a_batch_without_weight_has_no_gradient_in_shards(rng):
    x, y = problem(rng, 12)
    weights = np.r_[np.zeros(6), np.ones(6)]
    some = {"shuffle": False, "batch_size": 6, "epochs": 1}
    both, _ = trained(x, y, sample_weight=weights, **some, trainer={"shards": 2})
    half, _ = trained(x[6:], y[6:], **some, trainer={"shards": 2})
    assert_same(both, half)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("uniform", "got class_weight='uniform'; expected \"balanced\""),
        ({4: 1.0}, "label 4; expected labels from 0 to 3"),
        ({"a": 1.0}, "label 'a'"),
        ({True: 1.0}, "label True"),
        ([1.0, 2.0], r"shape \(2,\) for 4 classes"),
        (2.0, r"shape \(\) for 4 classes"),
        ([1.0, -2.0, 1, 1], "at least 0"),
        ({0: np.nan}, "finite"),
        ([0.0] * 4, "above 0"),
        ([[1.0] * 4], "shape"),
    ],
)
def test_weights_that_do_not_fit(given, words, rng):
    with pytest.raises(ArgumentError, match=words):
        trained(*problem(rng), class_weight=given)


def test_where_there_are_no_classes_to_weigh(rng, tmp_path):
    x, y = problem(rng)
    with pytest.raises(ArgumentError, match="without classes"):
        trained(x, y[:, None], "squared_error", outputs=1, class_weight="balanced")
    with pytest.raises(ArgumentError, match="pos_weight"):
        trained(x, np.eye(4)[y], "binary_cross_entropy_with_logits", class_weight={1: 2.0})
    with pytest.raises(ArgumentError, match="class_weight with batches"):
        trained([(x, y)], None, class_weight={1: 2.0})
    np.save(tmp_path / "x.npy", x), np.save(tmp_path / "y.npy", y)
    rows = gn.data.open_rows(tmp_path / "x.npy", tmp_path / "y.npy")
    with pytest.raises(ArgumentError, match="weight="):
        trained(rows, None, class_weight={1: 2.0})


def test_rows_on_disk_have_weights_in_the_loss(rng, tmp_path):
    x, y = problem(rng)
    np.save(tmp_path / "x.npy", x), np.save(tmp_path / "y.npy", y)
    rows = gn.data.open_rows(tmp_path / "x.npy", tmp_path / "y.npy")
    loss = ops.get_loss(CROSS, weight=[1.0, 2.0, 0.5, 3.0])
    ours, _ = trained(rows, None, loss, shuffle=False)
    theirs, _ = trained(x, y, loss, shuffle=False)
    assert_same(ours, theirs)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"weight": [1.0, 2.0, 1.0, 1.0]}, {"weight": [1.0, 2.5, 1.0, 1.0]}),
        ({"weight": [1.0, 2.0, 1.0, 1.0]}, {}),
        ({"ignore_index": -1}, {"ignore_index": -2}),
        ({"label_smoothing": 0.1}, {"label_smoothing": 0.2}),
    ],
)
def test_a_checkpoint_is_of_its_weights(one, other, rng, tmp_path):
    x, y = problem(rng)

    def fit(options, epochs):
        loss = ops.get_loss(CROSS, **options)
        trained(x, y, loss, epochs=epochs, trainer={"checkpoint": tmp_path})

    fit(one, 1)
    given = one.get("weight")
    fit(one | ({} if given is None else {"weight": np.array(given)}), 2)  # another form of it
    with pytest.raises(ModelFileError, match="loss"):
        fit(other, 3)


def test_a_checkpoint_is_of_its_class_weights(rng, tmp_path):
    x, y = problem(rng)
    options = {"trainer": {"checkpoint": tmp_path}}
    trained(x, y, class_weight="balanced", epochs=1, **options)
    with pytest.raises(ModelFileError, match="weights"):
        trained(x, y, class_weight={0: 2.0}, epochs=2, **options)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"weight": [1.0, 2.0]}, ShapeError, r"weight of shape \(2,\)"),
        ({"weight": [1.0, 2.0, np.inf]}, ArgumentError, "finite"),
        ({"weight": "heavy"}, ArgumentError, "weight='heavy'"),
        ({"ignore_index": 0.5}, ArgumentError, "ignore_index=0.5"),
        ({"ignore_index": True}, ArgumentError, "ignore_index=True"),
        ({"label_smoothing": 1.0}, ArgumentError, "label_smoothing"),
    ],
)
def test_options_that_do_not_fit(options, error, words):
    z, t = np.zeros((2, 3)), np.array([0, 2])
    with pytest.raises(error, match=words):
        ops.softmax_cross_entropy(z, t, **options)
    if error is ArgumentError:
        with pytest.raises(error, match=words):
            ops.get_loss(CROSS, **options)
    with pytest.raises(DataError, match="label -100"):
        ops.softmax_cross_entropy(z, np.array([0, -100]))
    with pytest.raises(DataError, match="label -100 in row 1"):
        ops.softmax_cross_entropy(z, np.array([-1, -100]), ignore_index=-1)
    loss = ops.get_loss(CROSS, ignore_index=-1)
    with pytest.raises(DataError, match="label 3 in row 1"):
        gn.Trainer(nn.Linear(3, 3), loss).fit(np.zeros((2, 3)), [-1, 3], progress=False)
