// Entries in any codec, eight numbers of a row at a time. Twin: src/codec/decode.rs.
#pragma once

#include "common.cuh"

// Numbers that a thread reads at once, neighbours of one row.
constexpr unsigned EIGHT = 8;

constexpr uint32_t DTYPE_F32 = 0, DTYPE_F16 = 1, DTYPE_U8 = 2, DTYPE_U4 = 3, DTYPE_U2 = 4, DTYPE_BF16 = 5, DTYPE_F8 = 6;
constexpr uint32_t PER_CHANNEL = 1, PER_ENTRY = 2;

// The steps that differ between them: codes of all widths are one kind.
constexpr unsigned FULL = 0, HALF = 1, BRAIN = 2, FLOAT8 = 3, CHANNEL_CODES = 4, ENTRY_CODES = 5, LEVEL_CODES = 6;

__device__ __forceinline__ unsigned kind_of(const Codec& codec) {
  if (codec.dtype == DTYPE_F32) return FULL;
  if (codec.dtype == DTYPE_F16) return HALF;
  if (codec.dtype == DTYPE_BF16) return BRAIN;
  if (codec.dtype == DTYPE_F8) return FLOAT8;
  return codec.axis == PER_CHANNEL ? CHANNEL_CODES : codec.table != 0 ? LEVEL_CODES : ENTRY_CODES;
}

__device__ __forceinline__ unsigned bits_of(const Codec& codec) {
  switch (codec.dtype) {
    case DTYPE_F32: return 32;
    case DTYPE_F16:
    case DTYPE_BF16: return 16;
    case DTYPE_U4: return 4;
    case DTYPE_U2: return 2;
    default: return 8;
  }
}

template <unsigned KIND>
struct Kind {
  static constexpr unsigned value = KIND;
};

// Calls use(Kind<kind>): code that is made for each of them is chosen here and nowhere else.
template <typename Use>
__device__ __forceinline__ void with_kind(unsigned kind, const Use& use) {
  switch (kind) {
    case FULL: return use(Kind<FULL>());
    case HALF: return use(Kind<HALF>());
    case BRAIN: return use(Kind<BRAIN>());
    case FLOAT8: return use(Kind<FLOAT8>());
    case CHANNEL_CODES: return use(Kind<CHANNEL_CODES>());
    case LEVEL_CODES: return use(Kind<LEVEL_CODES>());
    default: return use(Kind<ENTRY_CODES>());
  }
}

// Numbers of a table.
constexpr unsigned LEVELS = 16;

__device__ __forceinline__ const float* levels_of(const Codec& codec, const float* tables) {
  return codec.table == 0 ? nullptr : tables + (codec.table - 1) * LEVELS;
}

// Keys, or values, of one head of a run.
struct Part {
  const uint8_t* numbers;
  const uint8_t* scales;
  unsigned dim;
  unsigned bits;
  unsigned group;
  // The numbers that codes stand for, if they are looked up.
  const float* levels;

  // `tables`: those of the launch, LEVELS numbers each.
  __device__ __forceinline__ Part(const void* numbers_, const void* scales_, const Codec& codec, const float* tables,
                                  unsigned head, unsigned capacity, unsigned dim_)
      : dim(dim_), bits(bits_of(codec)), group(codec.group), levels(levels_of(codec, tables)) {
    const unsigned kind = kind_of(codec);
    // Eight numbers are as many bytes as one has bits.
    numbers = static_cast<const uint8_t*>(numbers_) + uint64_t(head) * capacity * (dim / EIGHT) * bits;
    // A scale and a zero are 4 bytes, a scale alone is 2.
    const uint64_t shared = kind == CHANNEL_CODES ? uint64_t(capacity / group) * dim : uint64_t(capacity) * (dim / group);
    const unsigned bytes = kind == LEVEL_CODES ? 2 : 4;
    scales = static_cast<const uint8_t*>(scales_) + (kind >= CHANNEL_CODES ? head * shared * bytes : 0);
  }

