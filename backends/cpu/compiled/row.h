// The functions of a row kernel for one thread, which works on one row after another. One lane
// holds the whole row, so a fold over lanes returns its argument.
struct Row { int at, lane, lanes; };
static inline Row this_row(int) { return {block_, 0, 1}; }

struct Sum {
  static inline T none() { return (T)0; }
  static inline T both(T a, T b) { return a + b; }
};
struct Max {
  static inline T none() { return -(T)INFINITY; }
  static inline T both(T a, T b) { return b > a || b != b ? b : a; }  // NaN stays
};
template <class A> static inline void atomicAdd(A* to, A by) { *to += by; }  // there is one thread
constexpr int ROW_PARTS = 1;
template <class Fold> static inline T row_fold(T v, const Row&, T*) { return v; }

struct Held { const S* x; int columns; };
static inline bool aligned(const void*) { return true; }
static inline Held hold(const Row&, const S* x, int columns, bool) { return {x, columns}; }
template <class Use, class... Others>
static inline void each(const Held& h, Use use, const Others*... others) {
  for (int k = 0; k < h.columns; ++k) use((T)h.x[k], (T)others[k]..., k);
}
constexpr int SUMS = 16;        // partial sums side by side
constexpr int BLOCK = 16 * SUMS;  // elements; a float is too short for a longer sum
template <class Use, class... Others>
static inline T row_sum(const Held& h, T*, Use use, const Others*... others) {
  double sum = 0;
  const int whole = h.columns - h.columns % SUMS;
  for (int start = 0; start < whole; start += BLOCK) {
    T sums[SUMS] = {};
    for (int k = start; k < min(start + BLOCK, whole); k += SUMS) {
#pragma GCC ivdep
      for (int j = 0; j < SUMS; ++j) sums[j] += use((T)h.x[k + j], (T)others[k + j]..., k + j);
    }
    for (T part : sums) sum += part;
  }
  for (int k = whole; k < h.columns; ++k) sum += use((T)h.x[k], (T)others[k]..., k);
  return (T)sum;
}
template <class Use>
static inline T row_sum_kept(const Held& h, T* part, Use use) { return row_sum(h, part, use); }
static inline bool is_kept(const Held&, int) { return false; }
template <class Use, class... Others>
static inline void store_each(const Held& h, S* y, Use use, const Others*... others) {
#pragma GCC ivdep
  for (int k = 0; k < h.columns; ++k) y[k] = (S)use((T)h.x[k], (T)others[k]..., k);
}

static inline void add_up(
    T own, const Row& row, T* loss, int rows, T* total, T divisor, T*, unsigned int*) {
  loss[row.at] = own;
  if (row.at < rows - 1) return;
  double sum = 0;  // a float is too short for a sum of a million losses
  for (int n = 0; n < rows; ++n) sum += loss[n];
  *total = (T)(sum / divisor);
}
