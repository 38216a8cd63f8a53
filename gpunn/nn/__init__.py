"""Layers and networks."""

from gpunn.nn import init
from gpunn.nn.containers import Concatenate, Graph, Residual, Sequential, Sum
from gpunn.nn.dropout import Dropout, VanillaDropout
from gpunn.nn.linear import Activate, Linear
from gpunn.nn.module import Buffer, Module, Parameter, observe
from gpunn.nn.normalization import BatchNorm, LayerNorm

__all__ = [
    "Activate",
    "BatchNorm",
    "Buffer",
    "Concatenate",
    "Dropout",
    "Graph",
    "LayerNorm",
    "Linear",
    "Module",
    "Parameter",
    "Residual",
    "Sequential",
    "Sum",
    "VanillaDropout",
    "init",
    "observe",
]
