// Sums of waves of the columns of a table.

constexpr double TURN = 6.283185307179586;

// Returns the angle of a wave.
__device__ inline T angle_of(S x, S frequency, S phase) {
  return (T)x * ((T)frequency * (T)TURN) + (T)phase;
}

// Returns the gradient of a wave's angle: -sin(angle) sum_k weight[k] gy[k].
__device__ inline T angle_grad(T angle, const S* weight, const S* gy, int outputs) {
  T along = 0;
  for (int k = 0; k < outputs; ++k) along += (T)weight[k] * (T)gy[k];
  return -sin(angle) * along;
}

// Adds up v over the groups of `lanes` threads. The first group gets the sums.
__device__ inline T group_sum(T v, int lanes, T* part) {
  __syncthreads();
  part[threadIdx.x] = v;
  __syncthreads();
  T sum = 0;
  for (int k = threadIdx.x % lanes; k < (int)blockDim.x; k += lanes) sum += part[k];
  return sum;
}

// Row n of y (N, columns) is row n of x (N, width), then for each of its first columns j the sums
// sum_f weight[j, f, k] cos(2 pi frequency[j, f] x + phase[j, f]) + bias[j, k].
extern "C" __global__ void waves(
    const S* x, const S* frequency, const S* phase, const S* weight, const S* bias, S* y,
    int width, int count, int outputs, int columns, int rows) {
  const Row row = this_row(columns);
  if (row.at >= rows) return;
  const S* const from = x + (size_t)row.at * width;
  S* const to = y + (size_t)row.at * columns;
  for (int c = row.lane; c < columns; c += row.lanes) {
    if (c < width) {
      to[c] = from[c];
      continue;
    }
    const int place = c - width, j = place / outputs, k = place % outputs;
    T sum = 0;
    for (int at = j * count; at < (j + 1) * count; ++at) {
      sum += (T)weight[at * outputs + k] * cos(angle_of(from[j], frequency[at], phase[at]));
    }
    to[c] = (S)(sum + (T)bias[place]);
  }
}

// gx = gy's part for x, plus 2 pi sum_f frequency[j, f] ga[j, f] for each embedded column j, where
// ga is the gradient of an angle.
extern "C" __global__ void waves_grad(
    const S* gy, const S* x, const S* frequency, const S* phase, const S* weight, S* gx,
    int embedded, int count, int outputs, int columns, int rows) {
  const Row row = this_row(columns);
  if (row.at >= rows) return;
  const S* const from = x + (size_t)row.at * columns;
  const S* const back = gy + (size_t)row.at * (columns + embedded * outputs);
  for (int c = row.lane; c < columns; c += row.lanes) {
    T sum = 0;
    for (int at = c * count; c < embedded && at < (c + 1) * count; ++at) {
      const T angle = angle_of(from[c], frequency[at], phase[at]);
      const S* const own = back + columns + c * outputs;
      sum += (T)frequency[at] * angle_grad(angle, weight + at * outputs, own, outputs);
    }
    gx[(size_t)row.at * columns + c] = (S)((T)back[c] + (T)TURN * sum);
  }
}

// The gradients of the parameters of `waves`. A block works on two sums of one column j of the
// `rows` embedded ones: those for its frequencies and phases (k = -1), or those for its weights and
// bias of output k. A thread works on one frequency, and on every so many examples.
extern "C" __global__ void waves_grad_parameters(
    const S* gy, const S* x, const S* frequency, const S* phase, const S* weight, T* gfrequency,
    T* gphase, T* gweight, T* gbias, int outputs, int width, int examples, int columns, int rows) {
  __shared__ T part[256];
  const int lanes = min(columns, (int)blockDim.x), groups = blockDim.x / lanes;
  const int lane = threadIdx.x % lanes, group = threadIdx.x / lanes;
  const size_t step = width + rows * outputs;
  for (int item = blockIdx.x; item < rows * (outputs + 1); item += gridDim.x) {
    const int j = item / (outputs + 1), k = item % (outputs + 1) - 1;
    for (int f = lane; f - lane < columns; f += lanes) {
      const int at = j * columns + min(f, columns - 1);
      Total one = {}, two = {};
      for (int n = group; n < examples && group < groups; n += groups) {
        const S v = x[(size_t)n * width + j];
        const S* const g = gy + n * step + width + j * outputs;
        const T angle = angle_of(v, frequency[at], phase[at]);
        if (k < 0) {
          const T ga = angle_grad(angle, weight + at * outputs, g, outputs);
          one.add(ga * (T)v);
          two.add(ga);
        } else {
          one.add(cos(angle) * (T)g[k]);
          two.add((T)g[k]);
        }
      }
      const T sum = group_sum(one.value(), lanes, part);
      const T other = group_sum(two.value(), lanes, part);
      if (group || f >= columns) continue;
      if (k < 0) {
        gfrequency[at] = sum * (T)TURN;
        gphase[at] = other;
      } else {
        gweight[at * outputs + k] = sum;
        if (f == 0) gbias[j * outputs + k] = other;
      }
    }
  }
}
