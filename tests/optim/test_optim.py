"""Optimizers, schedules, clipping, regularisers."""

from __future__ import annotations

import math

import numpy as np
import pytest

import gpunn as gn
from gpunn import optim
from gpunn.errors import ArgumentError, GradientError, ModelFileError, UnknownNameError
from gpunn.optim.flat import FlatParameters
from gpunn.optim.schedules import (
    Constant,
    Cosine,
    CosineRestarts,
    Exponential,
    Inverse,
    Linear,
    MultiStep,
    OneCycle,
    Polynomial,
    Step,
    WarmUp,
)
from gpunn.sklearn import arithmetic

pytestmark = pytest.mark.fast

LR = 0.1


def sgd(momentum=0.0, nesterov=False):
    def rule(p, g, s, t):
        s["v"] = momentum * s.get("v", 0) + g
        return p - LR * (g + momentum * s["v"] if nesterov else s["v"])

    return rule


def sgd_of_steps(momentum, nesterov=False):
    def rule(p, g, s, t):
        s["v"] = momentum * s.get("v", 0) - LR * g
        return p + (momentum * s["v"] - LR * g if nesterov else s["v"])

    return rule


def adagrad(p, g, s, t):
    s["s"] = s.get("s", 0) + g**2
    return p - LR * g / (math.sqrt(s["s"]) + 1e-10)


def rmsprop(p, g, s, t):
    s["s"] = 0.9 * s.get("s", 0) + 0.1 * g**2
    return p - LR * g / (math.sqrt(s["s"]) + 1e-8)


def adam(decay=0.0):
    def rule(p, g, s, t):
        p = p - LR * decay * p
        s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
        s["v"] = 0.99 * s.get("v", 0) + 0.01 * g**2
        m, v = s["m"] / (1 - 0.9**t), s["v"] / (1 - 0.99**t)
        return p - LR * m / (math.sqrt(v) + 1e-8)

    return rule


def damped(p, g, s, t):
    s["v"] = g if t == 1 else 0.9 * s["v"] + 0.7 * g
    return p - LR * s["v"]


def coupled(rule, decay=0.1):
    return lambda p, g, s, t: rule(p, g + decay * p, s, t)


def full_rmsprop(centered):
    def rule(p, g, s, t):
        s["s"] = 0.9 * s.get("s", 0) + 0.1 * g**2
        s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
        root = math.sqrt(s["s"] - centered * s["m"] ** 2)
        s["v"] = 0.8 * s.get("v", 0) + g / (root + 1e-8)
        return p - LR * s["v"]

    return rule


def amsgrad(p, g, s, t):
    s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
    s["v"] = 0.99 * s.get("v", 0) + 0.01 * g**2
    s["top"] = max(s.get("top", 0), s["v"])
    m, v = s["m"] / (1 - 0.9**t), s["top"] / (1 - 0.99**t)
    return p - LR * m / (math.sqrt(v) + 1e-8)


def nadam(p, g, s, t):
    s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
    s["v"] = 0.99 * s.get("v", 0) + 0.01 * g**2
    here, ahead = (0.9 * (1 - 0.5 * 0.96 ** (k * 0.004)) for k in (t, t + 1))
    s["u"] = s.get("u", 1) * here
    along = (1 - here) * g / (1 - s["u"]) + ahead * s["m"] / (1 - s["u"] * ahead)
    return p - LR * along / (math.sqrt(s["v"] / (1 - 0.99**t)) + 1e-8)


def radam(p, g, s, t):
    s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
    s["v"] = 0.9 * s.get("v", 0) + 0.1 * g**2
    m, longest = s["m"] / (1 - 0.9**t), 2 / (1 - 0.9) - 1
    r = longest - 2 * t * 0.9**t / (1 - 0.9**t)
    if r <= 5:
        return p - LR * m
    k = (r - 4) * (r - 2) * longest / ((longest - 4) * (longest - 2) * r)
    return p - LR * m * math.sqrt(k) * math.sqrt(1 - 0.9**t) / (math.sqrt(s["v"]) + 1e-8)


