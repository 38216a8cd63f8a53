// Random numbers of gpunn: the words are computed by its own generator. What becomes of the words is
// written as in `gpunn/backends/random.py`, where NumPy computes it.

const SHUFFLE_STREAM = 2n ** 63n;

export class Random {
  constructor(machine) {
    this.machine = machine;
  }

  // Returns the first `count` words of draw number `call` as a BigUint64Array.
  words(count, seed, stream, call = 0) {
    const { machine } = this;
    const mark = machine.mark();
    const out = machine.take(8 * count);
    machine.run(machine.words(seed, stream, call, 0, out, count));
    const words = new BigUint64Array(machine.memory.buffer, out, count).slice();
    machine.release(mark);
    return words;
  }

  // Returns numbers in [0, 1). A number is the upper 53 bits of a word.
  uniform(count, seed, stream) {
    return Float64Array.from(this.words(count, seed, stream), (w) => Number(w >> 11n) * 2 ** -53);
  }

  // Returns standard normal numbers, by Box and Muller.
  normal(count, seed, stream) {
    const half = Math.floor((count + 1) / 2);
    const u = this.uniform(2 * half, seed, stream);
    const found = new Float64Array(2 * half);
    for (let k = 0; k < half; ++k) {
      const radius = Math.sqrt(-2 * Math.log1p(-u[k]));
      const angle = 2 * Math.PI * u[half + k];
      found[k] = radius * Math.cos(angle);
      found[half + k] = radius * Math.sin(angle);
    }
    return found.subarray(0, count);
  }

  // Returns the initial weights of D inputs and H outputs for an activation's `gain`.
  weights(inputs, outputs, gain, seed, stream) {
    const count = inputs * outputs;
    if (gain === "he") {
      const deviation = Math.sqrt(2 / inputs);
      return Float32Array.from(this.normal(count, seed, stream), (v) => deviation * v);
    }
    const bound = Math.sqrt(6 / (inputs + outputs));
    return Float32Array.from(this.uniform(count, seed, stream), (v) => bound * (2 * v - 1));
  }

  // Returns the order of n rows in an epoch: the order that sorts n words. Comparing their halves is
  // several times as fast as comparing big integers.
  permutation(n, seed, epoch) {
    const halves = new Uint32Array(this.words(n, seed, SHUFFLE_STREAM, epoch).buffer); // low, high, ...
    const order = new Array(n);
    for (let k = 0; k < n; ++k) order[k] = k;
    const high = (a, b) => halves[2 * a + 1] - halves[2 * b + 1];
    return order.sort((a, b) => high(a, b) || halves[2 * a] - halves[2 * b] || a - b);
  }
}
