// A grid of CUDA threads on one CPU thread: a fiber per thread of a block, blocks one after another.
// The blocks of a kernel that calls __nanosleep are all there at once: one runs until its threads
// wait or sleep, then another takes its turn.
#pragma once
#include <stdio.h>
#include <stdlib.h>

#include "fiber.h"

#undef INFINITY  // a RawKernel has no <math.h> under NVRTC
#undef NAN

struct dim3 { unsigned x, y, z; };
enum StandinState { RUNS, AT_BLOCK_BARRIER, AT_WARP_BARRIER, SLEEPS, DONE };
enum StandinOrder { FORWARD, REVERSE, SHUFFLE, BY_WARPS, BY_WARPS_REVERSE };
struct StandinThread {
  StandinContext context;
  dim3 index;
  StandinState state;
  unsigned mask;  // lanes that it waits for at a warp barrier
  int line;       // where it waits
  unsigned char slot[16];  // what it offers to a shuffle
};

static StandinThread* threads_;
static int current_, count_;
static StandinContext scheduler_;
static char error_[512];
static void (*body_)();
static char* dynamic_shared_;
static dim3 blockIdx, blockDim, gridDim;
static const int warpSize = 32;
#define threadIdx (threads_[current_].index)
extern "C" char __attribute__((weak, visibility("hidden"))) __start_cuda_shared[];
extern "C" char __attribute__((weak, visibility("hidden"))) __stop_cuda_shared[];
#define __shared__ static __attribute__((section("cuda_shared")))

static void fail_(const char* what, int line) {
  if (error_[0]) return;
  const dim3 t = threadIdx;
  snprintf(error_, sizeof error_, "%s (kernel line %d, block %u,%u,%u thread %u,%u,%u)", what, line,
           blockIdx.x, blockIdx.y, blockIdx.z, t.x, t.y, t.z);
}

static void wait_(StandinState state, unsigned mask, int line) {
  StandinThread& me = threads_[current_];
  me.state = state;
  me.mask = mask;
  me.line = line;
  standin_switch(me.context, scheduler_);
}

static int lane_() { return current_ % 32; }
static bool exists_(int lane) {
  return lane >= 0 && lane < 32 && current_ - lane_() + lane < count_;
}
static StandinThread& neighbour_(int lane) { return threads_[current_ - lane_() + lane]; }

