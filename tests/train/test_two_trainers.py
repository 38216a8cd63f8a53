"""Making a trainer changes nothing, and two of them do not harm each other."""

from __future__ import annotations

import copy
import pickle
import threading

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn

X = np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)


def network(device="cpu"):
    with gn.device(device):
        return nn.Sequential(
            nn.Linear(4, 5, "relu", seed=1), nn.Dropout(0.5), nn.Linear(5, 2, seed=2)
        )


def fit(trainer, epochs=1):
    return trainer.fit(X, Y, epochs=epochs, batch_size=8, progress=False)["loss"]


def state(net):
    return [(id(t.data), t.data.tobytes()) for _, t in net.state()] + [
        (s.seed, s.stream, s.call) for s in net.streams()
    ]


def test_making_one_touches_nothing():
    net = network()
    before = state(net)
    trainer = gn.Trainer(net, seed=7)
    assert state(net) == before
    assert trainer.optimizer.flat is None
    trainer.evaluate(X, Y)
    trainer.predict(X)
    trainer.classify(X)
    assert state(net) == before
    assert trainer.optimizer.flat is None
    assert net.training


def test_one_that_only_evaluates_leaves_the_training_of_another_alone():
    found = []
    for other in (True, False):
        net = network()
        trainer = gn.Trainer(net, seed=3)
        losses = fit(trainer)
        if other:
            gn.Trainer(net, seed=9).evaluate(X, Y)
        found.append(losses + fit(trainer))
    assert found[0] == found[1]


def test_two_train_one_model_in_turn():
    net = network()
    first, second = gn.Trainer(net, seed=1), gn.Trainer(net, optimizer="sgd", seed=2)
    for trainer in (first, second, first, second):
        before = net.state_dict()
        fit(trainer)
        assert any((before[k] != v).any() for k, v in net.state_dict().items())
        assert all(p.data is trainer.optimizer.bound.views[p] for p in net.parameters())
    assert (first.steps, second.steps) == (10, 10)
    assert int(first.optimizer.state_dict()["step"]) == 10


@pytest.mark.parametrize("how", [copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
def test_a_copy_goes_on_like_the_original(how):
    trainer = gn.Trainer(network(), seed=1)
    fit(trainer)
    other = how(trainer)
    assert fit(other, 2) == fit(trainer, 2)
    for name, value in trainer.model.state_dict().items():
        np.testing.assert_array_equal(other.model.state_dict()[name], value)


def test_a_memory_limit_is_set_while_its_trainer_works_and_put_back(cuda_device):
    b = gn.backend(cuda_device)
    b.limit_memory(500_000_000)
    try:
        seen = []

        class Look(gn.train.Callback):
            def on_epoch_end(self, trainer, epoch, history):
                seen.append(b.memory_limit())

        limited = gn.Trainer(network(cuda_device), memory_limit=400_000_000)
        assert b.memory_limit() == 500_000_000
        limited.fit(X, Y, epochs=1, batch_size=8, progress=False, callbacks=[Look()])
        gn.Trainer(network(cuda_device)).fit(
            X, Y, epochs=1, batch_size=8, progress=False, callbacks=[Look()]
        )
        assert seen == [400_000_000, 500_000_000]
        assert b.memory_limit() == 500_000_000
    finally:
        b.limit_memory(None)


def test_tf32_is_this_threads_and_put_back(cuda_device):
    b = gn.backend(cuda_device)
    b.tf32 = True
    try:
        seen = []

        class Look(nn.Module):
            def forward(self, x):
                elsewhere = []
                thread = threading.Thread(target=lambda: elsewhere.append(b.tf32))
                thread.start()
                thread.join()
                seen.append((b.tf32, *elsewhere))
                return x

        net = nn.Sequential(network(cuda_device), Look())
        gn.Trainer(net, capture=False).fit(X, Y, epochs=1, batch_size=40, progress=False)
        assert seen[-1] == (False, True)
        assert b.tf32
    finally:
        b.tf32 = False


def test_a_device_is_where_the_first_verb_moves_the_model(cuda_device):
    for verb in ("fit", "evaluate", "predict", "classify"):
        net = network()
        trainer = gn.Trainer(net, device=cuda_device)
        assert str(net.device) == "cpu"
        if verb == "fit":
            fit(trainer)
        elif verb == "evaluate":
            trainer.evaluate(X, Y)
        else:
            getattr(trainer, verb)(X)
        assert net.backend is gn.backend(cuda_device)


def test_predict_gives_scores_and_classify_classes():
    trainer = gn.Trainer(network())
    scores = trainer.predict(X)
    np.testing.assert_array_equal(scores, trainer.model.predict(X))
    np.testing.assert_array_equal(trainer.classify(X), scores.argmax(axis=1))
