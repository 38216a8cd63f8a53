// The sums of the rows of x (N, D), added up in T: out[n] = sum_k x[n, k].

extern "C" __global__ void row_sums(const S* x, T* out, int columns, int rows) {
  __shared__ T part[ROW_PARTS];
  const Row row = this_row(columns);
  if (row.at >= rows) return;
  const size_t start = (size_t)row.at * columns;
  const Held held = hold(row, x + start, columns, aligned(x));
  const T whole = row_sum(held, part, [](T v, int) { return v; });
  if (row.lane == 0) out[row.at] = whole;
}