  static __device__ __forceinline__ Part keys(const Run& run, const float* tables, unsigned head, unsigned dim) {
    return Part(run.keys, run.key_scales, run.key, tables, head, run.capacity, dim);
  }
  static __device__ __forceinline__ Part values(const Run& run, const float* tables, unsigned head, unsigned dim) {
    return Part(run.values, run.value_scales, run.value, tables, head, run.capacity, dim);
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

template <typename T>
struct Sixteen {
  Vector<T> all;

  __device__ __forceinline__ void load(const Part& part, unsigned slot, unsigned at) {
    all = Vector<T>::load(reinterpret_cast<const T*>(part.numbers) + uint64_t(slot) * part.dim + at);
  }
  __device__ __forceinline__ void widened(const Part&, float (&to)[EIGHT]) const { all.widened(to); }
};

template <>
struct Stored<HALF> : Sixteen<__half> {};

template <>
struct Stored<BRAIN> : Sixteen<__nv_bfloat16> {};

// E4M3FN. Exponent and mantissa are those of an f16 that is 2^-8 as large.
__device__ __forceinline__ float float8(uint32_t bits) {
  if ((bits & 0x7f) == 0x7f) return NAN;
  const uint16_t wide = uint16_t((bits & 0x80) << 8 | (bits & 0x7f) << 7);
  __half half;
  memcpy(&half, &wide, sizeof wide);
  return widen(half) * 256.0f;
}

// The nearest, of two the one with an even mantissa; 448 for all that is larger. Twin: src/simd/floats.rs.
__device__ __forceinline__ uint8_t to_float8(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  const uint32_t sign = bits >> 24 & 0x80;
  if (x != x) return uint8_t(sign | 0x7f);
  const float size = fminf(fabsf(x), 448.0f);
  if (size < 0.015625f) return uint8_t(sign | uint32_t(rintf(size * 512.0f)));
  memcpy(&bits, &size, sizeof bits);
  return uint8_t(sign | min(((bits + 0x7ffff + (bits >> 20 & 1)) >> 20) - (120 << 3), 0x7eu));
}

template <>
struct Stored<FLOAT8> {
  uint2 all;

  __device__ __forceinline__ void load(const Part& part, unsigned slot, unsigned at) {
    all = __ldg(reinterpret_cast<const uint2*>(part.numbers + uint64_t(slot) * part.dim + at));
  }
  __device__ __forceinline__ void widened(const Part&, float (&to)[EIGHT]) const {
#pragma unroll
    for (unsigned i = 0; i < EIGHT; ++i) to[i] = float8((i < 4 ? all.x >> 8 * i : all.y >> 8 * (i - 4)) & 0xff);
  }
};

// Eight codes: `bits` bytes.
__device__ __forceinline__ uint2 load_codes(const Part& part, unsigned slot, unsigned at) {
  const uint8_t* from = part.numbers + (uint64_t(slot) * (part.dim / EIGHT) + at / EIGHT) * part.bits;
  if (part.bits == 8) return __ldg(reinterpret_cast<const uint2*>(from));
  if (part.bits == 4) return make_uint2(__ldg(reinterpret_cast<const uint32_t*>(from)), 0);
  return make_uint2(__ldg(reinterpret_cast<const uint16_t*>(from)), 0);
}

__device__ __forceinline__ unsigned code_of(const uint2& codes, unsigned bits, unsigned i) {
  const unsigned at = i * bits;
  return (at < 32 ? codes.x >> at : codes.y >> (at - 32)) & ((1u << bits) - 1);
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
    for (unsigned i = 0; i < EIGHT; ++i) to[i] = float(code_of(codes, part.bits, i)) * scale[i] + zero[i];
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
    for (unsigned i = 0; i < EIGHT; ++i) to[i] = float(code_of(codes, part.bits, i)) * scale + zero;
  }
};

template <>
struct Stored<LEVEL_CODES> {
  uint2 codes;
  __half scale;

  __device__ __forceinline__ void load(const Part& part, unsigned slot, unsigned at) {
    codes = load_codes(part, slot, at);
    const uint16_t* scales = reinterpret_cast<const uint16_t*>(part.scales);
    const uint16_t bits = __ldg(scales + uint64_t(slot) * (part.dim / part.group) + at / part.group);
    memcpy(&scale, &bits, sizeof bits);
  }
  __device__ __forceinline__ void widened(const Part& part, float (&to)[EIGHT]) const {
    const float by = widen(scale);
#pragma unroll
    for (unsigned i = 0; i < EIGHT; ++i) to[i] = __ldg(part.levels + code_of(codes, part.bits, i)) * by;
  }
};

// The numbers at .. at + 8 of entry `slot`, for code that does not ask ahead.
__device__ __forceinline__ void read_eight(unsigned kind, const Part& part, unsigned slot, unsigned at, float (&to)[EIGHT]) {
  with_kind(kind, [&](auto chosen) {
    Stored<decltype(chosen)::value> stored;
    stored.load(part, slot, at);
    stored.widened(part, to);
  });
}

// Writes number `at` of a part whose numbers stand for themselves.
__device__ __forceinline__ void store_float(void* to, uint32_t dtype, uint64_t at, float x) {
  switch (dtype) {
    case DTYPE_F32: static_cast<float*>(to)[at] = x; break;
    case DTYPE_F16: static_cast<__half*>(to)[at] = narrow<__half>(x); break;
    case DTYPE_BF16: static_cast<__nv_bfloat16*>(to)[at] = narrow<__nv_bfloat16>(x); break;
    default: static_cast<uint8_t*>(to)[at] = to_float8(x);
  }
}

// Transforms of keys and values. Twin: src/codec/dual.rs.
constexpr uint32_t TRANSFORM_NONE = 0, TRANSFORM_RANDOM = 2;
// When a transform turns signs at random.
constexpr uint32_t TURNED_FIRST = 1, TURNED_LAST = 2;

// A number of channel `i` after its sign was turned, if it is one that is.
__device__ __forceinline__ float turned(unsigned i, float x) {
  uint32_t bits = i + 0x25041987u;
  bits = (bits ^ bits >> 16) * 0x85ebca6bu;
  bits = (bits ^ bits >> 13) * 0xc2b2ae35u;
  return (bits ^ bits >> 16) & 1 ? -x : x;
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
