"""Misprints of the lectures: the corrected formula is right and the printed one is not."""

from __future__ import annotations

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn, ops
from gpunn.errors import ArgumentError
from gpunn.optim.rule import Rule


@pytest.fixture
def pair(rng):
    """x, t and a 4-4-4 network of two linear layers, square so that misprints have a shape."""
    net = nn.Sequential(
        *(nn.Linear(4, 4, dtype="float64", seed=s) for s in (1, 2)),
    )
    for layer in net.layers:
        layer.load_state_dict({"weight": layer.weight.numpy(), "bias": rng.standard_normal(4)})
    return net, rng.standard_normal((1, 4)), rng.standard_normal((1, 4))


def far(a, b):
    return np.abs(np.asarray(a) - np.asarray(b)).max() > 0.01


def test_e1_the_gradient_of_the_right_factor(rng):
    """Lecture 000 prints dL/dC = A^T dL/dB for A = B C; it is B^T dL/dA."""
    b, c = rng.standard_normal((2, 3, 3))
    steps = gn.explain.function(lambda B, C: {"A": (a := B @ C), "L": (a * a * a).sum()}, B=b, C=c)
    a, ga, gb = steps["A"].value, steps["A"].grad, steps["B"].grad
    np.testing.assert_allclose(steps["C"].grad, b.T @ ga, rtol=1e-12)
    assert far(steps["C"].grad, a.T @ gb)


def test_e2_the_second_layer_has_its_own_weights(pair):
    """Lecture 000 prints f = W1 h + b2; the output is W2 h + b2."""
    net, x, _ = pair
    (w1, w2), (b1, b2) = zip(*((n.W_col, n.bias.numpy()) for n in net.layers), strict=True)
    h = w1 @ x[0] + b1
    np.testing.assert_allclose(net.predict(x)[0], w2 @ h + b2, rtol=1e-12)
    assert far(net.predict(x)[0], w1 @ h + b2)


def test_e3_the_logarithm_of_a_sum(rng):
    """Lecture 000 prints log(e^f1, e^f2, e^f3) - f_y; it is log of the sum."""
    f = rng.standard_normal((1, 3))
    loss = ops.softmax_cross_entropy(gn.tensor(f), np.array([1])).item()
    assert loss == pytest.approx(np.log(np.exp(f).sum()) - f[0, 1], rel=1e-14)
    assert far(np.log(np.exp(f)) - f[0, 1], loss)  # taken as it stands, three numbers


def test_e4_the_derivative_of_relu_at_zero():
    """Lecture 000 has 0, lecture 002 has 1: both are subgradients; `relu` and `relu_right`."""
    for op, slope in ((ops.relu, 0.0), (ops.relu_right, 1.0)):
        x = gn.tensor(np.zeros(1), requires_grad=True)
        op(x).sum().backward()
        assert x.grad.tolist() == [slope]


def test_e5_two_linear_layers_are_w2_w1(pair):
    """Lecture 001 prints (W1 W2) x + (W2 b1 + b2)."""
    net, x, _ = pair
    w1, w2 = (layer.W_col for layer in net.layers)
    one = nn.collapse(net)
    np.testing.assert_allclose(one.W_col, w2 @ w1, rtol=1e-12)
    np.testing.assert_allclose(one.predict(x), net.predict(x), rtol=1e-12)
    assert far(one.W_col, w1 @ w2)


def test_e6_the_hinge_subtracts_the_right_score(rng):
    """Lecture 001 prints W_j x + W_y x + 1 on paper; it is minus."""
    s = rng.standard_normal((1, 3))
    loss = ops.multiclass_hinge(gn.tensor(s), np.array([0])).item()
    assert loss == pytest.approx(sum(max(0, s[0, j] - s[0, 0] + 1) for j in (1, 2)), rel=1e-14)
    assert far(loss, sum(max(0, s[0, j] + s[0, 0] + 1) for j in (1, 2)))


def test_e7_nine_directions_make_10800_numbers():
    """Lecture 001 says 8 directions and counts 30 * 40 * 9."""
    image = np.zeros((1, 240, 320))
    assert gn.data.oriented_gradients(image, 8, bins=9).shape[1] == 10_800
    assert gn.data.oriented_gradients(image, 8, bins=8).shape[1] != 10_800


class AsPrinted(gn.optim.Optimizer):
    """The update of lecture 001's first listing, w = 1e-4 * dw."""

    rule = Rule(
        "as_printed",
        "-> ",
        numpy=lambda g, lr, step, p: np.multiply(g, lr, out=p),
        cuda="p = lr * g;",
    )

    def options(self):
        return ()


