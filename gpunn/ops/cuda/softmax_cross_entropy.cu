// The cross-entropy of logits, alone or together with the output layer that computes them.

#include "cross_entropy.cuh"

constexpr int CLASSES = 16;  // the most classes of a small output layer

// The losses of all rows of logits (N, C), their gradients, and total = sum_n loss[n] / divisor.
// The blocks of a multiprocessor leave room for the 70 to 80 registers of long rows.
#define BOUNDS __launch_bounds__(256, sizeof(S) == 8 ? 1 : HELD > 8 ? 3 : 4)
extern "C" __global__ void BOUNDS softmax_cross_entropy(
    const S* z, const long long* labels, T* loss, S* gz, T* total, double smoothing, double divisor,
    double scale, int classes, int rows, unsigned int* ticket) {
  __shared__ T part[ROW_PARTS];
  const Row row = this_row(classes);
  T own = 0;
  if (row.at < rows) {
    const size_t start = (size_t)row.at * classes;
    own = cross_entropy(z + start, labels[row.at], gz + start, classes, smoothing, scale,
                        aligned(z) && aligned(gz), row, part);
  }
  add_up(own, row, loss, rows, total, (T)divisor, part, ticket);
}

// The same for the logits h w + bias of a small output layer with the weights w (D, C), whose input
// h (N, D) is the output of a ReLU and perhaps of dropout, which scaled what it kept by `kept`. It
// also writes the gradients gh (N, D) in front of the ReLU. A block works on one row after another.
extern "C" __global__ void __launch_bounds__(256) classifier_loss(
    const S* h, const S* w, const S* bias, const long long* labels, T* loss, S* gz, S* gh, T* total,
    double smoothing, double divisor, double scale, double kept, int classes, int columns, int rows,
    unsigned int* ticket) {
  __shared__ T part[ROW_PARTS], parts[8 * CLASSES];  // of each warp
  __shared__ S logits[CLASSES], errors[CLASSES];
  const int warps = blockDim.x >> 5, warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  for (int n = blockIdx.x; n < rows; n += gridDim.x) {
    const S* x = h + (size_t)n * columns;
    T z[CLASSES] = {};
    for (int d = threadIdx.x; d < columns; d += blockDim.x) {
      const T v = (T)x[d];
#pragma unroll
      for (int j = 0; j < CLASSES; ++j) {
        if (j >= classes) continue;
        z[j] += v * (T)w[d * classes + j];
      }
    }
#pragma unroll
    for (int j = 0; j < CLASSES; ++j) {
      if (j >= classes) continue;
      const T sum = warp_fold<Sum>(z[j]);
      if (lane == 0) parts[warp * CLASSES + j] = sum;
    }
    __syncthreads();
    if (warp == 0) {
      if (lane < classes) {
        T sum = (T)bias[lane];
        for (int k = 0; k < warps; ++k) sum += parts[k * CLASSES + lane];
        logits[lane] = (S)sum;
      }
      __syncwarp();
      const T own = cross_entropy(logits, labels[n], errors, classes, smoothing, scale, false,
                                  {n, lane, 32}, part);
      __syncwarp();
      if (lane < classes) gz[(size_t)n * classes + lane] = errors[lane];
      if (lane == 0) loss[n] = own;
    }
    __syncthreads();
    for (int d = threadIdx.x; d < columns; d += blockDim.x) {
      T g = 0;
      for (int k = 0; k < classes; ++k) g += (T)errors[k] * (T)w[d * classes + k];
      gh[(size_t)n * columns + d] = x[d] > (S)0 ? (S)(g * (T)kept) : (S)0;
    }
  }
  sum_up(loss, rows, total, (T)divisor, part, ticket);
}
