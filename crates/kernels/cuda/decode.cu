// Attention of one new query per sequence over lanes of any length. Twin: src/attention/decode.rs.
//
// An item is a lane with the queries of its heads. Its entries from `first` on are cut into tasks of `chunk`; the partial softmax
// results of the tasks of a head are merged by their maxima.
//
// decode_attend_{format}_l{lanes}v{vectors}_g{group}: a block is one task of one KV head, for up to g of its queries.
//   Reads runs of keys and values [heads, capacity, dim] in the format (dim a multiple of 8 up to 256, rows aligned to 16
//   bytes), queries [heads * group, dim] f32, dead [len] bytes or null, positions [len] or null: entries
//   before position `since` do not count. Writes, per task and query of the group: the maximum
//   and the sum of its weights to stats [tasks, group, 2], the weighted values to partials [tasks, group, dim], and for items
//   with sums the weights to weights [heads * group, len] of the item. Weights are 2^(score - maximum), scores times
//   scale * log2(e) and under the soft cap; a task without an entry that counts has the maximum -infinity and the sum 0.
//   `lanes` lanes of a warp read one row, `vectors` times 16 bytes each.
//   Launch: grid (tasks, ceil(group / g)), 128 threads, (g * chunk + g * dim) * 4 bytes of shared memory.
//
// decode_merge_{f32,f16,bf16}: out [heads * group, dim] in the format from the partial results of all tasks of a head, zeros when no entry counts; for
//   items with sums also factors [tasks, group], what a task's weights count for, divided by the query heads of the lane.
//   Launch: grid (most heads * group of an item, items), 128 threads.
//
// decode_sums: sums[e] += the probability of entry e, averaged over the query heads of the lane. No atomics: an entry is added
//   up by one thread in a fixed order. Launch: grid (ceil(most entries of an item / 128), items), 128 threads.
//
// Floor: 2 * heads * len * dim * element bytes per item (every key and value once, whatever the group up to 8) over the memory
// bandwidth; 4 FLOPs per element and query head.
#include "common.cuh"

namespace decode {

constexpr unsigned THREADS = 128;
// Rows that a team of lanes asks for before it uses the first.
constexpr unsigned AHEAD = 4;

template <typename T, unsigned LANES, unsigned VECTORS, unsigned GROUP>
__device__ __forceinline__ void attend(const DecodeArgs& args) {
  constexpr unsigned TEAMS = THREADS / LANES;
  const unsigned dim = args.dim, chunk = args.chunk, group = args.group;
  float* weights = shared_memory<float>();  // [GROUP, chunk]
  float* sums = weights + GROUP * chunk;    // [GROUP, dim]

  const DecodeItem item = args.items[args.owners[blockIdx.x]];
  const unsigned head = (blockIdx.x - item.first_task) / item.chunks;
  const unsigned from = item.first + (blockIdx.x - item.first_task) % item.chunks * chunk;
  const unsigned to = min(from + chunk, item.len);
  const unsigned first_query = blockIdx.y * GROUP;
  const unsigned queries = min(GROUP, group - first_query);
  const unsigned team = threadIdx.x / LANES;
  const unsigned lane = threadIdx.x % LANES;
  const unsigned last_run = item.first_run + item.runs;

  float query[VECTORS][GROUP][WIDTH<T>];
#pragma unroll
  for (unsigned v = 0; v < VECTORS; ++v) {
#pragma unroll
    for (unsigned g = 0; g < GROUP; ++g) {
      const unsigned at = (v * LANES + lane) * WIDTH<T>;
      const float* row = item.queries + uint64_t(head * group + first_query + g) * dim + at;
#pragma unroll
      for (unsigned i = 0; i < WIDTH<T>; ++i) query[v][g][i] = g < queries && at < dim ? row[i] * args.scale : 0.0f;
    }
  }

  for (unsigned index = item.first_run; index < last_run; ++index) {
    const Run run = args.runs[index];
    const unsigned low = max(from, run.start), high = min(to, run.start + run.len);
    const T* keys = static_cast<const T*>(run.keys) + uint64_t(head) * run.capacity * dim;
    for (unsigned base = low; base < high; base += TEAMS * AHEAD) {
      Vector<T> rows[AHEAD][VECTORS];
#pragma unroll
      for (unsigned u = 0; u < AHEAD; ++u) {
        const unsigned entry = base + u * TEAMS + team;
#pragma unroll
        for (unsigned v = 0; v < VECTORS; ++v) {
          const unsigned at = (v * LANES + lane) * WIDTH<T>;
          rows[u][v] = entry < high && at < dim ? Vector<T>::load(keys + uint64_t(entry - run.start) * dim + at)
                                                : Vector<T>::zero();
        }
      }
#pragma unroll
      for (unsigned u = 0; u < AHEAD; ++u) {
        const unsigned entry = base + u * TEAMS + team;
        float scores[GROUP] = {};
#pragma unroll
        for (unsigned v = 0; v < VECTORS; ++v) {
          float key[WIDTH<T>];
          rows[u][v].widened(key);
#pragma unroll
          for (unsigned g = 0; g < GROUP; ++g) {
#pragma unroll
            for (unsigned i = 0; i < WIDTH<T>; ++i) scores[g] += query[v][g][i] * key[i];
          }
        }
        const bool counts = entry < high && (item.dead == nullptr || item.dead[entry] == 0) &&
                            (item.positions == nullptr || item.positions[entry] >= item.since);
#pragma unroll
        for (unsigned g = 0; g < GROUP; ++g) {
          const float score = team_sum<LANES>(scores[g]);
          if (lane == 0 && entry < high) {
            weights[g * chunk + entry - from] = counts ? capped(score, args.softcap) : -INFINITY;
          }
        }
      }
    }
  }
  __syncthreads();

  for (unsigned g = threadIdx.x / WARP; g < queries; g += THREADS / WARP) {
    float* row = weights + g * chunk;
    float max = -INFINITY;
    for (unsigned i = threadIdx.x % WARP; i < to - from; i += WARP) max = fmaxf(max, row[i]);
    max = team_max<WARP>(max);
    float total = 0.0f;
    float* saved = item.sums == nullptr
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
      float* stats = args.stats + (uint64_t(blockIdx.x) * group + first_query + g) * 2;
      stats[0] = max;
      stats[1] = total;
    }
  }
  __syncthreads();

