// Attention of one new query per sequence over lanes of any length. Twin: src/attention/decode.rs.
//
// An item is a lane with the queries of its heads. Its entries from `first` on are cut into tasks of `chunk`; the partial softmax
// results of the tasks of a head are merged by their maxima.
//
// decode_attend_l{lanes}_g{group}: a block is one task of one KV head, for up to g of its queries.
//   Reads runs of keys and values [heads, capacity, dim] in any codecs (dim a multiple of 8 up to 256, aligned as codec.cuh reads
//   them), queries [heads * group, dim] f32, dead [len] bytes or null, positions [len] or null: entries before position `since` do
//   not count. Writes, per task and query of the group: the maximum and the sum of its weights to stats [tasks, group, 2], the
//   weighted values to partials [tasks, group, dim], and for items with sums the weights to weights [heads * group, len] of the
//   item. Weights are 2^(score - maximum), scores times scale * log2(e) and under the soft cap; a task without an entry that
//   counts has the maximum -infinity and the sum 0. An item whose heads are one task each, and whose values went through no transform,
//   is marked as whole: its results, and its factors, are written at once, and merge passes over it. `lanes` lanes of a warp read one row, eight numbers each; which code reads a
//   run is chosen once per run, the same for the whole block.
//   Launch: grid (most tasks of an item, items * ceil(group / g)), 128 threads, (g * chunk + g * dim) * 4 bytes of shared memory.
//
// decode_merge_{f32,f16,bf16}: out [heads * group, dim] in the format from the partial results of all tasks of a head, zeros when
//   no entry counts, through the inverse of the transform of the values where the item has one; for items with sums also factors
//   [tasks, group], what a task's weights count for, divided by the query heads of the lane.
//   Launch: grid (most heads * group of an item, items), 128 threads, dim * 4 bytes of shared memory.
//
// decode_sums: sums[e] += the probability of entry e, averaged over the query heads of the lane, or = where the launch says so. No atomics: an entry is added
//   up by one thread in a fixed order. Launch: grid (ceil(most entries of an item / 128), items), 128 threads.
//
// Floor: heads * len * bytes of a key and a value per item (every key and value once, whatever the group up to 8) over the memory
// bandwidth; 4 FLOPs per element and query head.
#include "codec.cuh"

