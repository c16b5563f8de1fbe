// Steps between the matrix products of a network: norms, activations, sums, conversions, rows of tables.
// Twin: src/reference/network.rs.
//
// {rms_norm,layer_norm}_{f32,f16,bf16}_t{32,256}: rows x [n, width] f32, of which `together` lie one behind the other, x_stride and
//   out_stride apart (the heads of wider rows), weight [width] and, for layer_norm, bias [width] f32, to
//   out [n, width] in the format: x / sqrt(mean(x^2) + eps) * weight, and (x - mean) / sqrt(variance + eps) * weight + bias. A
//   row is added up in f32 by 32 or 256 threads in an order that follows from its width alone, so a row gets the same bits
//   alone and among others, aligned or not. The mean is taken off before squaring. Every element is read once from memory and
//   once or twice more from the cache. Floor: n * width * (4 + out bytes) over the memory bandwidth, 4 or 7 FLOPs per element.
//   Launch: t32: grid ceil(n / 8), a warp per row; t256: grid n, a block per row; 256 threads, 32 bytes of shared memory.
//
// copy_{from}_{to}: row rows[i] of x (row i where rows is null) to row i of out, n rows of `width`, x_stride and out_stride
//   elements apart; rounds to nearest even. Conversions, rows of tables and columns of wider rows are all this.
// take_{from}: the same to f32 with up to 64 rows, whose numbers are part of the argument.
// activate_{f32,f16,bf16}: out = f(x), f by its number: 0 gelu (error function), 1 gelu (tanh), 2 quick gelu, 3 silu, 4 relu.
// glu_{f32,f16,bf16}: out = f(x) * y, y_stride apart, f as above.
// add: out += the one row y, for every row.
// scale: out *= factor. cap: out = factor * tanh(out / factor).
//   These seven: x, y f32 where nothing else is said. Floor: every element read and written once over the memory bandwidth.
//   Launch: grid x, 256 threads, four elements of a row per thread; blocks stride over all of them.
//
// choose: of n rows of `width` f32, x_stride elements apart, to out [n, 2] the index of the greatest number, the lowest of equals, 0 where none
//   is above -infinity, and whether one is NaN or infinite. NaN is never the greatest. Floor: n * width * 4 over the memory bandwidth; of
//   few rows the latency of one. Launch: grid n, 256 threads, 96 bytes of shared memory.
//
// With `vectors`, all rows start at addresses aligned to four elements, and four are one access; else, and at the end of a row,
// elements are read and written one by one. The bits are the same. Rows of the norms are whole fours then.
#include "common.cuh"

