// Stands in for CUDA's language extensions, so that a C++ compiler can read the kernels. Only what the kernels use is here.
#pragma once

#define PREFIXKV_SHIM 1

#include <cmath>
#include <cstdint>
#include <cstring>

#define __global__
#define __device__
#define __forceinline__ inline
#define __restrict__ __restrict
// Only `extern __shared__`, the dynamic kind, is poisoned. Not `thread_local`, which asks for constructors elsewhere.
#define __shared__ __thread

struct uint3 {
  unsigned x, y, z;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

extern __thread uint3 threadIdx, blockIdx, blockDim, gridDim;

struct __half {
  uint16_t bits;
};
struct __nv_bfloat16 {
  uint16_t bits;
};
float __half2float(__half x);
__half __float2half_rn(float x);
inline float __bfloat162float(__nv_bfloat16 x) {
  const uint32_t wide = uint32_t(x.bits) << 16;
  float to;
  memcpy(&to, &wide, 4);
  return to;
}
__nv_bfloat16 __float2bfloat16_rn(float x);

inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }

namespace shim {

enum class Wait : int { None, Block, Shuffle };

// Stops the thread that runs until all others of its block (or warp) have come to the same line.
void wait(Wait what, int line);
uint32_t* exchange(uint32_t value, int line);
[[noreturn]] void stop(const char* what, int line);

inline float shuffle(unsigned mask, float x, unsigned source, int line) {
  if (mask != 0xffffffffu) stop("a shuffle of a part of a warp", line);
  uint32_t bits;
  memcpy(&bits, &x, 4);
  const uint32_t got = exchange(bits, line)[source % 32];
  memcpy(&x, &got, 4);
  return x;
}

// Where a kernel is kept; its name finds it.
struct Kernel {
  Kernel(const char* name, unsigned threads, size_t size, void (*run)(const void*));
};

}  // namespace shim

// The device faults on an address that is not aligned to the access.
template <typename T>
inline T __ldg(const T* from) {
  if (reinterpret_cast<uintptr_t>(from) % alignof(T) != 0) shim::stop("a load that is not aligned", __LINE__);
  return *from;
}

template <typename T>
inline T* aligned(T* address) {
  if (reinterpret_cast<uintptr_t>(address) % alignof(T) != 0) shim::stop("an access that is not aligned", __LINE__);
  return address;
}

#define __syncthreads() shim::wait(shim::Wait::Block, __LINE__)
#define __shfl_xor_sync(MASK, X, STEP) shim::shuffle(MASK, X, (threadIdx.x % 32) ^ (STEP), __LINE__)
#define __shfl_sync(MASK, X, LANE) shim::shuffle(MASK, X, LANE, __LINE__)

#define KERNEL(NAME, ARGS, THREADS, ...)                       \
  extern "C" void NAME(const ARGS args) { __VA_ARGS__(args); } \
  static const shim::Kernel shim_##NAME(#NAME, THREADS, sizeof(ARGS), [](const void* args) { NAME(*static_cast<const ARGS*>(args)); });
#define KERNEL_OF(BLOCKS, ...) KERNEL(__VA_ARGS__)
