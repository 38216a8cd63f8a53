"""The CUDA source of an elementwise kernel, for one choice of dtypes and layouts.

Every thread works on a pack of `lanes` neighbouring elements. It reads and writes 16 bytes at a
time if the shapes allow it. Arrays are stored in their own dtypes, and the kernel computes in T.

Each block adds up its part of a sum, and the last block adds up the parts. A kernel therefore needs
one launch. The order of the additions depends only on the number of elements and the size of a
pack, so the result is the same on every run.
"""

from __future__ import annotations

from typing import NamedTuple

from gpunn.backends.kernel import CTYPES, HEADERS, Elementwise, Param, exact_part
from gpunn.backends.random import WORDS_CUDA, Words

THREADS = 256
SUM_BLOCKS = 1024  # the most blocks of a kernel with sums; the workspace has room for their parts
MAX_SUMS = 4
PACK_BYTES = 16


class Argument(NamedTuple):
    """The way in which an argument is passed.

    Attributes:
        layout: "value", a number; "raw", a pointer; "one", an array with one element; "each", an
            array with one element per output element; "row", an array that repeats after its last
            element; "column", an array whose elements each apply to several output elements in a
            row; "words", random words that the kernel computes.
        dtype: the name of the dtype; for a number, the type of its parameter, which may be "T".
    """

    layout: str
    dtype: str


def compute_type(kernel: Elementwise, arguments: tuple[Argument, ...]) -> str:
    """Return the C type of T: double for float64, float for other floats, else an integer type."""
    params = (*kernel.inputs, *kernel.outputs)
    pairs = zip(params, arguments, strict=True)
    dtypes = {a.dtype for p, a in pairs if p.type == "T" and a.dtype != "T"}
    if "float64" in dtypes:
        return "double"
    if all("float" in dtype for dtype in dtypes):
        return "float"
    return CTYPES[min(dtypes)]


def parts_type(kernel: Elementwise, arguments: tuple[Argument, ...]) -> str:
    """Return the C type that the sums of a kernel are added up in, the same for all of them."""
    wide = any(param.type == "float64" for param in kernel.sums)
    return "double" if wide else compute_type(kernel, arguments)


def elementwise_source(
    kernel: Elementwise, arguments: tuple[Argument, ...], lanes: int, wide: bool
) -> str:
    """Return the complete source of the CUDA function `gpunn_<name>`.

    Args:
        kernel: the declaration.
        arguments: the layouts of its inputs and outputs, in order.
        lanes: the elements in a pack; divides the number of elements and the length of every row
            and column.
        wide: whether there are 2**31 elements or more.
    """
    text = _Text(kernel, arguments)
    headers = "".join(HEADERS.get(name, "") for name in sorted({a.dtype for a in arguments}))
    index = "long long" if wide else "unsigned int"
    return TEMPLATE.format(
        headers=headers,
        compute=compute_type(kernel, arguments),
        stored=_stored_type(kernel, arguments),
        index=index,
        lanes=lanes,
        name=kernel.name,
        exact=exact_part(kernel.cuda + "rest_of_sum" * bool(kernel.sums)),
        preamble=kernel.preamble + WORDS_CUDA * any(a.layout == "words" for a in arguments),
        threads=THREADS,
        block_sum=BLOCK_SUM.format(threads=THREADS) if kernel.sums else "",
        parameters=", ".join(text.parameters),
        before="\n  ".join(text.before),
        load="\n    ".join(text.load),
        element="\n      ".join(text.element),
        body=kernel.cuda,
        write="\n      ".join(text.write),
        store="\n    ".join(text.store),
        after=_after(kernel, arguments),
    )


def _stored_type(kernel: Elementwise, arguments: tuple[Argument, ...]) -> str:
    """Return the C type of S: the type that the first array of type T is stored in."""
    pairs = zip((*kernel.inputs, *kernel.outputs), arguments, strict=True)
    dtypes = [a.dtype for p, a in pairs if p.type == "T" and a.dtype != "T"]
    return CTYPES[dtypes[0]] if dtypes else "float"


