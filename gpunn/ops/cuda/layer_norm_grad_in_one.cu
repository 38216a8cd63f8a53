// The gradients of layer normalisation in one pass over gy and x: gx, and for each block its part
// of the sums, ggamma and gbeta (blocks, columns). See layer_norm.cu.

constexpr int CHUNK = 256, MOST_WARPS = 8;

// Adds up the values that the warps of a block hold for the columns of a row.
__device__ inline void block_parts(const Held& at, const Columns* held, T* out, T* part) {
  const int warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  for (int first = 0; first < at.columns; first += CHUNK) {
    const int end = min(first + CHUNK, at.columns);
    __syncthreads();
#pragma unroll
    for (int p = 0; p < HELD / PACK; ++p) {
      for (int j = 0; j < PACK; ++j) {
        const int c = place(at, 0, p, j);
        if (c >= first && c < end) part[warp * CHUNK + c - first] = held[p].v[j];
      }
    }
    __syncthreads();
    for (int c = first + threadIdx.x; c < end; c += blockDim.x) {
      T total = 0;
      for (int w = 0; w < warps; ++w) total += part[w * CHUNK + c - first];
      out[c] = total;
    }
  }
}

// A thread works on the same columns of one row after another. It computes normal, and gy gamma, in
// both passes over its registers: with fewer numbers kept between them, none is spilled.
extern "C" __global__ void __launch_bounds__(256) layer_norm_grad_in_one(
    const S* gy, const S* x, const S* gamma, const T* mean, const T* rest, const T* inverse, S* gx,
    T* ggamma, T* gbeta, int columns, int rows) {
  __shared__ T part[MOST_WARPS * CHUNK];
  const int warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  Row row = {(int)blockIdx.x * warps + warp, (int)threadIdx.x & 31, 32};
  const bool vectors = aligned(gy) && aligned(x) && aligned(gamma) && aligned(gx);
  Columns along[HELD / PACK] = {}, sum[HELD / PACK] = {};
  for (; row.at < rows; row.at += (int)gridDim.x * warps) {
    const size_t start = (size_t)row.at * columns;
    const T middle = mean[row.at], shift = rest[row.at], scale = inverse[row.at];
    Held g = hold(row, gy + start, columns, vectors);
    const Held v = hold(row, x + start, columns, vectors);
    T whole = 0, product = 0;
#pragma unroll
    for (int p = 0; p < HELD / PACK; ++p) {
      if (p * PACK * row.lanes >= columns) continue;
      const Columns stretch = pack_at(gamma, g, 0, p);
      for (int j = 0; j < PACK; ++j) {
        if (place(g, 0, p, j) >= columns) continue;
        const T own = g.pack[p].v[j], normal = ((v.pack[p].v[j] - middle) - shift) * scale;
        along[p].v[j] += own * normal;
        sum[p].v[j] += own;
        whole += own * stretch.v[j];
        product += own * stretch.v[j] * normal;
      }
    }
    const T mean_g = warp_fold<Sum>(whole) / (T)columns;
    const T mean_along = warp_fold<Sum>(product) / (T)columns;
#pragma unroll
    for (int p = 0; p < HELD / PACK; ++p) {
      if (p * PACK * row.lanes >= columns) continue;
      const Columns stretch = pack_at(gamma, g, 0, p);
      const auto grad = [&](T gn, T number, int) {
        return (gn - mean_g - ((number - middle) - shift) * scale * mean_along) * scale;
      };
      for (int j = 0; j < PACK; ++j) g.pack[p].v[j] *= stretch.v[j];
      store_of(g, 0, p, gx + start, grad, g.pack[p], v.pack[p]);
    }
  }
  const Held at = {nullptr, columns, row, vectors && columns % PACK == 0, {}};
  block_parts(at, along, ggamma + (size_t)blockIdx.x * columns, part);
  block_parts(at, sum, gbeta + (size_t)blockIdx.x * columns, part);
}
