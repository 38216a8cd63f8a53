"""The command for machines with a GPU runs: tiny sizes, on every device."""

from __future__ import annotations

import sys

import pytest

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu.command import run


@pytest.mark.parametrize("part", ["parity", "capture", "kernels", "steps", "epoch"])
def test_a_part_gives_numbers(part, device):
    found = gpu.PARTS[part](device, True)
    assert found
    if part == "parity":
        assert found["float64"]["holds"]
        assert found["float32"]["holds"]
        assert found["random_words_bit_equal"]


def test_a_part_that_fails_is_recorded_and_the_others_run(monkeypatch, tmp_path, capsys):
    def broken(device, quick):
        raise RuntimeError("no luck")

    monkeypatch.setattr(gpu, "PARTS", {"tests": broken, "epoch": lambda *_: {"seconds": 1}})
    path = tmp_path / "out.json"
    monkeypatch.setattr("sys.argv", ["gpu", "--device", "cpu", "--output", str(path)])
    gpu.main()
    text = path.read_text()
    assert "no luck" in text
    assert '"seconds": 1' in text


def test_a_command_that_takes_too_long_keeps_what_it_said():
    text = "import time; print('one', flush=True); time.sleep(60)"
    assert run([sys.executable, "-c", text], timeout_s=3) == (None, ["one"])
    assert run([sys.executable, "-c", "print('two'); raise SystemExit(3)"], 30) == (3, ["two"])
