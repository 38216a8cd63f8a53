// Of each row n of scores s (N, C): loss[n] = sum over k != t of max(0, s_k - s_t + margin), and,
// in the same pass, its gradient gs: scale where a wrong class violates the margin, at t minus
// scale times their number. total = sum_n loss[n] / divisor. A label outside [0, C) gives NaN.

extern "C" __global__ void multiclass_hinge(
    const S* s, const long long* labels, T* loss, S* gs, T* total, double margin, double divisor,
    double scale, int classes, int rows, unsigned int* ticket) {
  __shared__ T part[ROW_PARTS];
  const Row row = this_row(classes);
  T own_loss = 0;
  if (row.at < rows) {
    const size_t start = (size_t)row.at * classes;
    const long long label = labels[row.at];
    const bool known = label >= 0 && label < classes;
    const T own = known ? (T)s[start + label] : log((T)-1);  // NaN

    T sum = 0, count = 0;
    for (int k = row.lane; k < classes; k += row.lanes) {
      const T over = (T)s[start + k] - own + (T)margin;
      const bool wrong = k != label && !(over <= (T)0);  // NaN is counted, so that it shows
      if (wrong) sum += over;
      if (wrong) count += (T)1;
      gs[start + k] = (S)(known ? (T)(wrong ? 1 : 0) * (T)scale : own);
    }
    own_loss = row_fold<Sum>(sum, row, part);
    count = row_fold<Sum>(count, row, part);
    if (label % row.lanes == row.lane && known) gs[start + label] = (S)(-count * (T)scale);
  }
  add_up(own_loss, row, loss, rows, total, (T)divisor, part, ticket);
}
