// Levels of the columns of a table.

// Row n of y (N, columns): the first `numbers` columns of x (N, width), then for each further
// column 1 where its column of x has the code `high`, -1 where it has the code `low`, and else 0.
extern "C" __global__ void level_columns(
    const S* x, const long long* column, const S* high, const S* low, S* y, int width, int numbers,
    int columns, int rows) {
  const Row row = this_row(columns);
  if (row.at >= rows) return;
  const S* const from = x + (size_t)row.at * width;
  S* const to = y + (size_t)row.at * columns;
  for (int c = row.lane; c < columns; c += row.lanes) {
    if (c < numbers) {
      to[c] = from[c];
    } else {
      const int k = c - numbers;
      const T code = (T)from[column[k]];
      to[c] = (S)(T)((code == (T)high[k]) - (code == (T)low[k]));
    }
  }
}
