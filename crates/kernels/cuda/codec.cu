// Entries from one codec to another, and transforms of rows. Twins: src/codec/encode.rs, src/codec/dual.rs.
//
// encode: writes entries at .. at + count of [heads, capacity, dim] as codes with scales, or plain, from rows that are stored in
//   other codecs, for every item of a launch (one part, keys or values, of a segment). Row r is the slot rows[r][1] of the source
//   rows[r][0]. Scales: clip * (largest - smallest) / most and clip * the smallest, both
//   rounded to f16, and codes round((x - zero) / scale) within the width; or the root mean square, and codes of the nearest levels.
//   `at` and `count` are multiples of the target's group of
//   entries. Each number is read twice, the second time from the cache. Launch: grid (x, items), 256 threads; a thread has eight
//   channels of a group of entries (per channel), or the channels of a group of an entry (per entry, plain), and strides.
//
// hadamard: to[n, heads, dim] = the orthonormal Walsh-Hadamard transform of rows of `heads * dim` elements, in place or elsewhere, whose
//   channels may turn their signs before or after it; dim a power of two up to 256. Launch: grid x, 128 threads, blocks stride over vectors; dim * 4 bytes of shared memory.
#include "codec.cuh"

namespace codec {

constexpr unsigned THREADS = 256;
constexpr unsigned ROW_THREADS = 128;

struct Rows {
  const EncodeItem& item;
  const float* tables;
  unsigned dim;

  __device__ __forceinline__ void read(unsigned head, unsigned index, unsigned at, float (&to)[EIGHT]) const {
    const Source& source = item.sources[item.rows[2 * index]];
    const Part part(source.numbers, source.scales, source.codec, tables, head, source.capacity, dim);
    read_eight(kind_of(source.codec), part, item.rows[2 * index + 1], at, to);
  }
};

// As f16 stores it, within its range.
__device__ __forceinline__ float in_half(float x) { return widen(narrow<__half>(fminf(fmaxf(x, -65504.0f), 65504.0f))); }

struct Range {
  float scale;
  float zero;
  float inverse;

  // Not fused, as the twin.
  __device__ __forceinline__ Range(float clip, float low, float high, float most)
      : scale(in_half(__fsub_rn(__fmul_rn(clip, high), __fmul_rn(clip, low)) / most)),
        zero(in_half(__fmul_rn(clip, low))),
        inverse(scale == 0.0f ? 0.0f : 1.0f / scale) {}