class _Text:
    """The parts of a kernel's source, built up parameter by parameter."""

    def __init__(self, kernel: Elementwise, arguments: tuple[Argument, ...]) -> None:
        self.parameters: list[str] = []
        self.before: list[str] = []
        self.load: list[str] = []
        self.element: list[str] = []
        self.write: list[str] = []
        self.store: list[str] = []
        self.once: list[str] = []
        outputs = len(kernel.inputs)
        for k, param in enumerate((*kernel.inputs, *kernel.outputs)):
            self._add(param, arguments[k], is_output=k >= outputs)
        if self.once:  # one thread per block reads these arrays, which the last block changes
            self.before.append("__syncthreads();")
            self.before += [f"const auto {name}_c = {name}_f;" for name in self.once]
        self.parameters.append("const I n_")
        if kernel.sums or kernel.once:
            parts = parts_type(kernel, arguments)
            self.parameters += [f"{parts}* parts_", "unsigned int* ticket_"]

    def _add(self, param: Param, argument: Argument, is_output: bool) -> None:
        name, (layout, dtype) = param.name, argument
        stored = CTYPES.get(dtype, "T")
        computed = param.ctype
        if layout == "value":
            self.parameters.append(f"{computed} {name}_p")
            self.element.append(f"{computed} {name} = {name}_p;")
            return
        if layout == "words":
            self.parameters += Words.parameters(name)
            self.before.append(f"Words {name} = {Words.value(name)};")
            return
        const = "" if is_output else "const "
        self.parameters.append(f"{const}{stored}* {name if layout == 'raw' else name + '_p'}")
        if param.role == "sum":
            # The rounding errors of a thread's sum are added up beside it.
            self.before.append(f"{computed} {name}_s = 0, {name}_r = 0;")
            self.element.append(f"{computed} {name} = 0;")
            self.write.append(
                f"const {computed} {name}_m = {name}_s + {name}; "
                f"{name}_r += rest_of_sum({name}_s, {name}, {name}_m); {name}_s = {name}_m;"
            )
        elif param.role == "one":
            self.once.append(name)
            self.before.append(f"__shared__ {computed} {name}_f;")
            self.before.append(f"if (threadIdx.x == 0) {name}_f = ({computed})*{name}_p;")
            self.element.append(f"{computed} {name} = {name}_c;")
        elif layout == "one":
            self.before.append(f"const {computed} {name}_c = ({computed})*{name}_p;")
            self.element.append(f"{computed} {name} = {name}_c;")
        elif layout != "raw":
            self._add_elements(name, layout, stored, computed, is_output)

    def _add_elements(
        self, name: str, layout: str, stored: str, computed: str, is_output: bool
    ) -> None:
        if layout == "column":
            self.parameters.append(f"const I {name}_n")
            self.load.append(f"const {stored} {name}_v = {name}_p[at_ / {name}_n];")
            self.element.append(f"{computed} {name} = ({computed}){name}_v;")
            return
        at = "at_"
        if layout == "row":
            self.parameters.append(f"const I {name}_n")
            at = f"at_ % {name}_n"
        pack = f"Pack_<{stored}>"
        self.load.append(f"{pack} {name}_v = *(const {pack}*)({name}_p + {at});")
        self.element.append(f"{computed} {name} = ({computed}){name}_v.v[k_];")
        if is_output:
            self.write.append(f"{name}_v.v[k_] = ({stored}){name};")
            self.store.append(f"*({pack}*)({name}_p + at_) = {name}_v;")