  float sum[VECTORS][GROUP][WIDTH<T>] = {};
  for (unsigned index = item.first_run; index < last_run; ++index) {
    const Run run = args.runs[index];
    const unsigned low = max(from, run.start), high = min(to, run.start + run.len);
    const T* values = static_cast<const T*>(run.values) + uint64_t(head) * run.capacity * dim;
    for (unsigned base = low; base < high; base += TEAMS * AHEAD) {
      Vector<T> rows[AHEAD][VECTORS];
#pragma unroll
      for (unsigned u = 0; u < AHEAD; ++u) {
        const unsigned entry = base + u * TEAMS + team;
#pragma unroll
        for (unsigned v = 0; v < VECTORS; ++v) {
          const unsigned at = (v * LANES + lane) * WIDTH<T>;
          rows[u][v] = entry < high && at < dim ? Vector<T>::load(values + uint64_t(entry - run.start) * dim + at)
                                                : Vector<T>::zero();
        }
      }
#pragma unroll
      for (unsigned u = 0; u < AHEAD; ++u) {
        const unsigned entry = base + u * TEAMS + team;
#pragma unroll
        for (unsigned v = 0; v < VECTORS; ++v) {
          float value[WIDTH<T>];
          rows[u][v].widened(value);
#pragma unroll
          for (unsigned g = 0; g < GROUP; ++g) {
            const float weight = g < queries && entry < high ? weights[g * chunk + entry - from] : 0.0f;
#pragma unroll
            for (unsigned i = 0; i < WIDTH<T>; ++i) sum[v][g][i] += weight * value[i];
          }
        }
      }
    }
  }
  // Teams of a warp by shuffles, then the warps one after the other.
#pragma unroll
  for (unsigned v = 0; v < VECTORS; ++v) {
#pragma unroll
    for (unsigned g = 0; g < GROUP; ++g) {
#pragma unroll
      for (unsigned i = 0; i < WIDTH<T>; ++i) {
#pragma unroll
        for (unsigned step = LANES; step < WARP; step *= 2) sum[v][g][i] += __shfl_xor_sync(ALL_LANES, sum[v][g][i], step);
      }
    }
  }
  for (unsigned warp = 0; warp < THREADS / WARP; ++warp) {
    if (threadIdx.x / WARP == warp && threadIdx.x % WARP < LANES) {
#pragma unroll
      for (unsigned v = 0; v < VECTORS; ++v) {
        const unsigned at = (v * LANES + lane) * WIDTH<T>;
#pragma unroll
        for (unsigned g = 0; g < GROUP; ++g) {
#pragma unroll
          for (unsigned i = 0; i < WIDTH<T>; ++i) {
            if (at < dim) sums[g * dim + at + i] = sum[v][g][i] + (warp == 0 ? 0.0f : sums[g * dim + at + i]);
          }
        }
      }
    }
    __syncthreads();
  }
  float* partials = args.partials + (uint64_t(blockIdx.x) * group + first_query) * dim;
  for (unsigned i = threadIdx.x; i < queries * dim; i += THREADS) partials[i] = sums[i];
}