def lion(p, g, s, t):
    p, m = p - LR * 0.1 * p, s.get("m", 0)
    s["m"] = 0.99 * m + 0.01 * g
    return p - LR * math.copysign(1, 0.9 * m + 0.1 * g)


def adam_hat(p, g, s, t):
    s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
    s["v"] = 0.99 * s.get("v", 0) + 0.01 * g**2
    rate = LR * math.sqrt(1 - 0.99**t) / (1 - 0.9**t)
    return p - rate * s["m"] / (math.sqrt(s["v"]) + 0.5)


RULES = {
    "sgd": (lambda p: optim.SGD(p, lr=LR), sgd()),
    "momentum": (lambda p: optim.SGD(p, lr=LR, momentum=0.9), sgd(0.9)),
    "nesterov": (lambda p: optim.SGD(p, lr=LR, momentum=0.9, nesterov=True), sgd(0.9, True)),
    "steps": (lambda p: arithmetic.SGD(p, LR, 0.9), sgd_of_steps(0.9)),
    "steps-nesterov": (lambda p: arithmetic.SGD(p, LR, 0.9, True), sgd_of_steps(0.9, True)),
    "steps-plain": (lambda p: arithmetic.SGD(p, LR, 0.0, True), sgd_of_steps(0.0, True)),
    "adagrad": (lambda p: optim.AdaGrad(p, lr=LR), adagrad),
    "rmsprop": (lambda p: optim.RMSprop(p, lr=LR, decay=0.9), rmsprop),
    "adam": (lambda p: optim.Adam(p, lr=LR, beta2=0.99), adam()),
    "adam-hat": (lambda p: arithmetic.Adam(p, LR, beta2=0.99, eps=0.5), adam_hat),
    "adamw": (lambda p: optim.AdamW(p, lr=LR, beta2=0.99, weight_decay=0.1), adam(0.1)),
    "dampened": (lambda p: optim.SGD(p, lr=LR, momentum=0.9, dampening=0.3), damped),
    "plain-decay": (lambda p: optim.SGD(p, lr=LR, weight_decay=0.1), coupled(sgd())),
    "decay": (lambda p: optim.SGD(p, lr=LR, momentum=0.9, weight_decay=0.1), coupled(sgd(0.9))),
    "adagrad-decay": (lambda p: optim.AdaGrad(p, lr=LR, weight_decay=0.1), coupled(adagrad)),
    "centered": (
        lambda p: optim.RMSprop(p, lr=LR, decay=0.9, momentum=0.8, centered=True),
        full_rmsprop(1),
    ),
    "rmsprop-momentum": (
        lambda p: optim.RMSprop(p, lr=LR, decay=0.9, momentum=0.8, weight_decay=0.1),
        coupled(full_rmsprop(0)),
    ),
    "adam-decay": (lambda p: optim.Adam(p, lr=LR, beta2=0.99, weight_decay=0.1), coupled(adam())),
    "amsgrad": (lambda p: optim.Adam(p, lr=LR, beta2=0.99, amsgrad=True), amsgrad),
    "nadam": (lambda p: optim.NAdam(p, lr=LR, beta2=0.99), nadam),
    "radam": (lambda p: optim.RAdam(p, lr=LR, beta2=0.9), radam),
    "lion": (lambda p: optim.Lion(p, lr=LR, weight_decay=0.1), lion),
}


@pytest.mark.parametrize("name", RULES)
def test_update_equals_the_written_rule(name, device):
    make, rule = RULES[name]
    start = np.random.default_rng(0).standard_normal(5)
    w = gn.tensor(start, requires_grad=True, device=device)
    optimizer = make([w])
    expected, states = list(start), [{} for _ in start]
    for t in range(1, 13):
        optimizer.zero_grad()
        (w * w * w).sum().backward()
        optimizer.step()
        expected = [rule(p, 3 * p**2, s, t) for p, s in zip(expected, states, strict=True)]
    np.testing.assert_allclose(w.numpy(), expected, rtol=1e-11)


