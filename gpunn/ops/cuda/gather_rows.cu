// Copies rows of a table x and of a table y, one block for each row n: it copies the row with the
// number index[first + n], where first = rows * (*tick + ahead). S is an unsigned integer used as a
// unit of copying, whatever the tables hold. If there is no such number, or it is outside
// [0, table_rows), all bits are set, which is NaN in every float type and -1 in every signed
// integer type.

extern "C" __global__ void gather_rows(
    const S* x, int x_units, const S* y, int y_units, const long long* index, long long index_size,
    long long table_rows, const long long* tick, int ahead, S* x_out, S* y_out) {
  const long long n = blockIdx.x, rows = gridDim.x, at = (*tick + ahead) * rows + n;
  long long row = -1;
  if (at < index_size) row = index[at];
  const bool known = row >= 0 && row < table_rows;
  for (int k = threadIdx.x; k < x_units; k += blockDim.x) {
    x_out[n * x_units + k] = known ? x[row * x_units + k] : (S)~(S)0;
  }
  for (int k = threadIdx.x; k < y_units; k += blockDim.x) {
    y_out[n * y_units + k] = known ? y[row * y_units + k] : (S)~(S)0;
  }
}
