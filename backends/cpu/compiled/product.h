// out (M, N) = a (M, K) b (K, N) in float32. A tile of out stays in registers. The columns of b are
// packed, so that the tile reads them in order; a is not packed. Every element of out adds up its
// products in the order of k, whatever M and N are.
#include <string.h>

typedef long long I;
#if defined(__AVX512F__) || defined(__FMA__)
#include <immintrin.h>
#endif
#ifdef __AVX512F__
constexpr int WIDTH = 16, VECTORS = 4;  // floats in a vector, vectors in a row of a packed panel
constexpr int SUMS = 24;                // vectors in a tile, of 32 registers
#else
constexpr int WIDTH = 8, VECTORS = 2;
constexpr int SUMS = 12;  // vectors in a tile, of 16 registers
#endif
constexpr int MOST_ROWS = 12;
constexpr int FEW_ROWS = 36;  // for which b is not packed
constexpr int NEXT = 4;       // rows of b that are fetched before these rows need them
constexpr int AHEAD = 16;  // rows of b that are fetched before they are packed, if they lie so
constexpr int FAR = 512;   // far apart that the processor does not foresee them
constexpr I DEPTH = 256, COLUMNS = 512, ROWS = 240;  // of a block, whose packed part stays in L2

typedef float V __attribute__((vector_size(4 * WIDTH), may_alias));
typedef float Anywhere __attribute__((vector_size(4 * WIDTH), may_alias, aligned(4)));

// a * b + c. The fused form is called by name. If the compiler chose (it does so tile by tile when
// it tunes for Zen), the bits of a row would depend on the size of its batch.
static inline V multiply_add(V a, V b, V c) {
#if defined(__AVX512F__)
  return (V)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
  return (V)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return a * b + c;
#endif
}

#ifdef __AVX512F__
static inline __mmask16 mask_of(I count) {
  return count >= WIDTH ? 0xffff : (__mmask16)((1u << count) - 1);
}

// Loads the first `count` numbers of a vector; the others are 0.
static inline V load_first(const float* from, I count) {
  return (V)_mm512_maskz_loadu_ps(mask_of(count), from);
}

static inline void store_first(float* to, V v, I count) {
  _mm512_mask_storeu_ps(to, mask_of(count), (__m512)v);
}

// Transposes a square of 16 x 16: lane l of r[k] becomes lane k of r[l].
static inline void transpose(V (&square)[WIDTH]) {
  __m512 r[WIDTH], t[WIDTH];
#pragma GCC unroll 16
  for (int k = 0; k < WIDTH; ++k) r[k] = (__m512)square[k];
#pragma GCC unroll 8
  for (int j = 0; j < 16; j += 2) {
    t[j] = _mm512_unpacklo_ps(r[j], r[j + 1]);
    t[j + 1] = _mm512_unpackhi_ps(r[j], r[j + 1]);
  }
#pragma GCC unroll 4
  for (int j = 0; j < 16; j += 4) {
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
      const __m512d low = (__m512d)t[j + h], high = (__m512d)t[j + h + 2];
      r[j + 2 * h] = (__m512)_mm512_unpacklo_pd(low, high);
      r[j + 2 * h + 1] = (__m512)_mm512_unpackhi_pd(low, high);
    }
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {  // r[4 g + c] holds rows 4 g .. 4 g + 3 of columns c, 4 + c, ...
    const __m512 even[2] = {_mm512_shuffle_f32x4(r[c], r[4 + c], 0x88),
                            _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0x88)};
    const __m512 odd[2] = {_mm512_shuffle_f32x4(r[c], r[4 + c], 0xdd),
                           _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0xdd)};
    t[c] = _mm512_shuffle_f32x4(even[0], even[1], 0x88);
    t[4 + c] = _mm512_shuffle_f32x4(odd[0], odd[1], 0x88);
    t[8 + c] = _mm512_shuffle_f32x4(even[0], even[1], 0xdd);
    t[12 + c] = _mm512_shuffle_f32x4(odd[0], odd[1], 0xdd);
  }
#pragma GCC unroll 16
  for (int k = 0; k < WIDTH; ++k) square[k] = (V)t[k];
}

#else
static inline V load_first(const float* from, I count) {
  V v = {};
  memcpy(&v, from, sizeof(float) * (count < WIDTH ? count : WIDTH));
  return v;
}

static inline void store_first(float* to, V v, I count) {
  memcpy(to, &v, sizeof(float) * (count < WIDTH ? count : WIDTH));
}

static inline void transpose(V (&square)[WIDTH]) {
  for (int k = 1; k < WIDTH; ++k) {
    for (int l = 0; l < k; ++l) {
      const float held = square[k][l];
      square[k][l] = square[l][k];
      square[l][k] = held;
    }
  }
}
#endif

