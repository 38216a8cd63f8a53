"""The recipes of published results, against loops that are written out with the papers' numbers."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn
from gpunn.benchmarks.papers import __main__ as command_line
from gpunn.benchmarks.papers.__main__ import main
from gpunn.benchmarks.papers.recipes import RECIPES
from gpunn.benchmarks.papers.report import draw, results, table
from gpunn.benchmarks.papers.run import averages, circumstances
from gpunn.nn.linear import unfused
from gpunn.nn.observation import observe

pytestmark = pytest.mark.fast

RNG = np.random.default_rng(0)
STEPS, BATCH, EPOCHS = 3, 100, 4
KEPT = 1 - round(0.2 * 2**16) / 2**16  # 16 random bits decide over an input
X = RNG.uniform(0, 1, (STEPS * BATCH, 784)).astype(np.float32) * (RNG.random(784) < 0.3)
Y = RNG.integers(0, 10, len(X))


def exact(name):
    """A recipe in float64, in which no unit is so close to 0 that rounding turns it on or off."""
    return replace(RECIPES[name], dtype="float64")


def trained(name):
    """The weights before and after twelve updates, with the masks and the rows of each."""
    recipe, rng = exact(name), np.random.default_rng(1)
    trainer = recipe.trainer(STEPS, seed=3, capture=False)
    net, masks = trainer.model, list[np.ndarray]()

    def watch(module, y):
        if isinstance(module, nn.Dropout) and module.training:
            masks.append(y.numpy() != 0)

    start = [p.numpy().astype(np.float64) for p in net.parameters()]
    orders = [rng.permutation(len(X)) for _ in range(EPOCHS)]
    with observe(watch), unfused():
        trainer.fit(
            X.astype(recipe.dtype), recipe.targets(Y), epochs=EPOCHS, batch_size=BATCH,
            progress=False, shuffle=lambda n, rows: orders[n - 1],
        )  # fmt: skip
    rows = [order[at : at + BATCH] for order in orders for at in range(0, len(X), BATCH)]
    return start, [p.numpy() for p in net.parameters()], masks, rows


def gradients(weights, x, y, masks, kept):
    """The gradients of the mean cross-entropy, with dropout before each layer."""
    layers, inputs, scales = len(weights) // 2, [], []
    h = x.astype(np.float64)
    for k in range(layers):
        scale = np.ones_like(h)
        if masks:
            scale = np.where((masks[k] != 0) | (h == 0), 1 / kept[k], 0.0)
        h = h * scale
        inputs.append(h)
        scales.append(scale)
        h = h @ weights[2 * k] + weights[2 * k + 1]
        if k < layers - 1:
            h = np.maximum(h, 0)
    p = np.exp(h - h.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    p[np.arange(len(y)), y] -= 1
    g, found = p / len(y), [None] * len(weights)
    for k in reversed(range(layers)):
        found[2 * k], found[2 * k + 1] = inputs[k].T @ g, g.sum(0)
        if k:
            g = (g @ weights[2 * k].T) * scales[k] * (inputs[k] > 0)
    return found


def clipped(w, limit):
    norms = np.sqrt((w**2).sum(axis=0))  # of the weights into each unit
    return w * np.minimum(1, limit / norms)


def test_pylearn2_is_its_yaml_file():
    start, found, masks, rows = trained("pylearn2")
    weights, speed = [w.copy() for w in start], [0.0 for _ in start]
    assert [w.shape for w in start[::2]] == [(784, 898), (898, 1532), (1532, 10)]
    for w, bound in zip(start[::2], (0.00891030471479, 0.0575059125935, 0.0), strict=True):
        assert abs(w).max() <= bound
        assert bound == 0 or abs(w).max() > 0.99 * bound
    assert not any(b.any() for b in start[1::2])
    for step, chosen in enumerate(rows):
        epoch = step // STEPS + 1
        rate = 0.097259 - (0.097259 - 0.097259 * 0.022292) / (560 - 1 + 1) * epoch
        share = (epoch - 1) / (698 - 1)
        momentum = 0.5 * (1 - share) + share * 0.699217
        of_step = masks[3 * step : 3 * step + 3]
        grads = gradients(weights, X[chosen], Y[chosen], of_step, (KEPT, 0.5, 0.5))
        for k, (w, g) in enumerate(zip(weights, grads, strict=True)):
            speed[k] = momentum * speed[k] - rate * g
            weights[k] = w + speed[k]
        for k, limit in enumerate((4.378017, 2.970242, 4.626974)):
            weights[2 * k] = clipped(weights[2 * k], limit)
    for ours, expected in zip(found, weights, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-9)


def test_table_9_with_dropout_and_max_norm():
    start, found, masks, rows = trained("table9-dropout-maxnorm")
    weights, speed = [w.copy() for w in start], [0.0 for _ in start]
    assert [w.shape for w in start[::2]] == [(784, 1024), (1024, 1024), (1024, 2048), (2048, 10)]
    for step, chosen in enumerate(rows):
        rate = 0.1 / (1 + step / 10_000)
        momentum = 0.95 - (0.95 - 0.5) * math.exp(-step / 100_000)
        of_step = masks[4 * step : 4 * step + 4]
        grads = gradients(weights, X[chosen], Y[chosen], of_step, (KEPT, 0.5, 0.5, 0.5))
        for k, (w, g) in enumerate(zip(weights, grads, strict=True)):
            speed[k] = momentum * speed[k] + g
            weights[k] = w - rate * speed[k]
        for k in range(4):
            weights[2 * k] = clipped(weights[2 * k], 2.0)
    for ours, expected in zip(found, weights, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["feedback-backprop", "feedback-alignment"])
def test_feedback_alignment_sends_errors_through_fixed_weights(name):
    start, found, _, rows = trained(name)
    head = exact(name).network(seed=3)[1]
    back = head.feedback.numpy() if name == "feedback-alignment" else None
    w, b, v, c = start
    assert (w.shape, v.shape) == ((784, 1000), (1000, 10))
    assert 0.099 < abs(v).max() <= 0.1
    assert back is None or 0.99 < abs(back).max() <= 1.0
    weights, speed = [w, b, v, c], [0.0] * 4
    for step, chosen in enumerate(rows):
        x, classes = X[chosen].astype(float), np.eye(10)[Y[chosen]]
        w, b, v, c = weights
        h = 1 / (1 + np.exp(-(x @ w + b)))
        y = 1 / (1 + np.exp(-(h @ v + c)))
        e = (y - classes) / y.size * y * (1 - y)
        d = e @ (v if back is None else back).T * h * (1 - h)
        grads = x.T @ d, d.sum(0), h.T @ e, e.sum(0)
        rate = 2.0 * (step + 1) / (2 * STEPS) if step < 2 * STEPS else 2.0 * (1 - (step - 6) / 6)
        for k, g in enumerate(grads):
            speed[k] = 0.9 * speed[k] + g
            weights[k] = weights[k] - rate * speed[k]
    for ours, expected in zip(found, weights, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "limits"),
    [
        ("pylearn2", (4.378017, 2.970242, 4.626974)),
        ("table9-maxnorm", (2.0, 2.0, 2.0, 2.0)),
        ("table9-dropout-maxnorm", (2.0, 2.0, 2.0, 2.0)),
    ],
)
def test_max_norms_bound_the_weights_into_each_unit(name, limits):
    trainer = replace(RECIPES[name], lr=0.0).trainer(STEPS, seed=3)
    weights = [p for p in trainer.model.parameters() if p.ndim == 2]
    for weight, limit in zip(weights, limits, strict=True):
        weight.data[...] = RNG.normal(size=weight.shape) * 2 * limit / len(weight.data) ** 0.5
        weight.data[:, ::2] *= 0.1  # half of the units are within the limit
    expected = [clipped(w.numpy().astype(float), n) for w, n in zip(weights, limits, strict=True)]
    with np.errstate(all="ignore"):
        trainer.fit(X * 1e-3, Y, epochs=1, batch_size=BATCH, progress=False)
    for weight, wanted in zip(weights, expected, strict=True):
        np.testing.assert_allclose(weight.numpy(), wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains(name):
    recipe = RECIPES[name]
    trainer = recipe.trainer(1, seed=0)
    history = trainer.fit(X[:20], recipe.targets(Y[:20]), epochs=2, batch_size=20, progress=False)
    assert np.isfinite(history["loss"]).all()
    assert trainer.steps == 2


def test_figure_9_keeps_widths_or_the_units_that_are_kept():
    names = [name for name in RECIPES if name.startswith("figure9")]
    assert len(names) == 2 * 7
    for name in names:
        _, kind, kept = name.split("-")
        recipe = RECIPES[name]
        widths = recipe.sizes[1:-1]
        scaled = [round(n / float(kept)) for n in (256, 256, 512)]
        assert list(widths) == (scaled if kind == "scaled" else [2048] * 3)
        assert recipe.dropout == (0.2, *[pytest.approx(1 - float(kept))] * 3)


def test_the_command_goes_on_and_prints_a_table(tmp_path, monkeypatch, capsys):
    part = gn.data.Dataset(X, Y)
    monkeypatch.setattr(gn.data, "load_mnist", lambda folder: (part, part))
    folders = ["--work", str(tmp_path / "work"), "--results", str(tmp_path / "results")]
    command = ["papers", "lecture", "--epochs", "2", "--seeds", "2", "--device", "cpu", *folders]
    monkeypatch.setattr("sys.argv", command)
    main()
    first = capsys.readouterr().out
    main()
    again = capsys.readouterr().out
    rows = (tmp_path / "results" / "lecture-2.jsonl").read_text().splitlines()
    assert [json.loads(row)["seed"] for row in rows] == [0, 1]
    assert first.splitlines()[-1] == again.splitlines()[-1]
    assert "| lecture | 2 | 2 |" in again
    assert "differs: scikit-learn adds" in again
    monkeypatch.setattr("sys.argv", [*command, "--first", "1"])
    main()
    rows = (tmp_path / "results" / "lecture-2.jsonl").read_text().splitlines()
    found = {json.loads(row)["seed"]: json.loads(row)["command"] for row in rows}
    assert list(found) == [0, 1, 2]
    assert found[2] == "python -m benchmarks.papers lecture --epochs 2 --first 2 --seeds 1"


def test_scikit_learn_runs_beside(tmp_path, monkeypatch, capsys):
    part = gn.data.Dataset(X, Y)
    monkeypatch.setattr(gn.data, "load_mnist", lambda folder: (part, part))
    command = ["papers", "lecture", "--sklearn", "--seeds", "1", "--results", str(tmp_path)]
    monkeypatch.setattr("sys.argv", command)
    main()
    assert "| lecture, scikit-learn " in capsys.readouterr().out
    row = json.loads((tmp_path / "lecture-sklearn.jsonl").read_text())
    assert (row["epochs"], row["seed"]) == (20, 0)
    monkeypatch.setattr("sys.argv", ["papers", "pylearn2", "--sklearn"])
    with pytest.raises(SystemExit):
        main()


def test_a_first_word_chooses_several_recipes_and_a_wrong_one_none(tmp_path, monkeypatch, capsys):
    part = gn.data.Dataset(X[:100], Y[:100])
    monkeypatch.setattr(gn.data, "load_mnist", lambda folder: (part, part))
    folders = ["--work", str(tmp_path / "work"), "--results", str(tmp_path)]
    budget = ["--epochs", "1", "--seeds", "1", "--device", "cpu"]
    monkeypatch.setattr("sys.argv", ["papers", "feedback", *budget, *folders])
    main()
    shown = capsys.readouterr().out
    assert "differs: 1 of 100 epochs, in which the learning rate falls" in shown
    assert "| feedback-alignment | 1 | 1 |" in shown
    row = json.loads((tmp_path / "feedback-backprop-1.jsonl").read_text())
    assert row["command"] == "python -m benchmarks.papers feedback-backprop --epochs 1 --seeds 1"
    assert row["machine"] == circumstances()["machine"]
    monkeypatch.setattr("sys.argv", ["papers", "table8"])
    with pytest.raises(SystemExit):
        main()
    assert "got 'table8'; expected one of pylearn2, table9-none," in capsys.readouterr().err
    assert list(command_line.chosen("table9-l2")) == ["table9-l2"]
    assert len(command_line.chosen("table9")) == 6


def test_a_shorter_budget_ends_at_a_rate_of_zero():
    recipe = RECIPES["table9-none"].within(4)
    schedule = recipe.schedule(STEPS)
    assert [schedule.factor(step, 12) for step in (0, 6, 12)] == [1.0, 0.5, 0.0]
    assert "4 of 1,667 epochs" in recipe.deviations[-1]


def test_the_mean_of_drawn_networks_is_that_of_a_loop():
    counts = (1, 2, 4)

    def net():
        gn.manual_seed(0)
        return nn.Sequential(nn.Linear(784, 8, "relu"), nn.Dropout(0.5, seed=1), nn.Linear(8, 10))

    data = gn.data.Dataset(X[:50], Y[:50])
    found, other = averages(net(), data, counts), net()
    other.train()
    drawn = [gn.ops.softmax(other(data.x)).numpy() for _ in range(4)]
    for k in counts:
        groups = [sum(drawn[at : at + k]) for at in range(0, 4, k)]
        wrong = [100 * np.mean(group.argmax(1) != data.y) for group in groups]
        assert found[str(k)] == pytest.approx(np.mean(wrong))
    assert len(set(found.values())) > 1


def row(recipe, seed, percent, **others):
    fields = {"recipe": recipe, "seed": seed, "epochs": 20, "test_percent": percent, "seconds": 60}
    return json.dumps(fields | others) + "\n"


def test_the_report_compares_full_runs_only_and_draws_all(tmp_path):
    (tmp_path / "lecture-20.jsonl").write_text(row("lecture", 0, 2.4) + row("lecture", 1, 2.6))
    drawn = [
        row("table9-dropout-maxnorm", s, 1.4 + s / 5, averages={"1": 2.0 + s, "2": 1.5})
        for s in (0, 1)
    ]
    (tmp_path / "table9-dropout-maxnorm-20.jsonl").write_text("".join(drawn))
    (tmp_path / "table9-none-20.jsonl").write_text(
        row("table9-none", 0, 1.8) + row("table9-none", 1, 2.0)
    )
    maxnorm = row("table9-maxnorm", 0, 1.6) + row("table9-maxnorm", 1, 1.8)
    (tmp_path / "table9-maxnorm-20.jsonl").write_text(maxnorm)
    (tmp_path / "table9-maxnorm-5.jsonl").write_text(maxnorm.replace("20", "5"))
    for p, percent in ((0.5, 1.5), (0.1, 2.5)):
        (tmp_path / f"figure9-fixed-{p}-20.jsonl").write_text(row(f"figure9-fixed-{p}", 0, percent))
    found = results(tmp_path)
    lines = table(found).splitlines()
    assert (
        "| table9-dropout-maxnorm | 20 | 2 | 1.500 | 0.100 | 1.05 | - | 1.40, 1.60 | 1.0 |" in lines
    )
    pairs = [line for line in lines if line.startswith("| table9") and " to " in line]
    assert pairs == [  # standard error 0.02 ** 0.5, 2 degrees of freedom, t = 4.303
        "| table9-none - maxnorm | 20 | 0.200 | -0.41 to 0.81 | - |",
        "| table9-none - dropout-maxnorm | 20 | 0.400 | -0.21 to 1.01 | - |",
        "| table9-maxnorm - dropout-maxnorm | 20 | 0.200 | -0.41 to 0.81 | 0.30 |",
    ]
    assert "| figure9-fixed-0.1 | 20 | 1 | 2.500 | - | 2.70 | - | 2.50 | 1.0 |" in lines
    assert "| lecture | 20 | 2 | 2.500 | 0.100 | 2.48 | yes | 2.40, 2.60 | 1.0 |" in lines
    assert lines[-3:] == [
        "| 1 | 2.500 | 0.500 |", "| 2 | 1.500 | 0.000 |", "| one without dropout | 1.500 | 0.100 |",
    ]  # fmt: skip
    draw(found, tmp_path / "evidence.png")
    assert (tmp_path / "evidence.png").stat().st_size > 10_000