def test_every_optimizer_has_a_row():
    covered = {type(make(None)) for make, _ in RULES.values()} | {optim.LAMB}  # in test_lamb.py
    assert covered - {arithmetic.SGD, arithmetic.Adam} == set(optim.OPTIMIZERS.values())


def test_a_subclass_registers_only_under_a_name_that_it_gives():
    class Adam(optim.Adam):
        pass

    assert optim.OPTIMIZERS["adam"] is optim.Adam
    assert type(optim.get_optimizer("adam")) is optim.Adam


@pytest.mark.parametrize("name", RULES)
def test_state_round_trip_is_exact(name):
    def run(steps, optimizer, w):
        for _ in range(steps):
            optimizer.zero_grad()
            (w * w * w).sum().backward()
            optimizer.step()

    start = np.random.default_rng(0).standard_normal(5).astype(np.float32)
    w = gn.tensor(start, requires_grad=True)
    whole = RULES[name][0]([w])
    run(3, whole, w)
    state, middle = whole.state_dict(), w.numpy()
    run(4, whole, w)
    v = gn.tensor(middle, requires_grad=True)
    second = RULES[name][0]([v])
    second.load_state_dict(state)
    run(4, second, v)
    np.testing.assert_array_equal(v.numpy(), w.numpy())
    with pytest.raises(ModelFileError, match="optimizer state"):
        second.load_state_dict({"step": np.array(0)})


def test_one_flat_buffer_with_stable_addresses(device):
    net = gn.nn.Sequential(gn.nn.Linear(3, 5, device=device), gn.nn.Linear(5, 2, device=device))
    before = net.state_dict()
    optimizer = optim.Adam(net.parameters())
    flat = optimizer.bound
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    b = flat.backend
    flat.data += 1
    for name, value in net.state_dict().items():
        np.testing.assert_allclose(value, before[name] + 1, rtol=1e-6)
    x = b.upload(np.ones((4, 3), np.float32))
    for _ in range(2):
        optimizer.zero_grad()
        net(x).sum().backward()
        for p in net.parameters():
            p.grad.fill(7.0)  # a view of the flat buffer
        assert np.count_nonzero(b.download(flat.grad) == 7) == 3 * 5 + 5 + 5 * 2 + 2
        assert np.count_nonzero(b.download(flat.grad[flat.weights]) == 7) == 3 * 5 + 5 * 2


def test_gradients_of_shared_weights_accumulate_in_the_sink():
    w = gn.tensor(np.full((2, 2), 2.0), requires_grad=True)
    optimizer = optim.SGD([w])
    x = np.ones((1, 2))
    for _ in range(2):
        optimizer.zero_grad()
        ((x @ w) @ w).sum().backward()
        np.testing.assert_array_equal(w.grad, np.full((2, 2), 8.0))
    optimizer.zero_grad()
    (w * w).sum().backward()
    np.testing.assert_array_equal(w.grad, np.full((2, 2), 4.0))


def test_one_sink_for_two_gradients_of_one_operation():
    values = np.array([[1.0, 2.0], [3.0, 5.0]])
    w, ones = gn.tensor(values, requires_grad=True), np.ones((2, 2))
    optim.SGD([w])
    (w @ w).sum().backward()
    np.testing.assert_array_equal(w.grad, ones @ values.T + values.T @ ones)


def test_a_parameter_without_gradient_is_not_skipped_in_silence():
    a, b = (gn.tensor([1.0], requires_grad=True) for _ in range(2))
    optimizer = optim.SGD([a, b])
    (a * 2.0).sum().backward()
    with pytest.raises(GradientError, match="parameter 1"):
        optimizer.step()


