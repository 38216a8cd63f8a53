// One example step by step: each formula with its numbers, as `gpunn.explain.network` says them.

export class Steps {
  constructor(machine, network, catalogue) {
    Object.assign(this, { machine, network, catalogue });
    this.x = { at: machine.take(4 * network.inputs), rows: 1, columns: network.inputs };
    this.t = { at: machine.take(4), rows: 1, columns: 1 };
    this.trace();
    const { data, grad, states, size, taken } = network;
    this.kept = [data, grad, ...states]
      .map((at) => ({ at, bytes: 4 * size }))
      .concat({ at: taken, bytes: 8 });
  }

  // Makes the calls of a forward and a backward pass in which nothing is fused: z and h stay apart.
  trace() {
    const { machine, network } = this;
    const calls = [];
    let x = this.x;
    this.passed = network.layers.map((layer) => {
      const columns = layer.w.columns;
      const z = network.matrix(1, columns);
      calls.push(
        machine.product(x, layer.w, z),
        machine.loop("identity_bias", [layer.bias, z.at], columns, columns),
      );
      const own = layer.hidden ? this.again(layer, x, columns, calls) : { z, y: z };
      const at = { layer, x, z: own.z, y: own.y, shown: z, bits: null };
      x = own.y;
      return at;
    });
    this.loss = network.compare(x, this.t);
    calls.push(this.loss.call, ...network.backward(this.passed, this.loss.gy));
    this.call = machine.chain(calls);
    this.update = machine.chain(network.update(this.loss.total, 1));
  }

  // Computes a hidden layer as training does, which may write h over z.
  again(layer, x, columns, calls) {
    const { machine, network } = this;
    const { name, numbers, saves } = network.activation;
    const z = network.matrix(1, columns);
    const y = saves === "x" ? network.matrix(1, columns) : z;
    const outs = saves === "x" ? [z.at, y.at] : [z.at];
    calls.push(
      machine.product(x, layer.w, z),
      machine.loop(`${name}_bias`, [layer.bias, ...numbers, ...outs], columns, columns),
    );
    return { z, y };
  }

  // Returns the lines of both passes for one example, and of the update that would follow. Nothing of
  // the training is changed.
  of(x, t) {
    const { machine } = this;
    const saved = this.kept.map(({ at, bytes }) =>
      new Uint8Array(machine.memory.buffer, at, bytes).slice(),
    );
    const before = this.parameters();
    const guard = this.network.guard.map((at) => machine.integers(at, 1)[0]);
    const total = machine.double(this.network.total)[0];
    machine.floats(this.x.at, this.x.columns).set(x);
    machine.floats(this.t.at, 1)[0] = t;
    machine.run(this.call);
    const found = { forward: this.forward(), backward: this.backward() };
    machine.run(this.update);
    found.update = before.map((line, k) => ({ ...line, after: this.parameters()[k].values }));
    this.kept.forEach(({ at }, k) =>
      new Uint8Array(machine.memory.buffer, at, saved[k].length).set(saved[k]),
    );
    this.network.guard.forEach((at, k) => (machine.integers(at, 1)[0] = guard[k]));
    machine.double(this.network.total)[0] = total;
    return found;
  }

  read({ at, rows, columns }) {
    const values = this.machine.floats(at, rows * columns);
    return Array.from({ length: rows }, (_, i) =>
      Array.from(values.subarray(i * columns, (i + 1) * columns)),
    );
  }

  vector(at, columns) {
    return [Array.from(this.machine.floats(at, columns))];
  }

  // The name of what layer k passes on, counted from 1: an identity has no h of its own.
  passedOn(k) {
    if (k === this.passed.length) return "y";
    return `${this.network.activation.saves ? "h" : "z"}${k}`;
  }

