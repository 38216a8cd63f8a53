"""Pictures: what is on them, not how they look."""

from __future__ import annotations

import itertools
import pickle
import re
import stat
import sys

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn, plot
from gpunn.errors import ArgumentError, MissingExtraError, OutputError, ShapeError, UnknownNameError
from gpunn.plot.graph import _layout, mathematical
from gpunn.train import History

HISTORY = History({"loss": [1.0, 0.5, 0.2], "val_loss": [1.1, 0.7], "val_accuracy": [0.5, 0.75]})
X = np.array([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [1.0, 0.0]], np.float32)
Y = np.array([0, 0, 1, 1])


def steps():
    def forward(a, b):
        z = a * b
        y = gn.ops.sigmoid(z)
        return {"z": z, "y": y, "L": y * a + z}

    return gn.explain.function(forward, a=0.5, b=-1.5)


def small():
    net = nn.Sequential(nn.Linear(4, 3, "relu", seed=0), nn.Linear(3, 2, seed=1))
    net(np.ones((5, 4), np.float32)).sum().backward()
    return net


DRAWINGS = {
    "activation": lambda ax: plot.activation("tanh", ax),
    "learning_curve": lambda ax: plot.learning_curve(HISTORY, ax),
    "series": lambda ax: plot.series({"a": ([1, 2], [3, 4])}, ax),
    "decision_regions": lambda ax: plot.decision_regions(lambda x: x[:, 0] > 0.5, X, Y, ax),
    "filters": lambda ax: plot.filters(np.ones((6, 5)), (2, 3), ax),
    "confusion_matrix": lambda ax: plot.confusion_matrix([0, 1], [1, 1], ax),
    "prediction_error": lambda ax: plot.prediction_error([0.0, 1.0], [0.5, 1.0], ax),
    "gradient_norms": lambda ax: plot.gradient_norms(small(), ax),
    "dead_units": lambda ax: plot.dead_units(
        nn.dead_units(small(), np.ones((5, 4), np.float32)), ax
    ),
    "computation_graph": lambda ax: plot.computation_graph(steps(), ax),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_every_picture_takes_axes_and_returns_them(name, tmp_path):
    figure, ax = plot.figure()
    assert DRAWINGS[name](ax) is ax
    alone = DRAWINGS[name](None)
    assert alone is not ax
    plot.save(figure, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes()[:4] == b"\x89PNG"


def test_every_function_is_among_them():
    assert {n for n in plot.__all__ if n not in ("PALETTE", "figure", "save")} - set(DRAWINGS) == {
        "computation_graph_svg"
    }


def test_a_figure_of_several_axes():
    figure, axes = plot.figure(2, 3, title="six")
    assert len(axes) == 6
    assert figure.get_suptitle() == "six"


def luminance(color):
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return np.array(linear)


def test_colours_stay_apart_for_the_colour_blind():
    """Machado et al. (2009): what is left of colours without one kind of cone."""
    simulations = {
        "protan": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
        "deutan": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    }
    for matrix in simulations.values():
        seen = [np.array(matrix) @ luminance(color) for color in plot.PALETTE[:6]]
        gaps = [np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)]
        assert min(gaps) > 0.1


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_a_learning_curve_names_its_loss_and_its_data():
    net = nn.Sequential(nn.Linear(64, 10, seed=0))
    train, test = gn.data.load_digits().split(0.25, seed=0)
    trainer = gn.Trainer(net, seed=0)
    history = trainer.fit(train, epochs=2, validation=test, progress=False)
    ax = history.plot("loss")
    assert ax.get_title() == "digits"
    assert ax.get_ylabel() == "softmax cross entropy"
    assert legend(ax)[:2] == [f"training, {len(train):,} rows", f"validation, {len(test)} rows"]
    assert legend(ax)[2].endswith(f"in epoch {history.best_epoch}")
    assert plot.learning_curve(history, title="mine").get_title() == "mine"
    assert [each.get_ylabel() for each in history.plot().axes] == [
        "softmax cross entropy",
        "accuracy (%)",
    ]
    with pytest.raises(ArgumentError, match="axes for several"):
        history.plot(ax=ax)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([2.3, 1.9, 1.4], {"1.5", "2"}),
        ([2.0, 0.03], {"0.05", "0.1", "0.2", "0.5", "1", "2"}),
        ([1.0, 1e-7], {"1", "$10^{-6}$"}),
        ([5e3, 4e5], {"10000", "20000", "200000", "$10^{5}$"}),
    ],
)
def test_labels_of_a_logarithmic_axis_are_plain_numbers(values, said):
    ax = plot.learning_curve({"loss": values})
    ax.figure.draw_without_rendering()
    low, high = ax.get_ylim()
    ticks = zip(ax.get_yticks(), ax.get_yticklabels(), strict=True)
    labels = [label.get_text() for tick, label in ticks if low <= tick <= high]
    assert said <= set(labels)
    assert 2 <= len(labels) <= 10
    assert not any("times" in label for label in labels)
    assert not any(re.search(r"10\^\{-?\d*\.", label) for label in labels)  # no 10^4.3
    assert not any(label.get_text() for label in ax.get_yticklabels(minor=True))


