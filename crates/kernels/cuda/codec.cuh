// Entries in any codec, eight numbers of a row at a time. Twin: src/codec/decode.rs.
#pragma once

#include "common.cuh"

// Numbers that a thread reads at once, neighbours of one row.
constexpr unsigned EIGHT = 8;

constexpr uint32_t DTYPE_F32 = 0, DTYPE_F16 = 1, DTYPE_U8 = 2, DTYPE_U4 = 3, DTYPE_U2 = 4;
constexpr uint32_t PER_CHANNEL = 1, PER_ENTRY = 2;

// The steps that differ between them: codes of all widths are one kind.
constexpr unsigned FULL = 0, HALF = 1, CHANNEL_CODES = 2, ENTRY_CODES = 3;

__device__ __forceinline__ unsigned kind_of(const Codec& codec) {
  if (codec.dtype == DTYPE_F32) return FULL;
  if (codec.dtype == DTYPE_F16) return HALF;
  return codec.axis == PER_CHANNEL ? CHANNEL_CODES : ENTRY_CODES;
}

// Of a dtype that is no code, 8 all the same.
__device__ __forceinline__ unsigned bits_of(const Codec& codec) {
  return codec.dtype == DTYPE_U4 ? 4 : codec.dtype == DTYPE_U2 ? 2 : 8;
}

// Keys, or values, of one head of a run.
struct Part {
  const uint8_t* numbers;
  const uint8_t* scales;
  unsigned dim;
  unsigned bits;
  unsigned group;

  __device__ __forceinline__ Part(const void* numbers_, const void* scales_, const Codec& codec, unsigned head,
                                  unsigned capacity, unsigned dim_)
      : dim(dim_), bits(bits_of(codec)), group(codec.group) {
    const unsigned kind = kind_of(codec);
    const unsigned width = kind == FULL ? 32 : kind == HALF ? 16 : bits;
    numbers = static_cast<const uint8_t*>(numbers_) + uint64_t(head) * capacity * (dim / EIGHT) * width;
    // A scale and a zero are 4 bytes.
    const uint64_t pairs = kind == CHANNEL_CODES ? uint64_t(capacity / group) * dim : uint64_t(capacity) * (dim / group);
    scales = static_cast<const uint8_t*>(scales_) + (kind >= CHANNEL_CODES ? head * pairs * 4 : 0);
  }

  static __device__ __forceinline__ Part keys(const Run& run, unsigned head, unsigned dim) {
    return Part(run.keys, run.key_scales, run.key, head, run.capacity, dim);
  }
  static __device__ __forceinline__ Part values(const Run& run, unsigned head, unsigned dim) {
    return Part(run.values, run.value_scales, run.value, head, run.capacity, dim);
  }
};

__device__ __forceinline__ float half_of(uint32_t word, unsigned which) {
  __half halves[2];
  memcpy(halves, &word, sizeof word);
  return widen(halves[which]);
}

// Eight numbers of a row as they are stored, so that a thread can ask for several before it uses the first.
template <unsigned KIND>
struct Stored;

template <>
struct Stored<FULL> {
  Vector<float> low, high;

  // The numbers at .. at + 8 of entry `slot` of the part. Addresses are aligned to what is read at once.
  __device__ __forceinline__ void load(const Part& part, unsigned slot, unsigned at) {
    const float* from = reinterpret_cast<const float*>(part.numbers) + uint64_t(slot) * part.dim + at;
    low = Vector<float>::load(from);
    high = Vector<float>::load(from + 4);
  }
  __device__ __forceinline__ void widened(const Part&, float (&to)[EIGHT]) const {
    float part[4];
    low.widened(part);
#pragma unroll
    for (unsigned i = 0; i < 4; ++i) to[i] = part[i];
    high.widened(part);
#pragma unroll
    for (unsigned i = 0; i < 4; ++i) to[4 + i] = part[i];
  }
};

template <>
struct Stored<HALF> {
  Vector<__half> all;

  __device__ __forceinline__ void load(const Part& part, unsigned slot, unsigned at) {
    all = Vector<__half>::load(reinterpret_cast<const __half*>(part.numbers) + uint64_t(slot) * part.dim + at);
  }
  __device__ __forceinline__ void widened(const Part&, float (&to)[EIGHT]) const { all.widened(to); }
};

