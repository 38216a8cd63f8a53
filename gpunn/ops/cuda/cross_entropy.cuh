// The cross-entropy of one row of logits.

// The loss of a row of logits z (C,) and its gradient in the same pass:
// loss = log sum_k exp(z_k) - sum_k q_k z_k, gz[k] = (p_k - q_k) * scale, with the targets
// q_k = (1 - smoothing) (k == t) + smoothing / C. Every lane of the row must call this function and
// gets the loss. A label outside [0, C) gives NaN.
__device__ inline T cross_entropy(const S* z, long long given, S* gz, int classes, double smoothing,
                                  double scale, bool vectors, const Row& row, T* part) {
  const bool known = given >= 0 && given < classes;
  const int label = known ? (int)given : -1;
  Held held = hold(row, z, classes, vectors);
  const T right = known ? (T)z[label] : log((T)-1);  // NaN
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
  store_each(held, gz, [&](T v, int k) {
    const T e = is_kept(held, k) ? v : power(v, k);
    return ((k == label ? more - others * share : e * share) - spread) * times;
  });
  const T loss = (top - right) + log1p(others + (right_power - (T)1));
  return smoothing == 0 ? loss : loss + (T)smoothing * (right - sum / (T)classes);
}
