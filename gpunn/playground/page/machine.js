// The kernels of gpunn, compiled to WebAssembly, and the memory that they work on.
//
// A kernel takes one argument: the address of its slots. A slot has 8 bytes and holds an address,
// an integer or a double. A call is a kernel with its slots. A chain of calls is a call, too.

const ALIGN = 64; // bytes, as in gpunn's flat buffers
const PAGE = 65536; // bytes
const HEADROOM = 1 << 20; // bytes that are always left

export class Machine {
  // `kernels`: name -> {run, slots, nested}; see `program` in kernels.py.
  constructor(bytes, kernels) {
    const instance = new WebAssembly.Instance(new WebAssembly.Module(bytes));
    this.exports = instance.exports;
    this.exports._initialize();
    this.kernels = kernels;
    this.memory = this.exports.memory;
    this.top = this.aligned(this.exports.heap());
  }

  aligned(at) {
    return Math.ceil(at / ALIGN) * ALIGN;
  }

  // Returns the address of new memory, which is 0. All memory from a mark on is given back at once.
  take(bytes) {
    const at = this.top;
    this.top = this.aligned(at + bytes);
    const missing = this.top + HEADROOM - this.memory.buffer.byteLength;
    if (missing > 0) this.memory.grow(Math.ceil(missing / PAGE));
    new Uint8Array(this.memory.buffer, at, this.top - at).fill(0);
    return at;
  }

  mark() {
    return this.top;
  }

  release(mark) {
    this.top = mark;
  }

  floats(at, count) {
    return new Float32Array(this.memory.buffer, at, count);
  }

  integers(at, count) {
    return new BigInt64Array(this.memory.buffer, at, count);
  }

  double(at) {
    return new Float64Array(this.memory.buffer, at, 1);
  }

  // Puts numbers into new memory, and returns its address.
  place(numbers) {
    const at = this.take(4 * numbers.length);
    this.floats(at, numbers.length).set(numbers);
    return at;
  }

  // Returns a call of a kernel. `letters` says what each word is: see `Loop` in kernels.py.
  call(name, letters, words) {
    if (letters.length !== words.length) throw new Error(`${name}: ${words.length} arguments`);
    const slots = this.take(8 * words.length);
    const view = new DataView(this.memory.buffer);
    words.forEach((word, k) => {
      if (letters[k] === "d") view.setFloat64(slots + 8 * k, word, true);
      else view.setBigInt64(slots + 8 * k, BigInt(word), true);
    });
    return { name, run: this.kernels[name].run, slots };
  }

  // Returns a call of an elementwise kernel over `count` elements, in rows of `columns`.
  loop(name, args, count, columns = 0) {
    const kernel = this.kernels[name];
    return this.call(name, kernel.slots + "ii", [...args, count, kernel.nested ? columns : 0]);
  }

  // Returns a call of out = a b. A matrix is {at, rows, columns}, and {turned: true} its transpose.
  product(a, b, out) {
    const [a_row, a_column] = strides(a);
    const [b_row, b_column] = strides(b);
    const sizes = [height(a), width(a), width(b)];
    const steps = [a_row, a_column, b_row, b_column, out.columns];
    const words = [a.at, b.at, out.at, ...steps, ...sizes, 0];
    return this.call("product", "p".repeat(words.length), words);
  }

  // Returns a call of the sums of the columns of x.
  columnSums(x, out) {
    const words = [x.at, out, x.columns, x.rows, Math.ceil(x.columns / 64), 0];
    return this.call("column_sums", "p".repeat(7), [...words, Math.ceil(x.columns / 64)]);
  }

  // Returns a call that copies rows of x and t, whose numbers are in `index`, behind `tick` batches.
  gather(x, t, index, known, tick, x_out, t_out) {
    const given = [x.at, x.columns, t.at, t.columns, index, known, x.rows, tick, 0];
    const words = [...given, x_out.at, t_out.at, x_out.rows, 0, x_out.rows];
    return this.call("gather_rows", "p".repeat(words.length), words);
  }

  // Returns a call that writes random words of draw number `ahead` + the number at `counter`.
  words(seed, stream, ahead, counter, out, count) {
    return this.call("words", "p".repeat(7), [seed, stream, ahead, counter, 0, out, count]);
  }

  // Returns one call that makes all these calls in order.
  chain(calls) {
    const words = [calls.length];
    for (const call of calls) words.push(this.exports.address(call.run), call.slots);
    return this.call("chain", "p".repeat(words.length), words);
  }

  run(call) {
    this.exports.run(call.run, call.slots);
  }
}

export function turned(matrix) {
  return { ...matrix, turned: !matrix.turned };
}

function strides({ columns, turned }) {
  return turned ? [1, columns] : [columns, 1];
}

function height({ rows, columns, turned }) {
  return turned ? columns : rows;
}

function width({ rows, columns, turned }) {
  return turned ? rows : columns;
}
