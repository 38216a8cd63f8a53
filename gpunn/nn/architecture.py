"""Models as JSON values and back. What comes back may be anyone's: nothing of it is believed.

A module is {"module": its type, "config": its constructor's arguments}; one that stood before is
{"same": its number, in order of completion}.
"""

from __future__ import annotations

from typing import Any

from gpunn.backends import Device, device
from gpunn.errors import ArgumentError, GpunnError, ModelFileError
from gpunn.nn.init import undrawn
from gpunn.nn.module import MODULES, Module
from gpunn.storage.untrusted.bounded_json import shortened, shown

MAX_MODULES = 2**12


def describe(model: Module) -> Any:
    """The JSON value of a model.

    Raises:
        ArgumentError: a module without `config()`, or too many; or a dict in one that would be
            taken for a module.
    """
    seen: dict[int, int] = {}

    def walk(value: Any) -> Any:
        if isinstance(value, Module):
            if id(value) in seen:
                return {"same": seen[id(value)]}
            spec = {"module": value.type_name(), "config": walk(value.config())}
            seen[id(value)] = len(seen)
            return spec
        if isinstance(value, dict):
            parts = {name: walk(part) for name, part in value.items()}
            if _number_of(parts) is not None or _type_of(parts) is not None:
                raise ArgumentError(
                    f"got a config with {shown(value)}; expected none that reads like a module in "
                    "a file: use other names than same, or module and config"
                )
            if not all(isinstance(name, str) for name in parts):
                raise ArgumentError(f"got a config with {shown(value)}; expected texts as names")
            return parts
        if isinstance(value, list | tuple):
            return [walk(part) for part in value]
        return value

    spec = walk(model)
    if len(seen) > MAX_MODULES:
        raise ArgumentError(
            f"got {len(seen)} modules to save; expected at most {MAX_MODULES}: write "
            "model.state_dict() with safetensors, and build the model in code"
        )
    return spec


def build(spec: Any) -> Module:
    """The model of a JSON value, its weights not drawn.

    Raises:
        ModelFileError: it is no model; the message says which part is not.
    """
    with undrawn():
        model = _Building().part(spec)
    if not isinstance(model, Module):
        raise ModelFileError(
            f"got the architecture {shown(spec)}; expected a module and its config: save the "
            "model again"
        )
    return model


def outline(spec: Any) -> Module:
    """As `build`, on arrays that have a shape and a dtype and take no memory."""
    with device(Device("outline")):
        return build(spec)


def check_described(model: Module, spec: Any) -> None:
    """Be sure that a model says of itself what its file does.

    Where a constructor takes more than its `config()` gives, or bends what it gets ("1" for 1), a
    file must not use that. What a file leaves out is a default. A module of the user's is its
    author's business.

    Raises:
        ModelFileError: they differ.
    """
    _compare(describe(model), spec, "the model")


class _Building:
    """The modules that are complete, in order."""

    def __init__(self) -> None:
        self.built: list[Module] = []

    def part(self, spec: Any) -> Any:
        """The value of a part of an architecture, its modules built."""
        if isinstance(spec, list):
            return [self.part(each) for each in spec]
        if not isinstance(spec, dict):
            return spec
        number, name = _number_of(spec), _type_of(spec)
        if number is not None:
            if not 0 <= number < len(self.built):
                raise ModelFileError(
                    f"got a reference to module {shown(number)} where {len(self.built)} are "
                    "complete; expected one of them: save the model again"
                )
            return self.built[number]
        if name is None:
            return {key: self.part(each) for key, each in spec.items()}
        module = self._module(name, spec["config"])
        self.built.append(module)
        return module

    def _module(self, name: str, config: dict[str, Any]) -> Module:
        if name not in MODULES:
            raise ModelFileError(
                f"got a model with a {shown(name)}, which is not known here; expected one of "
                f"{', '.join(sorted(MODULES))}: import the module that defines it first"
            )
        if "device" in config:
            raise ModelFileError(
                f"got a {name} that names a device; expected none in a file: use load(path, "
                "device=...)"
            )
        arguments = {key: self.part(each) for key, each in config.items()}
        if len(self.built) >= MAX_MODULES:
            raise ModelFileError(
                f"got more than {MAX_MODULES} modules; expected fewer: build the model in code"
            )
        try:
            module = MODULES[name].from_config(**arguments)
        except MemoryError:
            raise
        except Exception as error:  # whatever a constructor says of a file's numbers
            why = f"{'' if isinstance(error, GpunnError) else type(error).__name__ + ': '}{error}"
            raise ModelFileError(
                f"got a {name} with {shown(config)}, which cannot be built ({shortened(why)}); "
                "expected what gpunn.save wrote: save the model again"
            ) from error
        if not isinstance(module, Module):
            raise ModelFileError(f"got a {name} that builds a {type(module).__name__}")
        return module


def _number_of(spec: dict[str, Any]) -> int | None:
    """The module that {"same": number} refers to; a node of that name is no number."""
    number = spec["same"] if spec.keys() == {"same"} else None
    return number if type(number) is int else None


def _type_of(spec: dict[str, Any]) -> str | None:
    """The type of {"module": type, "config": ...}; nodes of those names are no text."""
    if spec.keys() != {"module", "config"} or not isinstance(spec["config"], dict):
        return None
    return spec["module"] if isinstance(spec["module"], str) else None


def _compare(found: Any, spec: Any, where: str) -> None:
    """Compare JSON values; a module's config may leave out what is a default."""
    if isinstance(found, dict) and isinstance(spec, dict):
        name = _type_of(found)
        if name is not None and "." in name:
            return
        for key in spec.keys() | (set() if where.endswith(" config") else found.keys()):
            if key not in spec or key not in found:
                raise _differs(found, spec, where)
            inside = f"{name} config" if name and key == "config" else where
            _compare(found[key], spec[key], inside)
    elif isinstance(found, list) and isinstance(spec, list) and len(found) == len(spec):
        for one, other in zip(found, spec, strict=True):
            _compare(one, other, where)
    elif isinstance(found, bool) is not isinstance(spec, bool) or found != spec:
        raise _differs(found, spec, where)


def _differs(found: Any, spec: Any, where: str) -> ModelFileError:
    return ModelFileError(
        f"got {shown(spec)} in {where}, which stands for {shown(found)}; expected what gpunn.save "
        "wrote: save the model again"
    )
