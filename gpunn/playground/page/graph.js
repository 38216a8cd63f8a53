// The picture of the network: a column for each layer, a map for each unit, a line for each weight.

import { paintLine, paintMap } from "./paint.js";

const UNIT = 40,
  GAP = 10,
  HEAD = 58,
  SMALL = 18,
  SMALL_GAP = 3; // pixels

export class Graph {
  // `choose(place)` is called when a unit is looked at: {layer, unit}, layer 0 for features; null ends.
  constructor(root, { choose, resize }) {
    Object.assign(this, { root, choose, resize });
    this.svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    this.svg.setAttribute("aria-hidden", "true");
    this.columns = document.createElement("div");
    this.columns.className = "columns";
    root.replaceChildren(this.svg, this.columns);
    new ResizeObserver(() => this.lines()).observe(root);
  }

  // Builds the picture anew. `names` are those of the features.
  build(names, layers, limits, kind) {
    this.kind = kind;
    this.units = [];
    const many = names.length > 9;
    const columns = [names, ...layers.map((n) => Array(n).fill("")), ["out"]];
    this.columns.replaceChildren(
      ...columns.map((units, k) => this.column(k, units, columns.length, limits, many && k === 0)),
    );
    this.weights = [];
    this.svg.replaceChildren();
    columns.slice(1).forEach((units, k) =>
      units.forEach((_, j) =>
        columns[k].forEach((_, i) => {
          const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
          this.svg.append(line);
          this.weights.push({ line, layer: k, i, j, columns: units.length });
        }),
      ),
    );
    const tallest = Math.max(
      ...columns.map((units, k) =>
        many && k === 0 ? units.length * (SMALL + SMALL_GAP) : units.length * (UNIT + GAP),
      ),
    );
    this.root.style.minHeight = `${HEAD + tallest}px`;
    this.lines();
  }

  column(k, units, count, limits, small) {
    const column = document.createElement("div");
    column.className = small ? "column small" : "column";
    const head = document.createElement("div");
    head.className = "head";
    const hidden = k > 0 && k < count - 1;
    const title = k === 0 ? "features" : hidden ? `layer ${k}` : "output";
    head.innerHTML = `<span>${title}</span>`;
    if (hidden) head.append(this.sizer(k, units.length, limits));
    column.append(head);
    this.units[k] = units.map((name, j) => {
      const unit = document.createElement("button");
      unit.type = "button";
      unit.className = "unit";
      const canvas = document.createElement("canvas");
      const label =
        name === "out" ? "the network" : name ? `feature ${name}` : `layer ${k}, unit ${j + 1}`;
      unit.setAttribute("aria-label", `Show ${label} in the large map`);
      unit.append(canvas);
      if (name && name !== "out") {
        const text = document.createElement("span");
        text.textContent = name;
        unit.append(text);
      }
      const place = { layer: k, unit: j, label };
      unit.addEventListener("pointerenter", () => this.choose(place));
      unit.addEventListener("focus", () => this.choose(place));
      unit.addEventListener("pointerleave", () => this.choose(null));
      unit.addEventListener("blur", () => this.choose(null));
      column.append(unit);
      return { unit, canvas };
    });
    return column;
  }

  sizer(k, size, limits) {
    const box = document.createElement("div");
    box.className = "sizer";
    const button = (text, by, label, off) => {
      const made = document.createElement("button");
      Object.assign(made, { type: "button", textContent: text, disabled: off });
      made.setAttribute("aria-label", label);
      made.dataset.key = `${k} ${by}`;
      made.addEventListener("click", () => this.resize(k - 1, by));
      return made;
    };
    const number = document.createElement("span");
    number.textContent = size;
    box.append(
      button("−", -1, `One unit fewer in layer ${k}`, size <= 1),
      number,
      button("+", 1, `One unit more in layer ${k}`, size >= limits.units),
    );
    return box;
  }

  // Places the lines between the units.
  lines() {
    if (!this.weights) return;
    const base = this.root.getBoundingClientRect();
    const middle = ({ unit }, side) => {
      const box = unit.getBoundingClientRect();
      return [box[side] - base.left, (box.top + box.bottom) / 2 - base.top];
    };
    this.svg.setAttribute("width", base.width);
    this.svg.setAttribute("height", this.root.scrollHeight);
    for (const { line, layer, i, j } of this.weights) {
      const [x0, y0] = middle(this.units[layer][i], "right");
      const [x1, y1] = middle(this.units[layer + 1][j], "left");
      const bend = (x1 - x0) / 2;
      line.setAttribute("d", `M${x0} ${y0}C${x0 + bend} ${y0} ${x1 - bend} ${y1} ${x1} ${y1}`);
    }
  }

  // Shows weights as lines: blue for positive ones, orange for negative ones.
  showWeights(read) {
    const largest = Math.max(
      ...this.weights.map(({ layer, i, j, columns }) => Math.abs(read(layer)[i * columns + j])),
      1e-6,
    );
    for (const { line, layer, i, j, columns } of this.weights) {
      const w = read(layer)[i * columns + j];
      const by = Math.min(1, Math.abs(w) / largest);
      line.setAttribute("class", w < 0 ? "minus" : "plus");
      line.setAttribute("stroke-width", (0.4 + 3.6 * by).toFixed(2));
      line.setAttribute("stroke-opacity", (0.15 + 0.75 * by).toFixed(2));
    }
  }

  // Paints the map of a unit from what it has at each place.
  showUnit(layer, unit, values, rows, columns) {
    const { canvas } = this.units[layer][unit];
    let largest = 1e-6;
    for (const value of values) largest = Math.max(largest, Math.abs(value));
    if (this.kind === "line") paintLine(canvas, values, -1.1 * largest, 1.1 * largest);
    else paintMap(canvas, values, rows, columns, largest);
  }

  // Marks units: dead ones, and those that dropout left out of the last step.
  mark(layer, dead, dropped) {
    this.units[layer].forEach(({ unit }, j) => {
      unit.classList.toggle("dead", Boolean(dead[j]));
      unit.classList.toggle("dropped", Boolean(dropped[j]));
      const told = `${dead[j] ? ", dead" : ""}${dropped[j] ? ", dropped in the last step" : ""}`;
      unit.setAttribute("aria-label", `Show layer ${layer}, unit ${j + 1}${told} in the large map`);
    });
  }
}
