// Batch normalisation of x (N, D): normal = (x - mean) * inverse, y = normal * gamma + beta. The
// mean has two parts, as in layer_norm.cu. Both parts and the inverse deviation of each column are
// kept for the backward pass. The running mean and the running (unbiased) variance move by
// `momentum` towards those of the batch.

extern "C" __global__ void __launch_bounds__(512, 1) batch_norm(
    const S* x, const S* gamma, const S* beta, S* y, T* mean, T* rest, T* inverse, T* running_mean,
    T* running_variance, double momentum, double eps, int columns, int rows) {
  __shared__ T part[TILE_PARTS];
  const Tile tile = this_tile(columns, aligned(x) && aligned(y));
  Totals sum = {}, left = {}, squares = {};
  const T share = (T)1 / (T)rows;  // a sum of large numbers would overflow
  each_row(tile, x, columns, rows, [&](const Columns& v, int) {
    for (int j = 0; j < PACK; ++j) sum.add(j, v.v[j] * share);
  });
  tile_sum(tile, sum, part);
  const Columns middle = summed(tile, part);

  each_row(tile, x, columns, rows, [&](const Columns& v, int) {
    for (int j = 0; j < PACK; ++j) {
      const T centred = v.v[j] - middle.v[j];
      left.add(j, centred);
      squares.add(j, centred * centred);
    }
  });
  tile_sum(tile, left, part);
  Columns shift = summed(tile, part);
  tile_sum(tile, squares, part);
  Columns variance = summed(tile, part), scale;
  // The rounded mean is closer to the mean than neighbouring numbers lie together, so the square of
  // the shift is no larger than the variance, and the difference keeps its digits.
  for (int j = 0; j < PACK; ++j) {
    shift.v[j] /= (T)rows;
    const T about = variance.v[j] / (T)rows - shift.v[j] * shift.v[j];
    variance.v[j] = about < (T)0 ? (T)0 : about;  // keeps NaN
    scale.v[j] = (T)1 / sqrt(variance.v[j] + (T)eps);
  }

  const Columns stretch = load_each(tile, gamma, columns), offset = load_each(tile, beta, columns);
  each_row(tile, x, columns, rows, [&](Columns v, int n) {
    for (int j = 0; j < PACK; ++j) {
      v.v[j] = ((v.v[j] - middle.v[j]) - shift.v[j]) * scale.v[j] * stretch.v[j] + offset.v[j];
    }
    store(tile, y + (size_t)n * columns, columns, v);
  });
  if (tile.row != 0) return;  // one thread per column writes the statistics
  for (int j = 0; j < PACK; ++j) {
    const int k = tile.first + place(tile, j);
    if (k < columns) {
      mean[k] = middle.v[j];
      rest[k] = shift.v[j];
      inverse[k] = scale.v[j];
      const T old = running_mean[k], spread = running_variance[k];
      running_mean[k] = old + (T)momentum * ((middle.v[j] - old) + shift.v[j]);
      const T unbiased = variance.v[j] * ((T)rows / (T)(rows - 1));
      running_variance[k] = spread + (T)momentum * (unbiased - spread);
    }
  }
}

// ggamma = sum_n gy normal, gbeta = sum_n gy,
// gx = (gy - gbeta / N - normal ggamma / N) gamma inverse.
extern "C" __global__ void __launch_bounds__(512) batch_norm_grad(
    const S* gy, const S* x, const S* gamma, const T* mean, const T* rest, const T* inverse, S* gx,
    T* ggamma, T* gbeta, int columns, int rows) {
  __shared__ T part[TILE_PARTS];
  const Tile tile = this_tile(columns, aligned(gy) && aligned(x) && aligned(gx));
  const Columns middle = load_each(tile, mean, columns), shift = load_each(tile, rest, columns);
  const Columns scale = load_each(tile, inverse, columns);
  Totals along = {}, sum = {};
  each_pair(tile, gy, x, columns, rows, [&](const Columns& g, const Columns& v, int) {
    for (int j = 0; j < PACK; ++j) {
      sum.add(j, g.v[j]);
      along.add(j, g.v[j] * ((v.v[j] - middle.v[j]) - shift.v[j]) * scale.v[j]);
    }
  });
  tile_sum(tile, along, part);
  store_sums(tile, ggamma, columns, part);
  const Columns whole_along = summed(tile, part);
  tile_sum(tile, sum, part);
  store_sums(tile, gbeta, columns, part);
  const Columns whole = summed(tile, part);

  const Columns stretch = load_each(tile, gamma, columns);
  each_pair(tile, gy, x, columns, rows, [&](Columns g, const Columns& v, int n) {
    for (int j = 0; j < PACK; ++j) {
      const T normal = ((v.v[j] - middle.v[j]) - shift.v[j]) * scale.v[j];
      const T left = g.v[j] - whole.v[j] / (T)rows - normal * (whole_along.v[j] / (T)rows);
      g.v[j] = left * stretch.v[j] * scale.v[j];
    }
    store(tile, gx + (size_t)n * columns, columns, g);
  });
}