// Shuffles and votes: offer a value, wait for the mask, read, and wait until all have read.
template <class T>
static T shuffle_(unsigned mask, T value, int source, int line) {
  static_assert(sizeof(T) <= 16, "");
  memcpy(threads_[current_].slot, &value, sizeof value);
  wait_(AT_WARP_BARRIER, mask, line);
  if (!(mask >> lane_() & 1)) fail_("a lane calls a shuffle whose mask leaves it out", line);
  if (exists_(source)) {
    if (!(mask >> source & 1) || neighbour_(source).state == DONE) {
      fail_("a shuffle reads a lane that does not take part", line);
    }
    memcpy(&value, neighbour_(source).slot, sizeof value);
  } else {
    fail_("a shuffle reads a lane that does not exist", line);
  }
  wait_(AT_WARP_BARRIER, mask, line);
  return value;
}
static int first_(int width) { return lane_() & ~(width - 1); }  // of this lane's segment
template <class T>
static T shuffle_index(int line, unsigned m, T v, int source, int width = 32) {
  return shuffle_(m, v, (source & (width - 1)) + first_(width), line);
}
template <class T>
static T shuffle_xor(int line, unsigned m, T v, int lanes, int width = 32) {
  const int source = lane_() ^ lanes;
  return shuffle_(m, v, source < first_(width) + width ? source : lane_(), line);
}
template <class T>
static T shuffle_down(int line, unsigned m, T v, unsigned lanes, int width = 32) {
  const int source = lane_() + (int)lanes;
  return shuffle_(m, v, source < first_(width) + width ? source : lane_(), line);
}
template <class T>
static T shuffle_up(int line, unsigned m, T v, unsigned lanes, int width = 32) {
  const int source = lane_() - (int)lanes;
  return shuffle_(m, v, source >= first_(width) ? source : lane_(), line);
}
static unsigned vote_(int line, unsigned mask, bool mine) {
  memcpy(threads_[current_].slot, &mine, sizeof mine);
  wait_(AT_WARP_BARRIER, mask, line);
  unsigned ballot = 0;
  for (int lane = 0; lane < 32; ++lane) {
    if (!(mask >> lane & 1) || !exists_(lane) || neighbour_(lane).state == DONE) continue;
    ballot |= (unsigned)(neighbour_(lane).slot[0] & 1) << lane;
  }
  wait_(AT_WARP_BARRIER, mask, line);
  return ballot;
}
static inline unsigned mask_or_all(unsigned mask = 0xffffffffu) { return mask; }
#define __nanosleep(t) wait_(SLEEPS, 0, __LINE__)
#define __syncthreads() wait_(AT_BLOCK_BARRIER, 0, __LINE__)
#define __syncwarp(...) wait_(AT_WARP_BARRIER, mask_or_all(__VA_ARGS__), __LINE__)
#define __shfl_sync(...) shuffle_index(__LINE__, __VA_ARGS__)
#define __shfl_xor_sync(...) shuffle_xor(__LINE__, __VA_ARGS__)
#define __shfl_down_sync(...) shuffle_down(__LINE__, __VA_ARGS__)
#define __shfl_up_sync(...) shuffle_up(__LINE__, __VA_ARGS__)
#define __ballot_sync(mask, p) vote_(__LINE__, mask, (p) ? true : false)
#define __any_sync(mask, p) (vote_(__LINE__, mask, (p) ? true : false) != 0)
#define __all_sync(mask, p) (vote_(__LINE__, mask, (p) ? false : true) == 0)
#define __activemask() 0xffffffffu
#define __threadfence() ((void)0)
#define __threadfence_block() ((void)0)

#define STANDIN_ATOMIC(name, expression)                 \
  template <class T, class U>                            \
  static T name(T* p, U given) {                         \
    const T old = *p, v = (T)given;                      \
    *p = expression;                                     \
    return old;                                          \
  }
STANDIN_ATOMIC(atomicAdd, (T)(old + v))
STANDIN_ATOMIC(atomicSub, (T)(old - v))
STANDIN_ATOMIC(atomicMax, old < v ? v : old)
STANDIN_ATOMIC(atomicMin, v < old ? v : old)
STANDIN_ATOMIC(atomicExch, v)
STANDIN_ATOMIC(atomicOr, (T)(old | v))
STANDIN_ATOMIC(atomicAnd, (T)(old & v))
template <class T>
static T atomicCAS(T* p, T expected, T v) {
  const T old = *p;
  if (old == expected) *p = v;
  return old;
}

static bool free_warp_(int start) {  // let go the lanes whose whole mask has arrived
  const int lanes = count_ - start < 32 ? count_ - start : 32;
  unsigned gone = lanes < 32 ? ~0u << lanes : 0u, waiting = 0;
  for (int lane = 0; lane < lanes; ++lane) {
    const StandinState state = threads_[start + lane].state;
    if (state == DONE) gone |= 1u << lane;
    if (state == AT_WARP_BARRIER) waiting |= 1u << lane;
  }
  bool moved = false;
  while (waiting) {
    const unsigned mask = threads_[start + __builtin_ctz(waiting)].mask;
    unsigned here = 0;
    for (unsigned rest = waiting; rest; rest &= rest - 1) {
      const int lane = __builtin_ctz(rest);
      if (threads_[start + lane].mask == mask) here |= 1u << lane;
    }
    const int line = threads_[start + __builtin_ctz(here)].line;
    waiting &= ~here;
    if (mask & ~gone & ~here) continue;
    moved = true;
    for (unsigned rest = here; rest; rest &= rest - 1) {
      StandinThread& thread = threads_[start + __builtin_ctz(rest)];
      thread.state = RUNS;
      if (thread.line != line) fail_("lanes of one warp wait at different places", thread.line);
    }
  }
  return moved;
}

