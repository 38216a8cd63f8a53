// CUDA's indices for a kernel in which every block has one thread.
struct Index { int x; };
#define blockIdx (Index{block_})
#define gridDim (Index{blocks_})
#define threadIdx (Index{0})
#define blockDim (Index{1})
