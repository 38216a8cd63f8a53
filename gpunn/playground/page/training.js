// A training: the loop of `gpunn.Trainer` over epochs and batches, with the same orders of rows.

import { Network } from "./network.js";
import { Random } from "./random.js";

export class Training {
  // `train` and `test`: {x, t, rows, inputs}, x and t as Float32Array; test may have no rows.
  constructor(machine, catalogue, config, train, test) {
    Object.assign(this, { machine, config, train });
    machine.release((machine.base ??= machine.mark()));
    this.random = new Random(machine);
    this.network = new Network(machine, this.random, catalogue, config, train.inputs);
    const table = ({ x, t, rows, inputs }) => [
      { at: machine.place(x), rows, columns: inputs },
      { at: machine.place(t), rows, columns: 1 },
    ];
    const [x, t] = table(train);
    this.size = Math.min(config.batch, train.rows);
    this.order = machine.take(8 * train.rows);
    const { counters, zero } = this.network;
    const step = (...given) => this.network.step(x, t, ...given);
    this.whole = step(this.order, train.rows, counters, this.size);
    const rest = train.rows % this.size;
    this.steps = Math.floor(train.rows / this.size);
    const last = this.order + 8 * this.steps * this.size;
    this.rest = rest ? step(last, rest, zero, rest) : null;
    this.evaluated = this.network.evaluation(x, t);
    this.tested = test.rows ? this.network.evaluation(...table(test)) : null;
    this.epoch = 0;
    this.at = 0; // the next batch of the epoch
    this.updates = 0;
    this.broken = 0; // the step that was not finite, counted from 1, or 0
    this.losses = []; // of every epoch, the mean over its batches, as in History
    this.tests = [];
  }

  begin() {
    const { machine, network, train } = this;
    this.epoch += 1;
    const order = this.random.permutation(train.rows, this.config.seed, this.epoch);
    const places = new Uint32Array(machine.memory.buffer, this.order, 2 * train.rows);
    for (let k = 0; k < order.length; ++k) places[2 * k] = order[k]; // the upper halves of the integers stay 0
    machine.integers(network.counters, 1)[0] = 0n;
    machine.double(network.total)[0] = 0;
  }

  // Makes one training step, and returns whether an epoch ended.
  advance() {
    const { machine, network } = this;
    if (this.broken) return false;
    if (this.at === 0) this.begin();
    const last = this.at === this.steps;
    this.recent = last ? this.rest : this.whole;
    machine.run(this.recent.call);
    this.at += 1;
    this.updates += 1;
    if (machine.integers(network.guard[3], 1)[0]) {
      this.broken = this.updates;
      return false;
    }
    if (this.at < this.steps + (this.rest ? 1 : 0)) return false;
    this.at = 0;
    this.losses.push(machine.double(network.total)[0] / this.train.rows);
    if (this.tested) this.tests.push(this.lossOf(this.tested));
    return true;
  }

  // Trains up to the end of a number of epochs.
  epochs(count) {
    const end = this.epoch + count;
    while (!this.broken && (this.epoch < end || this.at)) this.advance();
    return this.losses;
  }

  lossOf(evaluation) {
    this.machine.run(evaluation.call);
    const { total } = evaluation.loss;
    return (this.machine.floats(total, 1)[0] * evaluation.y.rows) / evaluation.y.rows;
  }

  outputs(evaluation) {
    const { at, rows } = evaluation.y;
    return this.machine.floats(at, rows);
  }
}
