"""Work on a device that is not the current one stays there."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn
from gpunn.errors import DeviceMismatchError, DeviceUnavailableError
from tests.standin.compiler import why_unavailable

pytestmark = pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable() or "-")


def network(device):
    gn.manual_seed(0)
    with gn.device(device):
        return nn.Sequential(
            nn.Linear(6, 8, "relu"), nn.BatchNorm(8), nn.Dropout(0.5), nn.Linear(8, 3)
        )


@pytest.fixture
def data(rng):
    return rng.standard_normal((170, 6), dtype=np.float32), rng.integers(0, 3, 170)


@pytest.mark.parametrize("capture", [True, False])
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_everything_of_a_fit_happens_there(capture, precision, data):
    found = []
    for device in ("standin:0", "standin:1"):
        net = network(device)
        trainer = gn.Trainer(
            net,
            capture=capture,
            precision=precision,
            schedule="cosine",
            clip_norm=1.0,
            regularizer=gn.optim.MaxNorm(1.0),
        )
        history = trainer.fit(*data, epochs=2, batch_size=16, validation=data, progress=False)
        scores = [history["loss"], history["val_loss"], trainer.evaluate(*data)]
        outputs = [net.predict(data[0]), trainer.predict(data[0])]
        b = net.backend
        on_device = net.predict(b.upload(data[0].astype(np.float64)), batch_size=50)
        outputs.append(b.download(on_device))
        net.load_state_dict(copy.deepcopy(net).state_dict())
        trainer.optimizer.load_state_dict(trainer.optimizer.state_dict())
        assert str(net.device) == device
        assert str(gn.Tensor(net.parameters()[0].data).device) == device
        found.append((scores, outputs))
    assert found[0][0] == found[1][0]
    for here, there in zip(found[0][1], found[1][1], strict=True):
        np.testing.assert_array_equal(here, there)


def test_operators_and_gradients_by_hand():
    w = gn.tensor([[1.0, -2.0]], requires_grad=True, device="standin:1")
    ((w @ w.T) ** 2).sum().backward()
    np.testing.assert_allclose(w.backend.download(w.grad), [[20.0, -40.0]])
    optimizer = gn.optim.SGD([w], lr=0.1, momentum=0.9)
    optimizer.step()
    optimizer.lr = 0.2
    np.testing.assert_allclose(w.numpy(), [[-1.0, 2.0]])
    assert str(w.to("standin:0").device) == "standin:0"


def test_two_devices_are_not_mixed():
    here, there = (gn.tensor([1.0], device=f"standin:{n}") for n in range(2))
    with pytest.raises(DeviceMismatchError, match=r"standin:0 and .* on standin:1"):
        here + there
    with pytest.raises(DeviceUnavailableError, match="there are 2 CUDA devices"):
        gn.tensor([1.0], device="standin:2")
