// Adds to `hits` the number of rows of scores (N, C) whose first largest score is at the label. As
// in NumPy, NaN is larger than any number. The count is an integer, so the order of the atomic
// additions does not change it.

extern "C" __global__ void correct(const S* scores, const long long* labels,
                                   unsigned long long* hits, int classes, int rows) {
  __shared__ T part[ROW_PARTS];
  const Row row = this_row(classes);
  if (row.at >= rows) return;
  const size_t start = (size_t)row.at * classes;
  const long long label = labels[row.at];
  const bool known = label >= 0 && label < classes;
  const T own = known ? (T)scores[start + label] : (T)0;

  T ahead = 0;  // the number of classes that would be chosen before the label
  for (int k = row.lane; k < classes; k += row.lanes) {
    const T v = (T)scores[start + k];
    const bool before = k < label ? !(v < own) : !(v <= own);
    if (own == own ? before && k != label : k < label && v != v) ahead += (T)1;
  }
  ahead = row_fold<Sum>(ahead, row, part);
  if (row.lane == 0 && known && ahead == (T)0) atomicAdd(hits, 1ull);
}
