"""Operations: each formula once, its backward directly beneath, on NumPy and on CUDA alike."""

from gpunn.ops.activations import (
    elu,
    hard_threshold,
    identity,
    leaky_relu,
    logistic,
    relu,
    relu_right,
    sigmoid,
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
from gpunn.ops.class_losses import multiclass_hinge
from gpunn.ops.clipped import hardswish, relu6
from gpunn.ops.columns import smooth_clip, waves
from gpunn.ops.cross_entropy import focal, softmax_cross_entropy
from gpunn.ops.dropout import dropout, vanilla_dropout
from gpunn.ops.elementwise import ACTIVATIONS, Activation, get_activation
from gpunn.ops.elementwise_losses import LOSSES, decides, get_loss
from gpunn.ops.embedding import embedding
from gpunn.ops.gaussian import gaussian_nll
from gpunn.ops.gelu import gelu, gelu_sigmoid, gelu_tanh
from gpunn.ops.linear import linear
from gpunn.ops.losses import (
    absolute_error,
    half_squared_error,
    hinge,
    huber,
    perceptron,
    poisson_error,
    quantile_error,
    squared_error,
)
from gpunn.ops.normalize import batch_norm, layer_norm
from gpunn.ops.probability_losses import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    kullback_leibler,
)
from gpunn.ops.reductions import max_ as max
from gpunn.ops.reductions import mean
from gpunn.ops.reductions import sum_ as sum
from gpunn.ops.rms_norm import rms_norm
from gpunn.ops.shaping import astype, concatenate, getitem, reshape, take, transpose
from gpunn.ops.smooth import mish, selu, silu, softplus
from gpunn.ops.softmax import log_softmax, softmax

__all__ = [
    "ACTIVATIONS",
    "LOSSES",
    "Activation",
    "abs",
    "absolute_error",
    "add",
    "astype",
    "batch_norm",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "concatenate",
    "cos",
    "decides",
    "divide",
    "dropout",
    "elu",
    "embedding",
    "exp",
    "focal",
    "gaussian_nll",
    "gelu",
    "gelu_sigmoid",
    "gelu_tanh",
    "get_activation",
    "get_loss",
    "getitem",
    "half_squared_error",
    "hard_threshold",
    "hardswish",
    "hinge",
    "huber",
    "identity",
    "kullback_leibler",
    "layer_norm",
    "leaky_relu",
    "linear",
    "log",
    "log_softmax",
    "logistic",
    "matmul",
    "max",
    "mean",
    "mish",
    "multiclass_hinge",
    "multiply",
    "negative",
    "perceptron",
    "poisson_error",
    "power",
    "quantile_error",
    "relu",
    "relu6",
    "relu_right",
    "reshape",
    "rms_norm",
    "selu",
    "sigmoid",
    "silu",
    "sin",
    "smooth_clip",
    "softmax",
    "softmax_cross_entropy",
    "softplus",
    "sqrt",
    "squared_error",
    "subtract",
    "sum",
    "take",
    "tanh",
    "transpose",
    "vanilla_dropout",
    "waves",
]
