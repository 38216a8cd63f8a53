// The multiclass hinge loss of each row n of scores s (N, C), and its gradient in the same pass:
// loss[n] = sum over k != t of max(0, s_k - s_t + margin); gs[n, k] = scale where a wrong class k
// violates the margin, gs[n, t] = -scale * (number of such classes). total = sum_n loss[n] /
// divisor. A label outside [0, C) gives NaN.

extern "C" __global__ void multiclass_hinge(
    const S* s, const long long* labels, T* loss, S* gs, T* total, double margin, double divisor,
    double scale, int classes, int rows, unsigned int* ticket) {
  __shared__ T part[ROW_PARTS];
  const Row row = this_row(classes);
  T own_loss = 0;
  if (row.at < rows) {
    const size_t start = (size_t)row.at * classes;
    const Held held = hold(row, s + start, classes, aligned(s) && aligned(gs));
    const long long given = labels[row.at];
    const bool known = given >= 0 && given < classes;
    const int label = known ? (int)given : -1;
    const T own = known ? (T)s[start + label] : log((T)-1);  // NaN

    // NaN is counted as a violation, so that it shows
    own_loss = row_sum(held, part, [&](T v, int k) {
      const T over = difference_plus(v, own, (T)margin);
      return k != label && !(over <= (T)0) ? over : (T)0;
    });
    const T count = row_sum(held, part, [&](T v, int k) {
      return k != label && !(difference_plus(v, own, (T)margin) <= (T)0) ? (T)1 : (T)0;
    });
    store_each(held, gs + start, [&](T v, int k) {
      const T wrong = difference_plus(v, own, (T)margin) <= (T)0 ? (T)0 : (T)1;
      return known ? (k == label ? -count : wrong) * (T)scale : own;
    });
  }
  add_up(own_loss, row, loss, rows, total, (T)divisor, part, ticket);
}
