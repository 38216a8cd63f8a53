"""The whole training step of a small network in one launch, on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

from gpunn.backends import Backend, Elementwise
from gpunn.backends.kernel import GridKernel, Param
from gpunn.backends.random import WORDS_CUDA, Words
from gpunn.nn.classifier import Classifier
from gpunn.nn.linear import drawn
from gpunn.nn.module import Module
from gpunn.ops import Activation
from gpunn.ops.class_losses import CUDA
from gpunn.ops.classifier import DTYPES, MOST_CLASSES
from gpunn.ops.dropout import KEEP, Rate
from gpunn.ops.linear import Dropped
from gpunn.ops.loss_reduction import Reduction
from gpunn.optim.guard import GUARD, MODES, Guard
from gpunn.optim.optimizer import Optimizer
from gpunn.optim.rule import COUNT
from gpunn.sparse import is_sparse
from gpunn.typing import Array, DType

Batch: TypeAlias = tuple[Array, Array]

BLOCK_FEATURES, BLOCK_ROWS = 32, 8
"""The most input features of a block, and the rows that its warps compute at the same time."""
MOST_BLOCKS = 64
HIDDEN_BYTES = 512
"""The most bytes of a row of hidden units."""
MOST_OUTPUTS = 2**13
"""The most rows of a batch times hidden units. More take so long that several launches, which use
all multiprocessors, are faster, by an estimate."""


def step_in_one(
    model: Module, loss: Callable[..., Any], optimizer: Optimizer, guard: Guard | None, batch: Batch
) -> Array | None:
    """Do a whole training step in one launch, and return the loss that counts.

    It is one launch on a GPU if the network has one hidden layer, perhaps with dropout, the loss is
    the cross-entropy of labels, and everything is small. The gradients are written to the
    parameters' buffer as usual.

    Args:
        model: the network, in training mode.
        loss: the loss.
        optimizer: the optimizer of all its parameters.
        guard: the guard that judges the step, or None.
        batch: (N, D) examples on the model's device, and their (N,) labels.

    Returns:
        A 0-d array of the device; None if nothing was done, because the step takes more launches.

    Reference:
        Lectures 000 to 003 for the network; Salmon et al. (2011) for the bits of dropout.
    """
    flat, b, (x, y) = optimizer.bound, optimizer.bound.backend, batch
    if not b.grid_blocks or flat.narrow is not None:
        return None
    if type(optimizer).step is not Optimizer.step or optimizer.averaged is not None:
        return None
    net = Classifier.of(model, loss)
    if net is None or net.first or not net.activation.differentiable:
        return None
    w, out_w = net.hidden.weight, net.output.weight
    tensors = [p for p in (w, net.hidden.bias, out_w, net.output.bias) if p is not None]
    if is_sparse(x) or not b.device_of(x) == b.device_of(y) == b.device:
        return None
    blocks = blocks_for(b, flat.dtype, x.shape, y, out_w.shape)
    alone = {*tensors} == {*flat.tensors} and all(t.node is not None for t in tensors)
    if not blocks or not alone or w.shape[0] != x.shape[1] or x.dtype != w.dtype:
        return None
    flat.note_gradients()
    rule, inputs, (p, *states, taken) = optimizer.update()
    dropout, (rate, *numbers) = drawn(net.dropout), inputs
    layouts = tuple(_layout(number) for number in numbers)
    kernel = step_kernel(net.activation, dropout is not None, guard is not None, rule, layouts)
    rows, (hidden, classes) = len(x), out_w.shape
    how = Reduction.of(net.options.get("reduction", "mean"), rows, p.dtype)
    smoothing = float(net.options.get("label_smoothing", 0.0))
    room = (blocks + 2) * rows * hidden + rows * classes + rows + 1 + blocks
    value, space = b.empty((), p.dtype), b.empty((room,), p.dtype)
    labels = b.xp.ascontiguousarray(b.cast(y, np.int64))
    given = (b.xp.ascontiguousarray(x), labels, p, flat.grad, space, value, rate, taken)
    places = (flat.parts[tensor].start for tensor in tensors)
    sizes = x.shape[1], hidden, classes, rows
    more = _bits(b, dropout, p.dtype)
    if guard is not None:
        more += [np.int64(MODES[guard.mode]), float(rows), *guard.state()]
    more += _typed(net.activation.kernel.inputs[1:], net.numbers, p.dtype)
    more += _typed(rule.inputs[3:], numbers, p.dtype)
    scales = smoothing, float(how.divisor), how.scale
    b.launch_grid(kernel, blocks, p.dtype, *given, *places, *scales, *sizes, *more, *states)
    return value if guard is None else guard.counted


def blocks_for(
    b: Backend, dtype: DType, shape: Sequence[int], labels: Array, output: Sequence[int]
) -> int:
    """Return the number of thread blocks of a step in one launch; 0 if it takes several launches.

    It depends on the shapes alone, so a step has the same bits on all GPUs that have as many
    multiprocessors.

    Args:
        b: the backend.
        dtype: the dtype of examples and parameters.
        shape: the shape of the examples, (N, D).
        labels: the labels, (N,).
        output: the shape of the output layer's weight, (H, C).
    """
    kind, (hidden, classes) = np.dtype(dtype), output
    if len(shape) != 2 or labels.shape != shape[:1] or labels.dtype.kind not in "iu":
        return 0
    rows, features = shape
    fits = classes <= MOST_CLASSES and hidden * kind.itemsize <= HIDDEN_BYTES
    if kind.name not in DTYPES or not fits or not 0 < rows * hidden <= MOST_OUTPUTS:
        return 0
    least = -(-features // BLOCK_FEATURES)
    blocks = max(least, min(-(-rows // BLOCK_ROWS), MOST_BLOCKS))
    return blocks if blocks <= min(MOST_BLOCKS, b.grid_blocks) else 0


@lru_cache(maxsize=64)
def step_kernel(
    activation: Activation,
    drops: bool,
    guarded: bool,
    rule: Elementwise,
    layouts: tuple[str, ...],
) -> GridKernel:
    """Return the kernel of a whole step, put together from the kernels of its parts.

    Args:
        activation: the activation of the hidden layer.
        drops: whether dropout follows it.
        guarded: whether a guard judges the step.
        rule: the kernel of the update.
        layouts: how the kernel gets the numbers of the rule behind the learning rate: "value", as
            a number; "one", in an array of one number; "each", in an array of the parameters.
    """
    forward, back = activation.kernel, activation.grad_kernel
    lines = [
        f"constexpr int FEATURES = {BLOCK_FEATURES}, CLASSES = {MOST_CLASSES};",
        f"constexpr int HIDDEN = {HIDDEN_BYTES} / sizeof(T);",
        *(forward.function("activate"), back.function("through"), rule.function("update")),
    ]
    if drops:
        lines += [WORDS_CUDA, f"#define KEEP {KEEP}"]
        lines += [f"#define WORDS_PARAMETERS {', '.join(Words.parameters('words'))}"]
        lines += [f"#define WORDS_VALUE {Words.value('words')}"]
    if guarded:
        lines += [GUARD.function("judge"), "#define GUARDED"]
    options = [(param.ctype, f"option_{param.name}") for param in forward.inputs[1:]]
    own = "".join(f", {name}" for _, name in options)
    lines += [
        "#define FORMULA_PARAMETERS " + "".join(f", {kind} {name}" for kind, name in options),
        f"#define FORMULA_VALUES {own}",
        f"#define ACTIVATE(at, x, y) activate(at, x{own}, y)",
        f"#define THROUGH(at, gy, x, y, gx) through(at, gy, {activation.saved}{own}, gx)",
        f"#define COUNT {COUNT}",
        *_of_rule(rule, layouts),
    ]
    return GridKernel("network_step", CUDA / "network_step.cu", "\n".join(lines))


def _of_rule(rule: Elementwise, layouts: tuple[str, ...]) -> list[str]:
    """Return the definitions of the rule's parameters and of its call."""
    parameters, values = [], []
    for param, layout in zip(rule.inputs[3:], layouts, strict=True):
        name = f"rule_{param.name}"
        parameters.append(f"const {param.ctype}* {name}" if layout != "value" else "")
        parameters[-1] = parameters[-1] or f"{param.ctype} {name}"
        values.append({"value": name, "one": f"*{name}", "each": f"{name}[at]"}[layout])
    states = [f"rule_{param.name}" for param in rule.outputs[1:-1]]
    parameters += [f"T* {name}" for name in states]
    values += ["p[at]", *(f"{name}[at]" for name in states), "taken"]
    return [
        "#define RULE_PARAMETERS " + "".join(f", {each}" for each in parameters),
        f"#define UPDATE(at, g) update(at, g, factor, lr, {', '.join(values)})",
    ]


def _layout(number: Any) -> str:
    return "value" if not hasattr(number, "shape") else "each" if number.shape else "one"


def _typed(params: Sequence[Param], numbers: Sequence[Any], dtype: DType) -> list[Any]:
    """Return numbers in the types that a kernel takes them in; arrays stay as they are."""
    found = []
    for param, number in zip(params, numbers, strict=True):
        kind = np.dtype(dtype if param.type == "T" else param.type).type
        found.append(number if hasattr(number, "shape") else kind(number))
    return found


def _bits(b: Backend, dropout: Dropped | None, dtype: DType) -> list[Any]:
    """Return the parameters of dropout, in the order of the kernel; nothing for no dropout."""
    if dropout is None:
        return []
    rate, words = Rate.of(dropout.rate), Words.of(dropout.draw, b.zero())
    numbers = np.int32(rate.width), np.uint32(rate.threshold), np.dtype(dtype).type(rate.scale)
    return [*words.arguments(), *numbers]