struct Matrix {
  const float* at;
  I row, column;  // strides in elements
  Matrix from(I i, I j) const { return {at + i * row + j * column, row, column}; }
};

// Computes R rows of out, each of N vectors. The last vector ends after `columns` columns in all.
template <int R, int N>
static inline void tile(
    const Matrix& a, const float* b, I depth, float* out, I out_row, int columns, bool more) {
  V sum[R][N] = {};
  const float* at = a.at;
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i) {  // the tile of out is on its way while the products are added up
#pragma GCC unroll 4
    for (int j = 0; j < N; ++j) __builtin_prefetch(out + i * out_row + j * WIDTH, 1);
  }
  for (I k = 0; k < depth; ++k, b += N * WIDTH, at += a.column) {
    V part[N];
#pragma GCC unroll 4
    for (int j = 0; j < N; ++j) part[j] = *(const V*)(b + j * WIDTH);
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) {
      const V one = at[i * a.row] - V{};
#pragma GCC unroll 4
      for (int j = 0; j < N; ++j) sum[i][j] = multiply_add(one, part[j], sum[i][j]);
    }
  }
  const int last = columns - (N - 1) * WIDTH;
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i, out += out_row) {
#pragma GCC unroll 4
    for (int j = 0; j < N; ++j) {
      float* to = out + j * WIDTH;
      if (j < N - 1 || last == WIDTH) {  // storing part of a vector takes longer
        Anywhere* place = (Anywhere*)to;
        *place = more ? *place + sum[i][j] : sum[i][j];
      } else {
        store_first(to, more ? load_first(to, last) + sum[i][j] : sum[i][j], last);
      }
    }
  }
}

// Computes as many rows at a time as the registers hold, then the rest with R = 8, 4, 2, 1.
template <int N, int R>
static inline void rows_of(
    const Matrix& a, const float* b, I rows, I depth, float* out, I out_row, int columns, bool more) {
  I i = 0;
  for (; i + R <= rows; i += R) {
    tile<R, N>(a.from(i, 0), b, depth, out + i * out_row, out_row, columns, more);
  }
  if constexpr (R > 1) {
    constexpr int LESS = R > 8 ? 8 : R > 4 ? 4 : R > 2 ? 2 : 1;
    rows_of<N, LESS>(a.from(i, 0), b, rows - i, depth, out + i * out_row, out_row, columns, more);
  }
}

template <int N>
static void panel(
    const Matrix& a, const float* b, I rows, I depth, float* out, I out_row, int columns, bool more) {
  constexpr int R = SUMS / N < MOST_ROWS ? SUMS / N : MOST_ROWS;
  rows_of<N, R>(a, b, rows, depth, out, out_row, columns, more);
}

// Packs a panel of b: its columns side by side, with zeros up to a whole vector.
static void pack(Matrix b, I depth, int columns, int width, float* to) {
  if (b.column == 1) {
    for (I k = 0; k < depth; ++k) {
      for (int j = 0; j < width; j += WIDTH) {
        const float* from = b.at + k * b.row + j;
        if (b.row >= FAR) __builtin_prefetch(from + AHEAD * b.row);
        *(V*)(to + k * width + j) = load_first(from, columns - j);
      }
    }
    return;
  }
  for (int j = 0; j < width; j += WIDTH) {  // b.row is 1: the columns of b are rows in memory
    for (I k = 0; k < depth; k += WIDTH) {
      V square[WIDTH];
#pragma GCC unroll 16
      for (int c = 0; c < WIDTH; ++c) {
        const I known = j + c < columns ? depth - k : 0;
        square[c] = load_first(b.at + (j + c) * b.column + k, known);
        if (b.column >= FAR) __builtin_prefetch(b.at + (j + c) * b.column + k + 4 * WIDTH);
      }
      transpose(square);
#pragma GCC unroll 16
      for (int c = 0; c < WIDTH; ++c) {
        if (k + c < depth) *(V*)(to + (k + c) * width + j) = square[c];
      }
    }
  }
}

