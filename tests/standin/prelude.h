// The part of CUDA C that kernels use outside of threads: types, intrinsics, CuPy's half types.
#pragma once
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <type_traits>
#include <utility>

#define __device__
#define __host__
#define __global__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __constant__ static
#define __launch_bounds__(...)
#define __restrict__ __restrict

template <class To, class From>
static inline To standin_bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "");
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

// cuda_bf16.h: stored only; arithmetic is done in float.
struct __nv_bfloat16 {
  uint16_t data;
  __nv_bfloat16() = default;
  template <class V, class = std::enable_if_t<std::is_arithmetic<V>::value>>
  __nv_bfloat16(V v) {  // to nearest, ties to even
    const float f = (float)v;
    const uint32_t u = standin_bits<uint32_t>(f);
    data = f != f ? 0x7fc0 : (uint16_t)((u + 0x7fffu + ((u >> 16) & 1)) >> 16);
  }
  operator float() const { return standin_bits<float>((uint32_t)data << 16); }
};

// cuda_fp16.h, for a RawKernel: two halves give a half, rounded at every operation.
struct __half {
  _Float16 data;
  __half() = default;
  template <class V, class = std::enable_if_t<std::is_arithmetic<V>::value>>
  __half(V v) : data((_Float16)v) {}
  operator float() const { return (float)data; }
  __half& operator+=(const __half& o) { data = data + o.data; return *this; }
  __half& operator-=(const __half& o) { data = data - o.data; return *this; }
  __half& operator*=(const __half& o) { data = data * o.data; return *this; }
  __half& operator/=(const __half& o) { data = data / o.data; return *this; }
};
typedef __half half;
template <class V> using standin_if_half = std::enable_if_t<std::is_same<V, __half>::value, V>;
template <class V> static inline standin_if_half<V> operator+(V a, V b) { return a += b; }
template <class V> static inline standin_if_half<V> operator-(V a, V b) { return a -= b; }
template <class V> static inline standin_if_half<V> operator*(V a, V b) { return a *= b; }
template <class V> static inline standin_if_half<V> operator/(V a, V b) { return a /= b; }
static inline float __half2float(__half v) { return v; }
static inline __half __float2half(float v) { return __half(v); }
static inline __half __float2half_rn(float v) { return __half(v); }

typedef unsigned int uint;
typedef long long longlong;
typedef unsigned long long ulonglong;
struct uint2 { unsigned x, y; };
struct uint4 { unsigned x, y, z, w; };
struct alignas(16) ulonglong2 { unsigned long long x, y; };
struct alignas(16) ulonglong4 { unsigned long long x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
static inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
  return {x, y, z, w};
}
static inline ulonglong2 make_ulonglong2(ulonglong x, ulonglong y) { return {x, y}; }
static inline ulonglong4 make_ulonglong4(ulonglong x, ulonglong y, ulonglong z, ulonglong w) {
  return {x, y, z, w};
}
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

static inline unsigned __umulhi(unsigned a, unsigned b) {
  return (unsigned)(((uint64_t)a * b) >> 32);
}
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return (unsigned long long)(((unsigned __int128)a * b) >> 64);
}
static inline int __popc(unsigned v) { return __builtin_popcount(v); }
static inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
static inline int __clz(int v) { return v ? __builtin_clz((unsigned)v) : 32; }
static inline int __ffs(int v) { return __builtin_ffs(v); }
static inline float __uint_as_float(unsigned v) { return standin_bits<float>(v); }
static inline unsigned __float_as_uint(float v) { return standin_bits<unsigned>(v); }
static inline float __int_as_float(int v) { return standin_bits<float>(v); }
static inline int __float_as_int(float v) { return standin_bits<int>(v); }
static inline double __longlong_as_double(long long v) { return standin_bits<double>(v); }
static inline long long __double_as_longlong(double v) { return standin_bits<long long>(v); }

static inline float rsqrtf(float v) { return 1.0f / sqrtf(v); }
static inline float rsqrt(float v) { return 1.0f / sqrtf(v); }
static inline double rsqrt(double v) { return 1.0 / sqrt(v); }
#define __expf(v) expf(v)  // glibc declares these names itself
#define __logf(v) logf(v)
#define __powf(a, b) powf(a, b)
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __saturatef(float v) { return v > 0.0f ? (v < 1.0f ? v : 1.0f) : 0.0f; }
template <class T> static inline T __ldg(const T* p) { return *p; }
template <class T> static inline T __ldcg(const T* p) { return *p; }

// CUDA's overloads, NaN included: the other operand wins.
#define STANDIN_MIN_MAX(type)                                             \
  static inline type min(type a, type b) { return b < a ? b : a; }        \
  static inline type max(type a, type b) { return a < b ? b : a; }
STANDIN_MIN_MAX(int)
STANDIN_MIN_MAX(unsigned)
STANDIN_MIN_MAX(long)
STANDIN_MIN_MAX(unsigned long)
STANDIN_MIN_MAX(long long)
STANDIN_MIN_MAX(unsigned long long)
static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline double min(double a, double b) { return fmin(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }
static inline double min(float a, double b) { return fmin(a, b); }
static inline double max(float a, double b) { return fmax(a, b); }
static inline double min(double a, float b) { return fmin(a, b); }
static inline double max(double a, float b) { return fmax(a, b); }
