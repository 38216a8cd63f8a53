"""Operations: each formula once, its backward directly beneath, on NumPy and on CUDA alike."""

from gpunn.ops.activation import ACTIVATIONS, Activation, get_activation
from gpunn.ops.activations import (
    elu,
    gelu,
    gelu_sigmoid,
    hard_threshold,
    identity,
    leaky_relu,
    relu,
    relu_right,
    sigmoid,
    softmax,
    tanh,
)
from gpunn.ops.arithmetic import abs_ as abs
from gpunn.ops.arithmetic import (
    add,
    cos,
    divide,
    exp,
    log,
    matmul,
    multiply,
    negative,
    power,
    sin,
    sqrt,
    subtract,
)
from gpunn.ops.dropout import Rate, dropout, vanilla_dropout
from gpunn.ops.linear import Dropped, linear
from gpunn.ops.loss import LOSSES, ElementwiseLoss, get_loss
from gpunn.ops.losses import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    half_squared_error,
    perceptron,
    squared_error,
)
from gpunn.ops.normalize import batch_norm, layer_norm
from gpunn.ops.reductions import column_sums, mean
from gpunn.ops.reductions import max_ as max
from gpunn.ops.reductions import sum_ as sum
from gpunn.ops.row_losses import multiclass_hinge, softmax_cross_entropy
from gpunn.ops.shaping import concatenate, gather_rows, getitem, reshape, transpose

__all__ = [
    "ACTIVATIONS",
    "LOSSES",
    "Activation",
    "Dropped",
    "ElementwiseLoss",
    "Rate",
    "abs",
    "add",
    "batch_norm",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "column_sums",
    "concatenate",
    "cos",
    "divide",
    "dropout",
    "elu",
    "exp",
    "gather_rows",
    "gelu",
    "gelu_sigmoid",
    "get_activation",
    "get_loss",
    "getitem",
    "half_squared_error",
    "hard_threshold",
    "identity",
    "layer_norm",
    "leaky_relu",
    "linear",
    "log",
    "matmul",
    "max",
    "mean",
    "multiclass_hinge",
    "multiply",
    "negative",
    "perceptron",
    "power",
    "relu",
    "relu_right",
    "reshape",
    "sigmoid",
    "sin",
    "softmax",
    "softmax_cross_entropy",
    "sqrt",
    "squared_error",
    "subtract",
    "sum",
    "tanh",
    "transpose",
    "vanilla_dropout",
]