def short_network(rule):
    """Lecture 001's network, smaller, with an update rule; the first losses."""
    rng = np.random.default_rng(0)
    x, y, w1, w2 = (rng.standard_normal(s) for s in ((64, 50), (64, 10), (50, 20), (20, 10)))
    w1, w2 = (gn.tensor(w, requires_grad=True) for w in (w1, w2))
    optimizer, losses = rule([w1, w2], lr=1e-4), []
    for _ in range(30):
        optimizer.zero_grad()
        loss = ops.squared_error(ops.sigmoid(gn.tensor(x) @ w1) @ w2, y, reduction="sum")
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return np.array(losses)


def test_e8_the_listing_lost_the_minus_of_its_updates():
    """Lecture 001's first listing assigns w1 = 1e-4 * dw1; the second, w1 -= ..., descends."""
    assert (np.diff(short_network(gn.optim.SGD)) < 0).all()
    assert not (np.diff(short_network(AsPrinted)) < 0).all()


def test_e9_what_is_needed_is_the_gradient_of_the_biases(pair):
    """Lecture 001 lists dL/dh1 and dL/dh2; the parameters are b1 and b2."""
    net, x, t = pair
    steps = gn.explain.network(net, x, t, reduction="sum")
    w1, w2 = (layer.weight.numpy() for layer in net.layers)

    def loss(b1, b2):
        return 0.5 * np.square((x @ w1 + b1) @ w2 + b2 - t).sum()

    b1, b2 = (layer.bias.numpy() for layer in net.layers)
    for name, moved in (("b1", lambda e: loss(b1 + e, b2)), ("b2", lambda e: loss(b1, b2 + e))):
        difference = [(moved(e) - moved(-e)) / 2e-6 for e in 1e-6 * np.eye(4)]
        np.testing.assert_allclose(steps[name].grad, difference, rtol=1e-6, atol=1e-8)
    assert {name for name, _ in net.named_parameters()} == {
        *("0.weight", "0.bias", "1.weight", "1.bias")
    }


def test_e10_a_sum_of_three_different_units():
    """Lecture 001 prints u1 max(0, w2 x + b2) in all places; the units have their own numbers."""
    net = nn.Sequential(
        nn.Linear(1, 3, "relu", dtype="float64"), nn.Linear(3, 1, bias=False, dtype="float64")
    )
    w, b, u = (
        np.array([[1.0, -1.0, 2.0]]),
        np.array([0.5, 1.0, -1.0]),
        np.array([[1.0], [2.0], [3.0]]),
    )
    net[0].load_state_dict({"weight": w, "bias": b})
    net[1].load_state_dict({"weight": u})
    x = 1.5
    expected = sum(u[i, 0] * max(0, w[0, i] * x + b[i]) for i in range(3))
    assert net.predict(np.array([[x]])).item() == pytest.approx(expected, rel=1e-14)
    assert far(expected, sum(u[i, 0] * max(0, w[0, 1] * x + b[1]) for i in range(3)))


def test_e11_error_signals_come_back_not_values(rng):
    """Lecture 003 prints zbar_j = sum_k y_k dy_k/dz_j; it is ybar_k."""
    z, t = rng.standard_normal((1, 3)), rng.standard_normal((1, 3))
    steps = gn.explain.function(
        lambda z: {"y": (y := ops.softmax(z)), "L": ((y - t) ** 2 * 0.5).sum()}, z=z
    )
    y = steps["y"].value[0]
    jacobian = np.diag(y) - np.outer(y, y)
    np.testing.assert_allclose(steps["z"].grad[0], steps["y"].grad[0] @ jacobian, atol=1e-15)
    assert far(steps["z"].grad[0], y @ jacobian)


@pytest.mark.parametrize("sign", [1, -1])
def test_e12_an_update_goes_against_the_gradient(sign, pair):
    """Lecture 002 prints W <- W eta grad; the minus was lost."""
    net, x, t = pair
    optimizer = gn.optim.SGD(net.parameters(), lr=0.01)
    loss = ops.half_squared_error(net(x), t)
    loss.backward()
    before = [(p.numpy(), p.backend.download(p.grad)) for p in net.parameters()]
    optimizer.step()
    for parameter, (value, grad) in zip(net.parameters(), before, strict=True):
        right = np.allclose(parameter.numpy(), value - sign * 0.01 * grad, rtol=1e-12, atol=1e-15)
        assert right == (sign == 1)


def test_e13_one_layout_and_the_others_as_a_view(pair):
    """W is (H, D) with columns in 000, 001 and 003 and (D, H) in 004, which is how it is stored."""
    layer = nn.Linear(3, 5, dtype="float64", seed=0)
    x = np.arange(3.0)
    assert layer.weight.shape == (3, 5)
    assert layer.W_col.shape == (5, 3)
    assert np.shares_memory(layer.W_col, layer.weight.data)
    np.testing.assert_allclose(layer.W_col @ x, layer.predict(x[None])[0], rtol=1e-13)


