"""Tables of names: what may be declared twice, and what is never overwritten."""

from __future__ import annotations

import numpy as np
import pytest

import gpunn as gn
from gpunn import ops, optim
from gpunn.autograd.tensor import METHODS
from gpunn.errors import ArgumentError
from gpunn.optim.rule import RULES

CELL = """
import numpy as np
from gpunn import nn, optim
from gpunn.autograd import op
from gpunn.ops import Activation
from gpunn.ops.elementwise_losses import ElementwiseLoss
from gpunn.optim.optimizer import Optimizer
from gpunn.optim.rule import Rule

@op
def names_scaled(b, x):
    return b.xp.multiply(x, {factor}), lambda gy, needs: (b.xp.multiply(gy, {factor}),)

names_times = Activation(
    "names_times",
    "y = {factor} x.",
    numpy=lambda x, y: np.multiply(x, {factor}, out=y),
    cuda="y = x * T({factor});",
    grad_numpy=lambda gy, y, gx: np.multiply(gy, {factor}, out=gx),
    grad_cuda="gx = gy * T({factor});",
)

names_loss = ElementwiseLoss(
    "names_loss",
    "{factor} p.",
    numpy=lambda p, t, loss: np.multiply(p, {factor}, out=loss),
    cuda="l = p * T({factor});",
    grad_numpy=lambda p, t, gp: gp.fill({factor}),
    grad_cuda="gp = T({factor});",
)

class Names(nn.Module):
    def forward(self, x):
        return x * {factor}

class NamesDescent(Optimizer, name="names_descent"):
    rule = Rule(
        "names_descent",
        "->",
        numpy=lambda g, lr, step, p: np.subtract(p, {factor} * g, out=p),
        cuda="p = p - T({factor}) * g;",
    )

    def __init__(self, parameters=None, lr=0.1):
        super().__init__(parameters, lr)
"""


TABLES = (
    *(gn.autograd.OPS, METHODS, gn.backends.kernel.KERNELS, ops.ACTIVATIONS, ops.LOSSES),
    *(RULES, optim.OPTIMIZERS, gn.nn.module.MODULES),
)


@pytest.fixture(autouse=True)
def tables_as_they_were():
    before = [dict(table) for table in TABLES]
    yield
    for table, content in zip(TABLES, before, strict=True):
        table.clear()
        table.update(content)


def run(factor, module="a_notebook"):
    scope = {"__name__": module}
    exec(CELL.format(factor=factor), scope)
    return scope


def test_a_cell_of_a_notebook_can_run_again(device):
    for factor in (2, 3):
        cell = run(factor)
        x = gn.tensor(np.array([[1.0, -4.0]]), requires_grad=True, device=device)
        start = x.numpy()
        np.testing.assert_array_equal(cell["names_scaled"](x).numpy(), start * factor)
        y = ops.get_activation("names_times")(x)
        np.testing.assert_array_equal(y.numpy(), start * factor)
        assert ops.get_loss("names_loss")(x, x.data, reduction="sum").item() == -3 * factor
        optimizer = optim.get_optimizer("names_descent")
        optimizer.bind([x])
        (x * 1.0).sum().backward()
        optimizer.step()
        np.testing.assert_array_equal(x.numpy(), start - factor)


def test_compiled_kernels_follow_a_cell_that_runs_again(native):
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    for factor in (5, 7):
        kernel = run(factor)["names_times"].kernel
        y = np.empty_like(x)
        native.elementwise(kernel, (x,), (y,)).run(*native.elementwise(kernel, (x,), (y,)).args)
        np.testing.assert_array_equal(y, x * factor)


def test_another_module_cannot_take_a_name():
    run(2)
    with pytest.raises(ArgumentError, match="'names_scaled', from elsewhere"):
        run(2, "elsewhere")


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("operation", "from gpunn.autograd import op\n@op\ndef exp(b, x): ..."),
        (
            "kernel",
            "from gpunn.ops import Activation\nActivation('relu', '', numpy=lambda x, y: None, "
            "cuda='', grad_numpy=lambda gy, y, gx: None, grad_cuda='')",
        ),
        (
            "kernel",
            "from gpunn.backends import Elementwise\n"
            "Elementwise('scaled', 'x -> y', lambda x, y: None, '')",
        ),
        (
            "update rule",
            "from gpunn.optim.rule import Rule\nRule('adam', '->', lambda g, lr, s, p: None, '')",
        ),
        (
            "optimizer",
            "from gpunn.optim import Adam\nclass Mine(Adam, name='adam'): pass",
        ),
    ],
)
def test_names_of_the_library_are_never_overwritten(kind, text):
    before = [dict(t) for t in (gn.autograd.OPS, gn.backends.kernel.KERNELS, optim.OPTIMIZERS)]
    with pytest.raises(ArgumentError, match=f"second {kind} named"):
        exec(text, {"__name__": "a_notebook"})
    after = [dict(t) for t in (gn.autograd.OPS, gn.backends.kernel.KERNELS, optim.OPTIMIZERS)]
    for old, new in zip(before, after, strict=True):
        assert all(new[name] is value for name, value in old.items())


def test_a_subclass_of_an_optimizer_leaves_its_name_alone():
    exec("from gpunn import optim\nclass Adam(optim.Adam): pass", {"__name__": "a_notebook"})
    assert type(optim.get_optimizer("adam")) is optim.Adam


def test_a_module_of_another_module_is_another_one():
    exec("from gpunn import nn\nclass Linear(nn.Linear): pass", {"__name__": "a_notebook"})
    assert gn.nn.module.MODULES["Linear"] is gn.nn.Linear
