// Softmax of each row of x: y_k = exp(x_k) / sum_j exp(x_j). The maximum of the row is subtracted
// first.

extern "C" __global__ void softmax(const S* x, S* y, int columns, int rows) {
  __shared__ T part[ROW_PARTS];
  const Row row = this_row(columns);
  if (row.at >= rows) return;
  const size_t start = (size_t)row.at * columns;
  const Held held = hold(row, x + start, columns, aligned(x) && aligned(y));

  T top = Max::none();
  each(held, [&](T v, int) { top = Max::both(top, v); });
  top = row_fold<Max>(top, row, part);

  const T share =
      (T)1 / row_sum(held, part, [&](T v, int) { return exp_of_difference(v, top); });

  store_each(held, y + start, [&](T v, int) { return exp_of_difference(v, top) * share; });
}

// gx_k = y_k * (gy_k - sum_j gy_j y_j).
extern "C" __global__ void softmax_grad(const S* gy, const S* y, S* gx, int columns, int rows) {
  __shared__ T part[ROW_PARTS];
  const Row row = this_row(columns);
  if (row.at >= rows) return;
  const size_t start = (size_t)row.at * columns;
  const bool vectors = aligned(gy) && aligned(y) && aligned(gx);
  const Held g = hold(row, gy + start, columns, vectors);

  const T along = row_sum(g, part, [&](T gv, T v, int) { return gv * v; }, y + start);

  store_each(g, gx + start, [&](T gv, T v, int) { return v * (gv - along); }, y + start);
}

// Logarithm of the softmax of each row of x: y_k = (x_k - max x) - log1p(rest), where the rest is
// the sum of exp(x_j - max x) without one of the largest.
extern "C" __global__ void log_softmax(const S* x, S* y, int columns, int rows) {
  __shared__ T part[ROW_PARTS];
  const Row row = this_row(columns);
  if (row.at >= rows) return;
  const size_t start = (size_t)row.at * columns;
  const Held held = hold(row, x + start, columns, aligned(x) && aligned(y));

  T top = Max::none();
  each(held, [&](T v, int) { top = Max::both(top, v); });
  top = row_fold<Max>(top, row, part);

  const T others = row_sum(held, part, [&](T v, int) {
    return v - top == (T)0 ? (T)0 : exp_of_difference(v, top);
  });
  const T ties = row_sum(held, part, [&](T v, int) { return v - top == (T)0 ? (T)1 : (T)0; });
  const T rest = log1p(others + (ties - (T)1));

  store_each(held, y + start, [&](T v, int) { return (v - top) - rest; });
}

// gx_k = gy_k - exp(y_k) * sum_j gy_j.
extern "C" __global__ void log_softmax_grad(
    const S* gy, const S* y, S* gx, int columns, int rows) {
  __shared__ T part[ROW_PARTS];
  const Row row = this_row(columns);
  if (row.at >= rows) return;
  const size_t start = (size_t)row.at * columns;
  const Held g = hold(row, gy + start, columns, aligned(gy) && aligned(y) && aligned(gx));

  const T along = row_sum(g, part, [](T gv, int) { return gv; });

  store_each(g, gx + start, [&](T gv, T v, int) { return gv - exp(v) * along; }, y + start);
}
