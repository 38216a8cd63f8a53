// Layer normalisation of x (N, D): normal = (x - mean) * inverse, y = normal * gamma + beta. The
// mean has two parts: the rounded mean, and the mean of what is left after it is subtracted. With
// one part, its rounding error would be all that is left of a row of equal numbers. Both parts and
// the inverse deviation of each row are kept for the backward pass.

extern "C" __global__ void layer_norm(const S* x, const S* gamma, const S* beta, S* y, T* mean,
                                      T* rest, T* inverse, double eps, int columns, int rows) {
  __shared__ T part[ROW_PARTS];
  const Row row = this_row(columns);
  if (row.at >= rows) return;
  const size_t start = (size_t)row.at * columns;
  const bool vectors = aligned(x) && aligned(gamma) && aligned(beta) && aligned(y);
  const Held held = hold(row, x + start, columns, vectors);

  const T share = (T)1 / (T)columns;  // a sum of large numbers would overflow
  const T middle = row_sum(held, part, [&](T v, int) { return v * share; });
  const T shift = row_sum(held, part, [&](T v, int) { return v - middle; }) / (T)columns;
  const T squares = row_sum(held, part, [&](T v, int) {
    const T centred = (v - middle) - shift;
    return centred * centred;
  });
  const T scale = (T)1 / sqrt(squares / (T)columns + (T)eps);

  store_each(held, y + start, [&](T v, T stretch, T offset, int) {
    return ((v - middle) - shift) * scale * stretch + offset;
  }, gamma, beta);
  if (row.lane == 0) {
    mean[row.at] = middle;
    rest[row.at] = shift;
    inverse[row.at] = scale;
  }
}

// gx = (gn - mean(gn) - normal mean(gn normal)) * inverse with gn = gy gamma and means over a row.
extern "C" __global__ void layer_norm_grad(const S* gy, const S* x, const S* gamma, const T* mean,
                                           const T* rest, const T* inverse, S* gx, int columns,
                                           int rows) {
  __shared__ T part[ROW_PARTS];
  const Row row = this_row(columns);
  if (row.at >= rows) return;
  const size_t start = (size_t)row.at * columns;
  const T middle = mean[row.at], shift = rest[row.at], scale = inverse[row.at];
  const bool vectors = aligned(gy) && aligned(x) && aligned(gamma) && aligned(gx);
  const Held held = hold(row, gy + start, columns, vectors);

  const T mean_g = row_sum(held, part, [&](T g, T stretch, int) {
    return g * stretch;
  }, gamma) / (T)columns;
  const T mean_along = row_sum(held, part, [&](T g, T v, T stretch, int) {
    return g * stretch * ((v - middle) - shift) * scale;
  }, x + start, gamma) / (T)columns;

  store_each(held, gx + start, [&](T g, T v, T stretch, int) {
    return (g * stretch - mean_g - ((v - middle) - shift) * scale * mean_along) * scale;
  }, x + start, gamma);
}

// ggamma = sum_n gy normal, gbeta = sum_n gy, separately for each share of the rows.
extern "C" __global__ void __launch_bounds__(512) layer_norm_grad_columns(
    const S* gy, const S* x, const T* mean, const T* rest, const T* inverse, T* ggamma, T* gbeta,
    int columns, int rows) {
  __shared__ T part[TILE_PARTS];
  const Tile tile = this_tile(columns, aligned(gy) && aligned(x));
  const Share share = this_share(columns, rows);
  const size_t start = (size_t)share.first * columns, to = (size_t)share.at * columns;
  Totals along = {}, sum = {};
  each_pair(tile, gy + start, x + start, columns, share.rows,
            [&](const Columns& g, const Columns& v, int n) {
    const int at = share.first + n;
    const T middle = mean[at], shift = rest[at], scale = inverse[at];
    for (int j = 0; j < PACK; ++j) {
      sum.add(j, g.v[j]);
      along.add(j, g.v[j] * ((v.v[j] - middle) - shift) * scale);
    }
  });
  tile_sum(tile, along, part);
  store_sums(tile, ggamma + to, columns, part);
  tile_sum(tile, sum, part);
  store_sums(tile, gbeta + to, columns, part);
}
