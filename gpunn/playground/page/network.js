// A network in the machine's memory, and the calls of a training step in gpunn's order.
//
// A step is a list of calls, as in a recorded step of `gpunn.Trainer`: gather, forward, loss,
// backward, penalty, guard, update. No call computes anything but a kernel of gpunn.

import { turned } from "./machine.js";

const PADDED = 16; // floats; a parameter starts at a cache line
const padded = (count) => Math.ceil(count / PADDED) * PADDED;

export class Network {
  // `config`: see `parse` in state.js. `inputs`: the number of features.
  constructor(machine, random, catalogue, config, inputs) {
    Object.assign(this, { machine, config, inputs });
    this.activation = catalogue.activations[config.activation];
    this.loss = catalogue.losses[config.loss];
    this.optimizer = catalogue.optimizers[config.optimizer];
    this.rate = catalogue.rates[config.dropout];
    this.sizes = [inputs, ...config.layers, 1];
    this.cells();
    this.parameters(random);
  }

  // Puts the numbers that calls share into memory.
  cells() {
    const { machine, config } = this;
    this.one = machine.place([1]);
    this.zero = machine.take(8);
    this.lr = machine.place([config.lr]);
    this.total = machine.take(8); // the sum of the losses of the epoch
    this.taken = machine.take(8); // the number of updates
    this.guard = ["go", "factor", "counted", "first", "count", "steps"].map(() => machine.take(8));
    this.counters = machine.take(8 * this.sizes.length); // the tick, then the draws of each stream
    this.increments = machine.take(8 * this.sizes.length);
    machine.integers(this.increments, this.sizes.length).fill(1n);
  }

  // Draws the initial weights. Streams are counted as gpunn.manual_seed does.
  parameters(random) {
    const { machine, config, sizes } = this;
    const shapes = sizes.slice(1).map((columns, k) => ({ rows: sizes[k], columns }));
    this.penalised = shapes.reduce((sum, s) => sum + padded(s.rows * s.columns), 0);
    this.size = this.penalised + shapes.reduce((sum, s) => sum + padded(s.columns), 0);
    [this.data, this.grad] = [machine.take(4 * this.size), machine.take(4 * this.size)];
    this.states = Array.from({ length: this.optimizer.states }, () => machine.take(4 * this.size));
    let [weight, bias, stream] = [0, 4 * this.penalised, 0];
    this.layers = shapes.map((shape, k) => {
      const hidden = k < shapes.length - 1;
      const feeds = config.feedback && k > 0;
      const gain = hidden ? this.activation.gain : "glorot";
      const draw = () => random.weights(shape.rows, shape.columns, gain, config.seed, ++stream);
      const w = { at: this.data + weight, ...shape };
      const drawn = draw(); // before a view of the memory, which may grow meanwhile
      machine.floats(w.at, drawn.length).set(drawn);
      const back = feeds ? { at: machine.place(draw()), ...shape } : w;
      if (hidden && this.rate) ++stream; // which its dropout layer uses up
      const layer = {
        ...{ w, back, hidden, bias: this.data + bias, feeds },
        ...{ gw: { at: this.grad + weight, ...shape }, gbias: this.grad + bias },
        dropout: hidden && this.rate ? { ...this.rate, stream: k + 1 } : null,
      };
      weight += 4 * padded(shape.rows * shape.columns);
      bias += 4 * padded(shape.columns);
      return layer;
    });
  }

  matrix(rows, columns) {
    return { at: this.machine.take(4 * rows * columns), rows, columns };
  }

  // Returns the calls of a forward pass, and what each layer has: {z, y, kept, words}.
  forward(x, training) {
    const { machine } = this;
    const calls = [];
    const passed = [];
    for (const layer of this.layers) {
      const [rows, columns] = [x.rows, layer.w.columns];
      const z = this.matrix(rows, columns);
      const { name, numbers, saves } = layer.hidden ? this.activation : IDENTITY;
      calls.push(machine.product(x, layer.w, z));
      const dropout = training ? layer.dropout : null;
      const twice = dropout ? ["x", "y"].includes(saves) : saves === "x";
      const y = twice ? this.matrix(rows, columns) : z;
      const bits = dropout ? this.bits(dropout, rows * columns) : null;
      if (bits) calls.push(bits.call);
      const kernel = `${name}_bias${bits ? "_dropout" : ""}`;
      const outs = twice ? [z.at, y.at] : [z.at];
      const args = [layer.bias, ...numbers, ...(bits ? bits.args : []), ...outs];
      calls.push(machine.loop(kernel, args, rows * columns, columns));
      passed.push({ layer, x, z, y, bits });
      x = y;
    }
    return { calls, passed, y: x };
  }

