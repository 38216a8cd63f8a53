"""The launches of the page: a Trainer's kernels in its order, on the same layouts."""

from __future__ import annotations

import shutil
import subprocess
import sys

import numpy as np
import pytest

import gpunn as gn
from gpunn.backends.cpu.compiled import Compiler, Native
from gpunn.optim import OPTIMIZERS
from gpunn.playground import document
from gpunn.playground.catalogue import OPTIMIZERS as OFFERED
from gpunn.playground.catalogue import optimizers
from gpunn.playground.kernels import activations, arguments, losses, program, webassembly
from tests.playground.conftest import run

BETWEEN = ("gather_rows", "advance", "window", "nonfinite", "accumulate")
"""Launches between steps, and of evaluations, which the page makes in one batch. NumPy gathers rows
until a Trainer repeats a recording."""


class Noting(Native):
    """Notes every launch, which NumPy then does."""

    def __init__(self):
        super().__init__(Compiler((), "notes launches"))
        self.noted = []

    def elementwise(self, kernel, inputs, outputs):
        self.noted.append((kernel.name, kernel, (*inputs, *outputs)))

    def rows(self, kernel, args):
        self.noted.append((kernel.name, None, args))

    def product(self, a, b, out, *, adds=False):
        self.noted.append(("product", None, (a, b, out)))

    def words(self, draw, out):
        self.noted.append(("words", None, (out,)))


def noted(program):
    """Run a program of the page on a Trainer, and return its launches."""
    b, noting = gn.backend("cpu"), Noting()
    with b.numpy_alone():
        b._native = noting
        run(program)
    return [launch for launch in noting.noted if launch[0] not in BETWEEN]


# A Trainer also saves the feedback matrices, which never change, and NumPy adds two penalties.
STATES = [
    {"activation": "tanh"},
    {"activation": "gelu", "dropout": "0.3", "layers": [4, 3, 2]},
    {"activation": "relu", "l1": 0.001, "dropout": "0.1", "optimizer": "momentum"},
    {"activation": "identity", "l2": 0.01, "loss": "binary_cross_entropy_with_logits"},
    {"layers": [], "l1": 0.001, "loss": "huber", "optimizer": "nadam"},
]


@pytest.mark.parametrize("state", STATES)
def test_a_step_is_that_of_a_trainer(state, train, page):
    found = train(1, **{"set": "circle", "noise": 0.1, "layers": [5, 3], "batch": 64} | state)
    names = page.evaluate("playground.training.whole.calls.map(call => call.name)")
    names = [name for name in names if name not in BETWEEN]
    launched = [name for name, _, _ in noted(found["python"])]
    assert launched[: 2 * len(names)] == 2 * names


def test_layouts_are_those_of_a_trainer(train):
    program = train(1, set="circle", noise=0.1, layers=[5, 3], batch=64)["python"]
    texts = [program.replace('"tanh"', f'"{name}"') for name in activations()]
    dropped = "gn.nn.Dropout(0.3),\n    gn.nn.Linear(5, 3"
    texts += [text.replace("gn.nn.Linear(5, 3", dropped) for text in texts]
    texts += [program.replace("half_squared_error", name) for name in losses() if name != "hinge"]
    for line in (line for _, line in OFFERED.values()):
        text = program.replace("gn.optim.Adam(lr=0.03)", line.format(lr=0.001))
        texts.append(text.replace("seed=1,\n)", "seed=1,\n    regularizer=gn.optim.L2(0.1),\n)"))
    seen = set()
    for text in texts:
        if "binary" in text:
            text = text.replace("(2 * y - 1)", "y")
        for name, kernel, values in noted(text):
            if kernel is None:
                continue
            seen.add(name)
            assert name in offered_loops(), f"{name} is not in the module"
            check(kernel, values)
    missing = set(offered_loops()) - seen - {"advance", "hinge"}
    assert not {name for name in missing if "_grad" not in name and "_bias" not in name}, missing


def offered_loops():
    return program(list(optimizers().values()))[1]


def check(kernel, values):
    """Compare the layouts of a kernel with what a Trainer passed."""
    shapes = [np.shape(value) for value in values]
    whole = shapes[len(kernel.inputs)] if kernel.outputs[0].role == "each" else shapes[0]
    for param, argument, value, shape in zip(
        (*kernel.inputs, *kernel.outputs), arguments(kernel), values, shapes, strict=True
    ):
        told = f"{kernel.name}: {param.name} is {argument.layout}, got {shape} of {whole}"
        if argument.layout == "value":
            assert not isinstance(value, np.ndarray), told
            continue
        assert isinstance(value, np.ndarray), told
        assert value.dtype == argument.dtype, told
        if argument.layout == "one":
            assert value.size == 1, told
        elif argument.layout == "row":
            assert shape == whole[1:], told
        elif argument.layout == "each":
            assert shape == whole, told


def test_every_optimizer_of_one_launch_is_offered():
    rules = {type(optimizer) for optimizer in optimizers().values()}
    assert {OPTIMIZERS[name] for name in OPTIMIZERS} - rules == {OPTIMIZERS["lamb"]}


def test_a_new_build_has_the_same_bytes():
    zig = subprocess.run([sys.executable, "-m", "ziglang", "version"], capture_output=True)
    if zig.returncode or zig.stdout.decode().strip() != "0.17.1":
        pytest.skip("ziglang 0.17.1 is not installed")
    source, _ = document.catalogue()
    assert webassembly(source) == document.KERNELS.read_bytes()


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_module_imports_nothing():
    asked = f"new WebAssembly.Module(require('fs').readFileSync({str(document.KERNELS)!r}))"
    text = f"console.log(WebAssembly.Module.imports({asked}).length)"
    done = subprocess.run(["node", "-e", text], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"