namespace network {

constexpr unsigned THREADS = 256;

// Four elements as one access.
template <unsigned BYTES>
struct Word;
template <>
struct Word<4> {
  using Type = uint4;
};
template <>
struct Word<2> {
  using Type = uint2;
};

// The elements at .. at + 4 of a row, 0 behind its end. CHANGES: of a row that the kernel writes.
template <bool CHANGES = false, typename T>
__device__ __forceinline__ void load(const T* row, unsigned at, unsigned width, bool vectors, float (&to)[4]) {
  using Four = typename Word<sizeof(T)>::Type;
  if (vectors && at + 4 <= width) {
    const Four* from = reinterpret_cast<const Four*>(row + at);
    const Four bits = CHANGES ? *aligned(from) : __ldg(from);
    T elements[4];
    memcpy(elements, &bits, sizeof bits);
#pragma unroll
    for (unsigned i = 0; i < 4; ++i) to[i] = widen(elements[i]);
  } else {
#pragma unroll
    for (unsigned i = 0; i < 4; ++i) to[i] = at + i < width ? widen(row[at + i]) : 0.0f;
  }
}

// Groups of four that a thread of a norm asks for before it uses the first.
constexpr unsigned AHEAD = 4;

// Fours that lie STEP elements apart, the first at `base`. With `vectors`, the row is whole fours.
template <unsigned STEP>
__device__ __forceinline__ void load_ahead(const float* row, unsigned base, unsigned width, bool vectors,
                                           float (&to)[AHEAD][4]) {
  if (vectors) {
#pragma unroll
    for (unsigned u = 0; u < AHEAD; ++u) {
      const unsigned at = base + u * STEP;
      const uint4 bits = at < width ? __ldg(reinterpret_cast<const uint4*>(row + at)) : make_uint4(0, 0, 0, 0);
      memcpy(to[u], &bits, sizeof bits);
    }
  } else {
#pragma unroll
    for (unsigned u = 0; u < AHEAD; ++u) load(row, base + u * STEP, width, false, to[u]);
  }
}

template <typename T>
__device__ __forceinline__ void store(T* row, unsigned at, unsigned width, bool vectors, const float (&from)[4]) {
  using Four = typename Word<sizeof(T)>::Type;
  if (vectors && at + 4 <= width) {
    T elements[4];
#pragma unroll
    for (unsigned i = 0; i < 4; ++i) elements[i] = narrow<T>(from[i]);
    Four bits;
    memcpy(&bits, elements, sizeof bits);
    *aligned(reinterpret_cast<Four*>(row + at)) = bits;
  } else {
#pragma unroll
    for (unsigned i = 0; i < 4; ++i) {
      if (at + i < width) row[at + i] = narrow<T>(from[i]);
    }
  }
}

// The sum over TEAM threads (a warp, or the block), in all of them.
template <unsigned TEAM>
__device__ __forceinline__ float sum_over(float x) {
  x = team_sum<WARP>(x);
  if (TEAM == WARP) return x;
  float* sums = shared_memory<float>();
  // The result of an earlier sum has been read there.
  __syncthreads();
  if (threadIdx.x % WARP == 0) sums[threadIdx.x / WARP] = x;
  __syncthreads();
  float total = 0.0f;
#pragma unroll
  for (unsigned warp = 0; warp < TEAM / WARP; ++warp) total += sums[warp];
  return total;
}

template <typename O, unsigned TEAM, bool CENTRED>
__device__ __forceinline__ void normalise(const NormalizeArgs& args) {
  const unsigned row = blockIdx.x * (THREADS / TEAM) + threadIdx.x / TEAM;
  // Whole warps; a block of one team has a row.
  if (row >= args.n) return;
  const unsigned width = args.width;
  const bool vectors = args.vectors != 0;
  const uint64_t group = row / args.together, member = row % args.together;
  const float* x = args.x + group * args.x_stride + member * width;
  O* out = static_cast<O*>(args.out) + group * args.out_stride + member * width;
  const unsigned first = 4 * (threadIdx.x % TEAM);
  constexpr unsigned STEP = 4 * TEAM, TURN = AHEAD * STEP;

  float mean = 0.0f;
  if (CENTRED) {
    float sum = 0.0f;
    for (unsigned base = first; base < width; base += TURN) {
      float ahead[AHEAD][4];
      load_ahead<STEP>(x, base, width, vectors, ahead);
#pragma unroll
      for (unsigned u = 0; u < AHEAD; ++u) sum += (ahead[u][0] + ahead[u][1]) + (ahead[u][2] + ahead[u][3]);
    }
    mean = sum_over<TEAM>(sum) / float(width);
  }
  float sum = 0.0f;
  for (unsigned base = first; base < width; base += TURN) {
    float ahead[AHEAD][4];
    load_ahead<STEP>(x, base, width, vectors, ahead);
#pragma unroll
    for (unsigned u = 0; u < AHEAD; ++u) {
      float four[4];
#pragma unroll
      for (unsigned i = 0; i < 4; ++i) four[i] = base + u * STEP + i < width ? ahead[u][i] - mean : 0.0f;
      sum += (four[0] * four[0] + four[1] * four[1]) + (four[2] * four[2] + four[3] * four[3]);
    }
  }
  const float inverse = 1.0f / sqrtf(sum_over<TEAM>(sum) / float(width) + args.eps);
  for (unsigned base = first; base < width; base += TURN) {
    float ahead[AHEAD][4], weight[AHEAD][4], bias[AHEAD][4];
    load_ahead<STEP>(x, base, width, vectors, ahead);
    load_ahead<STEP>(args.weight, base, width, vectors, weight);
    if (CENTRED) load_ahead<STEP>(args.bias, base, width, vectors, bias);
#pragma unroll
    for (unsigned u = 0; u < AHEAD; ++u) {
      const unsigned at = base + u * STEP;
      float four[4];
#pragma unroll
      for (unsigned i = 0; i < 4; ++i) {
        const float scaled = (ahead[u][i] - mean) * inverse * weight[u][i];
        four[i] = CENTRED ? scaled + bias[u][i] : scaled;
      }
      if (at < width) store(out, at, width, vectors, four);
    }
  }
}

// Calls `one` for every four elements: row, and where in the row.
template <typename One>
__device__ __forceinline__ void every_four(const MapArgs& args, One one) {
  const unsigned fours = (args.width + 3) / 4;
  const unsigned all = args.n * fours;
  for (unsigned index = blockIdx.x * THREADS + threadIdx.x; index < all; index += gridDim.x * THREADS) {
    const unsigned row = index / fours;
    one(row, 4 * (index - row * fours));
  }
}

template <typename I, typename O>
__device__ __forceinline__ void copy_rows(const MapArgs& args, const uint32_t* rows) {
  const bool vectors = args.vectors != 0;
  every_four(args, [&](unsigned row, unsigned at) {
    const unsigned from = rows == nullptr ? row : rows[row];
    float four[4];
    load(static_cast<const I*>(args.x) + from * args.x_stride, at, args.width, vectors, four);
    store(static_cast<O*>(args.out) + row * args.out_stride, at, args.width, vectors, four);
  });
}

template <typename I, typename O>
__device__ __forceinline__ void copy(const MapArgs& args) {
  copy_rows<I, O>(args, args.rows);
}

template <typename I>
__device__ __forceinline__ void take(const TakeArgs& args) {
  copy_rows<I, float>(args.map, args.rows);
}

// x * sigmoid(slope * x). The exponential of a large negative x is infinite, and the quotient 0.
__device__ __forceinline__ float gated(float x, float slope) { return x / (1.0f + expf(-slope * x)); }

__device__ __forceinline__ float activated(float x, unsigned function) {
  switch (function) {
    // With erfc instead of 1 + erf, so that the small results of negative x keep their digits.
    case 0: return 0.5f * x * erfcf(-0.70710678118654752f * x);
    // (1 + tanh(u)) / 2 is sigmoid(2 u).
    case 1: return gated(x, 1.5957691216057308f * (1.0f + 0.044715f * x * x));
    case 2: return gated(x, 1.702f);
    case 3: return gated(x, 1.0f);
    // Not a maximum, which would make a number of NaN.
    default: return x < 0.0f ? 0.0f : x;
  }
}

template <typename O>
__device__ __forceinline__ void activate(const MapArgs& args) {
  const bool vectors = args.vectors != 0;
  every_four(args, [&](unsigned row, unsigned at) {
    float four[4];
    load(static_cast<const float*>(args.x) + row * args.x_stride, at, args.width, vectors, four);
#pragma unroll
    for (unsigned i = 0; i < 4; ++i) four[i] = activated(four[i], args.function);
    store(static_cast<O*>(args.out) + row * args.out_stride, at, args.width, vectors, four);
  });
}

template <typename O>
__device__ __forceinline__ void glu(const MapArgs& args) {
  const bool vectors = args.vectors != 0;
  every_four(args, [&](unsigned row, unsigned at) {
    float four[4], up[4];
    load(static_cast<const float*>(args.x) + row * args.x_stride, at, args.width, vectors, four);
    load(args.y + row * args.y_stride, at, args.width, vectors, up);
#pragma unroll
    for (unsigned i = 0; i < 4; ++i) four[i] = activated(four[i], args.function) * up[i];
    store(static_cast<O*>(args.out) + row * args.out_stride, at, args.width, vectors, four);
  });
}

__device__ __forceinline__ void add(const MapArgs& args) {
  const bool vectors = args.vectors != 0;
  every_four(args, [&](unsigned row, unsigned at) {
    float* out = static_cast<float*>(args.out) + row * args.out_stride;
    float four[4], other[4];
    load<true>(out, at, args.width, vectors, four);
    load(args.y, at, args.width, vectors, other);
#pragma unroll
    for (unsigned i = 0; i < 4; ++i) four[i] += other[i];
    store(out, at, args.width, vectors, four);
  });
}

template <typename One>
__device__ __forceinline__ void in_place(const MapArgs& args, One one) {
  const bool vectors = args.vectors != 0;
  every_four(args, [&](unsigned row, unsigned at) {
    float* out = static_cast<float*>(args.out) + row * args.out_stride;
    float four[4];
    load<true>(out, at, args.width, vectors, four);
#pragma unroll
    for (unsigned i = 0; i < 4; ++i) four[i] = one(four[i]);
    store(out, at, args.width, vectors, four);
  });
}

__device__ __forceinline__ void scale(const MapArgs& args) {
  in_place(args, [&](float x) { return x * args.factor; });
}

__device__ __forceinline__ void cap(const MapArgs& args) {
  in_place(args, [&](float x) { return capped(x, args.factor); });
}

// The greatest number so far, where it is, and whether there was one that is none.
struct Choice {
  float most;
  uint32_t index;
  uint32_t bad;