namespace decode {

constexpr unsigned THREADS = 128;
// Rows that a team of lanes asks for before it uses the first: as many bytes of f32 as of f16.
template <unsigned KIND>
constexpr unsigned AHEAD = KIND == FULL ? 2 : 4;

// Reads entries low .. high of a part, whose first is entry `start` of the lane, a row per team: use(entry, numbers) is called by all
// lanes of a warp, for entries at and behind `high` with anything.
template <unsigned KIND, unsigned LANES, typename Use>
__device__ __forceinline__ void for_rows_of(const Part& part, unsigned start, unsigned low, unsigned high, const Use& use) {
  constexpr unsigned TEAMS = THREADS / LANES;
  const unsigned team = threadIdx.x / LANES, at = threadIdx.x % LANES * EIGHT;
  for (unsigned base = low; base < high; base += TEAMS * AHEAD<KIND>) {
    Stored<KIND> rows[AHEAD<KIND>] = {};
#pragma unroll
    for (unsigned u = 0; u < AHEAD<KIND>; ++u) {
      const unsigned entry = base + u * TEAMS + team;
      if (entry < high && at < part.dim) rows[u].load(part, entry - start, at);
    }
#pragma unroll
    for (unsigned u = 0; u < AHEAD<KIND>; ++u) {
      float numbers[EIGHT];
      rows[u].widened(part, numbers);
      use(base + u * TEAMS + team, numbers);
    }
  }
}

template <unsigned LANES, typename Use>
__device__ __forceinline__ void for_rows(unsigned kind, const Part& part, unsigned start, unsigned low, unsigned high,
                                         const Use& use) {
  with_kind(kind, [&](auto chosen) { for_rows_of<decltype(chosen)::value, LANES>(part, start, low, high, use); });
}

// The element with this number from an address on.
template <typename T>
__device__ __forceinline__ T* at_element(uint64_t base, uint64_t element) {
  return reinterpret_cast<T*>(base + element * sizeof(T));
}

// A result in the format of the launch.
__device__ __forceinline__ void store_result(const DecodeArgs& args, uint64_t element, float x) {
  switch (args.format) {
    case 0: *at_element<float>(args.out, element) = x; break;
    case 1: *at_element<__half>(args.out, element) = narrow<__half>(x); break;
    default: *at_element<__nv_bfloat16>(args.out, element) = narrow<__nv_bfloat16>(x);
  }
}

template <unsigned LANES, unsigned GROUP>
__device__ __forceinline__ void attend(const DecodeArgs& args) {
  const unsigned dim = args.dim, chunk = args.chunk, group = args.group;
  float* weights = shared_memory<float>();  // [GROUP, chunk]
  float* sums = weights + GROUP * chunk;    // [GROUP, dim]

  const DecodeItem item = args.items[blockIdx.y % args.count];
  const unsigned head = blockIdx.x / item.chunks;
  // A block whose item has fewer tasks than another.
  if (head >= item.heads) return;
  const unsigned task = item.first_task + blockIdx.x;
  const unsigned from = item.first + blockIdx.x % item.chunks * chunk;
  const unsigned to = min(from + chunk, item.len);
  const unsigned first_query = blockIdx.y / args.count * GROUP;
  const uint8_t* dead = (item.marks & MARK_DEAD) != 0 ? args.dead + item.dead : nullptr;
  const uint32_t* positions = (item.marks & MARK_POSITIONS) != 0 ? args.positions + item.positions : nullptr;
  const float* queries_of = at_element<const float>(args.queries, item.queries);
  const unsigned queries = min(GROUP, group - first_query);
  const unsigned lane = threadIdx.x % LANES, at = lane * EIGHT;
  const unsigned last_run = item.first_run + item.runs;

  float query[GROUP][EIGHT];
#pragma unroll
  for (unsigned g = 0; g < GROUP; ++g) {
    const float* row = queries_of + uint64_t(head * group + first_query + g) * dim + at;
#pragma unroll
    for (unsigned i = 0; i < EIGHT; ++i) query[g][i] = g < queries && at < dim ? row[i] * args.scale : 0.0f;
  }

  for (unsigned index = item.first_run; index < last_run; ++index) {
    const Run& run = args.runs[index];
    const unsigned start = run.start, low = max(from, start), high = min(to, start + run.len);
    if (low >= high) continue;
    for_rows<LANES>(kind_of(run.key), Part::keys(run, args.tables, head, dim), start, low, high,
                    [&](unsigned entry, const float(&key)[EIGHT]) {
      const bool counts = entry < high && (dead == nullptr || dead[entry] == 0) &&
                          (positions == nullptr || positions[entry] >= item.since);
#pragma unroll
      for (unsigned g = 0; g < GROUP; ++g) {
        float score = 0.0f;
#pragma unroll
        for (unsigned i = 0; i < EIGHT; ++i) score += query[g][i] * key[i];
        score = team_sum<LANES>(score);
        if (lane == 0 && entry < high) {
          weights[g * chunk + entry - from] = counts ? capped(score, args.softcap) : -INFINITY;
        }
      }
    });
  }
  __syncthreads();

  for (unsigned g = threadIdx.x / WARP; g < queries; g += THREADS / WARP) {
    float* row = weights + g * chunk;
    float max = -INFINITY;
    for (unsigned i = threadIdx.x % WARP; i < to - from; i += WARP) max = fmaxf(max, row[i]);
    max = team_max<WARP>(max);
    float total = 0.0f;
    float* saved = (item.marks & MARK_SUMS) == 0
                       ? nullptr
                       : args.weights + item.weights + uint64_t(head * group + first_query + g) * item.len + from;
    for (unsigned i = threadIdx.x % WARP; i < to - from; i += WARP) {
      const float weight = weight_of(row[i], max);
      row[i] = weight;
      total += weight;
      if (saved != nullptr) saved[i] = weight;
    }
    total = team_sum<WARP>(total);
    if (threadIdx.x % WARP == 0) {
      float* stats = args.stats + (uint64_t(task) * group + first_query + g) * 2;
      stats[0] = max;
      stats[1] = total;
    }
  }
  __syncthreads();

  float sum[GROUP][EIGHT] = {};
  for (unsigned index = item.first_run; index < last_run; ++index) {
    const Run& run = args.runs[index];
    const unsigned start = run.start, low = max(from, start), high = min(to, start + run.len);
    if (low >= high) continue;
    for_rows<LANES>(kind_of(run.value), Part::values(run, args.tables, head, dim), start, low, high,
                    [&](unsigned entry, const float(&value)[EIGHT]) {
#pragma unroll
      for (unsigned g = 0; g < GROUP; ++g) {
        const float weight = g < queries && entry < high ? weights[g * chunk + entry - from] : 0.0f;
#pragma unroll
        for (unsigned i = 0; i < EIGHT; ++i) sum[g][i] += weight * value[i];
      }
    });
  }
  // Teams of a warp by shuffles, then the warps one after the other.
#pragma unroll
  for (unsigned g = 0; g < GROUP; ++g) {
#pragma unroll
    for (unsigned i = 0; i < EIGHT; ++i) {
#pragma unroll
      for (unsigned step = LANES; step < WARP; step *= 2) sum[g][i] += __shfl_xor_sync(ALL_LANES, sum[g][i], step);
    }
  }
  for (unsigned warp = 0; warp < THREADS / WARP; ++warp) {
    if (threadIdx.x / WARP == warp && threadIdx.x % WARP < LANES && at < dim) {
#pragma unroll
      for (unsigned g = 0; g < GROUP; ++g) {
#pragma unroll
        for (unsigned i = 0; i < EIGHT; ++i) {
          sums[g * dim + at + i] = sum[g][i] + (warp == 0 ? 0.0f : sums[g * dim + at + i]);
        }
      }
    }
    __syncthreads();
  }
  if ((item.marks & MARK_WHOLE) == 0) {
    float* partials = args.partials + (uint64_t(task) * group + first_query) * dim;
    for (unsigned i = threadIdx.x; i < queries * dim; i += THREADS) partials[i] = sums[i];
    return;
  }
  // As merge does with the only part. The block itself wrote the totals, before the last barrier.
  const float* stats = args.stats + (uint64_t(task) * group + first_query) * 2;
  const uint64_t to_row = item.out + uint64_t(head * group + first_query) * dim;
  for (unsigned i = threadIdx.x; i < queries * dim; i += THREADS) {
    const float total = stats[i / dim * 2 + 1];
    store_result(args, to_row + i, sums[i] * (total > 0.0f ? 1.0f / total : 0.0f));
  }
  if ((item.marks & MARK_SUMS) != 0 && threadIdx.x < queries) {
    const float total = stats[threadIdx.x * 2 + 1];
    const float inverse = total > 0.0f ? 1.0f / total : 0.0f;
    args.factors[uint64_t(task) * group + first_query + threadIdx.x] = inverse / float(item.heads * group);
  }
}

template <typename O>
__device__ __forceinline__ void merge(const DecodeArgs& args) {
  const DecodeItem item = args.items[blockIdx.y];
  const unsigned dim = args.dim, group = args.group;
  const unsigned head = blockIdx.x / group, query = blockIdx.x % group;
  if (head >= item.heads || (item.marks & MARK_WHOLE) != 0) return;
  const uint64_t first = uint64_t(item.first_task + head * item.chunks) * group + query;  // then every group-th
  // Every warp finds the same maximum and total.
  float max = -INFINITY;
  for (unsigned part = threadIdx.x % WARP; part < item.chunks; part += WARP) {
    max = fmaxf(max, args.stats[(first + uint64_t(part) * group) * 2]);
  }
  max = team_max<WARP>(max);
  float total = 0.0f;
  for (unsigned part = threadIdx.x % WARP; part < item.chunks; part += WARP) {
    const float* stats = args.stats + (first + uint64_t(part) * group) * 2;
    total += weight_of(stats[0], max) * stats[1];
  }
  total = team_sum<WARP>(total);
  const float inverse = total > 0.0f ? 1.0f / total : 0.0f;
  if ((item.marks & MARK_SUMS) != 0) {
    const float share = inverse / float(item.heads * group);
    for (unsigned part = threadIdx.x; part < item.chunks; part += THREADS) {
      const uint64_t index = first + uint64_t(part) * group;
      args.factors[index] = weight_of(args.stats[index * 2], max) * share;
    }
  }
  float* row = shared_memory<float>();
  O* out = at_element<O>(args.out, item.out) + uint64_t(blockIdx.x) * dim;
  for (unsigned i = threadIdx.x; i < dim; i += THREADS) {
    float sum = 0.0f;
    for (unsigned part = 0; part < item.chunks; ++part) {
      const uint64_t index = first + uint64_t(part) * group;
      sum += weight_of(args.stats[index * 2], max) * args.partials[index * dim + i];
    }
    if (item.transform == TRANSFORM_NONE) {
      out[i] = narrow<O>(sum * inverse);
    } else {
      row[i] = sum * inverse;
    }
  }
  if (item.transform == TRANSFORM_NONE) return;
  hadamard<THREADS>(row, dim);
  const float factor = 1.0f / sqrtf(float(dim));
  for (unsigned i = threadIdx.x; i < dim; i += THREADS) {
    out[i] = narrow<O>(item.transform == TRANSFORM_RANDOM ? turned(i, row[i] * factor) : row[i] * factor);
  }
}

__device__ __forceinline__ void sums(const DecodeArgs& args) {
  const DecodeItem item = args.items[blockIdx.y];
  const unsigned entry = blockIdx.x * THREADS + threadIdx.x;
  if ((item.marks & MARK_SUMS) == 0 || entry >= item.len) return;
  float* all = at_element<float>(args.sums, item.sums);
  if (entry < item.first) {
    if (args.sets_sums != 0) all[entry] = 0.0f;
    return;
  }
  float sum = 0.0f;
  for (unsigned head = 0; head < item.heads; ++head) {
    const uint64_t task = item.first_task + head * item.chunks + (entry - item.first) / args.chunk;
    for (unsigned query = 0; query < args.group; ++query) {
      const float* weights = args.weights + item.weights + uint64_t(head * args.group + query) * item.len;
      sum += args.factors[task * args.group + query] * weights[entry];
    }
  }
  all[entry] = args.sets_sums != 0 ? sum : all[entry] + sum;
}

}  // namespace decode

// The most blocks per multiprocessor whose registers spill nothing: scripts/kernels.mjs.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
#define ALONE 4
#define EIGHTS 2
#else
#define ALONE 5
#define EIGHTS 3
#endif

#define ATTEND(LANES)                                                                                       \
  KERNEL_OF(ALONE, decode_attend_l##LANES##_g1, DecodeArgs, decode::THREADS, decode::attend<LANES, 1>)       \
  KERNEL_OF(3, decode_attend_l##LANES##_g4, DecodeArgs, decode::THREADS, decode::attend<LANES, 4>)           \
  KERNEL_OF(EIGHTS, decode_attend_l##LANES##_g8, DecodeArgs, decode::THREADS, decode::attend<LANES, 8>)

// For dim up to 64, 128 and 256.
ATTEND(8)
ATTEND(16)
ATTEND(32)
KERNEL(decode_merge_f32, DecodeArgs, decode::THREADS, decode::merge<float>)
KERNEL(decode_merge_f16, DecodeArgs, decode::THREADS, decode::merge<__half>)
KERNEL(decode_merge_bf16, DecodeArgs, decode::THREADS, decode::merge<__nv_bfloat16>)
KERNEL(decode_sums, DecodeArgs, decode::THREADS, decode::sums)
