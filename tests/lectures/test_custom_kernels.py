"""The custom CUDA kernels of the fused gradients: text, launches, and CuPy's own kernels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import gpunn as gn
from gpunn import ops
from gpunn.backends.kernel import KERNELS, Elementwise
from gpunn.errors import UnknownNameError
from gpunn.ops.dropout import Rate

PAGE = Path(__file__).parents[2] / "docs" / "kernels.md"
FUSED = [
    f"{activation}_{kind}"
    for activation in ("relu", "sigmoid")
    for kind in ("grad", "grad_dropout", "bias", "bias_dropout")
]


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
def test_a_fused_gradient_is_one_launch(activation, launches):
    b = gn.backend("standin")
    y = b.upload(np.full((4, 8), 0.5, np.float32))
    _, backward = getattr(ops, activation).vjp(b, y)
    with launches() as found:
        backward(y, (True,))
    assert found.launches == {f"gpunn_{activation}_grad": 1}


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
def test_bias_activation_and_dropout_are_one_launch_in_each_direction(activation, launches):
    b = gn.backend("standin")
    x = gn.tensor(b.upload(np.ones((4, 8), np.float32)), requires_grad=True)
    layer = gn.nn.Linear(8, 6, activation, device="standin")
    net = gn.nn.Sequential(layer, gn.nn.Dropout(0.5, seed=0)).train()
    with launches() as forward:
        y = net(x)
    with launches() as backward:
        y.sum().backward()
    assert forward.launches[f"gpunn_{activation}_bias_dropout"] == 1
    assert backward.launches[f"gpunn_{activation}_grad_dropout"] == 1
    others = {f"gpunn_{activation}", f"gpunn_{activation}_grad", "gpunn_dropout"}
    assert not others & {*forward.launches, *backward.launches}


def declared(name):
    """The parameters of a kernel in CuPy's notation, and its formula."""
    kernel = KERNELS[name]
    signature = [
        ", ".join(f"{'raw ' * (p.role == 'raw')}{p.type} {p.name}" for p in params)
        for params in (kernel.inputs, kernel.outputs)
    ]
    return [part.replace("float16", "T") for part in signature], kernel.cuda


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FUSED)
def test_cupys_elementwise_kernel_of_the_same_body_has_the_same_bits(name, dtype, cuda_device, rng):
    b = gn.backend(cuda_device)
    shape = (13, 37)
    (inputs, outputs), body = declared(name)
    rate = Rate.of(0.25)
    words = b.random_words(rate.word_count(13 * 37), gn.backends.RandomStream(0).draw())
    arrays = {key: rng.uniform(0.1, 0.9, shape).astype(dtype) for key in ("gy", "y", "z")}
    arrays["bias"] = np.broadcast_to(rng.standard_normal(37).astype(dtype), shape).copy()
    known = {key: b.upload(value) for key, value in arrays.items()}
    known |= {"words": words, "width": rate.width, "threshold": rate.threshold}
    known["scale"] = rate.scale
    kernel = KERNELS[name]
    given = [known[p.name] for p in kernel.inputs]

    def fresh():
        return [b.upload(arrays.get(p.name, np.zeros(shape, dtype))) for p in kernel.outputs]

    ours, theirs = fresh(), fresh()
    b.launch(kernel, *given, out=tuple(ours) if len(ours) > 1 else ours[0])
    b.xp.ElementwiseKernel(inputs, outputs, body, f"plain_{name}")(*given, *theirs)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(b.download(mine), b.download(other))


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_the_text_is_what_a_device_compiles(name, dtype, monkeypatch):
    b = gn.backend("standin")
    compiled = []
    real = b.xp.RawKernel

    def spy(code, *args, **options):
        compiled.append(code)
        return real(code, *args, **options)

    monkeypatch.setattr(b.xp, "RawKernel", spy)
    monkeypatch.setattr(b._launcher, "_compiled", {})
    kernel = KERNELS[name]
    words = b.random_words(8, gn.backends.RandomStream(0).draw())
    known = {"words": words, "width": 1, "threshold": 1, "scale": 2.0}
    known["bias"] = b.upload(np.zeros(64, dtype))
    compiled.clear()
    array = b.upload(np.zeros((8, 64), dtype))
    given = [known.get(p.name, array) for p in kernel.inputs]
    out = [b.upload(np.zeros((8, 64), dtype)) for _ in kernel.outputs]
    b.launch(kernel, *given, out=tuple(out) if len(out) > 1 else out[0])
    assert compiled == [gn.explain.kernel(name, dtype)]


def test_every_kernel_has_a_text():
    import gpunn.train  # noqa: F401 - declares its kernels

    for name, kernel in KERNELS.items():
        for dtype in ("float16", "float32", "float64"):
            text = gn.explain.kernel(name, dtype)
            assert isinstance(kernel, Elementwise) == (f'"{name}.body"' in text)
    with pytest.raises(UnknownNameError, match=r"'relu_gradient'.*relu_grad"):
        gn.explain.kernel("relu_gradient")


def test_the_page_shows_the_texts():
    page = PAGE.read_text(encoding="utf-8")
    for name in ("relu_grad", "relu_bias_dropout", "sigmoid_grad_dropout"):
        assert f"```cuda\n{gn.explain.kernel(name).strip()}\n```" in page, name
