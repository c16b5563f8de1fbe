// Attention of many new queries over lanes that hold their keys. Twin: src/attention/prefill.rs.
//
// prefill_attend_d{64,128,256}: a block is one query head and Q query rows (64; 32 for d256), heads of dim up to d, a
//   multiple of 8. Reads queries (rows of query_heads * dim f32, `stride` apart), runs of keys and values
//   [heads, capacity, dim] in any codecs, aligned as codec.cuh reads them, dead [len] bytes or null per lane. With `causal`, query i
//   sees the first len - n + i + 1 entries of its lane, or len - n + ends[i] where the lane has ends [n], which never fall;
//   else all; where the lane has positions [len], only those of
//   the last `window` positions up to its own, of which a block's first is at entry starts[block] or behind. Scores are capped.
//   Writes out [n, query_heads, dim] f32, zeros for a query that
//   sees no entry that counts, and, unless lse is null, lse [query_heads, n]: log2 of the sum of 2^(score * scale * log2(e)),
//   +infinity for such a query. Online softmax over tiles of E entries (64; 32 for d256); no buffer grows with n * len.
//   Launch: grid (ceil(n / Q), query heads), 256 threads, blocks that see most first;
//   ((Q + E) * (dim + 4) + Q * (E + 4)) * 4 + E * 48 bytes of shared memory.
//
// prefill_columns_d{64,128,256}: sums [heads, len] of a lane, overwritten: over the `listed` query rows (ascending, of
//   weight not 0) and the query heads of the KV head, weight * probability, divided by the group. Probabilities are recomputed
//   from lse. Dead entries and those that no listed query sees get 0. A block is one KV head and E entries and adds up its own
//   columns in a fixed order: no atomics. Launch: grid (ceil(most entries / E), KV heads), otherwise as above.
//
// Floor: 4 * query_heads * dim FLOPs per visible pair of query and entry (half of n * len when causal), 2 * query_heads * dim
// for every pair with a listed query; bytes are negligible. This version multiplies in f32 on the ordinary cores, from tiles in
// shared memory; tensor cores (mma, wgmma) are later work.
#include "codec.cuh"

namespace prefill {

constexpr unsigned THREADS = 256;

// Threads are 16 x 16: thread (ty, tx) has the rows ty + 16 i of a tile of scores and its columns tx + 16 j.
template <unsigned D>
struct Shape {
  static constexpr unsigned ROWS = D <= 128 ? 4 : 2;    // per thread
  static constexpr unsigned COLUMNS = D <= 128 ? 4 : 2;  // per thread
  static constexpr unsigned QUERIES = 16 * ROWS;
  static constexpr unsigned ENTRIES = 16 * COLUMNS;
  static constexpr unsigned VECTORS = D / 64;  // of 4 elements of a result row, per thread
};

// Where the entries of a tile are, and whether they count.
struct Place {
  // Null behind the lane.
  const Run* run;
  unsigned slot;
  // 0 without a window.
  unsigned position;
  bool counts;
};

template <unsigned D>
struct Tiles {
  float* queries;  // [QUERIES, dim + 4]: the padding keeps the rows of a tile in different banks
  float* entries;  // [ENTRIES, dim + 4], keys or values
  float* scores;   // [QUERIES, ENTRIES + 4]
  Place* places;   // [2, ENTRIES]
  unsigned dim;
  unsigned pitch;

  __device__ __forceinline__ explicit Tiles(unsigned dim_) : dim(dim_), pitch(dim_ + 4) {
    using S = Shape<D>;
    queries = shared_memory<float>();
    entries = queries + S::QUERIES * pitch;
    scores = entries + S::ENTRIES * pitch;
    places = reinterpret_cast<Place*>(scores + S::QUERIES * (S::ENTRIES + 4));
  }

  // Finds the entries first .. first + ENTRIES of a head. No barrier.
  __device__ __forceinline__ void find(const PrefillArgs& args, const PrefillLane& lane, unsigned first,
                                       unsigned buffer) const {
    if (threadIdx.x >= Shape<D>::ENTRIES) return;
    const unsigned entry = first + threadIdx.x;
    Place place{nullptr, 0, 0, false};
    if (entry < lane.len) {
      const Run* run = args.runs + lane.first_run;
      while (entry - run->start >= run->len) ++run;
      place.run = run;
      place.slot = entry - run->start;
      place.position = lane.positions == nullptr ? 0 : lane.positions[entry];
      place.counts = lane.dead == nullptr || lane.dead[entry] == 0;
    }
    places[buffer * Shape<D>::ENTRIES + threadIdx.x] = place;
  }

