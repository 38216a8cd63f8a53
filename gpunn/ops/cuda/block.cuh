// Common code of the row kernels. Arrays are stored in type S, and computations are done in type T.
// The shape of the launch alone decides the order of every sum, so the bits are the same each time.

// rows --------------------------------------------------------------------------------------------

// The number of a row, and the position of this thread among the `lanes` threads that work on it.
struct Row { int at, lane, lanes; };

// A row of at most WARP_COLUMNS elements belongs to a warp, a longer one to the whole block. In the
// last block some warps may have no row. They may return before a fold, because each warp then
// folds its own row.
__device__ inline Row this_row(int columns) {
  const int warps = blockDim.x >> 5, warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  if (columns > WARP_COLUMNS) return {(int)blockIdx.x, (int)threadIdx.x, (int)blockDim.x};
  return {(int)blockIdx.x * warps + warp, lane, 32};
}

struct Sum {
  static __device__ inline T none() { return (T)0; }
  static __device__ inline T both(T a, T b) { return a + b; }
};

struct Max {
  static __device__ inline T none() { return log((T)0); }  // -infinity
  static __device__ inline T both(T a, T b) { return b > a || b != b ? b : a; }  // keeps NaN
};

// A sum of one thread. The rounding errors are added up beside it, unless the numbers were stored
// in 16 bits: a float has digits to spare for them.
struct Total {
  T sum, rest;
  __device__ inline void add(T v) {
    const T more = sum + v;
    if (sizeof(S) > 2) rest += rest_of_sum(sum, v, more);
    sum = more;
  }
  __device__ inline T value() const { return rest - rest == (T)0 ? sum + rest : sum; }
};

template <class Fold>
__device__ inline T warp_fold(T v) {
  for (int o = 16; o; o >>= 1) v = Fold::both(v, __shfl_xor_sync(0xffffffffu, v, o));
  return v;
}

constexpr int ROW_PARTS = 33;  // one part for each warp, and one for the whole row

// Folds the values of all lanes of a row and returns the result to each of them. `part` has room
// for ROW_PARTS values.
template <class Fold>
__device__ inline T row_fold(T v, const Row& row, T* part) {
  v = warp_fold<Fold>(v);
  if (row.lanes == 32) return v;
  const int warps = blockDim.x >> 5, warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  if (lane == 0) part[warp] = v;
  __syncthreads();
  if (warp == 0) {
    v = warp_fold<Fold>(lane < warps ? part[lane] : Fold::none());
    if (lane == 0) part[32] = v;
  }
  __syncthreads();
  return part[32];
}

// A row in registers. Each thread holds up to HELD of its elements, in packs of 16 bytes. If the
// row is packed, the elements of a pack are neighbours and take one load. Otherwise they are
// `row.lanes` elements apart. The elements that do not fit are read again in each pass.
constexpr int PACK = 16 / sizeof(S);
struct alignas(16) Pack { S v[PACK]; };
struct Columns { T v[PACK]; };
struct Held { const S* x; int columns; Row row; bool packed; Columns pack[HELD / PACK]; };

__device__ inline bool aligned(const void* p) { return (size_t)p % 16 == 0; }

// Returns the position in the row of element j of the lane's pack p, counting packs from `base`.
__device__ inline int place(const Held& h, int base, int p, int j) {
  return h.packed ? base + (p * h.row.lanes + h.row.lane) * PACK + j
                  : base + (p * PACK + j) * h.row.lanes + h.row.lane;
}

// Loads pack p of an array as long as the row. Past the end it loads the last elements again.
__device__ inline Columns pack_at(const S* x, const Held& h, int base, int p) {
  Columns c;
  if (h.packed) {
    const Pack pack = *(const Pack*)(x + min(place(h, base, p, 0), h.columns - PACK));
    for (int j = 0; j < PACK; ++j) c.v[j] = (T)pack.v[j];
  } else {
    for (int j = 0; j < PACK; ++j) c.v[j] = (T)x[min(place(h, base, p, j), h.columns - 1)];
  }
  return c;
}

