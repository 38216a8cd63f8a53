// The page: its controls, the loop that trains and paints, and what it shows.

import { Data } from "./data.js";
import { Graph } from "./graph.js";
import { Health, Masks } from "./health.js";
import { Machine } from "./machine.js";
import { paintLosses } from "./paint.js";
import { program } from "./python.js";
import { format, LIMITS, parse } from "./state.js";
import { digits, Steps } from "./steps.js";
import { Surface } from "./surface.js";
import { fillControls, readControls, showControls } from "./controls.js";
import { fillHealth, fillTrace } from "./tables.js";
import { Training } from "./training.js";

const FRAME_MS = 10; // of training in a frame, if it should be fast
const SLOW_MS = 250; // between two looks at what changes slowly
const SPOKEN_MS = 5000; // between two messages to a screen reader
const TRACES = ["forward", "backward", "update"];
const $ = (name) => document.getElementById(name);

class App {
  constructor() {
    this.catalogue = JSON.parse($("catalogue").textContent);
    const bytes = Uint8Array.from(atob($("kernels").textContent.trim()), (letter) =>
      letter.charCodeAt(0),
    );
    this.machine = new Machine(bytes, this.catalogue.kernels);
    this.state = parse(location.hash, this.catalogue);
    this.running = false;
    this.looked = null;
    this.graph = new Graph($("graph"), {
      choose: (place) => {
        this.looked = place;
        this.paint();
      },
      resize: (layer, by) => this.resize(layer, by),
    });
    this.surface = new Surface($("surface"), (point) =>
      this.change({ points: [...this.state.points, point] }),
    );
    fillControls(this.catalogue);
    this.listen();
    this.start();
  }

  listen() {
    $("run").addEventListener("click", () => this.toggle());
    $("step").addEventListener("click", () => this.once(() => this.training.advance()));
    $("epoch").addEventListener("click", () => this.once(() => this.training.epochs(1)));
    $("reset").addEventListener("click", () => this.start());
    $("reseed").addEventListener("click", () => this.change({ seed: this.state.seed + 1 }));
    $("fewer").addEventListener("click", () =>
      this.change({ layers: this.state.layers.slice(0, -1) }),
    );
    $("more").addEventListener("click", () =>
      this.change({ layers: [...this.state.layers, this.state.layers.at(-1) ?? 4] }),
    );
    $("clear").addEventListener("click", () => this.change({ points: [] }));
    $("next").addEventListener("click", () => {
      $("example").value = (Number($("example").value) % this.train.rows) + 1;
      this.trace();
    });
    $("example").addEventListener("change", () => this.trace());
    $("bands").addEventListener("change", () => this.paint());
    $("copy").addEventListener("click", () => this.copy());
    document.querySelector(".options").addEventListener("change", (event) => {
      if (event.target.name !== "pen")
        this.change(readControls(this.state, this.catalogue, event.target.id));
    });
    window.addEventListener("hashchange", () => {
      if (location.hash.slice(1) === format(this.state)) return;
      this.state = parse(location.hash, this.catalogue);
      this.start();
    });
    window.addEventListener("resize", () => this.paint());
  }

  change(values) {
    const wanted = { ...this.state, ...values };
    this.state = parse(format(wanted), this.catalogue);
    this.start();
  }

  resize(layer, by) {
    const layers = this.state.layers.map((units, k) => (k === layer ? units + by : units));
    this.change({ layers });
    document.querySelector(`[data-key="${layer + 1} ${by}"]:not(:disabled)`)?.focus();
  }

  // Begins a new training with the present state.
  start() {
    const { machine, catalogue, state } = this;
    history.replaceState(null, "", `#${format(state)}`);
    machine.release((machine.base ??= machine.mark()));
    this.data = new Data(state, catalogue, machine);
    this.train = this.data.table(false);
    const test = this.data.table(true);
    this.empty = this.train.rows === 0;
    if (this.empty) this.running = false;
    this.training = this.empty ? null : new Training(machine, catalogue, state, this.train, test);
    this.graph.build(this.data.names, state.layers, LIMITS, this.data.kind);
    if (!this.empty) this.watch();
    showControls(state, this.data, catalogue);
    $("health").classList.toggle("fed", state.feedback);
    for (const name of ["run", "step", "epoch"]) $(name).disabled = this.empty;
    $("example").max = this.train.rows;
    if (Number($("example").value) > this.train.rows) $("example").value = 1;
    this.surface.show(this.data, state.set === "drawn");
    this.painted = 0;
    this.paint(true);
    this.label();
    this.say(
      this.empty ? "No points yet: draw some in the large map." : "New weights, not trained yet.",
    );
  }

  // Makes the calls that look at the network while it trains.
  watch() {
    const { machine, training, catalogue } = this;
    const { network } = training;
    const { x, rows, columns } = this.data.places();
    this.grid = { rows: rows / columns, columns };
    this.places = { at: machine.place(x), rows, columns: this.data.names.length };
    this.shown = network.evaluation(this.places, null);
    this.health = new Health(machine, network, training.evaluated);
    this.masks = network.rate ? new Masks(machine, network, training.whole) : null;
    this.steps = new Steps(machine, network, catalogue);
  }

  toggle() {
    this.running = !this.running;
    this.label();
    if (this.running) requestAnimationFrame(() => this.frame());
    else this.spoken();
  }

  label() {
    $("run").textContent = this.running ? "Pause" : "Train";
  }

  once(work) {
    this.running = false;
    this.label();
    work();
    this.paint(true);
    this.spoken();
  }

