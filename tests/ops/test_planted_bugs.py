"""Plant one bug after another in every row kernel; the tests of kernels must notice each.

A missing barrier, a loop that goes one too far and a bounds check that lets one more through are
planted in all the functions that a kernel uses, those of `block.cuh` among them.
"""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import pytest

import gpunn.train  # noqa: F401 - declares its kernels, and so do all the modules below it
from gpunn.backends import RowKernel
from gpunn.backends.cuda.source import Argument, elementwise_source
from gpunn.backends.kernel import KERNELS
from tests.rowcases import ARGUMENTS, Draw
from tests.standin.compiler import build
from tests.standin.host_kernel import ORDERS, HostRawKernel, why_unavailable

pytestmark = [
    pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable() or "-"),
    pytest.mark.fast,
]

NAMES = sorted(name for name, kernel in KERNELS.items() if isinstance(kernel, RowKernel))
ROW_SHAPES = [
    (9, 10),  # a warp a row, one by one; rows missing for the last block
    (5, 12),  # in packs
    (3, 1030),  # a block a row
    (2, 8204),  # more than the block's registers hold
]
LAYER_SHAPES = [(9, 10), (5, 12), (9, 530)]  # the last one takes three rounds for its sums
COLUMN_SHAPES = [(100, 33), (70, 40)]  # one by one and by packs; two tiles, the second not full
FUNCTION = re.compile(
    r'^(?:__device__ inline|static __device__|extern "C")[^{;]*?(\w+)\([^(){}]*\) \{\n(.*?)^\}$',
    re.M | re.S,
)
BUGS = {
    r"__syncthreads\(\);": ";",
    r"(?<=\w) < (?=\w+; (?!\+\+j))": " <= ",  # in the header of a loop
    r"(?<=if \()([\w.]+) < ([\w.]+)(?=\))": r"\1 <= \2",
    r"(?<=if \()([\w.]+) >= ([\w.]+)(?=\) return)": r"\1 > \2",
}
"""What is replaced by what. Loops over a thread's own numbers, `++j`, stay as they are: no
launch decides their length, and one too many is undefined for the compiler before it runs."""

GENERATED_BUGS = {
    r"__syncthreads\(\);": ";",
    r"at_ < n_": "at_ <= n_",
    r"b_ < gridDim.x": "b_ <= gridDim.x",
}
NUMBERS = {"beta1", "beta2", "log_beta1", "log_beta2", "eps", "shrink", "count", "scale"}
DTYPE = {"gather_rows": "uint32"}
OWN_SUM = "the thread that uses the sum is the one that left it"
CHECKED = "a row is checked again before it is used, and no load reaches past the last one"
ROWS_AHEAD = "each_row, line 0: for (int n = tile.row; n < rows; n += AHEAD * tile.step) {"
LOSSES_AHEAD = "sum_up, line 9: for (int n = threadIdx.x; n < rows; n += AT_ONCE * blockDim.x) {"
STORE = "store_of, line 10: if (at < h.columns) y[at] = (S)use(c.v[j], others.v[j]..., at);"
SPARE = "a block has room for more logits, which it does not use"
FREQUENCIES = "waves_grad_parameters, line 6: for (int f = lane; f - lane < columns; f += lanes) {"
EQUIVALENT = {
    ("waves_grad_parameters", FREQUENCIES): CHECKED,
    ("softmax_cross_entropy", LOSSES_AHEAD): CHECKED,
    ("multiclass_hinge", LOSSES_AHEAD): CHECKED,
    ("classifier_loss", LOSSES_AHEAD): CHECKED,
    ("classifier_loss", "classifier_loss, line 22: if (lane < classes) {"): SPARE,
    ("classifier_loss", "store_of, line 2: if (at >= h.columns) return;"): SPARE,
    ("classifier_loss", STORE): SPARE,
    ("classifier_loss", "row_fold, line 9: __syncthreads();"): OWN_SUM,
    ("batch_norm", ROWS_AHEAD): CHECKED,
    ("column_sums", ROWS_AHEAD): CHECKED,
    ("column_sums_wide", ROWS_AHEAD): CHECKED,
    ("column_sums", "tile_sum, line 12: __syncthreads();"): OWN_SUM,
    ("column_sums_wide", "tile_sum, line 12: __syncthreads();"): OWN_SUM,
    ("rms_norm_grad_columns", "tile_sum, line 12: __syncthreads();"): OWN_SUM,
    ("correct", "row_fold, line 9: __syncthreads();"): OWN_SUM,
    ("row_sums", "row_fold, line 9: __syncthreads();"): OWN_SUM,
}
"""Bugs that are none in one kernel, though in others they are, with the reason."""


class Mutant(NamedTuple):
    """A kernel's text with one bug, and where the bug is."""

    place: str
    text: str


def used_functions(text, name):
    """The places of the bodies of a kernel and of every function that it uses."""
    bodies = {match[1]: match.span(2) for match in FUNCTION.finditer(text)}
    found, todo = {}, [name]
    while todo:
        function = todo.pop()
        found[function] = start, end = bodies[function]
        words = set(re.findall(r"\w+", text[start:end]))
        todo += [word for word in words if word in bodies and word not in {*found, *todo}]
    return found


def mutants(kernel, bugs=BUGS, text=None):
    """Every single bug in a kernel's text."""
    text = text or kernel.source(DTYPE.get(kernel.name, "float32"))
    for function, (start, end) in sorted(used_functions(text, kernel.name).items()):
        for pattern, replacement in bugs.items():
            for match in re.compile(pattern).finditer(text, start, end):
                line = text.count("\n", start, match.start())
                words = text[text.rindex("\n", 0, match.start()) :].split("\n")[1].strip()
                changed = text[: match.start()] + match.expand(replacement) + text[match.end() :]
                yield Mutant(f"{function}, line {line}: {words}", changed)