// Computes R rows of out, each of N vectors, from rows of b as they lie in memory. If they are not
// WHOLE, N is 1 and the vector has `columns` columns.
template <int R, int N, bool WHOLE>
static inline void strip(
    const Matrix& a, const float* b, I b_row, I depth, float* out, I out_row, I columns, bool more) {
  V sum[R][N] = {};
  const float* at = a.at;
  for (I k = 0; k < depth; ++k, b += b_row, at += a.column) {
    V part[N];
#pragma GCC unroll 24
    for (int j = 0; j < N; ++j) {
      if (b_row >= FAR) __builtin_prefetch(b + j * WIDTH + NEXT * b_row);
      part[j] = WHOLE ? (V) * (const Anywhere*)(b + j * WIDTH) : load_first(b, columns);
    }
#pragma GCC unroll 12
    for (int i = 0; i < R; ++i) {
      const V one = at[i * a.row] - V{};
#pragma GCC unroll 24
      for (int j = 0; j < N; ++j) sum[i][j] = multiply_add(one, part[j], sum[i][j]);
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < R; ++i, out += out_row) {
#pragma GCC unroll 24
    for (int j = 0; j < N; ++j) {
      float* to = out + j * WIDTH;
      if (WHOLE) {
        Anywhere* place = (Anywhere*)to;
        *place = more ? *place + sum[i][j] : sum[i][j];
      } else {
        store_first(to, more ? load_first(to, columns) + sum[i][j] : sum[i][j], columns);
      }
    }
  }
}

// Computes R rows of out, as many columns at a time as the registers hold, then fewer.
template <int R, int N>
static inline void strips(
    const Matrix& a, const float* b, I b_row, I depth, float* out, I out_row, I columns, bool more) {
  for (; columns >= N * WIDTH; columns -= N * WIDTH, b += N * WIDTH, out += N * WIDTH) {
    strip<R, N, true>(a, b, b_row, depth, out, out_row, columns, more);
  }
  if constexpr (N > 1) {
    strips<R, N / 2>(a, b, b_row, depth, out, out_row, columns, more);
  } else if (columns) {
    strip<R, 1, false>(a, b, b_row, depth, out, out_row, columns, more);
  }
}

// The product for few rows, where packing b would take longer than the product.
template <int R>
static void few_rows(
    const Matrix& a, const Matrix& b, float* out, I out_row, I rows, I depth, I columns, bool adds) {
  constexpr int N = R > 2 ? SUMS / R : SUMS * 2 / 3 / R;  // one row: as many bytes as a power of 2
  I i = 0;
  for (; i + R <= rows; i += R) {
    for (I k0 = 0; k0 < depth || k0 == 0; k0 += DEPTH) {
      const I deep = depth - k0 < DEPTH ? depth - k0 : DEPTH;
      strips<R, N>(
          a.from(i, k0), b.at + k0 * b.row, b.row, deep, out + i * out_row, out_row, columns,
          adds || k0 > 0);
    }
  }
  if constexpr (R > 1) {
    constexpr int LESS = R > 8 ? 8 : R / 2;
    few_rows<LESS>(a.from(i, 0), b, out + i * out_row, out_row, rows - i, depth, columns, adds);
  }
}

static void product(
    Matrix a, Matrix b, float* out, I out_row, I rows, I depth, I columns, bool adds) {
  if (rows <= FEW_ROWS && b.column == 1) {
    few_rows<12>(a, b, out, out_row, rows, depth, columns, adds);
    return;
  }
  alignas(64) static thread_local float packed[DEPTH * COLUMNS];
  for (I j0 = 0; j0 < columns; j0 += COLUMNS) {
    const I wide = columns - j0 < COLUMNS ? columns - j0 : COLUMNS;
    for (I k0 = 0; k0 < depth || k0 == 0; k0 += DEPTH) {
      const I deep = depth - k0 < DEPTH ? depth - k0 : DEPTH;
      for (I i0 = 0; i0 < rows; i0 += ROWS) {
        const I high = rows - i0 < ROWS ? rows - i0 : ROWS;
        float* to = packed;
        for (I j = 0; j < wide; j += VECTORS * WIDTH) {
          const int some = (int)(wide - j < VECTORS * WIDTH ? wide - j : VECTORS * WIDTH);
          const int vectors = (some + WIDTH - 1) / WIDTH;
          if (i0 == 0) pack(b.from(k0, j0 + j), deep, some, vectors * WIDTH, to);
          (vectors == 1 ? panel<1> : vectors == 2 ? panel<2> : vectors == 3 ? panel<3> : panel<4>)(
              a.from(i0, k0), to, high, deep, out + i0 * out_row + j0 + j, out_row, some,
              adds || k0 > 0);
          to += deep * vectors * WIDTH;
        }
      }
    }
  }
}

// The slots: the addresses of a, b and out; the two strides of a, the two of b, the row stride of
// out; M, K, N; whether the product is added to out, for K up to DEPTH.
extern "C" void run(const Slot* s) {
  product({(const float*)s[0].p, s[3].i, s[4].i}, {(const float*)s[1].p, s[5].i, s[6].i},
          (float*)s[2].p, s[7].i, s[8].i, s[9].i, s[10].i, s[11].i != 0);
}
