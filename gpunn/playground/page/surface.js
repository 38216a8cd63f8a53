// The large map: the output of the network, or of the unit that is looked at, behind the points.

import { paintLine, paintMap, paintPoint, sharp } from "./paint.js";

const EDGE = 28; // pixels for the numbers at the axes

export class Surface {
  // `add([x1, x2, label])` is called with a new point.
  constructor(canvas, add) {
    Object.assign(this, { canvas, add, cursor: [0, 0] });
    this.layer = document.createElement("canvas");
    canvas.addEventListener("pointerdown", (event) => {
      if (!this.drawn) return;
      const box = canvas.getBoundingClientRect();
      this.put(
        this.place((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height),
      );
    });
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  show(data, drawn) {
    Object.assign(this, { data, drawn });
    this.canvas.classList.toggle("strip", data.kind === "strip");
    this.canvas.setAttribute("role", drawn ? "application" : "img");
    const what = {
      plane: "Map of the output over the two features",
      line: "Curve of the output over x",
      strip: "Output for each shift of the two patterns",
    }[data.kind];
    this.canvas.setAttribute(
      "aria-label",
      drawn ? "Drawing area: arrow keys move the cursor, space adds a point" : what,
    );
    document.getElementById("surface-legend").innerHTML = this.legend();
  }

  legend() {
    const { data } = this;
    const part = (kind, text) => `<span><i class="${kind}"></i> ${text}</span>`;
    const test = data.split ? part("dot hollow", "test") : "";
    if (data.kind === "line")
      return part("dot blue", "training") + test + part("line ink", "output");
    const names = data.kind === "strip" ? ["pattern B", "pattern A"] : ["class 1", "class 0"];
    const all = part("dot blue", names[0]) + part("dot orange", names[1]) + test;
    return data.kind === "strip" ? `${all}<span>a column for each shift</span>` : all;
  }

  key(event) {
    if (!this.drawn) return;
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    if (event.key === " ") this.put(this.cursor);
    else if (moves[event.key]) {
      this.cursor = this.cursor.map((at, k) =>
        Math.max(-1.35, Math.min(1.35, at + 0.05 * moves[event.key][k])),
      );
      this.repaint();
    } else return;
    event.preventDefault();
  }

  put([x1, x2]) {
    const label = Number(document.querySelector("[name=pen]:checked").value);
    this.add([Math.round(x1 * 100) / 100, Math.round(x2 * 100) / 100, label]);
  }

  place(across, down) {
    const [left, right, bottom, top] = this.data.window;
    return [left + (right - left) * across, top - (top - bottom) * down];
  }

  paint(values, grid, bands, looked) {
    this.last = [values, grid, bands, looked];
    const { canvas, data } = this;
    if (!values) sharp(canvas);
    else if (data.kind === "line") {
      this.curve(values, looked);
      if (!looked) {
        this.points();
        this.curve(values, looked, false);
      }
      return this.axes();
    } else {
      let scale = 1;
      if (looked) for (const value of values) scale = Math.max(scale, Math.abs(value));
      paintMap(canvas, values, grid.rows, grid.columns, scale, bands);
      if (data.kind === "strip") return this.rows();
    }
    this.points();
    this.axes();
  }

  repaint() {
    this.paint(...this.last);
  }

  curve(values, looked, fresh = true) {
    const [, , low, high] = this.data.window;
    if (!looked) {
      paintLine(this.canvas, values, low, high, fresh);
      return;
    }
    let largest = 1e-6;
    for (const value of values) largest = Math.max(largest, Math.abs(value));
    paintLine(this.canvas, values, -1.1 * largest, 1.1 * largest);
  }

  points() {
    const { canvas, data } = this;
    const context = canvas.getContext("2d");
    const [left, right, bottom, top] = data.window;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    for (const test of [true, false]) {
      for (let row = 0; row < data.rows; ++row) {
        if (data.isTest(row) !== test) continue;
        const [a, b] =
          data.raw === 1 ? [data.x[row], data.y[row]] : [data.x[2 * row], data.x[2 * row + 1]];
        const positive = data.task === "numbers" || data.y[row] > 0.5;
        const radius = data.rows < 10 ? 6 : 3.2;
        paintPoint(
          context,
          (width * (a - left)) / (right - left),
          (height * (top - b)) / (top - bottom),
          positive,
          test,
          radius,
        );
      }
    }
    if (this.drawn && document.activeElement === canvas) {
      const [x, y] = [
        (width * (this.cursor[0] - left)) / (right - left),
        (height * (top - this.cursor[1])) / (top - bottom),
      ];
      Object.assign(context, { strokeStyle: "#1d2430", lineWidth: 1.5 });
      context.strokeRect(x - 5, y - 5, 10, 10);
    }
  }

  // Writes the ends of the axes and their names.
  axes() {
    const { canvas, data } = this;
    const context = canvas.getContext("2d");
    const [left, right, bottom, top] = data.window;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    const names = data.kind === "line" ? ["x", "y"] : ["x₁", "x₂"];
    Object.assign(context, { font: "11px system-ui, sans-serif", textBaseline: "alphabetic" });
    const write = (text, x, y, align) => {
      context.textAlign = align;
      Object.assign(context, { strokeStyle: "#ffffffcc", lineWidth: 3, fillStyle: "#1d2430" });
      context.strokeText(text, x, y);
      context.fillText(text, x, y);
    };
    write(String(left), 5, height - 6, "left");
    write(names[0], width / 2, height - 6, "center");
    write(String(right), width - 5, height - 6, "right");
    write(String(top), 5, 14, "left");
    write(names[1], 5, height / 2, "left");
    write(String(bottom), 5, height - EDGE + 8, "left");
  }

  // Writes the classes at the rows of patterns.
  rows() {
    const { canvas } = this;
    const context = canvas.getContext("2d");
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    Object.assign(context, {
      font: "600 12px system-ui, sans-serif",
      textAlign: "left",
      strokeStyle: "#ffffffcc",
      lineWidth: 3,
      fillStyle: "#1d2430",
    });
    ["A", "B"].forEach((name, k) => {
      context.strokeText(name, 6, height * (0.25 + 0.5 * k) + 4);
      context.fillText(name, 6, height * (0.25 + 0.5 * k) + 4);
    });
    Object.assign(context, { strokeStyle: "#ffffff", lineWidth: 1 });
    for (let k = 1; k < 16; ++k) context.strokeRect((width * k) / 16, -1, 0.001, height + 2);
  }
}
