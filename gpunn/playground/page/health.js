// What goes wrong in training: gradients that vanish, units that are dead, and the angle of feedback.

export class Health {
  constructor(machine, network, evaluated) {
    Object.assign(this, { machine, network });
    const calls = [];
    this.slopes = evaluated.passed.slice(0, -1).map(({ z }) => {
      const { name, numbers, saves } = network.activation;
      if (!saves) return null;
      const [count, slopes] = [z.rows * z.columns, network.matrix(z.rows, z.columns)];
      const ones = network.matrix(z.rows, z.columns);
      machine.floats(ones.at, count).fill(1);
      calls.push(machine.loop(`${name}_grad`, [ones.at, z.at, ...numbers, slopes.at], count));
      return slopes;
    });
    this.call = machine.chain([evaluated.call, ...calls]);
  }

  // Returns for each layer: the norm of its gradient, its units' mean slopes, dead units, the angle.
  look() {
    const { machine, network } = this;
    machine.run(this.call);
    return network.layers.map((layer, k) => {
      const gradient = machine.floats(layer.gw.at, layer.gw.rows * layer.gw.columns);
      const slopes = this.slopes[k] ? means(machine, this.slopes[k]) : null;
      return {
        norm: Math.sqrt(gradient.reduce((sum, g) => sum + g * g, 0)),
        ...{ slopes, dead: slopes ? slopes.map((slope) => slope === 0) : [] },
        angle: layer.feeds ? angle(machine, layer) : null,
      };
    });
  }
}

// Returns the mean of |activation'(z)| of each unit over the examples.
function means(machine, { at, rows, columns }) {
  const values = machine.floats(at, rows * columns);
  const sums = Array(columns).fill(0);
  values.forEach((value, k) => (sums[k % columns] += Math.abs(value)));
  return sums.map((sum) => sum / rows);
}

// Returns the angle between the weights and the feedback matrix in degrees, as FeedbackLinear does.
function angle(machine, { w, back }) {
  const [a, b] = [w, back].map(({ at, rows, columns }) => machine.floats(at, rows * columns));
  const dot = (u, v) => u.reduce((sum, value, k) => sum + value * v[k], 0);
  const cosine = dot(a, b) / Math.max(Math.sqrt(dot(a, a) * dot(b, b)), 1e-300);
  return (Math.acos(Math.min(1, Math.max(-1, cosine))) * 180) / Math.PI;
}

// Tells which units the dropout of the last step left out for its first example. The library's own
// kernel says so: it passes a gradient of 1 on to the units that are kept.
export class Masks {
  constructor(machine, network, step) {
    this.machine = machine;
    const calls = [];
    this.found = step.passed.slice(0, -1).map(({ z, bits }) => {
      if (!bits) return null;
      const [ones, out] = [network.matrix(1, z.columns), network.matrix(1, z.columns)];
      machine.floats(ones.at, z.columns).fill(1);
      calls.push(
        machine.loop("identity_grad_dropout", [ones.at, ones.at, ...bits.args, out.at], z.columns),
      );
      return out;
    });
    this.call = machine.chain(calls);
  }

  look() {
    this.machine.run(this.call);
    return this.found.map((out) =>
      out ? Array.from(this.machine.floats(out.at, out.columns), (v) => v === 0) : [],
    );
  }
}
