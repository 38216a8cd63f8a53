// Layer normalisation of x (N, D): normal = (x - mean) * inverse, y = normal * gamma + beta. The
// mean and the inverse deviation of each row are kept for the backward pass.

extern "C" __global__ void layer_norm(const S* x, const S* gamma, const S* beta, S* y, T* mean,
                                      T* inverse, double eps, int columns, int rows) {
  __shared__ T part[ROW_PARTS];
  const Row row = this_row(columns);
  if (row.at >= rows) return;
  const size_t start = (size_t)row.at * columns;
  const bool vectors = aligned(x) && aligned(gamma) && aligned(beta) && aligned(y);
  const Held held = hold(row, x + start, columns, vectors);

  T sum = 0;
  each(held, [&](T v, int) { sum += v; });
  const T middle = row_fold<Sum>(sum, row, part) / (T)columns;

  T squares = 0;  // centred first, so that a large mean costs the variance no digits
  each(held, [&](T v, int) { squares += (v - middle) * (v - middle); });
  const T variance = row_fold<Sum>(squares, row, part) / (T)columns;

  const T scale = (T)1 / sqrt(variance + (T)eps);
  store_each(held, y + start, [&](T v, T stretch, T shift, int) {
    return (v - middle) * scale * stretch + shift;
  }, gamma, beta);
  if (row.lane == 0) {
    mean[row.at] = middle;
    inverse[row.at] = scale;
  }
}

// gx = (gn - mean(gn) - normal mean(gn normal)) * inverse with gn = gy gamma and means over a row.
extern "C" __global__ void layer_norm_grad(const S* gy, const S* x, const S* gamma, const T* mean,
                                           const T* inverse, S* gx, int columns, int rows) {
  __shared__ T part[ROW_PARTS];
  const Row row = this_row(columns);
  if (row.at >= rows) return;
  const size_t start = (size_t)row.at * columns;
  const T middle = mean[row.at], scale = inverse[row.at];
  const bool vectors = aligned(gy) && aligned(x) && aligned(gamma) && aligned(gx);
  const Held held = hold(row, gy + start, columns, vectors);

  T sum = 0, along = 0;
  each(held, [&](T g, T v, T stretch, int) {
    sum += g * stretch;
    along += g * stretch * (v - middle) * scale;
  }, x + start, gamma);
  sum = row_fold<Sum>(sum, row, part) / (T)columns;
  along = row_fold<Sum>(along, row, part) / (T)columns;

  store_each(held, gx + start, [&](T g, T v, T stretch, int) {
    return (g * stretch - sum - (v - middle) * scale * along) * scale;
  }, x + start, gamma);
}

// ggamma = sum_n gy normal, gbeta = sum_n gy, separately for each share of the rows.
extern "C" __global__ void __launch_bounds__(512) layer_norm_grad_columns(
    const S* gy, const S* x, const T* mean, const T* inverse, T* ggamma, T* gbeta, int columns,
    int rows) {
  __shared__ T part[TILE_PARTS];
  const Tile tile = this_tile(columns, aligned(gy) && aligned(x));
  const Share share = this_share(columns, rows);
  const size_t start = (size_t)share.first * columns, to = (size_t)share.at * columns;
  Columns along = {}, sum = {};
  each_pair(tile, gy + start, x + start, columns, share.rows,
            [&](const Columns& g, const Columns& v, int n) {
    const T middle = mean[share.first + n], scale = inverse[share.first + n];
    for (int j = 0; j < PACK; ++j) {
      sum.v[j] += g.v[j];
      along.v[j] += g.v[j] * (v.v[j] - middle) * scale;
    }
  });
  tile_sum(tile, along, part);
  store_sums(tile, ggamma + to, columns, part);
  tile_sum(tile, sum, part);
  store_sums(tile, gbeta + to, columns, part);
}
