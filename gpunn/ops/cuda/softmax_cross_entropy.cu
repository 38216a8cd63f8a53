// One block per row n of logits z (N, C): loss[n] = log sum_k exp(z_k) - z_t, and, in the same pass,
// its gradient gz[n, k] = (p_k - (k == t)) * scale. The block that arrives last adds up the losses:
// total = sum_n loss[n] / count. A label outside [0, C) gives NaN. blockDim.x <= 1024.

__device__ inline T warp_max(T v) {
  for (int o = 16; o; o >>= 1) { const T w = __shfl_xor_sync(0xffffffffu, v, o); v = w > v ? w : v; }
  return v;
}

__device__ inline T warp_sum(T v) {
  for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
  return v;
}

extern "C" __global__ void softmax_cross_entropy(
    const S* z, const long long* labels, T* loss, S* gz, T* total, int classes, double count,
    double scale, unsigned int* ticket) {
  __shared__ T part[32];
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, warps = blockDim.x >> 5;
  const size_t start = (size_t)blockIdx.x * classes;

  T top = (T)z[start];
  for (int k = threadIdx.x; k < classes; k += blockDim.x) {
    const T v = (T)z[start + k];
    top = v > top ? v : top;
  }
  top = warp_max(top);
  if (lane == 0) part[warp] = top;
  __syncthreads();
  top = warp_max(part[lane < warps ? lane : 0]);
  __syncthreads();  // part is used again

  T sum = 0;
  for (int k = threadIdx.x; k < classes; k += blockDim.x) sum += exp((T)z[start + k] - top);
  sum = warp_sum(sum);
  if (lane == 0) part[warp] = sum;
  __syncthreads();
  sum = warp_sum(lane < warps ? part[lane] : (T)0);

  const long long label = labels[blockIdx.x];
  const bool known = label >= 0 && label < classes;
  const T unknown = known ? (T)0 : log((T)-1);  // NaN
  for (int k = threadIdx.x; k < classes; k += blockDim.x) {
    const T p = exp((T)z[start + k] - top) / sum;
    gz[start + k] = (S)((p - (T)(k == label ? 1 : 0) + unknown) * (T)scale);
  }
  __shared__ bool last;
  if (threadIdx.x == 0) {
    loss[blockIdx.x] = log(sum) + top - (known ? (T)z[start + label] : unknown) + unknown;
    __threadfence();
    last = atomicAdd(ticket, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  if (!last) return;
  __threadfence();
  T all = 0;
  for (int n = threadIdx.x; n < gridDim.x; n += blockDim.x) all += ((volatile T*)loss)[n];
  all = warp_sum(all);
  if (lane == 0) part[warp] = all;
  __syncthreads();
  all = warp_sum(lane < warps ? part[lane] : (T)0);
  if (threadIdx.x == 0) {
    *total = all / (T)count;
    *ticket = 0;
  }
}
