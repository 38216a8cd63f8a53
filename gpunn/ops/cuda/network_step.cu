// The whole training step of a small network in one launch: a hidden layer, an output layer and the
// cross-entropy of labels, forward and backward, and the update of all parameters. T is S.
//
// A block owns some input features with their weights, and some rows of the batch. It multiplies
// its features with their weights. The owner of a row adds up these parts and computes the rest of
// the row, up to the gradients in front of the hidden layer's activation. Then each block computes
// the gradients of its parameters and updates them. Before a stage the blocks wait for each other,
// so all of them must run at the same time.
//
// The text before this one defines the most features of a block (FEATURES), hidden units (HIDDEN)
// and classes (CLASSES); the functions of the formulas; and ACTIVATE(at, x, y),
// THROUGH(at, gy, x, y, gx), UPDATE(at, g) and COUNT, which call them with their other parameters.
// It defines KEEP if there is dropout, and GUARDED if a guard judges the step.

#include "cross_entropy.cuh"

constexpr int THREADS = 256, WARPS = THREADS / 32;
constexpr int ROWS = 32;              // the rows of a tile
constexpr int STRIDE = FEATURES + 4;  // of a tile of x; neighbouring rows are in other banks
constexpr int UNITS = HIDDEN / 32;    // the hidden units of a lane
constexpr int FOURS = FEATURES / 4 * HIDDEN / THREADS;  // the groups of gradients of a thread
constexpr int PATIENCE = 1 << 23;     // how often a block looks before it gives up: for seconds
static_assert(ROWS <= FEATURES, "Room::w has room for ROWS rows of gradients");

struct alignas(16) Four {
  T v[4];
  __device__ inline void add(const Four& more, T factor) {
    for (int j = 0; j < 4; ++j) v[j] += more.v[j] * factor;
  }
};

// What the threads of a block share.
struct Room {
  alignas(16) T x[ROWS * STRIDE];
  alignas(16) T w[FEATURES * HIDDEN];  // of the block's features; later gradients (ROWS, H)
  T out_w[HIDDEN * CLASSES];
  T z[WARPS * CLASSES], e[WARPS * CLASSES];  // of a row of each warp
  T part[ROW_PARTS];
};

// waiting -----------------------------------------------------------------------------------------

// The numbers that blocks count: how often they came to a meeting, how many have ended, and whether
// one of them waited in vain. The last block of a launch sets the first two to 0.
enum { COME, ENDED, FAILED };

// Waits until all blocks have come to the launch's meeting of this number. Behind it, `seen` reads
// what they wrote before it. If a block does not come, the wait ends, and so do all later ones.
__device__ inline void meet(unsigned int* counts, unsigned int number) {
  __syncthreads();
  if (threadIdx.x == 0 && gridDim.x > 1) {
    volatile unsigned int* now = counts;
    __threadfence();
    atomicAdd(counts + COME, 1u);
    for (int looks = 0; now[COME] < number * gridDim.x && !now[FAILED]; ++looks) {
      if (looks == PATIENCE) now[FAILED] = 1;
      __nanosleep(20);
    }
    __threadfence();
  }
  __syncthreads();
}

__device__ inline void end(unsigned int* counts) {
  if (threadIdx.x != 0 || gridDim.x == 1) return;
  if (atomicAdd(counts + ENDED, 1u) == gridDim.x - 1) counts[COME] = counts[ENDED] = 0;
}

__device__ inline bool has_failed(const unsigned int* counts) {
  return ((const volatile unsigned int*)counts)[FAILED] != 0;  // NaN is the loss of such a step
}

// Reads from the cache of all multiprocessors, because this one's own may be out of date.
__device__ inline T seen(const T* p) { return __ldcg(p); }

// the network -------------------------------------------------------------------------------------

// The bits of dropout. Element i of the hidden layer's outputs takes its own bits of the stream.
struct Bits {
#ifdef KEEP
  Words words;
  int width;
  unsigned int threshold;
  T scale;
  __device__ inline T dropped(T v, long long i) { return KEEP ? T(v * scale) : T(0); }
#else
  __device__ inline T dropped(T v, long long) { return v; }
#endif
};