  // Returns the call that draws the bits of a dropout layer, and the kernels' arguments for them.
  bits({ width, threshold, scale, stream }, size) {
    const count = Math.ceil((size * width) / 64);
    const at = this.machine.take(8 * count);
    const counter = this.counters + 8 * stream;
    const call = this.machine.words(this.config.seed, stream, 0, counter, at, count);
    return { call, at, width, threshold, args: [at, width, threshold, scale] };
  }

  // Returns the call of the loss of y and the targets t, with its gradient by y.
  compare(y, t) {
    const { machine, loss } = this;
    const [count, gy] = [y.rows * y.columns, this.matrix(y.rows, y.columns)];
    const [each, total] = [machine.take(4 * count), machine.take(4)];
    const numbers = [count, 1 / count, ...loss.weights.map(() => this.one), ...loss.numbers];
    const args = [y.at, t.at, ...numbers, each, gy.at, total];
    return { call: machine.loop(loss.name, args, count), gy, each, total };
  }

  // Returns the calls of a backward pass. Each layer that `forward` passed gets {gy, gz, gx}.
  backward(passed, gy) {
    const { machine } = this;
    const calls = [];
    for (const at of [...passed].reverse()) {
      const { layer, x, z, bits } = at;
      const { name, numbers, saves } = layer.hidden ? this.activation : IDENTITY;
      let gz = gy;
      if (bits || saves) {
        gz = this.matrix(z.rows, z.columns);
        const kernel = `${name}_grad${bits ? "_dropout" : ""}`;
        const args = [gy.at, z.at, ...numbers, ...(bits ? bits.args : []), gz.at];
        calls.push(machine.loop(kernel, args, z.rows * z.columns));
      }
      let gx = null;
      if (layer !== this.layers[0]) {
        gx = this.matrix(x.rows, x.columns);
        calls.push(machine.product(gz, turned(layer.back), gx));
      }
      calls.push(machine.product(turned(x), gz, layer.gw), machine.columnSums(gz, layer.gbias));
      Object.assign(at, { gy, gz, gx });
      gy = gx;
    }
    return calls;
  }

  // Returns the calls of the penalties, and the address of the loss with them.
  penalties(loss) {
    const { machine, config } = this;
    const calls = [];
    const values = [
      [config.l1, 0],
      [0, config.l2],
    ]
      .filter(([l1, l2]) => l1 || l2)
      .map((by) => {
        const value = machine.take(4);
        const args = [this.data, this.one, ...by, this.grad, value];
        calls.push(machine.loop("penalty", args, this.penalised));
        return value;
      });
    if (!values.length) return { calls, value: loss };
    const add = (a, b) => {
      const sum = machine.take(4);
      calls.push(machine.loop("added", [a, b, sum], 1));
      return sum;
    };
    return { calls, value: add(loss, values.reduce(add)) };
  }

  // Returns the calls of an update, which a broken step skips. They add the loss of `rows` rows to the sum.
  update(loss, rows) {
    const { machine, optimizer, guard } = this;
    const squares = machine.take(4);
    const states = [this.data, ...this.states, this.taken];
    return [
      machine.loop("judged", [this.grad, loss, 0, rows, squares, ...guard, this.total], this.size),
      machine.loop(
        optimizer.kernel,
        [this.grad, guard[1], this.lr, ...optimizer.numbers, ...states],
        this.size,
      ),
    ];
  }

  // Returns a training step on `rows` rows of the table, as one call with its parts.
  step(x, t, index, known, tick, rows) {
    const { machine } = this;
    const [batch, targets] = [this.matrix(rows, x.columns), this.matrix(rows, 1)];
    const gather = machine.gather(x, t, index, known, tick, batch, targets);
    const forward = this.forward(batch, true);
    const loss = this.compare(forward.y, targets);
    const backward = this.backward(forward.passed, loss.gy);
    const penalty = this.penalties(loss.total);
    const calls = [
      ...[gather, ...forward.calls, loss.call, ...backward, ...penalty.calls],
      ...this.update(penalty.value, rows),
      machine.loop("advance", [this.increments, this.counters], this.sizes.length),
    ];
    return { calls, call: machine.chain(calls), passed: forward.passed, targets, rows };
  }

  // Returns an evaluation of a table as one call: the outputs, every layer, and the loss if t is given.
  evaluation(x, t) {
    const forward = this.forward(x, false);
    const loss = t ? this.compare(forward.y, t) : null;
    const calls = [...forward.calls, ...(loss ? [loss.call] : [])];
    return { call: this.machine.chain(calls), passed: forward.passed, y: forward.y, loss };
  }
}

const IDENTITY = { name: "identity", numbers: [], saves: "" };