def test_nothing_before_a_hard_threshold_is_trained_in_silence():
    net = gn.nn.Sequential(gn.nn.Linear(2, 2, "hard_threshold"), gn.nn.Linear(2, 1))
    optimizer = optim.SGD(net.parameters())
    net(np.ones((1, 2), np.float32)).sum().backward()
    with pytest.raises(GradientError, match="hard_threshold"):
        optimizer.step()


def test_a_model_moved_after_binding_is_noticed():
    net = gn.nn.Linear(2, 1)
    optimizer = optim.SGD(net.parameters())
    net.to("standin")
    net(gn.tensor(np.ones((1, 2), np.float32), device="standin")).sum().backward()
    with pytest.raises(GradientError, match=r"model\.to\(device\)"):
        optimizer.step()


def test_setting_the_learning_rate_reaches_the_device(device):
    w = gn.tensor([1.0], requires_grad=True, device=device)
    optimizer = optim.SGD([w], lr=1.0)
    optimizer.lr = 0.25
    w.sum().backward()
    optimizer.step()
    assert w.numpy().tolist() == [0.75]


@pytest.mark.parametrize(
    "make",
    [
        lambda: optim.SGD(lr=-1),
        lambda: optim.SGD(momentum=1.0),
        lambda: optim.SGD(nesterov=True),
        lambda: optim.Adam(beta1=1.5),
        lambda: optim.Adam(lr="0.1"),
        lambda: optim.Adam(lr=float("nan")),
        lambda: optim.SGD([]),
        lambda: optim.SGD([gn.tensor([1.0])]),
        lambda: optim.SGD().step(),
        lambda: optim.MaxNorm(0),
        lambda: optim.L2(-1.0),
        lambda: Step(every=0),
    ],
)
def test_bad_arguments(make):
    with pytest.raises(ArgumentError, match="expected"):
        make()


def test_an_unknown_name_lists_the_known():
    with pytest.raises(UnknownNameError, match=", ".join(sorted(gn.optim.OPTIMIZERS))):
        gn.Trainer(gn.nn.Linear(2, 2), optimizer="adm")
    with pytest.raises(UnknownNameError, match="cosine"):
        gn.Trainer(gn.nn.Linear(2, 2), schedule="cosin")


@pytest.mark.parametrize(
    ("schedule", "points"),
    [
        (Constant(), {0: 1, 99: 1}),
        (Step(every=10, gamma=0.5), {0: 1, 9: 1, 10: 0.5, 25: 0.25}),
        (Cosine(), {0: 1, 50: 0.5, 100: 0}),
        (Cosine(steps=10, end=0.1), {0: 1, 5: 0.55, 10: 0.1, 50: 0.1}),
        (Linear(end=0.2), {0: 1, 50: 0.6, 100: 0.2}),
        (Inverse(decay=0.1), {0: 1, 10: 0.5}),
        (WarmUp(steps=4, then=Linear()), {0: 0.25, 3: 1, 4: 1, 52: 0.5}),
        (Exponential(every=10, gamma=0.5), {0: 1, 5: 0.5**0.5, 10: 0.5, 20: 0.25}),
        (Exponential(), {0: 1, 50: 0.1**0.5, 100: 0.1}),
        (MultiStep([30, 60], 0.2), {29: 1, 30: 0.2, 59: 0.2, 60: 0.04}),
        (MultiStep(), {49: 1, 50: 0.1, 74: 0.1, 75: 0.01}),
        (Polynomial(steps=80, power=3.0), {0: 1, 40: 0.125, 80: 0, 99: 0}),
        (CosineRestarts(10, 2, 0.1), {0: 1, 5: 0.55, 10: 1, 20: 0.55, 30: 1, 50: 0.55, 70: 1}),
        (CosineRestarts(), {0: 1, 25: 1, 75: 1}),
        (OneCycle(), {0: 0.04, 14.5: 0.52, 29: 1, 64: 0.500002, 99: 4e-6, 200: 4e-6}),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, optim.Schedule) else "",
)
def test_schedules(schedule, points):
    for step, factor in points.items():
        assert schedule.factor(step, 100) == pytest.approx(factor, abs=1e-12)