// Loads a row into registers. `vectors` says whether all arrays that are combined with the row
// start at multiples of 16 bytes.
__device__ inline Held hold(const Row& row, const S* x, int columns, bool vectors) {
  Held h;
  h.x = x, h.columns = columns, h.row = row, h.packed = vectors && columns % PACK == 0;
#pragma unroll
  for (int p = 0; p < HELD / PACK; ++p) {
    if (p * PACK * row.lanes < columns) h.pack[p] = pack_at(x, h, 0, p);
  }
  return h;
}

// Calls use(pack, base, p) for each of the lane's packs.
template <class Use>
__device__ inline void each_pack(const Held& h, Use use) {
#pragma unroll
  for (int p = 0; p < HELD / PACK; ++p) {
    if (p * PACK * h.row.lanes < h.columns) use(h.pack[p], 0, p);
  }
  const int whole = HELD * h.row.lanes;
  for (int base = whole; base < h.columns; base += whole) {
    for (int p = 0; p < HELD / PACK; ++p) use(pack_at(h.x, h, base, p), base, p);
  }
}

template <class Use, class... C>
__device__ inline void each_of(
    const Held& h, int base, int p, Use use, const Columns& c, const C&... others) {
  for (int j = 0; j < PACK; ++j) {
    const int at = place(h, base, p, j);
    if (at < h.columns) use(c.v[j], others.v[j]..., at);
  }
}

// Calls use(v, w..., k) for each of the lane's elements v, with the elements w of the other arrays
// at the same position k.
template <class Use, class... Others>
__device__ inline void each(const Held& h, Use use, const Others*... others) {
  each_pack(h, [&](const Columns& c, int base, int p) {
    each_of(h, base, p, use, c, pack_at(others, h, base, p)...);
  });
}

// Returns the sum of use(v, w..., k) over the elements of the row, to each lane.
template <class Use, class... Others>
__device__ inline T row_sum(const Held& h, T* part, Use use, const Others*... others) {
  Total total = {};
  each_pack(h, [&](const Columns& c, int base, int p) {
    const auto add = [&](auto... v) { total.add(use(v...)); };
    each_of(h, base, p, add, c, pack_at(others, h, base, p)...);
  });
  return row_fold<Sum>(total.value(), h.row, part);
}

// Returns the sum of use(v, k) over the elements of the row, to each lane. In registers, use(v, k)
// takes the place of v: `is_kept` tells for which elements.
template <class Use>
__device__ inline T row_sum_kept(Held& h, T* part, Use use) {
  Total total = {};
#pragma unroll
  for (int p = 0; p < HELD / PACK; ++p) {
    if (p * PACK * h.row.lanes >= h.columns) continue;
    for (int j = 0; j < PACK; ++j) {
      const int at = place(h, 0, p, j);
      if (at < h.columns) total.add(h.pack[p].v[j] = use(h.pack[p].v[j], at));
    }
  }
  const int whole = HELD * h.row.lanes;
  for (int base = whole; base < h.columns; base += whole) {
    for (int p = 0; p < HELD / PACK; ++p) {
      each_of(h, base, p, [&](T v, int k) { total.add(use(v, k)); }, pack_at(h.x, h, base, p));
    }
  }
  return row_fold<Sum>(total.value(), h.row, part);
}

__device__ inline bool is_kept(const Held& h, int at) { return at < HELD * h.row.lanes; }

template <class Use, class... C>
__device__ inline void store_of(
    const Held& h, int base, int p, S* y, Use use, const Columns& c, const C&... others) {
  if (h.packed) {
    const int at = place(h, base, p, 0);
    if (at >= h.columns) return;
    Pack pack;
    for (int j = 0; j < PACK; ++j) pack.v[j] = (S)use(c.v[j], others.v[j]..., at + j);
    *(Pack*)(y + at) = pack;
    return;
  }
  for (int j = 0; j < PACK; ++j) {
    const int at = place(h, base, p, j);
    if (at < h.columns) y[at] = (S)use(c.v[j], others.v[j]..., at);
  }
}

