"""Damaged files in every way we know: the short form, and the judge must be able to find fault."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import gpunn as gn
from tests.fuzz.damage import KINDS
from tests.fuzz.honest import honest_files, place
from tests.fuzz.judge import Judge

ROOT = Path(__file__).parents[1]


def fuzz(*options):
    command = [sys.executable, "-m", "tests.fuzz", *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)


@pytest.mark.skipif(sys.platform != "linux", reason="it limits its memory as Linux does")
def test_no_damage_of_any_kind_is_a_fault():
    done = fuzz("--files", 24 * len(KINDS))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{24 * len(KINDS)} files, {96 * len(KINDS)} calls, 0 faults" in done.stdout
    for kind in KINDS:
        assert f"  {kind} " in done.stdout


def test_a_seed_means_one_file():
    first, second = honest_files(), honest_files()
    assert first == second


def opens(path):
    (path.parent / "new").open("w").close()


def removes(path):
    path.unlink()


def unpickles(path):
    pickle.loads(pickle.dumps(Path("x")))
    return gn.load(path)


def imports(path):
    sys.modules.pop("this", None)
    from __main__ import this  # noqa: F401


def evaluates(path):
    eval("1 + 1")
    return gn.load(path)


def takes_memory(path):
    np.empty(3 * path.stat().st_size + 2**21, np.uint8)
    return gn.load(path)


def raises(path):
    raise KeyError("architecture")


def mumbles(path):
    raise gn.errors.ModelFileError("no")


def finds_no_room(path):
    raise gn.errors.OutOfMemoryError("got a file; expected a smaller one: do")


def changes_a_weight(path):
    net = gn.load(path)
    next(iter(net.parameters())).data.flat[0] += 1
    return net


def forgets_a_stream(path):
    net = gn.load(path)
    net.streams()[0].call += 1
    return net


@pytest.mark.parametrize(
    ("reader", "words"),
    [
        (opens, "open"),
        (removes, "os.remove"),
        (unpickles, "pickle.find_class"),
        (imports, "import"),
        (evaluates, "compile"),
        (takes_memory, "takes"),
        (raises, "raises KeyError"),
        (mumbles, "says 'no'"),
        (finds_no_room, "finds no room"),
        (changes_a_weight, "gives what is not there"),
        (forgets_a_stream, "gives what is not there"),
    ],
)
def test_the_judge_finds_fault(reader, words, judge, tmp_path):
    place(tmp_path, honest_files()[0].content)
    readers = dict(judge.readers)
    try:
        assert not judge.verdicts(tmp_path)[0].faults
        judge.readers["load"] = (reader, *readers["load"][1:])
        faults = judge.verdicts(tmp_path)[0].faults
    finally:
        judge.readers = readers
    assert any(words in fault for fault in faults), faults


@pytest.fixture(scope="module")
def judge():
    found = Judge()  # its hook stays for good: one for all tests
    gn.load(ROOT / "tests" / "train" / "data" / "version_1.safetensors")  # what is imported late
    tracemalloc.start()
    yield found
    tracemalloc.stop()


def test_a_trap_that_sprang_is_seen(judge, tmp_path):
    place(tmp_path, b"")
    os.mkdir(tmp_path / "trap")
    assert all("loaded a pickle" in verdict.faults for verdict in judge.verdicts(tmp_path))
