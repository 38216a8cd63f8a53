"""Checkpoints of a fit. A run that was killed goes on from them, with the same bits."""

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
    """The newest checkpoints of one run, in a folder.

    A checkpoint is one safetensors file. Its header contains the state that is not arrays, as JSON.
    The file is written under another name, synced and renamed. Then the manifest, which has the
    checksums, is written in the same way. A run that is killed at any moment therefore leaves whole
    files, and a manifest that names only whole files.

    Files are treated as untrusted: they must have the names that a fit gives them, links are not
    followed, and a state is checked before anything is set. `docs/files.md` describes the format.

    Args:
        folder: the folder; made if it does not exist. One run at a time may use it.
        keep: the number of checkpoints to keep, at least 1.

    Raises:
        ArgumentError: `keep` is below 1.
        OutputError: the folder cannot be written, or another run is using it.
    """

    def __init__(self, folder: str | Path, keep: int = 2) -> None:
        self.folder, self.keep = Path(folder), count("keep", keep)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder's lock inside the block. A lock left behind by a dead process is ignored.

        Raises:
            OutputError: another run holds the lock, or the folder cannot be made.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self.folder / LOCK)
        try:
            if os.path.islink(self.folder / LOCK):  # FileLock would empty the link's target
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
                f"got checkpoint={str(self.folder)!r}, which cannot be written ({error}); "
                "expected a writable folder: choose another one"
            ) from error
        try:
            for pattern in (".*.safetensors.*", f".{MANIFEST}.*"):
                for leftover in self.folder.glob(pattern):  # from a run that was killed
                    leftover.unlink(missing_ok=True)
            yield
        finally:
            lock.release()

    def write(self, tensors: Tensors, state: State) -> Path:
        """Write a checkpoint and delete the oldest.

        Raises:
            OutputError: the checkpoint cannot be written. Earlier ones stay.
            ArgumentError: JSON cannot represent the state, or the state is too long to be read.
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
            path.unlink(missing_ok=True)  # no manifest names the file, and the disk may be full
            raise
        for file in self.folder.glob("*.safetensors"):  # files that no manifest names are useless
            if file.name not in {entry["file"] for entry in entries[-self.keep :]}:
                file.unlink(missing_ok=True)
        return path

    def newest(self) -> tuple[Tensors, State] | None:
        """Read the newest whole checkpoint; None if the folder has no checkpoints.

        Raises:
            ModelFileError: no checkpoint is whole, or they are of another version.
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
                "one: delete the folder to start again"
            )
        return None

    def _entries(self) -> list[State]:
        """Read and check the entries of the manifest, the oldest first."""
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
                f"got {path}, which is not a manifest of checkpoints ({error}); expected one that "
                f"a fit wrote, of version {VERSION}: use the gpunn that wrote it, or delete the "
                "folder to start again"
            ) from error

    def _write_manifest(self, entries: list[State]) -> None:
        manifest = {"format": FORMAT, "version": VERSION, "checkpoints": entries}
        content = json.dumps(manifest, indent=1).encode()
        write_atomically(self.folder / MANIFEST, content)


def _entry(entry: Any) -> State:
    """Check the entry of one checkpoint in a manifest."""
    if not isinstance(entry, dict) or entry.keys() != {"number", "file", "sha256"}:
        raise ValueError(f"{shown(entry)} is not a checkpoint")
    number, name, checksum = entry["number"], entry["file"], entry["sha256"]
    if type(number) is not int or not 0 < number < 10**15:
        raise ValueError(f"{shown(number)} is not the number of a checkpoint")
    if name != _file_name(number):
        raise ValueError(
            f"{shown(name)} is not the name of a file in this folder; number {number} is "
            f"{_file_name(number)}"
        )
    if not isinstance(checksum, str) or re.fullmatch("[0-9a-f]{64}", checksum) is None:
        raise ValueError(f"{shown(checksum)} is not a SHA-256 checksum")
    return entry


def _file_name(number: int) -> str:
    return f"{number:08d}.safetensors"


def _read(path: Path, checksum: str) -> tuple[Tensors, State]:
    """Read a checkpoint and verify its checksum.

    Raises:
        ModelFileError: the checkpoint is not whole, or of another version.
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
                f"got {path} with another checksum than the manifest has; expected the bytes that "
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