  __device__ __forceinline__ void add(float x, uint32_t at) {
    // Not for NaN, which is neither below nor above.
    if (x > most || (x == most && at < index)) {
      most = x;
      index = at;
    }
  }
};

// As the device moves the bits of any type.
__device__ __forceinline__ uint32_t moved(uint32_t bits, unsigned step) {
  float x;
  memcpy(&x, &bits, sizeof x);
  x = __shfl_xor_sync(ALL_LANES, x, step);
  memcpy(&bits, &x, sizeof x);
  return bits;
}

__device__ __forceinline__ void choose(const ChooseArgs& args) {
  const float* row = args.x + blockIdx.x * args.x_stride;
  // -infinity is never above, so where nothing else is, the first index stays.
  Choice best{-INFINITY, 0, 0};
  for (unsigned base = threadIdx.x; base < args.width; base += THREADS * AHEAD) {
    float ahead[AHEAD];
#pragma unroll
    for (unsigned u = 0; u < AHEAD; ++u) {
      const unsigned at = base + u * THREADS;
      ahead[u] = at < args.width ? __ldg(row + at) : 0.0f;
    }
#pragma unroll
    for (unsigned u = 0; u < AHEAD; ++u) {
      const unsigned at = base + u * THREADS;
      if (at >= args.width) continue;
      if (ahead[u] > best.most) {
        best.most = ahead[u];
        best.index = at;
      }
      // Infinities less themselves are NaN too.
      if (ahead[u] - ahead[u] != 0.0f) best.bad = 1;
    }
  }
#pragma unroll
  for (unsigned step = WARP / 2; step > 0; step /= 2) {
    const float most = __shfl_xor_sync(ALL_LANES, best.most, step);
    const uint32_t index = moved(best.index, step), bad = moved(best.bad, step);
    best.add(most, index);
    best.bad |= bad;
  }
  Choice* of_warps = shared_memory<Choice>();
  if (threadIdx.x % WARP == 0) of_warps[threadIdx.x / WARP] = best;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (unsigned warp = 1; warp < THREADS / WARP; ++warp) {
    best.add(of_warps[warp].most, of_warps[warp].index);
    best.bad |= of_warps[warp].bad;
  }
  args.out[2 * blockIdx.x] = best.most == -INFINITY ? 0 : best.index;
  args.out[2 * blockIdx.x + 1] = best.bad;
}

}  // namespace network

