// CUDA's keywords and functions on the CPU, where one thread works on all elements or rows in turn.
#include <math.h>
#include <stdint.h>

#include <utility>

#define __device__
#define __global__
#define __shared__
#define __launch_bounds__(...)

union Slot { void* p; double d; long long i; unsigned long long u; };

static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return (unsigned long long)(((unsigned __int128)a * b) >> 64);
}
static inline int min(int a, int b) { return b < a ? b : a; }
static inline int max(int a, int b) { return a < b ? b : a; }
static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline float rsqrt(float a) { return 1.0f / sqrtf(a); }

// With GNU's vector mathematics, a loop computes as many of these at a time as a vector has lanes.
#ifdef VECTOR_MATH
#define VECTOR_FUNCTION(name) \
  extern "C" __attribute__((simd("notinbranch"))) float name(float) noexcept;
VECTOR_FUNCTION(expf) VECTOR_FUNCTION(expm1f) VECTOR_FUNCTION(logf) VECTOR_FUNCTION(log1pf)
VECTOR_FUNCTION(tanhf) VECTOR_FUNCTION(erff) VECTOR_FUNCTION(erfcf)
#endif

// Reads a kernel's parameter from a slot.
template <class A> struct From {
  static A slot(const Slot& s) { return (A)s.i; }
};
template <class A> struct From<A*> {
  static A* slot(const Slot& s) { return (A*)s.p; }
};
template <> struct From<double> {
  static double slot(const Slot& s) { return s.d; }
};
template <> struct From<float> {
  static float slot(const Slot& s) { return (float)s.d; }
};

// Calls a kernel of rows or columns for one block after another. The slots after the kernel's
// parameters hold the number of blocks, the first block and the end.
static thread_local int block_, blocks_;
template <class... A, size_t... I>
static inline void each_of_(void (*kernel)(A...), const Slot* a, std::index_sequence<I...>) {
  blocks_ = (int)a[sizeof...(A)].i;
  const int end = (int)a[sizeof...(A) + 2].i;
  for (block_ = (int)a[sizeof...(A) + 1].i; block_ < end; ++block_) kernel(From<A>::slot(a[I])...);
}
template <class... A>
static inline void each_(void (*kernel)(A...), const Slot* a) {
  each_of_(kernel, a, std::index_sequence_for<A...>{});
}
