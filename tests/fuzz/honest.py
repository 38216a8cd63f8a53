"""Honest files to damage, and one trainer that resumes."""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import gpunn as gn
from gpunn import nn
from gpunn.interop import save_torch
from gpunn.train import EarlyStopping

NAME = "00000001.safetensors"


@dataclass
class Honest:
    """A file that was written as it should be.

    Attributes:
        kind: "model", "torch" or "checkpoint".
        content: its bytes.
    """

    kind: str
    content: bytes

    def parts(self) -> tuple[dict[str, Any], bytes]:
        """The header as a value, and the bytes of the arrays."""
        size = int.from_bytes(self.content[:8], "little")
        return json.loads(self.content[8 : 8 + size]), self.content[8 + size :]


def join(header: dict[str, Any] | str, data: bytes) -> bytes:
    """A file of a header and the bytes behind it."""
    text = (header if isinstance(header, str) else json.dumps(header)).encode(
        "utf-8", "surrogatepass"
    )
    return len(text).to_bytes(8, "little") + text + data


def place(folder: Path, content: bytes) -> None:
    """Make a folder of checkpoints with one file and a manifest that agrees with it."""
    (folder / NAME).write_bytes(content)
    checksum = hashlib.sha256(content).hexdigest()
    entry = {"number": 1, "file": NAME, "sha256": checksum}
    whole = {"format": "gpunn checkpoint", "version": 1, "checkpoints": [entry]}
    (folder / "manifest.json").write_text(json.dumps(whole))


def every_module() -> nn.Module:
    """A small network with every type of module, one of them used twice."""
    tied = nn.Linear(4, 4, "elu", seed=3)
    return nn.Graph(
        {
            "s": (nn.Standardize([0.5, -1, 0, 2], [1, 2, 4, 0.5]), ["x"]),
            "a": (nn.Linear(4, 4, "gelu", seed=1), ["s"]),
            "n": (nn.LayerNorm(4), ["a"]),
            "m": (nn.RMSNorm(4), ["n"]),
            "r": (nn.Residual(tied), ["m"]),
            "t": (nn.Sequential(tied, "tanh", nn.VanillaDropout(0.5, seed=5)), ["r"]),
            "p": (nn.Sum(), ["t", "a"]),
            "c": (nn.Concatenate(), ["p", "r"]),
            "b": (nn.BatchNorm(8), ["c"]),
            "d": (nn.Dropout(0.25, seed=2), ["b"]),
            "y": (nn.Linear(8, 3, bias=False, seed=4), ["d"]),
        }
    )


def row(dtype: str = "float32") -> nn.Module:
    """A network that PyTorch has a counterpart for, of 400 kB and more."""
    return nn.Sequential(
        nn.Linear(400, 250, "relu", seed=0, dtype=dtype),
        nn.Dropout(0.5, seed=1),
        nn.BatchNorm(250, dtype=dtype),
        nn.Linear(250, 3, seed=1, dtype=dtype),
    )


def trainer(folder: Path | None = None) -> gn.Trainer:
    """A run that is small."""
    net = nn.Sequential(nn.Linear(3, 5, "relu", seed=0), nn.Dropout(0.5), nn.Linear(5, 2, seed=1))
    return gn.Trainer(net, seed=3, checkpoint=folder)


def data() -> tuple[np.ndarray, np.ndarray]:
    """What the run trains on."""
    x = (np.arange(60) * 7 % 11 / 4 - 1).astype(np.float32).reshape(20, 3)
    return x, np.arange(20) % 2


def honest_files() -> list[Honest]:
    """Models of three dtypes, weights for PyTorch, and a checkpoint."""
    with tempfile.TemporaryDirectory() as name:
        folder, found = Path(name), []
        path = folder / "file"
        info = {"classes": ["a", "b", "ü"], "rows": 40, "nested": {"deep": [1, 2.5, None, True]}}
        for model in (every_module(), row(), row("float64"), row("float16")):
            gn.save(model, path, info=info)
            found.append(Honest("model", path.read_bytes()))
        save_torch(row(), path)
        found.append(Honest("torch", path.read_bytes()))
        trainer(folder / "run").fit(
            *data(),
            epochs=3,
            batch_size=8,
            validation=data(),
            callbacks=[EarlyStopping()],
            progress=False,
        )
        newest = sorted((folder / "run").glob("*.safetensors"))[-1]
        found.append(Honest("checkpoint", newest.read_bytes()))
        return [_always_the_same(file) for file in found]


def _always_the_same(file: Honest) -> Honest:
    """Without wall times, and with the header in one order, so that a seed means one file."""
    header, content = file.parts()
    texts = header.pop("__metadata__", {})
    if "state" in texts:
        state = json.loads(texts["state"])
        state["curves"]["seconds"] = [0.5] * len(state["curves"]["seconds"])
        texts["state"] = json.dumps(state)
    parts = dict(sorted(header.items()))
    if texts:
        parts["__metadata__"] = dict(sorted(texts.items()))
    return Honest(file.kind, join(parts, content))
