"""The tensors of a module: parameters, which training changes, and buffers."""

from __future__ import annotations

from typing import Any

from gpunn.arguments import flag, in_range
from gpunn.autograd import Tensor
from gpunn.autograd.engine import Leaf
from gpunn.fingerprint import Same, Tracked
from gpunn.typing import Array


class Parameter(Tracked, Tensor):
    """A tensor that training changes.

    Attributes:
        regularize: whether penalties on the size of weights apply; False for biases.
        lr_factor: a factor of the learning rate for this parameter.
        decay_factor: a factor of the optimizer's weight decay. With `AdamW`, the parameter shrinks
            by lr * lr_factor * weight_decay * decay_factor in a step. An optimizer reads both
            factors when it is bound, and a fit reads them before every epoch. A model file does not
            have them.
    """

    __slots__ = ("decay_factor", "lr_factor", "regularize")

    def __init__(
        self,
        data: Array,
        *,
        regularize: bool = True,
        lr_factor: float = 1.0,
        decay_factor: float = 1.0,
    ) -> None:
        super().__init__(data, requires_grad=True)
        self.regularize = regularize
        self.lr_factor = in_range("lr_factor", lr_factor, 0.0)
        self.decay_factor = in_range("decay_factor", decay_factor, 0.0)

    @property
    def requires_grad(self) -> bool:
        """Whether training changes this parameter. Set it to False to freeze it."""
        return self.node is not None

    @requires_grad.setter
    def requires_grad(self, wanted: bool) -> None:
        if flag("requires_grad", wanted) is not self.requires_grad:
            self.node = Leaf(self.shape) if wanted else None

    def __setstate__(self, state: dict[str, Any]) -> None:
        later = {"lr_factor": 1.0, "decay_factor": 1.0}  # which an older pickle lacks
        super().__setstate__(later | state)

    def __fingerprint__(self) -> dict[str, Any]:
        # a recording sees values that are written to the array
        return {"data": Same(self.data), "requires_grad": self.requires_grad}

    def __identity__(self) -> dict[str, Any]:
        parts = {"data": Same(self.data), "regularize": self.regularize}
        for name in ("lr_factor", "decay_factor"):
            if getattr(self, name) != 1:
                parts[name] = getattr(self, name)
        return parts if self.requires_grad else {**parts, "requires_grad": False}


class Buffer(Tracked, Tensor):
    """A tensor that belongs to the state of a module but is not trained."""

    __slots__ = ()

    def __fingerprint__(self) -> dict[str, Any]:
        return {"data": Same(self.data)}

    def __identity__(self) -> dict[str, Any]:
        return self.__fingerprint__()
