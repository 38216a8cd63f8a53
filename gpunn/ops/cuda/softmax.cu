// Softmax of each row of x: y_k = exp(x_k) / sum_j exp(x_j), the row's maximum taken off first.

extern "C" __global__ void softmax(const S* x, S* y, int columns, int rows) {
  __shared__ T part[ROW_PARTS];
  const Row row = this_row(columns);
  if (row.at >= rows) return;
  const size_t start = (size_t)row.at * columns;

  T top = Max::none();
  for (int k = row.lane; k < columns; k += row.lanes) top = Max::both(top, (T)x[start + k]);
  top = row_fold<Max>(top, row, part);

  T sum = 0;
  for (int k = row.lane; k < columns; k += row.lanes) sum += exp((T)x[start + k] - top);
  sum = row_fold<Sum>(sum, row, part);

  for (int k = row.lane; k < columns; k += row.lanes) {
    y[start + k] = (S)(exp((T)x[start + k] - top) / sum);
  }
}

// gx_k = y_k * (gy_k - sum_j gy_j y_j).
extern "C" __global__ void softmax_grad(const S* gy, const S* y, S* gx, int columns, int rows) {
  __shared__ T part[ROW_PARTS];
  const Row row = this_row(columns);
  if (row.at >= rows) return;
  const size_t start = (size_t)row.at * columns;

  T along = 0;
  for (int k = row.lane; k < columns; k += row.lanes) along += (T)gy[start + k] * (T)y[start + k];
  along = row_fold<Sum>(along, row, part);

  for (int k = row.lane; k < columns; k += row.lanes) {
    gx[start + k] = (S)((T)y[start + k] * ((T)gy[start + k] - along));
  }
}
