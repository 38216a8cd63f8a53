"""Run a computation once, forward and backward, and note its quantities."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpunn.autograd import Tensor, recorded, tensor
from gpunn.autograd.engine import Node
from gpunn.backends import backend
from gpunn.errors import ArgumentError, ShapeError
from gpunn.explain.formulas import formula
from gpunn.explain.steps import Quantity, Steps, Values, barred
from gpunn.nn import Module
from gpunn.nn.linear import unfused
from gpunn.ops import get_loss
from gpunn.typing import Array, DeviceLike


@dataclass
class _Call:
    """One call of an operation, with the input and the outputs of its backward pass."""

    op: str
    args: tuple[Any, ...]
    options: dict[str, Any]
    result: Tensor
    signal: Values | None = None
    sent: tuple[Values | None, ...] = ()


class _Trace:
    """The calls of a computation, in order."""

    def __init__(self) -> None:
        self.calls: list[_Call] = []

    def __call__(
        self, op: str, args: tuple[Any, ...], options: dict[str, Any], result: Tensor
    ) -> None:
        call = _Call(op, args, options, result)
        self.calls.append(call)
        node = result.node
        if type(node) is not Node or node.backward is None:
            return
        backward, b = node.backward, result.backend

        def watched(gy: Array, needs: Any) -> tuple[Any, ...]:
            contributions = backward(gy, needs)
            call.signal = b.download(gy)
            call.sent = tuple(
                None if c is None or not need else b.download(b.xp.asarray(c))
                for c, need in zip(contributions, needs, strict=True)
            )
            return contributions

        node.backward = watched


def function(
    forward: Callable[..., Mapping[str, Tensor] | Tensor],
    *,
    device: DeviceLike = None,
    constants: tuple[str, ...] = (),
    **inputs: Any,
) -> Steps:
    """Trace a function of named inputs.

    Args:
        forward: a function that takes tensors by name. It returns the loss, or a mapping from names
            to tensors whose last value is the loss. Unnamed intermediate results are called v1,
            v2, ...
        device: the device to compute on; the default device for None.
        constants: the names of inputs that get no error signal. Integers never get one.
        inputs: numbers or arrays; floats become float64.

    Returns:
        All quantities with their values, formulas and error signals.

    Raises:
        ArgumentError: a name is used twice, or the loss depends on no input.
        ShapeError: the loss is not a single number.

    Reference:
        Lecture 003, "computation graph" and the notation of error signals.

    Example:
        >>> steps = function(lambda w, x: {"z": w * x, "L": w * x}, w=2.0, x=3.0)
        >>> float(steps["w"].grad)
        3.0
    """
    tensors = {}
    for name, value in inputs.items():
        host = np.asarray(value)
        live = host.dtype.kind == "f" and name not in constants
        host = host.astype(np.float64) if host.dtype.kind == "f" else host
        tensors[name] = tensor(host, live, device=device)
    trace = _Trace()
    with backend(device).current(), recorded(trace):
        outcome = forward(**tensors)
        named = dict(outcome) if isinstance(outcome, Mapping) else {"L": outcome}
        return _finish(trace, tensors, named)


def network(
    model: Module,
    x: Array,
    y: Array,
    loss: str | Callable[..., Tensor] = "half_squared_error",
    **options: Any,
) -> Steps:
    """Trace a network on one example or a few.

    The names are those of the lectures: the input x, the parameters W1, b1, W2, ..., the
    pre-activations z1, z2, ..., the activations h1, h2, ..., the output y, the target t and the
    loss L. The model is not changed.

    Args:
        model: the network; dropout is off, as in evaluation.
        x: (N, D) examples in the dtype of the model; (D,) stands for one example.
        y: the targets, which the formulas call t.
        loss: a registered name or a function.
        options: keyword arguments of the loss, for example `reduction="sum"`.

    Raises:
        ShapeError: x or y do not fit the model and the loss.

    Reference:
        Lecture 003, "backpropagation for a MLP"; lecture 001, "2-layer NN backward pass".

    Example:
        >>> from gpunn.nn import Linear, Sequential
        >>> net = Sequential(Linear(2, 3, "sigmoid"), Linear(3, 1))
        >>> list(network(net, np.ones((1, 2)), np.ones((1, 1))))
        ['x', 'W1', 'b1', 'W2', 'b2', 't', 'z1', 'h1', 'y', 'L']
    """
    model = copy.deepcopy(model).eval()
    b = model.backend
    rows, targets = np.atleast_2d(np.asarray(x, model.dtype)), np.asarray(y)
    if targets.dtype.kind == "f":
        targets = targets.astype(model.dtype)
    inputs = {"x": Tensor(b.upload(rows)), **_parameters(model), "t": Tensor(b.upload(targets))}
    trace = _Trace()
    with b.current(), recorded(trace), unfused():
        outputs = model(inputs["x"])
        value = get_loss(loss)(outputs, inputs["t"], **options)
        named = _board_names(trace, outputs) | {"y": outputs, "L": value}
        return _finish(trace, inputs, named)


def _parameters(model: Module) -> dict[str, Tensor]:
    """Return the parameters by name; weights and biases are called W1, b1, W2, b2, ..."""
    found: dict[str, Tensor] = {}
    layer = 0
    for name, parameter in model.named_parameters():
        kind = {"weight": "W", "bias": "b"}.get(name.rpartition(".")[2])
        layer += kind == "W"
        found[f"{kind}{layer}" if kind else name.replace(".", "_")] = parameter
    return found


def _board_names(trace: _Trace, y: Tensor) -> dict[str, Tensor]:
    names: dict[str, Tensor] = {}
    layer = 0
    for call in trace.calls:
        if call.result is y:
            break
        layer += call.op == "linear"
        name = f"z{layer}" if call.op == "linear" else f"h{layer}"
        while name in names:
            name += "'"
        names[name.replace("'", "_")] = call.result
    return names


def _finish(trace: _Trace, inputs: Mapping[str, Tensor], named: Mapping[str, Tensor]) -> Steps:
    """Run the backward pass and name the quantities of the trace."""
    loss = list(named.values())[-1]
    if loss.size != 1:
        raise ShapeError(f"got a loss of shape {loss.shape}; expected one number: reduce it")
    if loss.node is None:
        raise ArgumentError(
            "got a loss that depends on no input; expected one computed from a float: pass floats"
        )
    clash = inputs.keys() & named.keys()
    if clash:
        raise ArgumentError(
            f"got {sorted(clash)} as input and as result; expected different names: rename one"
        )
    loss.backward()
    names = {id(value.data): name for name, value in (*inputs.items(), *named.items())}
    free = (f"v{i}" for i in range(1, len(trace.calls) + 1) if f"v{i}" not in names.values())
    quantities = {name: Quantity(name, value.numpy()) for name, value in inputs.items()}
    for call in trace.calls:
        name = names.setdefault(id(call.result.data), "")
        name = names[id(call.result.data)] = name or next(free)
        quantities[name] = _quantity(name, call, names)
    last = list(named)[-1]
    quantities[last].grad_formula = "1"
    for call in reversed(trace.calls):
        _send(call, quantities, names)
    return Steps(quantities, _backward_order(quantities))


def _backward_order(quantities: dict[str, Quantity]) -> list[str]:
    """Return the order of the backward pass: each result, then the inputs complete after it."""
    order: list[str] = []
    for result in reversed([q for q in quantities.values() if q.formula]):
        if result.grad is None:
            continue
        order.append(result.name)
        inputs = [quantities[name] for name in result.parents if not quantities[name].formula]
        done = set(order)
        complete = [q.name for q in inputs if q.messages and set(q.messages) <= done]
        order += [name for name in dict.fromkeys(complete) if name not in done]
    return order


def _argument(arg: Any, names: dict[int, str]) -> str:
    if not hasattr(arg, "shape"):
        return repr(arg)
    return names.get(id(arg.data if isinstance(arg, Tensor) else arg), "constant")


def _quantity(name: str, call: _Call, names: dict[int, str]) -> Quantity:
    written = [_argument(arg, names) for arg in call.args]
    parents = tuple(w for w, arg in zip(written, call.args, strict=True) if hasattr(arg, "shape"))
    parents = tuple(parent for parent in parents if parent != "constant")
    text = _formula(call).forward.format(*written, y=name, g=barred(name))
    return Quantity(name, call.result.numpy(), text, parents, call.signal)


def _formula(call: _Call) -> Any:
    shapes = [tuple(getattr(arg, "shape", ())) for arg in call.args]
    return formula(call.op, call.options, shapes, call.result.shape)


def _send(call: _Call, quantities: dict[str, Quantity], names: dict[int, str]) -> None:
    """Note the gradients that a call sent back to its inputs."""
    name = names[id(call.result.data)]
    written = [_argument(arg, names) for arg in call.args]
    backward = _formula(call).backward
    for place, part in enumerate(call.sent):
        to = quantities.get(written[place])
        if part is None or to is None:
            continue
        text = backward[place].format(*written, y=name, g=barred(name))
        to.grad_formula += f" + {text}" if to.grad_formula else text
        to.messages[name] = to.messages[name] + part if name in to.messages else part
        if not to.formula:  # the gradient of an input is the sum of its messages
            to.grad = part if to.grad is None else to.grad + part