@pytest.mark.parametrize("classes", [2, 10, 26, 40, 100])
@pytest.mark.parametrize("length", [1, 9, 40])
def test_texts_of_a_confusion_matrix_are_legible_and_apart(classes, length):
    y = np.arange(classes).repeat(50)
    names = [f"{k:0{length}d}"[-length:] for k in range(classes)] if length > 1 else ()
    ax = plot.confusion_matrix(y, np.roll(y, 7), names=names)
    ax.figure.draw_without_rendering()
    for labels in (ax.get_xticklabels(), ax.get_yticklabels(), ax.texts):
        boxes = [label.get_window_extent() for label in labels]
        assert all(label.get_fontsize() >= 6 for label in labels)
        assert not any(a.overlaps(b) for a, b in itertools.pairwise(boxes))
    window = ax.figure.bbox
    for label in (*ax.get_xticklabels(), *ax.get_yticklabels(), ax.xaxis.label, ax.yaxis.label):
        box = label.get_window_extent()
        assert min(box.x0 - window.x0, window.x1 - box.x1, box.y0 - window.y0) >= 0, label


def test_names_of_other_than_all_classes():
    with pytest.raises(ArgumentError, match="2 names for classes up to 2"):
        plot.confusion_matrix([0, 2], [0, 1], names=["a", "b"])