def test_e14_sigma_of_random_features_is_a_standard_deviation():
    """Lecture 004 writes N(0, sigma I) and does not say."""
    weight = nn.RandomFeatures(200, 200, deviation=3.0, dtype="float64").weight.numpy()
    assert weight.std() == pytest.approx(3.0, rel=0.02)
    assert abs(weight.std() - np.sqrt(3)) > 1


def test_e15_rate_is_the_probability_of_dropping():
    """Lecture 001's text says dropping, its code keeps `rand < p`: here it is `rate`."""
    y = nn.Dropout(rate=0.125, seed=0)(gn.tensor(np.ones(80_000))).numpy()
    assert (y == 0).mean() == pytest.approx(0.125, abs=0.01)
    with pytest.raises(ArgumentError, match=r"got p=.*expected rate="):
        nn.Dropout(p=0.125)


def test_e16_a_convex_combination_has_no_negative_weights():
    """Lecture 003 asks only for sum lambda_i = 1; with a negative one, a half-space can be left."""
    unit = nn.Linear(2, 1, dtype="float64")
    unit.load_state_dict({"weight": np.array([[1.0], [1.0]]), "bias": np.array([-0.5])})
    points = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]])
    assert (unit.predict(points) > 0).all()
    inside = lambda weights: unit.predict((np.array(weights) @ points)[None]).item() > 0  # noqa: E731
    assert inside([0.2, 0.5, 0.3])
    assert not inside([1.0, 1.0, -1.0])  # adds up to 1 as well


def test_e17_lecture_004_uses_both_layouts(pair):
    """Its forward pass has z = W x with W_ji = w_ij, its backward pass W of d_(l-1) x d_l."""
    net, x, t = pair
    layer = net[0]
    np.testing.assert_allclose(layer.W_col @ x[0] + layer.bias.numpy(), layer.predict(x)[0])
    steps = gn.explain.network(net, x, t, reduction="sum")
    back = net[1].weight.numpy() @ steps["y"].grad[0]  # W of the backward pass: (in, out)
    np.testing.assert_allclose(steps["z1"].grad[0], back, rtol=1e-12)
    assert far(steps["z1"].grad[0], net[1].W_col @ steps["y"].grad[0])


def test_e18_delta_7_is_by_z_and_the_others_are_by_a(rng):
    """Lecture 004: delta_7 = dE/dz7, but delta_6 = dE/da6 with g'(z6) in the next formula."""
    w46, w67, a4, t = 0.7, -1.3, 0.4, 1.0
    steps = gn.explain.function(
        lambda a4, w46, w67: {
            "z6": (z6 := a4 * w46),
            "a6": (a6 := ops.sigmoid(z6)),
            "z7": (z7 := a6 * w67),
            "a7": (a7 := ops.sigmoid(z7)),
            "E": ops.perceptron(a7 - 0.9, np.array(t)),
        },
        a4=np.array(a4),
        w46=np.array(w46),
        w67=np.array(w67),
    )
    slope = lambda name: steps[name].value * (1 - steps[name].value)  # noqa: E731
    by_z = {n: float(steps[f"z{n}"].grad) for n in (6, 7)}
    by_a = {n: float(steps[f"a{n}"].grad) for n in (6, 7)}
    assert by_a[6] == pytest.approx(by_z[7] * w67, rel=1e-12)  # from delta_7 by z
    assert by_z[6] == pytest.approx(by_a[6] * slope("a6"), rel=1e-12)  # from delta_6 by a
    assert abs(by_a[7] * w67 - by_a[6]) > 1e-3  # one rule for all would mix the two


def test_e19_the_elegant_gradient_has_a_minus():
    """Lecture 002 prints sigma'(z) = sigma(z) (1 sigma(z)); it is 1 - sigma(z)."""
    z = gn.tensor(np.linspace(-3, 3, 13), requires_grad=True)
    s = ops.sigmoid(z)
    s.sum().backward()
    np.testing.assert_allclose(z.grad, s.numpy() * (1 - s.numpy()), rtol=1e-13)
    assert far(z.grad, s.numpy() * (1 * s.numpy()))


def test_e20_h_dot_w2_is_a_product(rng):
    """Lecture 001's first listing prints h_dot(w2), which is no name; it is h.dot(w2)."""
    h, w2 = rng.standard_normal((3, 4)), rng.standard_normal((4, 2))
    np.testing.assert_array_equal((gn.tensor(h) @ gn.tensor(w2)).numpy(), h.dot(w2))
    with pytest.raises(AttributeError):
        _ = gn.tensor(h).h_dot
