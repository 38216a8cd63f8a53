"""Losses and activations give the numbers that PyTorch 2.13 gave, with their gradients."""

from __future__ import annotations

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn, ops
from gpunn.errors import ArgumentError, DataError, ShapeError

pytestmark = pytest.mark.both_bodies

Z = [[1.5, -0.5, 0.25], [-2.0, 0.75, 3.0], [0.1, 0.2, -0.3], [4.0, -1.0, 0.0]]
T = [0, 2, 1, -100]
W = [0.5, 2.0, 1.25]
ROWS = [[0.2, 0.3, 0.5], [1.0, 0, 0], [0, 0.5, 0.5], [0.1, 0.1, 0.8]]
YES = [[1, 0, 0.25], [0, 1, 1], [0.5, 0, 1], [1, 1, 0]]
AMOUNTS = [[1.0, 0, 0], [-1, 1, 2], [0, 0, 0], [4.001, -1, 1]]
VARIANCES = [[0.5, 2.0, 1.0], [0.1, 0.2, 0.3], [1.0, 4.0, 9.0], [1e-8, 1.0, 0.5]]
X = [-40.0, -3, -1.5, -0.25, 0, 0.5, 2.75, 3, 6, 7.5]

# fmt: off
PYTORCH = {'mean': [0.6797519969474,
          [[-0.01660296812111, -0.003183021034904, 0.01978598915601],
           [-0.002424925278588, 0.01381281711677, -0.01138789183819],
           [0.1805078180457, -0.2933739160414, 0.1128660979957], [0.0, 0.0, 0.0]]],
 'mean plain': [0.583021021099,
                [[-0.07667311910385, 0.02061662093861, 0.05605649816524],
                 [-0.009091591945255, 0.02047948378344, -0.01138789183819],
                 [0.1089877606357, -0.1783813307628, 0.06939357012706], [0.0, 0.0, 0.0]]],
 'none': [[0.1759759319014, 0.1328544299262, 1.841655311107, 0.0],
          [[-0.1483430119891, 0.04759159807459, 0.1007514139145],
           [0.007573196871961, 0.1184647308546, -0.1260379277265],
           [0.7205932304811, -1.20362131791, 0.483028087429], [0.0, 0.0, 0.0]]],
 'rows': [2.926463805981,
          [[0.2020019938138, -0.1221608365945, -0.07984115721932],
           [-0.10734881774, -0.01793291832224, 0.1252817360622],
           [0.1312816050724, -0.07903496367842, -0.05224664139396],
           [0.2865287775868, -0.07127918858792, -0.2152495889989]]],
 'bce': [0.6719791174259,
         [[-0.007601063491932, 0.03146172239985, 0.0237343776826],
          [0.009933576835176, -0.0534702168041, -0.004940195122663],
          [0.0119778658841, 0.04581949977604, -0.05983776216788],
          [-0.0007494254150871, -0.1218430964383, 0.04166666666667]]],
 'kl': [-0.8868320542747,
        [[-0.2, -0.3, -0.5], [-1.0, 0.0, 0.0], [0.0, -0.5, -0.5], [-0.1, -0.1, -0.8]]],
 'kl log': [7.716577283221,
            [[-0.472366552741, -1.284025416688, -0.8824969025846],
             [-2.718281828459, -0.687289278791, -0.2231301601484],
             [-0.9512294245007, -0.904837418036, -1.161834242728],
             [-0.1353352832366, -1.6487212707, -1.0]]],
 'gauss': [1.220228283309,
           [[0.08333333333333, -0.02083333333333, 0.02083333333333],
            [-0.8333333333333, -0.1041666666667, 0.2777777777778],
            [0.008333333333333, 0.004166666666667, -0.002777777777778],
            [-0.08333333333336, 0.0, -0.1666666666667]],
           [[0.04166666666667, 0.01822916666667, 0.0390625],
            [-3.75, 0.1432291666667, -0.3240740740741], [0.04125, 0.0103125, 0.004583333333333],
            [41.625, 0.04166666666667, -0.08333333333333]]],
 'relu6': [[0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 2.75, 3.0, 6.0, 6.0],
           [0.0, 0.0, 0.0, 0.0, 0.0, 1.555555555556, 1.666666666667, 1.777777777778, 0.0, 0.0]],
 'hardswish': [[0.0, 0.0, -0.375, -0.1145833333333, 0.0, 0.2916666666667, 2.635416666667, 3.0,
                6.0, 7.5],
               [0.0, 0.0, 0.0, 0.5555555555556, 0.7222222222222, 1.037037037037, 2.361111111111,
                1.777777777778, 1.888888888889, 2.0]],
 'gelu_tanh': [[0.0, -0.003637392081773, -0.1004284230198, -0.1003246492983, 0.0,
                0.3457140098251, 2.742276855926, 2.996362607918, 5.999999999916, 7.5],
               [0.0, -0.01287129625663, -0.1560909694073, 0.4061945397986, 0.7222222222222,
                1.349242072165, 1.703248202656, 1.798371851788, 1.888888890345, 2.0]],
 'log_softmax': [[-47.71908533349, -10.71908533349, -9.219085333492, -7.969085333492,
                  -7.719085333492, -7.219085333492, -4.969085333492, -4.719085333492,
                  -1.719085333492, -0.2190853334918],
                 [1.0, 1.110779330007, 1.220735282476, 1.32814340366, 1.437780442834,
                  1.544568474352, 1.562424142592, 1.643927727366, -0.7995612408203,
                  -10.04879756247]]}
