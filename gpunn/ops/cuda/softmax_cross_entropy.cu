// One block per row n of logits z (N, C): loss[n] = log sum_k exp(z_k) - z_t, and, in the same pass,
// its gradient gz[n, k] = p_k - (k == t). A label outside [0, C) gives NaN. blockDim.x <= 1024.

__device__ inline A warp_max(A v) {
  for (int o = 16; o; o >>= 1) { const A w = __shfl_xor_sync(0xffffffffu, v, o); v = w > v ? w : v; }
  return v;
}

__device__ inline A warp_sum(A v) {
  for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
  return v;
}

extern "C" __global__ void softmax_cross_entropy(
    const T* z, const long long* labels, T* loss, T* gz, int classes) {
  __shared__ A part[32];
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, warps = blockDim.x >> 5;
  const size_t start = (size_t)blockIdx.x * classes;

  A top = (A)z[start];
  for (int k = threadIdx.x; k < classes; k += blockDim.x) {
    const A v = (A)z[start + k];
    top = v > top ? v : top;
  }
  top = warp_max(top);
  if (lane == 0) part[warp] = top;
  __syncthreads();
  top = warp_max(part[lane < warps ? lane : 0]);
  __syncthreads();  // part is used again

  A sum = 0;
  for (int k = threadIdx.x; k < classes; k += blockDim.x) sum += exp((A)z[start + k] - top);
  sum = warp_sum(sum);
  if (lane == 0) part[warp] = sum;
  __syncthreads();
  sum = warp_sum(lane < warps ? part[lane] : (A)0);

  const long long label = labels[blockIdx.x];
  const bool known = label >= 0 && label < classes;
  const A unknown = known ? (A)0 : log((A)-1);  // NaN
  for (int k = threadIdx.x; k < classes; k += blockDim.x) {
    const A p = exp((A)z[start + k] - top) / sum;
    gz[start + k] = (T)(p - (A)(k == label ? 1 : 0) + unknown);
  }
  if (threadIdx.x == 0) {
    loss[blockIdx.x] = (T)(log(sum) + top - (known ? (A)z[start + label] : unknown) + unknown);
  }
}
