// The points of a data set, their features, and the places where the page looks at a network.

import { isSplit } from "./python.js";
import { key } from "./state.js";

const SIDE = 48; // places of a map in each direction
const ALONG = 160; // places on a line
const WINDOW = [-1.4, 1.4, -1.4, 1.4];

export class Data {
  constructor(state, catalogue, machine) {
    const set = catalogue.sets[state.set];
    const found = set ? unpacked(set.points[key(state.noise, state.draw)]) : drawn(state.points);
    const { x, y, rows, inputs } = found;
    Object.assign(this, { x, y, rows, inputs, raw: inputs });
    this.window = set ? set.window : WINDOW;
    this.task = set ? set.task : "classes";
    this.kind = inputs === 1 ? "line" : inputs === 2 ? "plane" : "strip";
    this.split = isSplit(state);
    this.map = this.kind === "plane" ? catalogue.maps[state.map] : null;
    this.signs = this.task === "classes" && catalogue.losses[state.loss].signs;
    this.machine = machine;
    this.names = this.featureNames();
  }

  isTest(row) {
    return this.split && row % 3 === 2;
  }

  target(row) {
    return this.signs ? 2 * this.y[row] - 1 : this.y[row];
  }

  // Returns the rows of the training or the test as a table of features and targets.
  table(test) {
    const rows = Array.from({ length: this.rows }, (_, k) => k).filter(
      (k) => this.isTest(k) === test,
    );
    const x = new Float32Array(rows.length * this.raw);
    rows.forEach((row, k) =>
      x.set(this.x.subarray(row * this.raw, (row + 1) * this.raw), k * this.raw),
    );
    const t = Float32Array.from(rows, (row) => this.target(row));
    return { x: this.features(x), t, rows: rows.length, inputs: this.names.length, numbers: rows };
  }

  // Returns the features of the places that are shown.
  places() {
    const [left, right, bottom, top] = this.window;
    if (this.kind === "strip")
      return { x: this.features(this.x), rows: this.rows, columns: this.rows / 2 };
    if (this.kind === "line") {
      const at = (k) => left + ((right - left) * k) / (ALONG - 1);
      return {
        x: Float32Array.from({ length: ALONG }, (_, k) => at(k)),
        rows: ALONG,
        columns: ALONG,
      };
    }
    const x = new Float32Array(2 * SIDE * SIDE);
    for (let i = 0; i < SIDE; ++i) {
      for (let j = 0; j < SIDE; ++j) {
        x[2 * (i * SIDE + j)] = left + ((right - left) * (j + 0.5)) / SIDE;
        x[2 * (i * SIDE + j) + 1] = top - ((top - bottom) * (i + 0.5)) / SIDE;
      }
    }
    return { x: this.features(x), rows: SIDE * SIDE, columns: SIDE };
  }

  // Applies the feature map to rows of x1, x2. A product of two floats, rounded once, has the bits
  // of gpunn's product.
  features(x) {
    const { map } = this;
    if (!map || !map.layer) return x;
    const rows = x.length / 2;
    if (map.weight) return this.random(x, rows);
    const found = new Float32Array(rows * map.size);
    for (let row = 0; row < rows; ++row) {
      const pair = [x[2 * row], x[2 * row + 1]];
      const made = map.factors
        ? map.factors.map((factors) =>
            factors.reduceRight(
              (by, k) => (by === null ? pair[k] : Math.fround(pair[k] * by)),
              null,
            ),
          )
        : [1, Math.abs(Math.fround(pair[0] - pair[1]))];
      found.set(made, row * map.size);
    }
    return found;
  }

  random(x, rows) {
    const { map, machine } = this;
    const mark = machine.mark();
    const [input, w] = [
      { at: machine.place(x), rows, columns: 2 },
      { at: machine.place(floats(map.weight)), rows: 2, columns: map.size },
    ];
    const out = { at: machine.take(4 * rows * map.size), rows, columns: map.size };
    const none = machine.take(4 * map.size);
    machine.run(machine.product(input, w, out));
    machine.run(machine.loop("relu_bias", [none, out.at], rows * map.size, map.size));
    const found = machine.floats(out.at, rows * map.size).slice();
    machine.release(mark);
    return found;
  }

  featureNames() {
    const { map } = this;
    const x = (k) => `x${this.raw > 1 ? subscript(k + 1) : ""}`;
    if (!map || !map.layer) return Array.from({ length: this.raw }, (_, k) => x(k));
    const power = (n) => (n > 1 ? "⁰¹²³"[n] : "");
    const product = (factors) =>
      [...new Set(factors)]
        .map((k) => x(k) + power(factors.filter((f) => f === k).length))
        .join("");
    if (map.factors) return map.factors.map(product);
    if (map.weight) return Array.from({ length: map.size }, (_, k) => `r${subscript(k + 1)}`);
    return ["1", "|x₁−x₂|"];
  }
}

export function subscript(number) {
  return String(number).replace(/\d/g, (digit) => "₀₁₂₃₄₅₆₇₈₉"[digit]);
}

function unpacked({ rows, inputs, x, y }) {
  return { rows, inputs, x: floats(x), y: floats(y) };
}

function drawn(points) {
  const x = Float32Array.from(points.flatMap(([a, b]) => [a, b]));
  return {
    rows: points.length,
    inputs: 2,
    x,
    y: Float32Array.from(points, ([, , label]) => label),
  };
}

export function floats(text) {
  return new Float32Array(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);
}