// Eight codes: `bits` bytes.
__device__ __forceinline__ uint2 load_codes(const Part& part, unsigned slot, unsigned at) {
  const uint8_t* from = part.numbers + (uint64_t(slot) * (part.dim / EIGHT) + at / EIGHT) * part.bits;
  if (part.bits == 8) return __ldg(reinterpret_cast<const uint2*>(from));
  if (part.bits == 4) return make_uint2(__ldg(reinterpret_cast<const uint32_t*>(from)), 0);
  return make_uint2(__ldg(reinterpret_cast<const uint16_t*>(from)), 0);
}

__device__ __forceinline__ float code_of(const uint2& codes, unsigned bits, unsigned i) {
  const unsigned at = i * bits;
  return float((at < 32 ? codes.x >> at : codes.y >> (at - 32)) & ((1u << bits) - 1));
}

template <>
struct Stored<CHANNEL_CODES> {
  uint2 codes;
  Vector<__half> scales, zeros;

  __device__ __forceinline__ void load(const Part& part, unsigned slot, unsigned at) {
    codes = load_codes(part, slot, at);
    const __half* pairs = reinterpret_cast<const __half*>(part.scales) + uint64_t(slot / part.group) * 2 * part.dim + at;
    scales = Vector<__half>::load(pairs);
    zeros = Vector<__half>::load(pairs + part.dim);
  }
  __device__ __forceinline__ void widened(const Part& part, float (&to)[EIGHT]) const {
    float scale[EIGHT], zero[EIGHT];
    scales.widened(scale);
    zeros.widened(zero);
#pragma unroll
    for (unsigned i = 0; i < EIGHT; ++i) to[i] = code_of(codes, part.bits, i) * scale[i] + zero[i];
  }
};

template <>
struct Stored<ENTRY_CODES> {
  uint2 codes;
  uint32_t pair;

  __device__ __forceinline__ void load(const Part& part, unsigned slot, unsigned at) {
    codes = load_codes(part, slot, at);
    const uint32_t* pairs = reinterpret_cast<const uint32_t*>(part.scales);
    pair = __ldg(pairs + uint64_t(slot) * (part.dim / part.group) + at / part.group);
  }
  __device__ __forceinline__ void widened(const Part& part, float (&to)[EIGHT]) const {
    const float scale = half_of(pair, 0), zero = half_of(pair, 1);
#pragma unroll
    for (unsigned i = 0; i < EIGHT; ++i) to[i] = code_of(codes, part.bits, i) * scale + zero;
  }
};

template <unsigned KIND>
__device__ __forceinline__ void read_kind(const Part& part, unsigned slot, unsigned at, float (&to)[EIGHT]) {
  Stored<KIND> stored;
  stored.load(part, slot, at);
  stored.widened(part, to);
}

// The numbers at .. at + 8 of entry `slot`, for code that does not ask ahead.
__device__ __forceinline__ void read_eight(unsigned kind, const Part& part, unsigned slot, unsigned at, float (&to)[EIGHT]) {
  if (kind == HALF) {
    read_kind<HALF>(part, slot, at, to);
  } else if (kind == FULL) {
    read_kind<FULL>(part, slot, at, to);
  } else if (kind == CHANNEL_CODES) {
    read_kind<CHANNEL_CODES>(part, slot, at, to);
  } else {
    read_kind<ENTRY_CODES>(part, slot, at, to);
  }
}

// The Walsh-Hadamard transform, without its factor, of `dim` numbers in shared memory by all threads of a block; a power of two.
template <unsigned THREADS>
__device__ __forceinline__ void hadamard(float* row, unsigned dim) {
  for (unsigned apart = 1; apart < dim; apart *= 2) {
    __syncthreads();
    for (unsigned pair = threadIdx.x; pair < dim / 2; pair += THREADS) {
      const unsigned at = pair / apart * 2 * apart + pair % apart;
      const float low = row[at], high = row[at + apart];
      row[at] = low + high;
      row[at + apart] = low - high;
    }
  }
  __syncthreads();
}
