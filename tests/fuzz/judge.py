"""What must not happen while a file is read, and whether it happened."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

import gpunn as gn
from gpunn.errors import GpunnError
from gpunn.interop import load_torch, to_torch_state_dict
from gpunn.nn.architecture import describe
from gpunn.storage.untrusted.bounded_json import CHECKPOINT, MODEL, Limits
from gpunn.train import EarlyStopping, read_info
from gpunn.train.checkpoints import Checkpoints
from gpunn.train.identity import Run, told
from gpunn.train.snapshot import Saved, check_run, restore
from tests.fuzz.damage import TRAP
from tests.fuzz.honest import NAME, honest_files, place, row, trainer

MACHINERY = 2**18  # bytes: the words of an error, caches of the interpreter, the smallest arrays
HEADER = 64  # bytes of memory for a byte of JSON: [[]] is a list in a list, 4 bytes for 150
VALUE = 128  # and for a value, of which there is a most; see Limits in bounded_json
SECONDS = 20.0  # for a call under tracemalloc
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
MODULES = ("os", "shutil", "subprocess", "ctypes", "socket", "pickle", "marshal", "code")
FORBIDDEN = (*(f"{name}." for name in MODULES), "import", "exec", "compile")
HARMLESS = ("os.listdir", "os.scandir")

Reader = Callable[[Path], Any]
Compare = Callable[[Path, Any], None]


class Watch:
    """Hears what the interpreter does while a file is read. A hook stays for good: there is one."""

    def __init__(self) -> None:
        self.active, self.seen = False, list[str]()
        sys.addaudithook(self._hear)

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.active:
            return
        if event == "open":
            _, mode, flags = args
            if (mode and set(mode) & set("wax+")) or (flags or 0) & WRITING:
                self.seen.append(f"open {args}")
        elif event.startswith(FORBIDDEN) and event not in HARMLESS:
            self.seen.append(f"{event} {args}"[:200])

    @contextmanager
    def watching(self) -> Iterator[list[str]]:
        """What was forbidden and happened inside the block."""
        self.seen.clear()
        self.active = True
        try:
            yield self.seen
        finally:
            self.active = False


@dataclass
class Verdict:
    """What became of one call.

    Attributes:
        reader: which.
        outcome: "whole" or the name of the error.
        peak: bytes of memory at the peak.
        size: of the file, and of the manifest beside it.
        json: how much of it says that it is JSON.
        faults: what must not have happened.
    """

    reader: str
    outcome: str
    peak: int
    size: int
    json: int
    faults: list[str]

    @property
    def ratio(self) -> float:
        """Memory at the peak, in sizes of the file."""
        return self.peak / max(self.size, 1)


def honest_run() -> Run:
    """The identity of the run that wrote the honest checkpoint."""
    content = next(file.content for file in honest_files() if file.kind == "checkpoint")
    with tempfile.TemporaryDirectory() as folder:
        place(Path(folder), content)
        found = Checkpoints(Path(folder)).newest()
    assert found is not None
    saved = Saved.of(found[1])
    return Run(told(saved.numbers["settings"]), saved.numbers["given"], saved.data)


class Judge:
    """Calls every reader on a folder with one file, and compares with a reading of its own."""

    def __init__(self) -> None:
        self.watch = Watch()
        self.net, self.trainer, self.data = row(), trainer(), ""
        self.run = honest_run()
        self.trainer.prepare()  # as a fit does before it looks for checkpoints
        self.readers: dict[str, tuple[Reader, Compare, Limits]] = {
            "load": (gn.load, _same_model, MODEL),
            "read_info": (read_info, _same_info, MODEL),
            "load_torch": (self._load_torch, _same_weights, MODEL),
            "resume": (self._resume, _same_run, CHECKPOINT),
        }

    def _load_torch(self, path: Path) -> gn.nn.Module:
        load_torch(self.net, path)
        return self.net

    def _resume(self, path: Path) -> Any:
        found = Checkpoints(path.parent).newest()
        if found is None:
            return None
        saved = Saved.of(found[1])
        self.trainer.position.fits = 1  # as when a first fit begins
        before = _digest(self.trainer)
        try:
            callbacks = [EarlyStopping()]
            check_run(self.trainer, saved, callbacks, self.run)
            restore(self.trainer, found[0], saved, callbacks)
        except GpunnError as error:
            touched = _digest(self.trainer) != before
            if touched and "best" not in str(error):
                raise AssertionError(f"something was set before {error}") from error
            raise
        return self.trainer, found

    def verdicts(self, folder: Path) -> list[Verdict]:
        """One for each reader."""
        return [self._verdict(name, folder / NAME) for name in self.readers]

    def _call(self, reader: Reader, path: Path) -> tuple[str, Any, int, list[str]]:
        """What became of a call, its value, memory at the peak, and faults."""
        faults, value, outcome = list[str](), None, "whole"
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        start = time.perf_counter()
        with self.watch.watching() as seen:
            try:
                value = reader(path)
            except GpunnError as error:
                outcome = type(error).__name__
                if "expected" not in str(error) or len(str(error)) > 3000:
                    faults.append(f"says {str(error)[:300]!r}")
            except BaseException as error:
                outcome = type(error).__name__
                faults.append(f"raises {outcome}: {str(error)[:300]}")
        seconds = time.perf_counter() - start
        if seconds > SECONDS:
            faults.append(f"takes {seconds:.0f} s")
        peak = tracemalloc.get_traced_memory()[1] - before
        return outcome, value, peak, faults + seen

    def _verdict(self, name: str, path: Path) -> Verdict:
        reader, compare, limits = self.readers[name]
        sizes = {p.name: p.stat().st_size for p in path.parent.iterdir() if p.is_file()}
        size, header = sum(sizes.values()), _header_bytes(path) + sizes.get("manifest.json", 0)
        allowed = 2 * size + min(HEADER * header, VALUE * limits.values) + MACHINERY
        outcome, value, peak, faults = self._call(reader, path)
        if peak > allowed:  # the interpreter's own tables grow now and then, once
            peak = min(peak, self._call(reader, path)[2])
        if peak > allowed:
            faults.append(f"takes {peak} bytes for a file of {size}, over {allowed}")
        if outcome == "OutOfMemoryError":
            faults.append("finds no room")
        if (path.parent / TRAP).exists():
            faults.append("loaded a pickle")
        if outcome == "whole" and value is not None:
            try:
                compare(path, value)
            except Exception as error:
                why = f"{type(error).__name__}: {str(error)[:300]}"
                faults.append(f"gives what is not there ({why})")
        return Verdict(name, outcome, peak, size, header, faults)


def _header_bytes(path: Path) -> int:
    """How long the header is, as far as there are bytes for it."""
    if not path.is_file():
        return 0
    with path.open("rb") as file:
        return min(int.from_bytes(file.read(8), "little"), path.stat().st_size)


# what is there, read by others -------------------------------------------------------------------


def _arrays(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    content = path.read_bytes()
    _json(content[8 : 8 + int.from_bytes(content[:8], "little")].decode())
    with safe_open(path, framework="numpy") as file:
        return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _json(text: str, *, finite: bool = True) -> Any:
    """JSON as its standard has it, in which no name stands twice."""

    def names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs), "a name twice"
        return dict(pairs)

    def constant(word: str) -> float:
        assert not finite, word
        return float(word)

    return json.loads(text, object_pairs_hook=names, parse_constant=constant)


def _bits(arrays: dict[str, np.ndarray]) -> dict[str, tuple[Any, ...]]:
    return {name: (a.shape, a.dtype.str, a.tobytes()) for name, a in arrays.items()}


def _strict(value: Any) -> str:
    """JSON in which 1, 1.0 and true differ no more than they should."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{k!r}:{_strict(v)}" for k, v in sorted(value.items())) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_strict, value)) + "]"
    return repr(float(value)) if type(value) in (int, float) and abs(value) < 2**53 else repr(value)


