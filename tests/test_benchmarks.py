"""The suite and the command for machines with a GPU run, and judge what they find."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

import gpunn as gn
from gpunn.backends.cpu import blas
from gpunn.benchmarks import (
    command,
    engine,
    fit,
    footprint,
    goals,
    kernels,
    scaling,
    service,
    steps,
    timing,
)
from gpunn.benchmarks.contenders import CONTENDERS, FLOOR
from gpunn.benchmarks.contenders.naive import naive_step
from gpunn.benchmarks.contenders.own import gpunn_step
from gpunn.benchmarks.gpu import __main__ as gpu
from gpunn.benchmarks.gpu import checks
from gpunn.benchmarks.gpu.command import Ended, run
from gpunn.benchmarks.level import LEVELS, environment, measure, threads_of
from gpunn.benchmarks.networks import NETWORKS, Network
from gpunn.benchmarks.settings import Settings
from gpunn.benchmarks.timing import in_turn, summary, times_faster
from tests.data.test_mnist import write_small

ROOT = Path(__file__).parents[1]
QUICK = Settings(quick=True)
OWN = (FLOOR, "gpunn NumPy alone", "gpunn eager", "naive NumPy")


@pytest.fixture
def own_contenders(monkeypatch):
    """Only those that every environment has."""
    monkeypatch.setattr(steps, "CONTENDERS", {name: CONTENDERS[name] for name in OWN})
    monkeypatch.setattr(scaling, "WHO", OWN)
    monkeypatch.setattr(fit, "FITS", {"gpunn": fit.FITS["gpunn"]})


@pytest.mark.parametrize("command", [("gpunn", "bench"), ("benchmarks",), ("gpunn.benchmarks",)])
def test_every_name_of_the_command(command, tmp_path):
    out = tmp_path / "new" / "found.json"
    done = subprocess.run(
        [sys.executable, "-m", *command, "--quick", "--only", "engine", "--out", str(out)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(out.read_text())
    assert set(record) == {"machine", "versions", "quick", "engine"}
    assert record["engine"]["long chain"]["gpunn"]["us_per_node"] > 0
    assert out.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"


def test_an_unknown_level_is_refused(tmp_path):
    command = [sys.executable, "-m", "gpunn", "bench", "--only", "speed"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert "got --only speed; expected one of steps" in done.stderr


def test_levels_are_functions_of_their_module(own_contenders, tmp_path, monkeypatch):
    monkeypatch.setattr(footprint, "MODULES", {"numpy": "numpy", "gpunn": "gpunn"})
    write_small(tmp_path)
    modules = (steps, engine, kernels, scaling, fit, footprint, service)
    assert [m.__name__.rpartition(".")[2] for m in modules] == list(LEVELS)
    settings = Settings(("steps/tiny",), quick=True, data_dir=str(tmp_path))
    for module, level in zip(modules, LEVELS, strict=True):
        found = getattr(module, level)(settings)
        assert json.loads(json.dumps(found)), level
        assert "skipped" not in found, level


def test_a_row_of_the_steps_is_complete(own_contenders, capsys):
    rows = steps.steps(Settings(("steps/tiny",), quick=True))
    assert set(rows) == {"tiny, sgd", "tiny, adam"}
    for row in rows.values():
        assert set(row["contenders"]) == set(OWN)
        assert row["contenders"][FLOOR]["to_floor"] == 1
        assert row["contenders"]["gpunn eager"]["to_floor"] > 1
    assert "naive NumPy" in capsys.readouterr().out


def test_who_cannot_run_says_why(monkeypatch):
    found = {"broken": CONTENDERS[FLOOR]._replace(make=lambda network, rule: 1 / 0)}
    found["absent"] = CONTENDERS[FLOOR]._replace(package="no_such_package")
    monkeypatch.setattr(steps, "CONTENDERS", {FLOOR: CONTENDERS[FLOOR], **found})
    row = steps.measure(NETWORKS["tiny"], "sgd", QUICK)
    assert set(row["contenders"]) == {FLOOR}
    assert row["skipped"]["absent"] == "no_such_package is not installed"
    assert "ZeroDivisionError" in row["skipped"]["broken"]
    assert CONTENDERS["scikit-learn"].why_not(NETWORKS["dropout-paper"])


@pytest.mark.parametrize("rounds_s", [0.001, 2.0, 90.0])
def test_rows_that_take_long_have_fewer_rounds(rounds_s, monkeypatch):
    monkeypatch.setattr(steps, "seconds", lambda work, repeats, wait: rounds_s)
    rounds = steps._rounds({"one": lambda: None}, Settings(rounds=20))
    assert rounds == {0.001: steps.MOST_ROUNDS, 2.0: 20, 90.0: steps.FEWEST_ROUNDS}[rounds_s]


def test_a_fit_without_data_is_skipped_aloud(tmp_path):
    assert "--data-dir" in fit.fit(QUICK)["skipped"]
    assert "without MNIST" in fit.fit(Settings(data_dir=str(tmp_path)))["skipped"]


@pytest.mark.parametrize("rule", ["sgd", "adam"])
@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "squared_error"])
def test_the_hand_written_step_learns(rule, activation, loss):
    step = naive_step(Network("small", (8, 16, 4), 8, 0.1, activation, loss), rule)
    first = step()
    for _ in range(300):
        last = step()
    assert last < 0.8 * first


@pytest.mark.parametrize("name", ["tiny", "lecture"])
def test_captured_and_eager_steps_are_one_step(name):
    losses = [gpunn_step(NETWORKS[name], "adam", captured=flag) for flag in (True, False)]
    for _ in range(4):
        assert float(losses[0]()) == float(losses[1]())


def test_all_are_timed_in_turn():
    order = []
    works = {name: lambda name=name: order.append(name) for name in "abc"}
    times = in_turn(works, rounds=3, share_s=0.0)
    assert "".join(order) == "abc" * 4  # one for the number of repeats
    assert {name: len(values) for name, values in times.items()} == {"a": 3, "b": 3, "c": 3}


@pytest.mark.parametrize(("warm_s", "turn"), [(1.0, ["timed"]), (3.0, ["warm", "timed"])])
def test_the_first_call_of_a_turn_may_be_left_out(warm_s, turn, monkeypatch):
    order = []

    def clock(work, repeats, wait):
        order.append("timed")
        return 2.0

    monkeypatch.setattr(timing, "seconds", clock)
    found = in_turn({"a": lambda: order.append("warm")}, 3, warm_s=warm_s)
    assert order == ["timed", *turn, *turn, *turn]
    assert found == {"a": [2.0, 2.0, 2.0]}


def test_ratios_are_paired():
    times = {"floor": [1.0, 10.0, 2.0], "ours": [2.0, 20.0, 6.0]}
    assert times_faster(times, "floor", "ours") == 2.0
    found = summary(times, "floor", yardstick="ours")
    assert found["ours"]["to_floor"] == 2.0
    assert found["ours"]["us"] == 6e6
    assert found["ours"]["quartiles_us"] == [4e6, 13e6]
    assert found["floor"]["times_faster"] == 2.0


def test_goals_are_judged_from_the_right_side():
    times = {"PyTorch": [3.0], goals.COMPILED: [1.2], "matrix products": [1.0], "JAX jit": [1.0]}
    found = goals.judged([{"mnist-mid, sgd": {"seconds": times}}])
    by_number = {goal["number"]: goal for goal in found}
    assert (by_number[1]["got"], by_number[1]["met"]) == ([2.5], True)  # at least 1.5 times faster
    assert (by_number[2]["got"], by_number[2]["met"]) == ([1.2], False)  # at most 1.1 of the floor
    assert (by_number[3]["got"], by_number[3]["met"]) == ([1.0 / 1.2], False)  # JAX was faster
    assert "Goals: 1 of 3 met" in goals.table(found)
    assert goals.judged([]) == []


def test_a_goal_is_met_when_every_run_meets_it():
    fast, slow = ({"PyTorch": [s], goals.COMPILED: [1.0]} for s in (3.0, 1.0))
    runs = [{"mnist-mid, sgd": {"seconds": times}} for times in (fast, slow)]
    (goal,) = goals.judged(runs)
    assert (goal["got"], goal["met"]) == ([3.0, 1.0], False)
    (goal,) = goals.judged([runs[0], runs[0], {"failed": "exit status 1"}])
    assert (goal["got"], goal["met"]) == ([3.0, 3.0], True)
    assert "3.00   3.00 >= 1.50" in goals.table([goal])


def test_runs_through_the_steps_are_all_kept(monkeypatch, tmp_path, capsys):
    asked = []

    def found(level, settings):
        asked.append((level, settings.threads, settings.coretype))
        times = {"PyTorch": [3.0], goals.COMPILED: [1.0]}
        contenders = {goals.COMPILED: {"to_floor": 1.2}}
        row = {"seconds": times, "contenders": contenders}
        return {"mnist-mid, sgd": row} if level == "steps" else {"blas": "openblas"}

    monkeypatch.setattr(command, "measure", found)
    out = tmp_path / "cpu.json"
    command.bench(["steps"], threads="1, 1,2", coretype="SkylakeX", out=out)
    assert asked == [("machine", 1, "SkylakeX"), *(("steps", n, "SkylakeX") for n in (1, 1, 2))]
    record = json.loads(out.read_text())
    assert [run["threads"] for run in record["steps"]] == [1, 1, 2]
    assert [goal["got"] for goal in record["goals"]] == [[3.0, 3.0]]  # on one thread
    assert "Goals: 1 of 1 met" in capsys.readouterr().out


@pytest.mark.parametrize("threads", ["", "0", "1,two", "-1"])
def test_threads_are_numbers(threads, tmp_path):
    with pytest.raises(gn.GpunnError, match="numbers above 0"):
        command.bench(["engine"], threads=threads, out=tmp_path / "cpu.json")


@pytest.mark.parametrize("coretype", ["", "auto", "Nehalem"])
@pytest.mark.parametrize("before", ["", "Prescott"])
def test_the_kernels_of_blas_may_be_named(before, coretype, monkeypatch):
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    if before:
        monkeypatch.setenv("OPENBLAS_CORETYPE", before)
    expected = {"": before, "auto": "", "Nehalem": "Nehalem"}[coretype]
    found = environment(Settings(coretype=coretype, threads=2))
    assert found.get("OPENBLAS_CORETYPE", "") == expected
    assert found["OMP_NUM_THREADS"] == "2"
    told = measure("machine", Settings(coretype=coretype))
    assert told["environment"].get("OPENBLAS_CORETYPE", "") == expected
    if blas.core_name() and importlib.util.find_spec("threadpoolctl"):
        assert (" for Nehalem" in told["blas"]) == (expected == "Nehalem")


def test_the_slope_is_that_of_the_largest_sizes_in_single_rounds():
    assert scaling.slope((1, 2, 4, 8), (9.0, 4.0, 16.0, 64.0)) == pytest.approx(2.0)
    times = {"ours, 1": [1.0, 1.0, 5.0], "ours, 2": [2.0, 2.0, 5.0], "ours, 4": [4.0, 4.0, 5.0]}
    found = scaling._growth("ours", (1, 2, 4), times)
    assert found["us"] == [1e6, 2e6, 4e6]
    assert found["slope"] == pytest.approx(1.0)  # the third round, with a neighbour, has 0
    assert found["quartiles"] == pytest.approx([0.5, 1.0])


def test_goals_are_about_contenders_and_networks_that_exist():
    for goal in goals.goals():
        assert {goal.above, goal.below} <= set(CONTENDERS)
        assert goal.network in NETWORKS
    assert len(goals.goals()) == 2 * (7 * 2 + 5 * 2 + 7 * 3 - 1)


def test_numpy_alone_is_a_scope(monkeypatch):
    b = gn.backend("cpu")
    monkeypatch.setattr(b, "_native", "compiled kernels")
    with b.numpy_alone():
        assert b._native is None
    assert b._native == "compiled kernels"


def test_threads_are_decided_for_every_library():
    code = (
        "from threadpoolctl import threadpool_info; import numpy;"
        "print({p['num_threads'] for p in threadpool_info()})"
    )
    pytest.importorskip("threadpoolctl")
    for count in (1, 2):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=threads_of(count)
        )
        assert done.stdout.strip() == f"{{{count}}}", done.stderr


@pytest.mark.parametrize(
    "part", ["doctor", "parity", "capture", "steps", "epoch", "nodes", "kernels"]
)
def test_a_part_gives_numbers(part, device):
    b, log = gn.backend(device), logging.getLogger("gpunn")
    before = b.record, log.level, [*log.handlers]
    found = dict(gpu.PARTS[part].work(device, True))
    assert (b.record, log.level, log.handlers) == before  # later work is not watched
    assert found
    if part == "parity":
        assert found["float64"]["holds"]
        assert found["float32"]["holds"]
        assert found["random_words_bit_equal"]


@pytest.fixture
def commands(monkeypatch):
    """The commands that a part of the suite would run, each with its limit of time."""
    found = []

    def noted(command, timeout_s):
        found.append((command, timeout_s))
        return Ended(0, [])

    monkeypatch.setattr(checks, "run", noted)
    monkeypatch.setattr(checks.shutil, "which", lambda name: name)
    return found


@pytest.mark.parametrize("part", ["tests", "sanitizer"])
def test_a_part_stops_its_tests_before_it_is_stopped(part, commands):
    dict(gpu.PARTS[part].work("cuda:0", False))
    ((_, timeout_s),) = commands
    assert timeout_s < gpu.PARTS[part].limit_s


def test_gpu_tests_may_not_skip_and_ignore_the_warnings_of_other_packages(commands):
    dict(checks.tests("cuda:0", False))
    ((command, _),) = commands
    options = {("-k", "cuda:0 or cupy_both_ways"), ("-p", "no:benchmark"), ("-W", "default")}
    assert options <= set(pairwise(command))
    assert "--require-gpu" in command


def test_the_suite_ends_while_the_card_is_lent():
    limits_s = {name: part.limit_s for name, part in gpu.PARTS.items()}
    assert sum(limits_s[name] for name in gpu.QUICK) <= 300
    assert sum(limits_s.values()) <= 600  # a command has a card for ten minutes


BROKEN_PARTS = """
import os, signal, time
from gpunn.benchmarks.gpu import __main__ as gpu

