"""Kill training runs at random moments, start them again, and compare their ends.

    python -m tests.fuzz.chaos --runs 200

Every run trains the same network with dropout in a folder of checkpoints, is killed with SIGKILL
after a random time, and started again, until it ends by itself. Weights, optimizer, curves and
predictions must have the bits of a run that was never killed. Prints how many kills there were, how
many of them hit the writing of a checkpoint (which leaves a temporary file), and what differed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Outcome:
    """What became of one run."""

    kills: int
    in_write: int
    same: bool


def child(folder: Path | None, epochs: int) -> str:
    """Train, and give the digest of everything that must be the same."""
    import numpy as np

    import gpunn as gn
    from gpunn import nn

    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((400, 20), dtype=np.float32), rng.integers(0, 4, 400)
    gn.manual_seed(1)
    net = nn.Sequential(
        nn.Linear(20, 64, "relu"), nn.Dropout(0.5), nn.BatchNorm(64), nn.Linear(64, 4)
    )
    trainer = gn.Trainer(net, schedule="cosine", seed=2, checkpoint=folder)
    stopping = gn.train.EarlyStopping(patience=epochs)
    history = trainer.fit(
        x, y, epochs=epochs, batch_size=32, validation=(x, y), callbacks=[stopping], progress=False
    )
    digest = hashlib.sha256(net.predict(x).tobytes())
    for state in (net.state_dict(), trainer.optimizer.state_dict()):
        for name in sorted(state):
            digest.update(state[name].tobytes())
    curves = {name: values for name, values in history.curves.items() if name != "seconds"}
    digest.update(json.dumps([curves, [s.call for s in net.streams()]]).encode())
    return digest.hexdigest()


def launch(folder: Path | None, epochs: int) -> subprocess.Popen[str]:
    """Start a run as a process of its own."""
    command = [sys.executable, "-m", "tests.fuzz.chaos", "--epochs", str(epochs), "--child"]
    command.append("" if folder is None else str(folder))
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env
    )


def reference(epochs: int) -> tuple[str, float, float]:
    """Digest of an unbroken run, its seconds with checkpoints, and those before it trains."""
    process = launch(None, epochs)
    digest = process.communicate()[0].strip()
    with tempfile.TemporaryDirectory() as folder:
        start, first = time.perf_counter(), 0.0
        process = launch(Path(folder), epochs)
        while process.poll() is None:
            if not first and any(Path(folder).glob("*.safetensors")):
                first = time.perf_counter() - start
            time.sleep(0.005)
        process.communicate()
        seconds = time.perf_counter() - start
    return digest, seconds, first


def one_run(seed: int, digest: str, seconds: float, first: float, epochs: int) -> Outcome:
    """A run that is killed until it ends by itself.

    The machine may be slower or faster now than for the reference: `seconds` and `first` follow.
    """
    moments, kills, in_write = random.Random(seed), 0, 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        while True:
            start, process = time.perf_counter(), launch(folder, epochs)
            delay = moments.uniform(0.8 * first, seconds)
            try:
                found = process.communicate(timeout=delay)[0].strip()
                if process.returncode == 0 and kills:
                    return Outcome(kills, in_write, found == digest)
                if process.returncode:
                    return Outcome(kills, in_write, same=False)
                faster = (time.perf_counter() - start) / seconds
                first, seconds = first * faster, seconds * faster
                for path in folder.iterdir():  # it ended before it was killed: again
                    path.unlink()
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.communicate()
                kills += 1
                in_write += any(".safetensors." in p.name for p in folder.iterdir())
                if not any(folder.glob("*.safetensors")):  # it got nowhere
                    first, seconds = 1.2 * first, 1.2 * seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        print(child(Path(options.child) if options.child else None, options.epochs))
        return 0
    digest, seconds, first = reference(options.epochs)
    print(f"an unbroken run takes {seconds:.2f} s, {first:.2f} s to its first checkpoint")
    with ThreadPoolExecutor(options.workers) as pool:
        outcomes = list(
            pool.map(
                lambda seed: one_run(seed, digest, seconds, first, options.epochs),
                range(options.runs),
            )
        )
    kills = sum(o.kills for o in outcomes)
    print(
        f"{len(outcomes)} runs, {kills} kills, {sum(o.in_write for o in outcomes)} of them inside "
        f"the writing of a checkpoint: {sum(o.same for o in outcomes)} runs ended with the bits of "
        "the unbroken one"
    )
    return 0 if all(o.same for o in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
