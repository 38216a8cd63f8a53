"""Random bits: the published vectors, and the same bits from both bodies."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gpunn as gn
from gpunn.backends import random
from gpunn.errors import ArgumentError
from gpunn.ops import relu
from gpunn.ops.dropout import DROPOUT, MOST_COMPUTED, Rate, dropout_words
from tests import reference

# Philox4x64-10 known answers of Random123 (Salmon et al. 2011): counter, key, output
PUBLISHED = [
    ((0, 0, 0, 0), (0, 0), "16554d9eca36314c db20fe9d672d0fdc d7e772cee186176b 7e68b68aec7ba23b"),
    (
        (2**64 - 1,) * 4,
        (2**64 - 1,) * 2,
        "87b092c3013fe90b 438c3c67be8d0224 9cc7d7c69cd777b6 a09caebf594f0ba0",
    ),
    (
        (0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0, 0x082EFA98EC4E6C89),
        (0x452821E638D01377, 0xBE5466CF34E90C6C),
        "a528f45403e61d95 38c72dbd566e9788 a5a1610e72fd18b5 57bd43b5e52b7fe6",
    ),
]

PHILOX_BLOCK = gn.backends.Elementwise(
    "test_philox_block",
    "uint64 k0, uint64 k1, raw uint64 counter -> uint64 word",
    numpy=lambda k0, k1, counter, word: np.copyto(word, _numpy_block(k0, k1, counter)),
    cuda=(
        "unsigned long long c[4]; for (int j = 0; j < 4; ++j) c[j] = counter[j]; "
        "word = philox4x64(k0, k1, c[0], c[1], c[2], c[3], (int)i);"
    ),
    preamble=random.PHILOX_CUDA,
)


def _numpy_block(k0, k1, counter):
    before = (int(sum(int(c) << (64 * i) for i, c in enumerate(counter))) - 1) % 2**256
    words = [(before >> (64 * i)) % 2**64 for i in range(4)]
    return np.random.Philox(
        key=np.array([k0, k1], np.uint64), counter=np.array(words, np.uint64)
    ).random_raw(4)


@pytest.mark.parametrize(("counter", "key", "output"), PUBLISHED)
def test_published_vectors(counter, key, output, device):
    b = gn.backend(device)
    word = b.empty((4,), np.uint64)
    b.launch(PHILOX_BLOCK, *key, b.upload(np.array(counter, np.uint64)), out=word)
    assert b.download(word).tolist() == [int(part, 16) for part in output.split()]


def test_draws_know_nothing_of_each_other():
    """One generator serves all draws of a thread."""
    calls = [((7, k), 2 * k, 1 + 5 * k) for k in range(40)]
    alone = [
        np.random.Philox(
            key=np.array(key, np.uint64), counter=np.array((0, call, 0, 0), np.uint64)
        ).random_raw(count)
        for key, call, count in calls
    ]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda one: random.words(one[2], *one[:2]), 20 * calls))
    for k, words in enumerate(found):
        np.testing.assert_array_equal(words, alone[k % len(calls)])


@pytest.mark.parametrize("count", [1, 3, 4, 5, 1000])
@pytest.mark.parametrize(("key", "call"), [((0, 0), 0), ((7, 2**64 - 1), 5), ((2**63, 1), 2**40)])
def test_both_bodies_give_the_same_words(count, key, call, cuda_device):
    expected = gn.backend("cpu").random_words(count, random.Draw(key, call))
    b = gn.backend(cuda_device)
    np.testing.assert_array_equal(
        b.download(b.random_words(count, random.Draw(key, call))), expected
    )


@pytest.mark.parametrize("rate", [0.0, 0.5, 0.25, 51 / 256, 0.1, 0.3, 0.999])
@pytest.mark.parametrize("shape", [(1,), (7,), (64,), (5, 13), (128, 256)])
def test_both_bodies_give_the_same_mask(rate, shape, device):
    realised = Rate.of(rate)
    size = int(np.prod(shape))
    b = gn.backend(device)
    words = b.random_words(realised.word_count(size), random.Draw((3, 1), 9))
    ones = b.full(shape, 1, np.float32)
    kept = b.download(b.launch(DROPOUT, ones, words, *realised, realised.scale)) != 0
    host = gn.backend("cpu").random_words(realised.word_count(size), random.Draw((3, 1), 9))
    expected = reference.keep_mask(host, realised.width, realised.threshold, size)
    np.testing.assert_array_equal(kept.reshape(-1), expected)


@pytest.mark.parametrize("rate", [0.5, 51 / 256, 0.3])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(7,), (5, 13), (16, 64), (4, 300)])
@pytest.mark.parametrize(("call", "counted"), [(9, False), (2**63 + 5, False), (5, True)])
def test_a_kernel_computes_the_words_that_others_read(
    rate, dtype, shape, call, counted, cuda_device, rng
):
    b, realised, size = gn.backend(cuda_device), Rate.of(rate), int(np.prod(shape))
    draw = random.Draw((3, 2**64 - 1), call, shard=2)
    if counted:  # a recording reads the number of the draw on the device
        draw = draw._replace(call=b.upload(np.array(call - 2)), ahead=2)
    computed = dropout_words(b, realised, size, draw)
    read = b.random_words(realised.word_count(size), draw)
    assert isinstance(computed, random.Words)
    x, bias = (b.upload(rng.standard_normal(s).astype(dtype)) for s in (shape, shape[-1:]))
    for kernel, *arrays in (
        (DROPOUT, x),
        (relu.grad_dropout_kernel, x, x),
        (relu.bias_dropout_kernel, bias),
    ):
        found = []
        for words in (computed, read):
            out = b.xp.array(x)
            b.launch(kernel, *arrays, words, *realised, realised.scale, out=out)
            found.append(b.download(out))
        np.testing.assert_array_equal(*found)


def test_the_words_of_many_elements_are_made_once(device):
    b, rate = gn.backend(device), Rate.of(0.5)
    few, many = (
        dropout_words(b, rate, size, random.Draw((1, 2), 3))
        for size in (MOST_COMPUTED, MOST_COMPUTED + 1)
    )
    assert isinstance(few, random.Words) == b.fuses
    assert many.shape == (MOST_COMPUTED // 64 + 1,)


@pytest.mark.parametrize("rate", [0.5, 0.25, 0.1])
def test_the_rate_is_right_within_five_deviations(rate):
    n = 200_000
    x = gn.tensor(np.ones(n))
    y = gn.ops.dropout(x, rate=rate, draw=gn.backends.RandomStream(1).draw()).numpy()
    dropped = np.count_nonzero(y == 0)
    assert abs(dropped - n * rate) < 5 * np.sqrt(n * rate * (1 - rate))
    survivors = y[y != 0]
    np.testing.assert_allclose(survivors, 1 / (1 - rate), rtol=1e-4)


def test_steps_and_streams_are_not_correlated():
    masks = []
    for stream, call in ((0, 0), (0, 1), (1, 0)):
        draw = random.Draw((5, stream), call)
        masks.append(gn.ops.dropout(gn.tensor(np.ones(65_536)), rate=0.5, draw=draw).numpy() != 0)
    for i in range(3):
        for j in range(i):
            agree = np.mean(masks[i] == masks[j])
            assert abs(agree - 0.5) < 5 * 0.5 / np.sqrt(65_536)


@given(st.floats(0, 1, exclude_max=True))
def test_a_rate_is_realised_within_its_resolution(rate):
    realised = Rate.of(rate)
    assert abs(realised.realised - rate) <= 2.0**-16
    assert 0 <= realised.realised < 1
    if (rate * 256).is_integer():
        assert realised.realised == rate
        assert realised.width <= 8


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan"), "0.5", None])
def test_a_rate_outside_its_range_is_refused(rate):
    with pytest.raises(ArgumentError, match="0 <= rate < 1"):
        gn.nn.Dropout(rate)


@pytest.mark.parametrize("seed", [-1, 2**64, 0.5, True, "1"])
def test_a_bad_seed_is_refused(seed):
    with pytest.raises(ArgumentError, match="seed"):
        gn.manual_seed(seed)


@given(st.integers(0, 300), st.integers(0, 2**64 - 1), st.integers(0, 10))
def test_a_permutation_has_every_index_once(n, seed, call):
    assert sorted(random.permutation(n, seed, 3, call).tolist()) == list(range(n))


def test_normal_numbers_are_normal():
    x = random.normal((100_001,), 4)
    assert abs(x.mean()) < 5 / np.sqrt(x.size)
    assert abs(x.var() - 1) < 5 * np.sqrt(2 / x.size)
    assert abs(np.mean(x**3)) < 5 * np.sqrt(15 / x.size)


def test_initial_weights_are_the_same_on_every_device(device):
    gn.manual_seed(3)
    here = gn.nn.Linear(20, 30, activation="relu")
    gn.manual_seed(3)
    there = gn.nn.Linear(20, 30, activation="relu", device=device)
    np.testing.assert_array_equal(here.weight.numpy(), there.weight.numpy())