// Stores y[k] = use(v, w..., k) for each of the lane's elements.
template <class Use, class... Others>
__device__ inline void store_each(const Held& h, S* y, Use use, const Others*... others) {
  each_pack(h, [&](const Columns& c, int base, int p) {
    store_of(h, base, p, y, use, c, pack_at(others, h, base, p)...);
  });
}

constexpr int AT_ONCE = 16;

// The block that arrives last writes total = sum_n loss[n] / divisor. Every thread must call this
// function, after thread 0 has written all losses of the block, so that a single fence before its
// ticket makes all of them visible.
static __device__ void sum_up(
    T* loss, int rows, T* total, T divisor, T* part, unsigned int* ticket) {
  __shared__ bool last;
  if (threadIdx.x == 0) {
    __threadfence();
    last = atomicAdd(ticket, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  if (!last) return;
  __threadfence();
  Total sums = {};
  for (int n = threadIdx.x; n < rows; n += AT_ONCE * blockDim.x) {
    T v[AT_ONCE];  // these loads are in flight together, which hides their latency
    for (int j = 0; j < AT_ONCE; ++j) {
      v[j] = ((const volatile T*)loss)[min(n + j * (int)blockDim.x, rows - 1)];
    }
    for (int j = 0; j < AT_ONCE; ++j) sums.add(n + j * (int)blockDim.x < rows ? v[j] : (T)0);
  }
  const T sum = row_fold<Sum>(sums.value(), {0, (int)threadIdx.x, (int)blockDim.x}, part);
  if (threadIdx.x == 0) {
    *total = sum / divisor;
    *ticket = 0;
  }
}

// Writes the losses of the block's rows, and the total of all blocks. Every thread must call this
// function; the first lane of each row passes the loss of its row as `own`.
static __device__ void add_up(
    T own, const Row& row, T* loss, int rows, T* total, T divisor, T* part, unsigned int* ticket) {
  const int each = row.lanes == 32 ? blockDim.x >> 5 : 1, first = (int)blockIdx.x * each;
  if (row.lane == 0) part[row.at - first] = own;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int r = first; r < first + each && r < rows; ++r) loss[r] = part[r - first];
  }
  sum_up(loss, rows, total, divisor, part, ticket);
}

// columns -----------------------------------------------------------------------------------------

constexpr int WIDTH = TILE_LANES * PACK;    // columns of a block
constexpr int TILE_PARTS = 33 * WIDTH;      // the total, and one part for each warp
// A tile of columns. TILE_LANES threads side by side read one row, and each such group takes every
// `step`-th row. If the tile is packed, a lane's columns are neighbours and take one load of 16
// bytes. Otherwise they are TILE_LANES apart, so that neighbouring lanes read neighbouring columns.
struct Tile { int first, lane, row, step; bool packed; };

__device__ inline Tile this_tile(int columns, bool vectors) {
  const int thread = threadIdx.x, tiles = (columns + WIDTH - 1) / WIDTH;
  return {(int)blockIdx.x % tiles * WIDTH, thread % TILE_LANES, thread / TILE_LANES,
          (int)blockDim.x / TILE_LANES, vectors && columns % PACK == 0};
}

// The rows of this block, when several blocks divide the rows of a tile into consecutive shares.
struct Share { int at, first, rows; };

__device__ inline Share this_share(int columns, int rows) {
  const int tiles = (columns + WIDTH - 1) / WIDTH;
  const int shares = (int)gridDim.x / tiles, at = (int)blockIdx.x / tiles;
  const int most = (rows + shares - 1) / shares, first = min(at * most, rows);
  return {at, first, min(most, rows - first)};
}

// Returns the position of the lane's column j within the tile.
__device__ inline int place(const Tile& tile, int j) {
  return tile.packed ? tile.lane * PACK + j : j * TILE_LANES + tile.lane;
}

// Loads the lane's columns of a row. Past the last column it loads the last columns again.
__device__ inline Columns load(const Tile& tile, const S* row, int columns) {
  Columns c;
  if (tile.packed) {
    const Pack pack = *(const Pack*)(row + min(tile.first + place(tile, 0), columns - PACK));
    for (int j = 0; j < PACK; ++j) c.v[j] = (T)pack.v[j];
  } else {
    for (int j = 0; j < PACK; ++j) c.v[j] = (T)row[min(tile.first + place(tile, j), columns - 1)];
  }
  return c;
}

