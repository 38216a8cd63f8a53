// Adds each row n of gy (N, H) to row index[n] of gx + rest (R, H). A sum of many rows has two
// parts: gx, and in `rest` the rounding errors. Each column belongs to one thread, which adds the
// rows in order, so the sums have the same bits every time.

extern "C" __global__ void __launch_bounds__(512) scatter_rows(
    const S* gy, const long long* index, T* gx, T* rest, int table_rows, int columns, int rows) {
  const Tile tile = this_tile(columns, aligned(gy));
  if (tile.row) return;
  for (int n = 0; n < rows; ++n) {
    const long long row = index[n];
    if (row < 0 || row >= table_rows) continue;
    const Columns own = load_each(tile, gy + (size_t)n * columns, columns);
    for (int j = 0; j < PACK; ++j) {
      const int k = tile.first + place(tile, j);
      if (k < columns) {
        const size_t at = (size_t)(row * columns + k);
        const T old = gx[at], sum = old + own.v[j], error = rest_of_sum(old, own.v[j], sum);
        gx[at] = sum;
        rest[at] += error - error == (T)0 ? error : (T)0;
      }
    }
  }
}