  forward() {
    const { catalogue, network, passed } = this;
    const given = passed.flatMap(({ layer }, k) => [
      { name: `W${k + 1}`, formula: "", values: this.read(layer.w) },
      { name: `b${k + 1}`, formula: "", values: this.vector(layer.bias, layer.w.columns) },
    ]);
    const x = { name: "x", formula: "", values: this.read(this.x) };
    const lines = [x, ...given, { name: "t", formula: "", values: this.read(this.t) }];
    passed.forEach(({ shown, y }, n) => {
      const k = n + 1;
      const [z, h] = [k === passed.length ? "y" : `z${k}`, this.passedOn(k)];
      const formula = filled(catalogue.linear.forward, [
        n ? this.passedOn(n) : "x",
        `W${k}`,
        `b${k}`,
      ]);
      lines.push({ name: z, formula, values: this.read(shown) });
      if (h === z) return;
      const body = bodyOf(catalogue, `${network.activation.name}_bias`);
      lines.push({
        name: h,
        formula: filled(network.activation.forward, [z]),
        values: this.read(y),
        body,
      });
    });
    const formula = filled(network.loss.forward, ["y", "t"]);
    const values = this.vector(this.loss.total, 1);
    return [...lines, { name: "L", formula, values, body: bodyOf(catalogue, network.loss.name) }];
  }

  backward() {
    const { catalogue, network, passed } = this;
    const lines = [{ name: barred("L"), formula: "1", values: [[1]] }];
    for (let k = passed.length; k > 0; --k) {
      const { layer, gy, gz } = passed[k - 1];
      const [z, h] = [k === passed.length ? "y" : `z${k}`, this.passedOn(k)];
      const loss = () => filled(network.loss.backward[0], ["y", "t"], "L", barred("L"));
      const formula = k === passed.length ? loss() : this.carried(k + 1);
      lines.push({ name: barred(h), formula, values: this.read(gy) });
      if (h !== z) {
        const body = bodyOf(catalogue, `${network.activation.name}_grad`);
        const back = filled(network.activation.backward[0], [z], h, barred(h));
        lines.push({ name: barred(z), formula: back, values: this.read(gz), body });
      }
      const inputs = [k > 1 ? this.passedOn(k - 1) : "x", `W${k}`, `b${k}`];
      const [, gw, gb] = catalogue.linear.backward.map((text) =>
        filled(text, inputs, z, barred(z)),
      );
      lines.push({ name: barred(`W${k}`), formula: gw, values: this.read(layer.gw) });
      lines.push({
        name: barred(`b${k}`),
        formula: gb,
        values: this.vector(layer.gbias, layer.w.columns),
      });
    }
    return lines;
  }

  // Returns the formula of the error signal that layer k sends back.
  carried(k) {
    const z = k === this.passed.length ? "y" : `z${k}`;
    const { linear } = this.catalogue;
    const text = this.passed[k - 1].layer.feeds ? linear.feedback : linear.backward[0];
    return filled(text, [this.passedOn(k - 1), `W${k}`, `b${k}`], z, barred(z));
  }

  parameters() {
    return this.passed.flatMap(({ layer }, k) => [
      { name: `W${k + 1}`, formula: "", values: this.read(layer.w) },
      { name: `b${k + 1}`, formula: "", values: this.vector(layer.bias, layer.w.columns) },
    ]);
  }
}

function bodyOf(catalogue, kernel) {
  return catalogue.kernels[kernel].body;
}

// Fills a formula of gpunn.explain: {0}, {1} are inputs, {y} is the result, {g} its error signal.
function filled(text, inputs, y = "", g = "") {
  return text.replace(/\{(\w)\}/g, (_, name) =>
    name === "y" ? y : name === "g" ? g : inputs[Number(name)],
  );
}

// Returns the name of an error signal, with a bar above its first letter.
export function barred(name) {
  return (name[0] + "\u0304" + name.slice(1)).normalize("NFKC");
}

// Writes numbers as rows of a matrix with four digits; a single column as a row.
export function written(values) {
  if (values.length > 1 && values[0].length === 1) return `${written([values.flat()])}.T`;
  const rows = values.map((row) => row.map(digits).join(", "));
  return values.length === 1 ? `[${rows[0]}]` : rows.map((row) => `[${row}]`).join("\n");
}

export function digits(value) {
  if (!Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e5)) return value.toExponential(2).replace("-", "−");
  return value.toFixed(4).replace("-", "−");
}
