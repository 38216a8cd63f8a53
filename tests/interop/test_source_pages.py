"""A model as an HTML page predicts, without a browser and in one."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from gpunn import nn
from gpunn.interop import to_source
from gpunn.sklearn import TableClassifier
from tests.netcases import randomized
from tests.sourcecases import NAMES, done, rows, tool

BROWSER = """
const text = require("fs").readFileSync("net.html", "utf-8");
const made = (tag) => ({
  tag, textContent: "", children: [], value: "0", listeners: {},
  replaceChildren(...each) { this.textContent = ""; this.children = each; },
  insertRow() { const row = made("tr"); this.children.push(row); return row; },
  insertCell() { const cell = made("td"); this.children.push(cell); return cell; },
  addEventListener(name, f) { this.listeners[name] = f; },
});
const known = { row: made("form"), answer: made("div") };
known.row.elements = {};
for (const [, name] of text.matchAll(/<(?:input|textarea) name="(\\w+)"/g))
  known.row.elements[name] = made("input");
globalThis.document = { createElement: made, getElementById: (name) => known[name] };
(0, eval)(text.match(/<script>([^]*)<\\/script>/)[1]);
const told = (e) => e.textContent || e.children.map(told).join("|");
const first = told(known.answer);
const values = JSON.parse(require("fs").readFileSync(0, "utf-8"));
const names = Object.keys(known.row.elements);
if (names.length === 1 && values.length > 1) known.row.elements[names[0]].value = values.join(", ");
else names.forEach((name, k) => { known.row.elements[name].value = String(values[k]); });
known.row.listeners.input();
console.log(JSON.stringify([first, told(known.answer)]));
"""


@pytest.mark.parametrize("width", [3, 150])
@pytest.mark.parametrize("stem", ["net", "form", "table", "answer"])
def test_a_page_predicts(width, stem, tmp_path):
    net = randomized(nn.Sequential(nn.Linear(width, 3), "tanh", nn.Linear(3, 3)))
    x = rows(1, width)
    features = [f'"<b>" & {k}' for k in range(width)]
    text = to_source(net, tmp_path / f"{stem}.html", classes=NAMES, features=features)
    assert "<b>" not in text
    assert text.count("</script>") == 1
    (tmp_path / "net.html").write_text(text)
    (tmp_path / "browser.js").write_text(BROWSER)
    given = str(x[0].tolist()).encode()
    first, then = json.loads(done([tool("node"), "browser.js"], tmp_path, given))
    scores = net.predict(x)[0].astype(np.float64)
    powers = np.exp(scores - scores.max())
    order, shares = np.argsort(-scores), 100 * powers / powers.sum()
    lines = "|".join(f"{NAMES[k]}|{shares[k]:.1f} %" for k in order)
    assert then == f"{NAMES[order[0]]}|{lines}"
    assert first != then
    numbers = to_source(net, target="html")
    (tmp_path / "net.html").write_text(numbers)
    _, then = json.loads(done([tool("node"), "browser.js"], tmp_path, given))
    found = [float(each) for each in then.split("|")[1::2]]
    np.testing.assert_allclose(found, scores, rtol=1e-5, atol=1e-6)


# in a browser -----------------------------------------------------------------------------------


def shown_classes(tab):
    """The class that a page shows, and the percentages of the classes by their names."""
    lines = tab.locator("#answer tr").all()
    pairs = [line.locator("td").all_text_contents() for line in lines]
    shares = {name: float(share.removesuffix(" %")) for name, share in pairs}
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    return tab.locator("#answer p").text_content(), shares


def fill(tab, x):
    fields = tab.locator("form input, form textarea").all()
    texts = [repr(float(each)) for each in x]
    texts = texts if len(fields) == len(texts) else [", ".join(texts)]
    for field, text in zip(fields, texts, strict=True):
        field.fill(text)


def percentages(scores):
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return 100 * powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("width", [1, 3, 150])
def test_chromium_shows_what_predict_says(width, tab, tmp_path):
    net, x = randomized(nn.Sequential(nn.Linear(width, 8, "gelu"), nn.Linear(8, 3))), rows(4, width)
    features = [f'"><script>throw 1</script> & é {k}' for k in range(width)]
    to_source(net, tmp_path / "a page.html", classes=NAMES, features=features)
    tab.goto((tmp_path / "a page.html").as_uri())
    for row, best, shares in zip(x, net.classify(x), percentages(net.predict(x)), strict=True):
        fill(tab, row)
        found, told = shown_classes(tab)
        assert found == NAMES[best]
        np.testing.assert_allclose([told[name] for name in NAMES], shares, atol=0.0501)
    if width == 3:
        assert tab.get_by_label(features[1]).input_value() == repr(float(x[-1, 1]))


def test_chromium_shows_numbers_and_says_what_is_missing(tab, tmp_path):
    net, x = randomized(nn.Sequential(nn.Linear(2, 4, "tanh"), nn.Linear(4, 1))), rows(1, 2)
    to_source(net, tmp_path / "net.html")
    tab.goto((tmp_path / "net.html").as_uri())
    fill(tab, x[0])
    (cells,) = (line.locator("td").all_text_contents() for line in tab.locator("#answer tr").all())
    assert float(cells[1]) == pytest.approx(float(net.predict(x)[0, 0]), rel=1e-5)
    for text in ("", "two", "1,5"):
        tab.locator("input").first.fill(text)
        assert tab.locator("#answer").text_content() == "Enter 2 numbers."
    to_source(net, tmp_path / "net.html", classes=["no", "yes"])
    tab.goto((tmp_path / "net.html").as_uri())
    tab.locator("input").first.fill("Infinity")
    assert shown_classes(tab)[0] in ("no", "yes")  # tanh of infinity is 1


def test_chromium_predicts_rows_of_a_table(tab, tmp_path):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "size": rng.normal(50, 9, 90),
            "town": rng.choice(["Bonn", "Köln", "</script>"], 90),
            "new": rng.random(90) < 0.5,
        }
    )
    options = {"epochs": 3, "folds": 2, "hidden_layer_sizes": (8,), "random_state": 0}
    fitted = TableClassifier(**options).fit(table, np.where(table["new"], "dear", "cheap"))
    to_source(fitted.model_, tmp_path / "homes.html", classes=fitted.classes_)
    tab.goto((tmp_path / "homes.html").as_uri())
    some = table.iloc[:4]
    for (_, row), shares in zip(some.iterrows(), fitted.predict_proba(some), strict=True):
        tab.get_by_label("size").fill(repr(float(row["size"])))
        tab.get_by_label("town").select_option(row["town"])
        tab.get_by_label("new").select_option(str(row["new"]))
        found, told = shown_classes(tab)
        assert found == fitted.classes_[shares.argmax()]
        np.testing.assert_allclose(
            [told[each] for each in fitted.classes_], 100 * shares, atol=0.06
        )


def test_pages_with_the_names_of_globals_of_chromium(tab, tmp_path):
    """No name of a property of the window hides what the page needs."""
    net = randomized(nn.Linear(2, 1))
    names = tab.evaluate(
        "Object.getOwnPropertyNames(window).filter((name) => /^[a-z]+$/.test(name))"
    )
    assert {"document", "name", "atob", "chrome"} <= set(names)
    for name in names:
        to_source(net, tmp_path / f"{name}.html")
        tab.goto((tmp_path / f"{name}.html").as_uri())
        told = tab.locator("#answer td").all_text_contents()
        assert float(told[1]) == pytest.approx(float(net.bias.numpy()[0]), rel=1e-5), name
