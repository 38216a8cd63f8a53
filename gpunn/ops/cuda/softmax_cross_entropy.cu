// Of each row n of logits z (N, C): loss[n] = log sum_k exp(z_k) - z_t, and, in the same pass, its
// gradient gz[n, k] = (p_k - (k == t)) * scale. total = sum_n loss[n] / divisor. A label outside
// [0, C) gives NaN.

extern "C" __global__ void softmax_cross_entropy(
    const S* z, const long long* labels, T* loss, S* gz, T* total, double divisor, double scale,
    int classes, int rows, unsigned int* ticket) {
  __shared__ T part[ROW_PARTS];
  const Row row = this_row(classes);
  T own = 0;
  if (row.at < rows) {
    const size_t start = (size_t)row.at * classes;
    T top = Max::none();
    for (int k = row.lane; k < classes; k += row.lanes) top = Max::both(top, (T)z[start + k]);
    top = row_fold<Max>(top, row, part);

    T sum = 0;
    for (int k = row.lane; k < classes; k += row.lanes) sum += exp((T)z[start + k] - top);
    sum = row_fold<Sum>(sum, row, part);

    const long long label = labels[row.at];
    const bool known = label >= 0 && label < classes;
    const T unknown = known ? (T)0 : log((T)-1);  // NaN
    for (int k = row.lane; k < classes; k += row.lanes) {
      const T p = exp((T)z[start + k] - top) / sum;
      gz[start + k] = (S)((p - (T)(k == label ? 1 : 0) + unknown) * (T)scale);
    }
    own = log(sum) + top - (known ? (T)z[start + label] : unknown) + unknown;
  }
  add_up(own, row, loss, rows, total, (T)divisor, part, ticket);
}
