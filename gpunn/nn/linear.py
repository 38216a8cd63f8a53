"""The fully connected layer, and activations as layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias, TypeGuard

import numpy as np

from gpunn.arguments import count, flag
from gpunn.autograd import Tensor
from gpunn.backends import backend
from gpunn.backends.dtypes import float_dtype
from gpunn.backends.random import RandomStream, is_by_chance, new_stream
from gpunn.errors import ArgumentError
from gpunn.guesses import answers, meant
from gpunn.nn.dropout import Dropout
from gpunn.nn.init import Initializer, get_initializer, initial
from gpunn.nn.module import Module
from gpunn.nn.parameter import Buffer, Parameter
from gpunn.ops import ACTIVATIONS, Activation, get_activation, identity, linear
from gpunn.ops.elementwise import opened
from gpunn.ops.linear import Dropped
from gpunn.typing import Array, DeviceLike, DType

FEEDBACK_STREAM = 2**62 + 4
Watch: TypeAlias = Callable[[Module, Tensor, Tensor], Any]

_watched: ContextVar[Watch | None] = ContextVar("gpunn_watched_activations", default=None)


def described(activation: Any) -> Any:
    """Return the JSON value that stands for an activation in a model file.

    Returns:
        Its registered name; or {"name": name, option: number, ...} where options were chosen.

    Raises:
        ArgumentError: the function is not registered under a name.
    """
    if isinstance(activation, str | Mapping):
        return activation
    function, options = opened(activation)
    for name, known in ACTIVATIONS.items():
        if known is function:
            return {"name": name, **options} if options else name
    raise ArgumentError(
        f"got the activation {activation!r}, which has no registered name; expected one that a "
        f"file can name: use one of {', '.join(sorted(ACTIVATIONS))}"
    )


class ChosenActivation:
    """The attribute `activation` of a layer. The layer's function follows when it is replaced.

    Args:
        elementwise: whether only elementwise activations are accepted.
    """

    def __init__(self, *, elementwise: bool = False) -> None:
        self.elementwise = elementwise

    def __get__(self, layer: Module | None, owner: type) -> Any:
        if layer is None:
            return self
        if "activation" not in vars(layer):
            raise AttributeError("activation")
        return vars(layer)["activation"]

    def __set__(self, layer: Module, activation: str | Callable[..., Any] | None) -> None:
        if activation is None or isinstance(activation, str):
            name: Any = meant("activation", activation)
            activation = activation if activation in ACTIVATIONS else name
        function = get_activation(activation)
        if self.elementwise and not isinstance(opened(function)[0], Activation):
            raise ArgumentError(
                f"got the activation {activation!r}; expected an elementwise one for feedback "
                "alignment: put others behind the layer with Activate"
            )
        vars(layer).update(activation=activation, _activation=function)


class Linear(Module):
    """A fully connected layer, y = activation(x @ weight + bias).

    Args:
        in_features: D, the number of inputs.
        out_features: H, the number of outputs.
        activation: a registered name or any function of a tensor; `functools.partial` sets
            options, for example `partial(gpunn.ops.leaky_relu, slope=0.3)`.
        bias: whether the layer has a bias.
        init: a registered initialiser or a function; by default the one that suits the
            activation, He's for rectifiers and Glorot's for the rest.
        seed: the seed of the initial weights; by default the next one of `gpunn.manual_seed`.
        dtype: float16, float32 or float64.
        device: the device of the parameters; the default device for None.

    Attributes:
        weight: (D, H) parameter, like an entry of scikit-learn's `coefs_`.
        bias: (H,) parameter or None.

    Raises:
        UnknownNameError: the activation or the initialiser is unknown.
        ArgumentError: a size is below 1, or `bias` is neither True nor False.

    Gradient:
        See `gpunn.ops.linear`.

    Reference:
        All five lectures.

    Example:
        >>> layer = Linear(3, 2, activation="relu", seed=0)
        >>> layer(np.ones((4, 3), np.float32)).shape
        (4, 2)
    """

    activation = ChosenActivation()
    _activation: Callable[..., Tensor]

    @answers
    def __init__(
        self,
        in_features: int,
        out_features: int,
        activation: str | Callable[..., Any] = "identity",
        *,
        bias: bool = True,
        init: str | Initializer | None = None,
        seed: int | None = None,
        dtype: DType = "float32",
        device: DeviceLike = None,
    ) -> None:
        self.in_features = count("in_features", in_features)
        self.out_features = count("out_features", out_features)
        self.activation = activation
        self.by_chance = is_by_chance(seed)
        initializer, draw = get_initializer(init, self._activation), new_stream(seed).draw()
        b, kind, shape = backend(device), float_dtype(dtype), (self.in_features, self.out_features)
        self.weight = Parameter(initial(initializer, shape, draw, b, kind))
        self.bias = None
        if flag("bias", bias):
            self.bias = Parameter(b.zeros(shape[1:], kind), regularize=False)

    def forward(self, x: Any, dropout: Dropout | None = None) -> Tensor:
        """Return the output, fused with the dropout layer that follows if one is given."""
        return self._run(x, dropout)

    def _run(self, x: Any, dropout: Dropout | None, feedback: Array | None = None) -> Tensor:
        args = (x, self.weight) if self.bias is None else (x, self.weight, self.bias)
        if is_watched() or not isinstance(opened(self._activation)[0], Activation):
            y = activated(self, linear(*args, feedback=feedback))
            return y if dropout is None else dropout(y)
        dropped = drawn(dropout)
        return linear(*args, activation=self._activation, dropout=dropped, feedback=feedback)

    @property
    def W_col(self) -> Array:
        """The (H, D) view of the weight for column vectors, as in lectures 000, 001 and 003.

        Lecture 004 uses (D, H), as `weight` does: one row of the output is x @ weight + bias.
        """
        return self.weight.data.T

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            "in_features": self.in_features,
            "out_features": self.out_features,
            "activation": described(self.activation),
            "bias": self.bias is not None,
            "dtype": self.weight.dtype.name,
        }


class FeedbackLinear(Linear):
    """A linear layer that sends errors back through a fixed random matrix instead of its weights.

    The forward pass is that of `Linear`. Training turns the weights towards the feedback matrix,
    so that the error signal becomes a useful one. This is called feedback alignment.

    Args:
        in_features: D, the number of inputs.
        out_features: H, the number of outputs.
        activation: the registered name of an elementwise activation.
        options: the other arguments of `Linear`.

    Attributes:
        feedback: (D, H) buffer, drawn like the weights, from a random stream of its own.

    Raises:
        ArgumentError: the activation is not elementwise.

    Gradient:
        gx = gz feedback'; gweight and gbias as in `Linear`. gx is not the gradient, so `gradcheck`
        of gx fails.

    Reference:
        Lillicrap et al. (2016); Song, Xu and Lafferty (2021), arXiv 2106.06044; lecture 000.

    Example:
        >>> layer = FeedbackLinear(3, 2, seed=0)
        >>> layer.alignment() > 0
        True
    """

    activation = ChosenActivation(elementwise=True)

    def __init__(
        self,
        in_features: int,
        out_features: int,
        activation: str | Callable[..., Any] = "identity",
        **options: Any,
    ) -> None:
        super().__init__(in_features, out_features, activation, **options)
        seed = options.get("seed")
        stream = new_stream() if seed is None else RandomStream(seed, FEEDBACK_STREAM)
        initializer = get_initializer(options.get("init"), self._activation)
        w = self.weight
        self.feedback = Buffer(initial(initializer, w.shape, stream.draw(), w.backend, w.dtype))

    def forward(self, x: Any, dropout: Dropout | None = None) -> Tensor:
        """Return the output, which is that of a `Linear` with the same weights."""
        return self._run(x, dropout, self.feedback.data)

    def alignment(self) -> float:
        """Return the angle between feedback and weights, in degrees.

        It is about 90 for unrelated matrices and 0 for equal ones.
        """
        b, w = self.feedback.numpy().ravel(), self.weight.numpy().ravel()
        cosine = float(b @ w) / max(float(np.linalg.norm(b) * np.linalg.norm(w)), 1e-300)
        return float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))


def drawn(dropout: Dropout | None) -> Dropped | None:
    """Return the rate of a dropout layer with its next bits; None if it drops nothing."""
    if dropout is None or not dropout.training or not dropout.rate:
        return None
    return Dropped(dropout.rate, dropout.stream.draw())


def is_plain(layer: Module | None) -> TypeGuard[Linear]:
    """Return whether a module is a `Linear` as it is, with a bias."""
    return type(layer) is Linear and "forward" not in vars(layer) and layer.bias is not None


def is_watched() -> bool:
    """Return whether an `unfused` block is open."""
    return _watched.get() is not None


class Activate(Module):
    """An activation as a layer of its own.

    Args:
        activation: a registered name or any function of a tensor.

    Raises:
        UnknownNameError: the activation is unknown.
    """

    activation = ChosenActivation()
    _activation: Callable[..., Tensor]

    def __init__(self, activation: str | Callable[..., Any]) -> None:
        self.activation = activation

    def forward(self, x: Any) -> Tensor:
        """Return the activation of x."""
        return activated(self, x)

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"activation": described(self.activation)}


def activated(layer: Linear | Activate, z: Tensor) -> Tensor:
    """Return the activation of z as an operation of its own, and show it to an open `unfused`."""
    watch = _watched.get()
    y: Tensor = z if watch and layer._activation is identity else layer._activation(z)
    if watch is not None:
        watch(layer, z, y)
    return y


@contextmanager
def unfused(observer: Watch = lambda layer, z, y: None) -> Iterator[None]:
    """Run the activations of linear layers as separate operations inside the block.

    The outputs stay the same, and the value before the activation, z = x @ weight + bias, can be
    observed. Other threads do not notice, because no layer is changed.

    Args:
        observer: a function that is called with (layer, z, activation(z)) after every activation
            of a `Linear` or `Activate` layer.
    """
    token = _watched.set(observer)
    try:
        yield
    finally:
        _watched.reset(token)
