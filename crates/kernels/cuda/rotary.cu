// Rotary position embedding in the half-split form, and the append of new entries to lanes. Twin: src/rotary.rs.
//
// Angles come from the host as cosines and sines [rows, dim / 2] in f32, and products are not fused with sums, so that a row
// gets the same bits as from the twin.
//
// rotate_{f32,f16,bf16}: rows of `heads * dim` elements of the network's format, `stride` elements apart, to out
//   [n, heads, dim] f32; row i by angle i. Reads n * heads * dim elements and n * dim angles, writes as many f32, 3 FLOPs per
//   element: the floor is the memory bandwidth. Launch: grid x, 256 threads, a thread per pair of elements.
//
// append_{f32,f16,bf16}: rows of new keys and values (all KV heads of the layer per row) in the network's format to the entries
//   at .. at + n of [heads, capacity, dim], plain f32 or f16. Item: the KV heads first_head .. first_head + heads of the rows
//   first_row .. first_row + n; key row r is rotated by angle r, or stored as it is when there are no angles, and keys and values
//   each go through their transform where there is one. Items may belong to different lanes and sequences. With queries, the same launch
//   does as rotate with them. Floor as above. Launch: grid (x, items, and one more with queries), 256 threads, a thread per pair, or a
//   block per row with a transform; dim * 4 bytes of shared memory if there is one.
#include "codec.cuh"

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

// `n` rows of `heads` vectors, `stride` elements apart.
template <typename A>
__device__ __forceinline__ void rotate_rows(const A* rows, uint64_t stride, unsigned n, unsigned heads, unsigned dim,
                                            const float* cosines, const float* sines, float* out) {
  const unsigned half = dim / 2;
  const unsigned pairs = n * heads * half;
  for (unsigned pair = blockIdx.x * THREADS + threadIdx.x; pair < pairs; pair += gridDim.x * THREADS) {
    const unsigned i = pair % half;
    const unsigned head = pair / half % heads;
    const unsigned row = pair / half / heads;
    const A* from = rows + row * stride + head * dim + i;
    const unsigned angle = row * half + i;
    const Pair got = turned(widen(from[0]), widen(from[half]), cosines[angle], sines[angle]);
    float* to = out + (uint64_t(row) * heads + head) * dim + i;
    to[0] = got.low;
    to[half] = got.high;
  }
}

template <typename A>
__device__ __forceinline__ void rotate(const RotateArgs& args) {
  rotate_rows(static_cast<const A*>(args.rows), args.stride, args.n, args.heads, args.dim, args.cosines, args.sines, args.out);
}

// A row of new keys or values of one head.
template <typename A>
struct New {
  const A* from;
  // Null: stored as it is.
  const float* cosines;
  const float* sines;

  __device__ __forceinline__ Pair pair(unsigned i, unsigned half) const {
    const Pair got{widen(from[i]), widen(from[i + half])};
    return cosines == nullptr ? got : turned(got.low, got.high, cosines[i], sines[i]);
  }
};

template <typename A>
__device__ __forceinline__ void transformed(const New<A>& row, unsigned transform, unsigned dim, void* to, unsigned dtype, uint64_t at) {
  if (transform == TRANSFORM_NONE) {
    for (unsigned i = threadIdx.x; i < dim / 2; i += THREADS) {
      const Pair got = row.pair(i, dim / 2);
      store_float(to, dtype, at + i, got.low);
      store_float(to, dtype, at + i + dim / 2, got.high);
    }
    return;
  }
  float* numbers = shared_memory<float>();
  for (unsigned i = threadIdx.x; i < dim / 2; i += THREADS) {
    const Pair got = row.pair(i, dim / 2);
    const unsigned high = i + dim / 2;
    numbers[i] = transform == TRANSFORM_RANDOM ? ::turned(i, got.low) : got.low;
    numbers[high] = transform == TRANSFORM_RANDOM ? ::turned(high, got.high) : got.high;
  }
  hadamard<THREADS>(numbers, dim);
  const float factor = 1.0f / sqrtf(float(dim));
  for (unsigned i = threadIdx.x; i < dim; i += THREADS) store_float(to, dtype, at + i, numbers[i] * factor);
  __syncthreads();
}

template <typename A>
__device__ __forceinline__ void append(const AppendArgs& args) {
  if (blockIdx.y == args.count) {
    rotate_rows(static_cast<const A*>(args.queries), args.query_stride, args.rows, args.query_heads, args.dim, args.cosines,
                args.sines, args.rotated);
    return;
  }
  const AppendItem item = args.items[blockIdx.y];
  const unsigned dim = args.dim, half = dim / 2;
  const unsigned rows = item.n * item.heads;
  // Rows are taken by blocks that transform them, pairs of elements by threads that do not.
  const bool transforms = item.key_transform != TRANSFORM_NONE || item.value_transform != TRANSFORM_NONE;
  const unsigned works = transforms ? rows : rows * half;
  const unsigned first = transforms ? blockIdx.x : blockIdx.x * THREADS + threadIdx.x;
  const unsigned step = transforms ? gridDim.x : gridDim.x * THREADS;
  for (unsigned work = first; work < works; work += step) {
    const unsigned of = transforms ? work : work / half;
    const unsigned head = of % item.heads;
    const unsigned index = of / item.heads;
    const unsigned row = item.first_row + index;
    const unsigned column = (item.first_head + head) * dim;
    const bool turns = args.cosines != nullptr;
    const New<A> key{static_cast<const A*>(args.keys) + row * args.key_stride + column,
                     turns ? args.cosines + row * half : nullptr, turns ? args.sines + row * half : nullptr};
    const New<A> value{static_cast<const A*>(args.values) + row * args.value_stride + column, nullptr, nullptr};
    const uint64_t to = (uint64_t(head) * item.capacity + item.at + index) * dim;
    if (transforms) {
      transformed(key, item.key_transform, dim, item.keys, item.key_dtype, to);
      transformed(value, item.value_transform, dim, item.values, item.value_dtype, to);
      continue;
    }
    const unsigned i = work % half;
    const Pair new_key = key.pair(i, half), new_value = value.pair(i, half);
    store_float(item.keys, item.key_dtype, to + i, new_key.low);
    store_float(item.keys, item.key_dtype, to + i + half, new_key.high);
    store_float(item.values, item.value_dtype, to + i, new_value.low);
    store_float(item.values, item.value_dtype, to + i + half, new_value.high);
  }
}

}  // namespace rotary

KERNEL(rotate_f32, RotateArgs, rotary::THREADS, rotary::rotate<float>)
KERNEL(rotate_f16, RotateArgs, rotary::THREADS, rotary::rotate<__half>)
KERNEL(rotate_bf16, RotateArgs, rotary::THREADS, rotary::rotate<__nv_bfloat16>)
KERNEL(append_f32, AppendArgs, rotary::THREADS, rotary::append<float>)
KERNEL(append_f16, AppendArgs, rotary::THREADS, rotary::append<__half>)
KERNEL(append_bf16, AppendArgs, rotary::THREADS, rotary::append<__nv_bfloat16>)