// The sizes, the places of the parameters in their flat buffers, and what a block owns.
struct Net {
  int features, hidden, classes, rows;
  int w, bias, out_w, out_bias;
  int parts, first, own;  // blocks with features; the first feature, and the number of them

  __device__ inline int others() const { return hidden * classes + hidden + classes; }
  // Returns the first of a block's share of all parameters but w.
  __device__ inline int start(unsigned int block) const {
    return (int)((long long)block * others() / gridDim.x);
  }
  __device__ inline int place(int k) const {
    const int products = hidden * classes;
    return k < products ? out_w + k : k - products < hidden ? bias + k - products
                                                            : out_bias + k - products - hidden;
  }
};

// Numbers of the launch that other blocks read: `z` has a part (N, H) of each block with features,
// `y` and `gz` are (N, H), `e`, the gradients of the logits, is (N, C), and `losses` (N,). Then
// come the loss of the batch and a sum of squares of each block.
struct Space {
  T *z, *y, *gz, *e, *losses, *total, *squares;
  __device__ inline Space(T* start, const Net& net) {
    const size_t size = (size_t)net.rows * net.hidden;
    z = start, y = z + net.parts * size, gz = y + size, e = gz + size;
    losses = e + (size_t)net.rows * net.classes, total = losses + net.rows, squares = total + 1;
  }
};

// Loads rows [from, from + ROWS) of the block's features, as far as there are any.
__device__ inline void load_x(Room& room, const Net& net, const T* x, int from) {
  for (int k = threadIdx.x; k < ROWS * FEATURES; k += THREADS) {
    const int n = k / FEATURES, d = k % FEATURES;
    if (from + n >= net.rows || d >= net.own) continue;
    room.x[n * STRIDE + d] = x[(size_t)(from + n) * net.features + net.first + d];
  }
}

// Writes the products of the block's features and their weights.
__device__ inline void multiply(Room& room, const Net& net, const T* x, const T* p, T* z) {
  const int wide = (net.hidden + 3) / 4 * 4, fours = wide / 4;
  for (int k = threadIdx.x; k < net.own * wide; k += THREADS) {
    const int d = k / wide, h = k % wide;
    room.w[k] = h < net.hidden ? p[net.w + (net.first + d) * net.hidden + h] : (T)0;
  }
  for (int from = 0; from < net.rows; from += ROWS) {
    __syncthreads();
    load_x(room, net, x, from);
    __syncthreads();
    for (int k = threadIdx.x; k < min(ROWS, net.rows - from) * fours; k += THREADS) {
      const int n = k / fours, h = k % fours * 4;
      Four sum = {};
      for (int d = 0; d < net.own; ++d) {
        sum.add(*(const Four*)(room.w + d * wide + h), room.x[n * STRIDE + d]);
      }
      T* const row = z + (size_t)(from + n) * net.hidden;
      for (int j = 0; j < 4; ++j) {
        if (h + j < net.hidden) row[h + j] = sum.v[j];
      }
    }
  }
}

