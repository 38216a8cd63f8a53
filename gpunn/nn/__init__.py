"""Layers and networks."""

from gpunn.nn import constructed, init, wiring
from gpunn.nn.columns import OneHot, ParametricActivation, PeriodicEmbedding, Scale
from gpunn.nn.containers import Concatenate, Graph, Residual, Sequential, Sum
from gpunn.nn.diagnostics import UnitReport, collapse, dead_units, gradient_norms
from gpunn.nn.dropout import Dropout, VanillaDropout
from gpunn.nn.ensemble import Ensemble
from gpunn.nn.features import (
    DifferenceFeature,
    PolynomialFeatures,
    QuadraticFeatures,
    RandomFeatures,
)
from gpunn.nn.linear import Activate, FeedbackLinear, Linear
from gpunn.nn.module import Buffer, Module, Parameter
from gpunn.nn.normalization import BatchNorm, LayerNorm, RobustScale, Standardize

__all__ = [
    "Activate",
    "BatchNorm",
    "Buffer",
    "Concatenate",
    "DifferenceFeature",
    "Dropout",
    "Ensemble",
    "FeedbackLinear",
    "Graph",
    "LayerNorm",
    "Linear",
    "Module",
    "OneHot",
    "Parameter",
    "ParametricActivation",
    "PeriodicEmbedding",
    "PolynomialFeatures",
    "QuadraticFeatures",
    "RandomFeatures",
    "Residual",
    "RobustScale",
    "Scale",
    "Sequential",
    "Standardize",
    "Sum",
    "UnitReport",
    "VanillaDropout",
    "collapse",
    "constructed",
    "dead_units",
    "gradient_norms",
    "init",
    "wiring",
]

_ELSEWHERE = {
    **dict.fromkeys(
        ("ReLU", "LeakyReLU", "ELU", "GELU", "Sigmoid", "Tanh", "Softmax", "Identity"),
        'Linear(..., activation="relu") or Activate("relu")',
    ),
    **dict.fromkeys(
        ("CrossEntropyLoss", "NLLLoss"), 'Trainer(loss="softmax_cross_entropy") or gpunn.ops'
    ),
    **dict.fromkeys(("MSELoss", "L1Loss"), 'Trainer(loss="squared_error") or gpunn.ops'),
    **dict.fromkeys(("BCELoss", "BCEWithLogitsLoss"), "gpunn.ops.binary_cross_entropy_with_logits"),
    "BatchNorm1d": "BatchNorm",
    "Flatten": "Activate(lambda x: x.reshape(len(x), -1))",
}


def __getattr__(name: str) -> object:
    hint = f": here it is {_ELSEWHERE[name]}" if name in _ELSEWHERE else ""
    raise AttributeError(f"module 'gpunn.nn' has no attribute {name!r}{hint}")