def _within(spec: Any, described: Any) -> Any:
    """What a model says of itself, without the arguments that its file leaves out."""
    if isinstance(spec, dict) and isinstance(described, dict):
        return {name: _within(part, described[name]) for name, part in spec.items()}
    if isinstance(spec, list) and isinstance(described, list):
        assert len(spec) == len(described)
        return [_within(*pair) for pair in zip(spec, described, strict=True)]
    return described


def _same_model(path: Path, model: gn.nn.Module) -> None:
    header, arrays = _arrays(path)
    assert (header["format"], header["version"]) == ("gpunn", "1")
    spec = _json(header["architecture"])
    assert _strict(_within(spec, describe(model))) == _strict(spec)
    assert _bits(model.state_dict()) == _bits(arrays)
    streams = [asdict(stream) for stream in model.streams()]
    assert _strict(streams) == _strict(_json(header["streams"]))


def _same_info(path: Path, info: Any) -> None:
    assert type(info) is dict
    assert repr(info) == repr(_json(_arrays(path)[0]["info"]))


def _same_weights(path: Path, model: gn.nn.Module) -> None:
    found, (_, arrays) = to_torch_state_dict(model), _arrays(path)
    for name, value in found.items():
        if not name.endswith("num_batches_tracked"):
            with np.errstate(all="ignore"):
                np.testing.assert_array_equal(value, arrays[name].astype(value.dtype))


def _same_run(path: Path, result: tuple[gn.Trainer, tuple[Any, Any]]) -> None:
    runner, (tensors, state) = result
    header, arrays = _arrays(path)
    manifest = _json((path.parent / "manifest.json").read_text())
    (entry,) = (e for e in manifest["checkpoints"] if e["file"] == NAME)
    assert not path.is_symlink()
    assert not (path.parent / "manifest.json").is_symlink()
    assert entry["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert repr(state) == repr(_json(header["state"], finite=False))
    assert _bits(tensors) == _bits(arrays)
    mine = {f"model.{name}": value for name, value in runner.model.state_dict().items()}
    mine |= {f"optimizer.{name}": value for name, value in runner.optimizer.state_dict().items()}
    assert _bits(mine) == _bits({name: arrays[name] for name in mine})


def _digest(runner: gn.Trainer) -> str:
    digest = hashlib.sha256(repr((runner.epoch, runner.steps, runner.model.streams())).encode())
    for state in (runner.model.state_dict(), runner.optimizer.state_dict()):
        for name, value in state.items():
            digest.update(name.encode() + value.tobytes())
    return digest.hexdigest()