def half(device, tiny):
    yield "first", 1
    raise RuntimeError("no luck")

def endless(device, tiny):
    yield "first", 2
    time.sleep(600)

def killed(device, tiny):
    yield "first", 3
    os.kill(os.getpid(), signal.SIGKILL)

works = {"parity": half, "capture": endless, "steps": killed, "epoch": lambda *_: [("ok", 4)]}
gpu.PARTS = {name: gpu.Part(work, 5.0) for name, work in works.items()}
run = gpu.run
gpu.run = lambda command, limit_s: run([command[0], __file__, *command[3:]], limit_s)
gpu.main()
"""


def test_parts_that_crash_or_hang_do_not_stop_the_others(tmp_path):
    script, path = tmp_path / "suite.py", tmp_path / "out.json"
    script.write_text(BROKEN_PARTS)
    command = [sys.executable, str(script), "--device", "cpu", "--output", str(path)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(path.read_text())
    failed = {name: record[name].get("failed") for name in ("parity", "capture", "steps", "epoch")}
    assert failed == {
        "parity": "exit status 1",
        "capture": "stopped after 5 s",
        "steps": "exit status -9",
        "epoch": None,
    }
    assert [record[name]["first"] for name in ("parity", "capture", "steps")] == [1, 2, 3]
    assert record["epoch"]["ok"] == 4
    assert any("no luck" in line for line in record["parity"]["words"])


def test_without_a_card_the_suite_ends_in_one_line():
    if gn.diagnose("cuda").usable:
        pytest.skip("there is a card")
    command = [sys.executable, "-m", "benchmarks.gpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1
    assert done.stdout.startswith("cuda:0 cannot be used: ")


def test_a_command_that_takes_too_long_keeps_what_it_said(monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    text = "import time; print('one'); time.sleep(60)"  # nothing is flushed
    assert run([sys.executable, "-c", text], timeout_s=3) == (None, ["one"])
    assert run([sys.executable, "-c", "print('two'); raise SystemExit(3)"], 30) == (3, ["two"])
