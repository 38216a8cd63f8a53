"""Write a model as one HTML page with a form that predicts."""

from __future__ import annotations

from html import escape

from gpunn.interop.source.described import Cell, Described
from gpunn.interop.source.javascript import script

MOST_FIELDS = 100
"""The most columns that get a field each. A longer row is pasted as one text."""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}</title>
<style>
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 46rem; }}
body {{ margin: 2rem auto; padding: 0 1rem; }}
form {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: 1rem; }}
label {{ display: block; overflow-wrap: anywhere; }}
input, select, textarea {{ box-sizing: border-box; width: 100%; font: inherit; padding: 0.3rem; }}
form > .whole {{ grid-column: 1 / -1; }}
td {{ padding: 0.1rem 1rem 0.1rem 0; font-variant-numeric: tabular-nums; }}
</style>
</head>
<body>
<h1>{name}</h1>
<form id="row">
{fields}
</form>
<h2>Answer</h2>
<div id="answer" role="status"></div>
<script>
{script}
const gpunnModel = {name};
{{
const form = document.getElementById("row");
const show = () => {{
  const texts = {texts};
  const x = {row};
  const answer = document.getElementById("answer");
  const missing = x.filter((v) => typeof v === "number" && Number.isNaN(v)).length;
  if (missing || x.length !== gpunnModel.inputs) {{
    answer.textContent = `Enter ${{gpunnModel.inputs}} numbers.`;
    return;
  }}
  {answer}
}};
const table = (rows) => {{
  const made = document.createElement("table");
  for (const row of rows) {{
    const line = made.insertRow();
    for (const cell of row) line.insertCell().textContent = cell;
  }}
  return made;
}};
form.addEventListener("input", show);
form.addEventListener("submit", (event) => event.preventDefault());
show();
}}
</script>
</body>
</html>
"""
NUMBERS = """const y = gpunnModel.predict(x);
  answer.replaceChildren(table(y.map((v, k) => [`output ${k + 1}`, v.toPrecision(6)])));"""
CLASSES = """const found = gpunnModel.classify(x), p = gpunnModel.probabilities(x);
  const title = document.createElement("p");
  title.textContent = found === null ? "No class: the scores are not finite." : found;
  const order = p.map((v, k) => k).sort((a, b) => p[b] - p[a]);
  answer.replaceChildren(title, table(
    order.map((k) => [gpunnModel.classes[k], `${(100 * p[k]).toFixed(1)} %`])));"""


_FIELDS = "Array.from({{length: {}}}, (_, k) => form.elements[`x${{k}}`].value)"


def _field(number: int, cell: Cell) -> str:
    """Return the field for a column of a table. An empty one is a missing cell."""
    name = escape(cell.name)
    if cell.levels is None:
        value = f'value="{cell.middle:.6g}" inputmode="decimal" autocomplete="off"'
        return f'<label>{name}\n<input name="x{number}" {value}></label>'
    options = "".join(
        f'<option value="{escape(each)}">{escape(each) or "(missing or other)"}</option>'
        for each in cell.levels
    )
    return f'<label>{name}\n<select name="x{number}">{options}</select></label>'


def page(model: Described) -> str:
    """Return a model as one HTML page with a form that predicts."""
    row = 'texts.map((text) => text.trim() === "" ? NaN : Number(text))'
    if model.cells is not None:
        row = "texts"
        fields = "\n".join(_field(k, cell) for k, cell in enumerate(model.cells))
        texts = _FIELDS.format(model.inputs)
    elif model.inputs > MOST_FIELDS:
        fields = (
            f'<label class="whole">{model.inputs} numbers with commas between them\n'
            '<textarea name="row" rows="8" autocomplete="off"></textarea></label>'
        )
        texts = "form.elements.row.value.trim().split(/[\\s,;]+/)"
    else:
        names = model.features or [f"column {k + 1}" for k in range(model.inputs)]
        fields = "\n".join(
            f'<label>{escape(name)}\n<input name="x{k}" inputmode="decimal" value="0" '
            'autocomplete="off"></label>'
            for k, name in enumerate(names)
        )
        texts = _FIELDS.format(model.inputs)
    answer = CLASSES if model.classes else NUMBERS
    return PAGE.format(
        name=model.name, fields=fields, script=script(model), texts=texts, row=row, answer=answer
    )