template <typename O>
__device__ __forceinline__ void merge(const DecodeArgs& args) {
  const DecodeItem item = args.items[blockIdx.y];
  const unsigned dim = args.dim, group = args.group;
  const unsigned head = blockIdx.x / group, query = blockIdx.x % group;
  if (head >= item.heads) return;
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
  if (item.sums != nullptr) {
    const float share = inverse / float(item.heads * group);
    for (unsigned part = threadIdx.x; part < item.chunks; part += THREADS) {
      const uint64_t index = first + uint64_t(part) * group;
      args.factors[index] = weight_of(args.stats[index * 2], max) * share;
    }
  }
  for (unsigned i = threadIdx.x; i < dim; i += THREADS) {
    float sum = 0.0f;
    for (unsigned part = 0; part < item.chunks; ++part) {
      const uint64_t index = first + uint64_t(part) * group;
      sum += weight_of(args.stats[index * 2], max) * args.partials[index * dim + i];
    }
    static_cast<O*>(item.out)[uint64_t(blockIdx.x) * dim + i] = narrow<O>(sum * inverse);
  }
}

__device__ __forceinline__ void sums(const DecodeArgs& args) {
  const DecodeItem item = args.items[blockIdx.y];
  const unsigned entry = blockIdx.x * THREADS + threadIdx.x;
  if (item.sums == nullptr || entry < item.first || entry >= item.len) return;
  float sum = 0.0f;
  for (unsigned head = 0; head < item.heads; ++head) {
    const uint64_t task = item.first_task + head * item.chunks + (entry - item.first) / args.chunk;
    for (unsigned query = 0; query < args.group; ++query) {
      const float* weights = args.weights + item.weights + uint64_t(head * args.group + query) * item.len;
      sum += args.factors[task * args.group + query] * weights[entry];
    }
  }
  item.sums[entry] += sum;
}

}  // namespace decode

#define ATTEND_GROUP(NAME, T, LANES, VECTORS, GROUP) \
  KERNEL(decode_attend_##NAME##_g##GROUP, DecodeArgs, decode::THREADS, decode::attend<T, LANES, VECTORS, GROUP>)
#define ATTEND(FORMAT, T, LANES, VECTORS)                              \
  ATTEND_GROUP(FORMAT##_l##LANES##v##VECTORS, T, LANES, VECTORS, 1)    \
  ATTEND_GROUP(FORMAT##_l##LANES##v##VECTORS, T, LANES, VECTORS, 4)    \
  ATTEND_GROUP(FORMAT##_l##LANES##v##VECTORS, T, LANES, VECTORS, 8)

// For dim up to 64, 128 and 256.
ATTEND(f32, float, 16, 1)
ATTEND(f32, float, 32, 1)
ATTEND(f32, float, 32, 2)
ATTEND(f16, __half, 8, 1)
ATTEND(f16, __half, 16, 1)
ATTEND(f16, __half, 32, 1)
ATTEND(bf16, __nv_bfloat16, 8, 1)
ATTEND(bf16, __nv_bfloat16, 16, 1)
ATTEND(bf16, __nv_bfloat16, 32, 1)
KERNEL(decode_merge_f32, DecodeArgs, decode::THREADS, decode::merge<float>)
KERNEL(decode_merge_f16, DecodeArgs, decode::THREADS, decode::merge<__half>)
KERNEL(decode_merge_bf16, DecodeArgs, decode::THREADS, decode::merge<__nv_bfloat16>)
KERNEL(decode_sums, DecodeArgs, decode::THREADS, decode::sums)
