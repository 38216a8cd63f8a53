// The sums of the columns of x (N, H), added up in T: out[h] = sum_n x[n, h]. If there are more
// blocks than tiles, each share of the rows writes its own row of sums: out is (shares, H).

template <class R>
__device__ inline void sum_columns(const S* x, R* out, int columns, int rows, T* part) {
  const Tile tile = this_tile(columns, aligned(x));
  const Share share = this_share(columns, rows);
  const S* const from = x + (size_t)share.first * columns;
  Totals sum = {};
  each_row(tile, from, columns, share.rows, [&](const Columns& v, int) {
    for (int j = 0; j < PACK; ++j) sum.add(j, v.v[j]);
  });
  tile_sum(tile, sum, part);
  store_sums(tile, out + (size_t)share.at * columns, columns, part);
}

extern "C" __global__ void __launch_bounds__(512) column_sums(
    const S* x, S* out, int columns, int rows) {
  __shared__ T part[TILE_PARTS];
  sum_columns(x, out, columns, rows, part);
}

// Does not round the sums to S, for a gradient that is kept in a wider type than its input.
extern "C" __global__ void __launch_bounds__(512) column_sums_wide(
    const S* x, T* out, int columns, int rows) {
  __shared__ T part[TILE_PARTS];
  sum_columns(x, out, columns, rows, part);
}
