// The functions of a column kernel for one thread, which works on PACK neighbouring columns of one
// row after another.
constexpr int PACK = 64, WIDTH = PACK, TILE_PARTS = PACK;
struct Columns { T v[PACK]; };
struct Totals {  // a float is too short for a long sum
  double v[PACK];
  inline void add(int j, T by) { v[j] += by; }
};
struct Tile { int first, row; };
struct Share { int at, first, rows; };

static inline bool aligned(const void*) { return true; }
static inline Tile this_tile(int, bool) { return {block_ * PACK, 0}; }
static inline Share this_share(int, int rows) { return {0, 0, rows}; }
static inline int place(const Tile&, int j) { return j; }
static inline int width_of(const Tile& tile, int columns) { return min(columns - tile.first, PACK); }

template <class V>
static inline Columns load_each(const Tile& tile, const V* array, int columns) {
  Columns c = {};
  if (width_of(tile, columns) == PACK) {
    for (int j = 0; j < PACK; ++j) c.v[j] = (T)array[tile.first + j];
  } else {
    for (int j = 0; j < width_of(tile, columns); ++j) c.v[j] = (T)array[tile.first + j];
  }
  return c;
}
template <class V>
static inline void store_each(const Tile& tile, V* array, int columns, const T* from) {
  if (width_of(tile, columns) == PACK) {
    for (int j = 0; j < PACK; ++j) array[tile.first + j] = (V)from[j];
  } else {
    for (int j = 0; j < width_of(tile, columns); ++j) array[tile.first + j] = (V)from[j];
  }
}
static inline void store(const Tile& tile, S* row, int columns, const Columns& c) {
  store_each(tile, row, columns, c.v);
}
template <class Use>
static inline void each_row(const Tile& tile, const S* x, int columns, int rows, Use use) {
  for (int n = 0; n < rows; ++n) use(load_each(tile, x + (size_t)n * columns, columns), n);
}
template <class Use>
static inline void each_pair(
    const Tile& tile, const S* x, const S* z, int columns, int rows, Use use) {
  for (int n = 0; n < rows; ++n) {
    const size_t at = (size_t)n * columns;
    use(load_each(tile, x + at, columns), load_each(tile, z + at, columns), n);
  }
}
static inline void tile_sum(const Tile&, const Totals& c, T* part) {
  for (int j = 0; j < PACK; ++j) part[j] = (T)c.v[j];
}
static inline Columns summed(const Tile&, const T* part) {
  Columns c;
  for (int j = 0; j < PACK; ++j) c.v[j] = part[j];
  return c;
}
template <class V>
static inline void store_sums(const Tile& tile, V* array, int columns, const T* part) {
  store_each(tile, array, columns, part);
}
