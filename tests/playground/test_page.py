"""The page in a browser: what a person does with it."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from typer.testing import CliRunner

import gpunn as gn
from gpunn.cli.app import app
from gpunn.errors import OutputError
from gpunn.explain import network
from gpunn.playground import document, page
from tests.playground.conftest import run

SMALL = {"set": "spiral", "noise": 0.1, "layers": [3, 2], "batch": 16}


MINUS = "\N{MINUS SIGN}"
DATA_BYTES = """(() => {
  const { data, size } = playground.training.network;
  return Array.from(new Uint8Array(playground.machine.memory.buffer, data, 4 * size));
})()"""
DROPPED = """(() => {
  const { z, y } = playground.training.whole.passed[0];
  return [z, y].map(({ at }) => Array.from(playground.machine.floats(at, 8)));
})()"""
FAST = {"lr": 3, "loss": "squared_error", "activation": "identity", "optimizer": "sgd"}


def first_number(text):
    return float(re.search(r"-?\d[\d.]*(?:e-?\d+)?", text.replace(MINUS, "-"))[0])


def state_of(tab):
    return tab.evaluate("playground.state")


def test_xor_is_learned_to_the_last_point(page):
    page.get_by_role("combobox", name="Data", exact=True).select_option("xor")
    page.get_by_role("combobox", name="Noise", exact=True).select_option("0")
    page.get_by_role("button", name="Train", exact=True).click()
    page.wait_for_function("playground.training.losses.length > 100")
    page.get_by_role("button", name="Pause").click()
    assert page.locator("#accuracy").inner_text() == "100 %"
    assert page.evaluate("playground.training.losses.at(-1)") < 0.01
    assert "100 % correct" in page.locator("#status").text_content()


def test_the_kernels_are_those_of_the_formulas():
    source, offered = document.catalogue()
    assert document.DIGEST.read_text().strip() == document.digest(source)
    assert len(document.html(document.KERNELS.read_bytes(), offered)) < 1_000_000


def test_kernels_of_other_formulas_are_refused(monkeypatch):
    source, offered = document.catalogue()
    monkeypatch.setattr(document, "catalogue", lambda: (source + " ", offered))
    with pytest.raises(OutputError, match=r"python -m gpunn\.playground\.build"):
        page()


def test_the_command_writes_the_page(tmp_path):
    path = tmp_path / "page.html"
    done = CliRunner().invoke(app, ["playground", "--output", str(path)])
    assert done.exit_code == 0, done.output
    assert path.read_text(encoding="utf-8") == page()


def test_the_command_opens_the_page(monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or True)
    assert CliRunner().invoke(app, ["playground"]).exit_code == 0
    assert re.fullmatch(r"file:.*playground\.html", opened[0])


def test_the_address_holds_the_state(page, address):
    rng = np.random.default_rng(0)
    offered = document.catalogue()[1]
    for _ in range(30):

        def pick(names):
            return str(rng.choice(list(names)))

        name = pick(offered["sets"])
        wanted = {
            **{"set": name, "noise": float(rng.choice(offered["sets"][name]["noises"]))},
            **{"map": pick(offered["maps"]), "activation": pick(offered["activations"])},
            **{"loss": pick(offered["losses"]), "optimizer": pick(offered["optimizers"])},
            **{
                "layers": rng.integers(1, 9, rng.integers(0, 6)).tolist(),
                "seed": int(rng.integers(99)),
            },
            **{"feedback": bool(rng.integers(2)), "dropout": pick(offered["rates"])},
            **{"lr": 0.3, "l1": 0.01, "l2": 1e-05, "batch": 64, "draw": 0},
        }
        page.evaluate("wanted => playground.change(wanted)", wanted)
        before = state_of(page)
        assert before | wanted == before
        behind = page.evaluate("location.hash")
        page.goto("about:blank")
        page.goto(address + behind)
        assert state_of(page) == before


@pytest.mark.parametrize(
    "text",
    [
        "set=no&lr=x&layers=99-0-a-3",
        "layers=",
        "noise=1e999&draw=-1&seed=-3&seed=1.5",
        "%%%",
        "points=1,2;3",
        "set=drawn&points=a,b,c;999,0,1;10,20,1",
        "set=__proto__&activation=constructor",
    ],
)
def test_any_address_opens(text, tab, address):
    tab.goto(f"{address}#{text}")
    state = state_of(tab)
    assert all(1 <= units <= 8 for units in state["layers"])
    assert len(state["layers"]) <= 5
    assert state["set"] in document.catalogue()[1]["sets"] | {"drawn": 0}
    assert tab.locator("h1").is_visible()


@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu", "identity"])
@pytest.mark.parametrize(
    "loss", ["half_squared_error", "binary_cross_entropy_with_logits", "hinge"]
)
def test_step_by_step_is_what_explain_says(activation, loss, train, page):
    for feedback in (False, True):
        found = train(1, **SMALL, activation=activation, loss=loss, feedback=feedback)
        names = run(found["python"])
        page.get_by_role("spinbutton", name="Example").fill("7")
        page.get_by_role("spinbutton", name="Example").press("Enter")
        x, t = names["x"][names["train"]][6:7], names["targets"][names["train"]][6:7]
        steps = network(names["net"], x, t, loss)
        for part in ("forward", "backward"):
            lines = page.evaluate(f"playground.steps.of({x[0].tolist()}, {float(t[0, 0])}).{part}")
            told = steps.text().partition("backward\n")[0 if part == "forward" else 2].splitlines()
            told = [line.strip() for line in told if line.startswith("  ")]
            said = [" = ".join(filter(None, (a["name"], a["formula"]))) for a in lines]
            assert [re.split(r"   +", line)[0] for line in told] == said
            for line in lines:
                q = steps[line["name"]] if part == "forward" else unbarred(steps, line["name"])
                value = q.value if part == "forward" else q.grad
                expected = np.atleast_2d(value)
                np.testing.assert_allclose(line["values"], expected, rtol=1e-3, atol=1e-6)
        shown = page.locator("#forward tr", has=page.locator("th", has_text=re.compile("^y$")))
        y = float(steps["y"].value[0, 0])
        assert first_number(shown.locator("pre").inner_text()) == pytest.approx(y, abs=6e-5)


def unbarred(steps, barred):
    from gpunn.explain.steps import barred as bar

    return next(q for q in steps.values() if bar(q.name) == barred)


@pytest.mark.parametrize("optimizer", ["momentum", "adam", "nadam"])
def test_the_update_in_the_steps_is_a_step_and_changes_nothing(optimizer, train, page):
    found = train(2, **SMALL, optimizer=optimizer, lr=0.01)
    bytes_before = page.evaluate(DATA_BYTES)
    told = page.evaluate("playground.steps.of([0.3, 0.1], 1).update")
    assert page.evaluate(DATA_BYTES) == bytes_before
    after_it = page.evaluate("playground.training.epochs(1).at(-1)")
    assert after_it == train(3, **SMALL, optimizer=optimizer, lr=0.01)["losses"][-1]
    names = run(found["python"])
    one = np.array([[0.3, 0.1]], np.float32), np.ones((1, 1), np.float32)
    parameters = dict(names["net"].named_parameters()).values()
    for line, p in zip(told, parameters, strict=True):
        expected = np.atleast_2d(p.numpy())
        np.testing.assert_allclose(line["values"], expected, rtol=1e-3, atol=1e-5)
    names["trainer"].fit(*one, epochs=1, progress=False)
    for line, p in zip(told, parameters, strict=True):
        expected = np.atleast_2d(p.numpy())
        np.testing.assert_allclose(line["after"], expected, rtol=1e-3, atol=1e-5)
        assert line["after"] != line["values"]


def test_layers_say_what_the_library_says(train, page):
    state = SMALL | {"layers": [8, 6], "batch": 200}
    found = train(3, **state, activation="relu", feedback=True)
    names = run(found["python"])
    net, x = names["net"], names["x"][names["train"]]
    layers = page.evaluate("playground.health.look()")
    reports = list(gn.nn.dead_units(net, x).values())
    for layer, report in zip(layers, reports, strict=False):
        assert layer["dead"] == report.dead.tolist()
        np.testing.assert_allclose(layer["slopes"], report.slope, rtol=1e-5)
    angles = [layer.alignment() for layer in net.layers if hasattr(layer, "alignment")]
    np.testing.assert_allclose([layer["angle"] for layer in layers[1:]], angles, rtol=1e-5)
    norms = list(gn.nn.gradient_norms(net).values())
    np.testing.assert_allclose([layer["norm"] for layer in layers], norms, rtol=1e-3)


def test_masks_are_those_of_the_last_step(train, page):
    train(1, **SMALL | {"layers": [8]}, dropout="0.5", activation="identity")
    masks = page.evaluate("playground.masks.look()")[0]
    z, y = page.evaluate(DROPPED)
    assert masks == [b == 0 for b in y]
    assert 0 < sum(masks) < len(masks)
    assert any(z)


def test_a_training_that_diverges_says_so(page):
    page.evaluate("values => playground.change(values)", FAST | {"layers": [8] * 3})
    page.get_by_role("button", name="Train", exact=True).click()
    page.wait_for_function("playground.training.broken")
    page.locator("#status.notice").wait_for()
    assert "not finite" in page.locator("#status").text_content()
    assert page.get_by_role("button", name="Train", exact=True).is_visible()


def test_the_keyboard_is_enough(page):
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "run"
    page.keyboard.press("Enter")
    page.wait_for_function("playground.training.updates > 20")
    page.keyboard.press("Enter")
    page.evaluate("playground.change({ set: 'drawn', points: [] })")
    surface = page.locator("#surface")
    surface.focus()
    page.keyboard.press("Space")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.get_by_label("class 0").check()
    surface.focus()
    page.keyboard.press("Space")
    assert state_of(page)["points"] == [[0, 0, 1], [0.15, 0, 0]]


def test_points_are_drawn_with_the_mouse(page):
    page.evaluate("playground.change({ set: 'drawn', points: [] })")
    assert "draw some" in page.locator("#status").text_content()
    assert page.get_by_role("button", name="Train", exact=True).is_disabled()
    box = page.locator("#surface").bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.75, box["y"] + box["height"] * 0.25)
    ((x1, x2, label),) = state_of(page)["points"]
    assert (x1, x2, label) == (pytest.approx(0.7, abs=0.02), pytest.approx(0.7, abs=0.02), 1)
    assert page.get_by_role("button", name="Train", exact=True).is_enabled()


OVERLAPS = """() => {
  const buttons = document.querySelectorAll("#graph button");
  const boxes = Array.from(buttons, (button) => button.getBoundingClientRect());
  const edge = document.getElementById("graph").getBoundingClientRect();
  const beside = (a, b) => a.right <= b.left + 0.5 || b.right <= a.left + 0.5;
  const apart = (a, b) => beside(a, b) || a.bottom <= b.top + 0.5 || b.bottom <= a.top + 0.5;
  const out = boxes.filter((a) => a.left < edge.left - 0.5 || a.right > edge.right + 0.5);
  return out.length + boxes.filter((a, k) => boxes.some((b, j) => j < k && !apart(a, b))).length;
}"""


@pytest.mark.parametrize("width", [360, 390, 1280])
def test_no_button_of_the_network_is_on_another(width, page):
    page.set_viewport_size({"width": width, "height": 800})
    for layers in ([8] * 5, [3], []):
        page.evaluate("layers => playground.change({ layers, map: 'cubic' })", layers)
        assert page.evaluate(OVERLAPS) == 0


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_nothing_sticks_out(width, page):
    page.set_viewport_size({"width": width, "height": 800})
    for name in ("spiral", "bumps", "patterns", "drawn"):
        values = {"set": name, "layers": [8] * 5, "points": [[0, 0, 1]]}
        page.evaluate("values => playground.change(values)", values)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", ["spiral", "bumps", "patterns", "drawn"])
def test_axe_has_no_serious_findings(name, width, page):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page.set_viewport_size({"width": width, "height": 800})
    values = {"set": name, "points": [[0, 0, 1], [1, 1, 0]], "dropout": "0.2", "feedback": True}
    page.evaluate("values => playground.change(values)", values)
    page.evaluate("playground.once(() => playground.training.epochs(2))")
    found = axe.run(page).response["violations"]
    serious = [v for v in found if v["impact"] in ("serious", "critical", "moderate")]
    assert not serious, json.dumps([(v["id"], v["nodes"][0]["html"]) for v in serious])


def test_memory_may_grow_at_any_moment(page):
    """Views of the memory end when it grows, so nothing may hold one while more is taken."""
    asked = """() => {
      const { machine } = playground, found = [];
      for (let gap = 0; gap < 40000; gap += 400) {
        machine.base = machine.aligned(machine.memory.buffer.byteLength - (1 << 20) - gap);
        playground.change({ layers: [8, 8], dropout: "0.2", feedback: true });
        found.push(playground.training.epochs(1)[0]);
      }
      return found;
    }"""
    found = page.evaluate(asked)
    assert len(found) == 100
    assert len(set(found)) == 1
