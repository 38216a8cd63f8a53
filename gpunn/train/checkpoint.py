"""Models as files: safetensors with the architecture as JSON in the header. No pickle is loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from gpunn.backends import RandomStream, resolve_device
from gpunn.backends import device as default_device
from gpunn.errors import ArgumentError, GpunnError, ModelFileError
from gpunn.files import pack, unpack, write_atomically
from gpunn.nn.module import MODULES, Module
from gpunn.typing import DeviceLike

FORMAT, VERSION = "gpunn", 1


def save(model: Module, path: str | Path, *, info: Mapping[str, Any] | None = None) -> None:
    """Write a model: its architecture, parameters, buffers and random streams.

    The file is written beside its place, synced and renamed, so a crash leaves the old one whole.

    Args:
        model: made of modules that define `config()`, as all of gpunn's do.
        path: the file; by custom it ends in .safetensors.
        info: anything JSON can hold, to find again with `read_info`.

    Raises:
        OutputError: the file cannot be written.
        ArgumentError: a module without `config()`.
    """
    if not isinstance(model, Module):
        raise ArgumentError(
            f"got a {type(model).__name__} to save; expected a module: pass the model"
        )
    header = {
        "format": FORMAT,
        "version": str(VERSION),
        "architecture": json.dumps(_spec(model, {})),
        "streams": json.dumps([asdict(stream) for stream in model.streams()]),
        "info": json.dumps(dict(info or {})),
    }
    write_atomically(Path(path), pack(model.state_dict(), header))


def load(path: str | Path, *, device: DeviceLike = None) -> Module:
    """Read a model, in evaluation mode. One trained on a GPU loads on a machine without.

    Args:
        path: a file that `save` wrote.
        device: where the model should live; the default device for None.

    Raises:
        ModelFileError: no such file, truncated, not one of gpunn's, or of another version.
        DeviceUnavailableError: the device cannot be used.
    """
    there = resolve_device(device)
    header, state = _read(Path(path))
    try:
        with default_device(there):
            model: Module = _build(json.loads(header["architecture"]), [])
        for stream, numbers in zip(model.streams(), json.loads(header["streams"]), strict=True):
            vars(stream).update(asdict(RandomStream(**numbers)))
    except ModelFileError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, GpunnError) as error:
        raise ModelFileError(
            f"got {path}, whose architecture cannot be built ({error}); expected a file that "
            "gpunn.save wrote: save the model again"
        ) from error
    model.load_state_dict(state)
    return model.eval()


def read_info(path: str | Path) -> dict[str, Any]:
    """What was passed as `info` when the model was saved.

    Raises:
        ModelFileError: as `load`.
    """
    info: dict[str, Any] = json.loads(_read(Path(path))[0]["info"])
    return info


def _read(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray[Any, Any]]]:
    header, state = unpack(path)
    if header.get("format") != FORMAT:
        raise ModelFileError(
            f"got {path}, a safetensors file of something else; expected one that gpunn.save "
            "wrote: build the model and use load_state_dict for foreign weights"
        )
    if header.get("version") != str(VERSION):
        raise ModelFileError(
            f"got {path} of format version {header.get('version')}; expected {VERSION}: load it "
            "with the gpunn that wrote it, or save it again"
        )
    missing = {"architecture", "streams", "info"} - header.keys()
    if missing:
        raise ModelFileError(f"got {path} without {sorted(missing)}; expected a whole header")
    return header, state


def _spec(value: Any, seen: dict[int, int]) -> Any:
    """A module as JSON; one that was written before is its number, in order of completion."""
    if isinstance(value, Module):
        if id(value) in seen:
            return {"same": seen[id(value)]}
        spec = {"module": value.type_name(), "config": _spec(value.config(), seen)}
        seen[id(value)] = len(seen)
        return spec
    if isinstance(value, dict):
        return {name: _spec(part, seen) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_spec(part, seen) for part in value]
    return value


def _build(spec: Any, built: list[Module]) -> Any:
    if isinstance(spec, list):
        return [_build(part, built) for part in spec]
    if not isinstance(spec, dict):
        return spec
    if spec.keys() == {"same"}:
        return built[spec["same"]]
    if spec.keys() != {"module", "config"}:
        return {name: _build(part, built) for name, part in spec.items()}
    if spec["module"] not in MODULES:
        raise ModelFileError(
            f"got a model with a {spec['module']}, which is not known here; expected one of "
            f"{', '.join(sorted(MODULES))}: import the module that defines it first"
        )
    built.append(MODULES[spec["module"]].from_config(**_build(spec["config"], built)))
    return built[-1]
