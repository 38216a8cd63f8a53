"""Checkpoints of a running fit: a folder from which a killed run goes on with the same bits."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from gpunn.arguments import count
from gpunn.errors import ModelFileError, OutputError
from gpunn.log import logger
from gpunn.storage.arrays import open_arrays, pack
from gpunn.storage.atomic import write_atomically
from gpunn.storage.untrusted.bounded_json import CHECKPOINT, from_json, read_json, shown, to_json

FORMAT, VERSION = "gpunn checkpoint", 1
MANIFEST, LOCK = "manifest.json", "lock"


State = dict[str, Any]
Tensors = dict[str, np.ndarray[Any, Any]]


class Checkpoints:
    """The checkpoints of one run in a folder, the newest few.

    Each is one safetensors file with the rest of the state as JSON in its header, written beside
    its place, synced and renamed; then the manifest, which has the checksums, the same way. A run
    that is killed at any moment leaves whole files and a manifest that names whole files. What is
    read may be anyone's: names are those that a fit gives, links are not followed, and a state is
    checked before anything is set; `docs/files.md` has the format.

    Args:
        folder: made if it is not there; one run at a time may use it.
        keep: how many checkpoints stay, at least 1.

    Raises:
        ArgumentError: keep below 1.
        OutputError: the folder cannot be written, or another run is using it.
    """

    def __init__(self, folder: str | Path, keep: int = 2) -> None:
        self.folder, self.keep = Path(folder), count("keep", keep)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs out inside the block. The lock of a run that died is no lock.

        Raises:
            OutputError: another run has it, or the folder cannot be made.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self.folder / LOCK)
        try:
            if os.path.islink(self.folder / LOCK):  # it would empty the file that it leads to
                raise OSError("its lock is a symbolic link")
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
            ArgumentError: a state that JSON cannot hold, or too long to be read again.
        """
        entries = self._entries()
        number = 1 + max((entry["number"] for entry in entries), default=0)
        text = to_json(state, "a state", CHECKPOINT, finite=False)  # a loss may be NaN
        header = {"format": FORMAT, "version": str(VERSION), "state": text}
        content = pack(tensors, header, CHECKPOINT)
        path = self.folder / _file_name(number)
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
                return _read(path, entry["sha256"])
            except ModelFileError as error:
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
        if not os.path.lexists(path):
            return []
        try:
            manifest = read_json(path)
            if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
                raise ValueError("it is of another format")
            if type(manifest.get("version")) is not int or manifest["version"] != VERSION:
                raise ValueError(f"it is of version {shown(manifest.get('version'))}")
            entries = manifest.get("checkpoints")
            if not isinstance(entries, list):
                raise ValueError("it lists no checkpoints")
            found = [_entry(entry) for entry in entries]
            numbers = [entry["number"] for entry in found]
            if numbers != sorted(set(numbers)):
                raise ValueError(f"its numbers do not go up: {shown(numbers)}")
            return found
        except ValueError as error:
            raise ModelFileError(
                f"got {path}, which is no manifest of checkpoints ({error}); expected one that a "
                f"fit wrote, of version {VERSION}: use the gpunn that wrote it, or delete the "
                "folder to start anew"
            ) from error

    def _write_manifest(self, entries: list[State]) -> None:
        manifest = {"format": FORMAT, "version": VERSION, "checkpoints": entries}
        content = json.dumps(manifest, indent=1).encode()
        write_atomically(self.folder / MANIFEST, content)


def _entry(entry: Any) -> State:
    """What a manifest says of one checkpoint."""
    if not isinstance(entry, dict) or entry.keys() != {"number", "file", "sha256"}:
        raise ValueError(f"{shown(entry)} is no checkpoint")
    number, name, checksum = entry["number"], entry["file"], entry["sha256"]
    if type(number) is not int or not 0 < number < 10**15:
        raise ValueError(f"{shown(number)} is no number of a checkpoint")
    if name != _file_name(number):
        raise ValueError(
            f"{shown(name)} is no name of a file in this folder; number {number} is "
            f"{_file_name(number)}"
        )
    if not isinstance(checksum, str) or re.fullmatch("[0-9a-f]{64}", checksum) is None:
        raise ValueError(f"{shown(checksum)} is no SHA-256 checksum")
    return entry


def _file_name(number: int) -> str:
    return f"{number:08d}.safetensors"


def _read(path: Path, checksum: str) -> tuple[Tensors, State]:
    """A checkpoint that is whole.

    Raises:
        ModelFileError: it is not, or of another version.
    """
    with open_arrays(path, CHECKPOINT, follow=False) as file:
        header = file.metadata
        if (header.get("format"), header.get("version")) != (FORMAT, str(VERSION)):
            raise ModelFileError(
                f"got {path} of format {shown(header.get('format'))}, version "
                f"{shown(header.get('version'))}; expected {FORMAT!r}, version {VERSION}: resume "
                "with the gpunn that wrote it"
            )
        if file.sha256() != checksum:
            raise ModelFileError(
                f"got {path} with another checksum than its manifest has; expected the bytes that "
                "a fit wrote: copy the file again"
            )
        try:
            state = from_json(header.get("state", ""), CHECKPOINT, finite=False)
        except ValueError as error:
            raise ModelFileError(
                f"got {path}, whose state cannot be read ({error}); expected JSON that a fit "
                "wrote: delete the file to go on from the one before"
            ) from error
        return {name: np.asarray(array) for name, array in file.items()}, state