static bool step_(int thread, int& alive) {  // run one thread until it waits or ends
  if (threads_[thread].state != RUNS || error_[0]) return false;
  current_ = thread;
  standin_switch(scheduler_, threads_[thread].context);
  if (threads_[thread].state == DONE) --alive;
  return true;
}

// Warp by warp, each as far as it gets: finds a missing barrier that lock step hides. Where a thread
// sleeps, it is another block's turn; `turn` says with which warp this block then goes on.
static bool run_warps_(bool reverse, int& alive, int& turn) {
  const int warps = (count_ + 31) / 32;
  bool moved = false;
  for (int w = 0; w < warps; ++w) {
    const int at = (w + turn) % warps, start = 32 * (reverse ? warps - 1 - at : at);
    for (bool more = true; more && !error_[0];) {
      more = false;
      for (int t = start; t < start + 32 && t < count_; ++t) more |= step_(t, alive);
      moved |= more;
      more |= free_warp_(start);
    }
    for (int t = start; t < start + 32 && t < count_; ++t) {
      if (threads_[t].state != SLEEPS) continue;
      turn = at + 1;
      return false;
    }
  }
  return moved;
}

static bool run_all_(int* sequence, bool shuffle, int& alive) {
  static unsigned random = 12345u;
  for (int t = count_ - 1; shuffle && t > 0; --t) {
    random = random * 1664525u + 1013904223u;
    std::swap(sequence[t], sequence[(random >> 8) % (unsigned)(t + 1)]);
  }
  bool moved = false;
  for (int t = 0; t < count_; ++t) moved |= step_(sequence[t], alive);
  return moved;
}

static bool free_block_(int alive) {  // let the block go when all that live have arrived
  int waiting = 0, line = 0, other = 0;
  for (int t = 0; t < count_; ++t) {
    if (threads_[t].state != AT_BLOCK_BARRIER) continue;
    ++waiting;
    if (line && threads_[t].line != line) other = threads_[t].line;
    line = threads_[t].line;
  }
  if (!waiting || waiting != alive) return false;
  if (other) fail_("threads of one block wait at different __syncthreads", other);
  for (int t = 0; t < count_; ++t) {
    if (threads_[t].state == AT_BLOCK_BARRIER) threads_[t].state = RUNS;
  }
  return true;
}

static void entry_() {
  body_();
  threads_[current_].state = DONE;
  standin_switch(threads_[current_].context, scheduler_);
  abort();
}

static const int STANDIN_MULTIPROCESSORS = 132;  // those of an H100
static const int STANDIN_PATIENCE = 10000;       // rounds in which all blocks only sleep

// A block of the grid: its threads, its shared memory, and how many of its threads have not ended.
struct StandinBlock {
  StandinThread* threads;
  char *fixed, *dynamic;
  int alive, first_stack, turn;
};

static size_t fixed_bytes_() {
  return __start_cuda_shared ? __stop_cuda_shared - __start_cuda_shared : 0;
}

static void enter_(const StandinBlock& block, unsigned number) {
  blockIdx = {number % gridDim.x, number / gridDim.x % gridDim.y, number / gridDim.x / gridDim.y};
  threads_ = block.threads;
  dynamic_shared_ = block.dynamic;
}

static void start_block_(StandinBlock& block) {
  for (int t = 0; t < count_; ++t) {
    StandinThread& thread = threads_[t];
    const unsigned u = (unsigned)t;
    thread.index = {u % blockDim.x, u / blockDim.x % blockDim.y, u / blockDim.x / blockDim.y};
    thread.state = RUNS;
    standin_prepare(thread.context, block.first_stack + t, entry_);
  }
  block.alive = count_;
}

