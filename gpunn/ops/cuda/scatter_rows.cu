// Adds each row n of gy (N, H) to row index[n] of gx (R, H). Each column belongs to one thread,
// which adds the rows in order, so the sums have the same bits every time.

extern "C" __global__ void __launch_bounds__(512) scatter_rows(
    const S* gy, const long long* index, S* gx, int table_rows, int columns, int rows) {
  const Tile tile = this_tile(columns, aligned(gy) && aligned(gx));
  if (tile.row) return;
  for (int n = 0; n < rows; ++n) {
    const long long row = index[n];
    if (row < 0 || row >= table_rows) continue;
    S* to = gx + row * columns;
    Columns sum = load_each(tile, to, columns);
    const Columns own = load_each(tile, gy + (size_t)n * columns, columns);
    for (int j = 0; j < PACK; ++j) sum.v[j] += own.v[j];
    store(tile, to, columns, sum);
  }
}