def launches(kernel):
    """Grid, block and arguments of the kernel's cases, and what the NumPy body makes of them."""
    if kernel.name == "gather_rows":
        yield gather()
        return
    shapes = COLUMN_SHAPES if kernel.by_columns else ROW_SHAPES
    for shape in LAYER_SHAPES if kernel.name == "layer_norm_grad_in_one" else shapes:
        arguments = ARGUMENTS[kernel.name](Draw("float32", *shape))
        arguments = [np.int32(a) if type(a) is int else a for a in arguments]
        blocks, threads = kernel.geometry(4, *shape)
        given = [a.copy() if isinstance(a, np.ndarray) else a for a in arguments]
        kernel.numpy(*given, shape[1], shape[0])
        rest = [np.int32(shape[1]), np.int32(shape[0])]
        if kernel.ticket:
            rest.append(np.zeros(1, np.uint32))
        yield (blocks,), (threads,), (*arguments, *rest), (*given, None, None, *rest[2:])


def gather():
    """The same for the kernel that moves rows of bytes."""
    rng = np.random.default_rng(0)
    x, y = (rng.integers(0, 99, (7, width)).astype(np.uint32) for width in (150, 2))
    index, tick = np.array([1, 0, 3, 2, 6, -1, 7, 5]), np.array([1])
    rows, outs = index[4:], [np.zeros((4, width), np.uint32) for width in (150, 2)]
    known = ((rows >= 0) & (rows < 7) & [True, True, True, False])[:, None]  # the last is beyond
    wanted = [np.where(known, t[rows % 7], np.uint32(2**32 - 1)) for t in (x, y)]
    numbers = index, np.int64(7), np.int64(7), tick, np.int32(0)
    arguments = (x, np.int32(150), y, np.int32(2), *numbers, *outs)
    return (4,), (128,), arguments, [None] * 9 + wanted


def flaw(name, text, cases):
    """What is wrong with a text: what the stand-in says, or that the numbers differ; else None."""
    run = HostRawKernel(text, name)
    for grid, block, arguments, expected in cases:
        given = [a.copy() if isinstance(a, np.ndarray) else a for a in arguments]
        try:
            run(grid, block, given, orders=ORDERS)
        except RuntimeError as error:
            return str(error)
        for found, wanted in zip(given, expected, strict=False):
            compared = isinstance(found, np.ndarray) and wanted is not None
            if compared and not np.allclose(found, wanted, 3e-5, 3e-5):
                return "the result differs from the NumPy body's"
    return None


def elementwise_launch(name, lanes):
    """The text of an elementwise kernel with sums or a count, and its case of several blocks."""
    kernel, n = KERNELS[name], 3000
    draw = Draw("float32", 1, n)
    given = []
    for p in kernel.inputs:
        is_array = p.name not in NUMBERS and p.name not in ("factor", "lr")
        number = np.array(1.5, np.float32)
        if p.name in NUMBERS:
            kind = np.float64 if p.type == "float64" else np.float32
            number = kind(np.log(0.25) if p.name.startswith("log") else 0.25)
        given.append(draw.normal(n) if is_array else number)
    outs = []
    for p in kernel.outputs:
        dtype = np.int64 if p.type == "int64" else np.float32
        outs.append(abs(draw.normal(n)) if p.role == "each" else np.zeros((), dtype))
    layouts = []
    for a in (*given, *outs):
        kind = "value" if isinstance(a, np.generic) else "each" if a.ndim else "one"
        layouts.append(Argument(kind, "T" if kind == "value" else str(a.dtype)))
    text = elementwise_source(kernel, tuple(layouts), lanes, wide=False)
    expected = [a.copy() if isinstance(a, np.ndarray) else a for a in (*given, *outs)]
    kernel.numpy(*expected)
    kernel.numpy_once(*expected)
    parts = np.float64 if any(p.type == "float64" for p in kernel.sums) else np.float32
    end = [np.uint32(n), np.full(4096, np.nan, parts), np.zeros(1, np.uint32)]
    case = (-(-n // (256 * lanes)),), (256,), (*given, *outs, *end)
    return text, [(*case, [*expected, None, None, end[2]])]


@pytest.mark.parametrize("lanes", [1, 4])
@pytest.mark.parametrize("name", ["norm", "adam", "squared_error"])
def test_every_bug_planted_in_a_generated_text_is_noticed(name, lanes):
    text, cases = elementwise_launch(name, lanes)
    assert flaw(f"gpunn_{name}", text, cases) is None
    planted = [
        text[: match.start()] + replacement + text[match.end() :]
        for bug, replacement in GENERATED_BUGS.items()
        for match in re.finditer(bug, text)
    ]
    assert len(planted) >= 2
    sources = [HostRawKernel(mutant, f"gpunn_{name}").source() for mutant in planted]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda source: build(source, f"gpunn_{name}"), sources))
    assert [p for p in planted if flaw(f"gpunn_{name}", p, cases) is None] == []


@pytest.mark.parametrize("name", NAMES)
def test_every_planted_bug_is_noticed(name):
    kernel, planted = KERNELS[name], list(mutants(KERNELS[name]))
    cases = list(launches(kernel))
    assert flaw(name, kernel.source(DTYPE.get(name, "float32")), cases) is None
    assert len(planted) >= 2
    sources = [HostRawKernel(mutant.text, name).source() for mutant in planted]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda source: build(source, name), sources))
    missed = {m.place for m in planted if flaw(name, m.text, cases) is None}
    assert missed == {place for kernel, place in EQUIVALENT if kernel == name}