@pytest.mark.parametrize("wrong", [[], [0.5, 30], [1.5], [0], ["a"], [True, 3]])
def test_milestones_are_steps_or_fractions(wrong):
    with pytest.raises(ArgumentError, match="milestones"):
        MultiStep(wrong)


def flat_of(values, device):
    w = gn.nn.Parameter(gn.backend(device).upload(np.array(values)))
    bias = gn.nn.Parameter(gn.backend(device).upload(np.array([5.0])), regularize=False)
    return optim.SGD([bias, w]).bound, w, bias


@pytest.mark.parametrize(
    ("regularizer", "value", "gradient"),
    [
        (optim.L2(0.1), 0.1 * 14, [[0.2, -0.4], [0.0, 0.6]]),
        (optim.L1(0.1), 0.1 * 6, [[0.1, -0.1], [0.0, 0.1]]),
        (optim.ElasticNet(0.1, beta=2.0), 0.1 * (28 + 6), [[0.5, -0.9], [0.0, 1.3]]),
    ],
    ids=["l2", "l1", "elastic"],
)
def test_penalties_as_the_lecture_writes_them(regularizer, value, gradient, device):
    flat, w, bias = flat_of([[1.0, -2.0], [0.0, 3.0]], device)
    b = flat.backend
    w.sum().backward()
    bias.sum().backward()
    found = regularizer.penalize(flat, b.full((), 2, np.float64))
    assert float(b.download(found)) == pytest.approx(value, rel=1e-14)
    got = flat.backend.download(w.grad)
    np.testing.assert_allclose(got, 1 + 2 * np.array(gradient), rtol=1e-14)
    assert flat.backend.download(bias.grad).tolist() == [1.0]


def test_max_norm_limits_the_weights_into_each_unit(device):
    flat, w, bias = flat_of([[3.0, 0.1], [4.0, 0.1]], device)
    optim.MaxNorm(1.0).constrain(flat)
    np.testing.assert_allclose(w.numpy(), [[0.6, 0.1], [0.8, 0.1]], rtol=1e-14)
    assert bias.numpy().tolist() == [5.0]


@pytest.mark.parametrize(("limit", "factor"), [(1.0, 0.2), (5.0, 1.0), (10.0, 1.0)])
def test_clipping_by_the_global_norm(limit, factor, device):
    flat, w, bias = flat_of([[0.0]], device)
    (w * 3.0 + bias * 4.0).sum().backward()
    norm = optim.clip_by_global_norm(flat, limit)
    assert float(flat.backend.download(norm)) == pytest.approx(5.0)
    assert flat.backend.download(w.grad)[0, 0] == pytest.approx(3 * factor)
    assert flat.backend.download(bias.grad)[0] == pytest.approx(4 * factor)


def test_full_objective_and_its_gradient_against_differences(rng):
    """R3 of the lectures: mean loss plus lambda R(W1) plus lambda R(W2)."""
    x, y = rng.standard_normal((6, 3)), np.array([0, 1, 0, 1, 1, 0])
    net = gn.nn.Sequential(
        gn.nn.Linear(3, 4, "tanh", dtype="float64"), gn.nn.Linear(4, 2, dtype="float64")
    )
    flat, penalty = optim.SGD(net.parameters()).bound, optim.L2(0.3)

    def objective():
        with gn.no_grad():
            data_loss = gn.ops.softmax_cross_entropy(net(x), y).item()
        return data_loss + float(penalty.penalize(flat, np.zeros(())))

    gn.ops.softmax_cross_entropy(net(x), y).backward()
    penalty.penalize(flat, np.ones(()))
    direction = rng.standard_normal(flat.data.shape) * (flat.grad != 0)
    analytic = float(flat.grad @ direction)
    values = []
    for eps in (1e-6, -2e-6):
        flat.data += eps * direction
        values.append(objective())
    assert (values[0] - values[1]) / 2e-6 == pytest.approx(analytic, rel=1e-7)