// Computes row n with a warp: the outputs of the hidden layer from the parts of its products, the
// logits, the loss, and the gradients of both layers.
__device__ inline void compute_row(
    Room& room, const Net& net, const Space& space, Bits& bits, const T* p, int n, long long label,
    double smoothing, double scale FORMULA_PARAMETERS) {
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, classes = net.classes;
  T *const z = room.z + warp * CLASSES, *const e = room.e + warp * CLASSES;
  T x[UNITS], y[UNITS], dropped[UNITS];
  const size_t row = (size_t)n * net.hidden, size = (size_t)net.rows * net.hidden;
#pragma unroll
  for (int j = 0; j < UNITS; ++j) {
    const int h = lane + 32 * j;
    if (h >= net.hidden) continue;
    T sum = 0;
    for (int k = 0; k < net.parts; ++k) sum += seen(space.z + k * size + row + h);
    x[j] = sum + p[net.bias + h];
    ACTIVATE(row + h, x[j], y[j]);
    space.y[row + h] = dropped[j] = bits.dropped(y[j], row + h);
  }
  for (int c = 0; c < classes; ++c) {
    T sum = 0;
#pragma unroll
    for (int j = 0; j < UNITS; ++j) {
      const int h = lane + 32 * j;
      if (h < net.hidden) sum += dropped[j] * room.out_w[h * classes + c];
    }
    sum = warp_fold<Sum>(sum);
    if (lane == 0) z[c] = sum + p[net.out_bias + c];
  }
  __syncwarp();
  const T loss = cross_entropy(z, label, e, classes, smoothing, scale, false, {n, lane, 32},
                               room.part);
  __syncwarp();
  if (lane < classes) space.e[(size_t)n * classes + lane] = e[lane];
  if (lane == 0) space.losses[n] = loss;
#pragma unroll
  for (int j = 0; j < UNITS; ++j) {
    const int h = lane + 32 * j;
    if (h >= net.hidden) continue;
    T gy = 0, gx;
    for (int c = 0; c < classes; ++c) gy += e[c] * room.out_w[h * classes + c];
    THROUGH(row + h, gy, x[j], y[j], gx);
    space.gz[row + h] = bits.dropped(gx, row + h);
  }
  __syncwarp();
}

// Writes the gradients of the weights of the block's features. Returns this thread's sum of their
// squares.
__device__ inline T differentiate(Room& room, const Net& net, const Space& space, const T* x,
                                  T* grad) {
  Four sums[FOURS] = {};
  for (int from = 0; from < net.rows; from += ROWS) {
    const int here = min(ROWS, net.rows - from);
    __syncthreads();
    load_x(room, net, x, from);
    for (int k = threadIdx.x; k < here * net.hidden; k += THREADS) {
      room.w[k] = seen(space.gz + (size_t)from * net.hidden + k);
    }
    __syncthreads();
#pragma unroll
    for (int j = 0; j < FOURS; ++j) {
      const int k = threadIdx.x + j * THREADS, d = k / net.hidden * 4, h = k % net.hidden;
      if (d >= net.own) continue;
      for (int n = 0; n < here; ++n) {
        sums[j].add(*(const Four*)(room.x + n * STRIDE + d), room.w[n * net.hidden + h]);
      }
    }
  }
  T squares = 0;
#pragma unroll
  for (int j = 0; j < 4 * FOURS; ++j) {
    const int k = threadIdx.x + j / 4 * THREADS, d = k / net.hidden * 4 + j % 4;
    if (d >= net.own) continue;
    const T g = sums[j / 4].v[j % 4];
    grad[net.w + (net.first + d) * net.hidden + k % net.hidden] = g;
    squares += g * g;
  }
  return squares;
}

// Returns the gradient of parameter k behind w, a sum over all rows, to every lane of a warp.
__device__ inline T sum_of_rows(const Net& net, const Space& space, int k) {
  const int lane = threadIdx.x & 31, products = net.hidden * net.classes;
  T sum = 0;
  for (int n = lane; n < net.rows; n += 32) {
    const T *e = space.e + (size_t)n * net.classes, *y = space.y + (size_t)n * net.hidden;
    if (k < products) {
      sum += seen(y + k / net.classes) * seen(e + k % net.classes);
    } else if (k < products + net.hidden) {
      sum += seen(space.gz + (size_t)n * net.hidden + k - products);
    } else {
      sum += seen(e + k - products - net.hidden);
    }
  }
  return warp_fold<Sum>(sum);
}

#ifdef KEEP
#define DROPOUT_PARAMETERS , WORDS_PARAMETERS, int width, unsigned int threshold, T kept
#define DROPOUT_VALUES WORDS_VALUE, width, threshold, kept
#else
#define DROPOUT_PARAMETERS
#define DROPOUT_VALUES
#endif

#ifdef GUARDED
#define GUARD_PARAMETERS \
  , long long skip, double weight, long long* go_p, T* factor_p, double* counted_p, \
  long long* first_p, long long* broken_p, long long* steps_p, double* total_p
