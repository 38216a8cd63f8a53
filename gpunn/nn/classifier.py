"""Find the end of a classifier that is computed together with its loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from gpunn.autograd import Tensor
from gpunn.autograd.engine import is_recording
from gpunn.nn.containers import Sequential
from gpunn.nn.dropout import Dropout
from gpunn.nn.linear import Linear, drawn, is_plain, is_watched
from gpunn.nn.module import Module
from gpunn.nn.observation import observed
from gpunn.ops import Activation, identity, relu, softmax_cross_entropy
from gpunn.ops.classifier import classifier_loss, is_small
from gpunn.ops.elementwise import chosen, opened
from gpunn.sparse import is_sparse
from gpunn.typing import Array


class Classifier(NamedTuple):
    """A network that ends in a hidden layer, perhaps dropout, and an output layer.

    Attributes:
        first: the layers before.
        hidden: the hidden layer.
        activation: its activation.
        numbers: the numbers of the activation's formula.
        dropout: the dropout layer, or None.
        output: the output layer.
        options: the options of its loss, the cross-entropy of labels.
    """

    first: list[Module]
    hidden: Linear
    activation: Activation
    numbers: tuple[float, ...]
    dropout: Dropout | None
    output: Linear
    options: dict[str, Any]

    @classmethod
    def of(cls, model: Module, loss: Callable[..., Any]) -> Classifier | None:
        """Return the parts of a network with this loss; None if it or its loss is another one.

        It is also None on a device that fuses nothing, such as the CPU, or if something observes
        the network now, or if a `forward` was replaced.
        """
        if type(model) is not Sequential or "forward" in vars(model) or len(model.layers) < 2:
            return None
        first: list[Any] = model.layers[:-1]
        output = model.layers[-1]
        if not is_plain(output) or not output.weight.backend.fuses:
            return None
        dropout = first.pop() if type(first[-1]) is Dropout else None
        hidden = first.pop() if first else None
        if not is_plain(hidden) or output._activation is not identity:
            return None
        activation, given = opened(hidden._activation)
        if not isinstance(activation, Activation):
            return None
        if dropout is not None and "forward" in vars(dropout):
            return None
        function, options = opened(loss)
        known = {"label_smoothing", "reduction"}.issuperset(options)
        if function is not softmax_cross_entropy or not known or options.get("reduction") == "none":
            return None
        if is_watched() or observed.get() is not None or is_recording() is not True:
            return None
        numbers = chosen(activation.name, activation.limits, given)
        return cls(first, hidden, activation, numbers, dropout, output, options)


def loss_in_one(model: Module, loss: Callable[..., Any], x: Array, t: Array) -> Tensor | None:
    """Return the loss of a classifier whose end is one operation; None if it is several.

    It is one on a GPU, if the network ends in a hidden layer with ReLU, perhaps dropout, and a
    small output layer, and the loss is the cross-entropy of labels. See `ops.classifier_loss`.

    Args:
        model: the network, in training mode.
        loss: the loss.
        x: (N, ...) examples on the model's device.
        t: their targets there.
    """
    end = Classifier.of(model, loss)
    if end is None or end.activation is not relu or t.ndim != 1 or is_sparse(x):
        return None
    w, hidden = end.output.weight, end.hidden
    if not is_small(w.dtype, len(x), *w.shape):
        return None
    h: Any = Sequential(*end.first)(x) if end.first else x
    if h.ndim != 2:
        rest = [hidden, *([] if end.dropout is None else [end.dropout]), end.output]
        value: Tensor = loss(Sequential(*rest)(h), t)
        return value
    given = (h, hidden.weight, hidden.bias, w, end.output.bias, t)
    return classifier_loss(*given, dropout=drawn(end.dropout), **end.options)
