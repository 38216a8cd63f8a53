// The cross-entropy of each row n of logits z (N, C), and its gradient in the same pass:
// loss[n] = log sum_k exp(z_k) - sum_k q_k z_k, gz[n, k] = (p_k - q_k) * scale, with the targets
// q_k = (1 - smoothing) (k == t) + smoothing / C.
// total = sum_n loss[n] / divisor. A label outside [0, C) gives NaN.

extern "C" __global__ void __launch_bounds__(256, sizeof(S) < 8 ? 4 : 1) softmax_cross_entropy(
    const S* z, const long long* labels, T* loss, S* gz, T* total, double smoothing, double divisor,
    double scale, int classes, int rows, unsigned int* ticket) {
  __shared__ T part[ROW_PARTS];
  const Row row = this_row(classes);
  T own = 0;
  if (row.at < rows) {
    const size_t start = (size_t)row.at * classes;
    const long long given = labels[row.at];
    const bool known = given >= 0 && given < classes;
    const int label = known ? (int)given : -1;
    Held held = hold(row, z + start, classes, aligned(z) && aligned(gz));
    const T right = known ? (T)z[start + label] : log((T)-1);  // NaN
    T top = Max::none();
    each(held, [&](T v, int) { top = Max::both(top, v); });
    top = row_fold<Max>(top, row, part);

    // The sum over the other classes is kept apart: 1 - p_t has more digits than p_t, and so has
    // the logarithm of p_t where p_t is close to 1.
    const T right_power = exp_of_difference(right, top);
    const T sum = smoothing == 0 ? (T)0 : row_sum(held, part, [&](T v, int) { return v; });
    const auto power = [&](T v, int k) {
      return k == label ? (T)0 : exp_of_difference(v, top);
    };
    const T others = row_sum_kept(held, part, power);
    const T share = (T)1 / (others + right_power);

    const T spread = (T)(smoothing / classes), more = (T)smoothing, times = (T)scale;
    store_each(held, gz + start, [&](T v, int k) {
      const T e = is_kept(held, k) ? v : power(v, k);
      return ((k == label ? more - others * share : e * share) - spread) * times;
    });
    own = (top - right) + log1p(others + (right_power - (T)1));
    if (smoothing != 0) own += (T)smoothing * (right - sum / (T)classes);
  }
  add_up(own, row, loss, rows, total, (T)divisor, part, ticket);
}
