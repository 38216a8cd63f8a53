"""Draw pictures with matplotlib, without a display, in colours for all kinds of colour vision.

Every function draws on the axes `ax`, or on new axes if `ax` is None, and returns the axes.

Example:
    >>> from gpunn import plot
    >>> figure, (left, right) = plot.figure(1, 2)
    >>> ax = plot.activation("relu", left)
    >>> ax is left
    True
"""

from gpunn.plot.answers import confusion_matrix, prediction_error
from gpunn.plot.curves import activation, learning_curve, series
from gpunn.plot.graph import computation_graph, computation_graph_svg
from gpunn.plot.layers import dead_units, filters, gradient_norms
from gpunn.plot.regions import decision_regions
from gpunn.plot.style import PALETTE, figure, save

__all__ = [
    "PALETTE",
    "activation",
    "computation_graph",
    "computation_graph_svg",
    "confusion_matrix",
    "dead_units",
    "decision_regions",
    "figure",
    "filters",
    "gradient_norms",
    "learning_curve",
    "prediction_error",
    "save",
    "series",
]
