"""Checkpoints of a running fit: a folder from which a killed run goes on with the same bits."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from gpunn.errors import ArgumentError, ModelFileError, OutputError
from gpunn.files import pack, unpack, write_atomically

FORMAT, VERSION = "gpunn checkpoint", 1
MANIFEST, LOCK = "manifest.json", "lock"

logger = logging.getLogger("gpunn")

State = dict[str, Any]
Tensors = dict[str, np.ndarray[Any, Any]]


class Checkpoints:
    """The checkpoints of one run in a folder, the newest few.

    Each is one safetensors file with the rest of the state as JSON in its header, written beside
    its place, synced and renamed; then the manifest, which has the checksums, the same way. A run
    that is killed at any moment leaves whole files and a manifest that names whole files.

    Args:
        folder: made if it is not there; one run at a time may use it.
        keep: how many checkpoints stay, at least 1.

    Raises:
        ArgumentError: keep below 1.
        OutputError: the folder cannot be written, or another run is using it.
    """

    def __init__(self, folder: str | Path, keep: int = 2) -> None:
        if isinstance(keep, bool) or not isinstance(keep, int) or keep < 1:
            raise ArgumentError(f"got keep={keep!r}; expected a number of checkpoints from 1")
        self.folder, self.keep = Path(folder), keep

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs out inside the block. The lock of a run that died is no lock.

        Raises:
            OutputError: another run has it, or the folder cannot be made.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self.folder / LOCK)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout as error:
            raise OutputError(
                f"got checkpoint={str(self.folder)!r}, which another run is using; expected a "
                "folder of this run's own: wait for the other run, or choose another folder"
            ) from error
        except OSError as error:
            raise OutputError(
                f"got checkpoint={str(self.folder)!r}, where nothing can be written ({error}); "
                "expected a folder that can: choose another one"
            ) from error
        try:
            for pattern in (".*.safetensors.*", f".{MANIFEST}.*"):
                for leftover in self.folder.glob(pattern):  # of a run killed while it wrote
                    leftover.unlink(missing_ok=True)
            yield
        finally:
            lock.release()

    def write(self, tensors: Tensors, state: State) -> Path:
        """Write a checkpoint and forget the oldest.

        Raises:
            OutputError: it cannot be written; those before it stay.
        """
        entries = self._entries()
        number = 1 + max((entry["number"] for entry in entries), default=0)
        header = {"format": FORMAT, "version": str(VERSION), "state": json.dumps(state)}
        content = pack(tensors, header)
        path = self.folder / f"{number:08d}.safetensors"
        write_atomically(path, content)
        checksum = hashlib.sha256(content).hexdigest()
        entries.append({"number": number, "file": path.name, "sha256": checksum})
        try:
            self._write_manifest(entries[-self.keep :])
        except OutputError:
            path.unlink(missing_ok=True)  # no manifest names it, and a full disk needs the room
            raise
        for file in self.folder.glob("*.safetensors"):  # what no manifest names is of no use
            if file.name not in {entry["file"] for entry in entries[-self.keep :]}:
                file.unlink(missing_ok=True)
        return path

    def newest(self) -> tuple[Tensors, State] | None:
        """The newest whole checkpoint; None in a folder without any.

        Raises:
            ModelFileError: there are some, but none is whole, or they are of another version.
        """
        entries = self._entries()
        for entry in reversed(entries):
            path = self.folder / entry["file"]
            try:
                whole = hashlib.sha256(path.read_bytes()).hexdigest() == entry["sha256"]
                if not whole:
                    raise OSError("its checksum is another one")
                header, tensors = unpack(path)
                _check_version(path, header)
                return tensors, json.loads(header["state"])
            except (OSError, KeyError, ValueError) as error:
                logger.warning("checkpoint %s is not whole: %s", path, error)
        if entries:
            raise ModelFileError(
                f"got checkpoint={str(self.folder)!r}, in which no checkpoint is whole; expected "
                "one: delete the folder to start anew"
            )
        return None

    def _entries(self) -> list[State]:
        """What the manifest names, the oldest first."""
        path = self.folder / MANIFEST
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            if manifest["format"] != FORMAT or manifest["version"] != VERSION:
                raise ValueError("it is of another format or version")
            return [
                {"number": int(e["number"]), "file": _plain(e["file"]), "sha256": str(e["sha256"])}
                for e in manifest["checkpoints"]
            ]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelFileError(
                f"got {path}, which is no manifest of checkpoints ({error}); expected one that a "
                "fit wrote: delete the folder to start anew"
            ) from error

    def _write_manifest(self, entries: list[State]) -> None:
        manifest = {"format": FORMAT, "version": VERSION, "checkpoints": entries}
        content = json.dumps(manifest, indent=1).encode()
        write_atomically(self.folder / MANIFEST, content)


def _plain(name: Any) -> str:
    if not isinstance(name, str) or Path(name).name != name:
        raise ValueError(f"{name!r} is no name of a file in this folder")
    return name


def _check_version(path: Path, header: dict[str, str]) -> None:
    if (header.get("format"), header.get("version")) != (FORMAT, str(VERSION)):
        raise ModelFileError(
            f"got {path} of format {header.get('format')!r}, version {header.get('version')!r}; "
            f"expected {FORMAT!r}, version {VERSION}: resume with the gpunn that wrote it"
        )
