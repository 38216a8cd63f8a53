"""Every example runs in its short form, is short, and proves its numbers."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

import gpunn as gn
from tests.examples.loading import FOLDER, NAMES, example

LIGHT = (
    *("01_backprop_by_hand", "02_computation_graph", "03_eight_weights", "06_shifted_patterns"),
    *("18_vanishing_gradients", "19_activations"),
)
NUMBERS = {  # what the short form must print
    "01_backprop_by_hand": "error signal of b2: by hand - by tape = 0.0e+00",
    "02_computation_graph": "by the tape 2.498432319394",
    "04_paths": "6,250,000 paths from one unit, 10,000 edges",
    "05_xor": "[0, 1, 1, 0]",
    "06_shifted_patterns": "mean of B over its shifts: [0.25]",
    "07_bumps": "0 of 1024 values wrong",
    "11_neural_net_in_20_lines": "24635.89349862823",
    "12_dropout": "10^1233.02",
    "13_feature_expansions": "[1; |x1 - x2|]   : 100.0%",
    "14_image_features": "HoG of 320 x 240 pixels: 10800",
    "17_random_wiring": "Watts-Strogatz : 20 edges",
    "18_vanishing_gradients": "100% dead",
    "19_activations": "at most 0.020335",
}


def numbers(pattern, text):
    """The numbers that a pattern finds in a text, in order."""
    found = re.findall(pattern, text)
    assert found, f"{pattern} is not in {text}"
    return [float(number) for number in found]


def falls(values, by=0.0):
    return all(a - b >= by for a, b in pairwise(values))


CLAIMS = {  # what the picture of the short form shows, from the numbers that it prints
    "03_eight_weights": lambda text: (
        numbers(r"dE/dw67 +. ([-+][\d.]+)", text) == [0.0, -0.718123]
        and numbers(r"dE/dz7 +. ([-+][\d.]+)", text) == [0.0, -1.0]
    ),
    "08_folding": lambda text: (
        numbers(r"before folding: ([\d.]+)%", text)[0] < 96
        and numbers(r"after: ([\d.]+)%", text)[0] > 99
        and "class 0 end in the origin: {0}" in text
    ),
    "09_capacity": lambda text: falls(numbers(r"median training error ([\d.]+)%", text)),
    "10_regularization": lambda text: (
        falls(numbers(r"\|W\|\^2 +([\d.]+)", text), 0.1)
        and falls(numbers(r"total variation +([\d.]+)", text), 1.0)
    ),
    "15_mnist": lambda text: falls(numbers(r"test error ([\d.]+) %", text), 0.5),
    "16_feedback_alignment": lambda text: (
        falls(numbers(r"linear network.*-> ([\d.]+) degrees", text), 5)
        and max(numbers(r"digits.*angle [\d.]+ -> ([\d.]+)", text)) < 75
    ),
    "20_other_models": lambda text: (
        falls([float(n) for n in re.findall(r"nearest.*\[(.*?) *\]", text)[0].split()], 0.1)
        and float(re.findall(r"network .* ([\d.]+) *\]", text)[0]) < 0.05
    ),
    "21_no_bumps": lambda text: (
        falls(numbers(r"largest error ([\d.]+)", text), 0.3)
        and falls(numbers(r"changes by (\d+),", text), 200)
    ),
    "22_network_at_work": lambda text: (
        min(numbers(r"a line leaves (\d+) wrong", text)) >= 5
        and numbers(r"t = 1000: .* at most (\d+) wrong", text) == [0, 0]
    ),
    "23_compact_representations": lambda text: (
        min(numbers(r"random units.*error ([\d.]+)", text))
        > 2 * min(numbers(r"learned units.*error ([\d.]+)", text))
    ),
    "24_depth_and_overfitting": lambda text: (
        falls(numbers(r"layers of 20 units.*training error +([\d.]+)%", text))
        and numbers(r"lambda.*0\.003.*new points +([\d.]+)", text)[0]
        < numbers(r"lambda.*0\.001.*new points +([\d.]+)", text)[0]
    ),
    "25_convexity": lambda text: (
        "linear scores : 5 seeds end in 1 minima" in text
        and numbers(r"second difference on 3 lines is ([-\d.e]+)", text)[0] > 0
        and numbers(r"mirror image, ([\d.]+) half way", text)[0]
        > numbers(r"loss ([\d.]+) at a minimum", text)[0] + 0.2
    ),
}


def run(name, device, capsys):
    """The figure and the text of an example's short form."""
    with gn.device(device):
        figure = example(name).main(True)
    return figure, capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_the_short_form(name, capsys):
    figure, text = run(name, "cpu", capsys)
    assert figure.axes
    assert NUMBERS.get(name, "") in text
    assert CLAIMS.get(name, bool)(text)
    assert len(text.splitlines()) >= 2


