"""What networks can express and what happens in them: the rows M12 to M16 and M20 to M25."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpunn as gn
from gpunn import nn
from gpunn.errors import ArgumentError, GradientError, ShapeError
from gpunn.nn import constructed, wiring
from tests.examples.loading import example
from tests.lectures.fitting import fitted, smooth

# M12 to M16: bumps, indicators, one unit for each configuration ---------------------------------


def test_four_relus_make_a_bump(device):
    net = constructed.relu_bump(1, 2, 0.25, height=3.0, device=device)
    assert net[0].out_features == 4
    x = np.array([0.0, 0.75, 0.875, 1.0, 1.5, 2.0, 2.125, 2.25, 9.0])[:, None]
    expected = [0, 0, 1.5, 3, 3, 3, 1.5, 0, 0]
    np.testing.assert_allclose(net.predict(x)[:, 0], expected, atol=1e-13)


def test_a_sum_of_bumps_comes_as_close_as_wanted(device):
    x = np.linspace(-2, 2, 2001)
    errors = [
        np.abs(
            constructed.approximation(smooth, -2, 2, k, device=device).predict(x[:, None])[:, 0]
            - smooth(x)
        ).max()
        for k in (10, 20, 40, 80)
    ]
    for wide, narrow in itertools.pairwise(errors):
        assert 1.6 < wide / narrow < 2.4  # like 1 / K
    assert errors[-1] < 0.1


def test_the_indicator_by_hard_thresholds_and_by_relus(device):
    x = np.concatenate([np.linspace(-1, 4, 5001), [1 + 1e-9, 2 - 1e-9, 2 + 1e-9]])
    inside = (x > 1) & (x < 2)
    ends = (x == 1) | (x == 2)
    exact = constructed.threshold_indicator(1, 2, device=device).predict(x[:, None])[:, 0]
    np.testing.assert_array_equal(exact[~ends], inside[~ends])
    eps = 0.05
    relu = constructed.relu_bump(1 + eps, 2 - eps, eps, device=device).predict(x[:, None])[:, 0]
    ramp = ((x > 1) & (x < 1 + eps)) | ((x > 2 - eps) & (x < 2)) | ends
    np.testing.assert_allclose(relu[~ramp], inside[~ramp], atol=1e-11)
    assert np.abs(relu - inside)[ramp].max() > 0.9


@pytest.mark.parametrize("bits", [1, 2, 5, 10])
def test_any_boolean_function_by_a_unit_for_each_configuration(bits, device, rng):
    values = rng.integers(0, 2, 2**bits)
    net = constructed.boolean(values, bits, device=device)
    assert net[0].out_features == 2**bits
    x = np.array(list(itertools.product((0.0, 1.0), repeat=bits)))
    np.testing.assert_array_equal(net.predict(x)[:, 0], values)
    hidden = net[0].predict(x)
    np.testing.assert_array_equal(hidden, np.eye(2**bits))


@pytest.mark.parametrize(
    "make",
    [
        lambda: constructed.boolean([0, 1], 2),
        lambda: constructed.boolean([], 0),
        lambda: constructed.threshold_indicator(2, 1),
        lambda: constructed.relu_bump(0, 1, 0.0),
        lambda: constructed.approximation(np.sin, 0, 1, 0),
        lambda: nn.RandomFeatures(2, 3, deviation=0),
        lambda: wiring.erdos_renyi(3, 1.5),
        lambda: wiring.watts_strogatz(5, 3, 0.1),
        lambda: wiring.barabasi_albert(3, 3),
        lambda: wiring.wired([(1, 0)], 2, 2, 2),
        lambda: wiring.wired([], 2, 2, 2),
        lambda: nn.FeedbackLinear(2, 2, "softmax"),
    ],
)
def test_bad_arguments(make):
    with pytest.raises(ArgumentError, match="expected"):
        make()


@pytest.mark.parametrize("make", [nn.QuadraticFeatures, nn.DifferenceFeature])
def test_features_of_a_wrong_shape(make):
    with pytest.raises(ShapeError, match="expected"):
        make()(np.zeros((2, 2, 2)))


def test_trained_networks_do_not_look_like_bumps():
    """M16, with the lecture's own network of 40 ReLUs: it fits better, and has other parts.

    The built network is steep (its slopes change by 302 in all, the function's by 23), and each of
    its bumps matters on a tenth of the interval. In a learned one, slopes change about as much as
    the function's, and half of the units matter on more than a third.
    """
    lesson = example("21_no_bumps")
    x = np.linspace(-2, 2, 4001)[:, None]
    built = lesson.shape(constructed.approximation(lesson.target, -2, 2, 10), x, 4)
    curvature = np.abs(np.diff(lesson.target(x)[:, 0], 2)).sum() / 0.001
    for seed in range(4):
        error, bend, reach = lesson.shape(lesson.learned(x, 2000, seed), x, 1)
        assert error < built[0] / 3
        assert bend < 1.2 * curvature < built[1] / 10
        assert reach > 0.3 > 2 * built[2]


# M20 to M25 --------------------------------------------------------------------------------------


def test_more_hidden_units_have_a_lower_training_error():
    data = gn.data.spirals(150, classes=2, noise=0.1, seed=0)
    medians = []
    for width in (3, 6, 20):
        errors = []
        for seed in range(3):
            gn.manual_seed(seed)
            net = nn.Sequential(nn.Linear(2, width, "relu"), nn.Linear(width, 2))
            errors.append(1 - fitted(net, data, epochs=200, lr=0.05))
        medians.append(np.median(errors))
    assert medians == sorted(medians, reverse=True)
    assert medians[0] > medians[-1] + 0.05


def test_relu_folds_the_plane_into_one_quadrant(device):
    """M21: with W = I the quadrants go to the quadrant, an edge, the other edge, the origin."""
    layer = nn.Linear(2, 2, "relu", bias=False, dtype="float64", device=device)
    layer.load_state_dict({"weight": np.eye(2)})
    corners = np.array([[2.0, 1], [-2, 1], [-2, -1], [2, -1]])
    np.testing.assert_array_equal(layer.predict(corners), [[2, 1], [0, 1], [0, 0], [2, 0]])
    w = np.array([[1.0, -0.5], [0.3, 2.0]])
    layer.load_state_dict({"weight": w})
    x = np.random.default_rng(0).standard_normal((500, 2))
    sides = x @ w > 0
    h = layer.predict(x)
    np.testing.assert_array_equal(h > 0, sides)  # each of the four cones to its own part
    assert (h[~sides.any(axis=1)] == 0).all()


def test_dead_units_are_found(device, rng):
    net = nn.Sequential(
        nn.Linear(3, 4, "relu", seed=0, device=device),
        nn.Linear(4, 5, "gelu", seed=1, device=device),
        nn.Activate("relu"),
        nn.Linear(5, 2, seed=2, device=device),
    )
    bias = net[0].bias.numpy()
    bias[2] = -100.0
    net[0].load_state_dict({"weight": net[0].weight.numpy(), "bias": bias})
    x = gn.tensor(rng.standard_normal((300, 3)).astype(np.float32), device=device)
    reports = nn.dead_units(net, x)
    assert list(reports) == ["0", "1", "2"]
    assert reports["0"].dead.tolist() == [False, False, True, False]
    assert reports["0"].fraction == 0.25
    assert not reports["1"].dead.any()
    assert (net(x).numpy() == net.predict(x.numpy())).all()  # the activations are fused again


def test_sigmoid_gradients_vanish_and_relu_gradients_do_not(device):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((32, 20)).astype(np.float32)
    shrink = {}
    for name in ("sigmoid", "tanh", "relu"):
        gn.manual_seed(0)
        layers = [nn.Linear(20, 20, name, init="he_normal", device=device) for _ in range(10)]
        net = nn.Sequential(*layers, nn.Linear(20, 1, device=device))
        with pytest.raises(GradientError, match="backward"):
            nn.gradient_norms(net)
        net(net.backend.upload(x)).sum().backward()
        norms = list(nn.gradient_norms(net).values())
        assert len(norms) == 11
        shrink[name] = norms[0] / norms[9]
    assert shrink["sigmoid"] < 1e-3
    assert shrink["relu"] > 0.03
    assert shrink["relu"] > 30 * shrink["sigmoid"]


def test_gradient_norms_are_the_norms_of_the_gradients(rng):
    net = nn.Sequential(nn.Linear(3, 4, "tanh", seed=0), nn.Linear(4, 2, seed=1))
    net(rng.standard_normal((5, 3)).astype(np.float32)).sum().backward()
    expected = {"0.weight": net[0].weight.grad, "1.weight": net[1].weight.grad}
    for name, norm in nn.gradient_norms(net).items():
        assert norm == pytest.approx(math.sqrt((expected[name] ** 2).sum()), rel=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(3, 8), st.floats(0.2, 0.9), st.integers(0, 2**32))
def test_gradient_of_a_random_dag_of_layers(nodes, p, seed):
    edges = wiring.erdos_renyi(nodes, p, seed) or [(0, 1)]
    net = wiring.wired(edges, 3, 4, 2, "tanh", dtype="float64")
    x = np.random.default_rng(seed).standard_normal((2, 3))
    names, values = zip(*net.state_dict().items(), strict=True)

    def output(*parameters):
        tensors = dict(zip(names, parameters, strict=True))
        for name, node in net.nodes.items():
            if isinstance(node, nn.Linear):
                node.weight, node.bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
        return net(gn.tensor(x))

    gn.gradcheck(output, *values, directions=1)


def test_wirings_have_their_numbers_of_edges():
    n = 60
    counts = [len(wiring.erdos_renyi(n, 0.3, seed)) for seed in range(20)]
    pairs = n * (n - 1) / 2
    assert abs(np.mean(counts) - 0.3 * pairs) < 5 * math.sqrt(0.21 * pairs / 20)
    for seed in range(3):
        ring = wiring.watts_strogatz(20, 4, 0.5, seed)
        assert len(set(ring)) == len(ring) == 40
        assert ring != wiring.watts_strogatz(20, 4, 0.0)
        tree = wiring.barabasi_albert(40, 2, seed)
        assert len(set(tree)) == len(tree) == 2 * 38
        degrees = np.bincount(np.array(tree).ravel())
        assert degrees.max() > 3 * np.median(degrees)  # hubs
        for edges in (ring, tree):
            assert all(i < j for i, j in edges)


def test_a_randomly_wired_network_learns(device):
    data = gn.data.circles(100, noise=0.02)
    gn.manual_seed(1)
    net = wiring.wired(wiring.watts_strogatz(6, 2, 0.5, 3), 2, 8, 2)
    assert fitted(net, data, epochs=60, lr=0.02, device=device) == 1.0


def test_nearest_neighbours_come_as_close_as_wanted_too():
    """M24: with more points, neighbours, a kernel and a network all come closer, none rises."""
    lesson = example("20_other_models")
    x = np.linspace(-2, 2, 1001)
    errors = {"nearest": [], "kernel": [], "network": []}
    for n in (10, 20, 40):
        known = lesson.chebyshev(n)
        values = lesson.target(known)
        for name, fit in (
            ("nearest", lesson.nearest(known, values, x)),
            ("kernel", lesson.kernel_ridge(known, values, x)),
            ("network", lesson.network(known, values, x, 2000)),
        ):
            errors[name].append(np.abs(fit - lesson.target(x)).max())
    assert errors["nearest"][0] > 1.5 * errors["nearest"][1] > 2.2 * errors["nearest"][2]
    for name in ("kernel", "network"):
        assert errors[name][0] > 4 * errors[name][1]
        assert errors[name][2] < 1.3 * errors[name][1]
    assert errors["network"][2] < errors["nearest"][2] / 5


def test_kernel_ridge_is_the_linear_network_on_its_features(rng):
    """M25: the closed form with the kernel phi phi' is what descent on the features finds."""
    features = nn.RandomFeatures(2, 6, "tanh", seed=1, dtype="float64")
    x, y, penalty = rng.standard_normal((30, 2)), rng.standard_normal((30, 1)), 0.1
    phi = features(gn.tensor(x)).numpy()
    dual = np.linalg.solve(phi @ phi.T + penalty * 30 * np.eye(30), y)
    head = nn.Linear(6, 1, bias=False, dtype="float64", seed=0)
    trainer = gn.Trainer(
        head, "squared_error", gn.optim.SGD(lr=0.1), regularizer=gn.optim.L2(penalty)
    )
    trainer.fit(phi, y, epochs=1500, batch_size=30, progress=False)
    np.testing.assert_allclose(head.predict(phi), phi @ phi.T @ dual, atol=1e-6)
