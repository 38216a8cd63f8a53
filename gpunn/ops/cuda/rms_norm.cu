// RMS normalisation of x (N, D): normal = x / sqrt(mean(x**2) + eps), y = normal * gamma. A row is
// multiplied by `factor` first, which makes its largest |x| 4, so that no square overflows or
// vanishes. 4 / v is no subnormal number for any finite v. Then normal = x * factor * inverse. Both
// numbers of each row are kept for the backward pass. `root` is sqrt(eps). `least` is root, or if
// that is larger, the least number whose 4 / v is finite.

extern "C" __global__ void rms_norm(const S* x, const S* gamma, S* y, T* factor, T* inverse,
                                    double root, double least, int columns, int rows) {
  __shared__ T part[ROW_PARTS];
  const Row row = this_row(columns);
  if (row.at >= rows) return;
  const size_t start = (size_t)row.at * columns;
  const Held held = hold(row, x + start, columns, aligned(x) && aligned(gamma) && aligned(y));

  T top = (T)least;
  each(held, [&](T v, int) { top = Max::both(top, fabs(v)); });
  const T by = (T)4 / row_fold<Max>(top, row, part), floor = (T)root * by;
  const T squares = row_sum(held, part, [&](T v, int) {
    const T scaled = v * by;
    return scaled * scaled;
  });
  const T scale = (T)1 / sqrt(squares / (T)columns + floor * floor);

  store_each(held, y + start, [&](T v, T stretch, int) {
    return v * by * scale * stretch;
  }, gamma);
  if (row.lane == 0) {
    factor[row.at] = by;
    inverse[row.at] = scale;
  }
}

// gx = (gn - normal mean(gn normal)) * inverse * factor with gn = gy gamma and means over a row.
extern "C" __global__ void rms_norm_grad(const S* gy, const S* x, const S* gamma, const T* factor,
                                         const T* inverse, S* gx, int columns, int rows) {
  __shared__ T part[ROW_PARTS];
  const Row row = this_row(columns);
  if (row.at >= rows) return;
  const size_t start = (size_t)row.at * columns;
  const T by = factor[row.at], scale = inverse[row.at];
  const bool vectors = aligned(gy) && aligned(x) && aligned(gamma) && aligned(gx);
  const Held held = hold(row, gy + start, columns, vectors);

  const T mean_along = row_sum(held, part, [&](T g, T v, T stretch, int) {
    return g * stretch * (v * by * scale);
  }, x + start, gamma) / (T)columns;

  store_each(held, gx + start, [&](T g, T v, T stretch, int) {
    return (g * stretch - v * by * scale * mean_along) * scale * by;
  }, x + start, gamma);
}

// ggamma = sum_n gy normal, separately for each share of the rows.
extern "C" __global__ void __launch_bounds__(512) rms_norm_grad_columns(
    const S* gy, const S* x, const T* factor, const T* inverse, T* ggamma, int columns, int rows) {
  __shared__ T part[TILE_PARTS];
  const Tile tile = this_tile(columns, aligned(gy) && aligned(x));
  const Share share = this_share(columns, rows);
  const size_t start = (size_t)share.first * columns, to = (size_t)share.at * columns;
  Totals along = {};
  each_pair(tile, gy + start, x + start, columns, share.rows,
            [&](const Columns& g, const Columns& v, int n) {
    const int at = share.first + n;
    const T by = factor[at], scale = inverse[at];
    for (int j = 0; j < PACK; ++j) along.add(j, g.v[j] * (v.v[j] * by * scale));
  });
  tile_sum(tile, along, part);
  store_sums(tile, ggamma + to, columns, part);
}