def test_a_second_optimizer_is_noticed_by_the_first():
    w = gn.tensor([1.0], requires_grad=True)
    first, second = optim.SGD([w]), optim.Adam([w])
    (w * w).sum().backward()
    with pytest.raises(GradientError, match="another optimizer"):
        first.step()
    second.step()
    assert w.numpy()[0] < 1
    w.data = w.data + 1
    with pytest.raises(GradientError, match="replaced"):
        second.step()


def test_a_weight_in_two_operations_accumulates_behind_its_sink():
    values, x = np.array([[1.0, 2.0], [3.0, 5.0]]), np.array([[1.0, 2.0]])
    w = gn.tensor(values, requires_grad=True)
    optim.SGD([w])
    ((x @ w).sum() + ((2 * x) @ w).sum()).backward()
    np.testing.assert_array_equal(w.grad, [[3, 3], [6, 6]])


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop", "adagrad"])
def test_an_eps_that_is_zero_in_the_dtype_is_refused(name):
    w = gn.tensor(np.ones(2, np.float16), requires_grad=True)
    with pytest.raises(ArgumentError, match="train in float32"):
        optim.get_optimizer(name).bind([w])


def batch_gradients(device, size):
    """Parameters with a sum of gradients and SummedL2(0.3, L1(0.5)); what it should give."""
    rng = np.random.default_rng(0)
    values = [rng.standard_normal(shape) for shape in ((3, 5), (5,), (5, 2))]
    w, bias, v = (
        gn.nn.Parameter(gn.backend(device).upload(a), regularize=a.ndim > 1) for a in values
    )
    flat = FlatParameters([w, bias, v])
    (w.sum() + 2 * bias.sum() + 3 * v.sum()).backward()
    spans = [(flat.parts[t].start, flat.parts[t].stop) for t in (w, v)]
    spans, one = flat.backend.upload(np.array(spans)), flat.backend.one(np.float64)
    found = arithmetic.SummedL2(0.3, optim.L1(0.5)).complete(flat, spans, one, size)
    expected = [(1 + 0.3 * values[0]) / 7, np.full(5, 2 / 7), (3 + 0.3 * values[2]) / 7]
    for i in (0, 2):
        expected[i] += 0.5 * np.sign(values[i])
    penalty = 0.15 * sum(np.sum(a**2) for a in (values[0], values[2])) / 7
    penalty += 0.5 * sum(np.sum(np.abs(a)) for a in (values[0], values[2]))
    return (w, bias, v), expected, found, penalty


@pytest.mark.parametrize("weights", [False, True])
def test_summed_l2_completes_a_mean(weights, device):
    b = gn.backend(device)
    size = b.full((), 7, np.float64) if weights else 7
    parameters, expected, found, penalty = batch_gradients(device, size)
    for parameter, gradient in zip(parameters, expected, strict=True):
        np.testing.assert_allclose(b.download(parameter.grad), gradient, rtol=1e-14)
    assert float(b.download(found)) == pytest.approx(penalty, rel=1e-14)


def test_several_regularizers_add_up(device):
    b = gn.backend(device)
    w = gn.tensor(np.array([[3.0], [4.0]]), requires_grad=True, device=device)
    flat = FlatParameters([w])
    flat.grad.fill(0)
    both = optim.L1(0.5) + optim.MaxNorm(1.0) + optim.L2(0.25)
    assert len(both.parts) == 3
    with pytest.raises(ArgumentError, match="expected a Regularizer"):
        optim.L1(0.5) + 1
    assert float(b.download(both.penalize(flat, b.one(np.float64)))) == 0.5 * 7 + 0.25 * 25
    np.testing.assert_array_equal(b.download(flat.grad)[:2], [2.0, 2.5])
    both.constrain(flat)
    np.testing.assert_allclose(w.numpy(), [[0.6], [0.8]])
