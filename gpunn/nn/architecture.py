"""Convert models to JSON values and back. The JSON values are treated as untrusted.

A module becomes {"module": type, "config": arguments of the constructor}. A module that occurred
before becomes {"same": number}; modules are numbered in the order of their completion.
"""

from __future__ import annotations

from typing import Any

from gpunn.backends import Device, device
from gpunn.errors import ArgumentError, GpunnError, ModelFileError
from gpunn.nn.init import undrawn
from gpunn.nn.module import MODULES, Module, type_name
from gpunn.storage.untrusted.bounded_json import shortened, shown

MAX_MODULES = 2**12


def describe(model: Module) -> Any:
    """Return the JSON value of a model.

    Raises:
        ArgumentError: a module has no `config()`, there are too many modules, or a config holds a
            dict that would be read as a module.
    """
    seen: dict[int, int] = {}

    def walk(value: Any) -> Any:
        if isinstance(value, Module):
            if id(value) in seen:
                return {"same": seen[id(value)]}
            spec = {"module": type_name(type(value)), "config": walk(value.config())}
            seen[id(value)] = len(seen)
            return spec
        if isinstance(value, dict):
            parts = {name: walk(part) for name, part in value.items()}
            if _number_of(parts) is not None or _type_of(parts) is not None:
                raise ArgumentError(
                    f"got a config with {shown(value)}; expected no dict that reads like a module "
                    "in a file: use other names than same, or module and config"
                )
            if not all(isinstance(name, str) for name in parts):
                raise ArgumentError(
                    f"got a config with {shown(value)}; expected strings as names: convert them"
                )
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
    """Build the model of a JSON value, without drawing its weights.

    Raises:
        ModelFileError: the value describes no model; the message names the wrong part.
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
    """Build the model as `build` does, from arrays that have a shape and a dtype but no memory."""
    with device(Device("outline")):
        return build(spec)


def check_described(model: Module, spec: Any) -> None:
    """Check that the loaded model describes itself exactly as the file does.

    A file must not use arguments that `config()` never gives, or values that a constructor
    converts ("1" for 1). A config in a file may leave out defaults. The configs of modules that
    users define are not compared.

    Raises:
        ModelFileError: the descriptions differ.
    """
    _compare(describe(model), spec, "the model")


class _Building:
    """A builder of modules, which keeps the completed modules in order."""

    def __init__(self) -> None:
        self.built: list[Module] = []

    def part(self, spec: Any) -> Any:
        """Return the value of a part of an architecture, with its modules built."""
        if isinstance(spec, list):
            return [self.part(each) for each in spec]
        if not isinstance(spec, dict):
            return spec
        number, name = _number_of(spec), _type_of(spec)
        if number is not None:
            if not 0 <= number < len(self.built):
                raise ModelFileError(
                    f"got a reference to module {shown(number)} after {len(self.built)} complete "
                    "modules; expected one of them: save the model again"
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
                f"got a model with the unknown module {shown(name)}; expected one of "
                f"{', '.join(sorted(MODULES))}: first import the Python module that defines it"
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
        except Exception as error:  # a constructor may raise anything for the values of a file
            why = f"{'' if isinstance(error, GpunnError) else type(error).__name__ + ': '}{error}"
            raise ModelFileError(
                f"got a {name} with {shown(config)}, which cannot be built ({shortened(why)}); "
                "expected what gpunn.save wrote: save the model again"
            ) from error
        if not isinstance(module, Module):
            raise ModelFileError(
                f"got a {name} that builds a {type(module).__name__}; expected a module: let "
                "from_config return one"
            )
        return module


def _number_of(spec: dict[str, Any]) -> int | None:
    """Return the number in {"same": number}; None if it is no integer, as for a node "same"."""
    number = spec["same"] if spec.keys() == {"same"} else None
    return number if type(number) is int else None


def _type_of(spec: dict[str, Any]) -> str | None:
    """Return the type in {"module": type, "config": ...}; None if it is no string."""
    if spec.keys() != {"module", "config"} or not isinstance(spec["config"], dict):
        return None
    return spec["module"] if isinstance(spec["module"], str) else None


def _compare(found: Any, spec: Any, where: str) -> None:
    """Compare JSON values. The config of a module in `spec` may leave out defaults."""
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
