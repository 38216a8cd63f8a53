// Batch normalisation of x (N, D): normal = (x - mean) * inverse, y = normal * gamma + beta. The
// mean and the inverse deviation of each column are kept for the backward pass. The running mean
// and the running (unbiased) variance move by `momentum` towards those of the batch.

extern "C" __global__ void __launch_bounds__(512) batch_norm(
    const S* x, const S* gamma, const S* beta, S* y, T* mean, T* inverse, T* running_mean,
    T* running_variance, double momentum, double eps, int columns, int rows) {
  __shared__ T part[TILE_PARTS];
  const Tile tile = this_tile(columns, aligned(x) && aligned(y));
  Columns sum = {};
  each_row(tile, x, columns, rows, [&](const Columns& v, int) {
    for (int j = 0; j < PACK; ++j) sum.v[j] += v.v[j];
  });
  tile_sum(tile, sum, part);
  Columns middle = summed(tile, part), squares = {};
  for (int j = 0; j < PACK; ++j) middle.v[j] /= (T)rows;

  each_row(tile, x, columns, rows, [&](const Columns& v, int) {
    for (int j = 0; j < PACK; ++j) {
      const T centred = v.v[j] - middle.v[j];
      squares.v[j] += centred * centred;
    }
  });
  tile_sum(tile, squares, part);
  const Columns total = summed(tile, part);
  const Columns stretch = load_each(tile, gamma, columns), shift = load_each(tile, beta, columns);
  Columns scale;
  for (int j = 0; j < PACK; ++j) scale.v[j] = (T)1 / sqrt(total.v[j] / (T)rows + (T)eps);

  each_row(tile, x, columns, rows, [&](Columns v, int n) {
    for (int j = 0; j < PACK; ++j) {
      v.v[j] = (v.v[j] - middle.v[j]) * scale.v[j] * stretch.v[j] + shift.v[j];
    }
    store(tile, y + (size_t)n * columns, columns, v);
  });
  if (tile.row != 0) return;  // one thread per column writes the statistics
  for (int j = 0; j < PACK; ++j) {
    const int k = tile.first + place(tile, j);
    if (k < columns) {
      mean[k] = middle.v[j];
      inverse[k] = scale.v[j];
      const T old = running_mean[k], spread = running_variance[k];
      running_mean[k] = old + (T)momentum * (middle.v[j] - old);
      running_variance[k] = spread + (T)momentum * (total.v[j] / (T)(rows - 1) - spread);
    }
  }
}

// ggamma = sum_n gy normal, gbeta = sum_n gy,
// gx = (gy - gbeta / N - normal ggamma / N) gamma inverse.
extern "C" __global__ void __launch_bounds__(512) batch_norm_grad(
    const S* gy, const S* x, const S* gamma, const T* mean, const T* inverse, S* gx, T* ggamma,
    T* gbeta, int columns, int rows) {
  __shared__ T part[TILE_PARTS];
  const Tile tile = this_tile(columns, aligned(gy) && aligned(x) && aligned(gx));
  const Columns middle = load_each(tile, mean, columns), scale = load_each(tile, inverse, columns);
  Columns along = {}, sum = {};
  each_pair(tile, gy, x, columns, rows, [&](const Columns& g, const Columns& v, int) {
    for (int j = 0; j < PACK; ++j) {
      sum.v[j] += g.v[j];
      along.v[j] += g.v[j] * (v.v[j] - middle.v[j]) * scale.v[j];
    }
  });
  tile_sum(tile, along, part);
  store_sums(tile, ggamma, columns, part);
  along = summed(tile, part);
  tile_sum(tile, sum, part);
  store_sums(tile, gbeta, columns, part);
  sum = summed(tile, part);

  const Columns stretch = load_each(tile, gamma, columns);
  each_pair(tile, gy, x, columns, rows, [&](Columns g, const Columns& v, int n) {
    for (int j = 0; j < PACK; ++j) {
      const T normal = (v.v[j] - middle.v[j]) * scale.v[j];
      const T rest = g.v[j] - sum.v[j] / (T)rows - normal * (along.v[j] / (T)rows);
      g.v[j] = rest * stretch.v[j] * scale.v[j];
    }
    store(tile, gx + (size_t)n * columns, columns, g);
  });
}
