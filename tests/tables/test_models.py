"""Table models: raw rows in, classes and numbers out, in Python and from their file."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import gpunn as gn
from gpunn.columns import RawTable
from gpunn.errors import ArgumentError, DataError, ModelFileError
from gpunn.tables import Recipe, TableModel, fit_table
from gpunn.tables.folds import folds_of, half_width, log_loss, temperature_of
from gpunn.tables.report import area_under_curve, class_scores, number_scores

RNG = np.random.default_rng(0)
N = 300
COLOURS = np.array(["red", "green", "blue"])[RNG.integers(0, 3, N)]
SIZES = RNG.normal(size=N)
TABLE = {
    "colour": [None if k % 17 == 0 else str(c) for k, c in enumerate(COLOURS)],
    "size": [None if k % 13 == 0 else float(s) for k, s in enumerate(SIZES)],
    "day": [f"2024-{1 + k % 12:02}-{1 + k % 28:02}" for k in range(N)],
}
NUMBERS = SIZES + 3.0 * (COLOURS == "red") + 100
CLASSES = (NUMBERS > 100.5).astype(int) + (NUMBERS > 102)
QUICK = Recipe(hidden=(32, 32), epochs=16)


def fitted(y, classes, **options):
    return fit_table(RawTable.of(TABLE), y, classes=classes, recipe=QUICK, **{"seed": 1} | options)


def test_classes():
    found = fitted(CLASSES, 3, folds=3)
    scores = found.model.outputs(TABLE)
    assert np.mean(scores.argmax(axis=1) == CLASSES) > 0.85
    chances = found.model.probabilities(TABLE)
    np.testing.assert_allclose(chances.sum(axis=1), 1)
    chosen = found.model.predict(TABLE)
    np.testing.assert_array_equal(chosen, scores.argmax(axis=1))
    named = replace(found.model, classes=["red", "green", "blue"]).predict(TABLE)
    np.testing.assert_array_equal(named, np.array(["red", "green", "blue"])[chosen])
    assert not np.isnan(found.out_of_fold).any()
    held_out = np.mean(found.out_of_fold.argmax(axis=1) == CLASSES)
    assert held_out > 0.75
    with pytest.raises(ArgumentError, match="model of classes"):
        found.model.half_width(0.9)


def test_numbers_and_intervals():
    found = fitted(NUMBERS, 0, folds=3)
    outputs = found.model.outputs(TABLE)[:, 0]
    assert np.corrcoef(outputs, NUMBERS)[0, 1] > 0.9
    np.testing.assert_array_equal(found.model.predict(TABLE), outputs)
    assert outputs.min() >= NUMBERS.min() - 1e-4
    assert outputs.max() <= NUMBERS.max() + 1e-4
    errors = np.abs(found.out_of_fold[:, 0] - NUMBERS)
    half = found.model.half_width(0.8)
    assert 0.78 < np.mean(errors <= half) < 0.83
    assert half_width(errors, 0.8) == pytest.approx(half, rel=0.02)
    assert found.model.half_width(0.9999) == np.inf
    with pytest.raises(ArgumentError, match="for classes"):
        found.model.probabilities(TABLE)


def test_equal_seeds_give_equal_bits_and_others_do_not():
    one, same, other = (fitted(CLASSES, 3, folds=2, seed=s).model.outputs(TABLE) for s in (5, 5, 6))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_a_single_network_leaves_a_fifth_out():
    found = fitted(CLASSES, 3, folds=1)
    assert np.isnan(found.out_of_fold[:, 0]).sum() == N - N // 5
    assert len(found.histories) == 1


def test_it_is_predicted_from_the_file_in_another_process(tmp_path):
    model = fitted(NUMBERS, 0, folds=2).model
    model.save(tmp_path / "m.safetensors")
    (tmp_path / "rows.json").write_text(json.dumps(TABLE))
    code = (
        "import json, sys, numpy as np\n"
        "from gpunn.tables import TableModel\n"
        "model = TableModel.load('m.safetensors', device='cpu')\n"
        "np.save('out.npy', model.outputs(json.load(open('rows.json'))))\n"
        "assert not {'pandas', 'sklearn', 'scipy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), model.outputs(TABLE))
    turned = dict(reversed(TABLE.items()))
    np.testing.assert_array_equal(model.outputs(turned), model.outputs(TABLE))
    with pytest.raises(DataError, match="size"):
        model.outputs({name: TABLE[name] for name in ("day", "colour")})


def test_other_files_are_refused(tmp_path):
    gn.save(gn.nn.Linear(2, 2), tmp_path / "plain.safetensors")
    with pytest.raises(ModelFileError, match="without an encoding"):
        TableModel.load(tmp_path / "plain.safetensors")


@pytest.mark.parametrize("count", [2, 5, 7])
def test_folds_are_even(count):
    fold = folds_of(CLASSES, count, 3)
    for label in range(3):
        sizes = np.bincount(fold[label == CLASSES], minlength=count)
        assert sizes.max() - sizes.min() <= 1
    numbers = folds_of(NUMBERS, count, 3)
    means = [NUMBERS[numbers == k].mean() for k in range(count)]
    assert np.ptp(means) < 0.5
    with pytest.raises(DataError, match="2 rows for 3 folds"):
        folds_of(NUMBERS[:2], 3, 0)


def test_the_temperature_is_the_best_one():
    scores = 4 * RNG.normal(size=(4000, 3))
    chances = np.exp(scores / 2.5) / np.exp(scores / 2.5).sum(axis=1, keepdims=True)
    y = (RNG.uniform(size=(4000, 1)) > chances.cumsum(axis=1)).sum(axis=1).clip(max=2)
    best = temperature_of(scores, y)
    assert best == pytest.approx(2.5, rel=0.1)
    assert log_loss(scores / best, y) <= min(
        log_loss(scores / t, y) for t in (best - 0.1, best + 0.1)
    )


def test_scores_agree_with_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    scores = RNG.normal(size=(200, 3))
    y = RNG.integers(0, 3, 200)
    chances = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    found = class_scores(scores, y)
    assert found["log-loss"] == pytest.approx(metrics.log_loss(y, chances))
    assert found["AUC"] == pytest.approx(metrics.roc_auc_score(y, chances, multi_class="ovr"))
    right = metrics.balanced_accuracy_score(y, scores.argmax(axis=1))
    assert found["balanced accuracy"] == pytest.approx(right)
    area = area_under_curve(scores[:, 0], y == 0)
    assert area == pytest.approx(metrics.roc_auc_score(y == 0, scores[:, 0]))
    assert np.isnan(area_under_curve(scores[:, 0], np.ones(200, bool)))
    numbers = number_scores(NUMBERS + RNG.normal(size=N), NUMBERS)
    assert numbers["R2"] < 1
    exact = number_scores(NUMBERS, NUMBERS)
    assert exact == {"R2": 1.0, "RMSE": 0.0, "MAE": 0.0}


@pytest.mark.parametrize("classes", [0, 3])
def test_the_number_of_threads_changes_no_bit(classes):
    y = CLASSES if classes else NUMBERS
    one, three = (fitted(y, classes, folds=4, threads=n) for n in (1, 3))
    np.testing.assert_array_equal(one.out_of_fold, three.out_of_fold)
    np.testing.assert_array_equal(one.model.outputs(TABLE), three.model.outputs(TABLE))


def test_a_member_has_the_bits_of_a_fit_alone():
    """The networks of an ensemble do not see each other."""
    two = fitted(NUMBERS, 0, folds=5, threads=2)
    alone = fitted(NUMBERS, 0, folds=1)  # it leaves out the same fifth as the first of five
    known = ~np.isnan(alone.out_of_fold[:, 0])
    np.testing.assert_array_equal(two.out_of_fold[known], alone.out_of_fold[known])


def test_a_time_limit_plans_fewer_epochs():
    recipe = Recipe(hidden=(32, 32), epochs=100_000)
    found = fit_table(RawTable.of(TABLE), NUMBERS, recipe=recipe, folds=2, time_limit_s=3.0)
    epochs = [history.epochs for history in found.histories]
    assert all(1 <= each < 100_000 for each in epochs)
    assert np.isfinite(found.model.outputs(TABLE)).all()


def test_a_time_that_is_too_short_gives_one_network():
    found = fit_table(RawTable.of(TABLE), NUMBERS, recipe=QUICK, folds=5, time_limit_s=0.001)
    assert len(found.histories) == 1
    assert found.histories[0].epochs == 1


@pytest.mark.parametrize(
    "options", [{"folds": 0}, {"threads": 0}, {"time_limit_s": 0}, {"time_limit_s": float("nan")}]
)
def test_options_are_checked(options):
    with pytest.raises(ArgumentError, match=next(iter(options))):
        fitted(NUMBERS, 0, **options)
