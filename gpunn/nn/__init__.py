"""Layers and networks."""

from typing import Any

from gpunn.guesses import missing
from gpunn.nn import constructed, init, wiring
from gpunn.nn.columns import OneHot, ParametricActivation, PeriodicEmbedding, Scale
from gpunn.nn.containers import Concatenate, Graph, Residual, Sequential, Sum
from gpunn.nn.diagnostics import UnitReport, collapse, dead_units, gradient_norms
from gpunn.nn.dropout import Dropout, VanillaDropout
from gpunn.nn.embedding import Embedding
from gpunn.nn.ensemble import Ensemble
from gpunn.nn.features import (
    DifferenceFeature,
    PolynomialFeatures,
    QuadraticFeatures,
    RandomFeatures,
)
from gpunn.nn.linear import Activate, FeedbackLinear, Linear
from gpunn.nn.module import Module
from gpunn.nn.normalization import BatchNorm, LayerNorm, RMSNorm, RobustScale, Standardize
from gpunn.nn.parameter import Buffer, Parameter

__all__ = [
    "Activate",
    "BatchNorm",
    "Buffer",
    "Concatenate",
    "DifferenceFeature",
    "Dropout",
    "Embedding",
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
    "RMSNorm",
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


def __getattr__(name: str) -> Any:
    raise missing(__name__, name, __all__)
