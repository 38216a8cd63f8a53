// The tables: what happens in each layer, and one example step by step.

import { digits, written } from "./steps.js";

function cell(kind, text, name = "") {
  const made = document.createElement(kind);
  made.textContent = text;
  if (name) made.className = name;
  return made;
}

// Fills the table of layers.
export function fillHealth(body, found, layers) {
  const largest = Math.max(...found.map(({ norm }) => norm), 1e-30);
  const rows = found.map(({ norm, slopes, dead, angle }, k) => {
    const row = document.createElement("tr");
    const title = cell("th", layers[k].hidden ? `layer ${k + 1}` : "output");
    title.scope = "row";
    const size = cell("td", "");
    const bar = cell("span", "", "bar-of");
    bar.style.width = `${Math.round((90 * norm) / largest)}px`;
    size.append(bar, digits(norm));
    const slope = slopes ? digits(slopes.reduce((sum, by) => sum + by, 0) / slopes.length) : "–";
    const gone = slopes ? `${dead.filter(Boolean).length} of ${dead.length}` : "–";
    row.append(
      title,
      size,
      cell("td", slope),
      cell("td", gone),
      cell("td", angle === null ? "–" : `${angle.toFixed(1)}°`, "angle"),
    );
    return row;
  });
  body.replaceChildren(...rows);
}

// Fills the tables of one example.
export function fillTrace(bodies, found) {
  bodies.forEach((body, k) => body.replaceChildren(...found[k].map(line)));
}

function line({ name, formula, values, body, after }) {
  const row = document.createElement("tr");
  const title = cell("th", name);
  title.scope = "row";
  const how = cell("td", "", "how");
  if (formula) how.append(cell("span", formula));
  if (body) how.append(cell("small", body));
  how.append(cell("pre", written(values)));
  if (after) how.append(cell("span", "becomes", "becomes"), cell("pre", written(after)));
  row.append(title, how);
  return row;
}