# fmt: on
"""The value, and the gradients of the predictions and of the variances."""

LOSSES = {
    "mean": ("softmax_cross_entropy", T, {"weight": W, "label_smoothing": 0.1}),
    "mean plain": ("softmax_cross_entropy", T, {"label_smoothing": 0.1}),
    "none": ("softmax_cross_entropy", T, {"weight": W, "reduction": "none"}),
    "rows": ("softmax_cross_entropy", ROWS, {"weight": W, "label_smoothing": 0.2}),
    "bce": ("binary_cross_entropy_with_logits", YES, {"pos_weight": W}),
    "kl": ("kullback_leibler", ROWS, {"reduction": "sum"}),
    "kl log": (
        "kullback_leibler",
        [[v / -2 for v in row] for row in Z],
        {"reduction": "sum", "log_target": True},
    ),
    "gauss": ("gaussian_nll", AMOUNTS, {"full": True, "eps": 1e-3}),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss(name, device):
    loss, targets, options = LOSSES[name]
    if T is targets:
        options = {**options, "ignore_index": -100}
    variances = [VARIANCES] if name == "gauss" else []
    xs = [gn.tensor(np.array(a), requires_grad=True, device=device) for a in (Z, *variances)]
    b = xs[0].backend
    y = ops.get_loss(loss, **options)(xs[0], b.upload(np.array(targets)), *xs[1:])
    y.backward(b.full(y.shape, 1, y.dtype))
    found = [y.numpy(), *(b.download(x.grad) for x in xs)]
    for ours, theirs in zip(found, PYTORCH[name], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", ["relu6", "hardswish", "gelu_tanh", "log_softmax"])
def test_an_activation(name, device):
    x = gn.tensor(np.array(X), requires_grad=True, device=device)
    y = nn.Activate(name)(x)
    y.backward(x.backend.upload(np.linspace(1, 2, 10)))
    for ours, theirs in zip((y.numpy(), x.backend.download(x.grad)), PYTORCH[name], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("options", [{}, {"weight": W}, {"weight": W, "label_smoothing": 0.1}])
def test_the_mean_of_nothing(options, device):
    """It is NaN, and its gradient 0, as in PyTorch."""
    z = gn.tensor(np.array(Z), requires_grad=True, device=device)
    t = z.backend.upload(np.full(4, -100))
    loss = ops.softmax_cross_entropy(z, t, ignore_index=-100, **options)
    assert np.isnan(loss.item())
    loss.backward()
    assert not z.backend.download(z.grad).any()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_focal_is_the_cross_entropy_at_gamma_0_and_counts_sure_examples_less(reduction, device):
    z = gn.tensor(np.array(Z), device=device)
    t = z.backend.upload(np.array(T))
    some = {"weight": W, "ignore_index": -100, "reduction": reduction}
    cross = ops.softmax_cross_entropy(z, t, **some).numpy()
    np.testing.assert_allclose(ops.focal(z, t, gamma=0, **some).numpy(), cross, rtol=1e-15)
    powers = np.exp(Z)
    p = (powers / powers.sum(1, keepdims=True))[np.arange(4), np.maximum(T, 0)]
    w = np.where(np.array(T) < 0, 0, np.take(W, np.maximum(T, 0)))
    expected = w * (1 - p) ** 2 * -np.log(p)
    whole = {"mean": expected.sum() / w.sum(), "sum": expected.sum(), "none": expected}
    np.testing.assert_allclose(ops.focal(z, t, **some).numpy(), whole[reduction], rtol=1e-13)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("name", LOSSES)
def test_narrow_scores_have_wide_losses(name, dtype, device):
    """And gradients of their own dtype, to its digits."""
    loss, targets, options = LOSSES[name]
    options = {**options, "ignore_index": -100} if T is targets else options
    variances = [VARIANCES] if name == "gauss" else []
    given = [np.array(a, dtype) for a in (Z, *variances)]
    xs = [gn.tensor(a, requires_grad=True, device=device) for a in given]
    b, t = xs[0].backend, np.array(targets)
    t = t if t.dtype.kind == "i" else t.astype(dtype)
    wide = [gn.tensor(a.astype(np.float64), requires_grad=True, device=device) for a in given]
    both = []
    for tensors, kind in ((xs, dtype), (wide, "float64")):
        on = b.upload(t if t.dtype.kind == "i" else t.astype(kind))
        y = ops.get_loss(loss, **options)(tensors[0], on, *tensors[1:])
        y.backward(b.full(y.shape, 1, y.dtype))
        both.append([y.numpy(), *(b.download(x.grad) for x in tensors)])
    assert both[0][0].dtype == np.float32
    tolerance = {"float16": 2e-3, "float32": 1e-5}[dtype]
    for k, (ours, exact) in enumerate(zip(*both, strict=True)):
        rtol = 1e-5 if k == 0 else tolerance
        np.testing.assert_allclose(ours, exact, rtol=rtol, atol=tolerance / 10)


def net(outputs, device):
    layers = [nn.Linear(3, 8, "relu6", seed=1), nn.Linear(8, 8, "hardswish", seed=2)]
    layers += [nn.Linear(8, 8, "gelu_tanh", seed=3), nn.Linear(8, outputs, seed=4)]
    return nn.Sequential(*layers).to(device)


FITS = {
    "weights": (
        "softmax_cross_entropy",
        {"weight": [1.0, 2.0, 0.5], "ignore_index": -1, "label_smoothing": 0.1},
    ),
    "ignored": ("softmax_cross_entropy", {"ignore_index": -1}),
    "focal": ("focal", {"weight": [1.0, 2.0, 0.5], "ignore_index": -1}),
    "positive": ("binary_cross_entropy_with_logits", {"pos_weight": [1.0, 2.0, 0.5]}),
    "divergence": ("kullback_leibler", {}),
    "density": ("gaussian_nll", {"full": True}),
}


@pytest.mark.parametrize("name", FITS)
def test_a_recorded_fit_has_the_same_bits(name, device, rng):
    loss, options = FITS[name]
    x, labels = rng.standard_normal((40, 3)), rng.integers(-1, 3, 40)
    y = {"positive": np.eye(3)[labels], "divergence": rng.dirichlet(np.ones(3), 40)}.get(
        name, labels
    )
    y = x[:, :1] if name == "density" else y

    def fit(capture):
        model = net(2 if name == "density" else 3, device)
        model = nn.Sequential(*model.layers, *(["log_softmax"] * (name == "divergence")))
        trainer = gn.Trainer(model, ops.get_loss(loss, **options), seed=0, capture=capture)
        curve = trainer.fit(x, y, epochs=4, batch_size=8, progress=False)["loss"]
        assert curve[-1] < curve[0]
        assert np.isfinite(list(trainer.evaluate(x, y).values())).all()
        return curve, trainer.predict(x)

    (curve, outputs), (other, others) = fit(False), fit(True)
    assert curve == other
    np.testing.assert_array_equal(outputs, others)


def test_shapes_and_numbers_that_do_not_fit():
    z = np.array(Z)
    with pytest.raises(ShapeError, match="pos_weight of shape"):
        ops.binary_cross_entropy_with_logits(z, np.array(YES), pos_weight=[1.0, 2.0])
    with pytest.raises(ArgumentError, match="pos_weight"):
        ops.binary_cross_entropy_with_logits(z, np.array(YES), pos_weight=-1.0)
    with pytest.raises(ArgumentError, match="rows of probabilities"):
        ops.softmax_cross_entropy(z, np.array(ROWS), ignore_index=1)
    with pytest.raises(ShapeError, match=r"expected \(N,\) labels"):
        ops.focal(z, np.array(ROWS))
    with pytest.raises(DataError, match="log_target=True"):
        ops.kullback_leibler(z, np.array(Z))
    with pytest.raises(ArgumentError, match="log_target=1"):
        ops.kullback_leibler(z, np.array(ROWS), log_target=1)
    with pytest.raises(ShapeError, match="2 K"):
        ops.gaussian_nll(z, np.array(AMOUNTS))
    with pytest.raises(ShapeError, match="one variance for each row"):
        ops.gaussian_nll(z, np.array(AMOUNTS), np.ones((2, 3)))
    with pytest.raises(DataError, match="variances in gaussian_nll"):
        ops.gaussian_nll(z, np.array(AMOUNTS), -np.ones((4, 3)))
    with pytest.raises(ArgumentError, match="eps=0"):
        ops.gaussian_nll(z, np.array(AMOUNTS), np.ones((4, 3)), eps=0)