  __device__ __forceinline__ unsigned code(float x, float most) const {
    return unsigned(fminf(fmaxf(rintf((x - zero) * inverse), 0.0f), most));
  }
};

// As many middles between two levels as are below a number.
__device__ __forceinline__ unsigned nearest(const float* levels, unsigned bits, float x) {
  unsigned code = 0;
  for (unsigned half = 1u << (bits - 1); half > 0; half /= 2) {
    const float middle = __fmul_rn(__fadd_rn(__ldg(levels + code + half - 1), __ldg(levels + code + half)), 0.5f);
    code += x > middle ? half : 0;
  }
  return code;
}

// Eight codes as `bits` bytes.
__device__ __forceinline__ void store_codes(uint8_t* to, unsigned bits, const unsigned (&codes)[EIGHT]) {
  uint2 packed = make_uint2(0, 0);
#pragma unroll
  for (unsigned i = 0; i < EIGHT; ++i) {
    const unsigned at = i * bits;
    if (at < 32) {
      packed.x |= codes[i] << at;
    } else {
      packed.y |= codes[i] << (at - 32);
    }
  }
  if (bits == 8) {
    *aligned(reinterpret_cast<uint2*>(to)) = packed;
  } else if (bits == 4) {
    *aligned(reinterpret_cast<uint32_t*>(to)) = packed.x;
  } else {
    *aligned(reinterpret_cast<uint16_t*>(to)) = uint16_t(packed.x);
  }
}

__device__ __forceinline__ void encode(const EncodeArgs& args) {
  const EncodeItem item = args.items[blockIdx.y];
  const unsigned dim = args.dim, eights = dim / EIGHT;
  const Rows rows{item, args.tables, dim};
  const unsigned kind = kind_of(item.codec), bits = bits_of(item.codec), group = item.codec.group;
  // Of codes.
  const float most = float((1u << min(bits, 8u)) - 1);
  uint8_t* numbers = static_cast<uint8_t*>(item.numbers);
  __half* pairs = static_cast<__half*>(item.scales);
  // Entries and channels of a thread's work.
  const unsigned tall = kind == CHANNEL_CODES ? group : 1;
  const unsigned wide = kind == ENTRY_CODES || kind == LEVEL_CODES ? group : EIGHT;
  const unsigned across = dim / wide;
  const unsigned works = item.heads * (item.count / tall) * across;
  for (unsigned work = blockIdx.x * THREADS + threadIdx.x; work < works; work += gridDim.x * THREADS) {
    const unsigned first = work % across * wide;
    const unsigned entry = work / across % (item.count / tall) * tall;
    const unsigned head = work / across / (item.count / tall);
    const uint64_t row = uint64_t(head) * item.capacity + item.at + entry;
    float x[EIGHT];
    unsigned codes[EIGHT];
    if (kind == CHANNEL_CODES) {
      float low[EIGHT], high[EIGHT];
      for (unsigned e = 0; e < tall; ++e) {
        rows.read(head, entry + e, first, x);
#pragma unroll
        for (unsigned i = 0; i < EIGHT; ++i) {
          low[i] = e == 0 ? x[i] : fminf(low[i], x[i]);
          high[i] = e == 0 ? x[i] : fmaxf(high[i], x[i]);
        }
      }
      __half* to = pairs + row / group * 2 * dim + first;
      for (unsigned i = 0; i < EIGHT; ++i) {
        const Range range(item.clip, low[i], high[i], most);
        to[i] = narrow<__half>(range.scale);
        to[dim + i] = narrow<__half>(range.zero);
      }
      for (unsigned e = 0; e < tall; ++e) {
        rows.read(head, entry + e, first, x);
#pragma unroll
        for (unsigned i = 0; i < EIGHT; ++i) codes[i] = Range(item.clip, low[i], high[i], most).code(x[i], most);
        store_codes(numbers + ((row + e) * eights + first / EIGHT) * bits, bits, codes);
      }
    } else if (kind == ENTRY_CODES) {
      float low = INFINITY, high = -INFINITY;
      for (unsigned at = first; at < first + wide; at += EIGHT) {
        rows.read(head, entry, at, x);
#pragma unroll
        for (unsigned i = 0; i < EIGHT; ++i) {
          low = fminf(low, x[i]);
          high = fmaxf(high, x[i]);
        }
      }
      const Range range(item.clip, low, high, most);
      __half* to = pairs + (row * across + first / wide) * 2;
      to[0] = narrow<__half>(range.scale);
      to[1] = narrow<__half>(range.zero);
      for (unsigned at = first; at < first + wide; at += EIGHT) {
        rows.read(head, entry, at, x);
#pragma unroll
        for (unsigned i = 0; i < EIGHT; ++i) codes[i] = range.code(x[i], most);
        store_codes(numbers + (row * eights + at / EIGHT) * bits, bits, codes);
      }
    } else if (kind == LEVEL_CODES) {
      // Not fused, and in the order of the twin.
      float sums[EIGHT] = {};
      for (unsigned at = first; at < first + wide; at += EIGHT) {
        rows.read(head, entry, at, x);
#pragma unroll
        for (unsigned i = 0; i < EIGHT; ++i) sums[i] = __fadd_rn(sums[i], __fmul_rn(x[i], x[i]));
      }
      const float sum = ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
      const float scale = in_half(sqrtf(sum / float(wide)));
      const float inverse = scale == 0.0f ? 0.0f : 1.0f / scale;
      pairs[row * across + first / wide] = narrow<__half>(scale);
      const float* levels = levels_of(item.codec, args.tables);
      for (unsigned at = first; at < first + wide; at += EIGHT) {
        rows.read(head, entry, at, x);
#pragma unroll
        for (unsigned i = 0; i < EIGHT; ++i) codes[i] = nearest(levels, bits, x[i] * inverse);
        store_codes(numbers + (row * eights + at / EIGHT) * bits, bits, codes);
      }
    } else {
      rows.read(head, entry, first, x);
      for (unsigned i = 0; i < EIGHT; ++i) store_float(numbers, item.codec.dtype, row * dim + first + i, x[i]);
    }
  }
}

__device__ __forceinline__ void hadamard(const HadamardArgs& args) {
  float* row = shared_memory<float>();
  const unsigned dim = args.dim;
  const float factor = 1.0f / sqrtf(float(dim));
  for (unsigned vector = blockIdx.x; vector < args.n * args.heads; vector += gridDim.x) {
    const unsigned n = vector / args.heads, head = vector % args.heads;
    const float* from = args.from + n * args.from_stride + head * dim;
    float* to = args.to + n * args.to_stride + head * dim;
    for (unsigned i = threadIdx.x; i < dim; i += ROW_THREADS) {
      row[i] = args.turned == TURNED_FIRST ? turned(i, from[i]) : from[i];
    }
    ::hadamard<ROW_THREADS>(row, dim);
    for (unsigned i = threadIdx.x; i < dim; i += ROW_THREADS) {
      to[i] = args.turned == TURNED_LAST ? turned(i, row[i] * factor) : row[i] * factor;
    }
    __syncthreads();
  }
}

}  // namespace codec

KERNEL(encode, EncodeArgs, codec::THREADS, codec::encode)
KERNEL(hadamard_rows, HadamardArgs, codec::ROW_THREADS, codec::hadamard)
