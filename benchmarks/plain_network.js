// The network of benchmarks/playground.py as plain loops: 2-8-8-1, tanh, Adam, batches of 16.
(epochs) => {
  const { x, t, rows } = playground.train;
  const sizes = [2, 8, 8, 1];
  const random = (n, bound) => Float64Array.from({ length: n }, () => bound * (2 * Math.random() - 1));
  const layers = sizes.slice(1).map((columns, k) => {
    const count = sizes[k] * columns + columns;
    const bound = Math.sqrt(6 / (sizes[k] + columns));
    const zeros = () => new Float64Array(count);
    const w = random(count, bound);
    w.fill(0, sizes[k] * columns);
    return { rows: sizes[k], columns, w, g: zeros(), m: zeros(), v: zeros(), y: new Float64Array(columns), e: new Float64Array(columns) };
  });
  let [step, loss] = [0, 0];
  const order = Array.from({ length: rows }, (_, k) => k);
  const input = new Float64Array(2);
  const begun = performance.now();
  for (let epoch = 0; epoch < epochs; ++epoch) {
    for (let k = rows - 1; k > 0; --k) {
      const other = Math.floor(Math.random() * (k + 1));
      [order[k], order[other]] = [order[other], order[k]];
    }
    loss = 0;
    for (let first = 0; first < rows; first += 16) {
      const count = Math.min(16, rows - first);
      for (const layer of layers) layer.g.fill(0);
      for (let n = 0; n < count; ++n) {
        const row = order[first + n];
        input[0] = x[2 * row];
        input[1] = x[2 * row + 1];
        let h = input;
        layers.forEach(({ rows, columns, w, y }, k) => {
          for (let j = 0; j < columns; ++j) {
            let sum = w[rows * columns + j];
            for (let i = 0; i < rows; ++i) sum += h[i] * w[i * columns + j];
            y[j] = k < 2 ? Math.tanh(sum) : sum;
          }
          h = y;
        });
        const error = h[0] - t[row];
        loss += 0.5 * error * error;
        layers[2].e[0] = error / count;
        for (let k = 2; k >= 0; --k) {
          const { rows, columns, w, g, e } = layers[k];
          const before = k ? layers[k - 1] : null;
          for (let i = 0; i < rows; ++i) {
            let sum = 0;
            const value = before ? before.y[i] : input[i];
            for (let j = 0; j < columns; ++j) {
              g[i * columns + j] += value * e[j];
              sum += e[j] * w[i * columns + j];
            }
            if (before) before.e[i] = sum * (1 - value * value);
          }
          for (let j = 0; j < columns; ++j) g[rows * columns + j] += e[j];
        }
      }
      ++step;
      const [c1, c2] = [1 - 0.9 ** step, 1 - 0.999 ** step];
      for (const { w, g, m, v } of layers) {
        for (let k = 0; k < w.length; ++k) {
          m[k] = 0.9 * m[k] + 0.1 * g[k];
          v[k] = 0.999 * v[k] + 0.001 * g[k] * g[k];
          w[k] -= (0.03 * (m[k] / c1)) / (Math.sqrt(v[k] / c2) + 1e-8);
        }
      }
    }
    loss /= rows;
  }
  return { ms: performance.now() - begun, loss };
}
