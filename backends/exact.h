// The rounding errors of sums and products, as numbers. Kernels on a GPU and on the CPU have these
// functions. No compiler option that reorders arithmetic may be on.

// Returns (a + b) - sum, where sum is the rounded a + b (Knuth). NaN if the sum is not finite.
template <class V>
__device__ inline V rest_of_sum(V a, V b, V sum) {
  const V part = sum - a;
  return (a - (sum - part)) + (b - part);
}

// Returns a - b + c. Where c cancels a - b, the rounding error of a - b would be all that is left.
template <class V>
__device__ inline V difference_plus(V a, V b, V c) {
  const V d = a - b, sum = d + c, rest = rest_of_sum(a, -b, d);
  return rest - rest == V(0) ? sum + rest : sum;
}

// Returns e + e * rest, or e if the rest is no finite number: e = 0 or infinity is right then.
template <class V>
__device__ inline V corrected(V e, V rest) {
  const V by = e * rest;
  return by - by == V(0) ? e + by : e;
}

// Returns exp(a - b). The rounding error of a - b would be a relative error of the result.
template <class V>
__device__ inline V exp_of_difference(V a, V b) {
  const V d = a - b;
  return corrected(exp(d), rest_of_sum(a, -b, d));
}

// Returns exp((a + low) * b), where `low` is far smaller than a.
template <class V>
__device__ inline V exp_of_product(V a, V low, V b) {
  const V p = a * b;
  return corrected(exp(p), fma(a, b, -p) + low * b);
}