  frame() {
    if (!this.running) return;
    const [wanted, begun] = [Number($("speed").value), performance.now()];
    for (let k = 0; wanted ? k < wanted : performance.now() - begun < FRAME_MS; ++k)
      this.training.advance();
    if (this.training.broken) this.running = false;
    this.paint();
    if (this.running) requestAnimationFrame(() => this.frame());
    else {
      this.label();
      this.spoken();
    }
  }

  // Paints everything; what changes slowly, such as tables, only now and then.
  paint(whole = false) {
    if (this.empty) return this.blank();
    const now = performance.now();
    this.machine.run(this.shown.call);
    const { network, losses, tests } = this.training;
    this.shown.passed.forEach(({ y }, k) => this.units(k + 1, y.at, y.columns));
    this.graph.showWeights((layer) => {
      const { at, rows, columns } = network.layers[layer].w;
      return this.machine.floats(at, rows * columns);
    });
    $("output-title").textContent = this.looked ? `Map of ${this.looked.label}` : "Output";
    this.surface.paint(
      this.looked ? this.column(this.looked) : this.column(null),
      this.grid,
      $("bands").checked && !this.looked,
      this.looked,
    );
    if (whole || now - this.painted > SLOW_MS) {
      this.painted = now;
      this.places && this.units(0, this.places.at, this.places.columns);
      paintLosses($("curve"), losses, tests);
      this.numbers();
      const layers = this.health.look();
      fillHealth($("health").tBodies[0], layers, network.layers);
      const masks = this.masks && this.training.updates ? this.masks.look() : [];
      layers.slice(0, -1).forEach((layer, k) => this.graph.mark(k + 1, layer.dead, masks[k] ?? []));
      if (!this.running) this.trace();
      if (!this.running || now - (this.told ?? 0) > SPOKEN_MS) this.python();
      if (this.running && now - (this.told ?? 0) > SPOKEN_MS) this.spoken();
    }
  }

  blank() {
    paintLosses($("curve"), [], []);
    this.surface.paint(null, null, false, null);
    for (const name of ["train-loss", "test-loss", "accuracy"]) $(name).textContent = "–";
    for (const name of ["epochs", "steps"]) $(name).textContent = "0";
    for (const name of ["health", ...TRACES]) $(name).tBodies[0].replaceChildren();
    $("python").textContent = "";
  }

  units(layer, at, columns) {
    const { rows } = this.places;
    const all = this.machine.floats(at, rows * columns);
    for (let unit = 0; unit < columns; ++unit) {
      const values = Float32Array.from({ length: rows }, (_, k) => all[k * columns + unit]);
      this.graph.showUnit(layer, unit, values, this.grid.rows, this.grid.columns);
    }
  }

  // Returns what a unit, or the output, has at each place.
  column(place) {
    const { rows } = this.places;
    const layer = place ? place.layer : this.shown.passed.length;
    const { at, columns } = layer ? this.shown.passed[layer - 1].y : this.places;
    const all = this.machine.floats(at, rows * columns);
    return Float32Array.from(
      { length: rows },
      (_, k) => all[k * columns + (place ? place.unit : 0)],
    );
  }

  // Returns the fraction of the training examples on the right side, or null for numbers.
  accuracy() {
    if (this.data.task !== "classes") return null;
    const { training, train, data } = this;
    training.lossOf(training.evaluated);
    const outputs = training.outputs(training.evaluated);
    return (
      train.numbers.filter((row, k) => outputs[k] > 0 === data.y[row] > 0.5).length / train.rows
    );
  }

  numbers() {
    const { training } = this;
    $("epochs").textContent = training.losses.length.toLocaleString("en");
    $("steps").textContent = training.updates.toLocaleString("en");
    const present = training.losses.at(-1) ?? training.lossOf(training.evaluated);
    $("train-loss").textContent = training.broken ? "not finite" : digits(present);
    $("test-loss").textContent = training.tested ? digits(training.lossOf(training.tested)) : "–";
    const share = this.accuracy();
    $("accuracy").textContent =
      share === null ? "–" : `${(100 * share).toFixed(share === 1 ? 0 : 1)} %`;
  }

  spoken() {
    this.told = performance.now();
    const { training } = this;
    if (training.broken) {
      this.say(
        `Step ${training.broken} has a loss that is not finite, so the training stopped. Use a smaller learning rate.`,
        true,
      );
      return;
    }
    const share = this.accuracy();
    const right = share === null ? "" : `, ${(100 * share).toFixed(0)} % correct`;
    this.say(
      `${this.running ? "Training" : "Paused"}: epoch ${training.losses.length}, loss ${$("train-loss").textContent}${right}.`,
    );
  }

  say(text, loud = false) {
    $("status").textContent = text;
    $("status").className = loud || this.empty ? "notice" : "sr";
  }

  trace() {
    const row =
      Math.min(Math.max(1, Math.round(Number($("example").value)) || 1), this.train.rows) - 1;
    const { x, t, inputs } = this.train;
    const found = this.steps.of(x.subarray(row * inputs, (row + 1) * inputs), t[row]);
    found.forward = found.forward.filter(({ name }) => !/^[Wb]\d/.test(name)); // they are in the update
    fillTrace(
      TRACES.map((name) => $(name).tBodies[0]),
      TRACES.map((name) => found[name]),
    );
    $("rule").textContent = this.training.network.optimizer.body;
  }

  python() {
    $("python").textContent = program(
      this.state,
      this.catalogue,
      Math.max(1, this.training.losses.length),
    );
  }

  async copy() {
    this.python();
    await navigator.clipboard.writeText($("python").textContent);
    $("copy").textContent = "Copied";
    setTimeout(() => ($("copy").textContent = "Copy"), 1500);
  }
}

try {
  window.playground = new App();
} catch (error) {
  $("status").className = "notice";
  $("status").textContent =
    `The page cannot start: ${error.message}. It needs WebAssembly with SIMD.`;
  throw error;
}