def test_predictions_of_a_regression_against_the_truth():
    y = np.array([[0.0], [1.0], [2.0]])
    ax = plot.prediction_error(y, y[:, 0] + 0.5)
    assert legend(ax) == ["R2 0.625, RMSE 0.5, 3 rows"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("true", "predicted")
    assert legend(plot.prediction_error([1.0, 1.0], [1.0, 2.0])) == ["RMSE 0.707, 2 rows"]
    for wrong in ([[1.0, 2.0]], [1.0]):
        with pytest.raises(ShapeError, match=r"expected \(N,\)"):
            plot.prediction_error([1.0, 2.0], wrong)
    for wrong in ([1.0, np.nan], [np.inf, 1.0]):
        with pytest.raises(ArgumentError, match="NaN or infinite"):
            plot.prediction_error([1.0, 2.0], wrong)


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_notebook_shows_every_picture(name):
    ax = DRAWINGS[name](None)
    assert ax._repr_png_()[:4] == b"\x89PNG"
    assert ax.figure._repr_png_()[:4] == b"\x89PNG"
    assert len(pickle.loads(pickle.dumps(ax.figure)).axes) == len(ax.figure.axes)


def test_learning_curves_of_training_and_validation():
    ax = plot.learning_curve(HISTORY)
    assert [list(line.get_ydata()) for line in ax.lines] == [[1.0, 0.5, 0.2], [1.1, 0.7], [0.7]]
    assert legend(ax) == ["training", "validation", "best: 0.7 in epoch 2"]
    assert ax.get_yscale() == "log"
    ax = plot.learning_curve(HISTORY, quantity="accuracy")
    assert [list(line.get_ydata()) for line in ax.lines] == [[50, 75], [75]]
    assert legend(ax) == ["validation", "best: 75 in epoch 2"]
    ax = plot.learning_curve({"loss": [np.nan, 3.0, 2.0, np.nan]})
    assert legend(ax) == ["training", "best: 2 in epoch 3"]
    assert legend(plot.learning_curve({"loss": [np.nan]})) == ["training"]
    with pytest.raises(ArgumentError, match="val_loss"):
        plot.learning_curve(HISTORY, quantity="f1")


@pytest.mark.parametrize(
    "name", [n for n, a in gn.ops.ACTIVATIONS.items() if isinstance(a, gn.ops.Activation)]
)
def test_an_activation_with_its_derivative(name):
    _, value, slope = plot.activation(name, low=-2, high=2).lines
    x, y = (np.asarray(line) for line in (value.get_xdata(), value.get_ydata()))
    fine = ~np.isnan(y)
    expected = gn.autograd.OPS[name](gn.tensor(x[fine])).numpy()
    np.testing.assert_allclose(y[fine], expected)
    dy = slope.get_ydata()
    known = gn.ops.ACTIVATIONS[name]
    kinks = known.kinks if known.differentiable else ()
    assert np.isnan(dy).any() == any(-2 <= kink <= 2 for kink in kinks)
    assert np.isnan(y).any() == (name == "hard_threshold")


def test_only_elementwise_activations_have_a_curve():
    with pytest.raises(ArgumentError, match="elementwise"):
        plot.activation("softmax")
    with pytest.raises(UnknownNameError):
        plot.series({"a": ([1], [1])}, scale="cubic")


def test_decision_regions_of_models_functions_and_estimators():
    net = nn.Linear(2, 2)
    net.load_state_dict({"weight": np.array([[-1.0, 1], [0, 0]]), "bias": np.array([0.5, -0.5])})
    single = nn.Linear(2, 1)
    single.load_state_dict({"weight": np.array([[1.0], [0]]), "bias": np.array([-0.5])})

    class Estimator:
        def predict(self, x):
            return x[:, 0] > 0.5

    for classifier in (net, single, Estimator(), lambda x: (x[:, 0] > 0.5).astype(int)):
        ax = plot.decision_regions(classifier, X, Y, names=("left", "right"), resolution=21)
        points = [c.get_offsets() for c in ax.collections if c.get_offsets().shape[0] == 2]
        np.testing.assert_array_equal(np.concatenate(points), X)
        boundary = next(c for c in ax.collections if len(c.get_edgecolor()) and c.get_zorder() == 2)
        edge = np.concatenate([path.vertices for path in boundary.get_paths()])
        np.testing.assert_allclose(edge[:, 0], 0.5, atol=0.07)
        assert [t.get_text() for t in ax.get_legend().get_texts()] == ["left", "right"]


@pytest.mark.parametrize(("x", "y"), [(X[:, :1], Y), (X, Y[:2]), (X[0], Y[:1])])
def test_regions_of_other_than_two_features(x, y):
    with pytest.raises(ShapeError, match=r"\(N, 2\)"):
        plot.decision_regions(lambda x: x, x, y)


def test_filters_are_tiled_row_by_row():
    weight = np.arange(12.0).reshape(4, 3)  # three units of 2 x 2 inputs
    ax = plot.filters(weight, (2, 2), columns=2)
    tiles = np.ma.filled(ax.images[0].get_array(), np.nan)
    assert tiles.shape == (7, 7)
    np.testing.assert_array_equal(tiles[1:3, 1:3], [[0, 3], [6, 9]])
    np.testing.assert_array_equal(tiles[1:3, 4:6], [[1, 4], [7, 10]])
    np.testing.assert_array_equal(tiles[4:6, 1:3], [[2, 5], [8, 11]])
    assert np.isnan(tiles[4:6, 4:6]).all()
    low, high = ax.images[0].get_clim()
    assert low == -high
    layer = nn.Linear(4, 3, seed=0)
    np.testing.assert_allclose(
        np.asarray(plot.filters(layer, (2, 2)).images[0].get_array())[1:3, 1:3].ravel(),
        layer.weight.numpy()[:, 0],
    )
    with pytest.raises(ShapeError, match=r"\(9, H\)"):
        plot.filters(layer, (3, 3))


def test_a_confusion_matrix_counts_pairs():
    ax = plot.confusion_matrix([0, 0, 0, 1, 2], [0, 0, 2, 1, 1], names=("a", "b", "c"))
    found = {(t.get_position()[1], t.get_position()[0]): t.get_text() for t in ax.texts}
    assert found == {(0, 0): "2", (0, 2): "1", (1, 1): "1", (2, 1): "1"}
    np.testing.assert_allclose(ax.images[0].get_array()[0], [2 / 3, 0, 1 / 3])
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b", "c"]
    with pytest.raises(ShapeError, match=r"\(N,\)"):
        plot.confusion_matrix([0, 1], [[0, 1]])
    with pytest.raises(ArgumentError, match="classes from 0"):
        plot.confusion_matrix([-1], [0])


def test_gradient_norms_of_several_networks_on_one_axis():
    net = small()
    ax = plot.gradient_norms(net, label="one")
    plot.gradient_norms({"a": 1.0, "b": 10.0}, ax, label="two")
    np.testing.assert_allclose(ax.lines[0].get_ydata(), list(nn.gradient_norms(net).values()))
    assert list(ax.lines[1].get_ydata()) == [1.0, 10.0]
    assert ax.lines[0].get_color() != ax.lines[1].get_color()
    assert len(ax.get_legend().get_texts()) == 2


def test_dead_units_are_percentages():
    report = nn.UnitReport(np.array([True, False, False, False]), np.array([0.0, 1, 1, 0.4]))
    ax = plot.dead_units({"0": report})
    assert [bar.get_height() for bar in ax.patches] == pytest.approx([25, 60])
    with pytest.raises(ArgumentError, match="no reports"):
        plot.dead_units({})


def test_the_graph_has_every_quantity_with_its_numbers():
    found = steps()
    texts = [t.get_text() for t in plot.computation_graph(found).texts]
    for name, q in found.items():
        assert mathematical(name) in texts
        assert f"{q.value:.3g}" in texts
        assert f"{mathematical(name, bar=True)} = {q.grad:.3g}" in texts
    for part in found["z"].messages.values():
        assert f"{part:.3g}" in texts
    bare = plot.computation_graph(found, values=False, gradients=False)
    assert {t.get_text() for t in bare.texts if t.get_text()} == {mathematical(n) for n in found}
    assert mathematical("W12", bar=True) == r"$\bar{W}_{12}$"
    assert mathematical("loss") == r"$\mathrm{loss}$"


def test_arrays_in_the_graph_have_shapes_and_norms():
    def forward(w):
        return {"L": (w * w).sum()}

    w = np.arange(6.0).reshape(2, 3)
    texts = [t.get_text() for t in plot.computation_graph(gn.explain.function(forward, w=w)).texts]
    assert "$w$  (2, 3)" in texts
    assert f"norm {np.linalg.norm(w):.3g}" in texts


def test_edges_go_right_and_long_ones_have_way_points():
    columns, paths = _layout(steps())
    depth = {name: i for i, column in enumerate(columns) for name in column}
    assert {(path[0], path[-1]) for path in paths} >= {("a", "z"), ("b", "z"), ("z", "y")}
    for path in paths:
        assert all(depth[b] == depth[a] + 1 for a, b in itertools.pairwise(path))


def test_a_graph_as_svg_by_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert plot.computation_graph_svg(steps(), tmp_path / "graph.svg") == "matplotlib"
    assert "<svg" in (tmp_path / "graph.svg").read_text()
    with pytest.raises(OutputError, match="cannot be written"):
        plot.computation_graph_svg(steps(), tmp_path / "no folder" / "graph.svg")


def test_a_graph_as_svg_by_graphviz_where_it_is_installed(tmp_path, monkeypatch):
    """Graphviz is not needed to test: a program named dot takes its place."""
    program = tmp_path / "dot"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nassert sys.argv[1:] == ['-Tsvg']\n"
        "sys.stdout.buffer.write(b'<svg>' + sys.stdin.buffer.read() + b'</svg>')\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert plot.computation_graph_svg(steps(), tmp_path / "graph.svg") == "graphviz"
    text = (tmp_path / "graph.svg").read_text()
    assert re.fullmatch(r"<svg>digraph \{.*\}\n</svg>", text, re.DOTALL)
    program.write_text(f"#!{sys.executable}\nraise SystemExit('broken graph')\n")
    with pytest.raises(OutputError, match="broken graph"):
        plot.computation_graph_svg(steps(), tmp_path / "graph.svg")


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "gpunn.plot.picture", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"gpunn\[plot\]"):
        plot.figure()


def test_an_unwritable_picture():
    figure, _ = plot.figure()
    with pytest.raises(OutputError, match="cannot be written"):
        plot.save(figure, "/no/such/folder/picture.png")
