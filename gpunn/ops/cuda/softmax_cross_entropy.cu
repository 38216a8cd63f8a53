// The cross-entropy of each row n of logits z (N, C), and its gradient in the same pass:
// loss[n] = log sum_k exp(z_k) - z_t, gz[n, k] = (p_k - (k == t)) * scale.
// total = sum_n loss[n] / divisor. A label outside [0, C) gives NaN.

extern "C" __global__ void softmax_cross_entropy(
    const S* z, const long long* labels, T* loss, S* gz, T* total, double divisor, double scale,
    int classes, int rows, unsigned int* ticket) {
  __shared__ T part[ROW_PARTS];
  const Row row = this_row(classes);
  T own = 0;
  if (row.at < rows) {
    const size_t start = (size_t)row.at * classes;
    const Held held = hold(row, z + start, classes, aligned(z) && aligned(gz));
    T top = Max::none();
    each(held, [&](T v, int) { top = Max::both(top, v); });
    top = row_fold<Max>(top, row, part);

    T sum = 0;
    each(held, [&](T v, int) { sum += exp(v - top); });
    sum = row_fold<Sum>(sum, row, part);
    const T share = (T)1 / sum;

    const long long label = labels[row.at];
    const bool known = label >= 0 && label < classes;
    const T unknown = known ? (T)0 : log((T)-1);  // NaN
    store_each(held, gz + start, [&](T v, int k) {
      return (exp(v - top) * share - (T)(k == label ? 1 : 0) + unknown) * (T)scale;
    });
    own = log(sum) + (top - (known ? (T)z[start + label] : unknown)) + unknown;
  }
  add_up(own, row, loss, rows, total, (T)divisor, part, ticket);
}