def _after(kernel: Elementwise, arguments: tuple[Argument, ...]) -> str:
    """Return the code after the loop: the sums of a block, then the work of the last block."""
    sums = [p.name for p in kernel.sums]
    part = parts_type(kernel, arguments)
    if not sums and not kernel.once:
        return ""
    ends, write = [], []
    for param, argument in zip((*kernel.inputs, *kernel.outputs), arguments, strict=True):
        name, stored = param.name, CTYPES.get(argument.dtype, "T")
        computed = param.ctype
        if param.role == "sum":
            write.append(f"*{name}_p = ({stored}){name};")
        elif param.role == "one":
            ends.append(f"{computed} {name} = {name}_c;")
            write.append(f"*{name}_p = ({stored}){name};")
        elif argument.layout in ("value", "one"):
            source = f"{name}_p" if argument.layout == "value" else f"{name}_c"
            ends.append(f"const {computed} {name} = {source};")
    rows = [
        f"block_sum_({n}_r - {n}_r == {part}(0) ? {n}_s + {n}_r : {n}_s, part_[{k}])"
        for k, n in enumerate(sums)
    ]
    keep = [
        f"if (threadIdx.x == 0) parts_[{k} * gridDim.x + blockIdx.x] = {name}_t;"
        for k, name in enumerate(sums)
    ]
    again = [
        f"{part} {name} = 0;\n"
        f"  for (unsigned b_ = threadIdx.x; b_ < gridDim.x; b_ += {THREADS})\n"
        f"    {name} += ((volatile {part}*)parts_)[{k} * gridDim.x + b_];\n"
        f"  {name} = block_sum_({name}, part_[{k}]);"
        for k, name in enumerate(sums)
    ]
    finish = ONCE.format(
        ends="\n    ".join(ends),
        once=kernel.once,
        name=kernel.name,
        write="\n    ".join(write),
    )
    if not sums:
        return LAST_THREAD.format(finish=finish)
    return LAST_BLOCK.format(
        shared=f"__shared__ {part} part_[{len(sums)}][{THREADS} / 32];",
        totals="\n  ".join(
            f"const {part} {n}_t = {row};" for n, row in zip(sums, rows, strict=True)
        ),
        keep="\n  ".join(keep),
        again="\n  ".join(again),
        finish=finish,
    )


TEMPLATE = """{headers}typedef {compute} T;
typedef {stored} S;
typedef {index} I;
{exact}#line 1 "{name}.preamble"
{preamble}
#line 1 "{name}.generated"
template <class V> struct alignas(sizeof(V) * {lanes}) Pack_ {{ V v[{lanes}]; }};

{block_sum}extern "C" __global__ void __launch_bounds__({threads}) gpunn_{name}({parameters}) {{
  {before}
  const I stride_ = (I)gridDim.x * {threads} * {lanes};
  for (I at_ = ((I)blockIdx.x * {threads} + threadIdx.x) * {lanes}; at_ < n_; at_ += stride_) {{
    {load}
#pragma unroll
    for (int k_ = 0; k_ < {lanes}; ++k_) {{
      const I i = at_ + k_;
      (void)i;
      {element}
      {{
#line 1 "{name}.body"
{body}
#line 100 "{name}.generated"
      }}
      {write}
    }}
    {store}
  }}
  {after}
}}
"""

BLOCK_SUM = """template <class V>
static __device__ V block_sum_(V v, V* part) {{  // no other call may use `part`
  for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = v;
  __syncthreads();
  v = 0;
  for (int w = 0; w < {threads} / 32; ++w) v += part[w];
  return v;
}}

"""

LAST_THREAD = """if (threadIdx.x == 0) {{
    __threadfence();
    if (atomicAdd(ticket_, 1u) != gridDim.x - 1) return;
    {finish}
  }}"""

LAST_BLOCK = """__shared__ bool last_;
  {shared}
  {totals}
  {keep}
  if (threadIdx.x == 0) {{
    __threadfence();
    last_ = atomicAdd(ticket_, 1u) == gridDim.x - 1;
  }}
  __syncthreads();
  if (!last_) return;
  __threadfence();
  {again}
  if (threadIdx.x == 0) {{
    {finish}
  }}"""

ONCE = """{ends}
    {{
#line 1 "{name}.once"
{once}
#line 200 "{name}.generated"
    }}
    {write}
    *ticket_ = 0;"""