// Loads the elements of an array (columns,) of type V for the lane's columns.
template <class V>
__device__ inline Columns load_each(const Tile& tile, const V* array, int columns) {
  Columns c;
  for (int j = 0; j < PACK; ++j) c.v[j] = (T)array[min(tile.first + place(tile, j), columns - 1)];
  return c;
}

__device__ inline void store(const Tile& tile, S* row, int columns, const Columns& c) {
  if (tile.packed) {
    const int at = tile.first + place(tile, 0);
    Pack pack;
    for (int j = 0; j < PACK; ++j) pack.v[j] = (S)c.v[j];
    if (at < columns) *(Pack*)(row + at) = pack;
    return;
  }
  for (int j = 0; j < PACK; ++j) {
    const int at = tile.first + place(tile, j);
    if (at < columns) row[at] = (S)c.v[j];
  }
}

// The number of rows that a thread loads before it uses the first, which hides the latency.
constexpr int AHEAD = PACK > 4 ? 2 : 4;

// Calls use(v, n) with the lane's columns of every row n of x that this thread works on.
template <class Use>
__device__ inline void each_row(const Tile& tile, const S* x, int columns, int rows, Use use) {
  for (int n = tile.row; n < rows; n += AHEAD * tile.step) {
    Columns v[AHEAD];
    for (int j = 0; j < AHEAD; ++j) {
      v[j] = load(tile, x + (size_t)min(n + j * tile.step, rows - 1) * columns, columns);
    }
    for (int j = 0; j < AHEAD; ++j) {
      const int at = n + j * tile.step;
      if (at < rows) use(v[j], at);
    }
  }
}

// The same for two matrices: use(v, w, n).
template <class Use>
__device__ inline void each_pair(const Tile& tile, const S* x, const S* z, int columns, int rows,
                                 Use use) {
  for (int n = tile.row; n < rows; n += 2 * tile.step) {
    const size_t one = (size_t)n * columns, other = (size_t)min(n + tile.step, rows - 1) * columns;
    const Columns v = load(tile, x + one, columns), w = load(tile, z + one, columns);
    const Columns second = load(tile, x + other, columns), third = load(tile, z + other, columns);
    use(v, w, n);
    const int at = n + tile.step;
    if (at < rows) use(second, third, at);
  }
}

// The sums of the lane's columns.
struct Totals {
  Total of[PACK];
  __device__ inline void add(int j, T v) { of[j].add(v); }
};

// Adds up c over the block's rows. part[k] becomes the sum of column k of the tile; `part` has room
// for TILE_PARTS values.
__device__ inline void tile_sum(const Tile& tile, const Totals& c, T* part) {
  const int warps = blockDim.x >> 5, warp = threadIdx.x >> 5;
  for (int j = 0; j < PACK; ++j) {
    T v = c.of[j].value();
    for (int o = TILE_LANES; o < 32; o <<= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
    if (tile.row % (32 / TILE_LANES) == 0) part[(1 + warp) * WIDTH + place(tile, j)] = v;
  }
  __syncthreads();
  for (int k = threadIdx.x; k < WIDTH; k += blockDim.x) {
    T v = 0;
    for (int w = 0; w < warps; ++w) v += part[(1 + w) * WIDTH + k];
    part[k] = v;
  }
  __syncthreads();
}

// Returns the sums of the lane's columns after tile_sum.
__device__ inline Columns summed(const Tile& tile, const T* part) {
  Columns c;
  for (int j = 0; j < PACK; ++j) c.v[j] = part[place(tile, j)];
  return c;
}

// Writes the sums of tile_sum to an array (columns,).
template <class V>
__device__ inline void store_sums(const Tile& tile, V* array, int columns, const T* part) {
  for (int k = threadIdx.x; k < WIDTH; k += blockDim.x) {
    const int at = tile.first + k;
    if (at < columns) array[at] = (V)part[k];
  }
}