#else
#define GUARD_PARAMETERS
#endif

// x (N, D), labels (N,), and all parameters p with their gradients; for `space` see above. Writes
// loss = sum_n loss[n] / divisor, and counts the update in `taken`.
extern "C" __global__ void __launch_bounds__(THREADS, 1) network_step(
    const T* x, const long long* labels, T* p, T* grad, T* start, T* loss, const T* rate,
    long long* taken_p, int w, int bias, int out_w, int out_bias,
    double smoothing, double divisor, double scale, int features, int hidden, int classes,
    int rows DROPOUT_PARAMETERS GUARD_PARAMETERS FORMULA_PARAMETERS RULE_PARAMETERS,
    unsigned int* counts) {
  __shared__ Room room;
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, block = blockIdx.x;
  const int blocks = gridDim.x, each = (features + blocks - 1) / blocks;
  const int first = min(block * each, features), own = min(each, features - first);
  const Net net = {features, hidden, classes, rows, w, bias, out_w, out_bias,
                   (features + each - 1) / each, first, own};
  const Space space(start, net);
  Bits bits = {DROPOUT_VALUES};
  const T lr = *rate;
  long long taken = *taken_p;
#ifdef GUARDED
  long long go, first_broken = *first_p, broken = *broken_p, steps = *steps_p;
  double counted, total = *total_p;
  T factor;
#endif

  for (int k = threadIdx.x; k < hidden * classes; k += THREADS) room.out_w[k] = p[out_w + k];
  if (own > 0) multiply(room, net, x, p, space.z + (size_t)block * rows * hidden);
  meet(counts, 1);

  const int share = (rows + blocks - 1) / blocks, past = min((block + 1) * share, rows);
  for (int n = block * share + warp; n < past; n += WARPS) {
    compute_row(room, net, space, bits, p, n, labels[n], smoothing, scale FORMULA_VALUES);
  }
  meet(counts, 2);

  T square = own > 0 ? differentiate(room, net, space, x, grad) : (T)0;
  const int from = net.start(block), to = net.start(block + 1);
  for (int k = from + warp; k < to; k += WARPS) {
    const T g = sum_of_rows(net, space, k);
    if (lane != 0) continue;
    grad[net.place(k)] = g;
    square += g * g;
  }
  if (block == 0 && warp == 0) {
    Total all = {};
    for (int n = lane; n < rows; n += 32) all.add(seen(space.losses + n));
    const T sum = warp_fold<Sum>(all.value());
    if (lane == 0) *space.total = sum / (T)divisor;
  }
#ifdef GUARDED
  square = row_fold<Sum>(square, {0, (int)threadIdx.x, THREADS}, room.part);
  if (threadIdx.x == 0) space.squares[block] = square;
  meet(counts, 3);
  if (threadIdx.x == 0) {
    T squares = 0;
    for (int k = 0; k < blocks; ++k) squares += seen(space.squares + k);
    const T value = has_failed(counts) ? log((T)-1) : seen(space.total);
    judge(0, value + (squares - squares), skip, weight, go, factor, counted, first_broken, broken,
          steps, total);
    room.part[0] = factor;
  }
  __syncthreads();
  factor = room.part[0];
#else
  __syncthreads();
  const T factor = has_failed(counts) ? (T)0 : (T)1;
#endif

  for (int k = threadIdx.x; k < own * hidden; k += THREADS) {
    const int at = w + first * hidden + k;
    UPDATE(at, grad[at]);
  }
  for (int k = from + (int)threadIdx.x; k < to; k += THREADS) {
    const int at = net.place(k);
    UPDATE(at, grad[at]);
  }
  if (block == 0 && threadIdx.x == 0) {
    COUNT
    *taken_p = taken;
    *loss = has_failed(counts) ? log((T)-1) : *space.total;
#ifdef GUARDED
    *go_p = go, *factor_p = factor, *counted_p = counted, *total_p = total;
    *first_p = first_broken, *broken_p = broken, *steps_p = steps;
#endif
  }
  end(counts);
}