def test_every_example_asserts_a_number():
    assert {*NAMES} <= {*NUMBERS} | {*CLAIMS}


@pytest.mark.parametrize("name", LIGHT)
def test_the_short_form_on_a_device(name, cuda_device, capsys):
    here, there = (run(name, device, capsys)[1] for device in ("cpu", cuda_device))
    assert len(there.splitlines()) == len(here.splitlines())
    assert NUMBERS.get(name, "") in there


@pytest.mark.parametrize("name", NAMES)
def test_an_example_can_be_read_aloud(name):
    text = (FOLDER / f"{name}.py").read_text()
    assert text.count("\n") <= 81
    doc = ast.get_docstring(ast.parse(text))
    assert "ecture" in doc
    assert doc.splitlines()[0].endswith(".")


def test_an_example_as_a_script(tmp_path):
    command = [sys.executable, FOLDER / "02_computation_graph.py", "--short", "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "02_computation_graph.png after" in done.stdout
    assert (tmp_path / "02_computation_graph.png").read_bytes()[:4] == b"\x89PNG"


def test_an_example_on_a_device_that_is_not_there(tmp_path):
    command = [sys.executable, FOLDER / "19_activations.py", "--device", "cuda:77"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode
    assert "DeviceUnavailableError" in done.stderr


@pytest.mark.parametrize(("width", "layers"), [(3, 2), (4, 4), (2, 6)])
def test_all_paths_and_backprop_give_the_same_gradient(width, layers):
    """B7."""
    lesson = example("04_paths")
    paths, tape, _, _ = lesson.both(width, layers, seed=3)
    np.testing.assert_allclose(paths, tape, rtol=1e-12)
    assert lesson.count(50, 5) == (6_250_000, 10_000)


def test_the_number_of_paths_grows_with_a_power_and_the_edges_linearly():
    """B7: calls of the path sum, counted; times are too noisy for a test."""
    lesson = example("04_paths")

    def calls(layers, width=3):
        made = 0

        class Counting(list):
            def __getitem__(self, index):
                nonlocal made
                made += isinstance(index, int)
                return super().__getitem__(index)

        weights = [Counting([[1.0] * width] * width) for _ in range(layers - 1)]
        lesson.by_paths(weights, [np.ones(width)] * layers, 0)
        return made

    counts = [calls(layers) for layers in (4, 5, 6)]
    assert counts[1] / counts[0] > 2.9
    assert counts[2] / counts[1] > 2.9
    edges = [lesson.count(3, layers)[1] for layers in (4, 5, 6)]
    assert edges[2] - edges[1] == edges[1] - edges[0] == 9


def test_xor_is_learned_from_nearly_every_seed():
    """M7, with 20 seeds of the hundred that the full form takes."""
    lesson = example("05_xor")
    reached = [lesson.accuracy(lesson.learned(seed)) == 1 for seed in range(20)]
    assert sum(reached) >= 19


SLOPES = {
    "tanh": lambda z: 1 - np.tanh(z) ** 2,
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)) / (1 + np.exp(z)),
    "relu": lambda z: float(z > 0),
}


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("activation", SLOPES)
def test_the_dag_of_lecture_004(activation, sign, device):
    """B6: all eight dE/dw and the deltas, for random weights, on both sides of the loss."""
    lesson = example("03_eight_weights")
    rng = np.random.default_rng(5)
    slope, found = SLOPES[activation], 0
    for _ in range(12):
        x1, x2 = rng.standard_normal(2)
        w = dict(zip(lesson.WEIGHTS, rng.standard_normal(8), strict=True))
        steps = lesson.network(activation, x1, x2, float(sign), w, device)
        v = {name: float(q.value) for name, q in steps.items()}
        d7 = float(-v["z7"] * sign > 0) * -sign
        found += d7 != 0
        d6, d5 = d7 * w["w67"], d7 * w["w57"]
        g = {k: slope(v[f"z{k}"]) for k in (3, 4, 5, 6)}
        d4 = d6 * g[6] * w["w46"]
        d3 = d6 * g[6] * w["w36"] + d5 * g[5] * w["w35"]
        expected = {
            "z7": d7, "a6": d6, "a5": d5, "a4": d4, "a3": d3,
            "w67": d7 * v["a6"], "w57": d7 * v["a5"],
            "w46": d6 * g[6] * v["a4"], "w36": d6 * g[6] * v["a3"], "w35": d5 * g[5] * v["a3"],
            "w24": d4 * g[4] * x2, "w23": d3 * g[3] * x2, "w13": d3 * g[3] * x1,
        }  # fmt: skip
        for name, value in expected.items():
            assert float(steps[name].grad) == pytest.approx(value, rel=1e-12, abs=1e-15), name
    assert 0 < found < 12