static bool wake_() {  // let the threads that sleep run again
  bool any = false;
  for (int t = 0; t < count_; ++t) {
    if (threads_[t].state != SLEEPS) continue;
    threads_[t].state = RUNS;
    any = true;
  }
  return any;
}

// Runs a block until all its threads have ended, or until those that live wait or sleep. Returns
// whether it did more than to look once behind each sleep.
static bool run_block_(StandinBlock& block, int* sequence, int order) {
  for (int t = 0; t < count_; ++t) sequence[t] = order == REVERSE ? count_ - 1 - t : t;
  int rounds = 0, &alive = block.alive;
  while (alive && !error_[0]) {
    bool moved = order >= BY_WARPS ? run_warps_(order == BY_WARPS_REVERSE, alive, block.turn)
                                   : run_all_(sequence, order == SHUFFLE, alive);
    moved |= free_block_(alive);
    for (int start = 0; start < count_; start += 32) moved |= free_warp_(start);
    rounds += moved;
    if (moved || !alive) continue;
    if (wake_()) return rounds > 1;
    for (int t = 0; t < count_; ++t) {
      if (threads_[t].state != DONE) current_ = t;
    }
    fail_("deadlock: some threads never reach the barrier that this one waits at",
          threads_[current_].line);
  }
  for (int t = 0; t < count_; ++t) {
    if (!standin_intact(block.first_stack + t)) {
      fail_("a thread used more stack than the stand-in gives it", 0);
    }
  }
  return true;
}

static void soil_(char* memory, size_t bytes) {  // shared memory starts as rubbish: NaN
  if (bytes) memset(memory, 0xff, bytes);
}

static void run_grid_(int order, size_t shared_bytes) {
  int* sequence = (int*)malloc(sizeof(int) * count_);
  const unsigned blocks = gridDim.x * gridDim.y * gridDim.z;
  StandinBlock block = {threads_, nullptr, dynamic_shared_, 0, 0, 0};
  for (unsigned q = 0; q < blocks && !error_[0]; ++q) {
    enter_(block, order == REVERSE ? blocks - 1 - q : q);  // blocks have no promised order
    soil_(dynamic_shared_, shared_bytes);
    soil_(__start_cuda_shared, fixed_bytes_());
    start_block_(block);
    run_block_(block, sequence, order);
  }
  free(sequence);
}

// The same with all blocks there at once.
static void run_resident_grid_(int order, size_t shared_bytes) {
  const unsigned blocks = gridDim.x * gridDim.y * gridDim.z;
  if (blocks > STANDIN_MULTIPROCESSORS) {
    snprintf(error_, sizeof error_, "%u blocks wait for each other, and %d run at the same time",
             blocks, STANDIN_MULTIPROCESSORS);
    return;
  }
  const size_t fixed = fixed_bytes_(), each = (shared_bytes + 127) / 64 * 64;
  StandinBlock* all = (StandinBlock*)calloc(blocks, sizeof(StandinBlock));
  int* sequence = (int*)malloc(sizeof(int) * count_);
  char* memory = (char*)aligned_alloc(64, (each + (fixed + 63) / 64 * 64) * blocks);
  standin_stacks(count_ * blocks);
  for (unsigned b = 0; b < blocks; ++b) {
    char* const own = memory + (each + (fixed + 63) / 64 * 64) * b;
    soil_(own, each + fixed);
    all[b] = {(StandinThread*)calloc(count_, sizeof(StandinThread)), own + each, own, 0,
              (int)b * count_, 0};
    enter_(all[b], b);
    start_block_(all[b]);
  }
  unsigned left = blocks, random = 54321u;
  for (int idle = 0; left && !error_[0];) {
    bool moved = false;
    for (unsigned q = 0; q < blocks && left && !error_[0]; ++q) {
      unsigned b = order == REVERSE || order == BY_WARPS_REVERSE ? blocks - 1 - q : q;
      if (order == SHUFFLE) b = (random = random * 1664525u + 1013904223u) / 65536u % blocks;
      if (!all[b].alive) continue;
      enter_(all[b], b);
      if (fixed) memcpy(__start_cuda_shared, all[b].fixed, fixed);
      moved |= run_block_(all[b], sequence, order);
      if (fixed) memcpy(all[b].fixed, __start_cuda_shared, fixed);
      left -= !all[b].alive;
    }
    idle = moved ? 0 : idle + 1;
    if (idle > STANDIN_PATIENCE) fail_("deadlock: all blocks wait for each other", 0);
  }
  for (unsigned b = 0; b < blocks; ++b) free(all[b].threads);
  free(memory);
  free(sequence);
  free(all);
}

