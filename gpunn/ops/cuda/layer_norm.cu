// Layer normalisation of x (N, D): normal = (x - mean) * inverse with each row's mean and inverse
// deviation, which are kept for the backward; y = normal * gamma + beta.

extern "C" __global__ void layer_norm(const S* x, const S* gamma, const S* beta, S* y, T* mean,
                                      T* inverse, double eps, int columns, int rows) {
  __shared__ T part[ROW_PARTS];
  const Row row = this_row(columns);
  if (row.at >= rows) return;
  const size_t start = (size_t)row.at * columns;

  T sum = 0;
  for (int k = row.lane; k < columns; k += row.lanes) sum += (T)x[start + k];
  const T middle = row_fold<Sum>(sum, row, part) / (T)columns;

  T squares = 0;  // of what is centred: a large mean takes no digits from the variance
  for (int k = row.lane; k < columns; k += row.lanes) {
    const T v = (T)x[start + k] - middle;
    squares += v * v;
  }
  const T variance = row_fold<Sum>(squares, row, part) / (T)columns;

  const T scale = (T)1 / sqrt(variance + (T)eps);
  for (int k = row.lane; k < columns; k += row.lanes) {
    y[start + k] = (S)(((T)x[start + k] - middle) * scale * (T)gamma[k] + (T)beta[k]);
  }
  if (row.lane == 0) {
    mean[row.at] = middle;
    inverse[row.at] = scale;
  }
}

// gx = (gn - mean(gn) - normal mean(gn normal)) * inverse with gn = gy gamma, the means over a row.
extern "C" __global__ void layer_norm_grad(const S* gy, const S* x, const S* gamma, const T* mean,
                                           const T* inverse, S* gx, int columns, int rows) {
  __shared__ T part[ROW_PARTS];
  const Row row = this_row(columns);
  if (row.at >= rows) return;
  const size_t start = (size_t)row.at * columns;
  const T middle = mean[row.at], scale = inverse[row.at];

  T sum = 0, along = 0;
  for (int k = row.lane; k < columns; k += row.lanes) {
    const T gn = (T)gy[start + k] * (T)gamma[k];
    sum += gn;
    along += gn * ((T)x[start + k] - middle) * scale;
  }
  sum = row_fold<Sum>(sum, row, part) / (T)columns;
  along = row_fold<Sum>(along, row, part) / (T)columns;

  for (int k = row.lane; k < columns; k += row.lanes) {
    const T gn = (T)gy[start + k] * (T)gamma[k], normal = ((T)x[start + k] - middle) * scale;
    gx[start + k] = (S)((gn - sum - normal * along) * scale);
  }
}

// ggamma = sum_n gy normal, gbeta = sum_n gy.
extern "C" __global__ void __launch_bounds__(512) layer_norm_grad_columns(
    const S* gy, const S* x, const T* mean, const T* inverse, T* ggamma, T* gbeta, int columns,
    int rows) {
  __shared__ T part[TILE_PARTS];
  const Tile tile = this_tile(columns, aligned(gy) && aligned(x));
  Columns along = {}, sum = {};
  each_pair(tile, gy, x, columns, rows, [&](const Columns& g, const Columns& v, int n) {
    const T middle = mean[n], scale = inverse[n];
    for (int j = 0; j < PACK; ++j) {
      sum.v[j] += g.v[j];
      along.v[j] += g.v[j] * (v.v[j] - middle) * scale;
    }
  });
  tile_sum(tile, along, part);
  store_sums(tile, ggamma, columns, part);
  tile_sum(tile, sum, part);
  store_sums(tile, gbeta, columns, part);
}
