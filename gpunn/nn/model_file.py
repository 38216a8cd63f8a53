"""Model files: safetensors with the architecture as JSON in the header. No pickle is loaded.

`docs/files.md` describes the format and its guarantees.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from gpunn.backends import RandomStream, resolve_device
from gpunn.backends import device as default_device
from gpunn.errors import ArgumentError, GpunnError, ModelFileError, OutOfMemoryError
from gpunn.nn.architecture import build, check_described, describe, outline
from gpunn.nn.module import Module
from gpunn.storage.arrays import ArrayFile, open_arrays, pack
from gpunn.storage.atomic import write_atomically
from gpunn.storage.state import check_state
from gpunn.storage.untrusted.bounded_json import from_json, shortened, shown, to_json
from gpunn.typing import DeviceLike

FORMAT, VERSION = "gpunn", 1


def save(model: Module, path: str | Path, *, info: Mapping[str, Any] | None = None) -> None:
    """Write a model: its architecture, parameters, buffers and random streams.

    The content is written to a temporary file beside `path`, synced and renamed. A crash therefore
    leaves an old file whole.

    Args:
        model: a model whose modules define `config()`, as all modules of gpunn do.
        path: the file; by custom its name ends in .safetensors.
        info: values that JSON can hold, which `read_info` returns.

    Raises:
        OutputError: the file cannot be written.
        ArgumentError: a module has no `config()`, JSON cannot hold `info`, or the model exceeds
            the limits of `load`: 4 MiB of architecture and info, 4,096 modules, and containers
            nested about 40 deep.
    """
    if not isinstance(model, Module):
        raise ArgumentError(
            f"got a {type(model).__name__} to save; expected a module: pass the model"
        )
    header = {
        "format": FORMAT,
        "version": str(VERSION),
        "architecture": to_json(describe(model), "an architecture"),
        "streams": to_json([asdict(stream) for stream in model.streams()], "streams"),
        "info": to_json(dict(info or {}), "an info"),
    }
    write_atomically(Path(path), pack(model.state_dict(), header))


def load(path: str | Path, *, device: DeviceLike = None) -> Module:
    """Read a model and put it into evaluation mode.

    A model that was trained on a GPU can be loaded on a machine without one.

    The file is treated as untrusted. First its header is checked: the names, shapes and dtypes of
    the arrays must be those of the architecture. Only then is memory allocated, for the model and
    for the largest array. The constructor of a module that you define is called with the values in
    the file, so it should check them.

    Args:
        path: a file that `save` wrote.
        device: the device for the model; the default device for None.

    Raises:
        ModelFileError: the file is missing, truncated, not written by gpunn, of another version,
            or inconsistent.
        OutOfMemoryError: the device has no room for the model.
        DeviceUnavailableError: the device cannot be used.
    """
    there, path = resolve_device(device), Path(path)
    with open_arrays(path) as file:
        header = _read(file, path)
        with _about(path):
            planned = outline(header.architecture)
            check_state(file, dict(planned.state()), exact=True)
            streams = _streams(header.streams, planned)
            del planned
            with default_device(there):
                model = build(header.architecture)
            for stream, saved in zip(model.streams(), streams, strict=True):
                vars(stream).update(asdict(saved))
            model.load_state_dict(file)
            check_described(model, header.architecture)
    return model.eval()


def read_info(path: str | Path) -> dict[str, Any]:
    """Return the `info` that was saved with a model, without reading the arrays.

    Raises:
        ModelFileError: as for `load`.
    """
    path = Path(path)
    with open_arrays(path) as file:
        return _read(file, path).info


class _Header(NamedTuple):
    architecture: Any
    streams: list[Any]
    info: dict[str, Any]


def _read(file: ArrayFile, path: Path) -> _Header:
    header = file.metadata
    if header.get("format") != FORMAT:
        raise ModelFileError(
            f"got {path}, a safetensors file that gpunn did not write; expected a file of "
            "gpunn.save: build the model and use load_state_dict for foreign weights"
        )
    version = header.get("version")
    if version != str(VERSION):
        raise ModelFileError(
            f"got {path} of format version {shown(version)}; expected {str(VERSION)!r}: load it "
            "with the version of gpunn that wrote it, or a newer one"
        )
    missing = set(_Header._fields) - header.keys()
    if missing:
        raise ModelFileError(
            f"got {path} without {sorted(missing)}; expected a whole header: save the model again"
        )
    parts: list[Any] = []
    for name, kind in zip(_Header._fields, (dict, list, dict), strict=True):
        try:
            part = from_json(header[name])
            if not isinstance(part, kind):
                raise ValueError(f"{shown(part)} is not a {kind.__name__}")
        except ValueError as error:
            raise ModelFileError(
                f"got {path}, whose {name} cannot be read ({error}); expected JSON that gpunn.save "
                "wrote: copy the file again, or save the model again"
            ) from error
        parts.append(part)
    return _Header(*parts)


def _streams(numbers: list[Any], model: Module) -> list[RandomStream]:
    """Return the random streams of a file, one for each of the model."""
    count = len(model.streams())
    if len(numbers) != count:
        raise ModelFileError(
            f"got {len(numbers)} random streams; expected {count}, as the model has: save it again"
        )
    return [RandomStream.of(saved) for saved in numbers]


@contextmanager
def _about(path: Path) -> Iterator[None]:
    """Name the file in the errors that are raised inside the block."""
    try:
        yield
    except MemoryError as error:
        raise OutOfMemoryError(
            f"got {path}, which does not fit into memory ({error}); expected a model that fits the "
            "device: load it on another device"
        ) from error
    except GpunnError as error:
        raise ModelFileError(f"in {path}: {shortened(error)}") from error
