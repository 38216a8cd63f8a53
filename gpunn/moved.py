"""The old module names of version 0.1.0, so that its pickles and skops files load."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MOVED = {
    "backends.blas": ("backends.cpu.blas",),
    "backends.cublaslt": ("backends.cuda.cublaslt",),
    "backends.cublaslt_request": ("backends.cuda.cublaslt_request",),
    "backends.cuda_text": ("backends.cuda.source",),
    "backends.cupy_backend": ("backends.cuda.backend",),
    "backends.launcher": ("backends.cuda.launcher",),
    "backends.native": ("backends.cpu.compiled",),
    "backends.numpy_backend": ("backends.cpu.backend",),
    "backends.outline": ("backends.shapes",),
    "backends.plan": ("backends.cpu.recording",),
    "backends.pool": ("backends.cpu.pool",),
    "backends.recording": ("backends.cuda.graph",),
    "backends.streaming": ("backends.cuda.streaming",),
    "documents": ("storage.untrusted.bounded_json",),
    "files": ("storage.arrays", "storage.atomic", "storage.state", "storage.untrusted.header"),
    "ops.activation": ("ops.elementwise",),
    "ops.loss": ("ops.elementwise_losses", "ops.loss_reduction"),
    "ops.option": ("ops.elementwise",),
    "ops.row_losses": ("ops.class_losses", "ops.cross_entropy"),
    "optim.clipping": ("optim.factor",),
    "optim.rules": ("optim.optimizers", "optim.squares"),
    "optim.scaling": ("optim.factor",),
    "sklearn.choices": ("sklearn.translation",),
    "sklearn.exchange": ("sklearn.conversion",),
    "sklearn.order": ("sklearn.shuffle",),
    "sklearn.protocol": ("sklearn.compat",),
    "train.capture": ("train.steps.repeated", "backends.capture"),
    "train.checkpoint": ("nn.model_file",),
    "train.evaluation": ("train.scores",),
    "train.fit": ("train.trainer", "train.steps.repeated"),
    "train.guard": ("optim.guard",),
    "train.history": ("train.curves", "train.training"),
    "train.interrupt": ("train.session",),
    "train.metrics": ("train.scores", "ops.class_losses", "ops.elementwise_losses"),
    "train.precision": ("optim.precision",),
    "train.progress": ("train.snapshot",),
    "train.resume": ("train.checkpoints",),
    "train.runner": ("train.steps.repeated",),
    "train.saver": ("train.session",),
    "train.weighting": ("train.steps.step",),
}
"""The old names, with the modules that have their contents now; all inside `gpunn`."""


class MovedModules(MetaPathFinder, Loader):
    """An importer of old names. It makes modules whose attributes come from the new modules."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module by its old name; None for any other name."""
        known = fullname.removeprefix("gpunn.") in MOVED and fullname.startswith("gpunn.")
        return ModuleSpec(fullname, self) if known else None

    def create_module(self, spec: ModuleSpec) -> None:
        """Let the import system create the module."""

    def exec_module(self, module: ModuleType) -> None:
        """Give the module a `__getattr__` that looks in the new modules."""
        places = MOVED[module.__name__.removeprefix("gpunn.")]

        def find(name: str) -> Any:
            for place in places:
                found = getattr(import_module(f"gpunn.{place}"), name, None)
                if found is not None:
                    return found
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

        module.__getattr__ = find  # type: ignore[method-assign]


sys.meta_path.append(MovedModules())  # the last importer, for names that no other one finds