  // Widens keys or values of a tile into shared memory; rows behind the lane are 0. No barrier.
  __device__ __forceinline__ void load(const float* tables, unsigned head, unsigned buffer, bool values) const {
    const unsigned eights = dim / EIGHT;
    for (unsigned i = threadIdx.x; i < Shape<D>::ENTRIES * eights; i += THREADS) {
      const unsigned row = i / eights, at = i % eights * EIGHT;
      const Place& place = places[buffer * Shape<D>::ENTRIES + row];
      float wide[EIGHT] = {};
      if (place.run != nullptr) {
        const Run& run = *place.run;
        const Part part = values ? Part::values(run, tables, head, dim) : Part::keys(run, tables, head, dim);
        read_eight(kind_of(values ? run.value : run.key), part, place.slot, at, wide);
      }
      float4* to = reinterpret_cast<float4*>(entries + row * pitch + at);
      to[0] = make_float4(wide[0], wide[1], wide[2], wide[3]);
      to[1] = make_float4(wide[4], wide[5], wide[6], wide[7]);
    }
  }

  // scores[i][j] = query row (ty + 16 i) . entry (tx + 16 j).
  __device__ __forceinline__ void multiply(float (&to)[Shape<D>::ROWS][Shape<D>::COLUMNS]) const {
    using S = Shape<D>;
    const unsigned tx = threadIdx.x % 16, ty = threadIdx.x / 16;
#pragma unroll
    for (unsigned i = 0; i < S::ROWS; ++i) {
#pragma unroll
      for (unsigned j = 0; j < S::COLUMNS; ++j) to[i][j] = 0.0f;
    }
#pragma unroll 2
    for (unsigned at = 0; at < dim; at += 4) {
      float4 row[S::ROWS];
#pragma unroll
      for (unsigned i = 0; i < S::ROWS; ++i) row[i] = *reinterpret_cast<const float4*>(queries + (ty + 16 * i) * pitch + at);
#pragma unroll
      for (unsigned j = 0; j < S::COLUMNS; ++j) {
        const float4 key = *reinterpret_cast<const float4*>(entries + (tx + 16 * j) * pitch + at);
#pragma unroll
        for (unsigned i = 0; i < S::ROWS; ++i) {
          to[i][j] += row[i].x * key.x;
          to[i][j] += row[i].y * key.y;
          to[i][j] += row[i].z * key.z;
          to[i][j] += row[i].w * key.w;
        }
      }
    }
  }
};

// How many entries of its lane query `row` sees.
__device__ __forceinline__ unsigned visible(const PrefillArgs& args, const PrefillLane& lane, unsigned row) {
  if (args.causal == 0) return lane.len;
  return lane.len - args.n + (lane.ends == nullptr ? row + 1 : lane.ends[row]);
}

// The first position that query `row` sees.
__device__ __forceinline__ unsigned since(const PrefillArgs& args, const PrefillLane& lane, unsigned row) {
  if (lane.positions == nullptr) return 0;
  const unsigned position = lane.positions[lane.len - args.n + row];
  return position < args.window ? 0 : position + 1 - args.window;
}

template <unsigned D>
__device__ __forceinline__ void attend(const PrefillArgs& args) {
  using S = Shape<D>;
  const Tiles<D> tiles(args.dim);
  const unsigned dim = args.dim;
  const unsigned tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  const unsigned query_head = blockIdx.y;
  const unsigned kv_head = query_head / args.group;
  const PrefillLane lane = args.lanes[args.head_lanes[kv_head]];
  const unsigned head = kv_head - lane.first_head;
  // The last blocks see the most and are started first.
  const unsigned first = (gridDim.x - 1 - blockIdx.x) * S::QUERIES;
  const unsigned rows = min(S::QUERIES, args.n - first);
  const unsigned end = visible(args, lane, first + rows - 1);

  for (unsigned i = threadIdx.x; i < S::QUERIES * dim; i += THREADS) {
    const unsigned row = i / dim, at = i % dim;
    tiles.queries[row * tiles.pitch + at] =
        row < rows ? args.queries[(first + row) * args.stride + query_head * dim + at] * args.scale : 0.0f;
  }
  float maxima[S::ROWS], totals[S::ROWS];
  float4 out[S::ROWS][S::VECTORS];
#pragma unroll
  for (unsigned i = 0; i < S::ROWS; ++i) {
    maxima[i] = -INFINITY;
    totals[i] = 0.0f;
#pragma unroll
    for (unsigned v = 0; v < S::VECTORS; ++v) out[i][v] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  }
  const unsigned start = lane.starts == nullptr ? 0 : lane.starts[first / S::QUERIES];
  tiles.find(args, lane, start, 0);

  unsigned buffer = 0;
  for (unsigned tile = start; tile < end; tile += S::ENTRIES, buffer ^= 1) {
    __syncthreads();
    tiles.load(args.tables, head, buffer, false);
    __syncthreads();
    float scores[S::ROWS][S::COLUMNS];
    tiles.multiply(scores);
#pragma unroll
    for (unsigned i = 0; i < S::ROWS; ++i) {
      const unsigned row = ty + 16 * i;
      const unsigned sees = row < rows ? visible(args, lane, first + row) : 0;
      const unsigned oldest = row < rows ? since(args, lane, first + row) : 0;
      float max = maxima[i];
#pragma unroll
      for (unsigned j = 0; j < S::COLUMNS; ++j) {
        const unsigned column = tx + 16 * j;
        const Place& place = tiles.places[buffer * S::ENTRIES + column];
        const bool counts = tile + column < sees && place.counts && place.position >= oldest;
        scores[i][j] = counts ? capped(scores[i][j], args.softcap) : -INFINITY;
        max = fmaxf(max, scores[i][j]);
      }
      max = team_max<16>(max);
      const float fade = weight_of(maxima[i], max);
      float total = 0.0f;
#pragma unroll
      for (unsigned j = 0; j < S::COLUMNS; ++j) {
        const float weight = weight_of(scores[i][j], max);
        total += weight;
        tiles.scores[row * (S::ENTRIES + 4) + tx + 16 * j] = weight;
      }
      totals[i] = totals[i] * fade + team_sum<16>(total);
      maxima[i] = max;
#pragma unroll
      for (unsigned v = 0; v < S::VECTORS; ++v) {
        out[i][v].x *= fade;
        out[i][v].y *= fade;
        out[i][v].z *= fade;
        out[i][v].w *= fade;
      }
    }
    __syncthreads();
    tiles.load(args.tables, head, buffer, true);
    tiles.find(args, lane, tile + S::ENTRIES, buffer ^ 1);
    __syncthreads();
    for (unsigned entry = 0; entry < S::ENTRIES; entry += 4) {
      float4 weights[S::ROWS];
#pragma unroll
      for (unsigned i = 0; i < S::ROWS; ++i) {
        weights[i] = *reinterpret_cast<const float4*>(tiles.scores + (ty + 16 * i) * (S::ENTRIES + 4) + entry);
      }
#pragma unroll
      for (unsigned v = 0; v < S::VECTORS; ++v) {
        const unsigned at = 4 * (tx + 16 * v);
        if (at < dim) {
#pragma unroll
          for (unsigned k = 0; k < 4; ++k) {
            const float4 value = *reinterpret_cast<const float4*>(tiles.entries + (entry + k) * tiles.pitch + at);
#pragma unroll
            for (unsigned i = 0; i < S::ROWS; ++i) {
              const float weight = k == 0 ? weights[i].x : k == 1 ? weights[i].y : k == 2 ? weights[i].z : weights[i].w;
              out[i][v].x += weight * value.x;
              out[i][v].y += weight * value.y;
              out[i][v].z += weight * value.z;
              out[i][v].w += weight * value.w;
            }
          }
        }
      }
    }
  }

#pragma unroll
  for (unsigned i = 0; i < S::ROWS; ++i) {
    const unsigned row = ty + 16 * i;
    if (row >= rows) continue;
    const float inverse = totals[i] > 0.0f ? 1.0f / totals[i] : 0.0f;
    float* to = args.out + (uint64_t(first + row) * args.query_heads + query_head) * dim;
#pragma unroll
    for (unsigned v = 0; v < S::VECTORS; ++v) {
      const unsigned at = 4 * (tx + 16 * v);
      const float4 sum = out[i][v];
      if (at < dim) {
        *reinterpret_cast<float4*>(to + at) =
            make_float4(sum.x * inverse, sum.y * inverse, sum.z * inverse, sum.w * inverse);
      }
    }
    if (args.lse != nullptr && tx == 0) {
      args.lse[uint64_t(query_head) * args.n + first + row] =
          totals[i] > 0.0f ? maxima[i] + log2f(totals[i]) : INFINITY;
    }
  }
}

template <unsigned D>
__device__ __forceinline__ void columns(const PrefillArgs& args) {
  using S = Shape<D>;
  const Tiles<D> tiles(args.dim);
  const unsigned dim = args.dim;
  const unsigned tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  const unsigned kv_head = blockIdx.y;
  const PrefillLane lane = args.lanes[args.head_lanes[kv_head]];
  const unsigned head = kv_head - lane.first_head;
  const unsigned tile = blockIdx.x * S::ENTRIES;
  if (tile >= lane.len) return;

  tiles.find(args, lane, tile, 0);
  __syncthreads();
  tiles.load(args.tables, head, 0, false);
  float sums[S::COLUMNS] = {};
  for (unsigned chunk = 0; chunk < args.listed; chunk += S::QUERIES) {
    const unsigned rows = min(S::QUERIES, args.listed - chunk);
    if (visible(args, lane, args.rows[chunk + rows - 1]) <= tile) continue;
    for (unsigned member = 0; member < args.group; ++member) {
      const unsigned query_head = kv_head * args.group + member;
      __syncthreads();
      for (unsigned i = threadIdx.x; i < S::QUERIES * dim; i += THREADS) {
        const unsigned row = i / dim, at = i % dim;
        tiles.queries[row * tiles.pitch + at] =
            row < rows ? args.queries[args.rows[chunk + row] * args.stride + query_head * dim + at] * args.scale : 0.0f;
      }
      __syncthreads();
      float scores[S::ROWS][S::COLUMNS];
      tiles.multiply(scores);
#pragma unroll
      for (unsigned i = 0; i < S::ROWS; ++i) {
        const unsigned index = chunk + ty + 16 * i;
        if (index >= args.listed) continue;
        const unsigned row = args.rows[index];
        const unsigned sees = visible(args, lane, row), oldest = since(args, lane, row);
        const float weight = args.weights[index];
        const float lse = args.lse[uint64_t(query_head) * args.n + row];
#pragma unroll
        for (unsigned j = 0; j < S::COLUMNS; ++j) {
          const unsigned column = tx + 16 * j;
          if (tile + column < sees && tiles.places[column].position >= oldest) {
            sums[j] += weight * exp2f(capped(scores[i][j], args.softcap) - lse);
          }
        }
      }
    }
  }
  // Sixteen threads have a part of each column.
#pragma unroll
  for (unsigned j = 0; j < S::COLUMNS; ++j) tiles.scores[ty * (S::ENTRIES + 4) + tx + 16 * j] = sums[j];
  __syncthreads();
  if (threadIdx.x < S::ENTRIES && tile + threadIdx.x < lane.len) {
    float sum = 0.0f;
    for (unsigned part = 0; part < 16; ++part) sum += tiles.scores[part * (S::ENTRIES + 4) + threadIdx.x];
    const bool counts = tiles.places[threadIdx.x].counts;
    lane.sums[uint64_t(head) * lane.len + tile + threadIdx.x] = counts ? sum / float(args.group) : 0.0f;
  }
}

}  // namespace prefill

#define PREFILL(D)                                                                         \
  KERNEL(prefill_attend_d##D, PrefillArgs, prefill::THREADS, prefill::attend<D>)            \
  KERNEL_OF(2, prefill_columns_d##D, PrefillArgs, prefill::THREADS, prefill::columns<D>)

PREFILL(64)
PREFILL(128)
PREFILL(256)
