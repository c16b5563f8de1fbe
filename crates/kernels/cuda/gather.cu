// Compaction of lanes and norms of keys. Twin: src/gather.rs.
//
// gather_{16,4,2}: copies the entries `slots`, in that order, of keys and values [heads, capacity, dim] to the entries
//   at .. at + count of [heads, to_capacity, dim], for every item of a launch (all lanes of a layer). Source and target do not
//   overlap. Formats are bytes here: a row is `units` words of 16, 4 or 2 bytes, the widest to which rows and addresses align.
//   Reads 2 * heads * count rows and 4 * heads * count bytes of slots (cached), writes as many rows. No arithmetic: the floor
//   is 4 * heads * count * row bytes over the memory bandwidth.
//   Launch: grid (x, items), 256 threads; blocks stride over the words of their item.
//
// move_{16,4,2}: copies entries within segments [heads, capacity, dim]: for every item of a launch and every (from, to) of its
//   `moves`, keys and values of entry `from` to entry `to`, of all heads. No `to` is another `from` or `to` of the item, so the
//   order does not matter. Words, reads, writes, floor and launch as those of gather.
//
// key_norms_{f32,f16,bf16}: out[h, e] = the Euclidean norm of key e of head h, e < len; keys [heads, capacity, dim], dim a
//   multiple of 8, rows aligned to 16 bytes, out [heads, len] f32. Reads heads * len * dim elements, 2 FLOPs each: the floor
//   is the memory bandwidth. Launch: grid (x, items), 256 threads, a warp per key, warps stride over the keys of their item.
#include "common.cuh"

namespace gather {

constexpr unsigned THREADS = 256;

template <typename Word>
__device__ __forceinline__ void copy(const GatherArgs& args) {
  const GatherItem item = args.items[blockIdx.y];
  const Word* keys = static_cast<const Word*>(item.keys);
  const Word* values = static_cast<const Word*>(item.values);
  Word* to_keys = static_cast<Word*>(item.to_keys);
  Word* to_values = static_cast<Word*>(item.to_values);
  const unsigned units = args.units;
  const unsigned words = item.heads * item.count * units;
  for (unsigned word = blockIdx.x * THREADS + threadIdx.x; word < words; word += gridDim.x * THREADS) {
    const unsigned row = word / units;
    const unsigned unit = word - row * units;
    const unsigned head = row / item.count;
    const unsigned index = row - head * item.count;
    const uint64_t from = (uint64_t(head) * item.capacity + item.slots[index]) * units + unit;
    const uint64_t to = (uint64_t(head) * item.to_capacity + item.at + index) * units + unit;
    const Word key = keys[from];
    const Word value = values[from];
    to_keys[to] = key;
    to_values[to] = value;
  }
}

template <typename Word>
__device__ __forceinline__ void move(const MoveArgs& args) {
  const MoveItem item = args.items[blockIdx.y];
  Word* keys = static_cast<Word*>(item.keys);
  Word* values = static_cast<Word*>(item.values);
  const unsigned units = args.units;
  const unsigned words = item.heads * item.count * units;
  for (unsigned word = blockIdx.x * THREADS + threadIdx.x; word < words; word += gridDim.x * THREADS) {
    const unsigned row = word / units;
    const unsigned unit = word - row * units;
    const unsigned head = row / item.count;
    const unsigned index = row - head * item.count;
    const uint64_t first = uint64_t(head) * item.capacity;
    const uint64_t from = (first + item.moves[2 * index]) * units + unit;
    const uint64_t to = (first + item.moves[2 * index + 1]) * units + unit;
    const Word key = keys[from];
    const Word value = values[from];
    keys[to] = key;
    values[to] = value;
  }
}

template <typename T>
__device__ __forceinline__ void norms(const NormArgs& args) {
  const NormItem item = args.items[blockIdx.y];
  const unsigned lane = threadIdx.x % WARP;
  const unsigned count = item.heads * item.len;
  const unsigned vectors = args.dim / WIDTH<T>;
  for (unsigned index = (blockIdx.x * THREADS + threadIdx.x) / WARP; index < count; index += gridDim.x * (THREADS / WARP)) {
    const unsigned head = index / item.len;
    const unsigned entry = index - head * item.len;
    const T* key = static_cast<const T*>(item.keys) + (uint64_t(head) * item.capacity + entry) * args.dim;
    float sum = 0.0f;
    for (unsigned vector = lane; vector < vectors; vector += WARP) {
      float x[WIDTH<T>];
      Vector<T>::load(key + vector * WIDTH<T>).widened(x);
#pragma unroll
      for (unsigned i = 0; i < WIDTH<T>; ++i) sum += x[i] * x[i];
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
KERNEL(key_norms_f32, NormArgs, gather::THREADS, gather::norms<float>)
KERNEL(key_norms_f16, NormArgs, gather::THREADS, gather::norms<__half>)
KERNEL(key_norms_bf16, NormArgs, gather::THREADS, gather::norms<__nv_bfloat16>)
