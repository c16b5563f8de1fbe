// Compaction of lanes and norms of keys. Twin: src/gather.rs.
//
// gather_{16,4,2}: copies the rows `slots`, in that order, of a part [heads, capacity] of a segment to the rows at .. at + count of
//   [heads, to_capacity], for every item of a launch (keys, values and their scales, of all lanes of a layer). Source and target do
//   not overlap. Codecs are bytes here: a row is `units` words of 16, 4 or 2 bytes, the widest to which rows and addresses align.
//   Reads heads * count rows and 4 * heads * count bytes of slots (cached), writes as many rows. No arithmetic: the floor is
//   2 * heads * count * row bytes over the memory bandwidth.
//   Launch: grid (x, items), 256 threads; blocks stride over the words of their item.
//
// move_{16,4,2}: copies rows within parts [heads, capacity]: for every item of a launch and every (from, to) of its `moves`, row
//   `from` to row `to`, of all heads. No `to` is another `from` or `to` of the item, so the order does not matter. Words, reads,
//   writes, floor and launch as those of gather.
//
// key_norms: out[h, e] = the Euclidean norm of key e of head h, e < len; keys in any codec, dim a multiple of 8, out [heads, len]
//   f32. Reads each key once, 2 FLOPs per element: the floor is the memory bandwidth. Launch: grid (x, items), 256 threads, a warp
//   per key, warps stride over the keys of their item.
#include "codec.cuh"

namespace gather {

constexpr unsigned THREADS = 256;

template <typename Word>
__device__ __forceinline__ void copy(const GatherArgs& args) {
  const GatherItem item = args.items[blockIdx.y];
  const Word* rows = static_cast<const Word*>(item.from);
  Word* to_rows = static_cast<Word*>(item.to);
  const unsigned units = item.units;
  const unsigned words = item.heads * item.count * units;
  for (unsigned word = blockIdx.x * THREADS + threadIdx.x; word < words; word += gridDim.x * THREADS) {
    const unsigned row = word / units;
    const unsigned unit = word - row * units;
    const unsigned head = row / item.count;
    const unsigned index = row - head * item.count;
    const uint64_t from = (uint64_t(head) * item.capacity + item.slots[index]) * units + unit;
    const uint64_t to = (uint64_t(head) * item.to_capacity + item.at + index) * units + unit;
    to_rows[to] = rows[from];
  }
}

template <typename Word>
__device__ __forceinline__ void move(const MoveArgs& args) {
  const MoveItem item = args.items[blockIdx.y];
  Word* rows = static_cast<Word*>(item.rows);
  const uint32_t* moves = reinterpret_cast<const uint32_t*>(args.table + item.moves);
  const unsigned units = item.units;
  const unsigned words = item.heads * item.count * units;
  for (unsigned word = blockIdx.x * THREADS + threadIdx.x; word < words; word += gridDim.x * THREADS) {
    const unsigned row = word / units;
    const unsigned unit = word - row * units;
    const unsigned head = row / item.count;
    const unsigned index = row - head * item.count;
    const uint64_t first = uint64_t(head) * item.capacity;
    const uint64_t from = (first + moves[2 * index]) * units + unit;
    const uint64_t to = (first + moves[2 * index + 1]) * units + unit;
    rows[to] = rows[from];
  }
}

__device__ __forceinline__ void norms(const NormArgs& args) {
  const NormItem item = args.items[blockIdx.y];
  const unsigned lane = threadIdx.x % WARP;
  const unsigned count = item.heads * item.len;
  const unsigned kind = kind_of(item.codec);
  for (unsigned index = (blockIdx.x * THREADS + threadIdx.x) / WARP; index < count; index += gridDim.x * (THREADS / WARP)) {
    const unsigned head = index / item.len;
    const unsigned entry = index - head * item.len;
    const Part part(item.keys, item.scales, item.codec, args.tables, head, item.capacity, args.dim);
    float sum = 0.0f;
    for (unsigned at = lane * EIGHT; at < args.dim; at += WARP * EIGHT) {
      float x[EIGHT];
      read_eight(kind, part, entry, at, x);
#pragma unroll
      for (unsigned i = 0; i < EIGHT; ++i) sum += x[i] * x[i];
    }
    sum = team_sum<WARP>(sum);
    if (lane == 0) item.out[index] = sqrtf(sum);
  }
}

}  // namespace gather

KERNEL(gather_16, GatherArgs, gather::THREADS, gather::copy<uint4>)
KERNEL(gather_4, GatherArgs, gather::THREADS, gather::copy<uint32_t>)
KERNEL(gather_2, GatherArgs, gather::THREADS, gather::copy<uint16_t>)
KERNEL(move_16, MoveArgs, gather::THREADS, gather::move<uint4>)
KERNEL(move_4, MoveArgs, gather::THREADS, gather::move<uint32_t>)
KERNEL(move_2, MoveArgs, gather::THREADS, gather::move<uint16_t>)
KERNEL(key_norms, NormArgs, gather::THREADS, gather::norms)
