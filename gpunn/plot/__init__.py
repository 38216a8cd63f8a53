"""Pictures, drawn with matplotlib without a display."""

from gpunn.plot.curves import learning_curve

__all__ = ["learning_curve"]
