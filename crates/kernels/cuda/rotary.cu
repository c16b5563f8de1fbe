// Rotary position embedding in the half-split form, and the append of new entries to lanes. Twin: src/rotary.rs.
//
// Angles come from the host as cosines and sines [rows, dim / 2] in f32, and products are not fused with sums, so that a row
// gets the same bits as from the twin.
//
// rotate_{f32,f16,bf16}: rows of `heads * dim` elements of the network's format, `stride` elements apart, to out
//   [n, heads, dim] f32; row i by angle i. Reads n * heads * dim elements and n * dim angles, writes as many f32, 3 FLOPs per
//   element: the floor is the memory bandwidth. Launch: grid x, 256 threads, a thread per pair of elements.
//
// append_{network}_{storage}: rows of new keys and values (all KV heads of the layer per row) to the entries at .. at + n of
//   [heads, capacity, dim] in the storage format. Item: the KV heads first_head .. first_head + heads of the rows
//   first_row .. first_row + n; key row r is rotated by angle r, or stored as it is when there are no angles. Items may belong
//   to different lanes and sequences. Floor as above. Launch: grid (x, items), 256 threads, a thread per pair.
#include "common.cuh"

namespace rotary {

constexpr unsigned THREADS = 256;

struct Pair {
  float low;
  float high;
};

__device__ __forceinline__ Pair turned(float low, float high, float cosine, float sine) {
  return Pair{__fsub_rn(__fmul_rn(low, cosine), __fmul_rn(high, sine)),
              __fadd_rn(__fmul_rn(high, cosine), __fmul_rn(low, sine))};
}

template <typename A>
__device__ __forceinline__ void rotate(const RotateArgs& args) {
  const A* rows = static_cast<const A*>(args.rows);
  const unsigned half = args.dim / 2;
  const unsigned pairs = args.n * args.heads * half;
  for (unsigned pair = blockIdx.x * THREADS + threadIdx.x; pair < pairs; pair += gridDim.x * THREADS) {
    const unsigned i = pair % half;
    const unsigned head = pair / half % args.heads;
    const unsigned row = pair / half / args.heads;
    const A* from = rows + row * args.stride + head * args.dim + i;
    const unsigned angle = row * half + i;
    const Pair got = turned(widen(from[0]), widen(from[half]), args.cosines[angle], args.sines[angle]);
    float* to = args.out + (uint64_t(row) * args.heads + head) * args.dim + i;
    to[0] = got.low;
    to[half] = got.high;
  }
}

template <typename A, typename T>
__device__ __forceinline__ void append(const AppendArgs& args) {
  const AppendItem item = args.items[blockIdx.y];
  const unsigned half = args.dim / 2;
  const unsigned pairs = item.n * item.heads * half;
  for (unsigned pair = blockIdx.x * THREADS + threadIdx.x; pair < pairs; pair += gridDim.x * THREADS) {
    const unsigned i = pair % half;
    const unsigned head = pair / half % item.heads;
    const unsigned index = pair / half / item.heads;
    const unsigned row = item.first_row + index;
    const unsigned column = (item.first_head + head) * args.dim + i;
    const A* key = static_cast<const A*>(args.keys) + row * args.key_stride + column;
    const A* value = static_cast<const A*>(args.values) + row * args.value_stride + column;
    Pair got{widen(key[0]), widen(key[half])};
    if (args.cosines != nullptr) {
      const unsigned angle = row * half + i;
      got = turned(got.low, got.high, args.cosines[angle], args.sines[angle]);
    }
    const uint64_t to = (uint64_t(head) * item.capacity + item.at + index) * args.dim + i;
    T* to_keys = static_cast<T*>(item.keys) + to;
    T* to_values = static_cast<T*>(item.values) + to;
    to_keys[0] = narrow<T>(got.low);
    to_keys[half] = narrow<T>(got.high);
    to_values[0] = narrow<T>(widen(value[0]));
    to_values[half] = narrow<T>(widen(value[half]));
  }
}

}  // namespace rotary

KERNEL(rotate_f32, RotateArgs, rotary::THREADS, rotary::rotate<float>)
KERNEL(rotate_f16, RotateArgs, rotary::THREADS, rotary::rotate<__half>)
KERNEL(rotate_bf16, RotateArgs, rotary::THREADS, rotary::rotate<__nv_bfloat16>)
KERNEL(append_f32_f32, AppendArgs, rotary::THREADS, rotary::append<float, float>)
KERNEL(append_f32_f16, AppendArgs, rotary::THREADS, rotary::append<float, __half>)
KERNEL(append_f32_bf16, AppendArgs, rotary::THREADS, rotary::append<float, __nv_bfloat16>)
KERNEL(append_f16_f32, AppendArgs, rotary::THREADS, rotary::append<__half, float>)
KERNEL(append_f16_f16, AppendArgs, rotary::THREADS, rotary::append<__half, __half>)
KERNEL(append_f16_bf16, AppendArgs, rotary::THREADS, rotary::append<__half, __nv_bfloat16>)
KERNEL(append_bf16_f32, AppendArgs, rotary::THREADS, rotary::append<__nv_bfloat16, float>)
KERNEL(append_bf16_f16, AppendArgs, rotary::THREADS, rotary::append<__nv_bfloat16, __half>)
KERNEL(append_bf16_bf16, AppendArgs, rotary::THREADS, rotary::append<__nv_bfloat16, __nv_bfloat16>)