#define NETWORK_NORM(FORMAT, O, TEAM)                                                                              \
  KERNEL(rms_norm_##FORMAT##_t##TEAM, NormalizeArgs, network::THREADS, network::normalise<O, TEAM, false>)         \
  KERNEL(layer_norm_##FORMAT##_t##TEAM, NormalizeArgs, network::THREADS, network::normalise<O, TEAM, true>)
#define NETWORK(FORMAT, T)                                                             \
  NETWORK_NORM(FORMAT, T, 32)                                                          \
  NETWORK_NORM(FORMAT, T, 256)                                                         \
  KERNEL(activate_##FORMAT, MapArgs, network::THREADS, network::activate<T>)           \
  KERNEL(glu_##FORMAT, MapArgs, network::THREADS, network::glu<T>)                     \
  KERNEL(take_##FORMAT, TakeArgs, network::THREADS, network::take<T>)                  \
  KERNEL(copy_##FORMAT##_f32, MapArgs, network::THREADS, network::copy<T, float>)      \
  KERNEL(copy_##FORMAT##_f16, MapArgs, network::THREADS, network::copy<T, __half>)     \
  KERNEL(copy_##FORMAT##_bf16, MapArgs, network::THREADS, network::copy<T, __nv_bfloat16>)

NETWORK(f32, float)
NETWORK(f16, __half)
NETWORK(bf16, __nv_bfloat16)
KERNEL(choose, ChooseArgs, network::THREADS, network::choose)
KERNEL(add, MapArgs, network::THREADS, network::add)
KERNEL(scale, MapArgs, network::THREADS, network::scale)
KERNEL(cap, MapArgs, network::THREADS, network::cap)
