"""Losses of the page beside those of a real Trainer, run by the page's own Python program."""

from __future__ import annotations

import numpy as np
import pytest

import gpunn as gn
from gpunn.playground.catalogue import OPTIMIZERS, RATES
from gpunn.playground.kernels import activations, losses
from gpunn.playground.sets import MAPS, SETS
from tests.playground.conftest import run
from tests.playground.native import on_portable_kernels, why_not

XOR = {"set": "xor", "noise": 0.0, "layers": [8], "batch": 4}
SPIRAL = {"set": "spiral", "noise": 0.1, "layers": [5, 3], "batch": 16}
DRAWN = [[-0.5, 0.25, 1], [0.3, 0.3, 0], [1.27, -1.01, 1], [0.07, -0.4, 0], [-0.9, -0.9, 0]]


@pytest.fixture(scope="module")
def portable():
    """Skip with the reason where the kernels cannot be built as the page has them."""
    reason = why_not()
    if reason:
        pytest.skip(reason)


def same_bits(found):
    """Assert that a Trainer on the page's kernels, built natively, has the losses of the page."""
    with on_portable_kernels():
        history = run(found["python"])["history"]
    np.testing.assert_array_equal(found["losses"], history["loss"])
    np.testing.assert_array_equal(found["tests"], history["val_loss"] if found["tests"] else [])
    assert len(set(found["losses"])) > 1, "the loss never changed"


@pytest.mark.parametrize("activation", activations())
def test_bits_of_every_activation(activation, train, portable):
    same_bits(train(4, **SPIRAL, activation=activation, dropout="0.3"))
    same_bits(train(4, **SPIRAL, activation=activation))


@pytest.mark.parametrize("loss", losses())
def test_bits_of_every_loss(loss, train, portable):
    same_bits(train(4, **SPIRAL, loss=loss))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_bits_of_every_optimizer(optimizer, train, portable):
    same_bits(train(4, **SPIRAL, optimizer=optimizer))


@pytest.mark.parametrize("name", MAPS)
def test_bits_of_every_feature_map(name, train, portable):
    same_bits(train(4, **SPIRAL, map=name))


@pytest.mark.parametrize("name", SETS)
def test_bits_of_every_data_set(name, train, portable):
    for noise in SETS[name].noises[:2]:
        same_bits(train(4, **SPIRAL | {"set": name, "noise": noise, "draw": 0}))


def test_bits_of_points_that_are_drawn(train, portable):
    same_bits(train(20, set="drawn", points=DRAWN, layers=[4], batch=2))


@pytest.mark.parametrize("rate", RATES[1:])
def test_bits_of_every_rate_of_dropout(rate, train, portable):
    same_bits(train(4, **SPIRAL, dropout=rate, activation="relu"))


@pytest.mark.parametrize("seed", range(12))
def test_bits_of_networks_by_chance(seed, train, portable):
    """States by chance, of what compiles quickly: other sizes, penalties, batches, feedback."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 9, rng.integers(0, 6)).tolist()
    state = {
        **{"layers": sizes, "batch": int(rng.choice([1, 2, 8, 32, 64, 200]))},
        **{"l1": float(rng.choice([0, 1e-4, 1e-3])), "l2": float(rng.choice([0, 1e-4, 1e-2]))},
        **{"feedback": bool(rng.integers(2)), "seed": int(rng.integers(1000))},
        **{"lr": float(rng.choice([0.003, 0.03])), "activation": str(rng.choice(["tanh", "relu"]))},
        **{"set": str(rng.choice(["spiral", "circle", "gauss", "patterns"]))},
    }
    state["noise"] = SETS[state["set"]].noises[0]
    found = train(3, **state)
    assert found["state"]["layers"] == sizes
    same_bits(found)


@pytest.mark.parametrize("loss", ["half_squared_error", "binary_cross_entropy_with_logits"])
def test_the_default_build_differs_by_rounding_only(loss, train):
    found = train(100, **XOR, loss=loss)
    history = run(found["python"])["history"]
    np.testing.assert_allclose(found["losses"], history["loss"], rtol=2e-4, atol=2e-7)
    assert history["loss"][-1] < 0.2 * history["loss"][0]


def test_the_program_says_what_the_page_does(train):
    found = train(2, **SPIRAL, l1=1e-3, l2=1e-4, dropout="0.2", feedback=True, map="cubic")
    names = run(found["python"])
    net = names["net"]
    kinds = [type(layer).__name__ for layer in net.layers]
    first = ["PolynomialFeatures", "Linear", "Dropout", "FeedbackLinear", "Dropout"]
    assert kinds == [*first, "FeedbackLinear"]
    assert isinstance(names["trainer"].regularizer, gn.optim.Regularizer)
    assert names["train"].sum() == 200


def test_orders_of_words_with_equal_halves(page):
    words = [(7 << 32) + 2, (7 << 32) + 1, 3, (7 << 32) + 1, 2**64 - 1, 2**63, 3]
    asked = """words => {
      const { random } = playground.training;
      random.words = () => BigUint64Array.from(words, BigInt);
      return random.permutation(words.length, 1, 1);
    }"""
    found = page.evaluate(asked, [str(word) for word in words])
    assert found == np.argsort(np.array(words, np.uint64), kind="stable").tolist()
