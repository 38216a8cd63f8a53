"""Weights in eight bits: what an export with `weights="int8"` makes of them."""

from __future__ import annotations

from copy import deepcopy
from typing import TypeVar

import numpy as np

from gpunn.nn import Linear, Module
from gpunn.typing import Array

LARGEST = 127
Model = TypeVar("Model", bound=Module)


def to_int8(weight: Array) -> tuple[Array, Array]:
    """Return weights as integers from -127 to 127, and a scale for each unit.

    The weights are about `codes * scale`, with an error of at most half a scale.

    Args:
        weight: (..., D, H) weights into H units.

    Returns:
        codes (..., D, H) int8; scale (..., H) in the dtype of the weights.
    """
    scale = np.abs(weight).max(axis=-2) / LARGEST
    codes = np.rint(weight / np.where(scale == 0, 1, scale)[..., None, :])
    return np.clip(codes, -LARGEST, LARGEST).astype(np.int8), scale.astype(weight.dtype)


def round_to_int8(model: Model) -> Model:
    """Return a copy of a model, whose linear layers have the weights of an int8 export.

    Evaluate the copy to see what eight bits cost before you export.

    Args:
        model: the model.

    Example:
        >>> layer = Linear(4, 2, seed=0)
        >>> rounded = round_to_int8(layer)
        >>> bool(abs(rounded.weight.numpy() - layer.weight.numpy()).max() < 0.01)
        True
    """
    found = deepcopy(model)
    for layer in found.modules():
        if isinstance(layer, Linear):
            codes, scale = to_int8(layer.weight.numpy())
            layer.weight.data[...] = layer.backend.upload(codes * scale[..., None, :])
    return found
