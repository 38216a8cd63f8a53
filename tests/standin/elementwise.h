// The loop of a cupy.ElementwiseKernel: arrays with strides, `raw` parameters, the flat index.
#pragma once
#include <stdio.h>

static char standin_error[256];

// CuPy's CArray for a `raw` parameter: any strides; an index outside is reported, not followed.
template <class T>
struct StandinRaw {
  char* data;
  int ndim;
  const ptrdiff_t* lengths;
  const ptrdiff_t* steps;
  const char* name;

  ptrdiff_t size() const {
    ptrdiff_t n = 1;
    for (int axis = 0; axis < ndim; ++axis) n *= lengths[axis];
    return n;
  }
  const ptrdiff_t* shape() const { return lengths; }
  const ptrdiff_t* strides() const { return steps; }
  T& outside(ptrdiff_t index) const {
    static std::remove_const_t<T> nowhere;
    if (!standin_error[0]) {
      snprintf(standin_error, sizeof standin_error, "index %td of raw parameter %s, which has %td",
               index, name, size());
    }
    return nowhere;
  }
  T& operator[](ptrdiff_t index) const {
    if (index < 0 || index >= size()) return outside(index);
    ptrdiff_t offset = 0, rest = index;
    for (int axis = ndim; --axis >= 0; rest /= lengths[axis]) {
      offset += steps[axis] * (rest % lengths[axis]);
    }
    return *(T*)(data + offset);
  }
  T& operator[](const ptrdiff_t* index) const {
    ptrdiff_t offset = 0;
    for (int axis = 0; axis < ndim; ++axis) {
      if (index[axis] < 0 || index[axis] >= lengths[axis]) return outside(index[axis]);
      offset += steps[axis] * index[axis];
    }
    return *(T*)(data + offset);
  }
};

struct StandinIndexer {
  ptrdiff_t total, at;
  ptrdiff_t size() const { return total; }
  ptrdiff_t get() const { return at; }
};

// Where row `row` (all axes but the last) of an array begins.
static inline char* standin_row(void* data, ptrdiff_t row, int ndim, const ptrdiff_t* shape,
                                const ptrdiff_t* strides) {
  ptrdiff_t offset = 0;
  for (int axis = ndim - 1; --axis >= 0; row /= shape[axis]) {
    offset += strides[axis] * (row % shape[axis]);
  }
  return (char*)data + offset;
}
