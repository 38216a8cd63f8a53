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
