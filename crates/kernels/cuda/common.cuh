// Shared by all kernels: storage formats, 16-byte vectors, reductions over lanes of a warp, shared memory.
//
// The same source is compiled by nvcc for the device and by a C++ compiler for crates/cuda-shim, whose header stands in for
// the language extensions. Rules that follow: shared memory is dynamic and comes from shared_memory() (the shim poisons it),
// every thread of a block reaches every barrier, every lane of a warp every shuffle, and a kernel has one argument, a struct
// of args.cuh.
#pragma once

#ifndef PREFIXKV_SHIM
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#define KERNEL(NAME, ARGS, THREADS, ...) \
  extern "C" __global__ void __launch_bounds__(THREADS) NAME(const __grid_constant__ ARGS args) { __VA_ARGS__(args); }
// With registers for so many blocks per multiprocessor.
#define KERNEL_OF(BLOCKS, NAME, ARGS, THREADS, ...) \
  extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) NAME(const __grid_constant__ ARGS args) { __VA_ARGS__(args); }

// The shim checks the address.
template <typename T>
__device__ __forceinline__ T* aligned(T* address) {
  return address;
}
#endif

#include "args.cuh"

constexpr unsigned WARP = 32;
constexpr unsigned ALL_LANES = 0xffffffffu;

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(__half x) { return __half2float(x); }
__device__ __forceinline__ float widen(__nv_bfloat16 x) { return __bfloat162float(x); }

template <typename T>
__device__ __forceinline__ T narrow(float x);
template <>
__device__ __forceinline__ float narrow<float>(float x) { return x; }
template <>
__device__ __forceinline__ __half narrow<__half>(float x) { return __float2half_rn(x); }
template <>
__device__ __forceinline__ __nv_bfloat16 narrow<__nv_bfloat16>(float x) { return __float2bfloat16_rn(x); }

// Elements of 16 bytes.
template <typename T>
constexpr unsigned WIDTH = 16 / sizeof(T);

// 16 bytes of elements. `from` is aligned to 16 bytes.
template <typename T>
struct Vector {
  uint4 bits;

  __device__ __forceinline__ static Vector load(const T* from) {
    return Vector{__ldg(reinterpret_cast<const uint4*>(from))};
  }
  __device__ __forceinline__ static Vector zero() { return Vector{make_uint4(0, 0, 0, 0)}; }

  __device__ __forceinline__ void widened(float (&to)[WIDTH<T>]) const {
    T elements[WIDTH<T>];
    memcpy(elements, &bits, sizeof bits);
#pragma unroll
    for (unsigned i = 0; i < WIDTH<T>; ++i) to[i] = widen(elements[i]);
  }
};

// The sum over teams of LANES neighbouring lanes, in all of them.
template <unsigned LANES>
__device__ __forceinline__ float team_sum(float x) {
#pragma unroll
  for (unsigned step = LANES / 2; step > 0; step /= 2) x += __shfl_xor_sync(ALL_LANES, x, step);
  return x;
}

template <unsigned LANES>
__device__ __forceinline__ float team_max(float x) {
#pragma unroll
  for (unsigned step = LANES / 2; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, step));
  return x;
}

// The block's dynamic shared memory, aligned to 16 bytes.
template <typename T>
__device__ __forceinline__ T* shared_memory() {
  extern __shared__ uint4 block_memory[];
  return reinterpret_cast<T*>(block_memory);
}

// A score under a soft cap, both times log2(e); a cap of 0 is none.
__device__ __forceinline__ float capped(float score, float cap) {
  return cap == 0.0f ? score : cap * tanhf(score / cap);
}

// 2^(x - max), and 0 for an entry that does not count (x is -infinity), whatever the maximum.
__device__ __forceinline__ float weight_of(float x, float max) { return x == -INFINITY ? 0.0f : exp2f(x - max); }