template <class A> struct StandinArgument {
  static bool fits(size_t bytes, size_t item_bytes) { return !item_bytes && bytes == sizeof(A); }
};
template <class A> struct StandinArgument<A*> {
  static bool fits(size_t, size_t item_bytes) { return item_bytes == sizeof(A); }
};
template <> struct StandinArgument<void*> {
  static bool fits(size_t, size_t item_bytes) { return item_bytes != 0; }
};

template <class... A, size_t... I>
static void call_(void (*kernel)(A...), void** values, std::index_sequence<I...>) {
  kernel(*(A*)values[I]...);
}

// sizes: bytes of each argument; items: bytes of an element, 0 for a scalar.
// With FLUSH_TO_ZERO, numbers below 2**-126 count as 0 as long as an object of this type lives.
#ifdef FLUSH_TO_ZERO
#include <xmmintrin.h>
struct FlushToZero {
  const unsigned before = _mm_getcsr();
  FlushToZero() { _mm_setcsr(before | 0x8040); }  // results and arguments
  ~FlushToZero() { _mm_setcsr(before); }
};
#else
struct FlushToZero {
  FlushToZero() {}
};
#endif

template <class... A>
static const char* launch_(void (*kernel)(A...), void** values, const size_t* sizes,
                           const size_t* items, int given, const unsigned* grid,
                           const unsigned* block, size_t shared_bytes, int order,
                           bool resident) {
  static void (*kernel_)(A...);
  static void** values_;
  kernel_ = kernel;
  values_ = values;
  error_[0] = 0;
  constexpr int wanted = (int)sizeof...(A);
  if (given != wanted) {
    snprintf(error_, sizeof error_, "the kernel takes %d arguments, %d given", wanted, given);
    return error_;
  }
  int k = 0, wrong = -1;
  ((wrong = StandinArgument<A>::fits(sizes[k], items[k]) ? wrong : k, ++k), ...);
  if (wrong >= 0) {
    snprintf(error_, sizeof error_, "argument %d (%zu bytes%s) does not fit the kernel's parameter",
             wrong, items[wrong] ? items[wrong] : sizes[wrong], items[wrong] ? " an element" : "");
    return error_;
  }
  body_ = [] { call_(kernel_, values_, std::index_sequence_for<A...>{}); };
  gridDim = {grid[0], grid[1], grid[2]};
  blockDim = {block[0], block[1], block[2]};
  count_ = (int)(block[0] * block[1] * block[2]);
  standin_stacks(count_);
  threads_ = (StandinThread*)calloc(count_, sizeof(StandinThread));
  dynamic_shared_ = (char*)aligned_alloc(64, (shared_bytes + 127) / 64 * 64);
  StandinThread* const threads = threads_;
  char* const dynamic = dynamic_shared_;
  const FlushToZero while_it_runs;
  resident ? run_resident_grid_(order, shared_bytes) : run_grid_(order, shared_bytes);
  free(threads);
  free(dynamic);
  return error_[0] ? error_ : nullptr;
}
